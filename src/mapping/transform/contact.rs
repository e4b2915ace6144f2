//! Transforms of countries and domains.

use std::borrow::Cow;

use celes::Country;

use super::{Build, Run, Transform, fails, gives, optional, text_run};
use crate::domain::document::TableReader;
use crate::mapping::value::Shape;

pub(super) const TRANSFORMS: &[Transform] = &[
    Transform {
        name: "country",
        makes: Some(Shape::Text),
        summary: "Finds a country by its ISO 3166-1 code or its English name, and writes its code.",
        settings: &[optional("as", "\"alpha2\" (default), \"alpha3\" or \"name\"")],
        examples: &[
            gives(r#""country""#, r#"" kenya ""#, r#""KE""#),
            gives(r#""country""#, r#""United States""#, r#""US""#),
            gives(r#"{"country": "alpha3"}"#, r#""de""#, r#""DEU""#),
            gives(r#"{"country": "name"}"#, r#""KEN""#, r#""Kenya""#),
            fails(r#""country""#, r#""Atlantis""#),
        ],
        whole: false,
        build: Build::Plain(country),
    },
    Transform {
        name: "domain",
        makes: Some(Shape::Text),
        summary: "The domain of a mail address or a URL, in lower case and without \"www.\".",
        settings: &[],
        examples: &[
            gives(r#""domain""#, r#""Ada@Mail.Example.com""#, r#""mail.example.com""#),
            gives(r#""domain""#, r#""https://www.example.com:8443/a?b""#, r#""example.com""#),
            gives(r#""domain""#, r#""www.example.com/a""#, r#""example.com""#),
            fails(r#""domain""#, r#""no domain here""#),
        ],
        whole: false,
        build: Build::Plain(|_| text_run(domain)),
    },
];

/// Names that people write and the table of names does not have.
const NAMES: &[(&str, &str)] = &[
    ("america", "US"),
    ("unitedstates", "US"),
    ("unitedstatesofamerica", "US"),
    ("uk", "GB"),
    ("unitedkingdom", "GB"),
    ("greatbritain", "GB"),
    ("england", "GB"),
    ("scotland", "GB"),
    ("wales", "GB"),
    ("northernireland", "GB"),
    ("czechrepublic", "CZ"),
    ("czechia", "CZ"),
    ("southkorea", "KR"),
    ("korea", "KR"),
    ("northkorea", "KP"),
    ("russia", "RU"),
    ("vietnam", "VN"),
    ("tanzania", "TZ"),
    ("turkey", "TR"),
    ("turkiye", "TR"),
    ("ivorycoast", "CI"),
    ("cotedivoire", "CI"),
    ("iran", "IR"),
    ("syria", "SY"),
    ("laos", "LA"),
    ("bolivia", "BO"),
    ("venezuela", "VE"),
    ("moldova", "MD"),
    ("taiwan", "TW"),
    ("palestine", "PS"),
    ("brunei", "BN"),
    ("capeverde", "CV"),
    ("eswatini", "SZ"),
    ("swaziland", "SZ"),
    ("macedonia", "MK"),
    ("northmacedonia", "MK"),
    ("drc", "CD"),
    ("drcongo", "CD"),
    ("holland", "NL"),
    ("netherlands", "NL"),
    ("thenetherlands", "NL"),
    ("uae", "AE"),
    ("unitedarabemirates", "AE"),
    ("thegambia", "GM"),
    ("gambia", "GM"),
    ("thebahamas", "BS"),
    ("bahamas", "BS"),
    ("thephilippines", "PH"),
    ("philippines", "PH"),
    ("hongkong", "HK"),
    ("macau", "MO"),
    ("macao", "MO"),
    ("vatican", "VA"),
    ("micronesia", "FM"),
    ("burma", "MM"),
];

fn find_country(text: &str) -> Option<Country> {
    let plain: String = text
        .chars()
        .filter_map(|character| match character {
            'é' | 'É' => Some('e'),
            'ô' | 'Ô' => Some('o'),
            'ç' | 'Ç' => Some('c'),
            'ü' | 'Ü' => Some('u'),
            'ã' | 'Ã' | 'Å' | 'å' => Some('a'),
            other => other.is_alphanumeric().then(|| other.to_ascii_lowercase()),
        })
        .collect();
    let known = NAMES.iter().find(|(name, _)| *name == plain).map_or(plain.as_str(), |(_, code)| *code);
    let known = known.to_ascii_lowercase();
    match known.len() {
        2 => Country::from_alpha2(&known).ok(),
        3 => Country::from_alpha3(&known).ok(),
        _ => Country::from_name(&known).or_else(|_| Country::from_alias(&known)).ok(),
    }
}

fn country(settings: &mut TableReader<'_>) -> Option<Run> {
    type Form = fn(&Country) -> &'static str;
    let alpha2: Form = |country| country.alpha2;
    let forms: [(&str, Form); 3] =
        [("alpha2", alpha2), ("alpha3", |country| country.alpha3), ("name", |country| country.long_name)];
    let form = if settings.has("as") { settings.choice("as", &forms)? } else { alpha2 };
    text_run(move |text| {
        let found = find_country(text).ok_or("no country by its ISO code or English name")?;
        Ok(Some(Cow::Owned(form(&found).to_owned())))
    })
}

fn domain(text: &str) -> Result<Option<Cow<'_, str>>, String> {
    let text = text.trim();
    let host = match text.rsplit_once('@') {
        Some((_, host)) if !text.contains('/') => host.trim_end_matches('>'),
        _ => {
            let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            host.split(':').next().unwrap_or_default()
        }
    };
    let lower = host.trim_end_matches('.').to_lowercase();
    let bare = lower.strip_prefix("www.").filter(|rest| rest.contains('.')).unwrap_or(&lower);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|character| character.is_alphanumeric() || character == '-')
    };
    if bare.len() > 253 || !bare.contains('.') || !bare.split('.').all(label) {
        return Err("no domain in it".to_owned());
    }
    Ok(Some(Cow::Owned(bare.to_owned())))
}
