//! Which engine has lately seen which beginning of a prompt: a table of fixed
//! size, without a lock.
//!
//! A prompt is known by the hashes of its beginnings, some short, some long
//! (`proxy/fingerprint.rs`). Each goes to one of two neighbouring places of
//! the table; the older gives way. An entry is one word, so that no reader
//! ever sees half of one; what is lost costs an engine a prefill, never more.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Entries: 8 MiB in all.
const ENTRIES: usize = 1 << 20;
/// Bits of the tag, the engine's key and the moment in an entry.
const TAG: u32 = 20;
const KEY: u32 = 24;
const MOMENT: u32 = 20;
/// Seconds of one unit of the moment: 48 days until it comes again.
const UNIT: u64 = 4;
/// An engine is thought to have forgotten what it has not seen for so long.
const FORGOTTEN: Duration = Duration::from_secs(900);

/// One beginning of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of all bytes so far.
    pub hash: u64,
    /// How many they are.
    pub bytes: u32,
}

/// An engine that has seen the beginning of a prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recalled {
    /// The engine's key.
    pub key: u64,
    /// How many bytes of it at least.
    pub bytes: u32,
}

/// Which turn of a conversation a prompt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is no conversation.
    None,
    /// Its user's first message is its last.
    First,
    /// There was one before, which had so many bytes.
    Later(u32),
}

/// What is known of a prompt's beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// The hash of its shortest beginning: what requests share that share most.
    pub anchor: Option<u64>,
    /// The hash of its conversation's beginning, up to the first message of the
    /// user: the same for all its turns, and for no other.
    pub root: Option<u64>,
    /// How many bytes of it there are.
    pub bytes: u32,
    /// Whoever has seen less of it does not count, in bytes.
    pub worth: u32,
    /// Who has seen it, longest beginning first; bytes 0: nobody else.
    pub recalled: [Recalled; Self::MOST],
}

impl Prefix {
    /// Engines that are recalled at most.
    pub const MOST: usize = 3;

    /// Sets [`Prefix::worth`]. Of a conversation the turn before must have been
    /// seen, or nearly all: a sidecar that has not seen the last turns knows where
    /// the conversation was, not where it is, and its own place is better.
    /// (Measured with `pilotfish simulate`, 1 to 64 sidecars.)
    #[must_use]
    pub fn worth(self, turn: Turn) -> Self {
        let (share, before) = match turn {
            Turn::None => (0.0, 0),
            Turn::First => (0.4, u32::MAX),
            Turn::Later(before) => (0.8, before),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "less than there are bytes"
        )]
        let worth = (f64::from(self.bytes) * share) as u32;
        Self {
            worth: worth.min(before),
            ..self
        }
    }
}

