//! Why a policy is not registered, changed or deleted.

use std::fmt;

use crate::config::problem::Problem;

/// What kind of reason it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The document is wrong.
    Invalid,
    /// It says what its own schemas, or what it means, do not allow.
    Violates,
    /// It is too large by itself.
    TooLarge,
    /// There is no room for it, here or on the disk.
    Full,
    /// It is there already.
    Exists,
    /// There is none of that URI.
    Unknown,
    /// It is built in, and as it was made.
    BuiltIn,
    /// What is in force does not allow it.
    InUse,
    /// We failed.
    Failed,
}

/// Why nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refused {
    /// What kind of reason it is.
    pub cause: Cause,
    /// What is wrong, in a sentence.
    pub message: String,
    /// Where, if there is more to say: JSON pointers into the document, or keys
    /// of the configuration that it would make.
    pub problems: Vec<Problem>,
}

impl Cause {
    /// The HTTP status that it is answered with, and a word for programs.
    #[must_use]
    pub fn words(self) -> (u16, &'static str) {
        match self {
            Self::Invalid => (400, "invalid_policy"),
            Self::Violates => (422, "schema_violation"),
            Self::TooLarge => (413, "request_too_large"),
            Self::Full => (507, "insufficient_storage"),
            Self::Exists => (409, "policy_exists"),
            Self::Unknown => (404, "policy_not_found"),
            Self::BuiltIn => (409, "policy_built_in"),
            Self::InUse => (409, "policy_in_use"),
            Self::Failed => (500, "internal_error"),
        }
    }
}

impl Refused {
    /// A reason that needs no list.
    #[must_use]
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self {
            cause,
            message: message.into(),
            problems: Vec::new(),
        }
    }

    /// The same with what is wrong where.
    #[must_use]
    pub fn listing(cause: Cause, message: &str, problems: Vec<Problem>) -> Self {
        Self {
            problems,
            ..Self::new(cause, message)
        }
    }

    /// There is no such policy.
    #[must_use]
    pub fn unknown(uri: &str) -> Self {
        let message = format!("there is no policy {uri:?}: GET /policy lists them");
        Self::new(Cause::Unknown, message)
    }

    /// A field of the document that is wrong.
    pub(super) fn field(pointer: &str, message: impl Into<String>) -> Self {
        let problem = Problem::at(pointer, message);
        Self::listing(Cause::Invalid, "the document is wrong", vec![problem])
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (at, problem) in self.problems.iter().enumerate() {
            let before = if at == 0 { ": " } else { "; " };
            write!(f, "{before}{problem}")?;
        }
        Ok(())
    }
}
