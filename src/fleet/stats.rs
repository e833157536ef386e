//! What one engine did for one model: sums that only grow, and rates over a
//! sliding window made from samples of them.
//!
//! Workers add to the sums; the control thread alone samples them, so that no
//! request ever sums a window, and memory is constant.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::engine::Outcome;

/// Upper bounds of the latency histogram, in seconds: the reference router's.
pub const LATENCY_BOUNDS: [f64; 11] =
    [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Samples that span a window.
const SAMPLES: u32 = 12;
/// Ends that are the engine's doing, and no answer.
const FAILURES: [Outcome; 4] = [
    Outcome::Overloaded,
    Outcome::Failure,
    Outcome::Timeout,
    Outcome::Unreachable,
];

/// One engine's work for the models of one label, since it was first seen.
#[derive(Debug, Default)]
pub struct Served {
    picked: AtomicU64,
    first: AtomicU64,
    ttft_us: AtomicU64,
    gaps: AtomicU64,
    gaps_us: AtomicU64,
    /// Prompt tokens, as engines tell them.
    pub input_tokens: AtomicU64,
    /// Generated tokens, as engines tell them, else events counted.
    pub output_tokens: AtomicU64,
    outcomes: [AtomicU64; Outcome::ALL.len()],
    succeeded: Latencies,
    failed: Latencies,
}

/// A histogram of how long requests took.
#[derive(Debug, Default)]
pub struct Latencies {
    counts: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

impl Latencies {
    fn add(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let slot = LATENCY_BOUNDS.partition_point(|bound| seconds > *bound);
        self.counts[slot].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(micros(took), Relaxed);
    }

    /// Cumulative counts by bound (the last is all), and the sum in seconds.
    #[must_use]
    pub fn read(&self) -> ([u64; LATENCY_BOUNDS.len() + 1], f64) {
        let mut sum = 0;
        let cumulative = std::array::from_fn(|i| {
            sum += self.counts[i].load(Relaxed);
            sum
        });
        let micros = Duration::from_micros(self.sum_us.load(Relaxed));
        (cumulative, micros.as_secs_f64())
    }
}

impl Served {
    /// A request was given to the engine.
    pub fn pick(&self) {
        self.picked.fetch_add(1, Relaxed);
    }

    /// The first piece of an answer's body has come.
    pub fn first(&self, after: Duration) {
        self.first.fetch_add(1, Relaxed);
        self.ttft_us.fetch_add(micros(after), Relaxed);
    }

    /// An answer has streamed so many pieces after its first, in that time.
    pub fn streamed(&self, gaps: u64, over: Duration) {
        if gaps > 0 {
            self.gaps.fetch_add(gaps, Relaxed);
            self.gaps_us.fetch_add(micros(over), Relaxed);
        }
    }

    /// A request has ended.
    pub fn end(&self, outcome: Outcome, took: Duration) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
        match outcome {
            Outcome::Success => self.succeeded.add(took),
            Outcome::ClientGone | Outcome::Unrelated => {}
            _ => self.failed.add(took),
        }
    }

    /// Ended requests with that outcome.
    #[must_use]
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Relaxed)
    }

    /// Whether there is anything to tell of it.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.outcomes.iter().any(|count| count.load(Relaxed) > 0)
    }

    /// Tokens of an answer, the mean of all so far.
    #[must_use]
    pub fn mean_output(&self) -> Option<u32> {
        let answers = self.outcomes[Outcome::Success as usize].load(Relaxed);
        let mean = self.output_tokens.load(Relaxed).checked_div(answers)?;
        u32::try_from(mean).ok().filter(|mean| *mean > 0)
    }

    /// Requests that were answered, and the microseconds that they took together.
    pub(super) fn answered(&self) -> (u64, u64) {
        let count = &self.outcomes[Outcome::Success as usize];
        (count.load(Relaxed), self.succeeded.sum_us.load(Relaxed))
    }

    /// How long requests took, with the reference's name for how they ended.
    #[must_use]
    pub fn latencies(&self) -> [(&'static str, &Latencies); 2] {
        [("success", &self.succeeded), ("error", &self.failed)]
    }

    fn sums(&self) -> Sums {
        let load = |sum: &AtomicU64| sum.load(Relaxed);
        let latency = &self.succeeded;
        Sums {
            picked: load(&self.picked),
            first: load(&self.first),
            ttft_us: load(&self.ttft_us),
            gaps: load(&self.gaps),
            gaps_us: load(&self.gaps_us),
            output_tokens: load(&self.output_tokens),
            finished: self.outcomes.iter().map(load).sum(),
            succeeded: load(&self.outcomes[Outcome::Success as usize]),
            failed: FAILURES.iter().map(|one| self.ended(*one)).sum(),
            latency_us: load(&latency.sum_us),
        }
    }
}

