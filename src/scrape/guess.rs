//! What others sent to engines that have not told of late is thought to be what
//! they sent to those that have, of the same model: else whoever tells nothing
//! would look idle.

use std::collections::HashMap;

use crate::fleet::attributes::{Freshness, trust};
use crate::fleet::{CandidateSet, Snapshot};

/// Sets every engine's guess; 0 where nobody looks, or nobody has told.
pub(super) fn guess(snapshot: &Snapshot, by: Freshness) {
    let all = &snapshot.all.candidates;
    let engines = || all.list().iter().map(|one| &one.engine);
    let has_told = |set: &CandidateSet| mean(set, by).is_some();
    let is_idle = !snapshot.settings.looks_at_live() || !has_told(all);
    if is_idle || engines().all(|engine| engine.tells(by)) {
        engines().for_each(|engine| engine.guess_foreign_requests(0.0));
        return;
    }
    // Of several models the one with the most to do.
    let mut guesses: HashMap<u64, f64> = HashMap::new();
    for model in snapshot.each_model() {
        let set = &model.candidates;
        let silent = || set.list().iter().filter(|one| !one.engine.tells(by));
        if silent().next().is_none() {
            continue;
        }
        if let Some(mean) = mean(set, by) {
            for one in silent() {
                let guess = guesses.entry(one.engine.key).or_insert(0.0);
                *guess = guess.max(mean);
            }
        }
    }
    // A model's own engines know better than all together.
    let usual = mean(all, by).unwrap_or(0.0);
    for engine in engines() {
        let guess = guesses.get(&engine.key).copied().unwrap_or(usual);
        engine.guess_foreign_requests(guess);
    }
}

/// What others sent to those of a set that have told; `None`: none has.
fn mean(set: &CandidateSet, by: Freshness) -> Option<f64> {
    let (mut told, mut sum) = (0.0, 0.0);
    for engine in set.list().iter().map(|one| &one.engine) {
        if let Some((foreign, age)) = engine.foreign_requests(by) {
            told += 1.0;
            sum += foreign * trust(age);
        }
    }
    (told > 0.0).then(|| sum / told)
}
