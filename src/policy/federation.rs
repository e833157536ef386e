//! The composite: engines are filtered by what the request needs, scored by
//! health, latency, privacy, locality and cost, and the best few are given to
//! another policy.
//!
//! The scores are those of the reference document, with what it leaves as
//! constants filled in: locality from regions, cost from prices; its QoS limits
//! are limits here.

use fastrand::Rng;

use super::explain::{self, Verdict};
use super::reason::Reason;
use super::top::Top;
use super::view::{FULL, View};
use super::{Refusal, pick as strategy};
use crate::config::dynamic::Privacy;
use crate::config::policies::{Federation, MOST_KEPT};
use crate::fleet::attributes::Live;
use crate::fleet::health::State;

/// What an engine is thought to take to its first token, in seconds, before we
/// know.
const UNKNOWN: f64 = 1.0;
/// Seconds to the first token with which an engine scores nothing.
const SLOWEST: f64 = 5.0;
/// Seconds to the first token from which an engine is called degraded.
const DEGRADED: f64 = 1.0;
/// What an engine without a GPU keeps of its score, where one is preferred.
const WITHOUT_GPU: f64 = 0.5;
/// What an unknown price or speed scores: never free, never fast.
const NEUTRAL: f64 = 0.5;

/// Chooses among the best.
pub(super) fn pick(of: &Federation, view: &View<'_>, rng: &mut Rng) -> Result<usize, Refusal> {
    let prices = Prices::of(view);
    let mut top = Top::new(of.max_candidates);
    let mut furthest = Refusal::Nobody;
    for n in 0..view.len() {
        let at = view.at(n);
        match judged(of, view, &prices, at) {
            Ok(scores) => top.offer(at, scores.total),
            Err(stage) if depth(stage) > depth(furthest) => furthest = stage,
            Err(_) => {}
        }
    }
    let mut best = [0; MOST_KEPT];
    let count = top.write(&mut best);
    if count == 0 {
        return Err(furthest);
    }
    // By position: turns are taken in an order that stays.
    best[..count].sort_unstable();
    let best = view.confined(&best[..count]);
    if let Some(chosen) = strategy(&of.strategy, &best, rng) {
        if view.is_panicking() {
            view.takes(Reason::Panic);
        }
        return Ok(chosen);
    }
    let chosen = strategy(&of.strategy, &best.lenient(), rng);
    view.takes(Reason::LastResort);
    chosen.ok_or_else(|| view.refusal())
}

/// How far a candidate came before it was refused: what is told is what was
/// wrong with the one that came furthest.
fn depth(refusal: Refusal) -> u8 {
    match refusal {
        Refusal::Nobody => 0,
        Refusal::NoCapacity => 1,
        Refusal::AllUnhealthy => 2,
        Refusal::Full => 3,
        Refusal::PrivacyViolation => 4,
        Refusal::QosViolation => 5,
        Refusal::LowScore | Refusal::NoMatch | Refusal::NoMatchNow => 6,
    }
}

/// A candidate's scores, each from 0 to 1, and their weighted sum.
#[derive(Debug, Clone, Copy)]
struct Scores {
    health: f64,
    latency: f64,
    privacy: f64,
    locality: f64,
    cost: f64,
    total: f64,
}

