//! A client of an API server: made without keeping the thread that asks for it, in
//! bounded time.

use std::error::Error as StdError;
use std::time::Duration;

use http::HeaderValue;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::jiff::Timestamp;
use kube::client::{AuthError, Body, ClientBuilder, ConfigExt as _};
use kube::config::AuthInfo;
use kube::{Client, Config};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tower::{BoxError, ServiceExt as _};

use super::place::told;
use super::plugin;

/// Until a connection stands, with TLS.
pub(super) const CONNECT: Duration = Duration::from_secs(3);
/// For each of: a file that is read, a plugin that is run.
const MOST_TIME: Duration = Duration::from_secs(10);
/// Where a pod's own token is.
const OF_A_POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Everything of a client that may take its time. What is left makes one of the
/// runtime that it is called on.
pub(super) struct Parts {
    make: Box<dyn FnOnce() -> Client + Send>,
    /// When its credentials run out, if they tell.
    pub(super) expires: Option<Timestamp>,
}

impl Parts {
    /// What that configuration gives; runs its plugin, if there is one.
    pub(super) async fn of(config: &Config) -> Result<Self, String> {
        let mut config = config.clone();
        let mut expires = None;
        if let Some(exec) = plugin::of(&config.auth_info) {
            let given = plugin::run(&config.auth_info, exec, MOST_TIME).await;
            let given = given.map_err(|bad| bad.to_string())?;
            (config.auth_info, expires) = (given.info, given.expires);
        }
        let make = aside(move || make(&config)).await??;
        Ok(Self { make, expires })
    }

    /// A client of the runtime that this is called on.
    pub(super) fn client(self) -> Client {
        (self.make)()
    }
}

fn make(config: &Config) -> Result<Box<dyn FnOnce() -> Client + Send>, String> {
    check_token(&config.auth_info)?;
    let said = |error: kube::Error| said(&error);
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    let https = config.rustls_https_connector_with_connector(http);
    let mut connector = TimeoutConnector::new(https.map_err(said)?);
    connector.set_connect_timeout(Some(CONNECT));
    let auth = config.auth_layer().map_err(said)?;
    let headers = config.extra_headers_layer().map_err(said)?;
    let (uri, namespace) = (config.base_uri_layer(), config.default_namespace.clone());
    Ok(Box::new(move || {
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(2)
            .build::<_, Body>(connector)
            .map_err(BoxError::from);
        let named = ClientBuilder::new(http, namespace).with_layer(&headers);
        match auth {
            Some(auth) => named.with_layer(&auth).with_layer(&uri).build(),
            None => named.with_layer(&uri).build(),
        }
    }))
}

/// Does what may block elsewhere; waits for it no longer than is bearable.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    match timeout(MOST_TIME, spawn_blocking(work)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err("reading what is configured panicked".to_owned()),
        Err(_) => Err(format!(
            "reading what is configured took longer than {MOST_TIME:?}"
        )),
    }
}

/// `kube` panics at a bad token of the kubeconfig, and finds one of a file when it
/// is to be sent.
fn check_token(info: &AuthInfo) -> Result<(), String> {
    let named = serde_json::to_value(info).unwrap_or_default();
    let (token, from) = match (named["token"].as_str(), &info.token_file) {
        (Some(token), _) => (token.to_owned(), "the kubeconfig or its plugin"),
        // What cannot be read is `kube`'s to tell.
        (None, Some(file)) => (std::fs::read_to_string(file).unwrap_or_default(), &**file),
        (None, None) => return Ok(()),
    };
    match HeaderValue::try_from(format!("Bearer {token}")) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("{BAD_TOKEN} ({from})")),
    }
}

const BAD_TOKEN: &str =
    "the token has characters that no token has, as the end of a line: write it without";

/// What is wrong with our credentials, if that is what is wrong.
pub(super) fn of_credentials(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<AuthError>() {
            return Some(of_auth(error));
        }
        next = error.source();
    }
    None
}

/// A configuration's fault, in a line.
fn said(error: &kube::Error) -> String {
    of_credentials(error).unwrap_or_else(|| told(error))
}

fn of_auth(error: &AuthError) -> String {
    match error {
        AuthError::InvalidBearerToken(_) => BAD_TOKEN.to_owned(),
        AuthError::ReadTokenFile(_, file) if file.starts_with(OF_A_POD) => format!(
            "{}; mount the service account's token (automountServiceAccountToken, or a projected volume at \
             {OF_A_POD})",
            told(error)
        ),
        // Not run by `kube` here. If ever: this has all that the command was given,
        // and what it printed.
        AuthError::AuthExecRun { out, .. } => format!("a command failed ({})", out.status),
        error => told(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(user: serde_json::Value) -> AuthInfo {
        serde_json::from_value(user).unwrap()
    }

    #[test]
    fn tokens_are_a_line() {
        for (token, is_good) in [("abc.def-_", true), ("a\n", false), ("a\r", false)] {
            let info = info(serde_json::json!({ "token": token }));
            let told = check_token(&info);
            assert_eq!(told.is_ok(), is_good, "{told:?}");
            assert!(told.err().is_none_or(|told| told.contains("end of a line")));
        }
        assert!(check_token(&info(serde_json::json!({}))).is_ok());
    }

    #[test]
    fn what_to_do_about_a_token() {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let of = |file: &str| of_auth(&AuthError::ReadTokenFile(missing(), file.into()));
        let own = of("/var/run/secrets/kubernetes.io/serviceaccount/token");
        assert!(own.contains("automountServiceAccountToken"), "{own}");
        assert!(!of("/other").contains("automountServiceAccountToken"));
        // However deep it is.
        let bad = HeaderValue::try_from("a\n").unwrap_err();
        let deep = kube::Error::Service(Box::new(AuthError::InvalidBearerToken(bad)));
        assert!(of_credentials(&deep).unwrap().contains("end of a line"));
        assert!(of_credentials(&missing()).is_none());
    }

    #[tokio::test]
    async fn what_panics_elsewhere_does_not_here() {
        assert_eq!(aside(|| 7).await, Ok(7));
        let told = aside(|| "x".parse::<u8>().unwrap()).await;
        assert!(told.unwrap_err().contains("panicked"));
    }
}
