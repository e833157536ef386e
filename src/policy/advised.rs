//! Whoever is advised, of those that match; without advice, the best by goals.

use fastrand::Rng;

use super::Advice;
use super::explain::Verdict;
use super::reason::Reason;
use super::scored;
use super::units::Units;
use super::view::View;
use crate::config::policies::Advised;

/// The first of those advised that may be chosen.
pub(super) fn pick(of: &Advised, view: &View<'_>, rng: &mut Rng) -> Option<usize> {
    if let Some(unit) = first(of, view)
        && let Some(at) = scored::of_unit(&Units::new(&of.then, view), unit, rng)
    {
        view.takes(Reason::Advised);
        return Some(at);
    }
    scored::pick(&of.then, view, rng)
}

/// The unit that is advised, of those that may be chosen.
pub(super) fn first(of: &Advised, view: &View<'_>) -> Option<usize> {
    let Advice::Ranked(ids) = &view.asked.advice else {
        return None;
    };
    let units = Units::new(&of.then, view);
    let find = |id: &String| {
        let mut all = (0..units.len()).map(|n| units.at(n));
        all.find(|unit| units.id(*unit) == id && units.is_candidate(*unit))
    };
    ids.iter().find_map(find)
}

/// Ranked by score, but who was advised comes first.
pub(super) fn judge(of: &Advised, view: &View<'_>) -> Vec<Verdict> {
    let advised = first(of, view);
    let units = Units::new(&of.then, view);
    let is_advised = |at: usize| match (advised, advised.and_then(|unit| units.members(unit))) {
        (Some(_), Some(members)) => members.iter().any(|one| *one as usize == at),
        (Some(unit), None) => unit == at,
        (None, _) => false,
    };
    let mut verdicts = scored::judge(&of.then, view);
    for verdict in &mut verdicts {
        if is_advised(verdict.at) {
            verdict.cost -= 2.0;
            verdict.parts.insert(0, ("advised", 1.0));
        }
    }
    verdicts
}
