//! How much may be sent again: a share of what was sent in the last ten seconds,
//! and a few a second however little that was. A count for each request would
//! multiply the load just when there is too much of it.

use std::cell::Cell;
use std::time::Duration;

use crate::config::Retry;

/// Seconds that are remembered.
const SLOTS: usize = 10;

/// One second's requests, and how many of them were repetitions.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    number: u64,
    requests: u32,
    repeated: u32,
}

/// One worker's budget; shared with nobody.
#[derive(Debug, Default)]
pub struct RetryBudget {
    slots: [Cell<Second>; SLOTS],
}

impl RetryBudget {
    fn slot(&self, now: Duration) -> &Cell<Second> {
        let number = now.as_secs();
        // Below the number of slots.
        let slot = &self.slots[usize::try_from(number % SLOTS as u64).unwrap_or(0)];
        if slot.get().number != number {
            slot.set(Second {
                number,
                ..Second::default()
            });
        }
        slot
    }

    /// A request comes, at that time of the fleet's clock.
    pub fn deposit(&self, now: Duration) {
        let slot = self.slot(now);
        let mut second = slot.get();
        second.requests += 1;
        slot.set(second);
    }

    /// Whether one may be sent again, which is then counted. `workers` share
    /// the reserve.
    pub fn withdraw(&self, now: Duration, settings: &Retry, workers: usize) -> bool {
        let slot = self.slot(now);
        let oldest = now.as_secs().saturating_sub(SLOTS as u64 - 1);
        let seconds = self.slots.iter().map(Cell::get);
        let recent = seconds.filter(|second| second.number >= oldest);
        let (requests, repeated) = recent.fold((0u64, 0u64), |(requests, repeated), second| {
            (
                requests + u64::from(second.requests),
                repeated + u64::from(second.repeated),
            )
        });
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let (requests, repeated, workers) = (requests as f64, repeated as f64, workers as f64);
        let reserve = settings.reserve * SLOTS as f64 / workers;
        let is_affordable = repeated + 1.0 <= settings.budget * requests + reserve;
        if is_affordable {
            let mut second = slot.get();
            second.repeated += 1;
            slot.set(second);
        }
        is_affordable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_and_a_reserve_may_be_repeated() {
        let settings = Retry::default();
        let budget = RetryBudget::default();
        let at = Duration::from_secs;
        let all = |now| {
            (0..10_000)
                .take_while(|_| budget.withdraw(now, &settings, 1))
                .count()
        };
        assert_eq!(all(at(100)), 30, "three a second for ten seconds");
        (0..1000).for_each(|_| budget.deposit(at(101)));
        assert_eq!(all(at(101)), 200);
        assert_eq!(all(at(109)), 0, "all is spent");
        assert_eq!(all(at(110)), 30, "the first second is forgotten");
        assert_eq!(
            all(at(111)),
            0,
            "the requests are too, not what was repeated"
        );
        assert_eq!(all(at(130)), 30);
        let none = Retry {
            budget: 0.0,
            reserve: 0.0,
            ..settings
        };
        assert!(!budget.withdraw(at(200), &none, 1));
        assert_eq!(
            (0..99)
                .filter(|_| budget.withdraw(at(300), &settings, 4))
                .count(),
            7
        );
    }
}
