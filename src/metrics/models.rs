//! What is counted for each model, and which of them have a label of their own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::Counter;
use super::buckets::{
    Buckets, DURATION_BOUNDS, ITL_BOUNDS, TTFT_BOUNDS, TimeBuckets, TokenBuckets,
};

/// Statuses with a series of their own; any other is counted by its class.
const STATUSES: [u16; 28] = [
    101, 200, 201, 202, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 405, 408, 409, 413, 415,
    422, 429, 431, 499, 500, 501, 502, 503, 504,
];
const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Handles of one model's series.
pub struct ModelMetrics {
    model: Arc<str>,
    /// Requests that asked for it, from the moment when that is known.
    pub incoming: Counter,
    /// Seconds to the first piece of the body.
    pub ttft: TimeBuckets<{ TTFT_BOUNDS.len() + 1 }>,
    /// Seconds to the end of the answer.
    pub duration: TimeBuckets<{ DURATION_BOUNDS.len() + 1 }>,
    /// Body bytes taken from clients.
    pub request_bytes: Counter,
    /// Body bytes given to clients.
    pub response_bytes: Counter,
    /// Seconds between two pieces of a stream.
    pub itl: Buckets<{ ITL_BOUNDS.len() + 1 }>,
    /// Tokens of a prompt, where the engine told them.
    pub input_tokens: TokenBuckets,
    /// Tokens of an answer, as the engine told them, else events of its stream.
    pub output_tokens: TokenBuckets,
    requests: [AtomicU64; STATUSES.len() + CLASSES.len()],
}

impl std::fmt::Debug for ModelMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ModelMetrics({})", self.model)
    }
}

impl ModelMetrics {
    fn new(model: &str) -> Self {
        Self {
            model: Arc::from(model),
            incoming: Counter::default(),
            ttft: TimeBuckets::new(&TTFT_BOUNDS),
            duration: TimeBuckets::new(&DURATION_BOUNDS),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
            itl: Buckets::default(),
            input_tokens: TokenBuckets::default(),
            output_tokens: TokenBuckets::default(),
            requests: [const { AtomicU64::new(0) }; STATUSES.len() + CLASSES.len()],
        }
    }

    /// The value of the `model` label.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.model
    }

    /// Counts one answered request.
    pub fn count(&self, status: u16) {
        const OK: usize = 1;
        if status == STATUSES[OK] {
            self.requests[OK].fetch_add(1, Relaxed);
            return;
        }
        let slot = STATUSES.binary_search(&status).unwrap_or_else(|_| {
            let class = usize::from(status / 100);
            STATUSES.len() + if class < CLASSES.len() { class } else { 0 }
        });
        self.requests[slot].fetch_add(1, Relaxed);
    }

    /// Requests being served: those that came and have not been counted.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        // What ends meanwhile must not be missing among those that came.
        let ended: u64 = self.requests.iter().map(|count| count.load(Relaxed)).sum();
        self.incoming.get().saturating_sub(ended)
    }

    /// Answered requests by status, as far as there were any.
    pub fn answered(&self) -> impl Iterator<Item = (StatusLabel, u64)> {
        let counts = self.requests.iter().map(|count| count.load(Relaxed));
        let all = counts.enumerate().filter(|(_, count)| *count > 0);
        all.map(|(slot, count)| (StatusLabel(slot), count))
    }
}

/// A value of the `status` label.
#[derive(Debug, Clone, Copy)]
pub struct StatusLabel(usize);

impl std::fmt::Display for StatusLabel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match STATUSES.get(self.0) {
            Some(status) => status.fmt(f),
            None => f.write_str(CLASSES[self.0 - STATUSES.len()]),
        }
    }
}

/// Every model's handles; kept for the life of the process, since counters
/// must not fall when a model comes back.
#[derive(Debug, Default)]
pub struct ModelRegistry {
    models: HashMap<String, Arc<ModelMetrics>>,
    rendered: Arc<Mutex<Vec<Arc<ModelMetrics>>>>,
}

impl ModelRegistry {
    /// Label values at most.
    pub const MOST: usize = 1000;
    /// The label of names that no engine has served.
    pub const UNKNOWN: &'static str = "unknown";
    /// The label of names beyond [`ModelRegistry::MOST`].
    pub const OTHER: &'static str = "other";

    /// All models registered, for the exposition; locked by the control thread
    /// alone.
    #[must_use]
    pub fn rendered(&self) -> Arc<Mutex<Vec<Arc<ModelMetrics>>>> {
        Arc::clone(&self.rendered)
    }

    /// The handles of that model, made on first use.
    pub fn handles(&mut self, model: &str) -> Arc<ModelMetrics> {
        let label = if self.models.contains_key(model) || self.models.len() < Self::MOST {
            model
        } else {
            Self::OTHER
        };
        if let Some(known) = self.models.get(label) {
            return Arc::clone(known);
        }
        let made = Arc::new(ModelMetrics::new(label));
        self.models.insert(label.to_owned(), Arc::clone(&made));
        if let Ok(mut rendered) = self.rendered.lock() {
            rendered.push(Arc::clone(&made));
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_their_own_series_and_odd_ones_their_class() {
        assert!(STATUSES.is_sorted());
        let mut registry = ModelRegistry::default();
        let model = registry.handles("m");
        for status in [200, 200, 418, 999] {
            model.count(status);
        }
        let counts: Vec<(String, u64)> = (model.answered())
            .map(|(status, count)| (status.to_string(), count))
            .collect();
        let expected = [("200", 2), ("other", 1), ("4xx", 1)];
        assert_eq!(counts, expected.map(|(status, n)| (status.to_owned(), n)));
    }

    #[test]
    fn model_labels_are_bounded() {
        let mut registry = ModelRegistry::default();
        for n in 0..ModelRegistry::MOST + 5 {
            let _ = registry.handles(&format!("m{n}"));
        }
        assert_eq!(registry.handles("one more").label(), "other");
        assert_eq!(registry.handles("m1").label(), "m1");
        let rendered = registry.rendered();
        assert_eq!(rendered.lock().unwrap().len(), ModelRegistry::MOST + 1);
    }
}
