//! Per-engine series and inter-token latency in Prometheus' text format 0.0.4.
//!
//! Written by ourselves, since the exporter cannot forget a series: an engine
//! that left the fleet is gone from the next page, as its values live in
//! [`Engine`] and nowhere else.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::fleet::engine::Outcome;
use crate::fleet::{Engine, Snapshot};
use crate::metrics::{ITL, ITL_BOUNDS, ModelMetrics};

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

/// A family of one value for each engine.
type Family = (&'static str, Kind, &'static str, fn(&Engine) -> u64);

const FAMILIES: [Family; 6] = [
    (
        "pilotfish_engine_in_flight",
        Kind::Gauge,
        "Requests that an engine was picked for and that have not ended.",
        |engine| u64::from(engine.in_flight.load(Relaxed)),
    ),
    (
        "pilotfish_upstream_connects_total",
        Kind::Counter,
        "TCP connections made to an engine.",
        |engine| engine.connects.load(Relaxed),
    ),
    (
        "pilotfish_upstream_reuses_total",
        Kind::Counter,
        "Requests sent on a connection that had served one before.",
        |engine| engine.reuses.load(Relaxed),
    ),
    (
        "pilotfish_upstream_stale_total",
        Kind::Counter,
        "Connections that an engine had closed just as they were reused.",
        |engine| engine.stale.load(Relaxed),
    ),
    (
        "pilotfish_engine_ejections_total",
        Kind::Counter,
        "Times that an engine was set aside for its failures.",
        |engine| engine.health.ejections(),
    ),
    (
        "pilotfish_engine_probes_total",
        Kind::Counter,
        "Times that we asked an engine how it is.",
        |engine| engine.probes.load(Relaxed),
    ),
];

/// Appends every engine's series.
pub fn engines(out: &mut String, snapshot: &Snapshot) {
    let engines = engines_of(snapshot);
    for (name, kind, help, value) in FAMILIES {
        family(out, name, kind, help);
        for engine in &engines {
            let url = Escaped(engine.url.text());
            line(
                out,
                format_args!("{name}{{engine=\"{url}\"}} {}", value(engine)),
            );
        }
    }
    let name = "pilotfish_engine_up";
    family(
        out,
        name,
        Kind::Gauge,
        "1 for an engine that may be asked, 0 for one that is set aside.",
    );
    for engine in &engines {
        let url = Escaped(engine.url.text());
        let is_up = u8::from(engine.health.is_up(snapshot.epoch.elapsed()));
        line(out, format_args!("{name}{{engine=\"{url}\"}} {is_up}"));
    }
    let name = "pilotfish_engine_requests_total";
    family(
        out,
        name,
        Kind::Counter,
        "Ended requests of an engine, by outcome.",
    );
    for engine in &engines {
        let url = Escaped(engine.url.text());
        for (outcome, label) in Outcome::ALL {
            let count = engine.ended(outcome);
            line(
                out,
                format_args!("{name}{{engine=\"{url}\",outcome=\"{label}\"}} {count}"),
            );
        }
    }
}

fn engines_of(snapshot: &Snapshot) -> Vec<&Engine> {
    let candidates = snapshot.all.candidates.list();
    candidates.iter().map(|one| &*one.engine).collect()
}

/// Requests of an engine that have ended, whichever way.
#[must_use]
pub fn finished(engine: &Engine) -> u64 {
    Outcome::ALL
        .iter()
        .map(|(outcome, _)| engine.ended(*outcome))
        .sum()
}

/// Appends the inter-token latency of every model that has had any.
pub fn inter_token(out: &mut String, models: &[Arc<ModelMetrics>]) {
    family(
        out,
        ITL,
        Kind::Histogram,
        "Between two pieces of a streamed answer.",
    );
    for model in models {
        let (counts, sum) = model.itl.read();
        let all = counts[ITL_BOUNDS.len()];
        if all == 0 {
            continue;
        }
        let label = Escaped(model.label());
        for (bound, count) in ITL_BOUNDS.iter().zip(counts) {
            line(
                out,
                format_args!("{ITL}_bucket{{model=\"{label}\",le=\"{bound}\"}} {count}"),
            );
        }
        line(
            out,
            format_args!("{ITL}_bucket{{model=\"{label}\",le=\"+Inf\"}} {all}"),
        );
        line(out, format_args!("{ITL}_sum{{model=\"{label}\"}} {sum}"));
        line(out, format_args!("{ITL}_count{{model=\"{label}\"}} {all}"));
    }
}

/// Appends the count of allocations since the start.
#[cfg(feature = "count-allocations")]
pub fn allocations(out: &mut String) {
    let name = "pilotfish_allocations_total";
    let count = stats_alloc::INSTRUMENTED_SYSTEM.stats().allocations;
    family(
        out,
        name,
        Kind::Counter,
        "Heap allocations since the start.",
    );
    line(out, format_args!("{name} {count}"));
}

/// Appends a family of one series without labels.
pub fn single(out: &mut String, name: &str, kind: Kind, help: &str, value: &str) {
    family(out, name, kind, help);
    line(out, format_args!("{name} {value}"));
}

pub(super) fn family(out: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = kind.name();
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {kind}"));
}

pub(super) fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

/// A label value, escaped as the format asks.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(Escaped("a\"b\\c\nd").to_string(), r#"a\"b\\c\nd"#);
    }
}
