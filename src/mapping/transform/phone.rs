//! The transform of phone numbers.
//!
//! # Theory of operation
//!
//! What a number is, and how it is written, the library says, which has the metadata of every country. It takes some 7 µs,
//! most of it to look for a number in free text by patterns that are kept behind a lock. [`Shortcut`] gives the library's
//! answer for a number that is written as most systems write it, at a fraction of that, from the same metadata, compiled
//! once. It answers only where nothing can make the library think otherwise, and leaves all else to the library; a test holds
//! it to the library's answers over numbers of every country.

use std::borrow::Cow;
use std::sync::OnceLock;

use phonenumber::country::Id;
use phonenumber::metadata::{DATABASE, Descriptor, Metadata};
use phonenumber::{Mode, PhoneNumber, Type};
use regex::{Regex, RegexBuilder};

use super::{Build, Run, Transform, fails, gives, optional, text_run};
use crate::domain::document::TableReader;
use crate::mapping::value::Shape;

/// Characters of a text that may be a phone number.
const PHONE_CHARS: usize = 80;
/// Digits of a whole number that the shortcut takes; E.164 has 15 at the most.
const DIGITS: std::ops::RangeInclusive<usize> = 7..=15;
/// Characters of a number that the shortcut takes.
const SHORTCUT_CHARS: usize = 40;

