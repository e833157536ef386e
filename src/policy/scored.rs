//! The best by goals, of those that match a filter: each attribute is set
//! between the worst (0) and the best (1) of the candidates, and the weighted
//! mean decides.
//!
//! What is not known, or too old, scores as the worst: absent data never wins.
//! Where engines are of blocks, blocks are the candidates, and an engine of the
//! block is picked by another policy.

use fastrand::Rng;

use super::Refusal;
use super::explain::{GoalVerdict, Verdict};
use super::ranges::{Line, Ranges, mean};
use super::top::Top;
use super::units::Units;
use super::view::View;
use crate::config::policies::{Goal, MOST_GOALS, Picker, Scored};

/// Values of candidates that are kept between two looks at them; among more
/// candidates or goals they are read again. Clearing more than is needed takes
/// time, hence two sizes.
const KEPT: [usize; 2] = [1024, 8192];
/// Scores that differ by less are equal: live numbers are as old as the last
/// reading, and all would run to whoever was best then.
const BAND: f64 = 0.05;

/// The engine that the picker takes.
pub(super) fn pick(of: &Scored, view: &View<'_>, rng: &mut Rng) -> Option<usize> {
    let units = Units::new(of, view);
    let unit = take(&units, of.picker, BAND, rng)?;
    of_unit(&units, unit, rng)
}

/// An engine of that unit.
pub(super) fn of_unit(units: &Units<'_>, unit: usize, rng: &mut Rng) -> Option<usize> {
    match units.members(unit) {
        None => Some(unit),
        Some(members) => super::pick(&units.of.instance, &units.view.confined(members), rng),
    }
}

/// The unit with the best score; of equals the one with the fewest requests in
/// flight.
pub(super) fn best(units: &Units<'_>, rng: &mut Rng) -> Option<usize> {
    take(units, Picker::Argmax, 0.0, rng)
}

/// The unit that the picker takes; scores within the band are equal.
fn take(units: &Units<'_>, picker: Picker, band: f64, rng: &mut Rng) -> Option<usize> {
    let needed = width(&units.of.goals) * units.len();
    if needed <= KEPT[0] {
        take_of(&Scores::of(units, &mut [0.0; KEPT[0]]), picker, band, rng)
    } else if needed <= KEPT[1] {
        take_of(&Scores::of(units, &mut [0.0; KEPT[1]]), picker, band, rng)
    } else {
        take_of(&Scores::read_again(units), picker, band, rng)
    }
}

fn take_of(scores: &Scores<'_>, picker: Picker, band: f64, rng: &mut Rng) -> Option<usize> {
    let units = scores.units;
    let best = || {
        scores
            .each()
            .map(|(_, score)| score)
            .fold(f64::NEG_INFINITY, f64::max)
    };
    match picker {
        Picker::Argmax => {
            let best = best();
            let near = scores.each().filter(|(_, score)| *score >= best - band);
            let near = near.map(|(unit, _)| unit);
            units.view.least(near, rng, |unit| units.queue(unit))
        }
        Picker::TopK(count) => {
            let mut top = Top::new(count);
            // From anywhere: of equals the first are kept.
            let from = rng.usize(..units.len().max(1));
            let all = scores.each().skip(from).chain(scores.each().take(from));
            all.for_each(|(unit, score)| top.offer(unit, score));
            units
                .view
                .least(top.positions(), rng, |unit| units.queue(unit))
        }
        Picker::Softmax(temperature) => {
            let best = best();
            draw(scores, rng, |score| ((score - best) / temperature).exp())
        }
        Picker::Weighted => draw(scores, rng, |score| score),
    }
}

