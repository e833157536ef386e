//! A caller's limits: how many requests within a minute, and how many at once.
//!
//! Both are one atomic, shared by all workers; nobody waits for a lock.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What a full bucket holds: the requests of so long.
const BUCKET: u64 = 60_000_000_000;

/// What has been counted of a caller; it outlives a change of the file.
#[derive(Debug, Default)]
pub(super) struct State {
    /// When the bucket is full again, in nanoseconds of our own clock: the
    /// generic cell rate algorithm, which is a token bucket in one number.
    full_at: AtomicU64,
    in_flight: AtomicU32,
}

impl State {
    /// Takes a token of a bucket that holds `each_minute` of them, and is filled
    /// within a minute.
    ///
    /// # Errors
    /// Seconds until there is one.
    pub(super) fn take_token(&self, each_minute: NonZeroU32, now: Duration) -> Result<(), u32> {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        let costs = BUCKET / u64::from(each_minute.get());
        let mut wait = 0;
        let taken = self.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            let full_at = full_at.max(now).saturating_add(costs);
            wait = full_at.saturating_sub(now).saturating_sub(BUCKET);
            (wait == 0).then_some(full_at)
        });
        let seconds = wait.div_ceil(1_000_000_000);
        taken
            .map(|_| ())
            .map_err(|_| u32::try_from(seconds).unwrap_or(u32::MAX).max(1))
    }

    /// Takes one of that many places, if one is free.
    pub(super) fn take_place(self: &Arc<Self>, most: NonZeroU32) -> Option<Permit> {
        let taken = self.in_flight.fetch_update(Relaxed, Relaxed, |taken| {
            (taken < most.get()).then_some(taken + 1)
        });
        taken.is_ok().then(|| Permit(Arc::clone(self)))
    }
}

/// A place that a request has among its caller's, until this is dropped.
#[derive(Debug)]
pub struct Permit(Arc<State>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(count: u32) -> NonZeroU32 {
        NonZeroU32::new(count).unwrap()
    }

    #[test]
    fn a_bucket_holds_a_minutes_requests_and_fills_again() {
        let state = State::default();
        let mut now = Duration::from_secs(1000);
        let taken = |now| state.take_token(number(60), now);
        for n in 0..60 {
            assert_eq!(taken(now), Ok(()), "{n}");
        }
        assert_eq!(taken(now), Err(1));
        now += Duration::from_millis(999);
        assert_eq!(taken(now), Err(1));
        now += Duration::from_millis(1);
        assert_eq!((taken(now), taken(now)), (Ok(()), Err(1)));
        // It never holds more than a minute's.
        now += Duration::from_secs(3600);
        let more = (0..100).filter(|_| taken(now).is_ok()).count();
        assert_eq!(more, 60);
    }

    #[test]
    fn the_wait_is_told_and_limits_may_change() {
        let state = State::default();
        let now = Duration::from_secs(5);
        assert_eq!(state.take_token(number(1), now), Ok(()));
        assert_eq!(state.take_token(number(1), now), Err(60));
        assert_eq!(
            state.take_token(number(1), now + Duration::from_secs(59)),
            Err(1)
        );
        // A fifth of the bucket's time has come back: of more, there are some.
        assert_eq!(
            state.take_token(number(5), now + Duration::from_secs(12)),
            Ok(())
        );
        assert_eq!(
            state.take_token(number(u32::MAX), now + Duration::from_secs(13)),
            Ok(())
        );
    }

    #[test]
    fn places_are_given_back() {
        let state = Arc::new(State::default());
        let first = state.take_place(number(2)).unwrap();
        let second = state.take_place(number(2));
        assert!(second.is_some() && state.take_place(number(2)).is_none());
        drop(first);
        assert!(state.take_place(number(2)).is_some());
        drop(second);
        assert_eq!(state.in_flight.load(Relaxed), 0);
    }

    #[test]
    fn workers_never_take_more_than_there_is() {
        let state = Arc::new(State::default());
        let took: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let now = Duration::from_secs(1);
                        let tokens =
                            (0..1000).filter(|_| state.take_token(number(500), now).is_ok());
                        tokens.count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(took, 500);
    }
}
