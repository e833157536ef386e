//! Everything that a decision may read of an engine, at one moment: taken down
//! for a decision that is to be explained, so that it can be made again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use super::attributes::Told;
use super::{Candidate, CandidateSet, Engine};

/// One engine's live state, bit for bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Requests picked and not ended.
    pub in_flight: u32,
    /// Tokens outstanding, by estimate.
    pub outstanding_tokens: u64,
    /// Others' requests, and when its metrics told of them, in milliseconds of the
    /// fleet's clock.
    pub foreign_requests: (f64, u64),
    /// The same, when it has not told of late.
    pub guessed_requests: f64,
    /// [`super::latency::Latency::to_bits`].
    pub latency_bits: u64,
    /// [`super::health::Health::to_parts`].
    pub health: [u64; 3],
    /// What it told of itself.
    pub attributes: Vec<Told>,
}

impl Reading {
    /// What it keeps in memory, beside its own size.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.attributes.capacity() * size_of::<Told>()
    }

    /// What `engine` is like now.
    #[must_use]
    pub fn of(engine: &Engine) -> Self {
        Self {
            in_flight: engine.in_flight.load(Relaxed),
            outstanding_tokens: engine.outstanding.load(Relaxed),
            foreign_requests: engine.foreign_read(),
            guessed_requests: engine.guessed_requests(),
            latency_bits: engine.latency.to_bits(),
            health: engine.health.to_parts(),
            attributes: engine.attributes.told(),
        }
    }
}

impl CandidateSet {
    /// What its engines are like now.
    #[must_use]
    pub fn readings(&self) -> Vec<Reading> {
        let all = self.list.iter();
        all.map(|one| Reading::of(&one.engine)).collect()
    }

    /// The set as it was when these readings were taken, with that turn.
    #[must_use]
    pub fn frozen(&self, readings: &[Reading], turn: usize) -> Self {
        let ejected = Arc::default();
        let list = self
            .list
            .iter()
            .zip(readings)
            .map(|(one, reading)| Candidate {
                engine: Arc::new(one.engine.frozen(reading, &ejected)),
                spec: Arc::clone(&one.spec),
                served: Arc::clone(&one.served),
            });
        Self {
            list: list.collect(),
            cursor: Arc::new(AtomicUsize::new(turn)),
            busy: Arc::default(),
            ejected,
            layout: Arc::clone(&self.layout),
            groups: self.groups.clone(),
            name: Arc::clone(&self.name),
            tier: self.tier,
            serial: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::attributes::{Live, Place};
    use super::super::breaker::Standing;
    use super::super::engine::Outcome;
    use super::super::load::{Expected, InFlight};
    use super::super::testing::{fleet, spec};
    use super::*;

    #[test]
    fn a_frozen_set_reads_the_same_and_stays() {
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://a:1", &["m"]), spec("http://b:1", &["m"])]);
        let snapshot = fleet.published().load_full();
        let set = &snapshot.model("m").unwrap().candidates;
        let engine = &set.list()[1].engine;
        let mut values = [None; Place::COUNT];
        values[Live::RequestsWaiting as usize] = Some(3.5);
        engine.told(&values, Duration::from_secs(2));
        engine
            .latency
            .observe(Duration::from_millis(70), Duration::from_secs(1));
        for _ in 0..5 {
            let second = Duration::from_secs(1);
            engine
                .health
                .learn(Standing::Trusted, Outcome::Failure, second);
        }
        let expected = Expected {
            prompt: 100,
            output: 20,
        };
        let slot = InFlight::take(&set.list()[1], expected, Instant::now());
        let readings = set.readings();
        assert_eq!(readings[1].foreign_requests, (3.5, 2000));
        drop(slot);
        let text = serde_json::to_string(&readings).unwrap();
        let again: Vec<Reading> = serde_json::from_str(&text).unwrap();
        assert_eq!(again, readings);
        let frozen = set.frozen(&again, 7);
        assert_eq!(frozen.readings(), readings);
        assert_ne!(set.readings(), readings);
        assert_eq!(frozen.cursor.load(Relaxed), 7);
        assert_eq!(frozen.ejected.load(Relaxed), 1);
    }
}
