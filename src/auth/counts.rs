//! What is counted of callers, by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Names that are counted one by one; the rest shares `other`.
pub const MOST_NAMES: usize = 1000;
/// The name of the rest.
const OTHER: &str = "other";

/// Why a request of a known caller was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It had as many within the minute as it may.
    Rate,
    /// It has as many under way as it may.
    InFlight,
    /// It may not use the model.
    Model,
}

impl Reason {
    /// All of them, as they are written.
    pub const ALL: [(Self, &'static str); 3] = [
        (Self::Rate, "rate"),
        (Self::InFlight, "in_flight"),
        (Self::Model, "model"),
    ];
}

/// What is counted of one caller.
#[derive(Debug, Default)]
pub struct Counts {
    requests: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
}

impl Counts {
    /// Counts a request that was let in.
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Counts one that was refused.
    pub(super) fn refuse(&self, reason: Reason) {
        self.refused[reason as usize].fetch_add(1, Relaxed);
    }

    /// Requests that were let in, and those refused in the order of
    /// [`Reason::ALL`].
    #[must_use]
    pub fn read(&self) -> (u64, [u64; Reason::ALL.len()]) {
        let refused = std::array::from_fn(|at| self.refused[at].load(Relaxed));
        (self.requests.load(Relaxed), refused)
    }
}

/// The counts of all who may call, or once might.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: BTreeMap<Arc<str>, Arc<Counts>>,
    other: Arc<Counts>,
}

impl Names {
    /// Where a caller of that name is counted. Names that are gone keep their
    /// place, or what is counted under `other` would jump.
    pub(super) fn of(&mut self, name: &Arc<str>) -> Arc<Counts> {
        if let Some(known) = self.known.get(name) {
            return Arc::clone(known);
        }
        if self.known.len() >= MOST_NAMES || &**name == OTHER {
            return Arc::clone(&self.other);
        }
        let counts = Arc::<Counts>::default();
        self.known.insert(Arc::clone(name), Arc::clone(&counts));
        counts
    }

    pub(super) fn each(&self, show: &mut impl FnMut(&str, &Counts)) {
        self.known
            .iter()
            .for_each(|(name, counts)| show(name, counts));
        show(OTHER, &self.other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_reasons_index_their_counters() {
        let mut names = Names::default();
        for n in 0..MOST_NAMES + 5 {
            names.of(&Arc::from(format!("n{n}"))).request();
        }
        names.of(&Arc::from(OTHER)).refuse(Reason::Model);
        let (mut shown, mut rest) = (0, (0, [0; 3]));
        names.each(&mut |name, counts| {
            shown += 1;
            if name == OTHER {
                rest = counts.read();
            }
        });
        assert_eq!((shown, rest), (MOST_NAMES + 1, (5, [0, 0, 1])));
        for (index, (reason, _)) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }
}
