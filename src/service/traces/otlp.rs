//! Spans as OTLP writes them: `ExportTraceServiceRequest` in its JSON encoding (OpenTelemetry Protocol 1.5, "JSON Protobuf
//! Encoding": ids in hexadecimal, 64-bit numbers as texts, kinds and statuses as numbers).

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Attribute, Span};

const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// A request's body.
pub(super) fn request(spans: &[Span]) -> Bytes {
    let spans: Vec<Value> = spans.iter().map(span).collect();
    let resource = [("service.name", NAME), ("service.version", VERSION)]
        .map(|(key, value)| json!({ "key": key, "value": { "stringValue": value } }));
    let scope = json!({ "name": NAME, "version": VERSION });
    let body = json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": scope, "spans": spans }],
    }]});
    Bytes::from(body.to_string())
}

fn span(span: &Span) -> Value {
    let attributes: Vec<Value> = span
        .attributes
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Attribute::Text(text) => json!({ "stringValue": text }),
                Attribute::Whole(number) => json!({ "intValue": number.to_string() }),
            };
            json!({ "key": key, "value": value })
        })
        .collect();
    let mut shown = json!({
        "traceId": format!("{:032x}", span.context.trace),
        "spanId": format!("{:016x}", span.context.span),
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": span.start_nanos.to_string(),
        "endTimeUnixNano": span.end_nanos.max(span.start_nanos).to_string(),
        "attributes": attributes,
        "flags": 1,
    });
    if let Some(parent) = span.parent {
        shown["parentSpanId"] = json!(format!("{parent:016x}"));
    }
    if span.failed {
        shown["status"] = json!({ "code": ERROR });
    }
    shown
}