pub(super) const TRANSFORMS: &[Transform] = &[Transform {
    name: "phone",
    makes: Some(Shape::Text),
    summary: "Writes a phone number as E.164. What is no number of its country by its length is an error; with \
                  `check = \"plan\"`, also what the country's numbering plan does not have, such as +1 555 555 0123.",
    settings: &[
        optional("region", "the country (ISO 3166-1 alpha-2) of a number without \"+\"; none by default"),
        optional("format", "\"e164\" (default), \"international\" or \"national\""),
        optional("check", "\"length\" (default) or \"plan\""),
    ],
    examples: &[
        gives(r#"{"phone": {"region": "KE"}}"#, r#""0712 345 678""#, r#""+254712345678""#),
        gives(r#""phone""#, r#""+1 (650) 253-0000""#, r#""+16502530000""#),
        gives(r#"{"phone": "GB"}"#, r#""tel:+44-20-7946-0018""#, r#""+442079460018""#),
        gives(r#"{"phone": {"format": "international"}}"#, r#""+254712345678""#, r#""+254 712 345678""#),
        gives(r#""phone""#, r#""+1 555 555 0123""#, r#""+15555550123""#),
        fails(r#"{"phone": {"check": "plan"}}"#, r#""+1 555 555 0123""#),
        fails(r#""phone""#, r#""0712 345 678""#),
        fails(r#"{"phone": "KE"}"#, r#""12""#),
    ],
    whole: false,
    build: Build::Plain(phone),
}];

fn phone(settings: &mut TableReader<'_>) -> Option<Run> {
    let region = match settings.text("region") {
        None if settings.has("region") => return None,
        None => None,
        Some(text) => {
            let region = text.to_ascii_uppercase().parse::<Id>().ok();
            if region.is_none() {
                let hint = "two letters (ISO 3166-1), such as \"KE\"";
                settings.fault("region", format!("unknown region \"{text}\""), Some(hint.to_owned()));
                return None;
            }
            region
        }
    };
    let modes = [("e164", Mode::E164), ("international", Mode::International), ("national", Mode::National)];
    let mode = if settings.has("format") { settings.choice("format", &modes)? } else { Mode::E164 };
    let checks = [("length", false), ("plan", true)];
    let by_plan = settings.has("check") && settings.choice("check", &checks)?;
    let shortcut = (mode == Mode::E164 && !by_plan).then(|| Shortcut::new(region));
    text_run(move |text| {
        let text = text.trim();
        if let Some(written) = shortcut.as_ref().and_then(|shortcut| shortcut.e164(text)) {
            return Ok(Some(written));
        }
        by_library(region, text, mode, by_plan).map(Some)
    })
}

/// The library's answer.
fn by_library(region: Option<Id>, text: &str, mode: Mode, by_plan: bool) -> Result<Cow<'_, str>, String> {
    if text.chars().count() > PHONE_CHARS {
        return Err("too long for a phone number".to_owned());
    }
    let number = phonenumber::parse(region, text).map_err(|_| match region {
        None if !text.starts_with('+') => {
            "no phone number with a country; start it with \"+\", or give the transform a region".to_owned()
        }
        _ => "no phone number".to_owned(),
    })?;
    if !has_length_of_its_country(&number) {
        return Err("too short or too long for its country".to_owned());
    }
    if by_plan && !number.is_valid() {
        return Err("no number of its country's numbering plan".to_owned());
    }
    let written = number.format().mode(mode).to_string();
    Ok(if written == text { Cow::Borrowed(text) } else { written.into() })
}

/// The kinds of numbers that a person may be called at.
const KINDS: &[Type] = &[
    Type::FixedLine,
    Type::Mobile,
    Type::TollFree,
    Type::PremiumRate,
    Type::SharedCost,
    Type::PersonalNumber,
    Type::Voip,
    Type::Uan,
];

fn has_length_of_its_country(number: &PhoneNumber) -> bool {
    let national = number.national();
    let digits = national.value().checked_ilog10().map_or(1, |log| log + 1) + u32::from(national.zeros());
    // Countries that share a code have their own lengths.
    DATABASE.by_code(&number.country().code()).is_some_and(|countries| {
        countries.iter().any(|country| {
            let kinds = KINDS.iter().filter_map(|kind| country.descriptors().get(*kind));
            kinds.flat_map(Descriptor::possible_length).any(|length| u32::from(*length) == digits)
        })
    })
}

/// What the shortcut knows of a country calling code.
#[derive(Debug, Default)]
struct Calling {
    /// Bit `n`: there are numbers of `n` digits after the code.
    lengths: u32,
    /// What the library takes off the front of a national number, in any country that has the code.
    stripped: Option<Regex>,
}

/// Every calling code, compiled when its first number comes.
static CALLING: [OnceLock<Option<Calling>>; 1_000] = [const { OnceLock::new() }; 1_000];

impl Calling {
    /// Of a code of at most three digits, in text.
    fn of(code: &str) -> Option<&'static Self> {
        let code: u16 = code.parse().ok()?;
        CALLING.get(usize::from(code))?.get_or_init(|| Self::compile(code)).as_ref()
    }

    fn compile(code: u16) -> Option<Self> {
        let countries = DATABASE.by_code(&code)?;
        let mut calling = Self::default();
        let mut stripped = Vec::new();
        for country in countries {
            let kinds = KINDS.iter().filter_map(|kind| country.descriptors().get(*kind));
            for length in kinds.flat_map(Descriptor::possible_length) {
                calling.lengths |= 1_u32.checked_shl(u32::from(*length)).unwrap_or(0);
            }
            stripped.extend(country.national_prefix_for_parsing().map(|pattern| pattern.as_str().to_owned()));
            stripped.extend(country.national_prefix().map(regex::escape));
        }
        calling.stripped = at_start(&stripped).ok()?;
        Some(calling)
    }

    fn has_length(&self, national: &str) -> bool {
        u32::try_from(national.len())
            .is_ok_and(|length| self.lengths.checked_shr(length).unwrap_or(0) & 1 == 1)
    }
}

/// A pattern that holds where any of these matches at the start; `None` for none.
fn at_start(patterns: &[String]) -> Result<Option<Regex>, regex::Error> {
    match patterns {
        [] => Ok(None),
        // The metadata has its patterns as a person wrote them, with line breaks.
        patterns => RegexBuilder::new(&format!("^(?:{})", patterns.join("|")))
            .ignore_whitespace(true)
            .build()
            .map(Some),
    }
}

fn matches(pattern: Option<&Regex>, text: &str) -> bool {
    pattern.is_some_and(|pattern| pattern.is_match(text))
}

/// The region of numbers without a country.
#[derive(Debug)]
struct Home {
    code: String,
    /// What is dialled there to call abroad.
    abroad: Option<Regex>,
    /// What is dialled before a national number, at most once, ...
    trunk: Option<Regex>,
    /// ... and then this, at most once.
    prefix: String,
    /// Whether what was dialled changes the rest of the number.
    changes: bool,
    /// Digits of the shortest number, where the metadata says.
    shortest: usize,
}

impl Home {
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the type of the patterns has no name here"
    )]
    fn new(country: &Metadata) -> Option<Self> {
        let pattern = |pattern: Option<&str>| {
            at_start(&pattern.map(str::to_owned).into_iter().collect::<Vec<_>>()).ok()
        };
        let prefix = country.national_prefix().unwrap_or_default();
        let trunk = country.national_prefix_for_parsing().map(|pattern| pattern.as_str());
        let escaped = regex::escape(prefix);
        Some(Self {
            code: country.country_code().to_string(),
            abroad: pattern(country.international_prefix().map(|pattern| pattern.as_str()))?,
            trunk: pattern(trunk.or((!prefix.is_empty()).then_some(escaped.as_str())))?,
            prefix: prefix.to_owned(),
            changes: country.national_prefix_transform_rule().is_some(),
            shortest: country
                .descriptors()
                .general()
                .possible_length()
                .first()
                .map_or(0, |length| usize::from(*length)),
        })
    }

    /// Whether the library would take something off the front of a national number of another country: where a region is
    /// given, it goes by that region's rules.
    fn strips(&self, national: &str) -> bool {
        matches(self.trunk.as_ref(), national)
            || (!self.prefix.is_empty() && national.starts_with(&self.prefix))
    }

    /// The national number of one that is dialled at home.
    fn national<'d>(&self, digits: &'d str) -> Option<&'d str> {
        if matches(self.abroad.as_ref(), digits) || digits.starts_with(&self.code) {
            return None;
        }
        let taken = self.trunk.as_ref().and_then(|trunk| trunk.find(digits)).map_or(0, |found| found.end());
        if taken > 0 && self.changes {
            return None;
        }
        let rest = digits.get(taken..)?;
        let rest = rest.strip_prefix(self.prefix.as_str()).unwrap_or(rest);
        (rest.len() >= self.shortest).then_some(rest)
    }
}

/// The library's answer for numbers as most systems write them: `+254712345678`, `+254 712 345 678`, and with a region
/// `0712 345 678`.
#[derive(Debug)]
struct Shortcut {
    /// The region, when one is given and known.
    home: Option<Home>,
    /// Whether a number may be judged at all.
    takes: bool,
}

impl Shortcut {
    fn new(region: Option<Id>) -> Self {
        let home = region.and_then(|region| DATABASE.by_id(region.as_ref())).and_then(Home::new);
        Self { takes: region.is_none() || home.is_some(), home }
    }

    /// The number as E.164; `None` where only the library can tell.
    fn e164<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        let rest = text.strip_prefix('+').unwrap_or(text);
        let abroad = rest.len() < text.len();
        if !self.takes
            || rest.len() > SHORTCUT_CHARS
            || !rest.starts_with(|first: char| first.is_ascii_digit())
        {
            return None;
        }
        let digits = digits(rest)?;
        if !DIGITS.contains(&digits.len()) {
            return None;
        }
        let (code, national) = if abroad {
            let codes = (1..=3).map(|length| digits.split_at(length));
            let (code, national) = codes.into_iter().find(|(code, _)| Calling::of(code).is_some())?;
            let strips = match &self.home {
                Some(home) => matches(home.abroad.as_ref(), &digits) || home.strips(national),
                None => matches(Calling::of(code)?.stripped.as_ref(), national),
            };
            if strips {
                return None;
            }
            (code, national)
        } else {
            let home = self.home.as_ref()?;
            (home.code.as_str(), home.national(&digits)?)
        };
        if national.starts_with('0') || code.starts_with('0') || !Calling::of(code)?.has_length(national) {
            return None;
        }
        // Only in digits it is written already.
        if abroad && digits.len() == rest.len() {
            return Some(Cow::Borrowed(text));
        }
        Some(Cow::Owned(format!("+{code}{national}")))
    }
}

/// The digits of a number that has nothing but digits, or digits with blanks and what stands between groups. Without a
/// blank, what stands between is RFC 3966, which the library reads by other rules.
fn digits(text: &str) -> Option<Cow<'_, str>> {
    let mut plain = true;
    let mut blanks = false;
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' => {}
            b' ' => blanks = true,
            b'(' | b')' | b'-' | b'.' => plain = false,
            _ => return None,
        }
    }
    match (plain, blanks) {
        (true, false) => Some(Cow::Borrowed(text)),
        (false, false) => None,
        (_, true) => Some(Cow::Owned(text.chars().filter(char::is_ascii_digit).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;

    use proptest::prelude::*;

    /// All numbers that the metadata shows, as a national number with the id and the code of its country.
    static EXAMPLES: LazyLock<Vec<(String, u16, String)>> = LazyLock::new(|| {
        let mut found = Vec::new();
        for country in DATABASE.iter() {
            let kinds = KINDS.iter().filter_map(|kind| country.descriptors().get(*kind));
            for example in kinds.filter_map(Descriptor::example) {
                found.push((country.id().to_owned(), country.country_code(), example.to_owned()));
            }
        }
        found.sort();
        found
    });

    fn region(id: &str) -> Option<Id> {
        id.parse().ok()
    }

    /// Whether the shortcut answered; what it answers is what the library does.
    fn agrees(region: Option<Id>, text: &str) -> bool {
        let Some(answer) = Shortcut::new(region).e164(text) else { return false };
        assert_eq!(Ok(answer), by_library(region, text, Mode::E164, false), "{text} in {region:?}");
        true
    }

    /// The number with blanks, brackets and the like, as `style` says.
    fn grouped(digits: &str, style: u8) -> String {
        let mut text = String::new();
        for (index, digit) in digits.chars().enumerate() {
            match (style, index % 3) {
                (1, 0) if index > 0 => text.push(' '),
                (2, 0) if index > 0 => text.push('-'),
                (3, 1) if index > 1 => text.push_str(" ("),
                (3, 2) if index > 2 => text.push(')'),
                (4, 2) => text.push('.'),
                (4, 0) if index > 0 => text.push_str(" - "),
                _ => {}
            }
            text.push(digit);
        }
        text
    }

    #[test]
    fn the_shortcut_agrees_with_the_library_on_every_example() {
        let examples = &*EXAMPLES;
        assert!(examples.len() > 1_000, "{}", examples.len());
        let (mut plain, mut spaced, mut home) = (0, 0, 0);
        for (id, code, national) in examples {
            let whole = format!("+{code}{national}");
            plain += usize::from(agrees(None, &whole));
            for region in [region(id), region("US"), region("KE"), region("AU"), region("IT"), region("BR")] {
                agrees(region, &whole);
            }
            spaced += usize::from(agrees(None, &format!("+{code} {}", grouped(national, 1))));
            for trunk in ["", "0", "1", "8"] {
                let taken = agrees(region(id), &format!("{trunk}{}", grouped(national, 1)));
                home += usize::from(taken && trunk == "0");
            }
        }
        println!(
            "of {} numbers: {plain} plain, {spaced} with blanks, {home} dialled at home",
            examples.len()
        );
        assert!(plain * 10 > examples.len() * 8 && spaced * 10 > examples.len() * 8);
        assert!(home * 10 > examples.len() * 4);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn the_shortcut_agrees_with_the_library_on_any_number(
            place in any::<prop::sample::Index>(),
            of in any::<prop::sample::Index>(),
            cut in 0_usize..16,
            end in "[0-9]{0,12}",
            start in prop::sample::select(vec!["+", "+", "", "0", "00", "011", "1", "+0"]),
            style in 0_u8..5,
            with_code in any::<bool>(),
        ) {
            let examples = &*EXAMPLES;
            let (id, code, national) = &examples[place.index(examples.len())];
            let (other, ..) = &examples[of.index(examples.len())];
            let kept = &national[..cut.min(national.len())];
            let code = if with_code { code.to_string() } else { String::new() };
            let text = format!("{start}{}", grouped(&format!("{code}{kept}{end}"), style));
            for region in [None, region(id), region(other)] {
                agrees(region, text.trim());
            }
        }
    }
}
