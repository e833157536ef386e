//! The names by which engines' properties go in goals, pages and records.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use super::path::{lookup, number};

/// A live attribute: what an engine tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// Sequences being generated.
    RequestsRunning,
    /// Sequences that wait for a place.
    RequestsWaiting,
    /// Of the memory for keys and values, 0 to 1.
    KvCacheUsage,
    /// Prompt tokens found in the prefix cache, of those looked up, 0 to 1.
    PrefixCacheHitRate,
    /// Prompt tokens found in the prefix cache since the engine's start.
    PrefixCacheHits,
    /// Prompt tokens looked up there.
    PrefixCacheQueries,
    /// Tokens generated a second.
    TokensPerSecond,
    /// Prompt tokens taken a second.
    PromptTokensPerSecond,
    /// Milliseconds to the first token.
    TtftMs,
    /// Milliseconds between two tokens.
    ItlMs,
    /// Milliseconds that whole requests took.
    E2eLatencyMs,
    /// Hours since the engine's process began; if it does not tell, since it was
    /// first seen.
    UptimeHours,
    /// Tokens generated a second when it last generated any.
    BusyTokensPerSecond,
    /// Adapters that it works with, or is asked for.
    LoraAdapters,
    /// Tokens of a prompt and its answer at most.
    MaxModelLen,
    /// Tokens that its memory for keys and values holds.
    KvCacheTokens,
    /// Sequences that wait for a place, on average over the last minute.
    QueueAverage1m,
    /// The same over 5 minutes.
    QueueAverage5m,
    /// The same over 15 minutes.
    QueueAverage15m,
    /// Seconds that our last answered requests took.
    LatencyNow,
    /// The same on average over the last minute.
    LatencyAverage1m,
    /// The same over 5 minutes.
    LatencyAverage5m,
    /// The same over 15 minutes.
    LatencyAverage15m,
    /// One over the seconds that our last answered requests took.
    FpsNow,
    /// The same on average over the last minute.
    FpsAverage1m,
    /// The same over 5 minutes.
    FpsAverage5m,
    /// The same over 15 minutes.
    FpsAverage15m,
    /// Requests that it answered for us, a second.
    TasksNow,
    /// The same on average over the last minute.
    TasksAverage1m,
    /// The same over 5 minutes.
    TasksAverage5m,
    /// The same over 15 minutes.
    TasksAverage15m,
    /// Requests that it answered for us since it was first seen.
    TasksTotal,
}

impl Live {
    /// All of them, with the names by which they are known.
    pub const ALL: [(Self, &'static str); 32] = [
        (Self::RequestsRunning, "requests_running"),
        (Self::RequestsWaiting, "requests_waiting"),
        (Self::KvCacheUsage, "kv_cache_usage"),
        (Self::PrefixCacheHitRate, "prefix_cache_hit_rate"),
        (Self::PrefixCacheHits, "prefix_cache_hits"),
        (Self::PrefixCacheQueries, "prefix_cache_queries"),
        (Self::TokensPerSecond, "tokens_per_second"),
        (Self::PromptTokensPerSecond, "prompt_tokens_per_second"),
        (Self::TtftMs, "ttft_ms"),
        (Self::ItlMs, "itl_ms"),
        (Self::E2eLatencyMs, "e2e_latency_ms"),
        (Self::UptimeHours, "uptime_hours"),
        (Self::BusyTokensPerSecond, "llm_tokens_per_second"),
        (Self::LoraAdapters, "lora_adapters"),
        (Self::MaxModelLen, "max_model_len"),
        (Self::KvCacheTokens, "kv_cache_tokens"),
        (Self::QueueAverage1m, "queue_length.average_1m"),
        (Self::QueueAverage5m, "queue_length.average_5m"),
        (Self::QueueAverage15m, "queue_length.average_15m"),
        (Self::LatencyNow, "latency.current"),
        (Self::LatencyAverage1m, "latency.average_1m"),
        (Self::LatencyAverage5m, "latency.average_5m"),
        (Self::LatencyAverage15m, "latency.average_15m"),
        (Self::FpsNow, "fps.current"),
        (Self::FpsAverage1m, "fps.average_1m"),
        (Self::FpsAverage5m, "fps.average_5m"),
        (Self::FpsAverage15m, "fps.average_15m"),
        (Self::TasksNow, "tasks_processed.current"),
        (Self::TasksAverage1m, "tasks_processed.average_1m"),
        (Self::TasksAverage5m, "tasks_processed.average_5m"),
        (Self::TasksAverage15m, "tasks_processed.average_15m"),
        (Self::TasksTotal, "end_to_end_count_total"),
    ];

    /// The AIOS reference's names for some of them.
    pub const ALIASES: [(&'static str, Self); 6] = [
        ("llm_active_sessions", Self::RequestsRunning),
        ("queue_length", Self::RequestsWaiting),
        ("queue_length.current", Self::RequestsWaiting),
        ("end_to_end_latency", Self::LatencyNow),
        ("end_to_end_fps", Self::FpsNow),
        ("tasks_processed_total", Self::TasksTotal),
    ];

    /// The one of that name, or alias.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let known = Self::ALL.iter().map(|(live, known)| (*known, *live));
        let mut known = known.chain(Self::ALIASES);
        known
            .find(|(known, _)| *known == name)
            .map(|(_, live)| live)
    }

    /// What its values are counted in.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::RequestsRunning
            | Self::RequestsWaiting
            | Self::QueueAverage1m
            | Self::QueueAverage5m
            | Self::QueueAverage15m
            | Self::TasksTotal => "requests",
            Self::KvCacheUsage | Self::PrefixCacheHitRate => "share",
            Self::PrefixCacheHits
            | Self::PrefixCacheQueries
            | Self::MaxModelLen
            | Self::KvCacheTokens => "tokens",
            Self::TokensPerSecond | Self::PromptTokensPerSecond | Self::BusyTokensPerSecond => {
                "tokens/s"
            }
            Self::TtftMs | Self::ItlMs | Self::E2eLatencyMs => "ms",
            Self::UptimeHours => "hours",
            Self::LoraAdapters => "adapters",
            Self::LatencyNow
            | Self::LatencyAverage1m
            | Self::LatencyAverage5m
            | Self::LatencyAverage15m => "s",
            Self::FpsNow | Self::FpsAverage1m | Self::FpsAverage5m | Self::FpsAverage15m => "1/s",
            Self::TasksNow
            | Self::TasksAverage1m
            | Self::TasksAverage5m
            | Self::TasksAverage15m => "requests/s",
        }
    }
}

