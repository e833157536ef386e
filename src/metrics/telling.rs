//! What was told of requests, and what was lost.

use metrics::{Counter, counter, describe_counter, with_local_recorder};

use super::Metrics;

const LINES_DROPPED: &str = "pilotfish_access_log_dropped_total";
const SPANS_EXPORTED: &str = "pilotfish_spans_exported_total";
const SPANS_DROPPED: &str = "pilotfish_spans_dropped_total";

/// Handles of the access log's and the traces' series.
#[derive(Debug, Clone)]
pub struct Telling {
    /// Lines that nobody could write in time, or at all.
    pub lines_dropped: Counter,
    /// Spans that a collector took.
    pub spans_exported: Counter,
    /// Spans that none took in time, or at all.
    pub spans_dropped: Counter,
}

impl Metrics {
    /// The handles of the access log and of traces.
    #[must_use]
    pub fn telling(&self) -> Telling {
        with_local_recorder(&*self.recorder, || {
            describe_counter!(LINES_DROPPED, "Lines of the access log that were lost.");
            describe_counter!(SPANS_EXPORTED, "Spans that the collector took.");
            describe_counter!(SPANS_DROPPED, "Spans that were lost.");
            Telling {
                lines_dropped: counter!(LINES_DROPPED),
                spans_exported: counter!(SPANS_EXPORTED),
                spans_dropped: counter!(SPANS_DROPPED),
            }
        })
    }
}
