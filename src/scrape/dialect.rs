//! Which metric of which engine means which attribute.
//!
//! Engines put their own name before their metrics', so one table serves all:
//! for each attribute the first source that the page has is taken. The names
//! are those of vLLM (now and before), SGLang, TensorRT-LLM (trtllm-serve) and
//! llama.cpp, as their documentation has them.

use std::collections::HashMap;
use std::time::Duration;

use super::exposition::samples;
use crate::fleet::attributes::Live;

/// When an engine's process began, in Unix seconds.
const STARTED: &str = "process_start_time_seconds";

/// Where an attribute's value comes from.
#[derive(Debug, Clone, Copy)]
enum Source {
    /// All samples together: ranks and models of one engine.
    Sum(&'static str),
    /// The largest sample: of several caches, the fullest one matters.
    Worst(&'static str),
    /// How fast a counter grows, a second.
    Rate(&'static str),
    /// How fast the first counter grows in proportion to the second.
    Share(&'static str, &'static str),
    /// The mean of a histogram's new observations, seconds made milliseconds.
    MeanMs(&'static str, &'static str),
    /// A moment in Unix seconds, as hours ago.
    HoursSince(&'static str),
}

use Source::{HoursSince, MeanMs, Rate, Share, Sum, Worst};

/// The table. Sources of one attribute stand in the order of preference.
const TABLE: [(Live, &[Source]); Live::ALL.len()] = [
    (
        Live::RequestsRunning,
        &[
            Sum("vllm:num_requests_running"),
            Sum("sglang:num_running_reqs"),
            Sum("trtllm_num_requests_running"),
            Sum("llamacpp:requests_processing"),
        ],
    ),
    (
        Live::RequestsWaiting,
        &[
            Sum("vllm:num_requests_waiting"),
            Sum("sglang:num_queue_reqs"),
            Sum("trtllm_num_requests_waiting"),
            Sum("llamacpp:requests_deferred"),
        ],
    ),
    (
        Live::KvCacheUsage,
        &[
            Worst("vllm:kv_cache_usage_perc"),
            Worst("vllm:gpu_cache_usage_perc"),
            Worst("sglang:token_usage"),
            Worst("trtllm_kv_cache_utilization"),
            Worst("llamacpp:kv_cache_usage_ratio"),
        ],
    ),
    (
        Live::PrefixCacheHitRate,
        &[
            Share(
                "vllm:prefix_cache_hits_total",
                "vllm:prefix_cache_queries_total",
            ),
            Share(
                "vllm:gpu_prefix_cache_hits_total",
                "vllm:gpu_prefix_cache_queries_total",
            ),
            Worst("vllm:gpu_prefix_cache_hit_rate"),
            Worst("sglang:cache_hit_rate"),
            Worst("trtllm_kv_cache_hit_rate"),
        ],
    ),
    (
        Live::PrefixCacheHits,
        &[
            Sum("vllm:prefix_cache_hits_total"),
            Sum("vllm:gpu_prefix_cache_hits_total"),
        ],
    ),
    (
        Live::PrefixCacheQueries,
        &[
            Sum("vllm:prefix_cache_queries_total"),
            Sum("vllm:gpu_prefix_cache_queries_total"),
        ],
    ),
    (
        Live::TokensPerSecond,
        &[
            Rate("vllm:generation_tokens_total"),
            Rate("sglang:generation_tokens_total"),
            Sum("sglang:gen_throughput"),
            Rate("llamacpp:tokens_predicted_total"),
        ],
    ),
    (
        Live::PromptTokensPerSecond,
        &[
            Rate("vllm:prompt_tokens_total"),
            Rate("sglang:prompt_tokens_total"),
            Rate("llamacpp:prompt_tokens_total"),
        ],
    ),
    (
        Live::TtftMs,
        &[
            MeanMs(
                "vllm:time_to_first_token_seconds_sum",
                "vllm:time_to_first_token_seconds_count",
            ),
            MeanMs(
                "sglang:time_to_first_token_seconds_sum",
                "sglang:time_to_first_token_seconds_count",
            ),
            MeanMs(
                "trtllm_time_to_first_token_seconds_sum",
                "trtllm_time_to_first_token_seconds_count",
            ),
        ],
    ),
    (
        Live::ItlMs,
        &[
            MeanMs(
                "vllm:inter_token_latency_seconds_sum",
                "vllm:inter_token_latency_seconds_count",
            ),
            MeanMs(
                "vllm:time_per_output_token_seconds_sum",
                "vllm:time_per_output_token_seconds_count",
            ),
            MeanMs(
                "sglang:inter_token_latency_seconds_sum",
                "sglang:inter_token_latency_seconds_count",
            ),
            MeanMs(
                "trtllm_time_per_output_token_seconds_sum",
                "trtllm_time_per_output_token_seconds_count",
            ),
        ],
    ),
    (
        Live::E2eLatencyMs,
        &[
            MeanMs(
                "vllm:e2e_request_latency_seconds_sum",
                "vllm:e2e_request_latency_seconds_count",
            ),
            MeanMs(
                "sglang:e2e_request_latency_seconds_sum",
                "sglang:e2e_request_latency_seconds_count",
            ),
            MeanMs(
                "trtllm_e2e_request_latency_seconds_sum",
                "trtllm_e2e_request_latency_seconds_count",
            ),
        ],
    ),
    (Live::UptimeHours, &[HoursSince(STARTED)]),
];

impl Source {
    fn names(self) -> impl Iterator<Item = &'static str> {
        let (first, second) = match self {
            Sum(name) | Worst(name) | Rate(name) | HoursSince(name) => (name, None),
            Share(part, whole) => (part, Some(whole)),
            MeanMs(sum, count) => (sum, Some(count)),
        };
        std::iter::once(first).chain(second)
    }
}

/// One family, all its samples together.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Family {
    sum: f64,
    most: f64,
}

/// What one page says of the families that we know.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Reading {
    families: HashMap<&'static str, Family>,
}

/// The families that any source needs.
#[derive(Debug)]
pub(super) struct Wanted {
    names: HashMap<&'static str, &'static str>,
}

impl Default for Wanted {
    fn default() -> Self {
        let sources = TABLE.iter().flat_map(|(_, sources)| sources.iter());
        let names = sources.flat_map(|source| source.names());
        Self {
            names: names.map(|name| (name, name)).collect(),
        }
    }
}

impl Wanted {
    /// Reads a page; values that are no finite numbers are passed over.
    pub(super) fn read(&self, page: &str) -> Reading {
        let mut reading = Reading::default();
        for sample in samples(page).filter(|sample| sample.value.is_finite()) {
            if let Some(name) = self.names.get(sample.name) {
                let family = reading.families.entry(name).or_insert(Family {
                    sum: 0.0,
                    most: f64::NEG_INFINITY,
                });
                family.sum += sample.value;
                family.most = family.most.max(sample.value);
            }
        }
        reading
    }
}

impl Reading {
    /// Whether the page had anything that we know.
    pub(super) fn is_empty(&self) -> bool {
        self.families.is_empty()
    }

