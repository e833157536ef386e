//! Rendezvous hashing with a load bound: every engine has a score for a key,
//! the greatest owns it, and whoever has more than its share of the load is
//! passed over for the next in the key's own order.
//!
//! Nothing is kept, so processes that never talk agree; an engine that comes or
//! goes moves its own keys only; overflow of one hot key does not fall on one
//! neighbour, as it does around a ring.
//! (Thaler and Ravishankar 1998; Mirrokni et al. 2018 for the bound.)

use std::sync::atomic::Ordering::Relaxed;

use super::explain::{self, Verdict};
use super::reason::Reason;
use super::top::Top;
use super::view::View;
use crate::fleet::layout::MOST_RENDEZVOUS;
use crate::fleet::ring::mix;

/// Owners that are tried on a ring of many, before it is given up.
const OWNERS: usize = 4096;
/// Owners that are tried before all engines are looked at again.
const FIRST: usize = 8;

/// The owner of `key` that has room: the first of the key's order whose load,
/// with this request, is at most its share of all, times the bound.
pub(super) fn place(view: &View<'_>, key: u64, room: Room) -> Option<usize> {
    let suits = |at: &usize| view.is_open(*at) && room.is_for(view, *at);
    if let (Some(points), true) = (&view.set.layout.points, view.is_whole()) {
        return points.owners(key).take(OWNERS).find(suits);
    }
    // By the hashes alone: they lie side by side, and engines do not.
    let mut first = Top::new(FIRST);
    for n in 0..view.len() {
        let at = view.at(n);
        let score = score(view, key, at);
        if score > first.least() {
            first.offer(at, score);
        }
    }
    first.positions().find(suits).or_else(|| {
        let suits = |at: &usize| view.is_open(*at) && room.has(view, *at);
        let (mut best, mut greatest) = (None, f64::NEG_INFINITY);
        for at in (0..view.len()).map(|n| view.at(n)).filter(suits) {
            let score = score(view, key, at);
            if score > greatest {
                (best, greatest) = (Some(at), score);
            }
        }
        best
    })
}

/// Requests in flight.
#[inline]
pub(super) fn load(view: &View<'_>, at: usize) -> u64 {
    u64::from(view.engine(at).in_flight.load(Relaxed))
}

/// How well an engine suits a key: the greatest is its owner. With weights the
/// share of each is exact (Schindelhauer and Schomaker 2005).
#[inline]
pub(super) fn score(view: &View<'_>, key: u64, at: usize) -> f64 {
    let layout = &view.set.layout;
    #[expect(clippy::cast_precision_loss, reason = "53 bits are kept")]
    let uniform = ((mix(key, layout.hashes[at]) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    if layout.is_even {
        return uniform;
    }
    // The same order as weight / -ln(uniform).
    -(-uniform.ln() / view.share(at))
}

/// How much each may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Requests for each unit of weight.
    each: f64,
}

impl Room {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
    fn new(bound: f64, all: u64, weights: f64) -> Self {
        Self {
            each: bound * (all + 1) as f64 / weights,
        }
    }

    /// The room of those that are open; where they are too many to look at
    /// each, of all there are.
    pub(super) fn of(view: &View<'_>, bound: f64) -> Self {
        if view.len() > MOST_RENDEZVOUS {
            let (all, weights) = view.set.open_load(view.moment.now);
            return Self::new(bound, all, weights);
        }
        let (mut all, mut weights) = (0, 0.0);
        for at in (0..view.len()).map(|n| view.at(n)) {
            if view.is_open(at) {
                all += load(view, at);
                weights += view.share(at);
            }
        }
        Self::new(bound, all, weights)
    }

    /// Requests that this one may have at most.
    pub(super) fn capacity(self, view: &View<'_>, at: usize) -> f64 {
        (self.each * view.share(at)).ceil()
    }

    /// Whether there is room for one more on whoever comes first; if not, it
    /// overflows.
    #[inline]
    pub(super) fn is_for(self, view: &View<'_>, at: usize) -> bool {
        let has_room = self.has(view, at);
        if !has_room {
            view.takes(Reason::Overflow);
        }
        has_room
    }

    /// Whether there is room for one more.
    pub(super) fn has(self, view: &View<'_>, at: usize) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
        let load = load(view, at) as f64;
        load + 1.0 <= self.capacity(view, at)
    }
}

/// Ranked by the key's own order; who has no room, last.
pub(super) fn judge(view: &View<'_>, key: u64, bound: f64) -> Vec<Verdict> {
    let room = Room::of(view, bound);
    let points = view.set.layout.points.as_ref().filter(|_| view.is_whole());
    let places = points.map(|points| explain::places(view, points.owners(key)));
    explain::each(view, |at| {
        let verdict = match &places {
            Some(places) => Verdict::new(places[at]).with("place_on_the_ring", places[at]),
            None => {
                let score = score(view, key, at);
                Verdict::new(-score).with("affinity", score)
            }
        };
        let verdict = verdict.with("capacity", room.capacity(view, at));
        if room.has(view, at) {
            verdict
        } else {
            verdict.but("more than its share of the load")
        }
    })
}
