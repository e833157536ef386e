//! Smart routing: what was chosen and why, what it cost, what the shadow would have
//! done, and how well predictions hold.

use std::fmt::Display;

use super::{Kind, escaped, family, line, single};
use crate::policy::{Policies, Policy};
use crate::smart::in_force::{ShadowTally, Tally};
use crate::smart::service::Started;

/// Appends what is known of the policies that choose models by cost and quality.
pub(in crate::api) fn smart_policies(out: &mut String, policies: &Policies) {
    let all = std::iter::once(&policies.default).chain(policies.named.values());
    let mut smart: Vec<(&Policy, Tally)> = Vec::new();
    for policy in all.chain(&policies.shadow) {
        let is_new = smart
            .iter()
            .all(|(known, _)| known.spec.name != policy.spec.name);
        if let (Some(of), true) = (&policy.smart, is_new) {
            smart.push((policy, of.tally()));
        }
    }
    if smart.is_empty() {
        return;
    }
    choices(out, &smart);
    each(
        out,
        &smart,
        (
            "pilotfish_smart_predicted_quality_total",
            "Sum of the predicted chances that the chosen models' answers are right.",
        ),
        |tally| tally.quality,
    );
    each(
        out,
        &smart,
        (
            "pilotfish_smart_priced_requests_total",
            "Requests that have ended, of a model whose price is known.",
        ),
        |tally| tally.priced,
    );
    each(
        out,
        &smart,
        (
            "pilotfish_smart_cost_total",
            "What they cost, in the currency of the configured prices.",
        ),
        |tally| tally.cost,
    );
    let (name, help) = (
        "pilotfish_smart_lambda",
        "What quality is worth, in the same currency.",
    );
    family(out, name, Kind::Gauge, help);
    for (policy, _) in &smart {
        let lambda = policy.smart.as_ref().map(|of| of.running.lambda());
        if let Some(lambda) = lambda.filter(|lambda| lambda.is_finite()) {
            let policy = escaped(&policy.spec.name);
            line(out, format_args!("{name}{{policy=\"{policy}\"}} {lambda}"));
        }
    }
    if let Some(shadow) = &policies.shadow {
        smart.retain(|(policy, _)| policy.spec.name == shadow.spec.name);
        shadow_series(out, &smart);
    }
}

fn choices(out: &mut String, smart: &[(&Policy, Tally)]) {
    let name = "pilotfish_smart_choices_total";
    let help = "Models that were chosen by cost and quality (by the shadow: would have been).";
    family(out, name, Kind::Counter, help);
    for (policy, tally) in smart {
        let policy = escaped(&policy.spec.name);
        for ((model, why), count) in &tally.choices {
            let model = escaped(model);
            line(
                out,
                format_args!(
                    "{name}{{policy=\"{policy}\",model=\"{model}\",reason=\"{why}\"}} {count}"
                ),
            );
        }
    }
}

fn shadow_series(out: &mut String, smart: &[(&Policy, Tally)]) {
    type Of = fn(&ShadowTally) -> f64;
    #[expect(clippy::cast_precision_loss, reason = "requests")]
    let series: [(&str, &str, Of); 7] = [
        ("requests", "Requests that the shadow looked at.", |of| {
            of.requests as f64
        }),
        (
            "agreed",
            "Those for which it would have chosen the same model.",
            |of| of.agreed as f64,
        ),
        (
            "priced_requests",
            "Those of which both prices are known.",
            |of| of.priced as f64,
        ),
        ("live_cost", "What these cost as they were served.", |of| {
            of.live_cost
        }),
        (
            "cost",
            "What they would have cost with the shadow's models.",
            |of| of.cost,
        ),
        (
            "live_quality",
            "Sum of the predicted chances to be right, as served.",
            |of| of.live_quality,
        ),
        ("quality", "The same with the shadow's models.", |of| {
            of.quality
        }),
    ];
    for (what, help, of) in series {
        let name = format!("pilotfish_shadow_{what}_total");
        each(out, smart, (&name, help), |tally| of(&tally.shadow));
    }
}

/// Appends a family that has a series for each policy.
fn each<T: Display>(
    out: &mut String,
    smart: &[(&Policy, Tally)],
    (name, help): (&str, &str),
    of: impl Fn(&Tally) -> T,
) {
    family(out, name, Kind::Counter, help);
    for (policy, tally) in smart {
        let policy = escaped(&policy.spec.name);
        line(
            out,
            format_args!("{name}{{policy=\"{policy}\"}} {}", of(tally)),
        );
    }
}

/// Appends what is known of the history that all of them share.
pub fn smart(out: &mut String, started: &Started) {
    let predictor = started.teaching.predictor();
    let rows = predictor.rows().to_string();
    let (name, help) = (
        "pilotfish_smart_history_queries",
        "Past queries that predictions are made from.",
    );
    single(out, name, Kind::Gauge, help, &rows);
    let counted = started.teaching.counted();
    for (name, help, count) in [
        (
            "pilotfish_smart_feedback_total",
            "Scores of answers that were taken.",
            counted.feedback(),
        ),
        (
            "pilotfish_smart_refits_total",
            "How often what is learned was fitted anew.",
            counted.refits(),
        ),
        (
            "pilotfish_smart_dropped_total",
            "Ended requests and choices that were not looked at: there was no room.",
            started.dropped.get() + counted.dropped(),
        ),
        (
            "pilotfish_smart_late_total",
            "Predictions that were not waited for; the models' means decided.",
            started.late.get(),
        ),
    ] {
        single(out, name, Kind::Counter, help, &count.to_string());
    }
}
