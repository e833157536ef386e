//! At random, by weight.

use fastrand::Rng;

use super::explain::Verdict;
use super::view::View;

/// Draws from the sums made beforehand, before those that are open are summed.
const DRAWS: usize = 8;

/// An engine with the probability of its share among those that are open.
pub(super) fn pick(view: &View<'_>, rng: &mut Rng) -> Option<usize> {
    let sums = &view.set.layout.cumulative;
    if let (true, Some(all)) = (view.is_whole(), sums.last()) {
        for _ in 0..DRAWS {
            let drawn = rng.f64() * all;
            let at = sums.partition_point(|sum| *sum <= drawn);
            // One that is not open is as if it had not been drawn; one that has
            // just come counts for a part of itself.
            if at < sums.len() && view.is_open(at) && rng.f64() < view.ramp(at) {
                return Some(at);
            }
        }
    }
    draw(view, rng, |at| view.weight(at))
}

/// One with the probability of its share of all that `weight` says.
pub(super) fn draw(view: &View<'_>, rng: &mut Rng, weight: impl Fn(usize) -> f64) -> Option<usize> {
    let sane = |at: usize| {
        let weight = weight(at);
        if weight.is_finite() && weight > 0.0 {
            weight
        } else {
            0.0
        }
    };
    let all: f64 = view.open().map(sane).sum();
    if all <= 0.0 {
        return view.draw(rng);
    }
    let mut left = rng.f64() * all;
    let mut last = None;
    for at in view.open() {
        let weight = sane(at);
        if weight > 0.0 {
            last = Some(at);
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

/// Ranked by share.
pub(super) fn judge(view: &View<'_>) -> Vec<Verdict> {
    let all: f64 = view.open().map(|at| view.weight(at)).sum();
    super::explain::each(view, |at| {
        let share = view.weight(at) / all;
        Verdict::new(-share)
            .with("weight", view.share(at))
            .with("slow_start", view.ramp(at))
            .with("share", share)
    })
}
