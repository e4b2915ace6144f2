//! JSON Schemas of connector and mapping files, for editors: made of the tables by which the files are read.
//!
//! The keys stand here once more, with what they take and what they are for; a test holds them to what the readers ask for, so that
//! a key that is added or removed there and not here fails. What one key says of another (that `query` and `header` exclude each
//! other, say) is for the readers, which tell it with a place and a hint.

mod keys;
mod policy;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use self::keys::{Keys, ROOT, SPOT, Takes, WEEK};
use crate::mapping::{MAPPING_KEYS, ROW_KEYS, transforms};

impl Takes {
    fn schema(self) -> Value {
        let one_or_list =
            |one: Value| json!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]});
        match self {
            Self::Text => json!({"type": "string"}),
            Self::Boolean => json!({"type": "boolean"}),
            Self::Whole(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
            Self::Anything => json!({}),
            Self::Choice(choices) => json!({"enum": choices()}),
            Self::Texts => json!({"type": "array", "items": {"type": "string"}}),
            Self::FreeTexts => json!({"type": "object", "additionalProperties": {"type": "string"}}),
            Self::TextOrTexts => one_or_list(json!({"type": "string"})),
            Self::Choices(choices) => {
                json!({"type": "array", "items": {"enum": choices()}, "minItems": 1})
            }
            Self::Condition => json!({"type": "object"}),
            Self::Table(keys) => object(keys),
            Self::Tables(keys) => json!({"type": "array", "items": object(keys)}),
            Self::Rows => json!({"type": "array", "items": {"$ref": "#/$defs/row"}, "minItems": 1}),
            Self::Statuses => one_or_list(json!({"type": ["integer", "string"]})),
            Self::Numbers => {
                json!({"type": "array", "maxItems": 20, "items": {"type": "integer", "minimum": 1, "maximum": WEEK}})
            }
            Self::TableOrTables(keys) | Self::Tests(keys) => one_or_list(object(keys)),
            Self::Spots => one_or_list(json!({"anyOf": [{"type": "string"}, object(SPOT)]})),
        }
    }
}

fn object(keys: Keys) -> Value {
    let properties: Map<String, Value> = keys
        .iter()
        .map(|(name, takes, _, summary)| {
            let mut schema = takes.schema();
            schema["description"] = (*summary).into();
            ((*name).to_owned(), schema)
        })
        .collect();
    let needed: Vec<&str> = keys.iter().filter(|(_, _, needed, _)| *needed).map(|(name, ..)| *name).collect();
    json!({"type": "object", "properties": properties, "required": needed, "additionalProperties": false})
}

/// The schemas of what stands in rows, by name.
fn definitions() -> Value {
    let mut properties = Map::new();
    for (name, example, summary) in ROW_KEYS {
        let mut schema = match *name {
            "to" | "template" => json!({"type": "string"}),
            "from" => {
                json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]})
            }
            "fields" => json!({"type": "array", "items": {"$ref": "#/$defs/row"}, "minItems": 1}),
            "apply" => json!({"type": "array", "items": {"$ref": "#/$defs/transform"}}),
            "transcript" | "each" | "when" => json!({"type": "object"}),
            "required" => json!({"type": "boolean"}),
            "take" | "on_error" | "blank" | "absent" => json!({"enum": quoted(example)}),
            _ => json!({}),
        };
        schema["description"] = (*summary).into();
        properties.insert((*name).to_owned(), schema);
    }
    let row = json!({"type": "object", "properties": properties, "required": ["to"], "additionalProperties": false});
    let transform_names: Vec<Value> = transforms()
        .map(|transform| json!({"const": transform.name, "description": transform.summary}))
        .collect();
    let settings: Map<String, Value> = transforms()
        .map(|transform| {
            let settings: Vec<String> = transform
                .settings
                .iter()
                .map(|setting| format!("{}: {}", setting.name, setting.summary))
                .collect();
            let told = [vec![transform.summary.to_owned()], settings].concat().join("\n");
            (transform.name.to_owned(), json!({"description": told}))
        })
        .collect();
    let transform = json!({"anyOf": [
        {"anyOf": transform_names},
        {"type": "object", "properties": settings, "minProperties": 1, "maxProperties": 1, "additionalProperties": false},
    ]});
    json!({"row": row, "transform": transform})
}

/// The texts in quotes of an example such as `"first"`, `"last"`.
fn quoted(example: &str) -> Vec<&str> {
    example.split('"').skip(1).step_by(2).collect()
}

fn connector() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Connector file",
        "description": "One system's wire format and manners: connectors/<id>.toml",
    });
    merge(&mut schema, object(ROOT));
    schema["$defs"] = definitions();
    schema
}

fn mapping() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Mapping file",
        "description": "How an event becomes the fields that a connector sends: mappings/<name>.toml",
    });
    let mut properties = Map::new();
    for (name, example, summary) in MAPPING_KEYS {
        let mut key = match *name {
            "version" => json!({"const": 1}),
            "blank" | "absent" => json!({"enum": quoted(example)}),
            "fields" => Takes::Rows.schema(),
            _ => json!({"type": "string"}),
        };
        key["description"] = (*summary).into();
        properties.insert((*name).to_owned(), key);
    }
    let body = json!({"type": "object", "properties": properties, "required": ["version", "fields"], "additionalProperties": false});
    merge(&mut schema, body);
    schema["$defs"] = definitions();
    schema
}

fn merge(schema: &mut Value, more: Value) {
    if let (Value::Object(schema), Value::Object(more)) = (schema, more) {
        schema.extend(more);
    }
}

/// The JSON Schemas (draft 2020-12) of the catalogue's files, each with the name of its file under `docs/schema/`.
pub fn schemas() -> [(&'static str, Value); 2] {
    [("connector.schema.json", connector()), ("mapping.schema.json", mapping())]
}
