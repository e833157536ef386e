//! The in-flight guard.
//!
//! Taken at the pick, so that simultaneous picks see each other, and given back
//! when the stream has ended, whichever way. It settles exactly once: by
//! [`InFlight::settle`], or by being dropped, which means that the client left.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::Candidate;
use super::engine::{Engine, Outcome};
use super::stats::Served;

/// One request that an engine has been picked for.
#[derive(Debug)]
pub struct InFlight {
    engine: Arc<Engine>,
    served: Arc<Served>,
    since: Instant,
    is_answering: bool,
    outcome: Outcome,
}

impl InFlight {
    /// Counts a request for `candidate` from now until it is dropped.
    #[must_use]
    pub fn take(candidate: &Candidate, now: Instant) -> Self {
        let (engine, served) = (Arc::clone(&candidate.engine), Arc::clone(&candidate.served));
        engine.in_flight.fetch_add(1, Relaxed);
        served.pick();
        Self {
            engine,
            served,
            since: now,
            is_answering: false,
            outcome: Outcome::ClientGone,
        }
    }

    /// The engine that was picked.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The answer has begun to come.
    pub fn answering(&mut self) {
        if !self.is_answering {
            self.is_answering = true;
            self.engine.answering.fetch_add(1, Relaxed);
        }
    }

    /// Ends the request with this outcome.
    pub fn settle(self, outcome: Outcome) {
        drop(self.ending(outcome));
    }

    /// The same request, that ends with this outcome when it is dropped.
    #[must_use]
    pub fn ending(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.is_answering {
            self.engine.answering.fetch_sub(1, Relaxed);
        }
        self.engine.in_flight.fetch_sub(1, Relaxed);
        self.engine.count(self.outcome);
        self.served.end(self.outcome, self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{fleet, spec};
    use super::*;

    #[test]
    fn settles_exactly_once_whichever_way() {
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://a", &["m"])]);
        let snapshot = fleet.published().load_full();
        let candidate = &snapshot.model("m").unwrap().candidates.list()[0];
        let engine = &candidate.engine;
        let mut first = InFlight::take(candidate, Instant::now());
        let second = InFlight::take(candidate, Instant::now());
        first.answering();
        first.answering();
        assert_eq!(engine.in_flight.load(Relaxed), 2);
        assert_eq!(engine.answering.load(Relaxed), 1);
        first.settle(Outcome::Failure);
        drop(second);
        assert_eq!(engine.in_flight.load(Relaxed), 0);
        assert_eq!(engine.answering.load(Relaxed), 0);
        assert_eq!(engine.ended(Outcome::Failure), 1);
        assert_eq!(engine.ended(Outcome::ClientGone), 1);
        assert_eq!(engine.ended(Outcome::Success), 0);
        assert_eq!(candidate.served.ended(Outcome::Failure), 1);
    }
}
