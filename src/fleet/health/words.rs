//! An engine's health in words, for those who ask.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{ASLEEP, DOWN, EJECTED, Health, PROBED, UNREADY};

/// All that [`Health::word`] may say.
pub const WORDS: [&str; 7] = [
    "healthy", "pressed", "ejected", "trial", "down", "asleep", "unready",
];

impl Health {
    /// Why it may not be asked.
    #[must_use]
    pub fn why_closed(&self) -> &'static str {
        let marks = self.marks.load(Relaxed);
        match () {
            () if marks & UNREADY != 0 => "not ready",
            () if marks & ASLEEP != 0 => "asleep",
            () if marks & DOWN != 0 => "unreachable",
            () if marks & PROBED != 0 => "being probed",
            () if marks & EJECTED != 0 => "ejected after failures",
            () => "under pressure",
        }
    }

    /// In one word for pages.
    #[must_use]
    pub fn word(&self, now: Duration) -> &'static str {
        let marks = self.marks.load(Relaxed);
        match () {
            () if marks & UNREADY != 0 => "unready",
            () if marks & ASLEEP != 0 => "asleep",
            () if marks & EJECTED != 0 && self.is_up(now) => "trial",
            () if marks & DOWN != 0 => "down",
            () if marks & PROBED != 0 => "trial",
            () if marks & EJECTED != 0 => "ejected",
            () if !self.is_up(now) => "pressed",
            () => "healthy",
        }
    }
}
