//! What may be wrong with a request to `/v1/infer`, beside what may be wrong with
//! any request.

use http::StatusCode;

use crate::proxy::error::Code;

/// Bytes of what is told of a value at most.
const MOST: usize = 256;

/// Why such a request gets no engine's answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// A value that makes no sense.
    #[error("{}: {message}", shown(.pointer))]
    Wrong {
        /// Where it stands, as a JSON pointer.
        pointer: String,
        /// What was expected.
        message: String,
        /// The key of the request that it stands in.
        param: &'static str,
    },
    /// The body is no JSON.
    #[error("Invalid request: {0}.")]
    NoJson(String),
    /// The body has more bytes than are held.
    #[error("The request body is too large: the most is {0} bytes.")]
    TooLarge(usize),
    /// Something else than a POST.
    #[error("Only POST is allowed here.")]
    Method,
    /// A graph of blocks.
    #[error(
        "/graph: a graph of blocks cannot be executed here: leave it out, or {{}}, and send one \
         request for each block"
    )]
    Graph,
    /// The session's request of that number is under way.
    #[error("The request {seq_no} of this session is under way. Send another seq_no, or wait.")]
    UnderWay {
        /// The number.
        seq_no: u64,
    },
    /// More requests are under way than are kept in mind.
    #[error("Too many requests of sessions at once. Please try again later.")]
    Overloaded,
    /// The engine's answer is none to what it was asked.
    #[error("The engine's answer cannot be understood: {0}.")]
    Answer(String),
}

/// What others wrote may be as long as they like.
pub(super) fn cut(mut message: String) -> String {
    if message.len() > MOST {
        let end = (0..=MOST).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or_default());
        message.push('…');
    }
    message
}

fn shown(pointer: &str) -> &str {
    if pointer.is_empty() {
        "the body"
    } else {
        pointer
    }
}

impl InferError {
    /// A value that makes no sense.
    pub(super) fn wrong(
        param: &'static str,
        pointer: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::Wrong {
            pointer: pointer.into(),
            message: cut(message.into()),
            param,
        }
    }

    /// A body that is no JSON.
    pub(super) fn no_json(error: &dyn std::fmt::Display) -> Self {
        Self::NoJson(cut(error.to_string()))
    }

    /// An answer that is none.
    pub(super) fn no_answer(error: &dyn std::fmt::Display) -> Self {
        Self::Answer(cut(error.to_string()))
    }

    /// Status, code, and the key that is to blame.
    #[must_use]
    pub fn row(&self) -> (StatusCode, Code, Option<&'static str>) {
        match self {
            Self::Wrong { param, .. } => {
                let param = Some(*param).filter(|param| !param.is_empty());
                (StatusCode::BAD_REQUEST, Code::InvalidValue, param)
            }
            Self::NoJson(_) => (StatusCode::BAD_REQUEST, Code::InvalidJson, None),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, Code::RequestTooLarge, None),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, None),
            Self::Graph => (
                StatusCode::NOT_IMPLEMENTED,
                Code::NotImplemented,
                Some("graph"),
            ),
            Self::UnderWay { .. } => (StatusCode::CONFLICT, Code::DuplicateRequest, Some("seq_no")),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, None),
            Self::Answer(_) => (StatusCode::BAD_GATEWAY, Code::EngineError, None),
        }
    }
}
