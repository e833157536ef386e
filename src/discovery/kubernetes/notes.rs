//! What is to be told of objects that cannot be used as they are: once for each
//! object and value, not at each event.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// What is remembered as told; twice that at most. More than the objects that
/// are kept, or each list would tell all of it again.
const REMEMBERED: usize = 65_536;
/// Notes on one object at most.
const MOST: usize = 16;
/// Characters of a note at most: an object's texts may be very long.
const MOST_TEXT: usize = 200;
/// So many of them are its end, which says what follows.
const END: usize = 80;

/// The object that a note is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) kind: &'static str,
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
}

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
    pub(super) fn warn(&mut self, of: &[&str], text: &str) {
        self.add(Gravity::Warning, of, text);
    }

    /// The same, of an object.
    pub(super) fn warn_about(&mut self, about: About<'_>, of: &[&str], message: &str) {
        let About { kind, name, uid } = about;
        let of = [&[uid], of].concat();
        self.warn(&of, &format!("{kind} {name}: {message}"));
    }

    /// Something that may well be meant so, of an object.
    pub(super) fn aside_about(&mut self, about: About<'_>, of: &[&str], message: &str) {
        let About { kind, name, uid } = about;
        let of = [&[uid], of].concat();
        self.add(Gravity::Aside, &of, &format!("{kind} {name}: {message}"));
    }

    fn add(&mut self, gravity: Gravity, of: &[&str], text: &str) {
        if self.0.len() < MOST {
            let mut hasher = DefaultHasher::new();
            of.hash(&mut hasher);
            let of = hasher.finish();
            let text = line(text);
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

/// The text as one line of the log, without what a terminal would act upon; of a
/// long one the beginning and the end: what somebody wrote stands between them.
fn line(text: &str) -> String {
    let plain = |c: char| if is_plain(c) { c } else { '\u{fffd}' };
    let count = text.chars().count();
    let all = text.chars().map(plain);
    if count <= MOST_TEXT {
        return all.collect();
    }
    let mut short: String = all.clone().take(MOST_TEXT - END - 1).collect();
    short.push('…');
    short.extend(all.skip(count - END));
    short
}

fn is_plain(c: char) -> bool {
    let turns_text =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns_text
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
            notes.warn(&of, "text");
            let about = About {
                kind: "pod",
                name: "a",
                uid: "u",
            };
            notes.aside_about(about, &["other"], "text");
            assert_eq!(notes.warnings(), ["text"]);
            told.tell(notes);
            assert_eq!(told.warnings, expected);
        }
    }

    #[test]
    fn a_note_is_a_short_line() {
        for (text, expected) in [
            ("é".repeat(MOST_TEXT), "é".repeat(MOST_TEXT)),
            (
                format!("{}b{}", "a".repeat(MOST_TEXT - END), "c".repeat(END)),
                format!("{}…{}", "a".repeat(MOST_TEXT - END - 1), "c".repeat(END)),
            ),
            (
                "a\n\x1b[2J\u{202e}\u{85}b".to_owned(),
                "a\u{fffd}\u{fffd}[2J\u{fffd}\u{fffd}b".to_owned(),
            ),
            (String::new(), String::new()),
        ] {
            let mut notes = Notes::default();
            notes.warn(&[], &text);
            assert_eq!(notes.warnings(), [expected]);
        }
    }

    #[test]
    fn little_is_told_of_one_object_and_not_all_is_remembered() {
        let mut notes = Notes::default();
        for n in 0..=MOST {
            notes.warn(&[&n.to_string()], "");
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
