//! How following goes: what was heard when, what failed, and what of it is worth
//! a line in the log.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

#[cfg(feature = "kubernetes")]
use super::api::NoCluster;
use super::fault::{Fault, Reason};

/// Between two warnings of the same reason.
const QUIET: Duration = Duration::from_secs(60);
/// The same where all was well in between: then it is news. Once in [`QUIET`], or
/// what comes and goes would be told for ever.
const AFRESH: Duration = Duration::from_secs(5);
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
    /// When there was a warning of each reason: those that alternate are each told
    /// of as seldom as one alone.
    warned: [Cell<Option<Instant>>; Reason::COUNT],
    /// When it was last told that all is well again.
    well: Cell<Option<Instant>>,
    /// When there was last a warning so soon because all was well in between.
    afresh: Cell<Option<Instant>>,
    /// Whether there was a warning and all is not yet well.
    is_lost: Cell<bool>,
}

impl Status {
    /// When bytes of a list or a watch last came: of an answer with status 200. A
    /// server that refuses tells nothing of what is.
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

    /// Bytes of a list or a watch came.
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
        if reason == Reason::Expired {
            debug!(path, error = %fault, ?again, "listed anew");
            return;
        }
        self.failures.set(self.failures.get().saturating_add(1));
        *self.error.borrow_mut() = Some(fault.to_string());
        self.warn(path, fault, again);
    }

    /// There is nothing to be followed at.
    #[cfg(feature = "kubernetes")]
    pub fn no_cluster(&self, error: &NoCluster) {
        let reason = error.reason();
        add(&self.errors[reason as usize]);
        self.failures.set(self.failures.get().saturating_add(1));
        *self.error.borrow_mut() = Some(error.to_string());
        if self.may_warn(reason) {
            self.is_lost.set(true);
            warn!(%error, "Kubernetes cannot be followed; what is known stays in force");
        } else {
            debug!(%error, "Kubernetes cannot be followed");
        }
    }

    /// Something else is followed from now on: what became of the last one, and what
    /// was told of it, is no more. Counters go on.
    pub fn forget(&self) {
        self.heard.set(None);
        self.listed.set(None);
        self.failures.set(0);
        *self.error.borrow_mut() = None;
        self.warned.iter().for_each(|one| one.set(None));
        self.well.set(None);
        self.afresh.set(None);
        self.is_lost.set(false);
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
            self.well.set(Some(Instant::now()));
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
        self.may_warn_at(reason, Instant::now())
    }

    fn may_warn_at(&self, reason: Reason, now: Instant) -> bool {
        let warned = &self.warned[reason as usize];
        let is_within = |at: Option<Instant>, time| at.is_some_and(|at| now < at + time);
        if is_within(warned.get(), QUIET) {
            let is_news = self.well.get() > warned.get() && !is_within(warned.get(), AFRESH);
            if !is_news || is_within(self.afresh.get(), QUIET) {
                return false;
            }
            self.afresh.set(Some(now));
        }
        warned.set(Some(now));
        true
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
        assert!(one.error().unwrap().contains("Role"));
        // It answers, and tells nothing.
        for code in [401, 403, 404, 410, 429, 503] {
            one.failed("p", &status(code), Duration::ZERO);
            assert!(one.last_contact().is_none(), "{code}");
        }
        assert_eq!(
            (one.errors(Reason::Server), one.errors(Reason::Forbidden)),
            (2, 2)
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
        // Those that alternate, too.
        let both = [status(403), status(500), Fault::Broken("x".into())];
        let told = (0..20).filter(|n| lost(&both[n % 3])).count();
        assert_eq!(told, 1, "the one that was not told of");
        // What is left out is another matter.
        assert!(one.may_warn(Reason::TooLarge) && !one.may_warn(Reason::TooLarge));
        // Lost versions are no failure.
        let other = Status::default();
        other.failed("p", &Fault::Expired("x".into()), Duration::ZERO);
        assert!(!other.is_failing() && other.errors(Reason::Expired) == 1);
    }

    #[test]
    fn what_was_well_in_between_is_news_once_a_minute() {
        let (one, began) = (Status::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let told = |reason, seconds| one.may_warn_at(reason, at(seconds));
        let well = |seconds| one.well.set(Some(at(seconds)));
        assert!(told(Reason::Forbidden, 0) && !told(Reason::Forbidden, 59));
        assert!(told(Reason::Forbidden, 60));
        well(62);
        assert!(!told(Reason::Forbidden, 64) && told(Reason::Forbidden, 65));
        // It comes and goes, with others.
        assert!(told(Reason::Server, 66));
        let mut times = 0;
        for seconds in 66..=665 {
            well(seconds);
            times += u32::from(told(Reason::Forbidden, seconds));
            times += u32::from(told(Reason::Server, seconds));
        }
        // Each once a minute, and one of them once more.
        assert!(times <= 30, "{times}");
    }

    #[test]
    fn another_source_begins_anew() {
        let one = Status::default();
        one.heard();
        one.listed();
        for _ in 0..2 {
            one.failed("p", &status(403), Duration::ZERO);
        }
        one.forget();
        assert!(one.last_contact().is_none() && one.last_listed().is_none());
        assert!(one.error().is_none() && !one.is_failing());
        assert_eq!((one.lists(), one.errors(Reason::Forbidden)), (1, 2));
        assert!(one.may_warn(Reason::Forbidden));
    }

    #[cfg(feature = "kubernetes")]
    #[test]
    fn no_cluster_is_a_failure_like_others() {
        let one = Status::default();
        one.no_cluster(&NoCluster::Nowhere("x".into()));
        let credentials = NoCluster::Credentials {
            server: "s".into(),
            why: "y".into(),
        };
        one.no_cluster(&credentials);
        let counts = [Reason::Unreachable, Reason::Credentials].map(|reason| one.errors(reason));
        assert_eq!(counts, [1, 1]);
        assert!(one.is_failing() && one.error().unwrap().ends_with('y'));
        assert!(!one.may_warn(Reason::Credentials) && !one.may_warn(Reason::Unreachable));
        one.recovered("p");
        assert!(!one.is_failing());
    }

    #[test]
    fn labels_are_in_order() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }
}
