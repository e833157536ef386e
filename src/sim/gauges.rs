//! What the simulated engine tells of itself at `/metrics`: vLLM's names and
//! labels, moving as its work does.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Seconds; vLLM's buckets for the time to the first token.
const TTFT_BOUNDS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 1.0, 2.5,
];
/// Seconds; vLLM's buckets for the time between tokens.
const ITL_BOUNDS: [f64; 12] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0,
];

/// A histogram with fixed bounds.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; 13],
    sum_us: AtomicU64,
}

impl Histogram {
    fn observe(&self, bounds: &[f64; 12], value: Duration) {
        let seconds = value.as_secs_f64();
        let slot = bounds.iter().filter(|bound| seconds > **bound).count();
        self.counts[slot].fetch_add(1, Relaxed);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        self.sum_us.fetch_add(micros, Relaxed);
    }

    fn reset(&self) {
        self.counts.iter().for_each(|count| count.store(0, Relaxed));
        self.sum_us.store(0, Relaxed);
    }
}

/// Everything counted.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Sequences running.
    pub running: AtomicU64,
    /// Sequences waiting.
    pub waiting: AtomicU64,
    /// Blocks in use, of those there are.
    pub kv_blocks: AtomicU64,
    /// Prompt tokens taken.
    pub prompt_tokens: AtomicU64,
    /// Tokens generated.
    pub generation_tokens: AtomicU64,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_queries: AtomicU64,
    /// Prompt tokens found there.
    pub prefix_hits: AtomicU64,
    /// Requests answered whole.
    pub succeeded: AtomicU64,
    /// Requests whose client left.
    pub aborted: AtomicU64,
    ttft: Histogram,
    itl: Histogram,
}

impl Gauges {
    /// Records the time to a first token.
    pub fn first_token(&self, after: Duration) {
        self.ttft.observe(&TTFT_BOUNDS, after);
    }

    /// Records the time between two tokens.
    pub fn next_token(&self, after: Duration) {
        self.itl.observe(&ITL_BOUNDS, after);
    }

    /// Sets every counter to 0, as a restart does; what runs now still runs.
    pub fn restart(&self) {
        for counter in [
            &self.prompt_tokens,
            &self.generation_tokens,
            &self.prefix_queries,
            &self.prefix_hits,
            &self.succeeded,
            &self.aborted,
        ] {
            counter.store(0, Relaxed);
        }
        self.ttft.reset();
        self.itl.reset();
    }

    /// Requests that wait, and the share of so many blocks that is in use.
    pub(super) fn load(&self, blocks: usize) -> (u64, f64) {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 blocks")]
        let usage = self.kv_blocks.load(Relaxed) as f64 / blocks.max(1) as f64;
        (self.waiting.load(Relaxed), usage.min(1.0))
    }

    /// The page, for an engine with this model and so many blocks in all.
    #[must_use]
    pub fn render(&self, model: &str, blocks: usize) -> String {
        let mut page = Page {
            out: String::new(),
            labels: format!("engine=\"0\",model_name=\"{model}\""),
        };
        let (waiting, usage) = self.load(blocks);
        page.value("num_requests_running", "gauge", &self.running.load(Relaxed));
        page.value("num_requests_waiting", "gauge", &waiting);
        page.value("kv_cache_usage_perc", "gauge", &usage);
        for (name, counter) in [
            ("prompt_tokens_total", &self.prompt_tokens),
            ("generation_tokens_total", &self.generation_tokens),
            ("prefix_cache_queries_total", &self.prefix_queries),
            ("prefix_cache_hits_total", &self.prefix_hits),
            ("request_success_total", &self.succeeded),
        ] {
            page.value(name, "counter", &counter.load(Relaxed));
        }
        page.histogram("time_to_first_token_seconds", &TTFT_BOUNDS, &self.ttft);
        page.histogram("inter_token_latency_seconds", &ITL_BOUNDS, &self.itl);
        page.line(format_args!("# TYPE sim_requests_aborted_total counter"));
        let aborted = self.aborted.load(Relaxed);
        page.line(format_args!("sim_requests_aborted_total {aborted}"));
        page.out
    }
}

struct Page {
    out: String,
    labels: String,
}

impl Page {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "{text}");
    }

    fn value(&mut self, name: &str, kind: &str, value: &dyn std::fmt::Display) {
        self.line(format_args!("# TYPE vllm:{name} {kind}"));
        let labels = self.labels.clone();
        self.line(format_args!("vllm:{name}{{{labels}}} {value}"));
    }

    fn histogram(&mut self, name: &str, bounds: &[f64; 12], histogram: &Histogram) {
        self.line(format_args!("# TYPE vllm:{name} histogram"));
        let labels = self.labels.clone();
        let mut count = 0;
        for (i, slot) in histogram.counts.iter().enumerate() {
            count += slot.load(Relaxed);
            let bound = bounds.get(i).map_or("+Inf".to_owned(), ToString::to_string);
            self.line(format_args!(
                "vllm:{name}_bucket{{{labels},le=\"{bound}\"}} {count}"
            ));
        }
        let sum = Duration::from_micros(histogram.sum_us.load(Relaxed)).as_secs_f64();
        self.line(format_args!("vllm:{name}_sum{{{labels}}} {sum}"));
        self.line(format_args!("vllm:{name}_count{{{labels}}} {count}"));
    }
}
