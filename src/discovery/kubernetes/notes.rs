//! What is to be told of objects that cannot be used as they are: once for each
//! object and value, not at each event.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// What is remembered as told; twice that at most. More than the objects that
/// are kept, or each list would tell all of it again.
const REMEMBERED: usize = 65_536;
/// Notes on one object at most.
const MOST: usize = 16;

/// What came up while one event was taken in.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<Note>);

#[derive(Debug)]
struct Note {
    /// By what it is known again.
    of: u64,
    gravity: Gravity,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gravity {
    Warning,
    Aside,
}

impl Notes {
    /// Something that somebody should put right; `of` tells it from others.
    pub(super) fn warn(&mut self, of: &[&str], text: String) {
        self.add(Gravity::Warning, of, text);
    }

    /// Something that may well be meant so.
    pub(super) fn aside(&mut self, of: &[&str], text: String) {
        self.add(Gravity::Aside, of, text);
    }

    fn add(&mut self, gravity: Gravity, of: &[&str], text: String) {
        if self.0.len() < MOST {
            let mut hasher = DefaultHasher::new();
            of.hash(&mut hasher);
            let of = hasher.finish();
            self.0.push(Note { of, gravity, text });
        }
    }

    /// The warnings' texts.
    #[cfg(test)]
    pub(super) fn warnings(&self) -> Vec<&str> {
        let warnings = self
            .0
            .iter()
            .filter(|note| note.gravity == Gravity::Warning);
        warnings.map(|note| note.text.as_str()).collect()
    }
}

/// What has been told.
#[derive(Debug, Default)]
pub(super) struct Told {
    recent: HashSet<u64>,
    older: HashSet<u64>,
    /// How many warnings there were.
    pub(super) warnings: u64,
}

impl Told {
    /// Logs what is new of it.
    pub(super) fn tell(&mut self, notes: Notes) {
        for Note { of, gravity, text } in notes.0 {
            if !self.is_new(of) {
                continue;
            }
            match gravity {
                Gravity::Warning => {
                    self.warnings += 1;
                    tracing::warn!("{text}");
                }
                Gravity::Aside => tracing::debug!("{text}"),
            }
        }
    }

    fn is_new(&mut self, of: u64) -> bool {
        if self.older.contains(&of) || self.recent.contains(&of) {
            return false;
        }
        if self.recent.len() >= REMEMBERED {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once() {
        let mut told = Told::default();
        for (of, expected) in [(["a", "b"], 1), (["a", "b"], 1), (["ab", ""], 2)] {
            let mut notes = Notes::default();
            notes.warn(&of, "text".to_owned());
            notes.aside(&["other"], "text".to_owned());
            assert_eq!(notes.warnings(), ["text"]);
            told.tell(notes);
            assert_eq!(told.warnings, expected);
        }
    }

    #[test]
    fn little_is_told_of_one_object_and_not_all_is_remembered() {
        let mut notes = Notes::default();
        for n in 0..=MOST {
            notes.warn(&[&n.to_string()], String::new());
        }
        assert_eq!(notes.warnings().len(), MOST);
        let mut told = Told::default();
        for n in 0..3 * REMEMBERED as u64 {
            assert!(told.is_new(n));
            assert!(!told.is_new(n));
            assert!(told.recent.len() + told.older.len() <= 2 * REMEMBERED);
        }
        assert!(!told.is_new(2 * REMEMBERED as u64 - 1), "kept for a while");
        assert!(told.is_new(0), "forgotten");
    }
}
