//! What happens to which engine, and when: made from the seed before anything
//! starts, so that a run can be had again.

use std::time::Duration;

use fastrand::Rng;

use crate::sim::faults::Fault;

/// Engines that are injured at once, at most.
const AT_ONCE: usize = 2;
/// How long an injury lasts, and how long until the next, in milliseconds.
const LASTS: std::ops::Range<u64> = 300..2000;
const PAUSE: std::ops::Range<u64> = 50..400;
/// Ways to be injured.
const WAYS: usize = 15;

/// One engine is injured, and heals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Injury {
    /// Which.
    pub(super) engine: usize,
    /// Since the beginning.
    pub(super) from: Duration,
    /// When it heals.
    pub(super) until: Duration,
    /// How; `None`: it is killed.
    pub(super) fault: Option<Fault>,
    /// The report's word for it.
    pub(super) name: &'static str,
}

/// All injuries of a run that lasts so long, by their beginnings.
///
/// At most two engines are injured at once, and never all; every way to be
/// injured comes up before one comes again.
pub(super) fn plan(seed: u64, engines: usize, time: Duration) -> Vec<Injury> {
    let mut rng = Rng::with_seed(seed);
    let end = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    // When each of those that may come at once is over, and each engine well.
    let mut lanes = vec![0; AT_ONCE.min(engines.saturating_sub(1))];
    let mut well = vec![0; engines];
    let mut deck: Vec<usize> = Vec::new();
    let mut injuries = Vec::new();
    while let Some(lane) = lanes.iter_mut().min() {
        let from = *lane + rng.u64(PAUSE);
        let until = (from + rng.u64(LASTS)).min(end);
        if from >= end {
            break;
        }
        let free: Vec<usize> = (0..engines).filter(|at| well[*at] < from).collect();
        let Some(engine) = rng.choice(free) else {
            break;
        };
        if deck.is_empty() {
            deck.extend(0..WAYS);
            rng.shuffle(&mut deck);
        }
        let (name, fault) = injure(deck.pop().unwrap_or(0), &mut rng);
        *lane = until;
        well[engine] = until;
        injuries.push(Injury {
            engine,
            from: Duration::from_millis(from),
            until: Duration::from_millis(until),
            fault,
            name,
        });
    }
    injuries.sort_by_key(|injury| injury.from);
    injuries
}

/// One way to be injured.
fn injure(way: usize, rng: &mut Rng) -> (&'static str, Option<Fault>) {
    // Most answers are longer than this, some are not; the first event is a
    // case of its own, since only a head has come before it.
    let events = if rng.u8(0..4) == 0 {
        0
    } else {
        rng.usize(1..20)
    };
    let (name, fault) = match way {
        0 => ("hung", Fault::Hang),
        1 => ("slow", Fault::Slow(Duration::from_millis(rng.u64(10..60)))),
        2 => (
            "late head",
            Fault::SlowHead(Duration::from_millis(rng.u64(100..1500))),
        ),
        3 => ("reset before the head", Fault::ResetBeforeHead),
        4 => ("closed before the head", Fault::Refuse),
        5 => ("reset midway", Fault::ResetAfter(events)),
        6 => ("truncated midway", Fault::TruncateAfter(events)),
        7 => ("garbage midway", Fault::GarbageAfter(events)),
        8 => ("silent midway", Fault::StallAfter(events)),
        9 => ("status 500", Fault::Status(500)),
        10 if rng.bool() => ("busy: 429", Fault::Busy(1)),
        10 => ("busy: 503", Fault::Status(503)),
        11 if rng.bool() => ("garbage for a head", Fault::Garbage),
        11 => ("garbage in the head", Fault::GarbageHead),
        12 => ("100 for ever", Fault::ContinueForever),
        13 => ("surplus bytes", Fault::Surplus),
        _ => return ("killed", None),
    };
    (name, Some(fault))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn never_are_all_engines_injured_nor_one_twice() {
        for engines in 2..6 {
            for seed in 0..50 {
                let time = Duration::from_secs(60);
                let plan = plan(seed, engines, time);
                assert!(plan.len() > 20, "{}", plan.len());
                for one in &plan {
                    assert!(one.from < one.until && one.until <= time);
                    let meets = |other: &&Injury| other.from <= one.from && one.from < other.until;
                    let open: Vec<usize> = plan.iter().filter(meets).map(|i| i.engine).collect();
                    let different: BTreeSet<usize> = open.iter().copied().collect();
                    assert_eq!(open.len(), different.len());
                    assert!(open.len() <= AT_ONCE && open.len() < engines);
                }
            }
        }
    }

    #[test]
    fn a_seed_is_a_plan_and_every_way_comes_up() {
        let time = Duration::from_secs(60);
        assert_eq!(plan(7, 5, time), plan(7, 5, time));
        assert_ne!(plan(7, 5, time), plan(8, 5, time));
        let names: BTreeSet<&str> = plan(7, 5, time).iter().map(|one| one.name).collect();
        assert!(names.len() >= WAYS, "{names:?}");
    }
}
