//! Whether an engine gives reports of its load with its answers, for whoever
//! asks it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// An engine that was asked so often without giving one is asked no more, until
/// it is restarted.
const IN_VAIN: u32 = 8;

/// Which answers an engine may report with: some do so with whole ones only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// Those that come as a whole.
    Whole,
    /// Event streams.
    Streamed,
}

impl Answers {
    /// Those of requests that ask for a stream, or not.
    #[must_use]
    pub fn of(is_stream: bool) -> Self {
        if is_stream {
            Self::Streamed
        } else {
            Self::Whole
        }
    }
}

/// How often it was asked since it gave one last, for each kind of [`Answers`].
#[derive(Debug, Default)]
pub struct LoadReports([AtomicU32; 2]);

impl LoadReports {
    /// Whether it may be asked.
    #[must_use]
    pub fn may_be_asked(&self, of: Answers) -> bool {
        self.0[of as usize].load(Relaxed) < IN_VAIN
    }

    /// It was asked, and answered without one that says anything.
    pub fn asked_in_vain(&self, of: Answers) {
        // Several workers may ask at once: one time more is no harm.
        if self.may_be_asked(of) {
            self.0[of as usize].fetch_add(1, Relaxed);
        }
    }

    /// It gave one.
    pub fn came(&self, of: Answers) {
        self.0[of as usize].store(0, Relaxed);
    }

    /// It is another process now.
    pub fn forget(&self) {
        self.came(Answers::Whole);
        self.came(Answers::Streamed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_gives_one_is_not_asked_for_long() {
        let reports = LoadReports::default();
        for _ in 0..IN_VAIN {
            assert!(reports.may_be_asked(Answers::Streamed));
            reports.asked_in_vain(Answers::Streamed);
        }
        assert!(!reports.may_be_asked(Answers::Streamed));
        assert!(reports.may_be_asked(Answers::Whole));
        reports.came(Answers::Whole);
        assert!(!reports.may_be_asked(Answers::Streamed));
        reports.forget();
        assert!(reports.may_be_asked(Answers::Streamed));
    }
}