    /// When the engine's process began, if it tells, in Unix seconds.
    pub(super) fn started(&self) -> Option<f64> {
        self.families.get(STARTED).map(|family| family.most)
    }

    /// Whether this is another process than the one that told `before`, of those
    /// that do not tell when they began: something that only grows has fallen.
    pub(super) fn has_fallen(&self, before: &Self) -> bool {
        let of = |reading: &Self, name: &str| reading.families.get(name).copied();
        let sources = TABLE.iter().flat_map(|(_, sources)| sources.iter());
        let grows = sources.filter(|source| matches!(source, Rate(_) | Share(..) | MeanMs(..)));
        let mut names = grows.flat_map(|source| source.names());
        names.any(|name| match (of(self, name), of(before, name)) {
            (Some(now), Some(then)) => now.sum < then.sum,
            _ => false,
        })
    }

    /// Every attribute's value: from this page, and from the one `before`, so
    /// long ago, what counters and histograms did since.
    pub(super) fn values(
        &self,
        before: Option<(&Self, Duration)>,
        unix_now: f64,
    ) -> [Option<f64>; Live::ALL.len()] {
        let mut values = [None; Live::ALL.len()];
        for (attribute, sources) in &TABLE {
            let known = sources.iter().filter(|source| self.has(**source));
            let mut found = known.filter_map(|source| self.value(*source, before, unix_now));
            values[*attribute as usize] = found.next();
        }
        values
    }

    fn has(&self, source: Source) -> bool {
        source.names().all(|name| self.families.contains_key(name))
    }

