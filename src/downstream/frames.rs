//! HTTP/2's frames as they pass, counted where they cost their sender nothing
//! and us an answer: SETTINGS, PING, PRIORITY, WINDOW_UPDATE, and those of types
//! that nobody knows. hyper bounds none of them.

use std::time::{Duration, Instant};

/// Such frames of one client within [`WITHIN`]: a client sends a few when it
/// begins, and a PING now and then.
const MOST: u32 = 1000;
/// WINDOW_UPDATEs of one client in that time: two for each 32 KiB of 160 MB/s.
const MOST_UPDATES: u32 = 100_000;
/// The window in which they are counted.
const WITHIN: Duration = Duration::from_secs(10);
/// Bytes before the first frame (RFC 9113 §3.4).
const PREFACE: u32 = 24;
/// WINDOW_UPDATE.
const UPDATE: u8 = 8;
/// Bytes of a frame's head (RFC 9113 §4.1).
const HEAD: usize = 9;

/// What is known of the frames of one client.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes that are no head.
    skip: u32,
    head: [u8; HEAD],
    /// Bytes of a head that have come.
    have: usize,
    count: u32,
    updates: u32,
    since: Option<Instant>,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            skip: PREFACE,
            head: [0; HEAD],
            have: 0,
            count: 0,
            updates: 0,
            since: None,
        }
    }
}

impl Frames {
    /// Looks at the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8], now: Instant) {
        while !bytes.is_empty() {
            let skip = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
            self.skip -= u32::try_from(skip).unwrap_or(self.skip);
            bytes = &bytes[skip..];
            let take = bytes.len().min(HEAD - self.have);
            self.head[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have == HEAD {
                self.have = 0;
                let [a, b, c, kind, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]);
                self.count(kind, now);
            }
        }
    }

    /// Whether nobody needs that many.
    pub(super) fn are_too_many(&self) -> bool {
        self.count > MOST || self.updates > MOST_UPDATES
    }

    fn count(&mut self, kind: u8, now: Instant) {
        // DATA, HEADERS, RST_STREAM, GOAWAY, CONTINUATION: what requests need, or
        // h2 bounds.
        if matches!(kind, 0 | 1 | 3 | 7 | 9) {
            return;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) > WITHIN {
            (self.since, self.count, self.updates) = (Some(now), 0, 0);
        }
        let count = match kind {
            UPDATE => &mut self.updates,
            _ => &mut self.count,
        };
        *count = count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The preface, and frames of these kinds with so many bytes each.
    fn wire(kinds: &[(u8, u8)]) -> Vec<u8> {
        let mut wire = vec![b'P'; PREFACE as usize];
        for (kind, length) in kinds {
            wire.extend([0, 0, *length, *kind, 0, 0, 0, 0, 0]);
            wire.extend(vec![6; usize::from(*length)]);
        }
        wire
    }

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let now = Instant::now();
        let wire = wire(&[(4, 6), (8, 4), (6, 8), (0, 200), (1, 0), (200, 1), (2, 5)]);
        for piece in [1, 2, 7, 9, 10, 100, wire.len()] {
            let mut frames = Frames::default();
            wire.chunks(piece).for_each(|bytes| frames.push(bytes, now));
            assert_eq!((frames.count, frames.updates), (4, 1), "{piece}");
            assert_eq!((frames.skip, frames.have), (0, 0), "{piece}");
        }
    }

    #[test]
    fn more_than_anyone_needs_is_too_many_unless_it_takes_its_time() {
        let start = Instant::now();
        let mut frames = Frames::default();
        frames.push(&wire(&[]), start);
        let ping = &wire(&[(6, 8)])[PREFACE as usize..];
        for _ in 0..MOST {
            frames.push(ping, start);
        }
        assert!(!frames.are_too_many());
        frames.push(ping, start + WITHIN);
        assert!(frames.are_too_many());
        let mut frames = Frames::default();
        frames.push(&wire(&[]), start);
        let update = &wire(&[(UPDATE, 4)])[PREFACE as usize..];
        for _ in 0..MOST_UPDATES {
            frames.push(update, start);
        }
        assert!(!frames.are_too_many());
        frames.push(update, start);
        assert!(frames.are_too_many());
        let mut frames = Frames::default();
        frames.push(&wire(&[]), start);
        for second in 0..10 * u64::from(MOST) {
            frames.push(ping, start + Duration::from_secs(second));
        }
        assert!(!frames.are_too_many());
    }
}
