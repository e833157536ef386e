//! The API server: where it is, who we are to it, and one request.
//!
//! Configuration, tokens that are read anew, and TLS are `kube`'s. Its retries are
//! not used, nor its log: it would tell of every failure, and sit on it for minutes.

mod client;
mod place;
mod plugin;

use std::cell::Cell;
use std::error::Error as StdError;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::client::Body;
use kube::{Client, Config};
use tokio::sync::Mutex;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_rustls::rustls;

use super::fault::{Fault, Told, shortened};
use client::{CONNECT, Parts, of_credentials};
pub use place::NoCluster;
use place::Place;

/// How long before they run out credentials are asked for anew.
const EARLY: SignedDuration = SignedDuration::from_secs(30);
/// Bytes of a refusal that are read.
const MOST_REFUSAL: usize = 64 << 10;

/// An API server, and who we are to it.
pub struct ApiServer {
    place: Place,
    /// Locked while it is made: once for all who ask.
    connected: Mutex<Connected>,
    /// Whether what we know of it is to be read anew before the next request.
    is_stale: Cell<bool>,
    /// Whether it has refused a list as a stream: then not asked for again.
    pub(super) refuses_streams: Cell<bool>,
    server: String,
    namespace: String,
}

/// What is known of how to ask it.
struct Connected {
    config: Config,
    /// What a client is made of where it is first used: it belongs to a runtime.
    parts: Option<Parts>,
    client: Option<Client>,
    /// When its credentials run out, if they tell.
    expires: Option<Timestamp>,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the credentials.
        f.debug_struct("ApiServer")
            .field("place", &self.place)
            .field("server", &self.server)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl ApiServer {
    /// In a pod, the one that the pod's service account is for; else the one of
    /// `$KUBECONFIG` or `~/.kube/config`. Nothing is sent to it yet, and no plugin
    /// of a kubeconfig is run; it may be used on another runtime than this is
    /// called on.
    ///
    /// # Errors
    /// When there is none, or its credentials cannot be used.
    pub async fn locate() -> Result<Self, NoCluster> {
        let (place, config) = Place::find().await?;
        Box::pin(Self::of(place, config)).await
    }

    /// The one of that kubeconfig file's current context.
    ///
    /// # Errors
    /// When the file, or its credentials, cannot be used.
    pub async fn of_kubeconfig(file: &Path) -> Result<Self, NoCluster> {
        let place = Place::File(file.to_owned());
        let config = place.read().await?;
        Box::pin(Self::of(place, config)).await
    }

    async fn of(place: Place, config: Config) -> Result<Self, NoCluster> {
        let server = config.cluster_url.to_string();
        // Whatever is wrong with it is to be known at once, but for what a plugin
        // says: it takes its time, and what it gives does not last.
        let parts = match plugin::of(&config.auth_info) {
            Some(_) => None,
            None => {
                let parts = Box::pin(Parts::of(&config)).await;
                let server = server.clone();
                Some(parts.map_err(|why| NoCluster::Credentials { server, why })?)
            }
        };
        Ok(Self {
            place,
            server,
            namespace: config.default_namespace.clone(),
            connected: Mutex::new(Connected {
                config,
                parts,
                client: None,
                expires: None,
            }),
            is_stale: Cell::new(false),
            refuses_streams: Cell::new(false),
        })
    }

    /// The namespace that we are in: the pod's, or the kubeconfig context's.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its URL.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Asks for that path and query; the answer's head has to come in that time.
    ///
    /// # Errors
    /// Without a connection, a head in time, or the status 200 and JSON.
    pub async fn get(&self, path_and_query: &str, within: Duration) -> Result<Answer, Fault> {
        let client = self.client().await?;
        let sent = match timeout(within, self.send(&client, path_and_query)).await {
            Ok(sent) => sent,
            Err(_) => Err(self.late("answer", within)),
        };
        if matches!(sent, Err(Fault::Tls { .. } | Fault::Credentials { .. })) {
            self.is_stale.set(true);
        }
        let response = sent?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(path_and_query, response, within).await);
        }
        let kind = response.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("application/json") {
            return Err(Fault::Garbled(format!(
                "{} answers with `{kind}`, not JSON",
                self.server
            )));
        }
        Ok(Answer {
            body: response.into_body(),
            server: self.server.clone(),
        })
    }

    async fn send(&self, client: &Client, path_and_query: &str) -> Result<Response<Body>, Fault> {
        let request = Request::get(path_and_query)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("pilotfish/", env!("CARGO_PKG_VERSION")))
            .body(Body::empty());
        let request = request.map_err(|error| Fault::Garbled(error.to_string()))?;
        let sent = client.send(request).await;
        sent.map_err(|error| self.fault(&error))
    }

    /// Reads what came with a status that is not 200.
    async fn refusal(&self, path: &str, response: Response<Body>, within: Duration) -> Fault {
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            self.is_stale.set(true);
        }
        let asked = response.headers().get(RETRY_AFTER);
        let asked = asked.and_then(|value| value.to_str().ok()?.parse().ok());
        let mut answer = Answer {
            body: response.into_body(),
            server: self.server.clone(),
        };
        let mut body = Vec::new();
        let read = async {
            while let Ok(Some(piece)) = answer.piece().await {
                let room = MOST_REFUSAL.saturating_sub(body.len());
                body.extend_from_slice(&piece[..piece.len().min(room)]);
                if room <= piece.len() {
                    break;
                }
            }
        };
        // What there is by then will do.
        let _ = timeout(within, read).await;
        let mut told = Told::read(Some(status.as_u16()), &body);
        if let Some(seconds) = asked {
            told.retry_after = Some(Duration::from_secs(seconds));
        }
        let verb = if path.contains("watch=1") {
            "watch"
        } else {
            "list"
        };
        told.into_fault(verb, path)
    }

    /// The client. Made anew, from what is configured now, after a 401 or a fault of
    /// TLS, and when what a plugin gave runs out: tokens of files are read again by
    /// `kube`, each minute, but certificates and keys are not.
    async fn client(&self) -> Result<Client, Fault> {
        let mut own = self.connected.lock().await;
        let is_over = own.expires.is_some_and(|at| Timestamp::now() + EARLY >= at);
        if self.is_stale.get() || is_over {
            (own.parts, own.client) = (None, None);
            // One that cannot be read now may be being written.
            if let Ok(config) = self.place.read().await {
                own.config = config;
            }
        } else if let Some(client) = &own.client {
            return Ok(client.clone());
        }
        let parts = match own.parts.take() {
            Some(parts) => Ok(parts),
            None => Box::pin(Parts::of(&own.config)).await,
        };
        self.is_stale.set(parts.is_err());
        let parts = parts.map_err(|why| Fault::Credentials {
            server: self.server.clone(),
            why,
        })?;
        own.expires = parts.expires;
        Ok(own.client.insert(parts.client()).clone())
    }

    fn fault(&self, error: &kube::Error) -> Fault {
        let server = self.server.clone();
        if let Some(why) = of_credentials(error) {
            return Fault::Credentials { server, why };
        }
        let why = deepest(error);
        if is_of_tls(error) {
            Fault::Tls { server, why }
        } else {
            Fault::Unreachable { server, why }
        }
    }

    /// That did not come in time.
    pub(super) fn late(&self, what: &'static str, within: Duration) -> Fault {
        Fault::Late {
            server: self.server.clone(),
            what,
            within,
        }
    }
}

