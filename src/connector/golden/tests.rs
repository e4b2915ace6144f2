use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/connectors")
}

#[test]
fn every_connector_has_cases_and_all_cases_a_connector() {
    let catalogue = Catalogue::load(None).unwrap();
    let connectors: BTreeSet<&str> = catalogue.connectors().keys().map(String::as_str).collect();
    let files: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(files.iter().map(String::as_str).collect::<BTreeSet<_>>(), connectors);
}

#[test]
fn every_case_of_every_connector_holds() {
    let catalogue = Catalogue::load(None).unwrap_or_else(|faults| panic!("{faults}"));
    let mut faults = Faults::default();
    // Other kinds have cases of their own sort, and a test beside their code.
    let http = catalogue.connectors().iter().filter(|(_, spec)| spec.kind == ConnectorKind::Http);
    for (id, _) in http {
        let path = folder().join(format!("{id}.toml"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{id}: {error}"));
        let checked = check_cases(&catalogue, id, &path.display().to_string(), &text);
        println!("{id}: {} requests, {} answers", checked.requests, checked.answers);
        faults.extend(checked.faults);
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn what_does_not_hold_is_told_with_its_line() {
    let catalogue = Catalogue::load(None).unwrap();
    let cases = "[[request]]\nname = 'wrong body'\nsample = 'lead.captured'\nsecrets = ['s']\nurl = 'https://x.example/'\n\
        [request.expect]\nmethod = 'POST'\nbody = '{}'\nheaders = {}\n\
        [[request]]\nname = 'no expectation'\nsample = 'lead.captured'\nurl = 'https://x.example/'\n\
        [[answer]]\nstatus = 200\noutcome = 'delivered'\n\
        [[answer]]\nstatus = 503\noutcome = 'delivered'\n";
    let told = check_cases(&catalogue, "webhook_trigger", "cases.toml", cases).faults.to_string();
    for part in [
        "cases.toml:1:1: request[0]: \"wrong body\": body differs from character 2 on\n  expected {}\n",
        "cases.toml:10:1: request[1]: \"no expectation\": says nothing of what is expected",
        "cases.toml:17:1: answer[1]: 503 : expected delivered, found retry",
    ] {
        assert!(told.contains(part), "{part}\nin\n{told}");
    }
    let told =
        check_cases(&catalogue, "webhook", "cases.toml", "[[answer]]\nstatus = 'x'\n").faults.to_string();
    assert!(told.starts_with("cases.toml:2:1: "), "{told}");
    let told = check_cases(&catalogue, "webhok", "cases.toml", "").faults.to_string();
    assert!(told.contains("there is no connector \"webhok\""), "{told}");
}
