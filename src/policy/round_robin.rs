//! Each in its turn: one shared counter for each candidate set, so that counts
//! differ by at most one while the set is unchanged; by weight, when weights
//! differ, smoothly.

use std::sync::atomic::Ordering::Relaxed;

use super::explain::Verdict;
use super::view::View;

/// Turns of engines that are not open which are passed on before all are
/// looked at.
const SKIPS: usize = 64;

/// The next engine in turn.
///
/// A turn that falls to an engine that is not open goes to whoever's turn is
/// next, so that no neighbour gets the share of two.
pub(super) fn pick(view: &View<'_>) -> Option<usize> {
    let length = length(view);
    if length == 0 {
        return None;
    }
    for _ in 0..length.min(SKIPS) {
        let turn = view.set.cursor.fetch_add(1, Relaxed) % length;
        let at = whose(view, turn);
        if view.is_open(at) {
            return Some(at);
        }
    }
    let from = view.set.cursor.fetch_add(1, Relaxed) % length;
    let mut turns = (from..length).chain(0..from).map(|turn| whose(view, turn));
    turns.find(|at| view.is_open(*at))
}

/// Turns of one round.
fn length(view: &View<'_>) -> usize {
    let turns = &view.set.layout.turns;
    if turns.is_empty() || !view.is_strict() {
        view.len()
    } else {
        turns.len()
    }
}

fn whose(view: &View<'_>, turn: usize) -> usize {
    let turns = &view.set.layout.turns;
    if turns.is_empty() || !view.is_strict() {
        view.at(turn)
    } else {
        turns[turn] as usize
    }
}

/// Ranked by how soon its turn comes.
pub(super) fn judge(view: &View<'_>) -> Vec<Verdict> {
    let length = length(view);
    let now = view.set.cursor.load(Relaxed);
    let turns = (0..length).map(|n| whose(view, (now + n) % length));
    let soon = super::explain::places(view, turns);
    super::explain::each(view, |at| {
        Verdict::new(soon[at]).with("turns_until", soon[at])
    })
}
