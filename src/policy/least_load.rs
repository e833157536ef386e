//! The fewest tokens outstanding, of two engines drawn at random.
//!
//! What we sent is known to the token; what others sent is known from the
//! engine's own metrics, which are as old as the last reading, and count for
//! less the older they are: sidecars that all believed the same old page would
//! all run to the same engine.

use std::sync::atomic::Ordering::Relaxed;

use fastrand::Rng;

use super::explain::Verdict;
use super::view::View;
use crate::fleet::attributes::{Live, trust};
use crate::fleet::load::Expected;

/// A cache for keys and values that is fuller than this slows its engine down:
/// running requests are put off.
const KV_FULL: f64 = 0.9;
/// By so much, when it is wholly full.
const KV_PENALTY: f64 = 4.0;

/// The one of two with the lower [`cost`]; of equals the first drawn.
pub(super) fn pick(view: &View<'_>, rng: &mut Rng) -> Option<usize> {
    let new = coming(view);
    view.better_of_two(rng, |at| cost(view, at, new))
}

/// What the request that comes is thought to add.
pub(super) fn coming(view: &View<'_>) -> f64 {
    f64::from(Expected::prompt_of(view.asked.prompt_tokens)) + 1.0
}

/// Tokens outstanding, for its weight, with `new` ones.
pub(super) fn cost(view: &View<'_>, at: usize, new: f64) -> f64 {
    let parts = Parts::of(view, at);
    (parts.ours + parts.foreign + new) * parts.pressure / view.weight(at)
}

/// What the cost is made of.
struct Parts {
    /// Tokens of our own requests.
    ours: f64,
    /// Tokens of others', as far as is still known.
    foreign: f64,
    /// How much its full cache slows it.
    pressure: f64,
}

impl Parts {
    fn of(view: &View<'_>, at: usize) -> Self {
        let engine = view.engine(at);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 tokens")]
        let ours = engine.outstanding.load(Relaxed) as f64;
        // Fail open, step by step: what it told of late, discounted by its age; what
        // is thought of engines like it; what we sent ourselves.
        let others = match engine.foreign_requests(view.by) {
            Some((foreign, age)) => foreign * trust(age),
            None => engine.guessed_requests(),
        };
        let in_flight = f64::from(engine.in_flight.load(Relaxed));
        // A request of theirs is thought to be like one of ours.
        let each = if in_flight > 0.0 {
            ours / in_flight
        } else {
            coming(view) + 128.0
        };
        let usage = engine.attributes.fresh(Live::KvCacheUsage, view.by);
        let age = engine.attributes.age_of(Live::KvCacheUsage, view.by.now);
        let pressure = usage.zip(age).map_or(0.0, |(usage, age)| {
            ((usage - KV_FULL) / (1.0 - KV_FULL)).clamp(0.0, 1.0) * trust(age)
        });
        Self {
            ours,
            foreign: others * each,
            pressure: 1.0 + KV_PENALTY * pressure,
        }
    }
}

pub(super) fn judge(view: &View<'_>) -> Vec<Verdict> {
    let new = coming(view);
    super::explain::each(view, |at| {
        let parts = Parts::of(view, at);
        let cost = cost(view, at, new);
        Verdict::new(cost)
            .with("our_tokens", parts.ours)
            .with("others_tokens", parts.foreign)
            .with("kv_pressure", parts.pressure)
            .with("weight", view.share(at))
            .with("slow_start", view.ramp(at))
            .with("load", cost)
    })
}
