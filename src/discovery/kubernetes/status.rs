//! How following goes: what was heard when, what failed, and what of it is worth
//! a line in the log.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::fault::{Fault, Reason};

/// Between two warnings of the same kind.
const QUIET: Duration = Duration::from_secs(60);
/// Failures in a row before one is worth a warning: a watch that is cut, and goes
/// on, is everyday life.
const WORTH_A_WARNING: u32 = 2;

/// What events are of, for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An object that is new to the watch.
    Added,
    /// One that changed.
    Modified,
    /// One that is gone.
    Deleted,
    /// Nothing but a version.
    Bookmark,
    /// The watch's last words.
    Error,
}

impl Kind {
    /// How many there are.
    pub const COUNT: usize = 5;
    /// All of them, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Added,
        Self::Modified,
        Self::Deleted,
        Self::Bookmark,
        Self::Error,
    ];

    /// As a label says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Deleted => "deleted",
            Self::Bookmark => "bookmark",
            Self::Error => "error",
        }
    }
}

/// Of one collection that is followed; shared with who reads it on the same thread.
#[derive(Debug, Default)]
pub struct Status {
    heard: Cell<Option<Instant>>,
    listed: Cell<Option<Instant>>,
    lists: Cell<u64>,
    watches: Cell<u64>,
    events: [Cell<u64>; Kind::COUNT],
    errors: [Cell<u64>; Reason::COUNT],
    /// Since something last went well.
    failures: Cell<u32>,
    error: RefCell<Option<String>>,
    /// What there was a warning of, and when.
    warned: Cell<Option<(Reason, Instant)>>,
    /// Whether there was a warning and all is not yet well.
    is_lost: Cell<bool>,
}

impl Status {
    /// When bytes last came from an API server that is up: anything of an answer
    /// whose status is below 500.
    #[must_use]
    pub fn last_contact(&self) -> Option<Instant> {
        self.heard.get()
    }

    /// When a list was last whole.
    #[must_use]
    pub fn last_listed(&self) -> Option<Instant> {
        self.listed.get()
    }

    /// Lists that were whole.
    #[must_use]
    pub fn lists(&self) -> u64 {
        self.lists.get()
    }

    /// Watches that were begun.
    #[must_use]
    pub fn watches(&self) -> u64 {
        self.watches.get()
    }

    /// Events of that kind that came.
    #[must_use]
    pub fn events(&self, kind: Kind) -> u64 {
        self.events[kind as usize].get()
    }

    /// What failed for that reason.
    #[must_use]
    pub fn errors(&self, reason: Reason) -> u64 {
        self.errors[reason as usize].get()
    }

    /// What failed last, if nothing went well since.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        self.error.borrow().clone()
    }

    /// Bytes came from a server that is up.
    pub fn heard(&self) {
        self.heard.set(Some(Instant::now()));
    }

    /// A list is whole.
    pub fn listed(&self) {
        self.listed.set(Some(Instant::now()));
        add(&self.lists);
    }

    /// A watch has begun.
    pub fn watching(&self) {
        add(&self.watches);
    }

    /// An event came.
    pub fn happened(&self, kind: Kind) {
        add(&self.events[kind as usize]);
    }

    /// Something of that path was left out.
    pub fn left_out(&self, path: &str, what: &str) {
        add(&self.errors[Reason::TooLarge as usize]);
        if self.may_warn(Reason::TooLarge) {
            warn!(path, "{what}");
        }
    }

    /// What is known stays in force.
    pub fn failed(&self, path: &str, fault: &Fault, again: Duration) {
        let reason = fault.reason();
        add(&self.errors[reason as usize]);
        if fault.is_contact() {
            self.heard();
        }
        if reason == Reason::Expired {
            debug!(path, error = %fault, ?again, "listed anew");
            return;
        }
        self.failures.set(self.failures.get().saturating_add(1));
        *self.error.borrow_mut() = Some(fault.to_string());
        self.warn(path, fault, again);
    }

    /// A warning if it is worth one; else a line for who looks closely.
    fn warn(&self, path: &str, fault: &Fault, again: Duration) {
        let reason = fault.reason();
        // These do not pass by themselves.
        let is_ours = matches!(
            reason,
            Reason::Credentials | Reason::Forbidden | Reason::Tls
        );
        let is_worth_it = is_ours || self.failures.get() >= WORTH_A_WARNING;
        if is_worth_it && self.may_warn(reason) {
            self.is_lost.set(true);
            warn!(path, error = %fault, "Kubernetes cannot be followed; what is known stays in force");
        } else {
            debug!(path, error = %fault, ?again, "Kubernetes cannot be followed");
        }
    }

    /// Something went well.
    pub fn recovered(&self, path: &str) {
        if self.failures.take() == 0 {
            return;
        }
        *self.error.borrow_mut() = None;
        if self.is_lost.take() {
            // The next one is news.
            self.warned.set(None);
            info!(path, "Kubernetes is followed again");
        }
    }

    /// Whether something failed and nothing went well since.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failures.get() != 0
    }

    /// Another reason is another story; the same one is told now and then.
    fn may_warn(&self, reason: Reason) -> bool {
        let now = Instant::now();
        let told = self.warned.get();
        let is_told = told.is_some_and(|(told, at)| told == reason && now - at < QUIET);
        if !is_told {
            self.warned.set(Some((reason, now)));
        }
        !is_told
    }
}

fn add(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

#[cfg(test)]
mod tests {
    use super::super::fault::Told;
    use super::*;

    fn status(code: u16) -> Fault {
        Told::read(Some(code), b"").into_fault("list", "/api/v1/pods")
    }

    #[test]
    fn what_failed_is_known_until_something_goes_well() {
        let one = Status::default();
        one.failed("p", &status(500), Duration::ZERO);
        assert!(one.error().is_some() && one.is_failing() && one.last_contact().is_none());
        one.failed("p", &status(403), Duration::ZERO);
        assert!(one.error().unwrap().contains("Role") && one.last_contact().is_some());
        assert_eq!(
            (one.errors(Reason::Server), one.errors(Reason::Forbidden)),
            (1, 1)
        );
        one.recovered("p");
        assert!(one.error().is_none() && !one.is_failing());
    }

    #[test]
    fn warnings_are_few() {
        let one = Status::default();
        let lost = |fault: &Fault| {
            one.is_lost.set(false);
            one.failed("p", fault, Duration::ZERO);
            one.is_lost.get()
        };
        // A single failure, then more: once.
        let told: Vec<bool> = (0..5).map(|_| lost(&status(500))).collect();
        assert_eq!(told, [false, true, false, false, false]);
        let told: Vec<bool> = (0..3).map(|_| lost(&status(403))).collect();
        assert_eq!(told, [true, false, false]);
        // Lost versions are no failure.
        let other = Status::default();
        other.failed("p", &Fault::Expired("x".into()), Duration::ZERO);
        assert!(!other.is_failing() && other.errors(Reason::Expired) == 1);
    }

    #[test]
    fn labels_are_in_order() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }
}
