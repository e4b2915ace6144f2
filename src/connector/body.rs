//! From an event to bytes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Endpoint;
use crate::domain::json::Object;
use crate::egress::Answer;
use crate::mapping::{Context, Mapping, MappingError};
use crate::spec::{ConnectorSpec, ContentType, FIELDS};

/// Room for a body of the usual size.
const USUAL_BYTES: usize = 1_024;

/// How far a job of a chain of requests got: what is kept between its attempts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The mapped fields.
    pub fields: Map<String, Value>,
    /// What was taken from the answers so far, by step.
    pub answers: Map<String, Value>,
}

impl Progress {
    /// What is kept of it.
    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Reads it back; `None` when it is none, as when its connector was no chain then.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

impl Endpoint {
    /// What a job keeps from its first attempt on: the body for one event, or of a chain its [`Progress`]. The same event and
    /// context give the same bytes. A field that the system requires and that is missing is an error by its name.
    pub fn render(
        &self,
        mapping: &Mapping,
        event: &Object,
        context: &Context<'_>,
    ) -> Result<Bytes, MappingError> {
        render(self.spec(), self.options(), mapping, event, context)
    }

    /// The body of the request number `index` of a chain.
    pub fn body(
        &self,
        index: usize,
        progress: &Progress,
        event: &Object,
        context: &Context<'_>,
    ) -> Result<Bytes, MappingError> {
        body(self.spec(), self.options(), index, progress, event, context)
    }

    /// Takes what later requests need out of a step's answer. The error says what is not there.
    pub fn take(&self, index: usize, progress: &mut Progress, answer: &Answer) -> Result<(), String> {
        let Some(step) = self.spec().steps.get(index) else { return Ok(()) };
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let mut taken = Map::new();
        for (name, path) in &step.take {
            match path.find(&body).into_iter().find(|value| !value.is_null()) {
                Some(value) => drop(taken.insert(name.clone(), value)),
                None => return Err(format!("its answer has no {}", path.text())),
            }
        }
        progress.answers.insert(step.name.clone(), Value::Object(taken));
        Ok(())
    }

    /// The first request of a chain that was not answered yet.
    pub fn next_call(&self, progress: &Progress) -> usize {
        self.spec().steps.iter().take_while(|step| progress.answers.contains_key(&step.name)).count()
    }