/// All sums at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sums {
    picked: u64,
    first: u64,
    ttft_us: u64,
    gaps: u64,
    gaps_us: u64,
    output_tokens: u64,
    finished: u64,
    succeeded: u64,
    failed: u64,
    latency_us: u64,
}

impl Sums {
    fn combine(self, other: Self, with: fn(u64, u64) -> u64) -> Self {
        Self {
            picked: with(self.picked, other.picked),
            first: with(self.first, other.first),
            ttft_us: with(self.ttft_us, other.ttft_us),
            gaps: with(self.gaps, other.gaps),
            gaps_us: with(self.gaps_us, other.gaps_us),
            output_tokens: with(self.output_tokens, other.output_tokens),
            finished: with(self.finished, other.finished),
            succeeded: with(self.succeeded, other.succeeded),
            failed: with(self.failed, other.failed),
            latency_us: with(self.latency_us, other.latency_us),
        }
    }
}

/// One engine over the window, all its models together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Requests given to it, a second.
    pub qps: f64,
    /// Seconds to the first piece, the mean; `None`: there was none.
    pub ttft: Option<f64>,
    /// Seconds between two pieces of a stream, the mean.
    pub itl: Option<f64>,
    /// Seconds that answered requests took, the mean.
    pub latency: Option<f64>,
    /// Generated tokens for each finished request, the mean.
    pub tokens_per_request: Option<f64>,
    /// Generated tokens a second; an answer's are counted at its end.
    pub tokens_per_second: f64,
    /// Requests that ended within the window.
    pub finished: u64,
    /// Of those, the ones that the engine refused or failed.
    pub failed: u64,
}

/// Samples of every engine's sums; the control thread's own.
#[derive(Debug)]
pub struct Windows {
    length: Duration,
    engines: HashMap<u64, VecDeque<(Instant, Sums)>>,
    /// Engines that never had anything to do, and since when that is known: in a
    /// large fleet most, and samples take more than a kilobyte each.
    idle: HashMap<u64, Instant>,
}

impl Windows {
    /// Nothing sampled yet.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            engines: HashMap::new(),
            idle: HashMap::new(),
        }
    }

    /// How often a sample is to be taken.
    #[must_use]
    pub fn every(&self) -> Duration {
        (self.length / SAMPLES).max(Duration::from_millis(10))
    }

    /// Takes a sample; engines that are not among them are forgotten.
    pub fn sample(&mut self, fleet: &super::Snapshot, now: Instant) {
        let sums = engine_sums(fleet);
        self.engines.retain(|key, _| sums.contains_key(key));
        self.idle.retain(|key, _| sums.contains_key(key));
        for (key, sums) in sums {
            if sums == Sums::default() {
                self.idle.entry(key).or_insert(now);
                continue;
            }
            let since = self.idle.remove(&key);
            let oldest = now.checked_sub(self.length).unwrap_or(now);
            let samples = self.engines.entry(key).or_insert_with(|| {
                let mut samples = VecDeque::with_capacity(SAMPLES as usize + 2);
                samples.extend(since.map(|since| (since.max(oldest), Sums::default())));
                samples
            });
            samples.push_back((now, sums));
            while samples.len() > SAMPLES as usize + 1 {
                samples.pop_front();
            }
        }
    }

    /// Every engine's rates, from the oldest sample of the window until now.
    #[must_use]
    pub fn rates(&self, fleet: &super::Snapshot, now: Instant) -> HashMap<u64, Rates> {
        let sums = engine_sums(fleet).into_iter();
        let rates = sums.map(|(key, sums)| {
            let samples = self.engines.get(&key).into_iter().flatten();
            let mut inside = samples.filter(|(at, _)| now.duration_since(*at) <= self.length);
            let idle = self.idle.get(&key).map(|since| now.duration_since(*since));
            // An engine that is in no sample yet is as old as its sums.
            let unknown = idle.map_or(self.every(), |idle| idle.min(self.length));
            let (since, before) = inside
                .next()
                .map_or((unknown, Sums::default()), |(at, sums)| {
                    (now.duration_since(*at), *sums)
                });
            // A window that has just begun says nothing of a second.
            let over = since.max(self.every());
            (key, rates(sums.combine(before, u64::saturating_sub), over))
        });
        rates.collect()
    }
}

