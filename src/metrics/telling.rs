//! What was told of requests, and what was lost.

use super::Counter;

/// Handles of the access log's and the traces' series.
#[derive(Debug, Clone, Default)]
pub struct Telling {
    /// Lines that nobody could write in time, or at all.
    pub lines_dropped: Counter,
    /// Spans that a collector took.
    pub spans_exported: Counter,
    /// Spans that none took in time, or at all.
    pub spans_dropped: Counter,
}
