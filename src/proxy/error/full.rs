//! Why there is no place for a request.

use super::code::Code;

/// Why there is no place for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// As many are in flight as may be, and as many wait as may.
    Queue,
    /// It waited as long as one may.
    Late,
    /// Each engine tells that it has too much to do.
    Saturated,
}

impl Full {
    pub(super) fn code(self) -> Code {
        match self {
            Self::Queue => Code::QueueFull,
            Self::Late => Code::QueueTimeout,
            Self::Saturated => Code::EnginesSaturated,
        }
    }
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queue => "the queue is full",
            Self::Late => "there was no place in time",
            Self::Saturated => "all engines have too much to do",
        })
    }
}
