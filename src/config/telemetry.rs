//! `[telemetry]`: where traces go. The endpoint and its headers may also come by OpenTelemetry's own variables.

use url::Url;

use super::TelemetryConfig;
use super::read::{parsed, whole};
use crate::domain::document::TableReader;
use crate::egress::{HeaderName, HeaderValue};
use crate::service::traces::TraceSettings;

/// OpenTelemetry's variables, and the settings that they are another name of (OpenTelemetry Protocol Exporter,
/// "Configuration Options").
pub(super) const VARIABLES: [(&str, &str); 2] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp_endpoint"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "telemetry.otlp_headers"),
];

const ENDPOINT: &str = "expected an address such as http://127.0.0.1:4318";
const HEADER: &str = "expected such as \"x-api-key=abc\"";

/// Reads the section.
pub(super) fn read(table: &mut TableReader<'_>) -> Option<TelemetryConfig> {
    let endpoint = endpoint(table);
    let headers = headers(table);
    let sample_percent = whole(table, "sample_percent");
    let names_tenants = table.boolean("tenants");
    let (headers, sample_percent, names_tenants) = (headers?, sample_percent?, names_tenants?);
    let traces = endpoint.map(|url| TraceSettings { url, headers, sample_percent, names_tenants });
    Some(TelemetryConfig { traces })
}

/// The endpoint's base with the path for traces.
fn endpoint(table: &mut TableReader<'_>) -> Option<Url> {
    let mut url: Url = parsed(table, "otlp_endpoint", ENDPOINT)?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
        table.fault("otlp_endpoint", "must be http or https, without a query", Some(ENDPOINT.to_owned()));
        return None;
    }
    let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Some(url)
}

/// `name=value` each; a fault never shows the value, which may be a key.
fn headers(table: &mut TableReader<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let texts: Vec<String> = table.texts("otlp_headers")?.into_iter().map(str::to_owned).collect();
    let mut headers = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let read = text.split_once('=').and_then(|(name, value)| {
            let name: HeaderName = name.trim().parse().ok()?;
            let mut value: HeaderValue = value.trim().parse().ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        if let Some(header) = read {
            headers.push(header);
        } else {
            let message = format!("entry {} is no header", index + 1);
            table.fault("otlp_headers", message, Some(HEADER.to_owned()));
        }
    }
    Some(headers)
}
