//! The commands' own client of a gateway's HTTP API, over [`crate::egress`].

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::Value;
use url::Url;

use super::failure::Failure;
use crate::domain::secret::Secret;
use crate::egress::{
    AddressPolicy, Answer, Egress, EgressSettings, HeaderMap, HeaderName, HeaderValue, Method, Request,
    header,
};

const TIMEOUT: Duration = Duration::from_secs(75);
const BODY_LIMIT_BYTES: usize = 16 * 1_024 * 1_024;
/// How many items of a list are asked for at once.
const PAGE: usize = 100;

/// Which gateway a command speaks to.
#[derive(Debug, Clone, Args)]
pub struct Remote {
    /// The gateway's address
    #[arg(long, env = "PATCHBAY_URL", default_value = "http://127.0.0.1:8080", value_name = "URL",
          value_parser = address)]
    pub url: Url,
    /// A key of it: the operator's, or a tenant's with the right scope
    #[arg(long, env = "PATCHBAY_KEY", hide_env_values = true, value_name = "KEY", value_parser = secret)]
    pub key: Option<Secret>,
}

/// Reads a gateway's address from the command line.
pub fn address(text: &str) -> Result<Url, String> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| "expected an address such as http://127.0.0.1:8080".to_owned())
}

/// Reads a secret from the command line.
pub fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text.trim()))
}

impl Remote {
    /// A client for it.
    pub fn client(&self) -> Result<Client, Failure> {
        Client::new(self.url.clone(), self.key.clone())
    }
}

/// Speaks to one gateway with one key.
#[derive(Debug, Clone)]
pub struct Client {
    egress: Egress,
    base: Url,
    key: Option<Secret>,
}

impl Client {
    /// A client for the gateway at `base`; it goes wherever the person says.
    pub fn new(base: Url, key: Option<Secret>) -> Result<Self, Failure> {
        let everywhere = vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
        let policy = AddressPolicy { allow_http: true, allowed: everywhere };
        let settings = EgressSettings {
            body_limit_bytes: BODY_LIMIT_BYTES,
            user_agent: concat!("patchbay-cli/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..EgressSettings::default()
        };
        let egress = Egress::new(Arc::new(policy), settings).map_err(Failure::failed)?;
        Ok(Self { egress, base, key })
    }

    /// `GET`, with query parameters.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        let mut url = self.at(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.ask(Method::GET, url, None, &[]).await
    }

