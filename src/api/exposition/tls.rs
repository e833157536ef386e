//! TLS, where there is any.

use super::{Kind, escaped, family, line, series, single, times};
use crate::metrics::TlsMetrics;

/// Appends what is counted of handshakes with clients.
pub(in crate::api) fn handshakes(out: &mut String, metrics: &TlsMetrics) {
    let name = "pilotfish_tls_handshakes_total";
    let help = "Handshakes that succeeded, by whether a session was taken up again.";
    family(out, name, Kind::Counter, help);
    for (kind, count) in [("full", &metrics.full), ("resumed", &metrics.resumed)] {
        series(out, name, ("session", kind), count.get());
    }
    let name = "pilotfish_tls_handshake_failures_total";
    let help = "Handshakes that failed, by reason.";
    family(out, name, Kind::Counter, help);
    for (reason, count) in metrics.failures() {
        series(out, name, ("reason", reason), count);
    }
    let name = "pilotfish_tls_handshake_seconds";
    let help = "From a handshake's first byte to its end.";
    family(out, name, Kind::Histogram, help);
    times(out, name, "", &metrics.seconds);
}

/// Appends what is known of certificates: files with the time when they expire,
/// and how often they were replaced.
pub(in crate::api) fn certificates(
    out: &mut String,
    expiries: &[(String, u64)],
    metrics: &TlsMetrics,
) {
    for (name, help, count) in [
        (
            "pilotfish_tls_reloads_total",
            "Certificates put in force while we served.",
            &metrics.reloads,
        ),
        (
            "pilotfish_tls_reload_failures_total",
            "Certificate files refused while we served.",
            &metrics.reload_failures,
        ),
    ] {
        single(out, name, Kind::Counter, help, &count.get().to_string());
    }
    let name = "pilotfish_tls_certificate_expiry_timestamp_seconds";
    let help = "When a file's certificate expires (of several authorities, the first), since the Unix epoch.";
    family(out, name, Kind::Gauge, help);
    for (file, at) in expiries {
        line(
            out,
            format_args!("{name}{{file=\"{}\"}} {at}", escaped(file)),
        );
    }
}
