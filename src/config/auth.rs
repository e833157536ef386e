//! Who may call, and by which keys we call engines: settings of the start.
//!
//! Invariant: no secret is a plain text here, and what is wrong with a file of
//! keys is told without any of its values, which may be the keys themselves.

mod file;
mod moment;

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::problem::Problem;
pub use super::secret::{MAX_SECRET, Secret};
pub use file::{MAX_FILE, MOST_CALLERS, load, parse};

/// Who may call, and how we call engines.
#[derive(Debug, Clone, Default)]
pub struct AuthSettings {
    /// Who may call; `None`: whoever can connect.
    pub callers: Option<CallersSource>,
    /// Sent to engines that have no key of their own.
    pub engine_key: Option<KeptSecret>,
    /// What the admin listener asks for; `None`: nothing.
    pub admin_token: Option<KeptSecret>,
}

/// A secret, and where it came from.
#[derive(Debug, Clone)]
pub struct KeptSecret {
    /// As it was when we started.
    pub first: Secret,
    /// The file that it is read from again; `None`: it came from the environment.
    pub file: Option<PathBuf>,
}

/// Where an engine's own key comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyFrom {
    /// From that variable of the environment.
    Env(String),
    /// From that file.
    File(PathBuf),
}

impl KeyFrom {
    /// The key, as it is now.
    ///
    /// # Errors
    /// Why there is none.
    pub fn read(&self) -> Result<Secret, Problem> {
        match self {
            Self::File(file) => {
                // What names nothing may be the key itself.
                std::fs::metadata(file).map_err(|error| {
                    let message = format!("the file that it names cannot be read: {error}");
                    Problem::at("api_key_file", message)
                })?;
                Secret::read(file)
            }
            Self::Env(name) => {
                let at = || format!("the variable {name}");
                let text = std::env::var(name).map_err(|_| Problem::at(at(), "is not set"))?;
                Secret::new(&text).map_err(|why| Problem::at(at(), why))
            }
        }
    }
}

/// The file of keys.
#[derive(Debug, Clone)]
pub struct CallersSource {
    /// The file.
    pub file: PathBuf,
    /// What it said when we started.
    pub first: Vec<CallerEntry>,
    /// Its bytes, by which a change is noticed. They hold hashes: not shown.
    pub bytes: Bytes,
}

/// Bytes that are not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Who may call, and how much.
#[derive(Debug, Clone, PartialEq)]
pub struct CallerEntry {
    /// What it is called in logs and metrics.
    pub name: Arc<str>,
    /// How it is known.
    pub proof: Proof,
    /// The models, or aliases of models, that it may use; `None`: all.
    pub models: Option<Box<[String]>>,
    /// Requests within a minute at most.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Requests at once at most.
    pub max_in_flight: Option<NonZeroU32>,
    /// Since the Unix epoch, when it ends.
    pub expires: Option<Duration>,
}

/// How a caller is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// By a key; while keys are exchanged, by one of several.
    Keys(Vec<KeyHash>),
    /// By the subject of the certificate that its connection was opened with.
    Subject(Arc<str>),
}

/// The SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
