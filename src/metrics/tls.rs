//! What is counted of TLS.

use super::Counter;
use super::buckets::{DELAY_BOUNDS, TimeBuckets};

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// It did not end in time.
    Timeout,
    /// The client left.
    Left,
    /// The client spoke plain HTTP.
    Plain,
    /// The client's certificate is missing, or not good.
    Certificate,
    /// The client refused: most often it does not know who issued ours.
    Refused,
    /// No version, cipher or protocol in common, or no TLS at all.
    Protocol,
    /// It waited for longest when there were too many.
    Crowded,
}

impl HandshakeFailure {
    /// All, with their names, in their order.
    const ALL: [(Self, &'static str); 7] = [
        (Self::Timeout, "timeout"),
        (Self::Left, "left"),
        (Self::Plain, "plain_http"),
        (Self::Certificate, "client_certificate"),
        (Self::Refused, "refused_by_client"),
        (Self::Protocol, "protocol"),
        (Self::Crowded, "crowded"),
    ];
}

/// Handshakes, and certificates that were replaced.
#[derive(Debug)]
pub struct TlsMetrics {
    /// Handshakes that made a session.
    pub full: Counter,
    /// Handshakes that took one up again.
    pub resumed: Counter,
    failures: [Counter; HandshakeFailure::ALL.len()],
    /// From a handshake's first byte to its end.
    pub seconds: TimeBuckets<{ DELAY_BOUNDS.len() + 1 }>,
    /// Files put in force while we served.
    pub reloads: Counter,
    /// Files refused while we served.
    pub reload_failures: Counter,
}

impl Default for TlsMetrics {
    fn default() -> Self {
        Self {
            full: Counter::default(),
            resumed: Counter::default(),
            failures: Default::default(),
            seconds: TimeBuckets::new(&DELAY_BOUNDS),
            reloads: Counter::default(),
            reload_failures: Counter::default(),
        }
    }
}

impl TlsMetrics {
    /// One has failed.
    pub fn failed(&self, why: HandshakeFailure) {
        self.failures[why as usize].increment(1);
    }

    /// Those that failed, with their reasons.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = HandshakeFailure::ALL.iter().zip(&self.failures);
        all.map(|((_, name), count)| (*name, count.get()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_counted_under_its_name() {
        for (index, (why, name)) in HandshakeFailure::ALL.into_iter().enumerate() {
            let metrics = TlsMetrics::default();
            metrics.failed(why);
            let counted: Vec<_> = metrics
                .failures()
                .filter(|(_, count)| *count == 1)
                .collect();
            assert_eq!(counted, [(name, 1)], "{index}");
        }
    }
}
