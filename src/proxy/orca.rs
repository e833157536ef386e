//! Load reports in answers (ORCA): a share of requests asks its engine to tell
//! how busy it is with the answer's head. Fresher than any page, and no more
//! requests for it.
//!
//! vLLM gives one on two paths, and at no small cost: it collects its whole
//! registry for it. Whoever never gives one is not asked for long.

use std::time::Instant;

use http::header::{HeaderName, HeaderValue};
use http::request::Parts;

use super::Exchange;
use crate::fleet::Engine;
use crate::fleet::attributes::Live;
use crate::fleet::orca::Answers;
use crate::upstream::AnswerHead;

/// The field that asks.
pub(super) const FORMAT: HeaderName = HeaderName::from_static("endpoint-load-metrics-format");
/// What we ask for.
pub(super) const TEXT: &[u8] = b"TEXT";
/// The field that tells.
const REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics");
/// Where engines give one.
const PATHS: [&str; 2] = ["/v1/chat/completions", "/v1/completions"];
/// Metrics of one report that are looked at.
const MOST: usize = 64;

/// Whether a request may ask for a report: one of a client that wants its own is
/// left alone.
fn may_ask(head: &Parts) -> bool {
    PATHS.contains(&head.uri.path()) && !head.headers.contains_key(FORMAT)
}

impl Exchange<'_> {
    /// With which answer its engine is asked for a report of its load, if at all.
    pub(super) fn orca(&self, is_stream: bool) -> Option<Answers> {
        let share = self.snapshot.settings.scraping.orca_sample;
        let is_asked = self.is_one_of(share) && may_ask(self.head);
        is_asked.then(|| Answers::of(is_stream))
    }
}

/// Takes the report that we asked for off an answer's head, and learns from it.
pub(super) fn take(head: &mut AnswerHead, engine: &Engine, asked: Answers, now: Instant) {
    let report = head.headers.remove(REPORT);
    let report = report
        .map(|report| Report::read(&report))
        .unwrap_or_default();
    let at = engine.clock(now);
    for (live, value) in [
        (Live::RequestsWaiting, report.waiting),
        (Live::KvCacheUsage, report.kv_cache),
    ] {
        if let Some(value) = value {
            engine.attributes.hear(live, value, at);
        }
    }
    if report != Report::default() {
        engine.orca.came(asked);
    } else if head.status.is_success() {
        // An error has none of anybody.
        engine.orca.asked_in_vain(asked);
    }
}

/// What a report says of what we know.
#[derive(Debug, Default, PartialEq)]
struct Report {
    /// Requests that wait.
    waiting: Option<f64>,
    /// Of the memory for keys and values, 0 to 1.
    kv_cache: Option<f64>,
}

impl Report {
    /// Reads `TEXT name=value, ...`; named metrics may say so before their name.
    fn read(value: &HeaderValue) -> Self {
        let mut report = Self::default();
        let text = value.to_str().unwrap_or_default().trim();
        let list = text.strip_prefix("TEXT").unwrap_or(text);
        for pair in list.split(',').take(MOST) {
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            let value = value.trim().parse::<f64>().ok();
            let value = value.filter(|value| value.is_finite() && *value >= 0.0);
            match name.trim().trim_start_matches("named_metrics.") {
                // A data-parallel engine tells of each rank.
                "num_requests_waiting" => report.waiting = both(report.waiting, value, add),
                "kv_cache_usage_perc" | "kv_cache_utilization" => {
                    report.kv_cache = both(report.kv_cache, value, f64::max);
                }
                _ => {}
            }
        }
        report
    }
}

fn add(one: f64, other: f64) -> f64 {
    one + other
}

fn both(one: Option<f64>, other: Option<f64>, join: fn(f64, f64) -> f64) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(join(one, other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        let read = |text: &str| Report::read(&HeaderValue::from_str(text).unwrap());
        let of = |waiting, kv_cache| Report { waiting, kv_cache };
        for (text, expected) in [
            (
                "TEXT named_metrics.kv_cache_usage_perc=0.25, named_metrics.num_requests_waiting=3.0",
                of(Some(3.0), Some(0.25)),
            ),
            (
                "TEXT kv_cache_utilization=0.5,cpu_utilization=0.9",
                of(None, Some(0.5)),
            ),
            ("num_requests_waiting=1", of(Some(1.0), None)),
            (
                "num_requests_waiting=1, kv_cache_usage_perc=0.5, num_requests_waiting=2, kv_cache_usage_perc=0.25",
                of(Some(3.0), Some(0.5)),
            ),
            (
                "TEXT num_requests_waiting=NaN, kv_cache_usage_perc=-1",
                of(None, None),
            ),
            ("JSON {\"num_requests_waiting\": 1}", of(None, None)),
            ("", of(None, None)),
            ("TEXT ,,=,a=,num_requests_waiting", of(None, None)),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }
}