    fn value(
        &self,
        source: Source,
        before: Option<(&Self, Duration)>,
        unix_now: f64,
    ) -> Option<f64> {
        // How much a counter grew; one that fell began anew with its engine.
        let grown = |name: &str| {
            let now = self.families.get(name)?.sum;
            let then = before?.0.families.get(name)?.sum;
            Some(if now >= then {
                now - then
            } else {
                now.max(0.0)
            })
        };
        let proportion = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
        match source {
            Sum(name) => Some(self.families.get(name)?.sum),
            Worst(name) => Some(self.families.get(name)?.most),
            Rate(name) => proportion(grown(name)?, before?.1.as_secs_f64()),
            Share(part, whole) => proportion(grown(part)?, grown(whole)?),
            MeanMs(sum, count) => Some(proportion(grown(sum)?, grown(count)?)? * 1e3),
            HoursSince(name) => {
                let hours = (unix_now - self.families.get(name)?.most) / 3600.0;
                (hours >= 0.0).then_some(hours)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(before: Option<&str>, now: &str) -> [Option<f64>; Live::ALL.len()] {
        let wanted = Wanted::default();
        let before = before.map(|page| wanted.read(page));
        let before = before.as_ref().map(|page| (page, Duration::from_secs(10)));
        wanted.read(now).values(before, 7200.0)
    }

    fn get(values: &[Option<f64>; Live::ALL.len()], attribute: Live) -> Option<f64> {
        values[attribute as usize]
    }

    #[test]
    fn the_table_has_every_attribute_in_its_place() {
        for (index, (attribute, sources)) in TABLE.iter().enumerate() {
            assert_eq!(*attribute as usize, index);
            assert!(!sources.is_empty());
        }
    }

    #[test]
    fn one_page_tells_what_is_and_two_what_happened() {
        let page = |tokens: u32, hits: u32, ttft: u32| {
            format!(
                "vllm:num_requests_running{{engine=\"0\"}} 2\nvllm:num_requests_running{{engine=\"1\"}} 3\n\
                 vllm:num_requests_waiting 4\nvllm:kv_cache_usage_perc{{engine=\"0\"}} 0.25\n\
                 vllm:kv_cache_usage_perc{{engine=\"1\"}} 0.75\nvllm:generation_tokens_total {tokens}\n\
                 vllm:prefix_cache_hits_total {hits}\nvllm:prefix_cache_queries_total {}\n\
                 vllm:time_to_first_token_seconds_sum {}\nvllm:time_to_first_token_seconds_count {ttft}\n\
                 process_start_time_seconds 3600\n",
                hits * 2,
                f64::from(ttft) * 0.5
            )
        };
        let first = values(None, &page(100, 10, 1));
        assert_eq!(get(&first, Live::RequestsRunning), Some(5.0));
        assert_eq!(get(&first, Live::RequestsWaiting), Some(4.0));
        assert_eq!(get(&first, Live::KvCacheUsage), Some(0.75));
        assert_eq!(get(&first, Live::UptimeHours), Some(1.0));
        assert_eq!(get(&first, Live::PrefixCacheHits), Some(10.0));
        for unknown in [
            Live::TokensPerSecond,
            Live::TtftMs,
            Live::PrefixCacheHitRate,
        ] {
            assert_eq!(get(&first, unknown), None, "{unknown:?}");
        }
        let second = values(Some(&page(100, 10, 1)), &page(350, 30, 5));
        assert_eq!(get(&second, Live::TokensPerSecond), Some(25.0));
        assert_eq!(get(&second, Live::PrefixCacheHitRate), Some(0.5));
        assert_eq!(get(&second, Live::TtftMs), Some(500.0));
        // The engine began anew.
        let restarted = values(Some(&page(350, 30, 5)), &page(50, 0, 0));
        let read = |page: &str| Wanted::default().read(page);
        assert!(read(&page(50, 0, 0)).has_fallen(&read(&page(350, 30, 5))));
        assert!(!read(&page(351, 30, 5)).has_fallen(&read(&page(350, 30, 5))));
        assert_eq!(read(&page(1, 1, 1)).started(), Some(3600.0));
        assert_eq!(get(&restarted, Live::TokensPerSecond), Some(5.0));
        assert_eq!(get(&restarted, Live::TtftMs), None);
    }

    #[test]
    fn each_dialect_says_the_same() {
        for page in [
            "vllm:num_requests_running 1\nvllm:num_requests_waiting 2\nvllm:gpu_cache_usage_perc 0.5\n",
            "sglang:num_running_reqs{model=\"x\"} 1\nsglang:num_queue_reqs 2\nsglang:token_usage 0.5\n",
            "trtllm_num_requests_running 1\ntrtllm_num_requests_waiting 2\ntrtllm_kv_cache_utilization 0.5\n",
            "llamacpp:requests_processing 1\nllamacpp:requests_deferred 2\nllamacpp:kv_cache_usage_ratio 0.5\n",
        ] {
            let values = values(None, page);
            assert_eq!(get(&values, Live::RequestsRunning), Some(1.0), "{page}");
            assert_eq!(get(&values, Live::RequestsWaiting), Some(2.0), "{page}");
            assert_eq!(get(&values, Live::KvCacheUsage), Some(0.5), "{page}");
        }
        assert!(
            Wanted::default()
                .read("<html>404</html>\nup 1\n")
                .is_empty()
        );
    }
}
