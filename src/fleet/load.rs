//! The in-flight guard.
//!
//! Taken at the pick, so that simultaneous picks see each other, and given back
//! when the stream has ended, whichever way. It settles exactly once: by
//! [`InFlight::settle`], or by being dropped, which means that the client left.
//! What the engine's breaker learns of it, it learns once too: at a head that
//! tells of a fault, at the first piece if the request is a probe, else at the
//! end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Candidate;
use super::breaker::Standing;
use super::engine::{Engine, Outcome};
use super::latency::PENALTY;
use super::stats::Served;

/// A prompt token is so much less work than a generated one.
const PROMPT_SHARE: u32 = 4;
/// No prompt is thought to be longer, in tokens: what a client says of its
/// body's length, and pictures in it, are no tokens.
const LONGEST_PROMPT: u64 = 262_144;
/// Tokens that an answer has when nothing is known of it.
const USUAL_OUTPUT: u32 = 256;

/// What a request is thought to cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// Its prompt, in tokens that are generated in the same time.
    pub prompt: u32,
    /// Tokens of its answer.
    pub output: u32,
}

impl Expected {
    /// A request for `candidate` with so many prompt tokens, that allows so many
    /// at most for its answer.
    #[must_use]
    pub fn of(candidate: &Candidate, prompt_tokens: u64, max_tokens: Option<u64>) -> Self {
        let usual = candidate.served.mean_output().unwrap_or(USUAL_OUTPUT);
        let most = max_tokens.map_or(u32::MAX, |most| u32::try_from(most).unwrap_or(u32::MAX));
        Self {
            prompt: Self::prompt_of(prompt_tokens),
            output: usual.min(most),
        }
    }

    /// What so many prompt tokens cost.
    #[must_use]
    pub fn prompt_of(tokens: u64) -> u32 {
        let tokens = tokens.min(LONGEST_PROMPT);
        u32::try_from(tokens / u64::from(PROMPT_SHARE)).unwrap_or(u32::MAX)
    }

    fn all(self) -> u64 {
        u64::from(self.prompt) + u64::from(self.output)
    }
}

/// One request that an engine has been picked for.
#[derive(Debug)]
pub struct InFlight {
    engine: Arc<Engine>,
    served: Arc<Served>,
    since: Instant,
    /// What is still to be done.
    left: Expected,
    is_answering: bool,
    outcome: Outcome,
    standing: Standing,
    /// Whether the breaker has been told all that there is to tell.
    is_judged: bool,
    is_ended: bool,
}

impl InFlight {
    /// Counts a request for `candidate` from now until it is dropped.
    #[must_use]
    pub fn take(candidate: &Candidate, expected: Expected, now: Instant) -> Self {
        let standing = candidate.engine.health.take(candidate.engine.clock(now));
        Self::with(candidate, expected, standing, now)
    }

    /// The same, of which something else is to be learnt.
    #[must_use]
    pub fn with(
        candidate: &Candidate,
        expected: Expected,
        standing: Standing,
        now: Instant,
    ) -> Self {
        let (engine, served) = (Arc::clone(&candidate.engine), Arc::clone(&candidate.served));
        engine.in_flight.fetch_add(1, Relaxed);
        engine.outstanding.fetch_add(expected.all(), Relaxed);
        served.pick();
        Self {
            engine,
            served,
            since: now,
            left: expected,
            is_answering: false,
            outcome: Outcome::ClientGone,
            standing,
            is_judged: false,
            is_ended: false,
        }
    }

    /// When it was picked.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The account of what it does for the model.
    #[must_use]
    pub fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// The engine that was picked.
    #[must_use]
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The head of the answer has come, with a status that means this, and
    /// perhaps a time to come again.
    pub fn answered(&mut self, outcome: Outcome, retry_after: Option<Duration>, now: Instant) {
        let at = self.engine.clock(now);
        match outcome {
            Outcome::Overloaded => self.engine.health.pressed(self.standing, retry_after, at),
            Outcome::Failure => self.engine.health.failed(self.told(), outcome, at),
            _ => return,
        }
        (self.outcome, self.is_judged) = (outcome, true);
    }

    /// So many tokens of the answer have come.
    pub fn delivered(&mut self, tokens: u32, now: Instant) {
        let done = tokens.min(self.left.output);
        self.left.output -= done;
        let mut done = u64::from(done);
        if !self.is_answering {
            self.is_answering = true;
            self.engine.answering.fetch_add(1, Relaxed);
            let took = now.saturating_duration_since(self.since);
            let at = self.engine.clock(now);
            self.engine.latency.observe(took, at);
            if matches!(self.standing, Standing::Probe(_)) && !self.is_judged {
                // It lives: who waits for the end may wait for minutes.
                self.engine.health.succeeded(self.standing, at);
                self.standing = Standing::Trusted;
            }
            done += u64::from(std::mem::take(&mut self.left.prompt));
        }
        self.engine.outstanding.fetch_sub(done, Relaxed);
    }

