//! One serving process at one URL, with its live state.
//!
//! Readers never lock: what the workers count here are atomics, kept in the
//! object that they describe, so that a reload which keeps the engine keeps
//! them too.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use http::HeaderValue;
use http::uri::{Scheme, Uri};

/// What discovery says of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSpec {
    /// Where it listens; also its identity.
    pub url: EngineUrl,
    /// The models that it serves.
    pub models: Vec<String>,
}

/// An engine's URL: the text as the user wrote it, and its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineUrl {
    text: String,
    host: String,
    port: u16,
    authority: HeaderValue,
    base_path: String,
}

/// Why a text is no engine URL.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("engine URL '{text}': {problem}; expected http://HOST[:PORT][/PATH]")]
pub struct UrlError {
    text: String,
    problem: &'static str,
}

impl EngineUrl {
    /// Reads `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// Says what is wrong with the text. `https` is refused: engines are
    /// spoken to in clear text.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let fail = |problem| UrlError {
            text: text.to_owned(),
            problem,
        };
        let uri: Uri = text.parse().map_err(|_| fail("not a URL"))?;
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => {}
            Some(scheme) if *scheme == Scheme::HTTPS => {
                return Err(fail("TLS to engines is not supported"));
            }
            _ => return Err(fail("the scheme must be http")),
        }
        let authority = uri.authority().ok_or_else(|| fail("no host"))?;
        if authority.as_str().contains('@') {
            return Err(fail("user names in URLs are not supported"));
        }
        if authority.host().is_empty() {
            return Err(fail("no host"));
        }
        if uri.query().is_some() {
            return Err(fail("a query makes no sense here"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        Ok(Self {
            text: text.to_owned(),
            host,
            port: authority.port_u16().unwrap_or(80),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| fail("bad host"))?,
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The text as configured, not normalised.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Name or address to connect to, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of the `Host` field.
    #[must_use]
    pub fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// What is put before each path; empty or `/prefix`.
    #[must_use]
    pub fn base_path(&self) -> &str {
        &self.base_path
    }
}

/// How a request ended, as far as the engine is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered whole, whatever the status below 500.
    Success,
    /// The client left or broke its own request: says nothing of the engine.
    ClientGone,
    /// 429 or 503: back-pressure, not a fault.
    Overloaded,
    /// Connect error, reset, truncation, protocol error or another 5xx.
    Failure,
    /// A deadline of ours passed.
    Timeout,
}

impl Outcome {
    /// All outcomes with their label values.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Success, "success"),
        (Self::ClientGone, "client_gone"),
        (Self::Overloaded, "overloaded"),
        (Self::Failure, "failure"),
        (Self::Timeout, "timeout"),
    ];

    /// The outcome of a whole answer with this status.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            429 | 503 => Self::Overloaded,
            501 => Self::Success,
            500.. => Self::Failure,
            _ => Self::Success,
        }
    }
}

/// One engine with its live state.
#[derive(Debug)]
pub struct Engine {
    /// What discovery said of it.
    pub spec: EngineSpec,
    /// Unique for the life of the process; pools are keyed by it.
    pub key: u64,
    /// When it was first seen, Unix seconds.
    pub created: u64,
    /// Requests picked and not ended.
    pub in_flight: AtomicU32,
    /// TCP connections made.
    pub connects: AtomicU64,
    /// Requests sent on a connection that had served one before.
    pub reuses: AtomicU64,
    /// Connections that the engine had closed just as they were reused.
    pub stale: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

impl Engine {
    /// An engine that has seen no traffic.
    #[must_use]
    pub fn new(spec: EngineSpec, key: u64) -> Self {
        let created = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            spec,
            key,
            created,
            in_flight: AtomicU32::new(0),
            connects: AtomicU64::new(0),
            reuses: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            outcomes: Default::default(),
        }
    }

    /// Counts one ended request.
    pub fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
    }

    /// Ended requests with that outcome.
    #[must_use]
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_and_kept_as_written() {
        for (text, host, port, authority, base) in [
            ("http://a", "a", 80, "a", ""),
            ("http://a:8000/", "a", 8000, "a:8000", ""),
            ("http://[::1]:9", "::1", 9, "[::1]:9", ""),
            ("http://a:1/x/y/", "a", 1, "a:1", "/x/y"),
        ] {
            let url = EngineUrl::parse(text).unwrap();
            assert_eq!((url.text(), url.host(), url.port()), (text, host, port));
            assert_eq!(url.authority(), authority);
            assert_eq!(url.base_path(), base);
        }
    }

    #[test]
    fn bad_urls_say_what_is_wrong() {
        for (text, problem) in [
            ("", "not a URL"),
            ("a:8000", "scheme"),
            ("https://a", "TLS"),
            ("http://u@a", "user names"),
            ("http://a/?x=1", "query"),
            ("/x", "scheme"),
        ] {
            let message = EngineUrl::parse(text).unwrap_err().to_string();
            assert!(message.contains(problem), "{text}: {message}");
        }
    }

    #[test]
    fn outcomes_index_their_own_counters() {
        for (index, (outcome, _)) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
        }
        for (status, outcome) in [
            (200, Outcome::Success),
            (404, Outcome::Success),
            (429, Outcome::Overloaded),
            (500, Outcome::Failure),
            (501, Outcome::Success),
            (503, Outcome::Overloaded),
            (504, Outcome::Failure),
        ] {
            assert_eq!(Outcome::of_status(status), outcome, "{status}");
        }
    }
}
