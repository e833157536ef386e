//! The fewest connections, and the quickest first token.

use fastrand::Rng;

use super::explain::Verdict;
use super::view::View;
use crate::fleet::attributes::{Live, trust};

/// Up to so many engines all are compared, beyond it [`DRAWN`].
const ALL: usize = 32;
/// Engines that are drawn of many: among a thousand the least of six is as
/// good as the least, and costs as much as among ten.
const DRAWN: usize = 6;

/// The fewest requests, ours and those that wait in the engine, for its weight;
/// of equals any.
pub(super) fn connections(view: &View<'_>, rng: &mut Rng) -> Option<usize> {
    let cost = |at| requests(view, at);
    if view.len() <= ALL {
        return view.least(view.open(), rng, cost);
    }
    let mut drawn = [0; DRAWN];
    for slot in &mut drawn {
        *slot = view.draw(rng)?;
    }
    view.least(drawn.into_iter(), rng, cost)
}

/// With the one that comes.
fn requests(view: &View<'_>, at: usize) -> f64 {
    let engine = view.engine(at);
    let ours = engine.in_flight.load(std::sync::atomic::Ordering::Relaxed);
    (f64::from(ours) + waiting(view, at) + 1.0) / view.weight(at)
}

/// Requests that wait in the engine, as far as is still known.
fn waiting(view: &View<'_>, at: usize) -> f64 {
    let attributes = &view.engine(at).attributes;
    let waiting = attributes.fresh(Live::RequestsWaiting, view.by);
    match (
        waiting,
        attributes.age_of(Live::RequestsWaiting, view.by.now),
    ) {
        (Some(waiting), Some(age)) if waiting > 0.0 => waiting * trust(age),
        _ => 0.0,
    }
}

/// The quicker of two, by the time to the first token and the requests that
/// are there already.
pub(super) fn latency(view: &View<'_>, rng: &mut Rng) -> Option<usize> {
    let (first, second) = view.draw_two(rng)?;
    let of = |at: usize| view.engine(at).latency.get(view.moment.now);
    let (a, b) = match (of(first), of(second)) {
        (Some(a), Some(b)) => (a, b),
        // What is not known of both is compared of none, or a new engine would
        // get everything, or nothing for ever.
        _ => (1.0, 1.0),
    };
    let cost = |at, seconds: f64| seconds * queue(view, at);
    Some(if cost(first, a) <= cost(second, b) {
        first
    } else {
        second
    })
}

/// Requests of ours with the one that comes, for its weight.
fn queue(view: &View<'_>, at: usize) -> f64 {
    let engine = view.engine(at);
    let ours = engine.in_flight.load(std::sync::atomic::Ordering::Relaxed);
    (f64::from(ours) + 1.0) / view.weight(at)
}

pub(super) fn judge_connections(view: &View<'_>) -> Vec<Verdict> {
    super::explain::each(view, |at| {
        Verdict::new(requests(view, at))
            .with("waiting", waiting(view, at))
            .with("weight", view.share(at))
            .with("slow_start", view.ramp(at))
            .with("requests_for_weight", requests(view, at))
    })
}

pub(super) fn judge_latency(view: &View<'_>) -> Vec<Verdict> {
    super::explain::each(view, |at| {
        let seconds = view.engine(at).latency.get(view.moment.now);
        // As if it were the quickest of all, where nothing is known.
        let cost = seconds.unwrap_or(0.0) * queue(view, at);
        Verdict::new(cost)
            .with(
                "latency_ms",
                seconds.map_or(f64::NAN, |seconds| seconds * 1e3),
            )
            .with("slow_start", view.ramp(at))
            .with("load", cost)
    })
}
