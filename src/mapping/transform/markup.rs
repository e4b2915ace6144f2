//! Plain text out of HTML, by a tokenizer that follows the WHATWG standard: what a browser takes for markup is taken
//! for markup here, and nothing else is.

use std::borrow::Cow;

use html5gum::{DefaultEmitter, Token, Tokenizer};

use super::{Build, Transform, fails, gives, text_run};
use crate::mapping::value::Shape;

pub(super) const TRANSFORMS: &[Transform] = &[Transform {
    name: "strip_html",
    makes: Some(Shape::Text),
    summary: "Makes plain text of HTML: tags, comments, scripts and styles go, entities become characters, blocks and \
              line breaks become new lines. The result is text, not safe HTML: escape it where it is shown as HTML.",
    settings: &[],
    examples: &[
        gives(r#""strip_html""#, r#""<p>Hello,&nbsp;<b>Ada</b> &amp; co</p>""#, r#""Hello, Ada & co""#),
        gives(r#""strip_html""#, r#""one<br>two<div>three</div>""#, r#""one\ntwo\nthree""#),
        gives(r#""strip_html""#, r#""<script>alert(1)</script>a < b""#, r#""a < b""#),
        gives(r#""strip_html""#, r#""no markup""#, r#""no markup""#),
        fails(r#""strip_html""#, "7"),
    ],
    whole: false,
    build: Build::Plain(|_| text_run(|text| Ok(Some(strip(text))))),
}];

/// Elements whose content is not text for people.
const HIDDEN: &[&[u8]] =
    &[b"script", b"style", b"template", b"noscript", b"head", b"title", b"iframe", b"noembed", b"noframes"];
/// Elements that start a line of their own.
const BLOCKS: &[&[u8]] = &[
    b"address",
    b"article",
    b"aside",
    b"blockquote",
    b"br",
    b"dd",
    b"div",
    b"dl",
    b"dt",
    b"footer",
    b"form",
    b"h1",
    b"h2",
    b"h3",
    b"h4",
    b"h5",
    b"h6",
    b"header",
    b"hr",
    b"li",
    b"main",
    b"nav",
    b"ol",
    b"p",
    b"pre",
    b"section",
    b"table",
    b"tr",
    b"ul",
];

fn strip(text: &str) -> Cow<'_, str> {
    if !text.contains(['<', '&']) {
        return Cow::Borrowed(text);
    }
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    let mut plain = String::with_capacity(text.len());
    let mut hidden: Option<Vec<u8>> = None;
    for Ok(token) in Tokenizer::new_with_emitter(text, emitter) {
        match token {
            Token::StartTag(tag) => {
                let name: &[u8] = &tag.name;
                if BLOCKS.contains(&name) {
                    plain.push('\n');
                } else if hidden.is_none() && HIDDEN.contains(&name) && !tag.self_closing {
                    hidden = Some(name.to_vec());
                } else if name == b"td" || name == b"th" {
                    plain.push(' ');
                }
            }
            Token::EndTag(tag) => {
                let name: &[u8] = &tag.name;
                if hidden.as_deref() == Some(name) {
                    hidden = None;
                } else if BLOCKS.contains(&name) {
                    plain.push('\n');
                }
            }
            Token::String(part) if hidden.is_none() => plain.push_str(&String::from_utf8_lossy(&part)),
            _ => {}
        }
    }
    Cow::Owned(tidy(&plain))
}

/// Single blanks inside of lines, no blank lines.
fn tidy(text: &str) -> String {
    let mut tidied = String::with_capacity(text.len());
    for line in text.lines() {
        let mut words = line.split_whitespace().peekable();
        if words.peek().is_some() && !tidied.is_empty() {
            tidied.push('\n');
        }
        while let Some(word) = words.next() {
            tidied.push_str(word);
            if words.peek().is_some() {
                tidied.push(' ');
            }
        }
    }
    tidied
}
