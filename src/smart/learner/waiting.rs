//! Requests that have ended, until somebody says how good their answers were.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Ended;

/// Requests that are remembered; the oldest are forgotten first.
pub(super) const MOST_WAITING: usize = 10_000;
/// Bytes that they may take; the oldest are forgotten first.
const MOST_BYTES: usize = 32 << 20;
/// How long they are remembered.
pub(super) const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Bytes of an entry in the map and the queue, beside what it tells.
const ENTRY: usize = 160;

/// What is known of a request's id.
#[derive(Debug, PartialEq)]
pub(super) enum Found {
    /// The request; from now on it counts as given.
    Asked(Ended),
    /// Feedback was given.
    Given,
    /// Nothing.
    Nothing,
}

#[derive(Debug)]
struct Entry {
    at: Instant,
    number: u64,
    /// `None`: feedback was given.
    asked: Option<Ended>,
}

/// The requests, the oldest first. An id that comes again is the later request's.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    entries: HashMap<Arc<str>, Entry>,
    order: VecDeque<(Arc<str>, u64)>,
    number: u64,
    bytes: usize,
}

impl Waiting {
    pub(super) fn add(&mut self, asked: Ended, now: Instant) {
        let id: Arc<str> = asked.request_id.as_str().into();
        self.remove(&id);
        self.number += 1;
        self.bytes += ENTRY + id.len() + asked.held();
        self.order.push_back((Arc::clone(&id), self.number));
        let entry = Entry {
            at: now,
            number: self.number,
            asked: Some(asked),
        };
        self.entries.insert(id, entry);
        while self.order.len() > MOST_WAITING || self.bytes > MOST_BYTES {
            self.drop_oldest();
        }
    }

    pub(super) fn take(&mut self, id: &str, now: Instant) -> Found {
        let Some(entry) = self.entries.get_mut(id) else {
            return Found::Nothing;
        };
        if now.duration_since(entry.at) >= REMEMBERED {
            return Found::Nothing;
        }
        match entry.asked.take() {
            None => Found::Given,
            Some(asked) => {
                self.bytes -= asked.held();
                Found::Asked(asked)
            }
        }
    }

    /// Forgets what is too old.
    pub(super) fn forget(&mut self, now: Instant) {
        while let Some((id, number)) = self.order.front() {
            let entry = self.entries.get(id);
            let entry = entry.filter(|entry| entry.number == *number);
            if entry.is_some_and(|entry| now.duration_since(entry.at) < REMEMBERED) {
                return;
            }
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((id, number)) = self.order.pop_front() else {
            return;
        };
        let is_same = self
            .entries
            .get(&id)
            .is_some_and(|one| one.number == number);
        if is_same {
            self.remove(&id);
        }
    }

    fn remove(&mut self, id: &str) {
        if let Some(entry) = self.entries.remove(id) {
            self.bytes -= ENTRY + id.len() + entry.asked.as_ref().map_or(0, Ended::held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(id: &str, query: usize) -> Ended {
        Ended {
            request_id: id.to_owned(),
            query: Some("q".repeat(query)),
            model: "m".into(),
            input_tokens: 1,
            output_tokens: None,
            predicted: None,
        }
    }

    #[test]
    fn given_once() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        waiting.add(asked("a", 3), now);
        assert_eq!(waiting.take("b", now), Found::Nothing);
        assert_eq!(waiting.take("a", now), Found::Asked(asked("a", 3)));
        assert_eq!(waiting.take("a", now), Found::Given);
        // The same id again is another request.
        waiting.add(asked("a", 4), now);
        assert_eq!(waiting.take("a", now), Found::Asked(asked("a", 4)));
        waiting.forget(now + REMEMBERED);
        assert_eq!((waiting.bytes, waiting.entries.len()), (0, 0));
        assert!(waiting.order.is_empty());
    }

    #[test]
    fn no_longer_than_a_day() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        waiting.add(asked("a", 3), now);
        waiting.add(asked("b", 3), now + Duration::from_secs(1));
        assert_eq!(waiting.take("a", now + REMEMBERED), Found::Nothing);
        waiting.forget(now + REMEMBERED);
        assert_eq!(waiting.entries.len(), 1);
        let late = now + REMEMBERED;
        assert_eq!(waiting.take("b", late), Found::Asked(asked("b", 3)));
    }

    #[test]
    fn no_more_than_there_may_be() {
        let now = Instant::now();
        let mut waiting = Waiting::default();
        for number in 0..=MOST_WAITING {
            waiting.add(asked(&number.to_string(), 0), now);
        }
        assert_eq!(waiting.entries.len(), MOST_WAITING);
        assert_eq!(waiting.take("0", now), Found::Nothing);
        assert!(matches!(waiting.take("1", now), Found::Asked(_)));
        for number in 0..MOST_WAITING {
            waiting.add(asked(&format!("long-{number}"), 8192), now);
        }
        assert!(waiting.bytes <= MOST_BYTES && waiting.entries.len() > 3000);
        // One id over and over is one request, and no growing queue.
        for _ in 0..3 * MOST_WAITING {
            waiting.add(asked("same", 1), now);
        }
        assert!(waiting.order.len() <= MOST_WAITING);
        assert!(matches!(waiting.take("same", now), Found::Asked(_)));
    }
}
