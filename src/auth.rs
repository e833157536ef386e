//! Who may call: callers are known by a key or by their certificate, and each
//! has limits of its own.
//!
//! A request is looked at once, before anything of its body is read. Whoever is
//! not known gets the same answer, whatever was wrong. What workers share of a
//! caller are atomics; the file of callers is put in force by one swap, and who
//! stays in it keeps what has been counted.
//!
//! Keys are random, so one round of SHA-256 is enough to keep them: a slow hash
//! is for what people can think of, and would let strangers keep us busy.
//!
//! Invariant: neither a key nor its hash leaves this module, in any form.

mod callers;
mod counts;
mod given;
mod limits;
mod token;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderMap;

use crate::config::auth::{CallerEntry, KeyHash};
pub use callers::Caller;
use callers::Callers;
use counts::Names;
pub use counts::{Counts, MOST_NAMES, Reason};
pub use given::credential;
pub use limits::Permit;
pub use token::Token;

/// The SHA-256 of a key.
#[must_use]
pub fn hash(key: &[u8]) -> KeyHash {
    let digest = ring::digest::digest(&ring::digest::SHA256, key);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    KeyHash(hash)
}

/// All who may call; one for the process.
#[derive(Debug)]
pub struct Auth {
    callers: ArcSwap<Callers>,
    /// The clock of the limits begins here.
    epoch: Instant,
    /// Of the control thread alone.
    names: Mutex<Names>,
}

/// A request that may go on.
#[derive(Debug)]
pub struct Admitted {
    /// Who sent it.
    pub caller: Arc<Caller>,
    /// Its place among those of the caller, if these are limited.
    pub permit: Option<Permit>,
}

/// A request that may not.
#[derive(Debug)]
pub struct Denied {
    /// Who sent it, if that is known.
    pub caller: Option<Arc<Caller>>,
    /// Why.
    pub why: Why,
}

/// Why a request may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nobody knows who sent it.
    Unknown,
    /// The caller had as many within the minute as it may; seconds until the next.
    Rate(u32),
    /// The caller has as many under way as it may.
    Busy,
}

impl Auth {
    /// Those whom the file names.
    #[must_use]
    pub fn new(entries: &[CallerEntry]) -> Self {
        let mut names = Names::default();
        Self {
            callers: ArcSwap::from_pointee(Callers::new(entries, None, &mut names)),
            epoch: Instant::now(),
            names: Mutex::new(names),
        }
    }

    /// Puts these in force; who stays keeps what has been counted.
    pub fn replace(&self, entries: &[CallerEntry]) {
        let mut names = self.names();
        let old = self.callers.load();
        let new = Callers::new(entries, Some(&old), &mut names);
        self.callers.store(Arc::new(new));
    }

    /// How many may call.
    #[must_use]
    pub fn count(&self) -> usize {
        self.callers.load().count()
    }

    /// Shows what was counted, by name.
    pub fn each_count(&self, mut show: impl FnMut(&str, &Counts)) {
        self.names().each(&mut show);
    }

    /// Who sent a request with this head, on a connection opened by that
    /// certificate, and whether it may go on.
    ///
    /// # Errors
    /// That it may not.
    pub fn admit(
        &self,
        headers: &HeaderMap,
        identity: Option<&Arc<str>>,
    ) -> Result<Admitted, Denied> {
        let caller = self.known(headers, identity).ok_or(Denied {
            caller: None,
            why: Why::Unknown,
        })?;
        match caller.admit(self.epoch.elapsed()) {
            Ok(permit) => Ok(Admitted { caller, permit }),
            Err(why) => Err(Denied {
                caller: Some(caller),
                why,
            }),
        }
    }

    /// A key comes before a certificate; one that is worth nothing does not harm
    /// who has a certificate, since many clients always send one.
    fn known(&self, headers: &HeaderMap, identity: Option<&Arc<str>>) -> Option<Arc<Caller>> {
        let callers = self.callers.load();
        let lives = |caller: &&Arc<Caller>| !caller.has_expired(now);
        let by_key = given::key(headers).and_then(|key| callers.by_key(&hash(key)));
        let by_subject = || callers.by_subject(identity?).filter(lives);
        by_key.filter(lives).or_else(by_subject).cloned()
    }

    fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        // Whoever panicked left whole entries.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Since the Unix epoch.
fn now() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}

#[cfg(test)]
mod tests;
