//! Where a request goes, read once.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use http::Uri;
use url::Url;

/// A URL, with what is written in a request's head for it: made once for all requests that go there. Clones share it.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    url: Url,
    /// `None` where the URL has what a request can't say.
    uri: Option<Uri>,
}

impl Destination {
    /// The URL as the client library takes it.
    pub(super) fn uri(&self) -> Option<&Uri> {
        self.0.uri.as_ref()
    }
}

impl From<Url> for Destination {
    fn from(url: Url) -> Self {
        let uri = url.as_str().parse().ok();
        Self(Arc::new(Parts { url, uri }))
    }
}

impl Deref for Destination {
    type Target = Url;

    fn deref(&self) -> &Url {
        &self.0.url
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.url.fmt(f)
    }
}
