//! JSON as text, and what can be told of it without a tree of its values.
//!
//! An event travels as the text it was accepted as: it is stored, delivered and shown byte for byte. Who looks into it asks for the
//! tree, which is made then, once.

mod compact;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;
use memchr::memchr2;
use serde::de::IgnoredAny;
use serde_json::Value;

pub use compact::compact;

/// Members of an object of the usual size.
const USUAL_MEMBERS: usize = 8;

/// A JSON object as text, with the places of its members.
#[derive(Clone)]
pub struct Object {
    text: Bytes,
    members: Vec<Member>,
    levels: usize,
    tree: OnceLock<Value>,
}

/// Where a member is: `"name":value`.
#[derive(Debug, Clone, Copy)]
struct Member {
    start: usize,
    colon: usize,
    end: usize,
}

impl Object {
    /// An object that was written by [`compact()`] or by `serde_json`; `None` when it is no object.
    pub fn of_compact(text: Bytes) -> Option<Self> {
        let mut walk = Walk { text: &text, open: 0, levels: 0 };
        let members = walk.members()?;
        let levels = walk.levels;
        Some(Self { text, members, levels, tree: OnceLock::new() })
    }

    /// An object out of a store, where it may have been damaged; `None` when it is none.
    pub fn read(text: &Bytes) -> Option<Self> {
        std::str::from_utf8(text).ok()?;
        serde_json::from_slice::<IgnoredAny>(text).ok()?;
        let compact = Self::of_compact(text.clone());
        // Written by other hands: with blanks in it, say.
        compact.or_else(|| Some(Self::from(serde_json::from_slice::<Value>(text).ok()?)))
    }

    /// The text.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// How many objects and lists are inside one another, itself included.
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// The values, which are read when they are first asked for.
    pub fn tree(&self) -> &Value {
        self.tree.get_or_init(|| serde_json::from_slice(&self.text).unwrap_or_default())
    }

    /// The object as a tree.
    pub fn into_tree(mut self) -> Value {
        self.tree();
        self.tree.take().unwrap_or_default()
    }

    /// A member's value as JSON. The name is one that [`is_bare`].
    pub fn member(&self, name: &str) -> Option<Bytes> {
        self.find(name).map(|range| self.text.slice(range))
    }

    /// A tree of these members alone. The names are such that [`is_bare`].
    pub fn part(&self, names: &[Box<str>]) -> Value {
        let read = |name: &str| {
            let value = serde_json::from_slice(&self.text[self.find(name)?]).ok()?;
            Some((name.to_owned(), value))
        };
        Value::Object(names.iter().filter_map(|name| read(name)).collect())
    }

    /// Whether there is such a member.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// A member that is a text without escapes.
    pub fn plain_text(&self, name: &str) -> Option<&str> {
        let value = &self.text[self.find(name)?];
        let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        std::str::from_utf8(inner).ok().filter(|text| !text.contains('\\'))
    }

    /// A member that is a text.
    pub fn string(&self, name: &str) -> Option<String> {
        string(&self.text[self.find(name)?])
    }

    /// The members, in order: name, and value as JSON.
    pub fn members(&self) -> impl Iterator<Item = (Cow<'_, str>, Bytes)> {
        self.members.iter().map(|member| {
            let name = text(&self.text[member.start..member.colon]).unwrap_or_default();
            (name, self.text.slice(member.colon + 1..member.end))
        })
    }

    fn find(&self, name: &str) -> Option<Range<usize>> {
        let wanted =
            |member: &&Member| self.text.get(member.start + 1..member.colon - 1) == Some(name.as_bytes());
        self.members.iter().find(wanted).map(|member| member.colon + 1..member.end)
    }
}

impl From<Value> for Object {
    /// The object of a tree; an empty one of a value that is none.
    fn from(tree: Value) -> Self {
        let none = || Self {
            text: Bytes::from_static(b"{}"),
            members: Vec::new(),
            levels: 1,
            tree: OnceLock::new(),
        };
        Self::of_compact(tree.to_string().into())
            .map_or_else(none, |object| Self { tree: tree.into(), ..object })
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text))
    }
}

/// A text out of JSON; `None` when it is none.
pub fn string(json: &[u8]) -> Option<String> {
    text(json).map(Cow::into_owned)
}

/// The same, as it stands there where it has no escapes.
fn text(json: &[u8]) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        return serde_json::from_slice(json).ok().map(Cow::Owned);
    }
    std::str::from_utf8(inner).ok().map(Cow::Borrowed)
}

/// Whether JSON writes the name without escapes.
pub fn is_bare(name: &str) -> bool {
    name.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\')
}

/// The items of a list that was written by [`compact()`] or by `serde_json`; `None` when it is no list.
pub fn items(text: &Bytes) -> Option<Vec<Bytes>> {
    let mut walk = Walk { text, open: 0, levels: 0 };
    let mut items = Vec::new();
    let (mut at, last) = (1, text.len().checked_sub(1)?);
    if text[0] != b'[' {
        return None;
    }
    while at < last {
        let end = walk.value(at)?;
        items.push(text.slice(at..end));
        at = end + 1;
    }
    Some(items)
}

/// Finds the ends of values. It trusts the text to be JSON, but ends within it whatever it is.
struct Walk<'t> {
    text: &'t [u8],
    open: usize,
    levels: usize,
}

impl Walk<'_> {
    fn members(&mut self) -> Option<Vec<Member>> {
        if *self.text.first()? != b'{' {
            return None;
        }
        (self.open, self.levels) = (1, 1);
        let mut members = Vec::with_capacity(USUAL_MEMBERS);
        if self.text == b"{}" {
            return Some(members);
        }
        let mut start = 1;
        loop {
            if *self.text.get(start)? != b'"' {
                return None;
            }
            let colon = self.string(start)?;
            if *self.text.get(colon)? != b':' {
                return None;
            }
            let end = self.value(colon + 1)?;
            members.push(Member { start, colon, end });
            match self.text.get(end)? {
                b',' => start = end + 1,
                b'}' if end + 1 == self.text.len() => return Some(members),
                _ => return None,
            }
        }
    }

    /// The end of the value that begins at `at`.
    fn value(&mut self, mut at: usize) -> Option<usize> {
        let around = self.open;
        loop {
            match self.text.get(at)? {
                b'"' => {
                    at = self.string(at)?;
                    if self.open == around {
                        return Some(at);
                    }
                    continue;
                }
                b'{' | b'[' => {
                    self.open += 1;
                    self.levels = self.levels.max(self.open);
                }
                b'}' | b']' | b',' if self.open == around => return Some(at),
                b'}' | b']' => {
                    self.open -= 1;
                    if self.open == around {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// The end of the text that begins at `at`.
    fn string(&self, at: usize) -> Option<usize> {
        let mut at = at + 1;
        loop {
            at += memchr2(b'"', b'\\', self.text.get(at..)?)?;
            if self.text[at] == b'"' {
                return Some(at + 1);
            }
            at += 2;
        }
    }
}
