//! The same engine for the same key: by the reference's ring, or by rendezvous
//! with a load bound. A request without a key goes where the load is least.

use fastrand::Rng;

use super::explain::{self, Verdict};
use super::reason::Reason;
use super::rendezvous::Room;
use super::view::View;
use super::{least_load, rendezvous};
use crate::config::policies::{Affinity, KeySource, Placement};
use crate::fleet::ring::hash;

/// The key's owner.
pub(super) fn pick(of: &Affinity, view: &View<'_>, rng: &mut Rng) -> Option<usize> {
    let Some(key) = key(of, view) else {
        view.takes(Reason::NoKey);
        return least_load::pick(view, rng);
    };
    let owner = match of.placement {
        Placement::Ring => around(view, key),
        Placement::Rendezvous { load_bound } => {
            rendezvous::place(view, key.hashed(), Room::of(view, load_bound))
        }
    };
    // Any is better than none: all that are open may be full for a moment.
    owner.or_else(|| {
        view.takes(Reason::Overflow);
        least_load::pick(view, rng)
    })
}

/// What a request is placed by.
#[derive(Clone, Copy)]
enum Key<'a> {
    Text(&'a str),
    /// How its prompt begins.
    Prompt(u64),
}

impl Key<'_> {
    fn hashed(self) -> u64 {
        match self {
            Self::Text(text) => hash(text.as_bytes()),
            Self::Prompt(hash) => hash,
        }
    }
}

fn key<'a>(of: &Affinity, view: &View<'a>) -> Option<Key<'a>> {
    let text = view.asked.key.as_deref().map(Key::Text);
    text.or_else(|| {
        let by_prompt = of.keys.contains(&KeySource::Prompt);
        let anchor = view.asked.prefix.anchor.filter(|_| by_prompt);
        anchor.map(Key::Prompt)
    })
}

/// The first around the reference's ring that may be chosen.
fn around(view: &View<'_>, key: Key<'_>) -> Option<usize> {
    let ring = view.set.layout.ring.as_deref()?;
    // A strategy within another may have less than the set to choose from.
    let suits = |at: &usize| view.contains(*at) && view.is_open(*at);
    match key {
        Key::Text(text) => ring.owners(text).find(suits),
        Key::Prompt(hash) => ring.owners_of(hash).find(suits),
    }
}

/// Ranked by the key's own order.
pub(super) fn judge(of: &Affinity, view: &View<'_>) -> Vec<Verdict> {
    let Some(key) = key(of, view) else {
        return least_load::judge(view);
    };
    let places = match (of.placement, view.set.layout.ring.as_deref(), key) {
        (Placement::Rendezvous { load_bound }, ..) => {
            return rendezvous::judge(view, key.hashed(), load_bound);
        }
        (Placement::Ring, Some(ring), Key::Text(text)) => explain::places(view, ring.owners(text)),
        (Placement::Ring, Some(ring), Key::Prompt(hash)) => {
            explain::places(view, ring.owners_of(hash))
        }
        (Placement::Ring, None, _) => explain::places(view, std::iter::empty()),
    };
    explain::each(view, |at| {
        Verdict::new(places[at]).with("place_on_the_ring", places[at])
    })
}