/// Attributes of the configuration's own at most.
pub const MOST_OWN: usize = 16;

/// Where an engine keeps a live attribute: the built-in ones first, then those
/// that the configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place(u8);

impl Place {
    /// How many there are.
    pub const COUNT: usize = Live::ALL.len() + MOST_OWN;

    /// The place at that index, if there is one.
    #[must_use]
    pub fn at(index: usize) -> Option<Self> {
        let index = u8::try_from(index).ok()?;
        (usize::from(index) < Self::COUNT).then_some(Self(index))
    }

    /// The place of the `n`th attribute of the configuration's own.
    #[must_use]
    pub fn own(n: usize) -> Option<Self> {
        Self::at(Live::ALL.len() + n)
    }

    /// Whether its value is the same for as long as the engine lives, hence never
    /// stale: what its model cards tell.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        self == Self::from(Live::MaxModelLen)
    }

    /// Whether what several engines have of it is added up: queues, sessions,
    /// tasks and totals; of all else it is the mean.
    #[must_use]
    pub fn adds_up(self) -> bool {
        const SUMS: [Live; 12] = [
            Live::RequestsRunning,
            Live::RequestsWaiting,
            Live::PrefixCacheHits,
            Live::PrefixCacheQueries,
            Live::QueueAverage1m,
            Live::QueueAverage5m,
            Live::QueueAverage15m,
            Live::TasksNow,
            Live::TasksAverage1m,
            Live::TasksAverage5m,
            Live::TasksAverage15m,
            Live::TasksTotal,
        ];
        SUMS.iter().any(|live| Self::from(*live) == self)
    }

    /// Whether it is of our own making, from what we saw: no page tells it.
    #[must_use]
    pub fn is_measured(self) -> bool {
        (Live::QueueAverage1m as usize..=Live::TasksTotal as usize).contains(&self.index())
    }

    /// Whether engines' pages have to be read for it.
    #[must_use]
    pub fn is_read(self) -> bool {
        !self.is_measured() || self.index() <= Live::QueueAverage15m as usize
    }

    /// From 0 to below [`Self::COUNT`].
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl From<Live> for Place {
    fn from(live: Live) -> Self {
        Self(live as u8)
    }
}

/// A value for each [`Place`]. `None`: it is not known any more; NaN: there is
/// nothing new to tell.
pub type Values = [Option<f64>; Place::COUNT];

