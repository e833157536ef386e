//! What was counted for each model and by each policy.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Kind, escaped, family, histogram, line, seconds, series, times};
use crate::metrics::{ITL_BOUNDS, ModelMetrics, ModelRegistry, TOKEN_BOUNDS, TokenBuckets};
use crate::policy::reason::{Asking, Reason};
use crate::policy::{Policies, Policy};

/// Appends every model's series; histograms as far as there is anything in them.
pub(in crate::api) fn models(out: &mut String, models: &[Arc<ModelMetrics>]) {
    let name = "pilotfish_requests_total";
    let help = "Requests answered, by model and status.";
    family(out, name, Kind::Counter, help);
    for model in models {
        let label = escaped(model.label());
        for (status, count) in model.answered() {
            line(
                out,
                format_args!("{name}{{model=\"{label}\",status=\"{status}\"}} {count}"),
            );
        }
    }
    counts(out, models);
    latencies(out, models);
    let name = "pilotfish_inter_token_latency_seconds";
    let help = "Between two pieces of a streamed answer.";
    family(out, name, Kind::Histogram, help);
    for model in models {
        let (counts, sum) = model.itl.read();
        if counts[ITL_BOUNDS.len()] > 0 {
            let labels = format!("model=\"{}\"", escaped(model.label()));
            histogram(out, name, &labels, (&ITL_BOUNDS, &counts), seconds(sum));
        }
    }
    tokens(out, models);
}

fn counts(out: &mut String, models: &[Arc<ModelMetrics>]) {
    type Of = fn(&ModelMetrics) -> u64;
    // The first is the reference router's name, by which autoscalers know it.
    let counters: [(&str, &str, Of); 3] = [
        (
            "vllm:num_incoming_requests_total",
            "Requests that asked for a model.",
            |model| model.incoming.get(),
        ),
        (
            "pilotfish_request_body_bytes_total",
            "Request body bytes, by model.",
            |model| model.request_bytes.get(),
        ),
        (
            "pilotfish_response_body_bytes_total",
            "Response body bytes, by model.",
            |model| model.response_bytes.get(),
        ),
    ];
    for (name, help, of) in counters {
        family(out, name, Kind::Counter, help);
        for model in models {
            series(out, name, ("model", &escaped(model.label())), of(model));
        }
    }
    let name = "pilotfish_requests_in_flight";
    family(out, name, Kind::Gauge, "Requests being served, by model.");
    for model in models {
        let label = escaped(model.label());
        series(out, name, ("model", &label), model.in_flight());
    }
}

/// As far as there is anything in them.
fn latencies(out: &mut String, models: &[Arc<ModelMetrics>]) {
    let ttft = "pilotfish_time_to_first_token_seconds";
    let help = "From the request's head to the first piece of a stream.";
    family(out, ttft, Kind::Histogram, help);
    for model in models.iter().filter(|model| model.ttft.count() > 0) {
        let labels = format!("model=\"{}\"", escaped(model.label()));
        times(out, ttft, &labels, &model.ttft);
    }
    let duration = "pilotfish_request_duration_seconds";
    let help = "From the request's head to the end of the answer, where an engine was asked.";
    family(out, duration, Kind::Histogram, help);
    for model in models.iter().filter(|model| model.duration.count() > 0) {
        let labels = format!("model=\"{}\"", escaped(model.label()));
        times(out, duration, &labels, &model.duration);
    }
}

fn tokens(out: &mut String, models: &[Arc<ModelMetrics>]) {
    type Of = fn(&ModelMetrics) -> &TokenBuckets;
    let families: [(&str, &str, Of); 2] = [
        (
            "pilotfish_request_input_tokens",
            "Prompt tokens of a request, where its engine told them.",
            |model| &model.input_tokens,
        ),
        (
            "pilotfish_request_output_tokens",
            "Generated tokens of a request, as its engine told, else events of its stream.",
            |model| &model.output_tokens,
        ),
    ];
    for (name, help, of) in families {
        family(out, name, Kind::Histogram, help);
        for model in models {
            let (counts, sum) = of(model).read();
            if counts[TOKEN_BOUNDS.len()] > 0 {
                let labels = format!("model=\"{}\"", escaped(model.label()));
                histogram(out, name, &labels, (&TOKEN_BOUNDS, &counts), sum);
            }
        }
    }
}

