//! Asking one engine how it is: whether it answers, and whether it sleeps.
//!
//! Engines whose kind of model is known get a small real request, as the
//! reference router's static health checks do; others `GET /health`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use crate::fleet::engine::Outcome;
use crate::fleet::{Candidate, Engine};
use crate::upstream::{Fault, FetchError, Get, Pool, ask};

/// Bytes of an answer at most.
const MOST: usize = 1 << 20;

/// What an engine is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    path: &'static str,
    json: Option<Bytes>,
}

impl Probe {
    /// What that engine is to be asked.
    #[must_use]
    pub fn of(candidate: &Candidate) -> Self {
        let spec = &candidate.spec;
        let kind = spec.traits.labels.get("model_type").map(String::as_str);
        let small = kind.zip(spec.models.first());
        let small = small.and_then(|(kind, model)| Self::small(kind, model));
        small.unwrap_or(Self {
            path: "/health",
            json: None,
        })
    }

    /// Whether it has the engine generate something.
    #[must_use]
    pub fn is_inference(&self) -> bool {
        self.json.is_some()
    }

    /// A small request for that kind of model.
    fn small(kind: &str, model: &str) -> Option<Self> {
        let hello = json!([{"role": "user", "content": "Hello"}]);
        let (path, body) = match kind {
            "chat" | "vision" => (
                "/v1/chat/completions",
                json!({"model": model, "messages": hello, "max_tokens": 1, "temperature": 0}),
            ),
            "messages" => (
                "/v1/messages",
                json!({"model": model, "messages": hello, "max_tokens": 1}),
            ),
            "completion" => (
                "/v1/completions",
                json!({"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0}),
            ),
            "embeddings" => ("/v1/embeddings", json!({"model": model, "input": "Hello"})),
            "rerank" => (
                "/v1/rerank",
                json!({"model": model, "query": "Hello", "documents": ["Hello"]}),
            ),
            "score" => (
                "/v1/score",
                json!({"model": model, "text_1": "Hello", "text_2": "Hello"}),
            ),
            // Sound, images, and whatever comes: too much for a probe.
            _ => return None,
        };
        Some(Self {
            path,
            json: Some(Bytes::from(body.to_string())),
        })
    }

    /// Asks; what came of it is what a request's end would mean.
    pub async fn run(self, pool: &Rc<Pool>, engine: &Arc<Engine>, within: Duration) -> Outcome {
        let get = Get {
            path: self.path,
            json: self.json,
            within,
            most: MOST,
        };
        match ask(pool, engine, get).await {
            Ok((status, _)) => Outcome::of_status(status.as_u16()),
            // It is alive, whatever it says.
            Err(FetchError::TooLong(_) | FetchError::Status(_) | FetchError::Encoded(_)) => {
                Outcome::Success
            }
            Err(FetchError::Late(_)) => Outcome::Timeout,
            Err(FetchError::Fault(Fault::Unsent(_))) => Outcome::Unreachable,
            Err(FetchError::Fault(Fault::NoSocket(_))) => Outcome::Unrelated,
            Err(FetchError::Fault(_) | FetchError::Nonsense(_)) => Outcome::Failure,
        }
    }
}

/// Whether an engine sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sleep {
    /// It says so.
    Asleep,
    /// It says that it does not.
    Awake,
    /// It answers, but does not know the question: it cannot sleep.
    Sleepless,
    /// It did not answer.
    Unknown,
}

/// Whether the engine tells that it sleeps.
pub async fn is_sleeping(pool: &Rc<Pool>, engine: &Arc<Engine>, within: Duration) -> Sleep {
    let get = Get {
        path: "/is_sleeping",
        json: None,
        within,
        most: MOST,
    };
    let Ok((status, body)) = ask(pool, engine, get).await else {
        return Sleep::Unknown;
    };
    let told = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let told = told.and_then(|told| told.get("is_sleeping")?.as_bool());
    match told {
        Some(true) if status == StatusCode::OK => Sleep::Asleep,
        Some(false) if status == StatusCode::OK => Sleep::Awake,
        _ if status.is_server_error() => Sleep::Unknown,
        _ => Sleep::Sleepless,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Traits;
    use crate::fleet::testing::{fleet, spec};

    #[test]
    fn the_kind_of_model_says_what_is_asked() {
        for (kind, path) in [
            (Some("chat"), "/v1/chat/completions"),
            (Some("completion"), "/v1/completions"),
            (Some("embeddings"), "/v1/embeddings"),
            (Some("rerank"), "/v1/rerank"),
            (Some("score"), "/v1/score"),
            (Some("messages"), "/v1/messages"),
            (Some("transcription"), "/health"),
            (None, "/health"),
        ] {
            let labels = kind.map(|kind| ("model_type".to_owned(), kind.to_owned()));
            let mut fleet = fleet();
            let mut one = spec("http://a", &["m"]);
            one.traits = Arc::new(Traits {
                labels: labels.into_iter().collect(),
                ..Traits::default()
            });
            fleet.reconcile(vec![one]);
            let snapshot = fleet.published().load_full();
            let probe = Probe::of(&snapshot.all.candidates.list()[0]);
            assert_eq!(probe.path, path);
            assert_eq!(probe.json.is_some(), path != "/health");
        }
    }
}
