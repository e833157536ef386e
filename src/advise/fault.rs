//! Why there is no advice, and what that says of who was asked.

use http::StatusCode;

use crate::fleet::engine::Outcome;
use crate::upstream::{Fault, FetchError};

/// Why there is no advice.
#[derive(Debug)]
pub(super) enum Unadvised {
    /// There was no whole answer in time.
    Late(String),
    /// Nobody answers there.
    Down(String),
    /// What was answered to this question is of no use; or it cannot be put.
    Words(String),
}

impl From<String> for Unadvised {
    fn from(why: String) -> Self {
        Self::Words(why)
    }
}

impl From<&str> for Unadvised {
    fn from(why: &str) -> Self {
        Self::Words(why.to_owned())
    }
}

impl Unadvised {
    /// Of a status that is not 200: a gateway's are about who is behind it.
    pub(super) fn of_status(status: StatusCode, why: String) -> Self {
        match status.as_u16() {
            502..=504 => Self::Down(why),
            _ => Self::Words(why),
        }
    }

    pub(super) fn of(error: &FetchError, why: String) -> Self {
        match error {
            FetchError::Late(_) => Self::Late(why),
            FetchError::Fault(Fault::Protocol(_)) => Self::Words(why),
            FetchError::Fault(_) => Self::Down(why),
            _ => Self::Words(why),
        }
    }

    pub(super) fn why(&self) -> &str {
        match self {
            Self::Late(why) | Self::Down(why) | Self::Words(why) => why,
        }
    }
}

/// A call that brought nothing.
#[derive(Debug)]
pub(super) struct NoAnswer {
    pub(super) why: Unadvised,
    /// What it says of an engine of ours.
    pub(super) outcome: Outcome,
}

impl From<NoAnswer> for Unadvised {
    fn from(no: NoAnswer) -> Self {
        no.why
    }
}

/// What a call that failed says of an engine of ours.
pub(super) fn blame(error: &FetchError) -> Outcome {
    match error {
        FetchError::Fault(Fault::Unsent(_)) => Outcome::Unreachable,
        FetchError::Fault(Fault::Broken(_) | Fault::Protocol(_)) | FetchError::Nonsense(_) => {
            Outcome::Failure
        }
        _ => Outcome::Unrelated,
    }
}