    /// The name of the step number `index`; `None` for the last request.
    pub fn step_name(&self, index: usize) -> Option<&str> {
        self.spec().steps.get(index).map(|step| step.name.as_str())
    }
}

/// What a job of a connector keeps from its first attempt on, without a connection: see [`Endpoint::render`]. `options` are
/// those that rows may read.
pub fn render(
    spec: &ConnectorSpec,
    options: &Value,
    mapping: &Mapping,
    event: &Object,
    context: &Context<'_>,
) -> Result<Bytes, MappingError> {
    if is_plain(spec)
        && let Some(body) = mapping.copy(event)
    {
        return Ok(body);
    }
    let fields = mapping.apply(event.tree(), context)?;
    spec.target.accept(&fields)?;
    let progress = Progress { fields, answers: Map::new() };
    if spec.steps.is_empty() {
        body(spec, options, 0, &progress, event, context)
    } else {
        Ok(progress.to_bytes())
    }
}

/// Whether what is sent is what the mapping makes, whatever that is.
fn is_plain(spec: &ConnectorSpec) -> bool {
    let is_json = spec.request.call.content_type == ContentType::Json;
    is_json && spec.steps.is_empty() && spec.envelope.is_none() && spec.target.fields().is_empty()
}

fn body(
    spec: &ConnectorSpec,
    options: &Value,
    index: usize,
    progress: &Progress,
    event: &Object,
    context: &Context<'_>,
) -> Result<Bytes, MappingError> {
    if let Some(step) = spec.steps.get(index) {
        let fields = step.fields.apply(&document(options, progress, event), context)?;
        return write(&fields, step.call.content_type);
    }
    let content_type = spec.request.call.content_type;
    match &spec.envelope {
        None => write(&progress.fields, content_type),
        Some(envelope) => {
            let document = document(options, progress, event);
            write(&envelope.wrap(&progress.fields, &document, context)?, content_type)
        }
    }
}

/// What the rows of an envelope or a step read.
fn document(options: &Value, progress: &Progress, event: &Object) -> Value {
    let mut document = event.tree().as_object().cloned().unwrap_or_default();
    document.insert(FIELDS.to_owned(), Value::Object(progress.fields.clone()));
    document.insert("options".to_owned(), options.clone());
    document.insert("answers".to_owned(), Value::Object(progress.answers.clone()));
    Value::Object(document)
}

fn write(fields: &Map<String, Value>, content_type: ContentType) -> Result<Bytes, MappingError> {
    match content_type {
        ContentType::Json => {
            let mut body = Vec::with_capacity(USUAL_BYTES);
            // Writing to a Vec does not fail, and the keys are texts.
            let _ = serde_json::to_writer(&mut body, fields);
            Ok(body.into())
        }
        ContentType::Form | ContentType::Query => form(fields).map(Into::into),
    }
}

/// `application/x-www-form-urlencoded`: a list repeats its name, and what is null is left out.
fn form(fields: &Map<String, Value>) -> Result<String, MappingError> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields {
        let items = match value {
            Value::Array(items) => items.as_slice(),
            other => std::slice::from_ref(other),
        };
        for item in items {
            match item {
                Value::Null => {}
                Value::String(text) => drop(form.append_pair(name, text)),
                Value::Bool(_) | Value::Number(_) => drop(form.append_pair(name, &item.to_string())),
                Value::Array(_) | Value::Object(_) => {
                    return Err(MappingError {
                        field: name.clone(),
                        path: None,
                        reason: "a form has no place for a list or an object inside another".to_owned(),
                    });
                }
            }
        }
    }
    Ok(form.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_form_is_flat() {
        for (fields, text) in [
            (
                json!({"a b": "x&y", "n": 1, "yes": true, "none": null, "empty": ""}),
                "a+b=x%26y&n=1&yes=true&empty=",
            ),
            (json!({"tags": ["a", "b"], "none": []}), "tags=a&tags=b"),
            (json!({"name": "Zoë"}), "name=Zo%C3%AB"),
        ] {
            assert_eq!(form(fields.as_object().unwrap()).unwrap(), text);
        }
        for fields in [json!({"x": {"a": 1}}), json!({"x": [[1]]})] {
            assert_eq!(form(fields.as_object().unwrap()).unwrap_err().field, "x");
        }
    }

    proptest! {
        #[test]
        fn no_value_leaves_its_place_in_a_form(
            pairs in prop::collection::vec((any::<String>(), any::<String>()), 0..6),
            odd in "[&=%+;\\r\\n\u{0} #?é]{0,16}",
        ) {
            let mut fields = Map::new();
            for (name, value) in pairs {
                fields.insert(name, json!([value, odd]));
            }
            fields.insert(odd.clone(), json!(odd));
            let text = form(&fields).unwrap();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{}", text);
            // Read back by hand, not by the library that wrote it.
            let plain = |part: &str| {
                let (mut bytes, mut rest) = (Vec::new(), part.bytes());
                while let Some(byte) = rest.next() {
                    bytes.push(match byte {
                        b'+' => b' ',
                        b'%' => {
                            let digits = [rest.next().unwrap(), rest.next().unwrap()];
                            u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                        }
                        byte => byte,
                    });
                }
                String::from_utf8(bytes).unwrap()
            };
            let read: Vec<(String, String)> = text
                .split('&')
                .map(|pair| pair.split_once('=').unwrap())
                .map(|(name, value)| (plain(name), plain(value)))
                .collect();
            let wanted: Vec<(String, String)> = fields
                .iter()
                .flat_map(|(name, value)| match value {
                    Value::Array(items) => items.iter().map(|item| (name.clone(), item.as_str().unwrap().to_owned())).collect(),
                    other => vec![(name.clone(), other.as_str().unwrap().to_owned())],
                })
                .collect();
            prop_assert_eq!(read, wanted);
        }
    }

    #[test]
    fn progress_is_kept_whole() {
        let progress = Progress {
            fields: json!({"z": 1, "a": 2}).as_object().unwrap().clone(),
            answers: json!({"person": {"id": 7}}).as_object().unwrap().clone(),
        };
        let bytes = progress.to_bytes();
        assert_eq!(bytes, r#"{"fields":{"z":1,"a":2},"answers":{"person":{"id":7}}}"#);
        assert_eq!(Progress::from_bytes(&bytes), Some(progress));
        assert_eq!(Progress::from_bytes(b"{\"email\":\"x\"}"), None);
    }
}
