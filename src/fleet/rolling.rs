//! Averages of an engine over the last minutes, as AIOS names them: of its
//! queue, as it tells, and of how long it took and how much it did, as we saw.
//!
//! They fade like the load averages of Unix, but begin with the first value,
//! and count the time that passed rather than the looks. The control thread
//! alone makes them; an average is itself what the next one is made from, so
//! that workers read the very atomics.

use std::collections::HashMap;
use std::time::Duration;

use super::attributes::{Attributes, Freshness, Live};
use super::engine::Outcome;
use super::{Engine, Snapshot};

/// How often they are made at least.
pub const EVERY: Duration = Duration::from_secs(5);
/// So long what is known of an idle engine's speed stands: as long as the
/// longest average looks back. If it were unknown any sooner, whoever had lost
/// a choice by it would soon be the worst, and never get to show otherwise.
const HELD: Duration = Duration::from_secs(15 * 60);

/// Averages, with the seconds after which a value has lost all but 1/e of its
/// weight.
type Averages = [(Live, f64); 3];

const QUEUE: Averages = [
    (Live::QueueAverage1m, 60.0),
    (Live::QueueAverage5m, 300.0),
    (Live::QueueAverage15m, 900.0),
];
const LATENCY: Averages = [
    (Live::LatencyAverage1m, 60.0),
    (Live::LatencyAverage5m, 300.0),
    (Live::LatencyAverage15m, 900.0),
];
const FPS: Averages = [
    (Live::FpsAverage1m, 60.0),
    (Live::FpsAverage5m, 300.0),
    (Live::FpsAverage15m, 900.0),
];
const TASKS: Averages = [
    (Live::TasksAverage1m, 60.0),
    (Live::TasksAverage5m, 300.0),
    (Live::TasksAverage15m, 900.0),
];

/// What was seen of every engine at the last look; the control thread's own.
#[derive(Debug, Default)]
pub struct Rolling {
    engines: HashMap<u64, Past>,
}

impl Rolling {
    /// Takes in what engines told and did since the last time; those that are
    /// gone are forgotten.
    pub fn roll(&mut self, fleet: &Snapshot, by: Freshness) {
        let engines = fleet.all.candidates.list().iter();
        let pasts = engines.map(|one| {
            let past = self.engines.remove(&one.engine.key);
            (one.engine.key, look(&one.engine, past, by))
        });
        self.engines = pasts.collect();
    }
}

/// One engine at one look.
#[derive(Debug, Clone, Copy)]
struct Past {
    /// All times are of the fleet's clock.
    at: Duration,
    /// Requests answered, as the engine counts them.
    finished: u64,
    /// Requests answered, and their microseconds, as its statistics have them.
    answered: (u64, u64),
    /// When there were any.
    answered_at: Option<Duration>,
}

fn look(engine: &Engine, past: Option<Past>, by: Freshness) -> Past {
    let (attributes, now) = (&engine.attributes, by.now);
    queue(attributes, by);
    let finished = engine.ended(Outcome::Success);
    let mut past = past.unwrap_or(Past {
        at: now,
        finished,
        answered: (0, 0),
        answered_at: None,
    });
    attributes.hear(Live::TasksTotal, count(finished), now);
    let over = now.saturating_sub(past.at);
    if !over.is_zero() {
        let rate = count(finished.saturating_sub(past.finished)) / over.as_secs_f64();
        attributes.hear(Live::TasksNow, rate, now);
        feed(attributes, TASKS, rate, over, now);
    }
    speed(engine, &mut past, now);
    Past {
        at: now,
        finished,
        ..past
    }
}

/// What the engine tells of its queue, once for each time that it tells: its
/// averages are as old as that.
fn queue(attributes: &Attributes, by: Freshness) {
    let age = |live| attributes.age_of(live, by.now);
    let told = attributes.fresh(Live::RequestsWaiting, by);
    let (Some(value), Some(told_ago)) = (told, age(Live::RequestsWaiting)) else {
        return;
    };
    let over = age(Live::QueueAverage1m).map_or(Duration::MAX, |ago| ago.saturating_sub(told_ago));
    if !over.is_zero() {
        let told_at = by.now.saturating_sub(told_ago);
        feed(attributes, QUEUE, value, over, told_at);
    }
}

/// How long requests took that were answered since; with none, what is known
/// stands for a while.
fn speed(engine: &Engine, past: &mut Past, now: Duration) {
    let attributes = &engine.attributes;
    let (answers, micros) = engine.answered();
    let (count_before, micros_before) = past.answered;
    let is_held = |at| now.saturating_sub(at) <= HELD;
    // A worker may have counted an answer, and its time not yet.
    if answers > count_before && micros > micros_before {
        let seconds = count(micros - micros_before) / count(answers - count_before) / 1e6;
        // However long it was idle, that says nothing of how quick it is.
        let over = now.saturating_sub(past.answered_at.unwrap_or_default());
        for (live, averages, value) in [
            (Live::LatencyNow, LATENCY, seconds),
            (Live::FpsNow, FPS, seconds.recip()),
        ] {
            attributes.hear(live, value, now);
            feed(attributes, averages, value, over, now);
        }
        past.answered = (answers, micros);
        past.answered_at = Some(now);
    } else if past.answered_at.is_some_and(is_held) {
        for live in of_speed() {
            if let Some(value) = attributes.get(live) {
                attributes.hear(live, value, now);
            }
        }
    }
}

