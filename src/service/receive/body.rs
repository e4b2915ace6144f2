//! A delivery's body: JSON, a form, or a form of several parts, read into what rows see.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use multer::{Constraints, Multipart, SizeLimit};
use serde_json::{Map, Value, json as json_value};

use crate::service::ingest::{ParseError, json};
use crate::spec::InboundSpec;
use crate::spec::inbound::BodyForm;

/// The most fields of a form.
const MAX_FIELDS: usize = 1_000;
/// The longest name of a field or a file that is kept.
const MAX_NAME_CHARS: usize = 255;

/// A body as it was read.
#[derive(Debug, Default)]
pub struct Body {
    /// The fields of a form, files left out.
    pub form: Option<Vec<(String, String)>>,
    /// What rows see.
    pub value: Value,
}

/// Why a body could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Of another kind than the connector takes.
    #[error("the content type \"{found}\" is not taken here")]
    MediaType {
        /// What the request says.
        found: String,
        /// What is taken.
        taken: String,
    },
    /// The JSON, or that of a field, can't be read.
    #[error(transparent)]
    Json(#[from] ParseError),
    /// The form can't be read.
    #[error("the form can't be read: {0}")]
    Form(String),
}

/// Which form of body a request says it has. One that says nothing has JSON.
fn form_of(headers: &HeaderMap) -> Result<(BodyForm, &str), String> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok((BodyForm::Json, "")) };
    let text = value.to_str().map_err(|_| "(not readable)".to_owned())?;
    let media = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "application/json" => Ok((BodyForm::Json, text)),
        "application/x-www-form-urlencoded" => Ok((BodyForm::Form, text)),
        "multipart/form-data" => Ok((BodyForm::Multipart, text)),
        _ if media.starts_with("application/") && media.ends_with("+json") => Ok((BodyForm::Json, text)),
        _ => Err(text.chars().take(100).collect()),
    }
}

/// Reads a body by what the connector takes.
pub async fn read(spec: &InboundSpec, headers: &HeaderMap, bytes: &Bytes) -> Result<Body, BodyError> {
    let refused = |found: String| {
        let taken: Vec<&str> = spec.body.iter().map(|form| form.name()).collect();
        BodyError::MediaType { found, taken: taken.join(", ") }
    };
    let (form, said) = form_of(headers).map_err(refused)?;
    if !spec.body.contains(&form) {
        return Err(refused(said.chars().take(100).collect()));
    }
    let mut fields = Fields::default();
    match form {
        BodyForm::Json if bytes.trim_ascii().is_empty() => return Ok(Body::default()),
        BodyForm::Json => return Ok(Body { form: None, value: json(bytes)? }),
        BodyForm::Form => {
            for (name, value) in url::form_urlencoded::parse(bytes) {
                fields.text(&name, value.into_owned())?;
            }
        }
        BodyForm::Multipart => read_parts(said, bytes, &mut fields).await?,
    }
    if let Some(name) = &spec.json_field
        && let Some(Value::String(text)) = fields.shown.get(name)
    {
        let value = json(text.as_bytes())?;
        return Ok(Body { form: Some(fields.texts), value });
    }
    Ok(Body { form: Some(fields.texts), value: Value::Object(fields.shown) })
}

async fn read_parts(said: &str, bytes: &Bytes, fields: &mut Fields) -> Result<(), BodyError> {
    let wrong = |error: multer::Error| BodyError::Form(error.to_string());
    let boundary = multer::parse_boundary(said).map_err(wrong)?;
    // All of it is in memory already; the limit is only that nothing is counted twice.
    let limit = SizeLimit::new().whole_stream(bytes.len() as u64);
    let stream = futures::stream::iter([Ok::<Bytes, std::convert::Infallible>(bytes.clone())]);
    let mut parts = Multipart::with_constraints(stream, boundary, Constraints::new().size_limit(limit));
    while let Some(mut part) = parts.next_field().await.map_err(wrong)? {
        let name = part.name().unwrap_or_default().to_owned();
        let Some(file) = part.file_name().map(cut) else {
            let text = part.text().await.map_err(wrong)?;
            fields.text(&name, text)?;
            continue;
        };
        let content_type = part.content_type().map(|media| cut(media.as_ref()));
        let mut size_bytes = 0;
        while let Some(chunk) = part.chunk().await.map_err(wrong)? {
            size_bytes += chunk.len();
        }
        let shown = json_value!({ "filename": file, "content_type": content_type, "size_bytes": size_bytes });
        fields.show(&name, shown)?;
    }
    Ok(())
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_NAME_CHARS).collect()
}

/// A form while it is read.
#[derive(Debug, Default)]
struct Fields {
    texts: Vec<(String, String)>,
    shown: Map<String, Value>,
    count: usize,
}

impl Fields {
    fn text(&mut self, name: &str, value: String) -> Result<(), BodyError> {
        self.show(name, Value::String(value.clone()))?;
        self.texts.push((name.to_owned(), value));
        Ok(())
    }

    /// A field that comes again makes a list.
    fn show(&mut self, name: &str, value: Value) -> Result<(), BodyError> {
        self.count += 1;
        if self.count > MAX_FIELDS {
            return Err(BodyError::Form(format!("more than {MAX_FIELDS} fields")));
        }
        match self.shown.get_mut(name) {
            None => drop(self.shown.insert(name.to_owned(), value)),
            Some(Value::Array(items)) => items.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
        Ok(())
    }
}

/// A query as rows see it: texts by name, lists where a name comes twice.
pub fn query(text: &str) -> Value {
    let mut fields = Fields::default();
    for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
        if fields.show(&name, Value::String(value.into_owned())).is_err() {
            break;
        }
    }
    Value::Object(fields.shown)
}
