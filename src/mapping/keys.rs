//! The keys of a mapping and of a row, for the documentation; a test holds them to what the reader knows.

/// A key, an example of what it takes as TOML, and what it does.
pub type KeyShown = (&'static str, &'static str, &'static str);

/// The keys of a mapping, for the documentation.
pub const MAPPING_KEYS: &[KeyShown] = &[
    ("version", "`1`", "the version of the language; needed"),
    ("description", "`\"A lead, flat\"`", "for people"),
    (
        "blank",
        "`\"absent\"` or `\"keep\"` (default)",
        "whether an empty text counts as absent, for every row",
    ),
    (
        "absent",
        "`\"null\"` or `\"leave_out\"` (default)",
        "whether what is absent is written as null, for every row: the fields are then always the same",
    ),
    ("fields", "`[[fields]]`", "the rows, in the order of the output; needed"),
];

/// The keys of a row, for the documentation.
pub const ROW_KEYS: &[KeyShown] = &[
    ("to", "`\"contact.name.first\"`", "the field; dots nest, `\\.` is a dot in a name; needed"),
    ("from", "`\"$.data.lead.email\"`", "a path, or a list of paths of which the first with a value wins"),
    ("value", "`\"chatbot\"`", "a constant: text, number, boolean, list or table"),
    (
        "template",
        "`\"{{$.data.name}} asked\"`",
        "a text with paths; nothing when no path gives anything; `\\{{` is plain braces",
    ),
    ("fields", "`[[fields.fields]]`", "an object made of rows"),
    ("transcript", "`[fields.transcript]`", "a list of messages as a text, see below"),
    (
        "each",
        "`[fields.each]`",
        "a list, item by item: `from` is the path to the list, `fields` the rows of an item, in which `$` is the item",
    ),
    (
        "take",
        "`\"first\"`, `\"last\"`, `\"all\"`, `\"count\"`, `\"one\"`",
        "which of a path's matches are taken; `first` by default, `one` fails for several",
    ),
    (
        "apply",
        "`[\"trim\", { truncate = 80 }]`",
        "transforms, in order; they never see what is absent or null",
    ),
    ("default", "`\"Open\"`", "stands in for what is absent or null"),
    ("required", "`true`", "absent or null is an error"),
    (
        "when",
        "`{ path = \"$.type\", op = \"eq\", value = \"lead.captured\" }`",
        "the condition under which the row takes part",
    ),
    ("on_error", "`\"fail\"` (default), `\"skip\"`, `\"default\"`", "what an error in the row does"),
    ("blank", "`\"absent\"`, `\"keep\"`", "whether an empty text counts as absent, for this row"),
    ("absent", "`\"null\"`, `\"leave_out\"`", "whether what is absent is written as null, for this row"),
];
