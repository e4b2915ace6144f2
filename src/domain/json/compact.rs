//! One pass over JSON that somebody sent: its syntax and its nesting are checked, and it is written without what has no meaning.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;
use serde::Serialize;
use serde_json::Number;

/// Members of one object that are looked through for a name that is there already.
const MOST_MEMBERS: usize = 32;
/// Digits of a whole number that is written as it stands, whatever they are.
const PLAIN_DIGITS: usize = 18;

/// What `serde_json` writes for the value that it reads from `text`, byte for byte: no whitespace, numbers and escapes in their one
/// form. `None` where the text is no JSON, nests deeper than `levels`, has a name twice in an object, or an object with very many
/// members: the answer to that has to be read from the value.
pub fn compact(text: &[u8], levels: usize) -> Option<Vec<u8>> {
    std::str::from_utf8(text).ok()?;
    let mut pass = Pass { text, at: 0, written: Vec::with_capacity(text.len()), names: Vec::new() };
    pass.value(levels)?;
    pass.next().is_none().then_some(pass.written)
}

struct Pass<'t> {
    text: &'t [u8],
    at: usize,
    written: Vec<u8>,
    /// The names of the objects that are open, in what is written.
    names: Vec<Range<usize>>,
}

impl Pass<'_> {
    /// The next byte that is no whitespace.
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Takes the next byte over if it is this one.
    fn take(&mut self, wanted: u8) -> Option<()> {
        if self.next()? != wanted {
            return None;
        }
        self.at += 1;
        self.written.push(wanted);
        Some(())
    }

    fn value(&mut self, levels: usize) -> Option<()> {
        match self.next()? {
            b'"' => self.string(),
            b'{' => self.object(levels.checked_sub(1)?),
            b'[' => self.list(levels.checked_sub(1)?),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            b'-' | b'0'..=b'9' => self.number(),
            _ => None,
        }
    }

    fn object(&mut self, levels: usize) -> Option<()> {
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(());
        }
        let first = self.names.len();
        loop {
            self.name(first)?;
            self.take(b':')?;
            self.value(levels)?;
            if self.take(b',').is_none() {
                self.names.truncate(first);
                return self.take(b'}');
            }
        }
    }

    /// A member's name, which none of the object's names from `first` on may be.
    fn name(&mut self, first: usize) -> Option<()> {
        let start = self.written.len();
        if self.next()? != b'"' {
            return None;
        }
        self.string()?;
        let name = start..self.written.len();
        let earlier = &self.names[first..];
        let is_there = |other: &Range<usize>| {
            other.len() == name.len() && self.written[other.clone()] == self.written[name.clone()]
        };
        if earlier.len() >= MOST_MEMBERS || earlier.iter().any(is_there) {
            return None;
        }
        self.names.push(name);
        Some(())
    }

    fn list(&mut self, levels: usize) -> Option<()> {
        self.take(b'[')?;
        if self.take(b']').is_some() {
            return Some(());
        }
        loop {
            self.value(levels)?;
            if self.take(b',').is_none() {
                return self.take(b']');
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let end = self.at + word.len();
        if self.text.get(self.at..end)? != word {
            return None;
        }
        self.written.extend_from_slice(word);
        self.at = end;
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        let start = self.at;
        let mut at = start + 1;
        let mut as_it_stands = true;
        loop {
            let rest = self.text.get(at..)?;
            let plain = memchr2(b'"', b'\\', rest)?;
            // The least of them is found many bytes at a time.
            if rest[..plain].iter().copied().min().is_some_and(|least| least < 0x20) {
                return None;
            }
            at += plain;
            if self.text[at] == b'"' {
                break;
            }
            as_it_stands &= matches!(self.text.get(at + 1)?, b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't');
            at += 2;
        }
        self.at = at + 1;
        let string = &self.text[start..=at];
        if as_it_stands {
            self.written.extend_from_slice(string);
            return Some(());
        }
        self.write(&serde_json::from_slice::<Cow<'_, str>>(string).ok()?)
    }

    fn number(&mut self) -> Option<()> {
        let rest = &self.text[self.at..];
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let number = &rest[..rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len())];
        self.at += number.len();
        if is_plain(number) {
            self.written.extend_from_slice(number);
            return Some(());
        }
        self.write(&serde_json::from_slice::<Number>(number).ok()?)
    }

    fn write(&mut self, value: &impl Serialize) -> Option<()> {
        serde_json::to_writer(&mut self.written, value).ok()
    }
}

/// Whether it is a whole number in its one form, and of no size that is written otherwise.
fn is_plain(number: &[u8]) -> bool {
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    (1..=PLAIN_DIGITS).contains(&digits.len())
        && digits.iter().all(u8::is_ascii_digit)
        && (digits[0] != b'0' || number == b"0")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const LEVELS: usize = 64;

    fn by_tree(text: &[u8]) -> Option<Vec<u8>> {
        let value: Value = serde_json::from_slice(text).ok()?;
        serde_json::to_vec(&value).ok()
    }

    #[test]
    fn each_form_is_written_as_the_tree_writes_it() {
        for text in [
            "0",
            "-0",
            "1",
            "-1",
            "1.0",
            "-1.50",
            "1e5",
            "1E+5",
            "1e-7",
            "0.1",
            "123456789012345678",
            "1234567890123456789",
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775808",
            "-9223372036854775809",
            "1e308",
            "0.30000000000000004",
            "5e-324",
            "1e-400",
            "100000000000000000000",
            r#""""#,
            r#""a\/b""#,
            r#""\u00e9\u0041\u001f\u007f""#,
            r#""\ud83d\ude00""#,
            r#""\"\\\b\f\n\r\t""#,
            "\"\u{7f}\u{e9}\u{1f600}\"",
            "[]",
            "{}",
            "[ ]",
            "{ }",
            " [ 1 ,\n2\t,\r3 ] ",
            r#"{ "a" : { "a" : [ { "a" : null } ] } , "b" : true , "c" : false }"#,
            r#"{"":1,"\n":2}"#,
        ] {
            assert_eq!(compact(text.as_bytes(), LEVELS), by_tree(text.as_bytes()), "{text}");
            assert!(compact(text.as_bytes(), LEVELS).is_some(), "{text}");
        }
    }

    #[test]
    fn a_number_of_many_digits_keeps_them() {
        // The shortest form of each, as ECMAScript and Python write it.
        for number in
            ["0.30000000000000004", "13.404953999999975", "52.520006599999995", "-179.99999999999997"]
        {
            assert_eq!(compact(number.as_bytes(), LEVELS).unwrap(), number.as_bytes());
            assert_eq!(by_tree(number.as_bytes()).unwrap(), number.as_bytes());
        }
    }

    #[test]
    fn what_only_the_tree_can_answer_is_left_to_it() {
        let many: Vec<String> = (0..=MOST_MEMBERS).map(|number| format!("\"{number}\":0")).collect();
        let many = format!("{{{}}}", many.join(","));
        for text in [
            "",
            " ",
            "1 2",
            "01",
            "-",
            "+1",
            ".5",
            "1.",
            "1e",
            "1e999",
            "0x1",
            "1-2",
            "nul",
            "nulll",
            "True",
            "NaN",
            "\"a",
            "\"\n\"",
            r#""\x""#,
            r#""\u12""#,
            r#""\ud800""#,
            r#""\"#,
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1",
            "]",
            "{,}",
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            r#"{"a":}"#,
            "{a:1}",
            r#"{"a":1"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"[{"b":{"a":1,"c":{"a":1},"a":2}}]"#,
            &many,
            "\u{feff}1",
            "\u{a0}1",
        ] {
            assert_eq!(compact(text.as_bytes(), LEVELS), None, "{text}");
        }
        assert_eq!(compact(b"\"\xff\"", LEVELS), None);
        assert_eq!(compact(b"[[1]]", 2).unwrap(), b"[[1]]");
        assert_eq!(compact(b"[{\"a\":[]}]", 2), None);
    }

    /// Any JSON, sound or nearly so, as somebody may write it.
    fn any_text() -> impl Strategy<Value = String> {
        let blank = || "[ \n\t\r]{0,2}";
        let leaf = prop_oneof![
            3 => "(true|false|null)",
            3 => "-?(0|[1-9][0-9]{0,22})(\\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?",
            3 => any::<f64>().prop_map(|number| format!("{number:?}")),
            3 => any::<i64>().prop_map(|number| number.to_string()),
            4 => any::<String>().prop_map(|text| Value::from(text).to_string()),
            3 => "\"([a-zé😀/\u{7f}]|\\\\[\"\\\\/bfnrt]|\\\\u00[4-9a-fA-F][0-9a-fA-F]|\\\\ud83d\\\\ude0[0-9]){0,6}\"",
            1 => "[-+.0-9eEa-z\"\\\\]{0,4}",
        ];
        leaf.prop_recursive(5, 64, 6, move |inner| {
            let name = prop_oneof![4 => "\"[a-d]\"", 1 => "\"(\\\\u006[1-4]|é|\\\\n)?\""];
            let spaced =
                (blank(), inner, blank()).prop_map(|(before, value, after)| before + &value + &after);
            let member = (blank(), name, blank(), spaced.clone())
                .prop_map(|(before, name, after, value)| format!("{before}{name}{after}:{value}"));
            prop_oneof![
                proptest::collection::vec(spaced, 0..5).prop_map(|items| format!("[{}]", items.join(","))),
                proptest::collection::vec(member, 0..5)
                    .prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_is_written_is_what_the_tree_writes(text in any_text()) {
            let tree = by_tree(text.as_bytes());
            let one_pass = compact(text.as_bytes(), LEVELS);
            if one_pass.is_some() {
                prop_assert_eq!(&one_pass, &tree, "{}", text);
            }
            // What it leaves to the tree is an error there, or a name that is there twice.
            if let Some(tree) = tree.filter(|_| one_pass.is_none()) {
                prop_assert!(text.matches(':').count() > String::from_utf8(tree).unwrap().matches(':').count(), "{}", text);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(compact(&text, LEVELS).is_none_or(|written| Some(written) == by_tree(&text)));
        }
    }
}
