//! What the peek looks for, what it finds, and what may be wrong.

/// What is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeekFault {
    /// Not JSON; the position counts bytes from 0.
    #[error("invalid JSON at byte {at}: {what}")]
    Syntax {
        /// Offset of the first byte that cannot be.
        at: u64,
        /// What was expected there.
        what: &'static str,
    },
    /// A key that must be unique stands twice.
    #[error("duplicate key '{0}' in the request body")]
    Duplicate(&'static str),
    /// The value of a key is too long to be meant.
    #[error("the value of '{0}' is longer than {most} bytes", most = super::text::MAX_KEPT)]
    TooLong(&'static str),
}

/// The value of `model`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ModelField {
    /// There is no such key (yet).
    #[default]
    Missing,
    /// Some other type than a string.
    NotText,
    /// A string.
    Name(String),
}

/// What the scanner has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// `model`.
    pub model: ModelField,
    /// `stream`; `None` when missing or no boolean.
    pub stream: Option<bool>,
    /// `max_completion_tokens`, else `max_tokens`.
    pub max_tokens: Option<u64>,
    /// `user`.
    pub user: Option<String>,
    /// `session_id`.
    pub session_id: Option<String>,
    /// The value of the session key, as Python's `str()` prints it.
    pub session: Option<String>,
    /// Where the value of `model` stands, with its quotes.
    pub model_at: std::ops::Range<u64>,
    /// Whether the whole is a JSON object.
    pub is_object: bool,
    pub(super) seen_model: bool,
    pub(super) seen_stream: bool,
}

/// The keys that we look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Model,
    Stream,
    MaxTokens,
    MaxCompletionTokens,
    User,
    SessionId,
    /// None of these, but the configured session key.
    Session,
}

impl Field {
    pub(super) fn named(key: &[u8]) -> Option<Self> {
        Some(match key {
            b"model" => Self::Model,
            b"stream" => Self::Stream,
            b"max_tokens" => Self::MaxTokens,
            b"max_completion_tokens" => Self::MaxCompletionTokens,
            b"user" => Self::User,
            b"session_id" => Self::SessionId,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Stream => "stream",
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::User => "user",
            Self::SessionId => "session_id",
            Self::Session => "(the session key)",
        }
    }
}