/// Forgets how quick it was: it is another process now.
pub(super) fn forget_speed(attributes: &Attributes) {
    of_speed().for_each(|live| attributes.forget(live));
}

fn of_speed() -> impl Iterator<Item = Live> {
    let averages = LATENCY.into_iter().chain(FPS).map(|(live, _)| live);
    [Live::LatencyNow, Live::FpsNow].into_iter().chain(averages)
}

/// Has the averages take in a value that held over that time, until `at`.
fn feed(attributes: &Attributes, averages: Averages, value: f64, over: Duration, at: Duration) {
    for (live, span) in averages {
        let before = attributes.get(live).unwrap_or(value);
        let kept = (-over.as_secs_f64() / span).exp();
        attributes.hear(live, value + (before - value) * kept, at);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn count(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::attributes::{Place, Values};
    use super::super::testing::{fleet, spec};
    use super::*;

    const STALE_AFTER: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    /// One engine, and looks at it at times that are given.
    struct Scene {
        snapshot: Arc<Snapshot>,
        rolling: Rolling,
    }

    impl Scene {
        fn new() -> Self {
            let mut fleet = fleet();
            fleet.reconcile(vec![spec("http://a:1", &["m", "n"])]);
            Self {
                snapshot: fleet.published().load_full(),
                rolling: Rolling::default(),
            }
        }

        fn engine(&self) -> &Engine {
            &self.snapshot.all.candidates.list()[0].engine
        }

        fn look(&mut self, seconds: u64) {
            let by = Freshness::new(at(seconds), STALE_AFTER);
            self.rolling.roll(&self.snapshot, by);
        }

        /// The engine answers a request for each of its two models.
        fn answer(&self, first: u64, second: u64) {
            for (model, millis) in [("m", first), ("n", second)] {
                self.engine().count(Outcome::Success);
                let served = &self.snapshot.model(model).unwrap().candidates.list()[0].served;
                served.end(Outcome::Success, Duration::from_millis(millis));
            }
        }

        /// It tells how many wait.
        fn tell(&self, waiting: f64, seconds: u64) {
            let mut values: Values = [None; Place::COUNT];
            values[Live::RequestsWaiting as usize] = Some(waiting);
            self.engine().told(&values, at(seconds));
        }

        #[track_caller]
        fn shows(&self, seconds: u64, expected: &[(Live, Option<f64>)]) {
            let by = Freshness::new(at(seconds), STALE_AFTER);
            for (live, expected) in expected {
                let value = self.engine().attributes.fresh(*live, by);
                let is_same = match (value, expected) {
                    (Some(value), Some(expected)) => (value - expected).abs() < 1e-9,
                    (value, expected) => value.is_none() && expected.is_none(),
                };
                assert!(is_same, "{live:?}: {value:?}, not {expected:?}");
            }
        }
    }

    /// What is left of a difference after so many seconds.
    fn left(seconds: f64, span: f64) -> f64 {
        (-seconds / span).exp()
    }

    #[test]
    fn a_queues_averages_are_as_old_as_what_was_told() {
        let mut scene = Scene::new();
        scene.look(0);
        scene.shows(0, &QUEUE.map(|(live, _)| (live, None)));
        scene.tell(8.0, 1);
        scene.look(5);
        scene.shows(5, &QUEUE.map(|(live, _)| (live, Some(8.0))));
        let age = |scene: &Scene, now| {
            let attributes = &scene.engine().attributes;
            attributes.age_of(Live::QueueAverage15m, at(now)).unwrap()
        };
        assert_eq!(age(&scene, 5), Duration::from_secs(4));
        // What was told once counts once, however often it is looked at.
        scene.tell(2.0, 31);
        for seconds in [35, 40, 45, 50] {
            scene.look(seconds);
            let averages = QUEUE.map(|(live, span)| (live, Some(2.0 + 6.0 * left(30.0, span))));
            scene.shows(seconds, &averages);
        }
        assert_eq!(age(&scene, 50), Duration::from_secs(19));
        // Silence feeds nothing: they are stale together.
        scene.look(92);
        scene.shows(
            91,
            &[(Live::QueueAverage1m, Some(2.0 + 6.0 * left(30.0, 60.0)))],
        );
        let stale = QUEUE.map(|(live, _)| (live, None));
        scene.shows(92, &stale);
        // After a long silence what is new counts for more.
        scene.tell(2.0, 331);
        scene.look(332);
        let averages = QUEUE.map(|(live, span)| (live, Some(2.0 + 6.0 * left(330.0, span))));
        scene.shows(332, &averages);
        // A page without it does not take them away.
        scene.engine().told(&[None; Place::COUNT], at(333));
        scene.look(335);
        scene.shows(335, &averages);
    }

    #[test]
    fn latencies_are_those_of_the_requests_since() {
        let mut scene = Scene::new();
        scene.look(0);
        scene.shows(0, &[(Live::LatencyNow, None), (Live::FpsNow, None)]);
        scene.answer(1000, 3000);
        scene.look(5);
        let of = |averages: Averages, value| averages.map(|(live, _)| (live, Some(value)));
        scene.shows(
            5,
            &[(Live::LatencyNow, Some(2.0)), (Live::FpsNow, Some(0.5))],
        );
        scene.shows(5, &of(LATENCY, 2.0));
        scene.shows(5, &of(FPS, 0.5));
        scene.answer(4000, 4000);
        scene.look(15);
        scene.shows(
            15,
            &[(Live::LatencyNow, Some(4.0)), (Live::FpsNow, Some(0.25))],
        );
        let faded = |span| 4.0 - 2.0 * left(10.0, span);
        let averages = LATENCY.map(|(live, span)| (live, Some(faded(span))));
        scene.shows(15, &averages);
        let by_fps = FPS.map(|(live, span)| (live, Some(0.25 + 0.25 * left(10.0, span))));
        scene.shows(15, &by_fps);
        // Nobody asks: it stays, for a quarter of an hour.
        for seconds in (20..=1200).step_by(5) {
            scene.look(seconds);
        }
        scene.shows(915, &averages);
        scene.shows(915 + 60, &averages);
        scene.shows(915 + 61, &LATENCY.map(|(live, _)| (live, None)));
        scene.shows(915 + 61, &[(Live::LatencyNow, None), (Live::FpsNow, None)]);
        // What comes after a pause counts for the whole of it.
        scene.answer(1000, 1000);
        scene.look(1215);
        let averages = LATENCY.map(|(live, span)| {
            let before = faded(span);
            (live, Some(1.0 + (before - 1.0) * left(1200.0, span)))
        });
        scene.shows(1215, &averages);
    }

    #[test]
    fn what_was_done_is_counted_and_fades() {
        let mut scene = Scene::new();
        scene.answer(10, 10);
        scene.look(0);
        scene.shows(0, &[(Live::TasksTotal, Some(2.0)), (Live::TasksNow, None)]);
        // Twice: no time has passed.
        scene.look(0);
        scene.shows(0, &[(Live::TasksNow, None)]);
        (0..5).for_each(|_| scene.answer(10, 10));
        scene.engine().count(Outcome::Failure);
        scene.look(5);
        scene.shows(
            5,
            &[(Live::TasksTotal, Some(12.0)), (Live::TasksNow, Some(2.0))],
        );
        scene.shows(5, &TASKS.map(|(live, _)| (live, Some(2.0))));
        scene.look(15);
        scene.shows(
            15,
            &[(Live::TasksTotal, Some(12.0)), (Live::TasksNow, Some(0.0))],
        );
        scene.shows(
            15,
            &TASKS.map(|(live, span)| (live, Some(2.0 * left(10.0, span)))),
        );
    }

    #[test]
    fn a_new_process_has_no_speed_yet_and_who_is_gone_no_past() {
        let mut scene = Scene::new();
        scene.answer(1000, 1000);
        scene.tell(3.0, 0);
        scene.look(0);
        scene.engine().restarted(at(1));
        scene.look(5);
        scene.shows(5, &[(Live::LatencyNow, None), (Live::FpsAverage15m, None)]);
        scene.shows(
            5,
            &[
                (Live::QueueAverage1m, Some(3.0)),
                (Live::TasksTotal, Some(2.0)),
            ],
        );
        scene.answer(2000, 2000);
        scene.look(10);
        scene.shows(10, &[(Live::LatencyAverage15m, Some(2.0))]);
        assert_eq!(scene.rolling.engines.len(), 1);
        scene.snapshot = fleet().published().load_full();
        scene.look(15);
        assert!(scene.rolling.engines.is_empty());
    }

    #[test]
    fn an_answer_without_its_time_waits_for_it() {
        let mut scene = Scene::new();
        scene.answer(0, 0);
        scene.look(0);
        scene.shows(0, &[(Live::LatencyNow, None), (Live::FpsNow, None)]);
        scene.answer(300, 100);
        scene.look(5);
        scene.shows(
            5,
            &[(Live::LatencyNow, Some(0.1)), (Live::FpsNow, Some(10.0))],
        );
    }
}
