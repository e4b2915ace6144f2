//! The handshake with `X-Hook-Secret`, for subscribers that ask for it: the URL shows that it wants the events by sending
//! back the secret that it is given. Zapier does not know it, so it is off unless asked for.

use std::time::Duration;

use bytes::Bytes;
use subtle::ConstantTimeEq;

use super::{Gateway, ServiceError};
use crate::domain::fault::Faults;
use crate::egress::{HeaderMap, HeaderName, HeaderValue, Method, Request, Url};

/// The header that carries the secret, both ways.
const HOOK_SECRET: HeaderName = HeaderName::from_static("x-hook-secret");
/// How long the URL has to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Gateway {
    /// Posts a fresh secret to the URL and expects it back with a 2xx; `field` is what the subscriber calls the URL.
    pub(super) async fn shake_hands(&self, url: &str, field: &str) -> Result<(), ServiceError> {
        let refused = |message: String| {
            let hint = "answer 2xx with the header X-Hook-Secret as it came, or leave \"handshake\" out";
            let mut faults = Faults::default();
            faults.at_field(field, message, Some(hint.to_owned()));
            Err(faults.into())
        };
        let Ok(_turn) = self.trying.try_acquire() else {
            return Err(ServiceError::Busy(
                "too many requests of this kind are under way; try again soon".to_owned(),
            ));
        };
        let Ok(url) = url.parse::<Url>() else { return refused("is no URL".to_owned()) };
        let secret = hex::encode(self.entropy.bytes::<32>());
        let Ok(mut value) = HeaderValue::try_from(secret.as_str()) else {
            return refused("can't be asked to confirm".to_owned());
        };
        value.set_sensitive(true);
        let headers = HeaderMap::from_iter([(HOOK_SECRET, value)]);
        let (method, url) = (Method::POST, url.into());
        let request = Request { method, url, headers, body: Bytes::new(), timeout: TIMEOUT };
        match self.egress.send(request).await {
            Ok(answer) if !(200..300).contains(&answer.status) => {
                refused(format!("did not confirm: it answered {}", answer.status))
            }
            Ok(answer) => {
                let back = answer.headers.get(HOOK_SECRET).map(HeaderValue::as_bytes).unwrap_or_default();
                if bool::from(back.ct_eq(secret.as_bytes())) {
                    return Ok(());
                }
                refused("did not confirm: its answer has no X-Hook-Secret, or another one".to_owned())
            }
            Err(error) => refused(format!("did not confirm: {}", error.reason())),
        }
    }
}
