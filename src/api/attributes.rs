//! What engines tell of themselves, as series: the reference router's copies of
//! it, and how fresh it is.

use std::sync::atomic::Ordering::Relaxed;

use super::exposition::{Escaped, Kind, family, line};
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

/// Appends every engine's series; what is unknown or stale has none.
pub fn engines(out: &mut String, snapshot: &Snapshot, by: Freshness) {
    let candidates = snapshot.all.candidates.list();
    for (name, attribute, help) in COPIED {
        family(out, name, Kind::Gauge, help);
        for one in candidates {
            if let Some(value) = one.engine.attributes.fresh(attribute, by) {
                let server = Escaped(one.engine.url.text());
                line(out, format_args!("{name}{{server=\"{server}\"}} {value}"));
            }
        }
    }
    let name = "pilotfish_scrape_age_seconds";
    family(
        out,
        name,
        Kind::Gauge,
        "Since an engine's metrics were last read.",
    );
    for one in candidates {
        if let Some(age) = one.engine.attributes.age(by.now) {
            let (url, age) = (Escaped(one.engine.url.text()), age.as_secs_f64());
            line(out, format_args!("{name}{{engine=\"{url}\"}} {age}"));
        }
    }
    let name = "pilotfish_scrape_failures_total";
    let help = "Readings of an engine's metrics that brought nothing.";
    family(out, name, Kind::Counter, help);
    for one in candidates {
        let url = Escaped(one.engine.url.text());
        let failures = one.engine.attributes.failures.load(Relaxed);
        line(out, format_args!("{name}{{engine=\"{url}\"}} {failures}"));
    }
}
