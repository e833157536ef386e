//! The engine that has seen the beginning of the prompt: its cache has it, and
//! need not compute it again.
//!
//! Whoever has lately seen the longest beginning comes first, as long as it has
//! no more than its share of the load. Otherwise hashes alone decide, so that
//! sidecars that never talk agree: a conversation is placed by its beginning up
//! to the user's first message, so that all its turns meet; any other prompt by
//! its shortest beginning, so that those that share one do.

use fastrand::Rng;

use super::explain::Verdict;
use super::memory::{Prefix, Recalled};
use super::reason::Reason;
use super::rendezvous::Room;
use super::view::View;
use super::{least_load, rendezvous};
use crate::config::policies::PrefixAware;

/// A recalled engine comes before any other, whatever their scores.
const RECALLED: f64 = 1e12;

/// The engine that suits the prompt best.
pub(super) fn pick(of: PrefixAware, view: &View<'_>, rng: &mut Rng) -> Option<usize> {
    let Some(key) = key(view) else {
        view.takes(Reason::NoKey);
        return least_load::pick(view, rng);
    };
    let room = Room::of(view, of.load_bound);
    let mut seen = known(&view.asked.prefix).filter_map(|one| view.set.layout.position(one.key));
    let suits = |at: &usize| view.contains(*at) && view.is_open(*at) && room.is_for(view, *at);
    if let Some(at) = seen.find(suits) {
        view.takes(Reason::Memory);
        return Some(at);
    }
    rendezvous::place(view, key, room).or_else(|| {
        view.takes(Reason::Overflow);
        least_load::pick(view, rng)
    })
}

/// What a prompt is placed by that nobody recalls; `None`: it is too short.
fn key(view: &View<'_>) -> Option<u64> {
    view.asked.prefix.root.or(view.asked.prefix.anchor)
}

/// Who has seen enough to be worth more than the prompt's own place.
fn known(prefix: &Prefix) -> impl Iterator<Item = &Recalled> {
    let enough = |one: &&Recalled| one.bytes > 0 && one.bytes >= prefix.worth;
    prefix.recalled.iter().filter(enough)
}

/// Ranked as they would be taken.
pub(super) fn judge(of: PrefixAware, view: &View<'_>) -> Vec<Verdict> {
    let Some(key) = key(view) else {
        return least_load::judge(view);
    };
    let mut verdicts = rendezvous::judge(view, key, of.load_bound);
    for verdict in &mut verdicts {
        let key = view.engine(verdict.at).key;
        let seen = known(&view.asked.prefix).find(|one| one.key == key);
        let bytes = f64::from(seen.map_or(0, |one| one.bytes));
        if bytes > 0.0 {
            verdict.cost = -RECALLED - bytes;
        }
        verdict.parts.push(("seen_bytes", bytes));
    }
    verdicts
}
