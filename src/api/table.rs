//! Every route of the API, as data.

use futures::future::BoxFuture;

use super::call::{Answer, Call};
use super::problem::{Code, Problem};
use super::{
    NO_ROUTE, accounts, catalogue, connections, deliveries, docs, erasures, events, filters, hooks, mappings,
    operations, public, replays, sources, stats, trigger,
};
use crate::domain::account::Scope;

/// Who may call an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Anyone.
    Open,
    /// Any key.
    Key,
    /// An operator's key.
    Operator,
    /// A tenant's key with this scope, or an operator's key.
    Scope(Scope),
    /// The same, or a sender without a key, whose handshake it may be.
    Handshake(Scope),
}

/// One route.
pub struct Endpoint {
    /// The HTTP method; a GET answers HEAD too.
    pub method: &'static str,
    /// The path, with `{name}` for what varies.
    pub path: &'static str,
    /// Who may call it.
    pub auth: Auth,
    pub(super) run: fn(Call) -> BoxFuture<'static, Answer>,
}

macro_rules! routes {
    ($($method:ident $path:literal $auth:expr => $run:path;)*) => {
        &[$(Endpoint { method: stringify!($method), path: $path, auth: $auth, run: |call| Box::pin($run(call)) },)*]
    };
}

const READ: Auth = Auth::Scope(Scope::Read);
const MANAGE: Auth = Auth::Scope(Scope::Manage);
const PUBLISH: Auth = Auth::Scope(Scope::Publish);
const SUBSCRIBE: Auth = Auth::Scope(Scope::Subscribe);

/// All of them.
pub static ROUTES: &[Endpoint] = routes! {
    POST "/v1/events" PUBLISH => events::publish;
    GET "/v1/events/{id}" READ => events::read;
    POST "/v1/tenants" Auth::Operator => accounts::make_tenant;
    GET "/v1/tenants" Auth::Operator => accounts::list_tenants;
    GET "/v1/tenants/{id}" Auth::Operator => accounts::read_tenant;
    DELETE "/v1/tenants/{id}" Auth::Operator => accounts::delete_tenant;
    POST "/v1/keys" Auth::Operator => accounts::make_key;
    GET "/v1/keys" Auth::Operator => accounts::list_keys;
    DELETE "/v1/keys/{id}" Auth::Operator => accounts::revoke_key;
    POST "/v1/connections" MANAGE => connections::make;
    GET "/v1/connections" READ => connections::list;
    GET "/v1/connections/{id}" READ => connections::read;
    PATCH "/v1/connections/{id}" MANAGE => connections::update;
    DELETE "/v1/connections/{id}" MANAGE => connections::delete;
    GET "/v1/connections/{id}/stats" READ => stats::read;
    POST "/v1/connections/{id}/pause" MANAGE => connections::pause;
    POST "/v1/connections/{id}/resume" MANAGE => connections::resume;
    POST "/v1/connections/{id}/rotate-secret" MANAGE => connections::rotate_secret;
    POST "/v1/connections/{id}/test" MANAGE => connections::test;
    POST "/v1/connections/{id}/trigger" PUBLISH => trigger::trigger;
    GET "/v1/me" Auth::Key => hooks::me;
    GET "/v1/event-types" SUBSCRIBE => hooks::event_types;
    POST "/v1/hooks" SUBSCRIBE => hooks::subscribe;
    GET "/v1/hooks" SUBSCRIBE => hooks::list;
    GET "/v1/hooks/samples" SUBSCRIBE => hooks::samples;
    GET "/v1/hooks/{id}" SUBSCRIBE => hooks::read;
    DELETE "/v1/hooks/{id}" SUBSCRIBE => hooks::unsubscribe;
    POST "/api/v1/hooks/subscribe" SUBSCRIBE => hooks::fetchply_subscribe;
    DELETE "/api/v1/hooks/subscribe" SUBSCRIBE => hooks::fetchply_unsubscribe;
    POST "/v1/sources" MANAGE => sources::make;
    GET "/v1/sources" READ => sources::list;
    GET "/v1/sources/{id}" Auth::Handshake(Scope::Read) => sources::read;
    POST "/v1/sources/{id}" Auth::Open => sources::receive;
    PATCH "/v1/sources/{id}" MANAGE => sources::update;
    DELETE "/v1/sources/{id}" MANAGE => sources::delete;
    POST "/v1/sources/{id}/rotate-secret" MANAGE => sources::rotate_secret;
    GET "/api/v1/agents/{agent}/chat/{channel}" Auth::Open => sources::receive_for_agent;
    POST "/api/v1/agents/{agent}/chat/{channel}" Auth::Open => sources::receive_for_agent;
    POST "/api/public/conversations/{id}/rate" Auth::Open => public::rate;
    OPTIONS "/api/public/conversations/{id}/rate" Auth::Open => public::preflight;
    POST "/api/public/system-chat" Auth::Open => public::chat;
    OPTIONS "/api/public/system-chat" Auth::Open => public::preflight;
    GET "/v1/deliveries" READ => deliveries::list;
    GET "/v1/deliveries/export" READ => deliveries::export;
    GET "/v1/deliveries/{id}" READ => deliveries::read;
    POST "/v1/deliveries/{id}/retry" MANAGE => deliveries::retry;
    POST "/v1/replays" MANAGE => replays::make;
    GET "/v1/replays" READ => replays::list;
    GET "/v1/replays/{id}" READ => replays::read_one;
    POST "/v1/replays/{id}/cancel" MANAGE => replays::cancel;
    POST "/v1/erasures" MANAGE => erasures::make;
    GET "/v1/erasures" READ => erasures::list;
    GET "/v1/erasures/{id}" READ => erasures::read;
    POST "/v1/erasures/{id}/cancel" MANAGE => erasures::cancel;
    POST "/v1/mappings/preview" READ => mappings::preview;
    POST "/v1/filters/preview" READ => filters::preview;
    GET "/v1/mappings" READ => catalogue::mappings;
    GET "/v1/connectors" READ => catalogue::connectors;
    GET "/v1/connectors/{id}" READ => catalogue::connector;
    GET "/api/health" Auth::Open => operations::health;
    GET "/healthz" Auth::Open => operations::health;
    GET "/readyz" Auth::Open => operations::ready;
    GET "/metrics" Auth::Open => operations::metrics;
    GET "/openapi.json" Auth::Open => docs::openapi;
    GET "/docs" Auth::Open => docs::page;
};

/// What a process that only delivers answers.
pub static PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// What runs where a path is known and the method is not.
pub(super) static METHOD_NOT_ALLOWED: Endpoint = Endpoint {
    method: "",
    path: NO_ROUTE,
    auth: Auth::Open,
    run: |_| {
        Box::pin(async {
            Err(Problem::new(Code::MethodNotAllowed, "see Allow for the methods of this path"))
        })
    },
};

/// What runs where the path is not known.
pub(super) static NO_SUCH_ROUTE: Endpoint = Endpoint {
    method: "",
    path: NO_ROUTE,
    auth: Auth::Open,
    run: |_| {
        Box::pin(async {
            Err(Problem::new(Code::NoSuchRoute, "no route has this path").hint("/docs lists every route"))
        })
    },
};

/// What runs for every other path in a process that only delivers.
pub(super) static NO_API_HERE: Endpoint = Endpoint {
    method: "",
    path: NO_ROUTE,
    auth: Auth::Open,
    run: |_| {
        Box::pin(async {
            let hint = "send it to a process whose role is api or both";
            Err(Problem::new(Code::NoSuchRoute, "this process only delivers (role = \"worker\")").hint(hint))
        })
    },
};