fn engine_sums(fleet: &super::Snapshot) -> HashMap<u64, Sums> {
    let mut all: HashMap<u64, Sums> = HashMap::new();
    for candidate in fleet.all.candidates.list() {
        let sums = all.entry(candidate.engine.key).or_default();
        candidate.engine.each_served(|_, served| {
            *sums = sums.combine(served.sums(), u64::saturating_add);
        });
    }
    all
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn rates(in_window: Sums, over: Duration) -> Rates {
    let mean = |sum: u64, count: u64| (count > 0).then(|| sum as f64 / count as f64);
    let seconds = |us: u64, count: u64| mean(us, count).map(|us| us / 1e6);
    let each_second = |count: u64| count as f64 / over.as_secs_f64().max(1e-3);
    Rates {
        qps: each_second(in_window.picked),
        ttft: seconds(in_window.ttft_us, in_window.first),
        itl: seconds(in_window.gaps_us, in_window.gaps),
        latency: seconds(in_window.latency_us, in_window.succeeded),
        tokens_per_request: mean(in_window.output_tokens, in_window.succeeded),
        tokens_per_second: each_second(in_window.output_tokens),
        finished: in_window.finished,
        failed: in_window.failed,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{fleet, spec};
    use super::*;

    #[test]
    fn rates_are_of_the_window_alone() {
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://a:1", &["m", "n"])]);
        let snapshot = fleet.published().load_full();
        let served = |model: &str| &snapshot.model(model).unwrap().candidates.list()[0].served;
        let key = snapshot.all.candidates.list()[0].engine.key;
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut windows = Windows::new(Duration::from_secs(60));

        for _ in 0..100 {
            served("m").pick();
        }
        windows.sample(&snapshot, at(0));
        for (model, ttft) in [("m", 100), ("n", 300)] {
            served(model).pick();
            served(model).first(Duration::from_millis(ttft));
            served(model).streamed(10, Duration::from_millis(200));
            served(model).output_tokens.fetch_add(11, Relaxed);
            served(model).end(Outcome::Success, Duration::from_secs(2));
        }
        let rates = windows.rates(&snapshot, at(10))[&key];
        assert_eq!(rates.qps, 0.2);
        assert_eq!(rates.ttft, Some(0.2));
        assert_eq!(rates.itl, Some(0.02));
        assert_eq!(rates.latency, Some(2.0));
        assert_eq!(rates.tokens_per_request, Some(11.0));
        assert_eq!(rates.tokens_per_second, 2.2);
        assert_eq!((rates.finished, rates.failed), (2, 0));
        for (outcome, _) in Outcome::ALL {
            served("m").end(outcome, Duration::from_secs(1));
        }
        let rates = windows.rates(&snapshot, at(10))[&key];
        assert_eq!((rates.finished, rates.failed), (9, 4));

        for second in 1..100 {
            windows.sample(&snapshot, at(second * 5));
        }
        assert!(
            windows
                .engines
                .values()
                .all(|samples| samples.len() == SAMPLES as usize + 1)
        );
        assert_eq!(windows.engines[&key].len(), 13);
        let idle = windows.rates(&snapshot, at(500))[&key];
        assert_eq!((idle.qps, idle.ttft, idle.finished), (0.0, None, 0));
    }

    #[test]
    fn an_engine_without_work_costs_no_samples_and_its_first_work_counts() {
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://a:1", &["m"])]);
        let snapshot = fleet.published().load_full();
        let one = &snapshot.model("m").unwrap().candidates.list()[0];
        let start = Instant::now() + Duration::from_secs(600);
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut windows = Windows::new(Duration::from_secs(60));
        for seconds in (0..=300).step_by(5) {
            windows.sample(&snapshot, at(seconds));
        }
        assert!(windows.engines.is_empty());
        (0..6).for_each(|_| one.served.pick());
        assert_eq!(windows.rates(&snapshot, at(301))[&one.engine.key].qps, 0.1);
        windows.sample(&snapshot, at(305));
        assert!(windows.idle.is_empty());
        let qps = windows.rates(&snapshot, at(305))[&one.engine.key].qps;
        assert_eq!(qps, 0.1);
    }

    #[test]
    fn latencies_are_counted_by_how_requests_ended() {
        let served = Served::default();
        served.end(Outcome::Success, Duration::from_millis(300));
        served.end(Outcome::Failure, Duration::from_secs(1000));
        served.end(Outcome::ClientGone, Duration::from_secs(1));
        let [(_, success), (_, error)] = served.latencies();
        let (counts, sum) = success.read();
        assert_eq!((counts[2], counts[3], counts[11]), (0, 1, 1));
        assert!((sum - 0.3).abs() < 1e-9);
        assert_eq!(error.read().0[10..], [0, 1]);
    }
}
