use crate::spec::files::FileKind;
use crate::spec::tests::{MAPPING, connector, told};

#[test]
fn every_fault_of_receiving_is_told_with_its_place_and_a_hint() {
    let crm = connector(
        "[in]\nmapping = 'flta'\nsecret_maker = 'gatway'\nbody = ['json', 'xml', 'json']\ncolour = 'red'\n\
         delivery_id = '$.body['\nignore = { path = '$.a', op = 'like', value = 1 }\n\
         [[in.options]]\nname = 'word'\ndescription = 'A word'\n\
         [in.signature]\nalgorithm = 'hmac_sha256'\n[in.signature.headers]\nX-Sig = '{signature}'\n\
         [[in.handshake]]\nmethod = 'PUT'\nwhen = { path = '$.query.a', op = 'exists' }\n\
         token = { path = '$.query.t', option = 'word' }\nanswer = '$.query.c'\ncontent_type = 'text'\n\
         [[in.handshake]]\nmethod = 'GET'\nwhen = { path = '$.query.a', op = 'exists' }\n\
         [[in.each]]\nname = 'body'\npath = '$.body[*]'\n[[in.each]]\nname = 'a b'\n\
         [in.accepted]\nstatus = 404\n[in.ignored]\nstatus = 204\ncontent_type = 'text/plain'\n",
    );
    let all = told(&[(FileKind::Mapping, "flat", MAPPING), (FileKind::Connector, "crm", &crm)]).join("\n");
    for wanted in [
        "crm.file:7:11: in.mapping: there is no mapping \"flta\"\n  hint: did you mean \"flat\"?",
        "crm.file:8:16: in.secret_maker: unknown value \"gatway\"\n  hint: did you mean \"gateway\"?",
        "crm.file:9:8: in.body: \"xml\" is no form of body\n  hint: json, form or multipart",
        "crm.file:9:8: in.body: \"json\" is listed twice",
        "crm.file:10:1: in.colour: unknown key",
        "crm.file:11:15: in.delivery_id: ",
        "crm.file:12:",
        "in.handshake[0].method: unknown value \"PUT\"",
        "in.handshake[0].token.option: there is no secret option \"word\"\n  hint: add it to [[in.options]] with secret = true",
        "in.handshake[0].content_type: \"text\" is no content type\n  hint: such as \"application/json\"",
        "in.handshake[1].answer: exactly one of \"answer\" and \"fields\" is needed\n  hint: ",
        "crm.file:30:8: in.each[0].name: \"body\" is taken\n  hint: choose another",
        "crm.file:33:8: in.each[1].name: \"a b\" is no name\n  hint: ",
        "in.each[1].path: missing",
        "crm.file:35:10: in.accepted.status: ",
        "in.ignored.body: a 204 has no body\n  hint: write body = \"\"",
        "crm.file:38:16: in.ignored.content_type: says nothing without \"body\"",
    ] {
        assert!(all.contains(wanted), "{wanted}\nin\n{all}");
    }
}

#[test]
fn the_ways_to_verify_take_the_same_secrets_and_the_mapping_makes_events() {
    let crm = connector(
        "[in]\nmapping = 'flat'\nsecret = 'none'\n\
         [[in.signature]]\nalgorithm = 'hmac_sha256'\n[in.signature.headers]\nX-Sig = '{signature}'\n\
         [[in.signature]]\nalgorithm = 'hmac_sha1'\nkey = 'hex'\n[in.signature.headers]\nX-Old = '{signature}'\n",
    );
    let all = told(&[(FileKind::Mapping, "flat", MAPPING), (FileKind::Connector, "crm", &crm)]).join("\n");
    for wanted in [
        "crm.file:8:10: in.secret: the signature needs a secret\n  hint: write \"required\"",
        "in.signature[1]: takes another kind of secret than the first way\n  hint: write the same algorithm and key",
        "no row writes the event's type\n  hint: add a row with to = \"type\"",
    ] {
        assert!(all.contains(wanted), "{wanted}\nin\n{all}");
    }
}
