//! What engines tell of themselves, as series: the reference router's copies of
//! it, and how fresh it is.

use std::sync::atomic::Ordering::Relaxed;

use super::exposition::{Kind, Shown, escaped, family, line, series};
use crate::fleet::Snapshot;
use crate::fleet::attributes::{Freshness, Live};

/// The reference's gauges that copy what an engine tells.
const COPIED: [(&str, Live, &str); 4] = [
    (
        "vllm:num_requests_waiting",
        Live::RequestsWaiting,
        "Requests that wait in an engine, as it tells.",
    ),
    (
        "vllm:gpu_prefix_cache_hit_rate",
        Live::PrefixCacheHitRate,
        "Of an engine's prefix cache, 0 to 1, as it tells.",
    ),
    (
        "vllm:gpu_prefix_cache_hits_total",
        Live::PrefixCacheHits,
        "Prompt tokens found in an engine's prefix cache, as it tells.",
    ),
    (
        "vllm:gpu_prefix_cache_queries_total",
        Live::PrefixCacheQueries,
        "Prompt tokens looked up in an engine's prefix cache, as it tells.",
    ),
];

/// The same under names of our own, in base units: what a value of an engine's
/// is multiplied by comes last.
const OURS: [(&str, Live, &str, f64); 14] = [
    (
        "pilotfish_engine_requests_running",
        Live::RequestsRunning,
        "Sequences that an engine generates, whoever sent them, as it tells.",
        1.0,
    ),
    (
        "pilotfish_engine_requests_waiting",
        Live::RequestsWaiting,
        "Sequences that wait in an engine, whoever sent them, as it tells.",
        1.0,
    ),
    (
        "pilotfish_engine_kv_cache_usage_ratio",
        Live::KvCacheUsage,
        "Of an engine's memory for keys and values, 0 to 1, as it tells.",
        1.0,
    ),
    (
        "pilotfish_engine_prefix_cache_hit_ratio",
        Live::PrefixCacheHitRate,
        "Prompt tokens found in an engine's prefix cache, 0 to 1, as it tells.",
        1.0,
    ),
    (
        "pilotfish_engine_tokens_per_second",
        Live::TokensPerSecond,
        "Tokens that an engine generates, as it tells.",
        1.0,
    ),
    (
        "pilotfish_engine_prompt_tokens_per_second",
        Live::PromptTokensPerSecond,
        "Prompt tokens that an engine takes, as it tells.",
        1.0,
    ),
    (
        "pilotfish_engine_reported_ttft_seconds",
        Live::TtftMs,
        "To the first token, as an engine tells.",
        1e-3,
    ),
    (
        "pilotfish_engine_reported_itl_seconds",
        Live::ItlMs,
        "Between two tokens, as an engine tells.",
        1e-3,
    ),
    (
        "pilotfish_engine_reported_latency_seconds",
        Live::E2eLatencyMs,
        "Whole requests, as an engine tells.",
        1e-3,
    ),
    (
        "pilotfish_engine_uptime_seconds",
        Live::UptimeHours,
        "Since an engine's process began, as it tells, else since it was first seen.",
        3600.0,
    ),
    (
        "pilotfish_engine_busy_tokens_per_second",
        Live::BusyTokensPerSecond,
        "Tokens that an engine generated when it last generated any, as it tells.",
        1.0,
    ),
    (
        "pilotfish_engine_lora_adapters",
        Live::LoraAdapters,
        "Adapters that an engine works with or is asked for, as it tells.",
        1.0,
    ),
    (
        "pilotfish_engine_max_model_tokens",
        Live::MaxModelLen,
        "Tokens of a prompt and its answer at most, as an engine tells.",
        1.0,
    ),
    (
        "pilotfish_engine_kv_cache_tokens",
        Live::KvCacheTokens,
        "Tokens that an engine's memory for keys and values holds, as it tells.",
        1.0,
    ),
];

/// Appends every engine's series; what is unknown or stale has none.
pub(super) fn engines(out: &mut String, engines: &[Shown<'_>], snapshot: &Snapshot, by: Freshness) {
    let copied = COPIED.map(|(name, live, help)| (name, "server", live, help, 1.0));
    let ours = OURS.map(|(name, live, help, unit)| (name, "engine", live, help, unit));
    for (name, label, live, help, unit) in copied.into_iter().chain(ours) {
        family(out, name, Kind::Gauge, help);
        for Shown { one, url } in engines {
            if let Some(value) = one.engine.attributes.fresh(live, by) {
                series(out, name, (label, url), value * unit);
            }
        }
    }
    own(out, engines, snapshot, by);
    let name = "pilotfish_scrape_age_seconds";
    let help = "Since an engine's metrics were last read.";
    family(out, name, Kind::Gauge, help);
    for Shown { one, url } in engines {
        if let Some(age) = one.engine.attributes.age(by.now) {
            series(out, name, ("engine", url), age.as_secs_f64());
        }
    }
    let name = "pilotfish_scrape_failures_total";
    let help = "Readings of an engine's metrics that brought nothing.";
    family(out, name, Kind::Counter, help);
    for Shown { one, url } in engines {
        let failures = one.engine.attributes.failures.load(Relaxed);
        series(out, name, ("engine", url), failures);
    }
}

/// Attributes that the configuration tells how to read, by their names.
fn own(out: &mut String, engines: &[Shown<'_>], snapshot: &Snapshot, by: Freshness) {
    let own = snapshot.settings.scraping.own.iter();
    let mut own = own
        .filter(|own| Live::named(&own.name).is_none())
        .peekable();
    if own.peek().is_none() {
        return;
    }
    let name = "pilotfish_engine_attribute";
    let help = "An attribute that the configuration tells how to read, as an engine tells.";
    family(out, name, Kind::Gauge, help);
    for own in own {
        let label = escaped(&own.name);
        for Shown { one, url } in engines {
            if let Some(value) = one.engine.attributes.fresh(own.place, by) {
                let labels = format_args!("engine=\"{url}\",attribute=\"{label}\"");
                line(out, format_args!("{name}{{{labels}}} {value}"));
            }
        }
    }
}