/// One with the probability of its share of all that `weight` says.
fn draw(scores: &Scores<'_>, rng: &mut Rng, weight: impl Fn(f64) -> f64) -> Option<usize> {
    let sane =
        |score: f64| Some(weight(score)).filter(|weight| weight.is_finite() && *weight > 0.0);
    let all: f64 = scores.each().filter_map(|(_, score)| sane(score)).sum();
    if all <= 0.0 {
        let each = scores.each().map(|(unit, _)| unit);
        return scores.units.view.least(each, rng, |_| 0.0);
    }
    let (mut left, mut last) = (rng.f64() * all, None);
    for (unit, score) in scores.each() {
        if let Some(weight) = sane(score) {
            last = Some(unit);
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

/// Why none of them may be chosen.
pub(super) fn refusal(of: &Scored, view: &View<'_>) -> Refusal {
    let units = Units::new(of, view);
    let each = || (0..units.len()).map(|n| units.at(n));
    let is_anyone = of.filter.is_none() && view.asked.capability.is_none();
    if is_anyone || units.len() == 0 {
        return view.refusal();
    }
    if !each().any(|unit| units.does(unit)) {
        return Refusal::NoCapacity;
    }
    if !each().any(|unit| units.is_admitted(unit)) {
        return Refusal::NoMatch;
    }
    let members = |unit: usize| units.members(unit).unwrap_or_default();
    let matching: Vec<u32> = each()
        .filter(|unit| units.does(*unit) && units.matches(*unit))
        .flat_map(|unit| match members(unit) {
            [] => vec![u32::try_from(unit).unwrap_or(u32::MAX)],
            members => members.to_vec(),
        })
        .collect();
    if matching.is_empty() {
        return Refusal::NoMatchNow;
    }
    view.confined(&matching).refusal()
}

/// Places for each candidate.
fn width(goals: &[Goal]) -> usize {
    goals.len().clamp(1, MOST_GOALS)
}

/// Every candidate's score.
struct Scores<'a> {
    units: &'a Units<'a>,
    lines: [Line; MOST_GOALS],
    /// For each unit as many places as there are goals, of which the first has
    /// its score, or minus infinity where it is no candidate. `None`: too many.
    kept: Option<&'a [f64]>,
}

impl<'a> Scores<'a> {
    fn of(units: &'a Units<'a>, kept: &'a mut [f64]) -> Self {
        let goals = &units.of.goals;
        let width = width(goals);
        let mut ranges = Ranges::new(goals);
        let kept = &mut kept[..width * units.len()];
        for (n, values) in kept.chunks_exact_mut(width).enumerate() {
            let unit = units.at(n);
            if !units.is_candidate(unit) {
                values[0] = f64::NEG_INFINITY;
                continue;
            }
            let sole = units.sole(unit);
            for (goal, (slot, range)) in values.iter_mut().zip(&mut ranges.ranges).enumerate() {
                if goal < goals.len() {
                    let value = match sole {
                        Some((at, one)) => units.value_at(at, one, goal),
                        None => units.value(unit, goal),
                    };
                    range.widen(value);
                    *slot = value.unwrap_or(f64::NAN);
                }
            }
        }
        let lines = ranges.lines();
        for values in kept.chunks_exact_mut(width) {
            if values[0] != f64::NEG_INFINITY {
                values[0] = mean(&lines[..goals.len()], values.iter().copied());
            }
        }
        Self {
            kept: Some(kept),
            lines,
            units,
        }
    }

    fn read_again(units: &'a Units<'a>) -> Self {
        Self {
            lines: Ranges::of(units).lines(),
            kept: None,
            units,
        }
    }

    /// Numbers and scores of those that may be chosen.
    fn each(&self) -> impl Iterator<Item = (usize, f64)> {
        let units = self.units;
        let few = self.kept.into_iter().flat_map(move |kept| {
            let all = kept.chunks_exact(width(&units.of.goals)).enumerate();
            let open = all.filter(|(_, values)| values[0] != f64::NEG_INFINITY);
            open.map(|(n, values)| (units.at(n), values[0]))
        });
        let many = self.kept.is_none().then(|| {
            let all = (0..units.len()).map(|n| units.at(n));
            let open = all.filter(|unit| units.is_candidate(*unit));
            open.map(|unit| (unit, score(units, &self.lines, unit)))
        });
        few.chain(many.into_iter().flatten())
    }
}

/// A candidate's score.
fn score(units: &Units<'_>, lines: &[Line], unit: usize) -> f64 {
    let values = (0..units.of.goals.len()).map(|goal| units.value(unit, goal));
    mean(lines, values.map(|value| value.unwrap_or(f64::NAN)))
}

/// One unit as a selection sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Its number: that of its group, or its position.
    pub unit: usize,
    /// Why it cannot be chosen.
    pub excluded: Option<&'static str>,
    /// 0 to 1; 0 if it cannot be chosen.
    pub score: f64,
    /// What that is made of.
    pub goals: Vec<GoalVerdict>,
    /// Requests in flight for its weight, and one more: the fewest win of equals.
    pub queue: f64,
}

/// Every unit, those that may be chosen first, the best of them first of all.
pub(super) fn judged(units: &Units<'_>) -> Vec<Judged> {
    let ranges = Ranges::of(units);
    let lines = ranges.lines();
    let judge = |unit: usize| {
        let excluded = if !units.does(unit) {
            Some("does other work")
        } else if !units.is_admitted(unit) {
            Some("does not match")
        } else if !units.matches(unit) {
            Some("does not match now")
        } else if units.is_open(unit) {
            None
        } else {
            let first = units
                .members(unit)
                .map_or(unit, |members| members[0] as usize);
            units.view.closed(first).or(Some("closed"))
        };
        // Of those that cannot be chosen nothing is set between worst and best.
        let is_judged = excluded.is_none();
        Judged {
            unit,
            score: if is_judged {
                score(units, &lines, unit)
            } else {
                0.0
            },
            goals: if is_judged {
                ranges.verdicts(units, unit)
            } else {
                Vec::new()
            },
            queue: units.queue(unit),
            excluded,
        }
    };
    let mut judged: Vec<Judged> = (0..units.len()).map(|n| judge(units.at(n))).collect();
    judged.sort_by(|a, b| {
        let by_score = b
            .score
            .total_cmp(&a.score)
            .then(a.queue.total_cmp(&b.queue));
        (a.excluded.is_some().cmp(&b.excluded.is_some())).then(by_score)
    });
    judged
}

/// Engines ranked by the score of their unit, with every goal's own; those of one
/// unit by the policy that picks among them.
pub(super) fn judge(of: &Scored, view: &View<'_>) -> Vec<Verdict> {
    let units = Units::new(of, view);
    let mut verdicts = Vec::with_capacity(view.len());
    for judged in judged(&units) {
        let verdict = |at: usize, behind: f64| {
            let verdict = match view.closed(at).or(judged.excluded) {
                Some(why) => Verdict::new(f64::INFINITY).but(why),
                None => Verdict {
                    goals: judged.goals.clone(),
                    ..Verdict::new(-judged.score + behind).with("score", judged.score)
                },
            };
            Verdict { at, ..verdict }
        };
        match units.members(judged.unit) {
            None => verdicts.push(verdict(judged.unit, 0.0)),
            Some(members) => {
                let mut within = super::explain::judge(&of.instance, &view.confined(members));
                within.sort_by(|a, b| a.cost.total_cmp(&b.cost));
                // So little that blocks keep their order.
                let behind = (0..).map(|n| f64::from(n) * 1e-9);
                let within = within.iter().zip(behind);
                verdicts.extend(within.map(|(one, behind)| verdict(one.at, behind)));
            }
        }
    }
    verdicts
}
