//! The reference router's series, under its names: dashboards and autoscalers
//! know it by them. Label `server` is the engine's URL.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::exposition::{Kind, Shown, escaped, family, histogram, line, series, single};
use super::host::Usage;
use crate::fleet::Engine;
use crate::fleet::engine::Outcome;
use crate::fleet::stats::{LATENCY_BOUNDS, Rates, Served};

/// What the reference shows where it knows nothing.
const UNKNOWN: f64 = -1.0;

/// A gauge of one value for each engine.
type Family = (&'static str, &'static str, fn(&Engine, &Rates) -> f64);

const FAMILIES: [Family; 9] = [
    (
        "vllm:current_qps",
        "Requests a second given to an engine, over the window.",
        |_, rates| rates.qps,
    ),
    (
        "vllm:avg_decoding_length",
        "Generated tokens for each finished request, the mean over the window; -1: none.",
        |_, rates| rates.tokens_per_request.unwrap_or(UNKNOWN),
    ),
    (
        "vllm:num_prefill_requests",
        "Requests whose answer has not begun to come.",
        |engine, _| f64::from(prefilling(engine)),
    ),
    (
        "vllm:num_decoding_requests",
        "Requests whose answer is coming.",
        |engine, _| f64::from(engine.answering.load(Relaxed)),
    ),
    (
        "vllm:num_requests_running",
        "Requests given to an engine and not ended.",
        |engine, _| f64::from(engine.in_flight.load(Relaxed)),
    ),
    (
        "vllm:avg_latency",
        "Seconds that answered requests took, the mean over the window; -1: none.",
        |_, rates| rates.latency.unwrap_or(UNKNOWN),
    ),
    (
        "vllm:avg_itl",
        "Seconds between two pieces of a stream, the mean over the window; -1: none.",
        |_, rates| rates.itl.unwrap_or(UNKNOWN),
    ),
    (
        "vllm:num_requests_swapped",
        "Requests that were moved between engines; none ever is.",
        |_, _| 0.0,
    ),
    (
        "vllm:healthy_pods_total",
        "1 for each engine of the fleet.",
        |_, _| 1.0,
    ),
];

/// Requests of an engine whose answer has not begun to come.
pub(super) fn prefilling(engine: &Engine) -> u32 {
    let answering = engine.answering.load(Relaxed);
    engine.in_flight.load(Relaxed).saturating_sub(answering)
}

/// Appends every engine's series.
pub(super) fn engines(out: &mut String, engines: &[Shown<'_>], rates: &HashMap<u64, Rates>) {
    let rates: Vec<Rates> = (engines.iter())
        .map(|shown| rates.get(&shown.one.engine.key).copied())
        .map(Option::unwrap_or_default)
        .collect();
    for (name, help, value) in FAMILIES {
        family(out, name, Kind::Gauge, help);
        for (Shown { one, url }, rates) in engines.iter().zip(&rates) {
            series(out, name, ("server", url), value(&one.engine, rates));
        }
    }
}

/// An engine's URL, a model's label, and the work that it did for it.
type Work<'a> = (&'a str, Arc<str>, Arc<Served>);