    /// What a failure of this request tells: nothing, if the engine was trusted
    /// anew since it began.
    fn told(&self) -> Standing {
        let began = self.engine.clock(self.since);
        let is_old = self.standing == Standing::Trusted && !self.engine.health.is_news(began);
        if is_old {
            Standing::Forced
        } else {
            self.standing
        }
    }

    /// Ends the request with this outcome.
    pub fn settle(self, outcome: Outcome) {
        drop(self.ending(outcome));
    }

    /// Ends it with this outcome, now.
    pub fn settle_at(mut self, outcome: Outcome, now: Instant) {
        self.outcome = outcome;
        self.end(now);
    }

    /// The same request, that ends with this outcome when it is dropped.
    #[must_use]
    pub fn ending(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }
}

impl InFlight {
    fn end(&mut self, ended: Instant) {
        self.is_ended = true;
        if self.is_answering {
            self.engine.answering.fetch_sub(1, Relaxed);
        }
        self.engine.in_flight.fetch_sub(1, Relaxed);
        self.engine.outstanding.fetch_sub(self.left.all(), Relaxed);
        self.engine.count(self.outcome);
        let took = ended.saturating_duration_since(self.since);
        let now = self.engine.clock(ended);
        if !self.is_judged {
            let standing = if self.outcome.is_fault() {
                self.told()
            } else {
                self.standing
            };
            self.engine.health.learn(standing, self.outcome, now);
        }
        if self.outcome.is_fault() || self.outcome == Outcome::Overloaded {
            // A failure that came quickly must not look like a quick engine.
            self.engine.latency.observe(took.max(PENALTY), now);
        }
        self.served.end(self.outcome, took);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.is_ended {
            self.end(Instant::now());
        }
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
        let now = Instant::now();
        let expected = Expected {
            prompt: 10,
            output: 3,
        };
        let mut first = InFlight::take(candidate, expected, now);
        let second = InFlight::take(candidate, expected, now);
        assert_eq!(engine.outstanding.load(Relaxed), 26);
        first.delivered(1, now);
        assert_eq!(engine.outstanding.load(Relaxed), 15);
        first.delivered(1000, now);
        assert_eq!(engine.outstanding.load(Relaxed), 13);
        assert_eq!(engine.in_flight.load(Relaxed), 2);
        assert_eq!(engine.answering.load(Relaxed), 1);
        first.settle(Outcome::Failure);
        drop(second);
        assert_eq!(engine.in_flight.load(Relaxed), 0);
        assert_eq!(engine.answering.load(Relaxed), 0);
        assert_eq!(engine.outstanding.load(Relaxed), 0);
        assert!(
            engine.latency.get(engine.clock(now)).unwrap() >= 4.9,
            "a penalty"
        );
        assert_eq!(engine.ended(Outcome::Failure), 1);
        assert_eq!(engine.ended(Outcome::ClientGone), 1);
        assert_eq!(engine.ended(Outcome::Success), 0);
        assert_eq!(candidate.served.ended(Outcome::Failure), 1);
    }

    #[test]
    fn what_began_before_an_engine_was_trusted_anew_does_not_count() {
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://a", &["m"])]);
        let snapshot = fleet.published().load_full();
        let candidate = &snapshot.model("m").unwrap().candidates.list()[0];
        let engine = &candidate.engine;
        let now = Instant::now();
        let take = |at: Instant| InFlight::take(candidate, Expected::default(), at);
        let old: Vec<InFlight> = (0..20).map(|_| take(now)).collect();
        // Five fail, it is set aside, and comes back.
        let at = |seconds| engine.clock(now + Duration::from_secs(seconds));
        for _ in 0..5 {
            (engine.health).learn(Standing::Trusted, Outcome::Failure, at(0));
        }
        for second in 6..9 {
            let standing = engine.health.take(at(second));
            engine.health.succeeded(standing, at(second));
        }
        old.into_iter()
            .for_each(|slot| slot.settle(Outcome::Timeout));
        assert!(engine.health.is_up(at(9)));
        let later = now + Duration::from_secs(10);
        let new: Vec<InFlight> = (0..5).map(|_| take(later)).collect();
        new.into_iter()
            .for_each(|slot| slot.settle(Outcome::Timeout));
        assert!(!engine.health.is_up(engine.clock(Instant::now())));
    }
}
