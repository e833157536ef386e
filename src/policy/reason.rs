//! By which of a policy's branches an engine was chosen, in one word, and how
//! often each was taken; what came of asking others before.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why an engine was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reason {
    /// By the policy's own rule.
    #[default]
    Primary,
    /// It has seen the beginning of the prompt.
    Memory,
    /// Whoever should have had it has more than its share of the load.
    Overflow,
    /// The request has nothing to be placed by; it went where the load is least.
    NoKey,
    /// Too many engines are ejected, and so they were asked too.
    Panic,
    /// There were only engines without a weight, ejected, or under pressure.
    LastResort,
    /// Another engine, or the same, had not answered it.
    Retry,
    /// The request named the engine.
    Pinned,
    /// Someone who was asked advised it.
    Advised,
    /// Nobody nearer to us was open to it.
    NotLocal,
}

impl Reason {
    /// All reasons with their label values.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Primary, "primary"),
        (Self::Memory, "memory"),
        (Self::Overflow, "overflow"),
        (Self::NoKey, "no_key"),
        (Self::Panic, "panic"),
        (Self::LastResort, "last_resort"),
        (Self::Retry, "retry"),
        (Self::Pinned, "pinned"),
        (Self::Advised, "advised"),
        (Self::NotLocal, "not_local"),
    ];
}

/// Who was chosen, by position in the set, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The position.
    pub at: usize,
    /// Why.
    pub reason: Reason,
}

/// How often a policy chose, by reason.
#[derive(Debug, Default)]
pub struct Decisions([AtomicU64; Reason::ALL.len()]);

impl Decisions {
    /// Counts one choice.
    pub fn count(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Relaxed);
    }

    /// All counts, in the order of [`Reason::ALL`].
    #[must_use]
    pub fn read(&self) -> [u64; Reason::ALL.len()] {
        std::array::from_fn(|at| self.0[at].load(Relaxed))
    }
}

/// What came of asking others whom to choose, for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asking {
    /// Someone was named.
    Advised,
    /// What was said before still held.
    Kept,
    /// There was no answer within the policy's deadline, or the request's own.
    Late,
    /// There was no advice, for any other reason.
    Failed,
}

impl Asking {
    /// All of them with their label values.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Advised, "advised"),
        (Self::Kept, "kept"),
        (Self::Late, "late"),
        (Self::Failed, "failed"),
    ];
}

/// How often a policy asked others, by what came of it.
#[derive(Debug, Default)]
pub struct Askings([AtomicU64; Asking::ALL.len()]);

impl Askings {
    /// Counts one request.
    pub fn count(&self, asking: Asking) {
        self.0[asking as usize].fetch_add(1, Relaxed);
    }

    /// All counts, in the order of [`Asking::ALL`].
    #[must_use]
    pub fn read(&self) -> [u64; Asking::ALL.len()] {
        std::array::from_fn(|at| self.0[at].load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_index_their_own_counters() {
        let decisions = Decisions::default();
        for (index, (reason, _)) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            (0..=index).for_each(|_| decisions.count(*reason));
        }
        assert_eq!(decisions.read(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let askings = Askings::default();
        for (index, (asking, _)) in Asking::ALL.iter().enumerate() {
            assert_eq!(*asking as usize, index);
            (0..=index).for_each(|_| askings.count(*asking));
        }
        assert_eq!(askings.read(), [1, 2, 3, 4]);
    }
}
