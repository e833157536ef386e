//! What belongs to the whole process, and to each of its workers.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, with_local_recorder};

use super::buckets::{Buckets, DELAY_BOUNDS};
use super::{
    ACCEPT_ERRORS, CLOSED_IDLE, CONNECTIONS, DENIED, Metrics, OVERHEAD, QUEUE, REFUSED, RETRIES,
};

impl Metrics {
    /// The handles that belong to the process.
    #[must_use]
    pub fn process(&self) -> ProcessMetrics {
        with_local_recorder(&*self.recorder, || ProcessMetrics {
            overhead: metrics::histogram!(OVERHEAD),
            connections: metrics::gauge!(CONNECTIONS),
            closed_idle: metrics::counter!(CLOSED_IDLE),
            accept_errors: metrics::counter!(ACCEPT_ERRORS),
            retries: Retries {
                unsent: metrics::counter!(RETRIES, "reason" => "unsent"),
                stale: metrics::counter!(RETRIES, "reason" => "stale"),
                reset: metrics::counter!(RETRIES, "reason" => "reset"),
                busy: metrics::counter!(RETRIES, "reason" => "busy"),
                timeout: metrics::counter!(RETRIES, "reason" => "timeout"),
                server_error: metrics::counter!(RETRIES, "reason" => "server_error"),
                denied: metrics::counter!(DENIED),
            },
            refused: metrics::counter!(REFUSED),
            queue_seconds: metrics::histogram!(QUEUE),
        })
    }
}

/// Handles that belong to the process.
#[derive(Debug, Clone)]
pub struct ProcessMetrics {
    /// Seconds of our own work for a request.
    pub overhead: Histogram,
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
    /// Seconds that a request waited for a place.
    pub queue_seconds: Histogram,
}

/// Requests sent again, by reason.
#[derive(Debug, Clone)]
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

/// What a worker tells of itself ten times a second; nothing of it is touched
/// for a request.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    delay: Buckets<{ DELAY_BOUNDS.len() + 1 }>,
    idle_links: AtomicUsize,
}

impl WorkerMetrics {
    /// Its event loop came to a timer so long after it was due.
    pub fn late(&self, by: Duration) {
        let slot = DELAY_BOUNDS.partition_point(|bound| by.as_secs_f64() > *bound);
        self.delay.add(slot, super::buckets::micros(by));
    }

    /// How late it has been: cumulative counts by [`DELAY_BOUNDS`], and the sum
    /// in microseconds.
    #[must_use]
    pub fn delay(&self) -> ([u64; DELAY_BOUNDS.len() + 1], u64) {
        self.delay.read()
    }

    /// Its pool holds so many idle connections.
    pub fn set_idle_links(&self, count: usize) {
        self.idle_links.store(count, Relaxed);
    }

    /// Idle connections to engines, as of the pool's last sweep.
    #[must_use]
    pub fn idle_links(&self) -> usize {
        self.idle_links.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_worker_is_counted_by_how_late() {
        let worker = WorkerMetrics::default();
        for millis in [0, 1, 3, 70, 60_000] {
            worker.late(Duration::from_millis(millis));
        }
        let (counts, sum) = worker.delay();
        assert_eq!(counts, [2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 5]);
        assert_eq!(sum, 60_074_000);
    }
}