fn judged(of: &Federation, view: &View<'_>, prices: &Prices, at: usize) -> Result<Scores, Refusal> {
    let (one, qos) = (view.one(at), &view.asked.qos);
    let (engine, traits) = (&one.engine, &one.spec.traits);
    let layout = &view.set.layout;
    if let (Some(asked), Some(does)) = (view.asked.capability, layout.capabilities[at])
        && asked != does
    {
        return Err(Refusal::NoCapacity);
    }
    let by = view.by;
    let known = engine.latency.get(view.moment.now);
    let health = match engine.health.state(view.moment.now) {
        _ if view.closed(at) == Some("tried") => return Err(Refusal::Nobody),
        _ if view.closed(at) == Some(FULL) => return Err(Refusal::Full),
        _ if !view.is_open(at) => return Err(Refusal::AllUnhealthy),
        // All are asked, as too many are ejected.
        State::Unhealthy => 0.3,
        State::Degraded => 0.5,
        State::Healthy if known.is_some_and(|seconds| seconds > DEGRADED) => 0.5,
        State::Healthy if known.is_none() => 0.3,
        State::Healthy => 1.0,
    };
    let trusted = traits.privacy.unwrap_or(Privacy::Internal);
    if trusted < qos.privacy.unwrap_or(of.privacy) {
        return Err(Refusal::PrivacyViolation);
    }
    let seconds = known.unwrap_or(UNKNOWN);
    let speed = engine.attributes.fresh(Live::ItlMs, by).map(|ms| 1e3 / ms);
    let is_late = qos.max_latency_ms.is_some_and(|most| seconds * 1e3 > most);
    let is_slow =
        (qos.min_tokens_per_second).is_some_and(|least| speed.is_none_or(|speed| speed < least));
    if is_late || is_slow {
        return Err(Refusal::QosViolation);
    }
    let near = match (&of.region, &traits.region) {
        (Some(ours), Some(its)) if ours == its => 1.0,
        (Some(_), Some(_)) => 0.0,
        _ => NEUTRAL,
    };
    let throughput = engine.attributes.fresh(Live::BusyTokensPerSecond, by);
    let mut scores = Scores {
        health,
        latency: 1.0 - (seconds / SLOWEST).min(1.0),
        privacy: 1.0,
        locality: 0.5 + 0.3 * near,
        cost: if qos.cost_tolerance > 50 {
            throughput.map_or(0.0, |speed| (speed / 1000.0).min(1.0))
        } else {
            1.0 - prices.share(view, at)
        },
        total: 0.0,
    };
    let parts = [
        scores.health,
        scores.latency,
        scores.privacy,
        scores.locality,
        scores.cost,
    ];
    let sum: f64 = parts
        .iter()
        .zip(&of.weights)
        .map(|(part, weight)| part * weight)
        .sum();
    scores.total = sum / 5.0;
    if qos.prefer_gpu && layout.lacks_gpu[at] {
        scores.total *= WITHOUT_GPU;
    }
    if scores.total < of.min_score {
        return Err(Refusal::LowScore);
    }
    Ok(scores)
}

/// The highest price of all candidates.
struct Prices {
    most: f64,
}

impl Prices {
    fn of(view: &View<'_>) -> Self {
        let prices = (0..view.len()).filter_map(|n| price(view, view.at(n)));
        Self {
            most: prices.fold(0.0, f64::max),
        }
    }

    /// Of the highest price, from 0 to 1; unknown prices are in the middle, as
    /// in the reference, unless others are known: then they are the highest.
    fn share(&self, view: &View<'_>, at: usize) -> f64 {
        match price(view, at) {
            Some(price) if self.most > 0.0 => price / self.most,
            Some(_) => 0.0,
            None if self.most > 0.0 => 1.0,
            None => NEUTRAL,
        }
    }
}

/// Of a million tokens, prompt and answer alike.
fn price(view: &View<'_>, at: usize) -> Option<f64> {
    let cost = view.one(at).spec.traits.cost?;
    Some(f64::midpoint(cost.input_per_mtok, cost.output_per_mtok))
}

/// Ranked by score; those that are given to the strategy, as that ranks them.
pub(super) fn judge(of: &Federation, view: &View<'_>) -> Vec<Verdict> {
    let prices = Prices::of(view);
    let mut verdicts = explain::all(view, |at| match judged(of, view, &prices, at) {
        Ok(scores) => Verdict::new(-scores.total)
            .with("health", scores.health)
            .with("latency", scores.latency)
            .with("privacy", scores.privacy)
            .with("locality", scores.locality)
            .with("cost", scores.cost)
            .with("score", scores.total),
        Err(refusal) => Verdict::new(f64::INFINITY).but(match refusal {
            Refusal::Nobody => "tried",
            Refusal::NoCapacity => "does other work",
            Refusal::AllUnhealthy => "set aside after failures, or weight 0",
            Refusal::Full => FULL,
            Refusal::PrivacyViolation => "not trusted enough",
            Refusal::QosViolation => "not quick enough",
            Refusal::LowScore => "score too low",
            Refusal::NoMatch | Refusal::NoMatchNow => "does not match",
        }),
    });
    let mut top = Top::new(of.max_candidates);
    for verdict in verdicts.iter().filter(|one| one.excluded.is_none()) {
        top.offer(verdict.at, -verdict.cost);
    }
    let mut best = [0; MOST_KEPT];
    let count = top.write(&mut best);
    best[..count].sort_unstable();
    let ranked = explain::judge(&of.strategy, &view.confined(&best[..count]));
    for verdict in verdicts.iter_mut().filter(|one| one.excluded.is_none()) {
        match ranked.iter().find(|one| one.at == verdict.at) {
            Some(by) => {
                verdict.cost = by.cost;
                verdict.excluded = by.excluded;
                verdict.parts.extend(by.parts.iter().copied());
                verdict.goals.clone_from(&by.goals);
            }
            None => verdict.excluded = Some("not among the max_candidates best"),
        }
    }
    verdicts
}