/// An answer's body, as it comes.
#[derive(Debug)]
pub struct Answer {
    body: Body,
    server: String,
}

impl Answer {
    /// The next piece; `None` at the end. May be dropped, and asked again.
    ///
    /// # Errors
    /// When it breaks off.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Fault> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame
                .map_err(|error| Fault::Broken(format!("{} ({})", deepest(&error), self.server)))?;
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// The error behind all the others, which says most.
fn deepest(error: &(dyn StdError + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    if is_late(deepest) {
        return format!("no connection within {CONNECT:?}");
    }
    shortened(&deepest.to_string())
}

/// Whether it is of [`CONNECT`]: the only deadline that the client has of its own.
fn is_late(error: &(dyn StdError + 'static)) -> bool {
    let wrapped = error.downcast_ref::<std::io::Error>();
    let wrapped = wrapped.and_then(std::io::Error::get_ref);
    error.is::<Elapsed>() || wrapped.is_some_and(|error| error.is::<Elapsed>())
}

fn is_of_tls(error: &(dyn StdError + 'static)) -> bool {
    // What an I/O error wraps is not among its sources.
    let wrapped = error.downcast_ref::<std::io::Error>();
    let wrapped = wrapped.and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>()
        || wrapped.is_some_and(|error| is_of_tls(error))
        || error.source().is_some_and(is_of_tls)
}

#[cfg(test)]
mod tests;