/// The table.
#[derive(Debug)]
pub struct Memory {
    entries: Box<[AtomicU64]>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            entries: (0..ENTRIES).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Memory {
    /// Who has lately seen the beginnings of a prompt, given shortest first.
    #[must_use]
    pub fn recall(&self, prints: &[Fingerprint], now: Duration) -> Prefix {
        let mut prefix = Prefix {
            anchor: prints.first().map(|print| print.hash),
            bytes: prints.last().map_or(0, |print| print.bytes),
            ..Prefix::default()
        };
        let mut count = 0;
        for print in prints.iter().rev() {
            let Some(key) = self.look_up(print.hash, now) else {
                continue;
            };
            if prefix.recalled[..count].iter().any(|one| one.key == key) {
                continue;
            }
            let bytes = print.bytes;
            prefix.recalled[count] = Recalled { key, bytes };
            count += 1;
            if count == Prefix::MOST {
                break;
            }
        }
        prefix
    }

    /// The engine with that key sees this prompt now.
    pub fn learn(&self, prints: &[Fingerprint], key: u64, now: Duration) {
        for print in prints {
            let entry = Entry {
                tag: print.hash >> (64 - TAG),
                key: key & low(KEY),
                moment: moment(now),
            };
            let places = places(print.hash);
            let [first, second] = places.map(|place| Entry::of(self.entries[place].load(Relaxed)));
            let is_first = match (first, second) {
                (Some(known), _) if known.tag == entry.tag => true,
                (_, Some(known)) if known.tag == entry.tag => false,
                (Some(first), Some(second)) => first.age(now) >= second.age(now),
                (first, _) => first.is_none(),
            };
            let place = places[usize::from(!is_first)];
            self.entries[place].store(entry.pack(), Relaxed);
        }
    }

    fn look_up(&self, hash: u64, now: Duration) -> Option<u64> {
        let entries = places(hash).map(|place| Entry::of(self.entries[place].load(Relaxed)));
        let mut ours = entries.into_iter().flatten();
        let entry = ours.find(|entry| entry.tag == hash >> (64 - TAG))?;
        (entry.age(now) * UNIT <= FORGOTTEN.as_secs()).then_some(entry.key)
    }
}

fn places(hash: u64) -> [usize; 2] {
    #[expect(clippy::cast_possible_truncation, reason = "less than ENTRIES")]
    let place = (hash & (ENTRIES as u64 - 1)) as usize;
    [place, place ^ 1]
}

fn low(bits: u32) -> u64 {
    (1 << bits) - 1
}

fn moment(now: Duration) -> u64 {
    (now.as_secs() / UNIT) & low(MOMENT)
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    tag: u64,
    /// Never 0: keys count from 1.
    key: u64,
    moment: u64,
}

impl Entry {
    fn pack(self) -> u64 {
        self.tag << (KEY + MOMENT) | self.key << MOMENT | self.moment
    }

    fn of(word: u64) -> Option<Self> {
        (word != 0).then(|| Self {
            tag: word >> (KEY + MOMENT),
            key: word >> MOMENT & low(KEY),
            moment: word & low(MOMENT),
        })
    }

    /// In units.
    fn age(self, now: Duration) -> u64 {
        let age = moment(now).wrapping_sub(self.moment) & low(MOMENT);
        // The last minute of a round is a moment from now: of another worker.
        if age > low(MOMENT) - 60 / UNIT {
            0
        } else {
            age
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::ring::mix;

    fn prints(seed: u64, count: u32) -> Vec<Fingerprint> {
        let print = |n: u32| Fingerprint {
            hash: mix(seed, u64::from(n)),
            bytes: n * 128,
        };
        (1..=count).map(print).collect()
    }

    #[test]
    fn the_longest_beginning_comes_first_and_fades() {
        let memory = Memory::default();
        let at = Duration::from_secs;
        let prompt = prints(1, 10);
        assert_eq!(memory.recall(&prompt, at(0)).recalled[0].bytes, 0);
        memory.learn(&prompt[..4], 7, at(100));
        memory.learn(&prompt[..2], 9, at(100));
        let prefix = memory.recall(&prompt, at(100));
        let recalled = |key, bytes| Recalled { key, bytes };
        assert_eq!(
            prefix.recalled,
            [recalled(7, 512), recalled(9, 256), Recalled::default()]
        );
        assert_eq!((prefix.anchor, prefix.bytes), (Some(prompt[0].hash), 1280));
        let later = memory.recall(&prompt, at(1100));
        assert_eq!(later.recalled[0], Recalled::default());
    }

    #[test]
    fn any_number_of_prompts_leaves_it_as_large_as_it_is() {
        let memory = Memory::default();
        for seed in 0..200_000 {
            memory.learn(
                &prints(seed, 8),
                1 + seed % 5,
                Duration::from_secs(seed / 1000),
            );
        }
        assert_eq!(memory.entries.len() * 8, 8 << 20);
        let last = memory.recall(&prints(199_999, 8), Duration::from_secs(200));
        assert_eq!(last.recalled[0].key, 5);
        let wrong = (300_000..301_000).filter(|seed| {
            let prefix = memory.recall(&prints(*seed, 8), Duration::from_secs(200));
            prefix.recalled[0].bytes > 0
        });
        assert!(wrong.count() < 50, "tags tell most strangers apart");
    }
}
