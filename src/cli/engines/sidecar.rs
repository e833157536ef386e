//! Asking a running sidecar for its page of engines.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use http::StatusCode;
use serde_json::Value;

use crate::config::auth::Secret;
use crate::fleet::{Engine, EngineUrl};
use crate::upstream::{Fault, FetchError, Get, Pool, ask};

/// The page.
const PATH: &str = "/engines";
/// Bytes of it at most: a thousand engines take some 2 MB.
const MOST: usize = 64 << 20;
/// How long it may take.
const WITHIN: Duration = Duration::from_secs(10);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Characters of an answer that are shown where it is of no use.
const SHOWN: usize = 60;

/// A sidecar, asked as we ask engines.
#[derive(Debug)]
pub(super) struct Sidecar {
    at: Arc<Engine>,
    pool: Rc<Pool>,
}

impl Sidecar {
    /// The one at that address, which is shown that key.
    pub(super) fn new(url: &str, key: Option<Secret>) -> anyhow::Result<Self> {
        let since = (Instant::now(), Duration::ZERO);
        let at = Engine::new(address(url)?, 1, since, &Arc::default());
        if let Some(key) = key {
            at.credential.give(key);
        }
        Ok(Self {
            at: Arc::new(at),
            pool: Pool::new(0, CONNECT, CONNECT),
        })
    }

    /// Its page of engines.
    pub(super) async fn engines(&self) -> anyhow::Result<Value> {
        let get = Get {
            path: PATH,
            json: None,
            within: WITHIN,
            most: MOST,
        };
        let url = &self.at.url;
        let page = format!("{}{PATH}", url.text());
        let (status, body) = ask(&self.pool, &self.at, get)
            .await
            .map_err(|error| unasked(&error, url))?;
        let start = start(&body);
        ensure!(
            status != StatusCode::UNAUTHORIZED,
            "{page} asks for an API key: give it in PILOTFISH_API_KEY, or in a file with --api-key-file"
        );
        ensure!(
            status != StatusCode::NOT_FOUND,
            "{page} is not there ({start:?}): expected a Pilotfish, its public port, and its --root-path in the URL"
        );
        ensure!(
            status == StatusCode::OK,
            "{page} was answered with {status}: {start:?}"
        );
        serde_json::from_slice(&body).map_err(|error| {
            anyhow!("{page} is no JSON ({error}), but begins with {start:?}: expected a Pilotfish")
        })
    }
}

/// Reads an address as people write it.
fn address(text: &str) -> anyhow::Result<EngineUrl> {
    let text = text.trim().trim_end_matches('/');
    let text = text.strip_suffix(PATH).unwrap_or(text);
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    EngineUrl::parse(&whole).map_err(|error| {
        let problem = error.problem();
        anyhow!("'{text}': {problem}; expected [http[s]://]HOST[:PORT][/ROOT-PATH]")
    })
}

/// Our words for engines are not those for a sidecar.
fn unasked(error: &FetchError, url: &EngineUrl) -> anyhow::Error {
    let (text, port) = (url.text(), url.port());
    match error {
        FetchError::Fault(Fault::Unsent(why)) => anyhow!(
            "cannot connect to {text} (port {port}): {why}; is the sidecar running there? Its --port is 8001 by default"
        ),
        FetchError::Late(within) => anyhow!("{text} gave no whole answer within {within:?}"),
        other => anyhow!("{text} gave no answer that can be read: {other}"),
    }
}

/// How an answer begins.
fn start(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(SHOWN * 4)]);
    text.trim().chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        for (text, whole, base) in [
            ("http://127.0.0.1:8001", "http://127.0.0.1:8001", ""),
            ("localhost:8001/", "http://localhost:8001", ""),
            (" [::1]:9 ", "http://[::1]:9", ""),
            ("host:1/pilot", "http://host:1/pilot", "/pilot"),
            ("http://host:1/engines", "http://host:1", ""),
            ("host:1/pilot/engines/", "http://host:1/pilot", "/pilot"),
            ("https://host/", "https://host", ""),
        ] {
            let url = address(text).unwrap();
            assert_eq!((url.text(), url.base_path()), (whole, base), "{text}");
        }
        for (text, problem) in [
            ("ftp://host", "the scheme must be http"),
            ("host:x", "bad port"),
            ("", "not a URL"),
            ("a b", "not a URL"),
        ] {
            let message = address(text).unwrap_err().to_string();
            assert!(
                message.contains(problem) && message.contains("expected [http[s]://]HOST"),
                "{text}: {message}"
            );
        }
    }

    #[test]
    fn an_answer_is_shown_by_its_beginning() {
        assert_eq!(start(b" <html>\n"), "<html>");
        assert_eq!(start("é".repeat(500).as_bytes()).chars().count(), SHOWN);
        assert_eq!(start(b""), "");
    }
}
