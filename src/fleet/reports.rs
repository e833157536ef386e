//! Whether an engine gives reports of its load with its answers, for whoever
//! asks it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// An engine that was asked so often without giving one is asked no more, until
/// it is restarted.
const IN_VAIN: u32 = 8;

/// How often it was asked since it gave one last.
#[derive(Debug, Default)]
pub struct Reports(AtomicU32);

impl Reports {
    /// Whether it may be asked.
    #[must_use]
    pub fn may_be_asked(&self) -> bool {
        self.0.load(Relaxed) < IN_VAIN
    }

    /// It was asked, and answered without one.
    pub fn asked_in_vain(&self) {
        // Several workers may ask at once: one time more is no harm.
        if self.may_be_asked() {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// It gave one, or is another process now.
    pub fn came(&self) {
        self.0.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_gives_one_is_not_asked_for_long() {
        let reports = Reports::default();
        for _ in 0..IN_VAIN {
            assert!(reports.may_be_asked());
            reports.asked_in_vain();
        }
        assert!(!reports.may_be_asked());
        reports.came();
        assert!(reports.may_be_asked());
    }
}
