//! The in-flight guard.
//!
//! Taken at the pick, so that simultaneous picks see each other, and given back
//! when the stream has ended, whichever way. It settles exactly once: by
//! [`InFlight::settle`], or by being dropped, which means that the client left.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::engine::{Engine, Outcome};

/// One request that an engine has been picked for.
#[derive(Debug)]
pub struct InFlight {
    engine: Arc<Engine>,
    outcome: Outcome,
}

impl InFlight {
    /// Counts a request for `engine` from now until it is dropped.
    #[must_use]
    pub fn take(engine: Arc<Engine>) -> Self {
        engine.in_flight.fetch_add(1, Relaxed);
        Self {
            engine,
            outcome: Outcome::ClientGone,
        }
    }

    /// The engine that was picked.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
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
        self.engine.in_flight.fetch_sub(1, Relaxed);
        self.engine.count(self.outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{EngineSpec, EngineUrl};
    use super::*;

    #[test]
    fn settles_exactly_once_whichever_way() {
        let spec = EngineSpec {
            url: EngineUrl::parse("http://a").unwrap(),
            models: Vec::new(),
        };
        let engine = Arc::new(Engine::new(spec, 1));
        let first = InFlight::take(Arc::clone(&engine));
        let second = InFlight::take(Arc::clone(&engine));
        assert_eq!(engine.in_flight.load(Relaxed), 2);
        first.settle(Outcome::Failure);
        drop(second);
        assert_eq!(engine.in_flight.load(Relaxed), 0);
        assert_eq!(engine.ended(Outcome::Failure), 1);
        assert_eq!(engine.ended(Outcome::ClientGone), 1);
        assert_eq!(engine.ended(Outcome::Success), 0);
    }
}
