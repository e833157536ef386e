//! How following a cluster goes.

use std::time::Instant;

use super::{Kind, family, series, single};
use crate::discovery::Found;
use crate::discovery::kubernetes::fault::Reason;
use crate::discovery::kubernetes::status::{Kind as EventKind, Status};

/// Appends the series, of all that is followed together; `found` are the engines,
/// once they were listed.
pub fn expose(
    out: &mut String,
    streams: &[&Status],
    found: Option<&[Found]>,
    (epoch, now): (Instant, Instant),
) {
    // One of two that is silent is what matters.
    let heard = streams
        .iter()
        .map(|one| one.last_contact().unwrap_or(epoch));
    let silence = now.saturating_duration_since(heard.min().unwrap_or(epoch));
    let is_synced = !streams.is_empty() && streams.iter().all(|one| one.last_listed().is_some());
    let sum = |of: fn(&Status) -> u64| streams.iter().map(|one| of(one)).sum::<u64>().to_string();
    for (name, kind, help, value) in [
        (
            "pilotfish_discovery_last_contact_seconds",
            Kind::Gauge,
            "Since the Kubernetes API server last told of engines.",
            silence.as_secs_f64().to_string(),
        ),
        (
            "pilotfish_discovery_synced",
            Kind::Gauge,
            "Whether all that is watched was listed once.",
            u8::from(is_synced).to_string(),
        ),
        (
            "pilotfish_discovery_lists_total",
            Kind::Counter,
            "Lists that were taken whole.",
            sum(Status::lists),
        ),
        (
            "pilotfish_discovery_watches_total",
            Kind::Counter,
            "Watches that were begun.",
            sum(Status::watches),
        ),
    ] {
        single(out, name, kind, help, &value);
    }
    let name = "pilotfish_discovery_engines";
    family(out, name, Kind::Gauge, "Engines that the cluster tells of.");
    let found = found.unwrap_or_default();
    let ready = found.iter().filter(|one| one.is_ready).count();
    series(out, name, ("state", "ready"), ready);
    series(out, name, ("state", "closed"), found.len() - ready);
    let name = "pilotfish_discovery_events_total";
    family(out, name, Kind::Counter, "Events of the watches.");
    for kind in EventKind::ALL {
        let events: u64 = streams.iter().map(|one| one.events(kind)).sum();
        series(out, name, ("type", kind.name()), events);
    }
    let name = "pilotfish_discovery_errors_total";
    family(
        out,
        name,
        Kind::Counter,
        "What failed in following the cluster.",
    );
    for reason in Reason::ALL {
        let errors: u64 = streams.iter().map(|one| one.errors(reason)).sum();
        series(out, name, ("reason", reason.name()), errors);
    }
}
