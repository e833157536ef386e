//! Prometheus' text format 0.0.4.
//!
//! Values live in what they describe: an engine that left the fleet is gone from
//! the next page, which no exporter with a registry of its own can do.

mod callers;
#[cfg(feature = "kubernetes")]
pub mod cluster;
mod engines;
mod models;
mod process;
mod smart;
mod tls;

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

pub use callers::callers;
pub(super) use engines::engines;
pub use engines::finished;
pub(super) use models::{models, policies};
pub(super) use process::{Process, counts, process, refusals, workers};
pub use smart::smart;
pub(super) use smart::smart_policies;
pub(super) use tls::{certificates, handshakes};

use crate::fleet::{Candidate, Snapshot};
use crate::metrics::TimeBuckets;

/// What Prometheus calls the type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bounds.
    Histogram,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// An engine of the fleet, with its URL as a label has it.
pub(super) struct Shown<'a> {
    pub(super) one: &'a Candidate,
    pub(super) url: Cow<'a, str>,
}

/// Every engine, in the order of the snapshot's own list.
pub(super) fn shown(snapshot: &Snapshot) -> Vec<Shown<'_>> {
    let all = snapshot.all.candidates.list().iter();
    let shown = all.map(|one| Shown {
        url: escaped(one.engine.url.text()),
        one,
    });
    shown.collect()
}

/// Appends a family of one series without labels.
pub fn single(out: &mut String, name: &str, kind: Kind, help: &str, value: &str) {
    family(out, name, kind, help);
    line(out, format_args!("{name} {value}"));
}

/// Appends what stands before a family's series.
pub(super) fn family(out: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = kind.name();
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {kind}"));
}

/// Appends a line.
pub(super) fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

/// Appends a series with one label, whose value is escaped already.
pub(super) fn series(out: &mut String, name: &str, (label, of): (&str, &str), value: impl Display) {
    for part in [name, "{", label, "=\"", of, "\"} "] {
        out.push_str(part);
    }
    line(out, format_args!("{value}"));
}

/// Appends one histogram of a family; `labels` are written, if there are any.
/// Of `counts`, cumulative, the last is all.
pub(super) fn histogram(
    out: &mut String,
    name: &str,
    labels: &str,
    (bounds, counts): (&[f64], &[u64]),
    sum: impl Display,
) {
    let (comma, whole) = match labels {
        "" => ("", String::new()),
        labels => (",", format!("{{{labels}}}")),
    };
    for (bound, count) in bounds.iter().zip(counts) {
        line(
            out,
            format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"),
        );
    }
    let all = counts.last().copied().unwrap_or(0);
    line(
        out,
        format_args!("{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {all}"),
    );
    line(out, format_args!("{name}_sum{whole} {sum}"));
    line(out, format_args!("{name}_count{whole} {all}"));
}

/// The same, of times.
pub(super) fn times<const SLOTS: usize>(
    out: &mut String,
    name: &str,
    labels: &str,
    times: &TimeBuckets<SLOTS>,
) {
    let (bounds, counts, sum) = times.read();
    histogram(out, name, labels, (bounds, &counts), sum);
}

/// Microseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "a sum of times")]
pub(super) fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// A label's value, escaped as the format asks.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(text);
    }
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(text.replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), r#"a\"b\\c\nd"#);
        assert!(matches!(escaped("http://a:1"), Cow::Borrowed(_)));
    }

    #[test]
    fn series_are_lines() {
        let mut out = String::new();
        single(&mut out, "a", Kind::Gauge, "Help.", "1");
        series(&mut out, "b", ("x", "y"), 0.5);
        histogram(&mut out, "c", "x=\"y\"", (&[0.1, 2.0], &[1, 2, 4]), 3.5);
        let expected = [
            "# HELP a Help.",
            "# TYPE a gauge",
            "a 1",
            r#"b{x="y"} 0.5"#,
            r#"c_bucket{x="y",le="0.1"} 1"#,
            r#"c_bucket{x="y",le="2"} 2"#,
            r#"c_bucket{x="y",le="+Inf"} 4"#,
            r#"c_sum{x="y"} 3.5"#,
            r#"c_count{x="y"} 4"#,
        ];
        assert_eq!(out.lines().collect::<Vec<_>>(), expected);
    }
}
