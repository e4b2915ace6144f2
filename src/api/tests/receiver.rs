//! A receiver on loopback that answers as a test says and keeps what it was sent.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Response, Uri};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Came {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Came {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// An answer to give: a status, headers and a body.
#[derive(Debug, Clone)]
pub(super) struct Says(pub u16, pub Vec<(&'static str, String)>, pub String);

impl Says {
    pub fn status(status: u16) -> Self {
        Self(status, Vec::new(), String::new())
    }

    pub fn body(status: u16, body: impl Into<String>) -> Self {
        Self(status, Vec::new(), body.into())
    }
}

#[derive(Default)]
struct Scene {
    came: Mutex<Vec<Came>>,
    answers: Mutex<VecDeque<Says>>,
    /// Whether requests wait to be let go.
    holds: Mutex<bool>,
    arrived: Notify,
    go: Notify,
}

pub(super) struct Receiver {
    pub url: String,
    scene: Arc<Scene>,
    serving: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Receiver {
    /// Gives these answers in order, then 200 to all.
    pub async fn start(answers: impl IntoIterator<Item = Says>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let scene =
            Arc::new(Scene { answers: Mutex::new(answers.into_iter().collect()), ..Scene::default() });
        let of = Arc::clone(&scene);
        let router = Router::new().fallback(move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let scene = Arc::clone(&of);
            async move {
                let body = String::from_utf8_lossy(&body).into_owned();
                scene.came.lock().push(Came { path: uri.to_string(), headers, body });
                scene.arrived.notify_one();
                let holds = *scene.holds.lock();
                if holds {
                    scene.go.notified().await;
                }
                let Says(status, headers, body) =
                    scene.answers.lock().pop_front().unwrap_or_else(|| Says::status(200));
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                response.body(Body::from(body)).unwrap()
            }
        });
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, scene, serving }
    }

    /// Lets requests wait until [`Receiver::go`].
    pub fn hold(&self) {
        *self.scene.holds.lock() = true;
    }

    pub async fn arrived(&self) {
        self.scene.arrived.notified().await;
    }

    pub fn go(&self) {
        *self.scene.holds.lock() = false;
        self.scene.go.notify_waiters();
    }

    /// What came since the last look.
    pub fn came(&self) -> Vec<Came> {
        std::mem::take(&mut *self.scene.came.lock())
    }
}