    /// Up to `limit` items of a list, page by page.
    pub async fn list(
        &self,
        path: &str,
        query: &[(&str, &str)],
        limit: usize,
    ) -> Result<Vec<Value>, Failure> {
        let mut items: Vec<Value> = Vec::new();
        let mut cursor = None;
        while items.len() < limit {
            let page = (limit - items.len()).min(PAGE).to_string();
            let mut query = query.to_vec();
            query.push(("limit", &page));
            query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let mut answer = self.get(path, &query).await?;
            let Some(Value::Array(found)) = answer.get_mut("items").map(Value::take) else {
                return Err(self.stranger(200));
            };
            items.extend(found);
            match answer.get("next_cursor").and_then(Value::as_str) {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        Ok(items)
    }

    /// `POST` of a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.post_with(path, body, &[]).await
    }

    /// `POST` of a JSON body, with query parameters.
    pub async fn post_query(
        &self,
        path: &str,
        query: &[(&str, &str)],
        body: &Value,
    ) -> Result<Value, Failure> {
        let mut url = self.at(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.ask(Method::POST, url, Some(body), &[]).await
    }

    /// `POST` of a JSON body with further headers.
    pub async fn post_with(
        &self,
        path: &str,
        body: &Value,
        headers: &[(HeaderName, &str)],
    ) -> Result<Value, Failure> {
        self.ask(Method::POST, self.at(path)?, Some(body), headers).await
    }

    /// `PATCH` with a JSON merge patch.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::PATCH, self.at(path)?, Some(body), &[]).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.ask(Method::DELETE, self.at(path)?, None, &[]).await
    }

    fn at(&self, path: &str) -> Result<Url, Failure> {
        let text = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        Url::parse(&text).map_err(|error| Failure::invalid(format!("{text}: {error}"), "check --url"))
    }

    async fn ask(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
        further: &[(HeaderName, &str)],
    ) -> Result<Value, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.key {
            headers.insert(header::AUTHORIZATION, bearer(key)?);
        }
        for (name, value) in further {
            let value = HeaderValue::from_str(value).map_err(|_| {
                Failure::invalid(format!("\"{value}\" cannot be a header's value"), "use visible ASCII")
            })?;
            headers.insert(name.clone(), value);
        }
        let body = match body {
            Some(body) => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = Request { method, url: url.into(), headers, body, timeout: TIMEOUT };
        let answer = self.egress.send(request).await.map_err(|error| {
            Failure::failed(error.reason())
                .hint(format!("is a gateway running at {}? `patchbay serve` starts one", self.base))
        })?;
        self.read(&answer)
    }

    fn read(&self, answer: &Answer) -> Result<Value, Failure> {
        if !answer.body_complete {
            return Err(Failure::failed("the gateway's answer broke off or is too large"));
        }
        let value: Option<Value> = serde_json::from_slice(&answer.body).ok();
        if (200..300).contains(&answer.status) {
            return match value {
                Some(value) => Ok(value),
                None if answer.body.is_empty() => Ok(Value::Null),
                None => Err(self.stranger(answer.status)),
            };
        }
        let problem = value.filter(|value| value.get("title").is_some() || value.get("detail").is_some());
        Err(problem
            .map_or_else(|| self.stranger(answer.status), |problem| of_problem(answer.status, &problem)))
    }

    fn stranger(&self, status: u16) -> Failure {
        Failure::failed(format!("{} answered {status}, not as a gateway does", self.base)).hint("check --url")
    }
}

fn bearer(key: &Secret) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", key.reveal()))
        .map_err(|_| Failure::invalid("the key holds characters that no key has", "check --key"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A problem (RFC 9457) as words: what it says, every fault with its field where there are several, and the hint.
fn of_problem(status: u16, problem: &Value) -> Failure {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let faults = problem.get("errors").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let title = text(problem, "title").unwrap_or_default();
    let mut message = text(problem, "detail").unwrap_or_else(|| title.clone());
    let mut hint = text(problem, "hint");
    match faults {
        [] => {}
        [fault] => hint = hint.or_else(|| text(fault, "hint")),
        faults => {
            message = title;
            for fault in faults {
                let place = text(fault, "pointer").unwrap_or_default();
                let _ = write!(message, "\n  {place}: {}", text(fault, "message").unwrap_or_default());
                if let Some(hint) = text(fault, "hint") {
                    let _ = write!(message, " ({hint})");
                }
            }
        }
    }
    if status == 401 {
        hint = Some("give a key by --key or PATCHBAY_KEY".to_owned());
    }
    match status {
        400 | 413 | 415 | 422 => Failure::Invalid { message, hint },
        _ => Failure::Failed { message, hint },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_is_told_with_each_fault_and_its_hint() {
        let url = json!({ "pointer": "/target/url", "message": "plain http", "hint": "use https" });
        let name = json!({ "pointer": "/name", "message": "is empty" });
        let one = json!({ "title": "Invalid", "detail": "target.url: plain http", "errors": [url] });
        let failure = of_problem(422, &one);
        assert_eq!(failure.text(), "error: target.url: plain http\n  hint: use https");
        assert_eq!(failure.exit_code(), 2);
        let two = json!({ "title": "Invalid", "detail": "2 faults; see errors", "errors": [url, name] });
        let text = of_problem(422, &two).text();
        assert_eq!(text, "error: Invalid\n  /target/url: plain http (use https)\n  /name: is empty");
        let locked = of_problem(401, &json!({ "title": "No key", "hint": "add -H" }));
        assert_eq!(locked.text(), "error: No key\n  hint: give a key by --key or PATCHBAY_KEY");
        assert_eq!(locked.exit_code(), 1);
    }
}
