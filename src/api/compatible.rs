//! The reference router's series, under its names: dashboards and autoscalers
//! know it by them. Label `server` is the engine's URL.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use super::exposition::{Escaped, Kind, family, line, single};
use super::host::Usage;
use crate::fleet::engine::Outcome;
use crate::fleet::stats::{LATENCY_BOUNDS, Rates, Served};
use crate::fleet::{Candidate, Engine, Snapshot};
use crate::metrics::ModelRegistry;

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
pub fn engines(out: &mut String, snapshot: &Snapshot, rates: &HashMap<u64, Rates>) {
    let candidates = snapshot.all.candidates.list();
    for (name, help, value) in FAMILIES {
        family(out, name, Kind::Gauge, help);
        for candidate in candidates {
            let engine = &candidate.engine;
            let server = Escaped(engine.url.text());
            let rates = rates.get(&engine.key).copied().unwrap_or_default();
            let value = value(engine, &rates);
            line(out, format_args!("{name}{{server=\"{server}\"}} {value}"));
        }
    }
    tokens(out, snapshot);
    errors(out, snapshot);
    latencies(out, snapshot);
}

/// Every engine with every model that it has worked for.
fn pairs(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &Candidate)> {
    let models = snapshot.models().into_iter().chain([&snapshot.all]);
    models.flat_map(|model| {
        let name = if model.name.is_empty() {
            ModelRegistry::UNKNOWN
        } else {
            &model.name
        };
        let list = model.candidates.list().iter();
        list.map(move |candidate| (name, candidate))
    })
}

fn tokens(out: &mut String, snapshot: &Snapshot) {
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
        for (model, one) in pairs(snapshot) {
            let count = count(&one.served);
            if count > 0 {
                let (server, model) = (Escaped(one.engine.url.text()), Escaped(model));
                let labels = format_args!("server=\"{server}\",model=\"{model}\"");
                line(out, format_args!("{name}{{{labels}}} {count}"));
            }
        }
    }
}

fn errors(out: &mut String, snapshot: &Snapshot) {
    let name = "vllm:request_errors_total";
    let help = "Requests that an engine failed, by how.";
    family(out, name, Kind::Counter, help);
    for (model, one) in pairs(snapshot) {
        for (outcome, kind) in Outcome::ALL {
            let count = one.served.ended(outcome);
            if count > 0 && (outcome.is_fault() || outcome == Outcome::Overloaded) {
                let (server, model) = (Escaped(one.engine.url.text()), Escaped(model));
                let labels =
                    format_args!("server=\"{server}\",model=\"{model}\",error_type=\"{kind}\"");
                line(out, format_args!("{name}{{{labels}}} {count}"));
            }
        }
    }
}

fn latencies(out: &mut String, snapshot: &Snapshot) {
    let name = "vllm:request_latency_seconds";
    let help = "From the choice of the engine to the end of its answer.";
    family(out, name, Kind::Histogram, help);
    for (model, one) in pairs(snapshot) {
        for (status, latencies) in one.served.latencies() {
            let (counts, sum) = latencies.read();
            let all = counts[LATENCY_BOUNDS.len()];
            if all == 0 {
                continue;
            }
            let (server, model) = (Escaped(one.engine.url.text()), Escaped(model));
            let labels = format!("server=\"{server}\",model=\"{model}\",status=\"{status}\"");
            for (bound, count) in LATENCY_BOUNDS.iter().zip(counts) {
                line(
                    out,
                    format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {count}"),
                );
            }
            line(
                out,
                format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {all}"),
            );
            line(out, format_args!("{name}_sum{{{labels}}} {sum}"));
            line(out, format_args!("{name}_count{{{labels}}} {all}"));
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
