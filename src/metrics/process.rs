//! What belongs to the whole process, and to each of its workers.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::buckets::{DELAY_BOUNDS, OVERHEAD_BOUNDS, TTFT_BOUNDS, TimeBuckets};
use super::{Counter, Gauge, Telling, TlsMetrics};

/// What belongs to the process.
#[derive(Debug)]
pub struct ProcessMetrics {
    /// Our own work for a request.
    pub overhead: TimeBuckets<{ OVERHEAD_BOUNDS.len() + 1 }>,
    /// Open client connections.
    pub connections: Gauge,
    /// Idle client connections closed to make room.
    pub closed_idle: Counter,
    /// Client connections that could not be taken.
    pub accept_errors: Counter,
    /// Requests sent again.
    pub retries: Retries,
    /// Requests that got a 429 of our own.
    pub refused: Counter,
    /// How long requests waited for a place.
    pub queue: TimeBuckets<{ TTFT_BOUNDS.len() + 1 }>,
    /// What was told of requests.
    pub telling: Telling,
    /// Handshakes.
    pub tls: TlsMetrics,
}

impl Default for ProcessMetrics {
    fn default() -> Self {
        Self {
            overhead: TimeBuckets::new(&OVERHEAD_BOUNDS),
            connections: Gauge::default(),
            closed_idle: Counter::default(),
            accept_errors: Counter::default(),
            retries: Retries::default(),
            refused: Counter::default(),
            queue: TimeBuckets::new(&TTFT_BOUNDS),
            telling: Telling::default(),
            tls: TlsMetrics::default(),
        }
    }
}

/// Requests sent again, by reason.
#[derive(Debug, Default)]
pub struct Retries {
    /// The engine could not be reached.
    pub unsent: Counter,
    /// An idle connection had just been closed.
    pub stale: Counter,
    /// The connection broke before the answer.
    pub reset: Counter,
    /// 429 or 503.
    pub busy: Counter,
    /// No answer in time.
    pub timeout: Counter,
    /// Another 5xx.
    pub server_error: Counter,
    /// Not sent again, as the budget was spent.
    pub denied: Counter,
}

impl Retries {
    /// Those that were sent again, with their reasons.
    #[must_use]
    pub fn each(&self) -> [(&'static str, &Counter); 6] {
        [
            ("unsent", &self.unsent),
            ("stale", &self.stale),
            ("reset", &self.reset),
            ("busy", &self.busy),
            ("timeout", &self.timeout),
            ("server_error", &self.server_error),
        ]
    }
}

/// What a worker tells of itself ten times a second; nothing of it is touched
/// for a request.
#[derive(Debug)]
pub struct WorkerMetrics {
    /// How late its event loop came to a timer.
    pub delay: TimeBuckets<{ DELAY_BOUNDS.len() + 1 }>,
    idle_links: AtomicUsize,
    tasks: AtomicUsize,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        Self {
            delay: TimeBuckets::new(&DELAY_BOUNDS),
            idle_links: AtomicUsize::new(0),
            tasks: AtomicUsize::new(0),
        }
    }
}

impl WorkerMetrics {
    /// Its pool holds so many idle connections.
    pub fn set_idle_links(&self, count: usize) {
        self.idle_links.store(count, Relaxed);
    }

    /// Idle connections to engines, as of the pool's last sweep.
    #[must_use]
    pub fn idle_links(&self) -> usize {
        self.idle_links.load(Relaxed)
    }

    /// Its runtime has so many tasks.
    pub fn set_tasks(&self, count: usize) {
        self.tasks.store(count, Relaxed);
    }

    /// Tasks that have not ended, as of the pool's last sweep.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tasks.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_late_worker_is_counted_by_how_late() {
        let worker = WorkerMetrics::default();
        for millis in [0, 1, 3, 70, 60_000] {
            worker.delay.observe(Duration::from_millis(millis));
        }
        let (_, counts, sum) = worker.delay.read();
        assert_eq!(counts, [2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 5]);
        assert!((sum - 60.074).abs() < 1e-9);
    }
}