/// Appends how often each policy chose, and why, and what came of asking others.
/// Beyond so many policies as there may be models, they share the label `other`.
pub(in crate::api) fn policies(out: &mut String, policies: &Policies) {
    let name = "pilotfish_decisions_total";
    let help = "Engines chosen, by the policy that chose and its reason.";
    family(out, name, Kind::Counter, help);
    let labels = Reason::ALL.map(|(_, label)| label);
    by_policy(out, policies, (name, "reason", labels), |policy| {
        let account = &policy.decisions;
        Some((Arc::as_ptr(account).addr(), account.read()))
    });
    let name = "pilotfish_advice_total";
    let help = "Requests whose policy asked others whom to choose, by what came of it.";
    family(out, name, Kind::Counter, help);
    let labels = Asking::ALL.map(|(_, label)| label);
    by_policy(out, policies, (name, "outcome", labels), |policy| {
        let account = policy.askings.as_ref()?;
        Some((Arc::as_ptr(account).addr(), account.read()))
    });
}

/// One counter's series: of each policy that has such an account, all counts.
fn by_policy<const N: usize>(
    out: &mut String,
    policies: &Policies,
    (name, by, labels): (&str, &str, [&str; N]),
    account: impl Fn(&Policy) -> Option<(usize, [u64; N])>,
) {
    // Two may have one name, and one account or two: the default, and one that
    // requests name. By name, so that the same ones are always beyond the bound.
    let mut known = BTreeMap::new();
    for policy in policies.named.values().chain([&policies.default]) {
        if let Some((place, counts)) = account(policy) {
            known.insert((&*policy.spec.name, place), counts);
        }
    }
    let mut counts: BTreeMap<&str, [u64; N]> = BTreeMap::new();
    for ((mut label, _), account) in known {
        if counts.len() >= ModelRegistry::MOST && !counts.contains_key(label) {
            label = ModelRegistry::OTHER;
        }
        let sums = counts.entry(label).or_insert([0; N]);
        for (sum, count) in sums.iter_mut().zip(account) {
            *sum += count;
        }
    }
    for (policy, counts) in counts {
        let policy = escaped(policy);
        for (value, count) in labels.iter().zip(counts) {
            line(
                out,
                format_args!("{name}{{policy=\"{policy}\",{by}=\"{value}\"}} {count}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::config::policies::{Advised, Adviser, PolicyKind, PolicySpec, Scored};
    use crate::config::{EngineUrl, Routing, Timeouts};

    /// Series of that family.
    fn count(page: &str, name: &str) -> usize {
        page.lines().filter(|line| line.starts_with(name)).count()
    }

    #[test]
    fn policies_are_bounded_and_told_by_name() {
        let named = |count: usize| {
            let each = (0..count).map(|n| format!("p{n:04}"));
            each.map(|name| (name.clone(), PolicySpec::plain(&name, PolicyKind::Random)))
        };
        let routing = |count| Routing {
            named: named(count).collect(),
            ..Routing::default()
        };
        let few = Policies::new(&routing(2), None);
        few.named["p0001"].decisions.count(Reason::Memory);
        few.default.decisions.count(Reason::Primary);
        let mut page = String::new();
        policies(&mut page, &few);
        assert_eq!(
            count(&page, "pilotfish_decisions_total{"),
            3 * Reason::ALL.len()
        );
        for line in [
            r#"pilotfish_decisions_total{policy="p0001",reason="memory"} 1"#,
            r#"pilotfish_decisions_total{policy="roundrobin",reason="primary"} 1"#,
            r#"pilotfish_decisions_total{policy="p0000",reason="pinned"} 0"#,
        ] {
            assert!(page.contains(line), "{line} not in\n{page}");
        }
        // A change of settings keeps what was counted under a name.
        let many = Policies::new(&routing(ModelRegistry::MOST + 50), Some(&few));
        for policy in many.named.values() {
            policy.decisions.count(Reason::Retry);
        }
        page.clear();
        policies(&mut page, &many);
        let labels = ModelRegistry::MOST + 1;
        assert_eq!(
            count(&page, "pilotfish_decisions_total{"),
            labels * Reason::ALL.len()
        );
        assert!(page.contains(r#"{policy="other",reason="retry"} 5"#));
        let sum: u64 = (page
            .lines()
            .filter(|line| line.contains("reason=\"retry\"")))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
        assert_eq!(sum, ModelRegistry::MOST as u64 + 50, "none is lost");
        // The default's is the last name.
        assert!(page.contains(r#"{policy="p0001",reason="memory"} 1"#));
        assert!(page.contains(r#"{policy="other",reason="primary"} 1"#));
        assert!(!page.contains(r#"policy="p1000""#));
    }

    #[test]
    fn only_who_asks_for_advice_tells_what_came_of_it() {
        let asking = |name: &str| {
            let kind = PolicyKind::Advised(Box::new(Advised {
                adviser: Adviser::Remote {
                    url: EngineUrl::parse("http://a:1").unwrap(),
                },
                deadline: Duration::from_secs(1),
                ttl: Duration::from_secs(1),
                then: Scored::default(),
                parameters: Arc::from("{}"),
            }));
            (name.to_owned(), PolicySpec::plain(name, kind))
        };
        let plain = PolicySpec::plain("plain", PolicyKind::Random);
        let routing = Routing {
            named: [asking("p"), asking("q"), ("plain".to_owned(), plain)].into(),
            ..Routing::default()
        };
        let few = Policies::new(&routing, None);
        let count_late = |policies: &Policies| {
            let askings = policies.named["p"].askings.as_ref();
            askings.unwrap().count(Asking::Late);
        };
        count_late(&few);
        // A change of settings keeps what was counted under a name.
        let mut routing = routing;
        routing.named.get_mut("p").unwrap().timeouts = Some(Timeouts::default());
        let few = Policies::new(&routing, Some(&few));
        count_late(&few);
        let mut page = String::new();
        policies(&mut page, &few);
        let name = "pilotfish_advice_total{";
        assert_eq!(count(&page, name), 2 * Asking::ALL.len(), "{page}");
        for line in [
            r#"pilotfish_advice_total{policy="p",outcome="late"} 2"#,
            r#"pilotfish_advice_total{policy="q",outcome="advised"} 0"#,
        ] {
            assert!(page.contains(line), "{line} not in\n{page}");
        }
    }

    #[test]
    fn models_tell_what_there_is_in_them() {
        let mut registry = ModelRegistry::default();
        let model = registry.handles("m\"x");
        model.count(200);
        model.input_tokens.observe(100);
        let rendered = registry.rendered();
        let mut page = String::new();
        models(&mut page, &rendered.lock().unwrap());
        for line in [
            r#"pilotfish_requests_total{model="m\"x",status="200"} 1"#,
            r#"pilotfish_request_input_tokens_bucket{model="m\"x",le="64"} 0"#,
            r#"pilotfish_request_input_tokens_bucket{model="m\"x",le="128"} 1"#,
            r#"pilotfish_request_input_tokens_sum{model="m\"x"} 100"#,
        ] {
            assert!(page.contains(line), "{line} not in\n{page}");
        }
        assert_eq!(count(&page, "pilotfish_request_output_tokens_"), 0);
    }

    #[test]
    fn labels_of_models_are_bounded() {
        let mut registry = ModelRegistry::default();
        for n in 0..ModelRegistry::MOST + 50 {
            let model = registry.handles(&format!("m{n}"));
            model.count(200);
            model.output_tokens.observe(1);
        }
        let rendered = registry.rendered();
        let mut page = String::new();
        models(&mut page, &rendered.lock().unwrap());
        let labels = ModelRegistry::MOST + 1;
        assert_eq!(count(&page, "pilotfish_requests_total{"), labels);
        assert_eq!(
            count(&page, "pilotfish_request_output_tokens_count{"),
            labels
        );
        assert!(page.contains(r#"pilotfish_requests_total{model="other",status="200"} 50"#));
    }
}