/// Appends what engines did for models: every pair of them that had to do with
/// each other.
pub(super) fn work(out: &mut String, engines: &[Shown<'_>]) {
    let mut all: Vec<Work<'_>> = Vec::new();
    for Shown { one, url } in engines {
        one.engine.each_served(|label, served| {
            // A pair that never worked has no series.
            if served.has_ended() {
                all.push((url, Arc::clone(label), Arc::clone(served)));
            }
        });
    }
    tokens(out, &all);
    errors(out, &all);
    latencies(out, &all);
}

fn tokens(out: &mut String, all: &[Work<'_>]) {
    type Count = fn(&Served) -> u64;
    let families: [(&str, &str, Count); 2] = [
        (
            "vllm:input_tokens_total",
            "Prompt tokens, as engines tell them.",
            |served| served.input_tokens.load(Relaxed),
        ),
        (
            "vllm:output_tokens_total",
            "Generated tokens, as engines tell them, else events of streams.",
            |served| served.output_tokens.load(Relaxed),
        ),
    ];
    for (name, help, count) in families {
        family(out, name, Kind::Counter, help);
        for (url, model, served) in all {
            let count = count(served);
            if count > 0 {
                let model = escaped(model);
                line(
                    out,
                    format_args!("{name}{{server=\"{url}\",model=\"{model}\"}} {count}"),
                );
            }
        }
    }
}

fn errors(out: &mut String, all: &[Work<'_>]) {
    let name = "vllm:request_errors_total";
    let help = "Requests that an engine failed, by how.";
    family(out, name, Kind::Counter, help);
    let failures = (Outcome::ALL.into_iter())
        .filter(|(outcome, _)| outcome.is_fault() || *outcome == Outcome::Overloaded);
    for (url, model, served) in all {
        let model = escaped(model);
        for (outcome, kind) in failures.clone() {
            let count = served.ended(outcome);
            if count > 0 {
                line(
                    out,
                    format_args!(
                        "{name}{{server=\"{url}\",model=\"{model}\",error_type=\"{kind}\"}} {count}"
                    ),
                );
            }
        }
    }
}

fn latencies(out: &mut String, all: &[Work<'_>]) {
    let name = "vllm:request_latency_seconds";
    let help = "From the choice of the engine to the end of its answer.";
    family(out, name, Kind::Histogram, help);
    let mut labels = String::new();
    for (url, model, served) in all {
        let model = escaped(model);
        for (status, latencies) in served.latencies() {
            let (counts, seconds) = latencies.read();
            if counts[LATENCY_BOUNDS.len()] > 0 {
                labels.clear();
                // Writing to a String cannot fail.
                let _ = write!(
                    labels,
                    "server=\"{url}\",model=\"{model}\",status=\"{status}\""
                );
                histogram(out, name, &labels, (&LATENCY_BOUNDS, &counts), seconds);
            }
        }
    }
}

/// Appends how busy the machine is.
pub fn host(out: &mut String, usage: Usage) {
    for (name, help, value) in [
        (
            "router_cpu_usage_percent",
            "Of all cores of the machine.",
            usage.cpu,
        ),
        (
            "router_memory_usage_percent",
            "Of the machine's memory.",
            usage.memory,
        ),
        (
            "router_disk_usage_percent",
            "Of the root file system.",
            usage.disk,
        ),
    ] {
        single(out, name, Kind::Gauge, help, &value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::shown;
    use super::*;
    use crate::fleet::Snapshot;
    use crate::fleet::testing::{fleet, spec};
    use crate::metrics::ModelRegistry;
    use std::time::Duration;

    #[test]
    fn models_beyond_the_bound_are_summed_for_each_engine() {
        let names: Vec<String> = (0..1500).map(|n| format!("m{n:04}")).collect();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        // A model may have the name of a label that has a meaning.
        names.push(ModelRegistry::UNKNOWN);
        let mut fleet = fleet();
        fleet.reconcile(vec![spec("http://a:1", &names), spec("http://b:1", &names)]);
        let snapshot = fleet.published().load_full();
        for model in snapshot.models().into_iter().chain([&snapshot.all]) {
            let served = &model.candidates.list()[0].served;
            served.output_tokens.fetch_add(2, Relaxed);
            served.end(Outcome::Success, Duration::from_secs(3));
            served.end(Outcome::Failure, Duration::from_secs(1));
        }
        let mut page = String::new();
        work(&mut page, &shown(&snapshot));
        let lines: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        let names: std::collections::HashSet<&str> = lines
            .iter()
            .map(|line| line.rsplit_once(' ').unwrap().0)
            .collect();
        assert_eq!(names.len(), lines.len(), "no series twice");
        let of = |name: &str| lines.iter().filter(|line| line.starts_with(name)).count();
        assert_eq!(of("vllm:output_tokens_total{"), ModelRegistry::MOST + 1);
        assert_eq!(of("vllm:input_tokens_total{"), 0);
        // 999 names and `unknown` have labels of their own.
        for line in [
            r#"vllm:output_tokens_total{server="http://a:1",model="other"} 1002"#,
            r#"vllm:output_tokens_total{server="http://a:1",model="unknown"} 4"#,
            r#"vllm:request_errors_total{server="http://a:1",model="other",error_type="failure"} 501"#,
            r#"vllm:request_latency_seconds_bucket{server="http://a:1",model="other",status="success",le="2.5"} 0"#,
            r#"vllm:request_latency_seconds_bucket{server="http://a:1",model="other",status="success",le="5"} 501"#,
            r#"vllm:request_latency_seconds_sum{server="http://a:1",model="other",status="error"} 501"#,
        ] {
            assert!(lines.contains(&line), "{line}");
        }
    }
    /// Every series of the page, with its value.
    fn values(snapshot: &Snapshot) -> HashMap<String, f64> {
        let mut page = String::new();
        work(&mut page, &shown(snapshot));
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.map(|line| line.rsplit_once(' ').unwrap());
        let values = pairs.map(|(series, value)| (series.to_owned(), value.parse().unwrap()));
        values.collect()
    }

    #[test]
    fn no_counter_falls_when_models_are_unloaded_and_come_back() {
        let names: Vec<String> = (0..1500).map(|n| format!("m{n:04}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut fleet = fleet();
        let mut before = HashMap::new();
        // All, then one less, then few, then all again.
        for served in [1500, 1499, 5, 1500] {
            fleet.reconcile(vec![spec("http://a:1", &names[..served])]);
            let snapshot = fleet.published().load_full();
            let now = values(&snapshot);
            for (series, value) in &before {
                assert!(now.get(series) >= Some(value), "{series}: {value}");
            }
            for model in snapshot.models().into_iter().filter(|one| one.is_served()) {
                let served = &model.candidates.list()[0].served;
                served.output_tokens.fetch_add(2, Relaxed);
                served.end(Outcome::Success, Duration::from_secs(3));
            }
            before = values(&snapshot);
        }
    }
}
