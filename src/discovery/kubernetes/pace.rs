//! How long everything may take, and how soon what failed is tried again.

use std::time::Duration;

use super::fault::{Fault, Reason};

/// Times of following. Plain data: tests have their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// Over how long beginnings are spread: sidecars start together.
    pub start: Duration,
    /// Until the head of a watch's answer. Of a list's: [`Pace::quiet`].
    pub head: Duration,
    /// Between two pieces of a list.
    pub quiet: Duration,
    /// How long after its end a watch that has not ended is cut.
    pub grace: Duration,
    /// Between two lists where nothing fails, a fifth more or less. Finds what a
    /// watch would never tell: one from a version that is yet to come is silent
    /// (etcd restored from a backup).
    pub relist: Duration,
    /// The first pause after a failure, and the least after a watch that ended
    /// at once; doubled each time.
    pub first: Duration,
    /// The longest pause of our own.
    pub most: Duration,
    /// The first pause after 401 and 403, which seldom pass by themselves. They do
    /// when a server has just begun and knows its roles no better than us.
    pub refused: Duration,
    /// The longest pause that a server may ask for.
    pub heeded: Duration,
    /// A watch that lasts so long is a good one, even if nothing happens.
    pub settled: Duration,
    /// Over how long lists are spread that all sidecars need at the same time.
    pub herd: Duration,
    /// Between the beginnings of two watches, or of two lists, whatever a server
    /// says: a bound, not a pace.
    pub apart: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            start: Duration::from_millis(500),
            head: Duration::from_secs(10),
            quiet: Duration::from_secs(30),
            grace: Duration::from_secs(5),
            relist: Duration::from_secs(300),
            first: Duration::from_millis(200),
            most: Duration::from_secs(5),
            refused: Duration::from_secs(1),
            heeded: Duration::from_secs(60),
            settled: Duration::from_secs(10),
            herd: Duration::from_secs(1),
            apart: Duration::from_millis(500),
        }
    }
}

/// Up to so much more or less: `by` of it.
#[must_use]
pub fn spread(time: Duration, by: f64) -> Duration {
    time.mul_f64(1.0 - by + 2.0 * by * fastrand::f64())
}

/// Any time up to that.
#[must_use]
pub fn within(time: Duration) -> Duration {
    time.mul_f64(fastrand::f64())
}

/// Failures in a row, of lists or of watches. Ends only when one goes well: that a
/// request was answered is nothing yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Backoff {
    failures: u32,
    refusals: u32,
}

impl Backoff {
    /// The pause before the next try, with jitter.
    pub fn after(&mut self, fault: &Fault, pace: &Pace) -> Duration {
        let own = match fault.reason() {
            Reason::Forbidden | Reason::Credentials => {
                doubled(pace.refused, &mut self.refusals, pace.most)
            }
            // The version is lost, not the server; others have lost theirs too.
            Reason::Expired if !self.is_failing() => {
                self.failures = 1;
                return within(pace.herd);
            }
            _ => doubled(pace.first, &mut self.failures, pace.most),
        };
        let own = own.mul_f64(0.7 + 0.3 * fastrand::f64());
        match fault.retry_after().map(|asked| asked.min(pace.heeded)) {
            // All were told the same moment.
            Some(asked) if asked > own => asked + within(asked / 4),
            _ => own,
        }
    }

    /// Something went well.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether nothing went well since something failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        (self.failures, self.refusals) != (0, 0)
    }
}

fn doubled(first: Duration, times: &mut u32, most: Duration) -> Duration {
    let pause = first.saturating_mul(1 << (*times).min(16));
    *times = times.saturating_add(1);
    pause.min(most)
}

#[cfg(test)]
mod tests {
    use super::super::fault::Told;
    use super::*;

    /// What fails again and again, and the longest pauses after it.
    type Case = (fn() -> Fault, [f64; 7]);

    fn status(code: u16, retry_after: Option<u64>) -> Fault {
        let mut told = Told::read(Some(code), b"");
        told.retry_after = retry_after.map(Duration::from_secs);
        told.into_fault("list", "/api/v1/namespaces/ns/pods")
    }

    fn pauses(faults: &[Fault]) -> Vec<f64> {
        let (mut backoff, pace) = (Backoff::default(), Pace::default());
        let pause = |fault| backoff.after(fault, &pace).as_secs_f64();
        faults.iter().map(pause).collect()
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let broken = || Fault::Broken("x".into());
        let cases: [Case; 2] = [
            (
                || Fault::Broken("x".into()),
                [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0],
            ),
            (|| status(403, None), [1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0]),
        ];
        for (fault, expected) in cases {
            let faults: Vec<Fault> = (0..7).map(|_| fault()).collect();
            for (pause, most) in pauses(&faults).into_iter().zip(expected) {
                assert!(pause <= most && pause >= 0.69 * most, "{pause} of {most}");
            }
        }
        // A server that has just begun refuses, and soon does no more.
        let faults: Vec<Fault> = (0..6)
            .map(|_| broken())
            .chain([status(403, None)])
            .collect();
        assert!(pauses(&faults)[6] <= 1.0);
        // For ever.
        let mut backoff = Backoff {
            failures: u32::MAX - 1,
            refusals: 0,
        };
        for _ in 0..3 {
            assert!(backoff.after(&broken(), &Pace::default()) <= Pace::default().most);
        }
    }

    #[test]
    fn the_first_expiry_is_followed_by_a_list_soon_and_the_next_ones_are_failures() {
        let expired = |_| Fault::Expired("x".into());
        let pauses = pauses(&(0..7).map(expired).collect::<Vec<_>>());
        assert!(pauses[0] <= 1.0);
        assert!(pauses[1] >= 0.2 && pauses[6] >= 3.4, "{pauses:?}");
    }

    #[test]
    fn what_a_server_asks_for_is_heeded_within_bounds() {
        for (code, asked, least, most) in [
            (429, Some(3), 3.0, 3.75),
            (503, Some(3), 3.0, 3.75),
            (429, Some(1_000_000), 60.0, 75.0),
            (429, None, 0.13, 0.2),
        ] {
            let pause = pauses(&[status(code, asked)])[0];
            assert!(pause >= least && pause <= most, "{code}: {pause}");
        }
    }

    #[test]
    fn only_success_ends_it() {
        let (mut backoff, pace) = (Backoff::default(), Pace::default());
        backoff.after(&status(500, None), &pace);
        assert!(backoff.is_failing());
        backoff.reset();
        assert!(!backoff.is_failing());
    }
}
