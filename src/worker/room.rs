//! How many connections a worker may have: its share of the process's bound,
//! and fewer for a while when the system has no descriptors left.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Connections that go when descriptors have run out, and whose descriptors
/// stay free: a request needs one more, to its engine.
pub(super) const SPARE: usize = 16;
/// How long a worker keeps to fewer connections after that.
const SHORTAGE: Duration = Duration::from_secs(10);
/// At most one warning in so long, by all workers together.
const QUIET: Duration = Duration::from_secs(1);

/// A worker's room for connections.
#[derive(Debug)]
pub(super) struct Room {
    share: usize,
    quiet: Duration,
    /// The bound that descriptors set, and until when.
    lowered: Cell<Option<(usize, Instant)>>,
    warned: Cell<Option<Instant>>,
}

impl Room {
    /// The share of worker `index` of so many.
    pub(super) fn new(all: usize, workers: usize, index: usize) -> Self {
        let share = all / workers + usize::from(index < all % workers);
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        Self {
            share,
            quiet: QUIET.saturating_mul(workers),
            lowered: Cell::new(None),
            warned: Cell::new(None),
        }
    }

    /// Connections that it may have now.
    pub(super) fn most(&self, now: Instant) -> usize {
        match self.lowered.get() {
            Some((most, until)) if now < until => most.min(self.share),
            _ => self.share,
        }
    }

    /// There was no descriptor for one more than these.
    pub(super) fn ran_out(&self, open: usize, now: Instant) {
        let most = open.saturating_sub(SPARE).max(1);
        self.lowered.set(Some((most, now + SHORTAGE)));
    }

    /// Whether a warning is due; then the next one is not, for a while.
    pub(super) fn may_warn(&self, now: Instant) -> bool {
        let last = self.warned.get();
        let may = last.is_none_or(|last| now >= last + self.quiet);
        if may {
            self.warned.set(Some(now));
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_even_and_sum_up() {
        let now = Instant::now();
        for (all, workers) in [(65_536, 3), (7, 4), (2, 4), (1, 1)] {
            let shares: Vec<usize> = (0..workers)
                .map(|index| Room::new(all, workers, index).most(now))
                .collect();
            assert_eq!(shares.iter().sum::<usize>(), all);
            assert!(shares[0] - shares[workers - 1] <= 1);
        }
    }

    #[test]
    fn a_shortage_lowers_the_bound_for_a_while() {
        let now = Instant::now();
        let room = Room::new(100, 1, 0);
        room.ran_out(50, now);
        assert_eq!(room.most(now), 50 - SPARE);
        room.ran_out(3, now);
        assert_eq!(room.most(now), 1, "never none at all");
        room.ran_out(500, now);
        assert_eq!(room.most(now), 100);
        room.ran_out(50, now);
        assert_eq!(room.most(now + SHORTAGE), 100);
    }

    #[test]
    fn workers_warn_once_a_second_together() {
        let now = Instant::now();
        let room = Room::new(100, 2, 0);
        let seconds = |n| now + Duration::from_millis(n);
        assert!(room.may_warn(now));
        assert!(!room.may_warn(seconds(1900)));
        assert!(room.may_warn(seconds(2000)));
        assert!(!room.may_warn(seconds(2100)));
    }
}
