//! Why: every candidate as the policy sees it, all of them ranked.
//!
//! This is never in a request's way: it judges a frozen set, with the same
//! functions that the choice is made by.

use serde::Serialize;

use super::view::{Noted, View};
use super::{
    Question, advised, affinity, federation, least, least_load, prefix, round_robin, scored,
    weighted,
};
use crate::config::policies::PolicyKind;

/// One candidate as the policy sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Its position in the set.
    pub at: usize,
    /// Why it cannot be chosen.
    pub excluded: Option<&'static str>,
    /// What it is ranked by: less comes first.
    pub cost: f64,
    /// What that is made of.
    pub parts: Vec<(&'static str, f64)>,
    /// Every goal's part in it.
    pub goals: Vec<GoalVerdict>,
}

/// One goal of one candidate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GoalVerdict {
    /// The named goal that it is part of, if it is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<String>,
    /// What is wanted.
    pub attribute: String,
    /// Its value; `None`: not known, or too old.
    pub raw: Option<f64>,
    /// Between the worst candidate's, 0, and the best's, 1.
    pub normalised: f64,
    /// Its share in the score.
    pub weight: f64,
    /// How old the value is, when the engine told it.
    pub age_seconds: Option<f64>,
}

impl Verdict {
    pub(super) fn new(cost: f64) -> Self {
        Self {
            at: 0,
            excluded: None,
            cost,
            parts: Vec::new(),
            goals: Vec::new(),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: f64) -> Self {
        self.parts.push((name, value));
        self
    }

    pub(super) fn but(mut self, excluded: &'static str) -> Self {
        self.excluded = Some(excluded);
        self
    }
}

/// A verdict for each candidate; those that are not open are excluded.
pub(super) fn each(view: &View<'_>, judge: impl Fn(usize) -> Verdict) -> Vec<Verdict> {
    all(view, |at| match view.closed(at) {
        Some(why) => Verdict::new(f64::INFINITY).but(why),
        None => judge(at),
    })
}

/// A verdict for each candidate.
pub(super) fn all(view: &View<'_>, judge: impl Fn(usize) -> Verdict) -> Vec<Verdict> {
    let positions = (0..view.len()).map(|n| view.at(n));
    positions.map(|at| Verdict { at, ..judge(at) }).collect()
}

/// By position, which place each has in an order in which some come more than
/// once; those that do not come are last.
pub(super) fn places(view: &View<'_>, order: impl Iterator<Item = usize>) -> Vec<f64> {
    let count = view.set.list().len();
    let mut places = vec![f64::NAN; count];
    let mut next = 0.0;
    for at in order {
        if places[at].is_nan() {
            places[at] = next;
            next += 1.0;
        }
    }
    for place in &mut places {
        if place.is_nan() {
            *place = next;
        }
    }
    places
}

/// Every candidate's verdict, the first choice first, the excluded last.
#[must_use]
pub fn explain(kind: &PolicyKind, question: &Question<'_>) -> Vec<Verdict> {
    let noted = Noted::default();
    let view = View::new(question, &noted);
    let mut verdicts = judge(kind, &view);
    if verdicts.iter().all(|verdict| verdict.excluded.is_some())
        && question.set.tier.is_none()
        && !matches!(kind, PolicyKind::Federation(_))
    {
        verdicts = judge(kind, &view.lenient());
    }
    let is_out = |verdict: &Verdict| verdict.excluded.is_some();
    verdicts.sort_by(|a, b| {
        let by_cost = a.cost.total_cmp(&b.cost);
        is_out(a).cmp(&is_out(b)).then(by_cost)
    });
    verdicts
}

/// The positions that a decision draws at random, from where the generator
/// stood.
#[must_use]
pub fn drawn(kind: &PolicyKind, question: &Question<'_>, seed: u64) -> Vec<usize> {
    let noted = Noted::default();
    let mut rng = fastrand::Rng::with_seed(seed);
    if super::decide_noting(kind, question, &mut rng, &noted).is_err() {
        return Vec::new();
    }
    noted.drawn()
}

pub(super) fn judge(kind: &PolicyKind, view: &View<'_>) -> Vec<Verdict> {
    match kind {
        PolicyKind::RoundRobin => round_robin::judge(view),
        PolicyKind::Random => each(view, |_| Verdict::new(0.0)),
        PolicyKind::Weighted => weighted::judge(view),
        PolicyKind::LeastConnections => least::judge_connections(view),
        PolicyKind::LeastLatency => least::judge_latency(view),
        PolicyKind::LeastLoad => least_load::judge(view),
        PolicyKind::Session(of) | PolicyKind::ConsistentHash(of) => affinity::judge(of, view),
        PolicyKind::PrefixAware(of) => prefix::judge(*of, view),
        PolicyKind::Scored(of) => scored::judge(of, view),
        PolicyKind::Advised(of) => advised::judge(of, view),
        PolicyKind::Federation(of) => federation::judge(of, view),
        PolicyKind::Sequential(then) => judge(then, view),
        PolicyKind::Smart(of) => judge(&of.strategy, view),
    }
}