/// What a goal may look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// What the engine tells of itself.
    Live(Place),
    /// Requests of ours that it works on.
    InFlight,
    /// Their tokens, by estimate.
    OutstandingTokens,
    /// Milliseconds to the first token, as we see it.
    Latency,
    /// The price of a million prompt tokens.
    InputPrice,
    /// The price of a million generated tokens.
    OutputPrice,
    /// A number of its metadata, by its place among [`super::Routing::columns`].
    Column(usize),
    /// A number of its metadata that a request looks at, by its path.
    Path(Arc<str>),
}

impl Attribute {
    /// What is known of every engine, beside what it tells of itself.
    pub const OURS: [(Self, &'static str); 5] = [
        (Self::InFlight, "in_flight"),
        (Self::OutstandingTokens, "outstanding_tokens"),
        (Self::Latency, "latency_ms"),
        (Self::InputPrice, "cost_per_input_mtok"),
        (Self::OutputPrice, "cost_per_output_mtok"),
    ];

    /// Whether what several engines have of it is added up; else it is their
    /// mean.
    #[must_use]
    pub fn adds_up(&self) -> bool {
        match self {
            Self::InFlight | Self::OutstandingTokens => true,
            Self::Live(place) => place.adds_up(),
            _ => false,
        }
    }

    /// The attribute of that name: a built-in one, one of the configuration's
    /// `own`, else a key of the metadata, which gets a place among `columns`.
    #[must_use]
    pub fn named(name: &str, own: &[OwnAttribute], columns: &mut Vec<String>) -> Self {
        let live = Live::named(name).map(Place::from);
        let of_own = || own.iter().find(|own| &*own.name == name);
        let live = live.or_else(|| of_own().map(|own| own.place));
        if let Some(place) = live {
            return Self::Live(place);
        }
        if let Some((ours, _)) = Self::OURS.iter().find(|(_, known)| *known == name) {
            return ours.clone();
        }
        let known = columns.iter().position(|column| column == name);
        Self::Column(known.unwrap_or_else(|| {
            columns.push(name.to_owned());
            columns.len() - 1
        }))
    }
}

/// A live attribute that the configuration tells how to read from engines'
/// metrics; a built-in one, or one of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnAttribute {
    /// By which it is known.
    pub name: Arc<str>,
    /// Where it is kept.
    pub place: Place,
    /// The metric.
    pub metric: String,
    /// Only samples with these labels count.
    pub labels: BTreeMap<String, String>,
    /// How several samples become one.
    pub aggregate: Aggregate,
    /// What is made of it.
    pub how: How,
    /// By what the outcome is multiplied.
    pub scale: f64,
}

/// How several samples of a metric become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// All together.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// Their mean.
    Mean,
}

/// What is made of a metric.
#[derive(Debug, Clone, PartialEq)]
pub enum How {
    /// Its value.
    Now,
    /// By how much it grows a second.
    Rate,
    /// By how much it grows, for each unit by which this other metric, with the
    /// same labels, does.
    Over(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_in_the_order_of_the_names() {
        for (index, (live, name)) in Live::ALL.into_iter().enumerate() {
            assert_eq!(Place::from(live).index(), index);
            assert_eq!(Live::named(name), Some(live));
            assert!(!live.unit().is_empty());
        }
        for (alias, live) in Live::ALIASES {
            assert_eq!(Live::named(alias), Some(live));
        }
        assert_eq!(Place::own(MOST_OWN), None);
        assert_eq!(Place::own(0).unwrap().index(), Live::ALL.len());
    }

    #[test]
    fn what_we_measure_is_told_from_what_is_read() {
        for (live, name) in Live::ALL {
            let place = Place::from(live);
            let first = name.split('.').next().unwrap();
            let ours = [
                "latency",
                "fps",
                "tasks_processed",
                "end_to_end_count_total",
            ];
            let is_ours = ours.contains(&first);
            assert_eq!(place.is_read(), !is_ours, "{name}");
            let is_average = first == "queue_length";
            assert_eq!(place.is_measured(), is_ours || is_average, "{name}");
        }
        let own = Place::own(0).unwrap();
        assert!(own.is_read() && !own.is_measured());
    }

    #[test]
    fn metadata_cannot_say_what_we_know() {
        let mut columns = Vec::new();
        let names = Live::ALL.map(|(_, name)| name).into_iter();
        for name in names.chain(Live::ALIASES.map(|(name, _)| name)) {
            let attribute = Attribute::named(name, &[], &mut columns);
            assert!(matches!(attribute, Attribute::Live(_)), "{name}");
        }
        assert!(columns.is_empty());
    }
}
