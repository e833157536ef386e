//! Which metric of which engine means which attribute.
//!
//! Engines put their own name before their metrics', so one table serves all:
//! for each attribute the first source that the page has is taken. The names
//! are those of the engines' documents and sources: vLLM (now and before),
//! SGLang, TensorRT-LLM (trtllm-serve) and llama.cpp; what begins with `loads.`
//! and `slots.` comes from the JSON pages of SGLang and llama.cpp.

use crate::config::EngineType;
use crate::fleet::attributes::Live;

/// Where an attribute's value comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// All samples together: ranks and models of one engine.
    Sum(&'static str),
    /// The same, where ranks of a group that this label names all tell of the
    /// same requests.
    SumOver(&'static str, &'static str),
    /// The largest sample: of several caches, the fullest one matters.
    Worst(&'static str),
    /// How fast a counter grows, a second.
    Rate(&'static str),
    /// How fast the first counter grows in proportion to the second.
    Share(&'static str, &'static str),
    /// How fast the first counter grows in proportion to itself and the second.
    ShareOfBoth(&'static str, &'static str),
    /// The mean of a histogram's new observations, seconds made milliseconds.
    MeanMs(&'static str),
    /// The same, of two counters: seconds, and what they were spent on.
    MeanMsOf(&'static str, &'static str),
    /// A moment in Unix seconds, as hours ago.
    HoursSince(&'static str),
    /// Two gauges multiplied.
    Times(&'static str, &'static str),
    /// The product of these labels' numbers, of all samples together, or for each
    /// group that the third label names.
    Labels(&'static str, &'static [&'static str], Option<&'static str>),
    /// How many names these labels list, of the newest sample: its value is when
    /// it was written.
    Names(&'static str, &'static [&'static str]),
}

use Source::{
    HoursSince, Labels, MeanMs, MeanMsOf, Names, Rate, Share, ShareOfBoth, Sum, SumOver, Times,
    Worst,
};

/// An engine's own words.
#[derive(Debug)]
pub(super) struct Dialect {
    /// Whose they are.
    pub(super) of: EngineType,
    /// Sources of one attribute stand in the order of preference.
    pub(super) sources: &'static [(Live, Source)],
}

/// When an engine's process began, in Unix seconds: the same in every engine
/// that tells.
pub(super) const STARTED: &str = "process_start_time_seconds";

/// The table.
pub(super) const DIALECTS: [Dialect; 5] = [
    Dialect {
        of: EngineType::Vllm,
        sources: &[
            (Live::RequestsRunning, Sum("vllm:num_requests_running")),
            (Live::RequestsWaiting, Sum("vllm:num_requests_waiting")),
            (Live::KvCacheUsage, Worst("vllm:kv_cache_usage_perc")),
            (Live::KvCacheUsage, Worst("vllm:gpu_cache_usage_perc")),
            (
                Live::PrefixCacheHitRate,
                Share(
                    "vllm:prefix_cache_hits_total",
                    "vllm:prefix_cache_queries_total",
                ),
            ),
            (
                Live::PrefixCacheHitRate,
                Share(
                    "vllm:gpu_prefix_cache_hits_total",
                    "vllm:gpu_prefix_cache_queries_total",
                ),
            ),
            (
                Live::PrefixCacheHitRate,
                Worst("vllm:gpu_prefix_cache_hit_rate"),
            ),
            (Live::PrefixCacheHits, Sum("vllm:prefix_cache_hits_total")),
            (
                Live::PrefixCacheHits,
                Sum("vllm:gpu_prefix_cache_hits_total"),
            ),
            (
                Live::PrefixCacheQueries,
                Sum("vllm:prefix_cache_queries_total"),
            ),
            (
                Live::PrefixCacheQueries,
                Sum("vllm:gpu_prefix_cache_queries_total"),
            ),
            (Live::TokensPerSecond, Rate("vllm:generation_tokens_total")),
            (
                Live::PromptTokensPerSecond,
                Rate("vllm:prompt_tokens_total"),
            ),
            (Live::TtftMs, MeanMs("vllm:time_to_first_token_seconds")),
            (Live::ItlMs, MeanMs("vllm:inter_token_latency_seconds")),
            (Live::ItlMs, MeanMs("vllm:time_per_output_token_seconds")),
            (
                Live::E2eLatencyMs,
                MeanMs("vllm:e2e_request_latency_seconds"),
            ),
            (
                Live::LoraAdapters,
                Names(
                    "vllm:lora_requests_info",
                    &["running_lora_adapters", "waiting_lora_adapters"],
                ),
            ),
            // The newest tell it outright: of hybrid models it is no product.
            (
                Live::KvCacheTokens,
                Labels("vllm:cache_config_info", &["kv_cache_size_tokens"], None),
            ),
            (
                Live::KvCacheTokens,
                Labels(
                    "vllm:cache_config_info",
                    &["block_size", "num_gpu_blocks"],
                    None,
                ),
            ),
        ],
    },
    Dialect {
        of: EngineType::Sglang,
        sources: &[
            (
                Live::RequestsRunning,
                SumOver("sglang:num_running_reqs", "dp_rank"),
            ),
            (Live::RequestsRunning, Sum("loads.num_running_reqs")),
            (
                Live::RequestsWaiting,
                SumOver("sglang:num_queue_reqs", "dp_rank"),
            ),
            (Live::RequestsWaiting, Sum("loads.num_waiting_reqs")),
            // With hybrid models `token_usage` tells of another cache too.
            (Live::KvCacheUsage, Worst("sglang:full_token_usage")),
            (Live::KvCacheUsage, Worst("sglang:token_usage")),
            (Live::KvCacheUsage, Worst("loads.token_usage")),
            // The gauge `cache_hit_rate` is 0 between prefills.
            (
                Live::PrefixCacheHitRate,
                Share("sglang:cached_tokens_total", "sglang:prompt_tokens_total"),
            ),
            (Live::PrefixCacheHitRate, Worst("loads.cache_hit_rate")),
            (
                Live::TokensPerSecond,
                Rate("sglang:generation_tokens_total"),
            ),
            (
                Live::TokensPerSecond,
                SumOver("sglang:gen_throughput", "dp_rank"),
            ),
            (Live::TokensPerSecond, Sum("loads.gen_throughput")),
            (
                Live::PromptTokensPerSecond,
                Rate("sglang:prompt_tokens_total"),
            ),
            (Live::TtftMs, MeanMs("sglang:time_to_first_token_seconds")),
            (Live::ItlMs, MeanMs("sglang:inter_token_latency_seconds")),
            (
                Live::E2eLatencyMs,
                MeanMs("sglang:e2e_request_latency_seconds"),
            ),
            (
                Live::KvCacheTokens,
                SumOver("sglang:max_total_num_tokens", "dp_rank"),
            ),
            (
                Live::KvCacheTokens,
                Labels(
                    "sglang:cache_config_info",
                    &["page_size", "num_pages"],
                    Some("dp_rank"),
                ),
            ),
            (Live::KvCacheTokens, Sum("loads.max_total_num_tokens")),
        ],
    },
    Dialect {
        of: EngineType::Trtllm,
        sources: &[
            (Live::RequestsRunning, Sum("trtllm_num_requests_running")),
            (Live::RequestsWaiting, Sum("trtllm_num_requests_waiting")),
            (Live::KvCacheUsage, Worst("trtllm_kv_cache_utilization")),
            (
                Live::PrefixCacheHitRate,
                ShareOfBoth(
                    "trtllm_kv_cache_reused_blocks_total",
                    "trtllm_kv_cache_missed_blocks_total",
                ),
            ),
            // The mean since its start.
            (Live::PrefixCacheHitRate, Worst("trtllm_kv_cache_hit_rate")),
            (
                Live::TokensPerSecond,
                Rate("trtllm_generation_tokens_total"),
            ),
            (
                Live::PromptTokensPerSecond,
                Rate("trtllm_prompt_tokens_total"),
            ),
            (Live::TtftMs, MeanMs("trtllm_time_to_first_token_seconds")),
            (Live::ItlMs, MeanMs("trtllm_time_per_output_token_seconds")),
            (
                Live::E2eLatencyMs,
                MeanMs("trtllm_e2e_request_latency_seconds"),
            ),
            (
                Live::KvCacheTokens,
                Times(
                    "trtllm_kv_cache_max_blocks",
                    "trtllm_kv_cache_tokens_per_block",
                ),
            ),
        ],
    },
    Dialect {
        of: EngineType::Llamacpp,
        sources: &[
            (Live::RequestsRunning, Sum("llamacpp:requests_processing")),
            (Live::RequestsRunning, Sum("slots.is_processing")),
            (Live::RequestsWaiting, Sum("llamacpp:requests_deferred")),
            (Live::KvCacheUsage, Worst("llamacpp:kv_cache_usage_ratio")),
            (
                Live::TokensPerSecond,
                Rate("llamacpp:tokens_predicted_total"),
            ),
            (
                Live::PromptTokensPerSecond,
                Rate("llamacpp:prompt_tokens_total"),
            ),
            // Cached tokens are not among the others.
            (
                Live::PrefixCacheHitRate,
                ShareOfBoth(
                    "llamacpp:prompt_tokens_cached_total",
                    "llamacpp:prompt_tokens_total",
                ),
            ),
            (
                Live::ItlMs,
                MeanMsOf(
                    "llamacpp:tokens_predicted_seconds_total",
                    "llamacpp:tokens_predicted_total",
                ),
            ),
            (Live::KvCacheUsage, Worst("slots.usage")),
            (Live::KvCacheTokens, Sum("slots.n_ctx")),
            (Live::MaxModelLen, Worst("slots.n_ctx")),
        ],
    },
    Dialect {
        of: EngineType::Other,
        sources: &[(Live::UptimeHours, HoursSince(STARTED))],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::attribute::Place;

    #[test]
    fn every_attribute_has_a_source() {
        let known: Vec<Live> = (DIALECTS.iter())
            .flat_map(|dialect| dialect.sources.iter().map(|(live, _)| *live))
            .collect();
        for (live, name) in Live::ALL {
            // Made of another one.
            let is_made = live == Live::BusyTokensPerSecond || Place::from(live).is_measured();
            assert_eq!(known.contains(&live), !is_made, "{name}");
        }
    }
}
