//! The shadow: a policy that decides beside the one in force, about requests that
//! have ended, and is only counted.

use std::sync::Arc;

use super::learner::{self, Lengths};
use super::weigh::{self, Length, ModelChoice, Open, Predicted};
use super::worker::Chosen;
use crate::config::policies::{PolicyKind, Smart};
use crate::fleet::Snapshot;
use crate::policy::Policy;

fn smart(policy: &Policy) -> Option<&Smart> {
    match &policy.spec.kind {
        PolicyKind::Smart(of) => Some(of),
        _ => None,
    }
}

/// Whether the shadow might have chosen another model: this one is among those
/// that it chooses from.
pub(super) fn concerns(policy: &Policy, snapshot: &Snapshot, model: &str) -> bool {
    smart(policy).is_some_and(|of| {
        let mut names = of.models.iter().filter_map(|one| snapshot.model(&one.name));
        of.models.is_empty() || names.any(|one| *one.name == *model)
    })
}

/// What the shadow would have chosen, which it counts.
pub(super) fn decide(
    (policy, snapshot): (&Policy, &Snapshot),
    (ended, most): (&learner::Ended, Option<u64>),
    (predicted, lengths): (&Predicted, &Lengths),
) -> Option<Chosen> {
    let (of, in_force) = (smart(policy)?, policy.smart.as_ref()?);
    let all = snapshot.models();
    let open = |asked, model| Open {
        asked,
        model,
        is_open: true,
    };
    let models: Vec<Open<'_>> = match of.models.as_slice() {
        [] => all.iter().map(|model| open(&*model.name, *model)).collect(),
        listed => (listed.iter())
            .filter_map(|one| Some(open(&*one.name, snapshot.model(&one.name)?)))
            .collect(),
    };
    let served = models.into_iter().filter(|open| open.model.is_served());
    let length = Length {
        input: u64::from(ended.input_tokens),
        most,
    };
    let by = (of, &in_force.running);
    let weighed = weigh::weigh(served, length, predicted, lengths, by);
    let chosen = weigh::decide(&weighed, of, &in_force.running)?;
    let would = weighed.get(chosen.at)?;
    let live = weighed.iter().find(|one| *one.model == *ended.model)?;
    // What is known of the answer that was given is better than what was predicted.
    let real = ended.output_tokens.map(f64::from);
    let cost =
        |one: &weigh::Weighed, output: f64| Some(weigh::cost(one.price?, length.input, output));
    let live_cost = cost(live, real.unwrap_or(live.tokens));
    let is_same = would.model == live.model;
    let would_cost = if is_same {
        live_cost
    } else {
        cost(would, would.tokens)
    };
    in_force.shadowed(|tally| {
        tally.requests += 1;
        tally.agreed += u64::from(is_same);
        if let (Some(live), Some(would)) = (live_cost, would_cost) {
            tally.priced += 1;
            tally.live_cost += live;
            tally.cost += would;
        }
        tally.live_quality += live.candidate.quality;
        tally.quality += would.candidate.quality;
    });
    Some(Chosen {
        policy: Arc::clone(in_force),
        choice: Arc::new(ModelChoice {
            chosen,
            requirement: of.requirement,
            lambda: Some(in_force.running.lambda()),
            weighed,
        }),
    })
}
