//! How the process stops: readiness fails, we go on accepting for a while,
//! then finish what is open, then cut what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// How far stopping has come; only ever forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DrainPhase {
    /// Not stopping.
    Run,
    /// Readiness fails and answers ask clients to close; new ones are served.
    Settle,
    /// No new connections; open requests finish.
    Finish,
    /// What is open is cut.
    Cut,
}

/// The phase, as everyone may read it.
#[derive(Debug, Clone, Default)]
pub struct DrainWatch(Arc<AtomicU8>);

impl DrainWatch {
    /// The current phase.
    #[must_use]
    pub fn phase(&self) -> DrainPhase {
        match self.0.load(Relaxed) {
            0 => DrainPhase::Run,
            1 => DrainPhase::Settle,
            2 => DrainPhase::Finish,
            _ => DrainPhase::Cut,
        }
    }

    /// Goes on to `phase`; workers notice within a tick of their watch.
    pub fn advance(&self, phase: DrainPhase) {
        self.0.fetch_max(phase as u8, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ever_forward() {
        let drain = DrainWatch::default();
        assert_eq!(drain.phase(), DrainPhase::Run);
        for (to, is) in [
            (DrainPhase::Finish, DrainPhase::Finish),
            (DrainPhase::Settle, DrainPhase::Finish),
            (DrainPhase::Cut, DrainPhase::Cut),
        ] {
            drain.advance(to);
            assert_eq!(drain.phase(), is);
        }
    }
}
