//! What a URL of Redis stands for: one server, a master behind sentinels, or a cluster; with TLS or without.

use redis::cluster::ClusterClient;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisResult, TlsCertificates, TlsMode};
use tokio::sync::Mutex;

use super::link::CONNECT;

const INVALID: (redis::ErrorKind, &str) =
    (redis::ErrorKind::InvalidClientConfig, "expected redis+sentinel://host:port,host:port/name");

/// How long a request waits before it asks a cluster again, at the least and at the most, in milliseconds. By itself the library
/// waits 1.3 s when a slot has moved: most of what a request may take, and other tenants' requests wait with it.
const RETRY: (u64, u64) = (20, 200);

/// Where the server is.
pub(super) enum Server {
    One(Client),
    /// The client asks the sentinels for the master each time.
    Sentinel(Mutex<SentinelClient>),
    Cluster {
        client: ClusterClient,
        seeds: Vec<Client>,
    },
}

impl Server {
    /// The server of a URL; see [`Link::new`](super::link::Link::new).
    pub fn of(url: &str, authorities: Option<Vec<u8>>) -> RedisResult<Self> {
        let authorities = authorities.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) });
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        match scheme {
            "redis+cluster" | "rediss+cluster" => {
                let nodes = nodes(scheme, rest)?;
                let mut builder = ClusterClient::builder(nodes.iter().cloned())
                    .connection_timeout(CONNECT)
                    .overall_response_timeout(None)
                    .min_retry_wait(RETRY.0)
                    .max_retry_wait(RETRY.1);
                if let Some(authorities) = &authorities {
                    builder = builder.certs(authorities.clone());
                }
                let open = |node| open(node, authorities.clone());
                let seeds = nodes.into_iter().map(open).collect::<RedisResult<_>>()?;
                Ok(Self::Cluster { client: builder.build()?, seeds })
            }
            "redis+sentinel" | "rediss+sentinel" => sentinel(scheme, rest, authorities),
            _ => Ok(Self::One(open(url.into_connection_info()?, authorities)?)),
        }
    }
}

fn open(node: ConnectionInfo, authorities: Option<TlsCertificates>) -> RedisResult<Client> {
    match authorities {
        Some(authorities) => Client::build_with_tls(node, authorities),
        None => Client::open(node),
    }
}

fn sentinel(scheme: &str, rest: &str, authorities: Option<TlsCertificates>) -> RedisResult<Server> {
    let (hosts, path) = rest.split_once('/').ok_or(INVALID)?;
    let (name, db) = path.split_once('/').unwrap_or((path, "0"));
    let nodes = nodes(scheme, hosts)?;
    let login = nodes.first().ok_or(INVALID)?.redis_settings().clone();
    // Sentinels are asked without the password of the servers they watch.
    let addresses: Vec<_> = nodes.iter().map(|node| node.addr().clone()).collect();
    let mut builder = SentinelClientBuilder::new(addresses, name, SentinelServerType::Master)?
        .set_client_to_redis_db(db.parse().map_err(|_| INVALID)?);
    if let Some(user) = login.username() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = login.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if scheme.starts_with("rediss") {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(authorities) = authorities {
        builder = builder
            .set_client_to_redis_certificates(authorities.clone())
            .set_client_to_sentinel_certificates(authorities);
    }
    Ok(Server::Sentinel(Mutex::new(builder.build()?)))
}

/// `user:password@host:port,host:port` as one address for each host.
fn nodes(scheme: &str, rest: &str) -> RedisResult<Vec<ConnectionInfo>> {
    let scheme = scheme.split('+').next().unwrap_or(scheme);
    let rest = rest.trim_end_matches('/');
    let (login, hosts) = rest.rsplit_once('@').map_or(("", rest), |(login, hosts)| (login, hosts));
    let login = if login.is_empty() { String::new() } else { format!("{login}@") };
    hosts.split(',').map(|host| format!("{scheme}://{login}{host}").into_connection_info()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::link::Link;

    #[test]
    fn addresses_name_one_server_sentinels_or_a_cluster() {
        let server_of = |url: &str| Server::of(url, None);
        assert!(matches!(server_of("redis://h:1/2").unwrap(), Server::One(_)));
        assert!(matches!(server_of("rediss://u:p@h:1").unwrap(), Server::One(_)));
        assert!(matches!(server_of("redis+sentinel://u:p@a:1,b:2/main/3").unwrap(), Server::Sentinel(_)));
        assert!(matches!(server_of("rediss+sentinel://u:p@a:1,b:2/main").unwrap(), Server::Sentinel(_)));
        assert!(matches!(server_of("rediss+cluster://u:p@a:1,b:2/").unwrap(), Server::Cluster { .. }));
        assert!(server_of("redis+sentinel://a:1").is_err());
        let error = Link::new("http://user:hunter2@h", None).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(Link::new("redis://h:1", Some(Vec::new())).is_err(), "authorities without TLS");
    }
}
