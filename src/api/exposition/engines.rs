//! What we know of each engine.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{Kind, Shown, family, line, series};
use crate::fleet::Engine;
use crate::fleet::engine::Outcome;
use crate::fleet::health::WORDS;

/// A family of one value for each engine.
type Family = (&'static str, Kind, &'static str, fn(&Engine) -> u64);

const FAMILIES: [Family; 8] = [
    (
        "pilotfish_engine_in_flight",
        Kind::Gauge,
        "Requests that an engine was picked for and that have not ended.",
        |engine| u64::from(engine.in_flight.load(Relaxed)),
    ),
    (
        "pilotfish_engine_outstanding_tokens",
        Kind::Gauge,
        "Tokens that these requests still have to come, by estimate.",
        |engine| engine.outstanding.load(Relaxed),
    ),
    (
        "pilotfish_upstream_connections",
        Kind::Gauge,
        "TCP connections to an engine that are open, idle or not.",
        |engine| u64::from(engine.open.load(Relaxed)),
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

/// Appends every engine's series, as of that time of the fleet's clock.
pub(in crate::api) fn engines(out: &mut String, engines: &[Shown<'_>], now: Duration) {
    for (name, kind, help, value) in FAMILIES {
        family(out, name, kind, help);
        for shown in engines {
            let value = value(&shown.one.engine);
            series(out, name, ("engine", &shown.url), value);
        }
    }
    health(out, engines, now);
    let name = "pilotfish_engine_requests_total";
    let help = "Ended requests of an engine, by outcome.";
    family(out, name, Kind::Counter, help);
    for Shown { one, url } in engines {
        for (outcome, label) in Outcome::ALL {
            let count = one.engine.ended(outcome);
            line(
                out,
                format_args!("{name}{{engine=\"{url}\",outcome=\"{label}\"}} {count}"),
            );
        }
    }
}

fn health(out: &mut String, engines: &[Shown<'_>], now: Duration) {
    let name = "pilotfish_engine_up";
    let help =
        "1 for an engine that may be asked, 0 for one that is set aside or gets nothing new.";
    family(out, name, Kind::Gauge, help);
    for Shown { one, url } in engines {
        let is_open = one.spec.closed.is_none() && one.engine.health.is_up(now);
        series(out, name, ("engine", url), u8::from(is_open));
    }
    let name = "pilotfish_engine_state";
    let help = "1 for the state that an engine is in, 0 for the others.";
    family(out, name, Kind::Gauge, help);
    for Shown { one, url } in engines {
        let is = one.engine.health.word(now);
        for word in WORDS {
            let value = u8::from(word == is);
            line(
                out,
                format_args!("{name}{{engine=\"{url}\",state=\"{word}\"}} {value}"),
            );
        }
    }
    let name = "pilotfish_engine_first_token_seconds";
    let help = "To an engine's first token, as we see it: the moving mean that policies use.";
    family(out, name, Kind::Gauge, help);
    for Shown { one, url } in engines {
        if let Some(seconds) = one.engine.latency.get(now) {
            series(out, name, ("engine", url), seconds);
        }
    }
}

/// Requests of an engine that have ended, whichever way.
#[must_use]
pub fn finished(engine: &Engine) -> u64 {
    let outcomes = Outcome::ALL.iter();
    outcomes.map(|(outcome, _)| engine.ended(*outcome)).sum()
}
