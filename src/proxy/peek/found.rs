//! What the peek looks for, what it finds, and what may be wrong.

use std::ops::Range;

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

/// Where in a body the prompt stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptAt {
    /// The value of `messages`, `prompt` or `input`; its end is `None` when it
    /// has not been seen.
    pub main: Option<(u64, Option<u64>)>,
    /// What stands before it in what the model reads: `system`, `instructions`
    /// and `tools`.
    pub context: [Option<(u64, Option<u64>)>; 3],
    /// Where its last elements end, of the first [`PromptAt::ENDS`] kept in a
    /// circle.
    pub ends: [u64; PromptAt::ENDS],
    /// How many elements it has.
    pub elements: usize,
    /// Where the first two of them end.
    pub first: [u64; 2],
}

impl PromptAt {
    /// Elements whose ends are kept: a conversation's last few messages.
    pub const ENDS: usize = 8;

    /// The span that a top-level key opens.
    pub(super) fn span(key: &[u8]) -> Option<Span> {
        Some(match key {
            b"messages" | b"prompt" | b"input" => Span::Main,
            b"system" => Span::Context(0),
            b"instructions" => Span::Context(1),
            b"tools" => Span::Context(2),
            _ => return None,
        })
    }

    pub(super) fn begin(&mut self, span: Span, at: u64) {
        match span {
            Span::Main => {
                self.main = Some((at, None));
                // What an earlier one had is none of this one's.
                self.elements = 0;
            }
            Span::Context(which) => self.context[which] = Some((at, None)),
        }
    }

    pub(super) fn end(&mut self, span: Span, at: u64) {
        let open = match span {
            Span::Main => &mut self.main,
            Span::Context(which) => &mut self.context[which],
        };
        if let Some((_, end)) = open {
            *end = Some(at);
        }
    }

    pub(super) fn element_ends(&mut self, at: u64) {
        self.ends[self.elements % Self::ENDS] = at;
        if let Some(first) = self.first.get_mut(self.elements) {
            *first = at;
        }
        self.elements += 1;
    }
}

/// A part of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    Main,
    Context(usize),
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
    pub model_at: Range<u64>,
    /// Where `selection_query` stands.
    pub selection: Option<Box<SelectionAt>>,
    /// Where the prompt stands, if it was looked for.
    pub prompt: Option<Box<PromptAt>>,
    /// Whether the whole is a JSON object.
    pub is_object: bool,
    pub(super) seen_model: bool,
    pub(super) seen_stream: bool,
    pub(super) seen_selection: bool,
}

/// Where in a body a selection stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SelectionAt {
    /// Its value.
    pub value: Range<u64>,
    /// All that is to go so that the rest is as if it had never been there: the
    /// key, the value, one comma.
    pub whole: Range<u64>,
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
    /// `selection_query`.
    Selection,
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
            b"selection_query" => Self::Selection,
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
            Self::Selection => "selection_query",
        }
    }
}
