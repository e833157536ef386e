//! Which block a session was given, and which of its requests are under way.
//!
//! The one lock that workers share in the path of a request: of this route
//! alone, in shards, for a look and a note. Sessions are known by a hash.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;

/// A session that rests so long is forgotten.
pub const TTL: Duration = Duration::from_secs(30 * 60);
/// Sessions known at once; the one that rests longest goes first, of its shard.
pub const MOST: usize = 10_000;
/// Requests under way at once, as many as there may be connections.
const MOST_UNDER_WAY: usize = 65_536;
/// Queries of one session that are kept in mind: 10,000 sessions take 2 MiB.
const MOST_QUERIES: usize = 4;
const SHARDS: usize = 16;

/// All sessions of the process.
#[derive(Debug, Default)]
pub struct Sessions {
    seed: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    known: HashMap<u64, Session>,
    under_way: HashSet<u64>,
}

#[derive(Debug)]
struct Session {
    used: Instant,
    /// The query that was used last comes last.
    bound: Vec<Bound>,
}

#[derive(Debug, Clone)]
struct Bound {
    query: u64,
    block: Arc<str>,
}

/// What is known of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing.
    Nothing,
    /// It was given a block by another query.
    Other,
    /// It was given this block by the same query.
    Block(Arc<str>),
}

/// Why a request may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The same is under way.
    UnderWay,
    /// Too many are.
    Full,
}

/// A request under way, until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay {
    sessions: Arc<Sessions>,
    key: u64,
}

/// What binds a session to a block, for as long as one of its answers lasts.
#[derive(Debug)]
pub(super) struct Bond {
    pub(super) sessions: Arc<Sessions>,
    pub(super) session: u64,
    pub(super) query: u64,
    pub(super) block: Arc<str>,
}

impl Bond {
    /// The block has broken off: the session's next request may have another.
    pub(super) fn part(&self) {
        self.sessions.forget(self.session, self.query, &self.block);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.sessions.shard(self.key).under_way.remove(&self.key);
    }
}

impl Sessions {
    /// A session's own number.
    pub(super) fn key(&self, session: &str) -> u64 {
        self.seed.hash_one(session)
    }

    /// A query's own number.
    pub(super) fn query(&self, text: &str) -> u64 {
        self.seed.hash_one(("query", text))
    }

    /// The session's request of that number begins.
    ///
    /// # Errors
    /// Why it may not.
    pub(super) fn begin(self: &Arc<Self>, session: u64, seq_no: u64) -> Result<UnderWay, Refused> {
        let key = self.seed.hash_one((session, seq_no));
        let mut shard = self.shard(key);
        if shard.under_way.contains(&key) {
            return Err(Refused::UnderWay);
        }
        if shard.under_way.len() >= MOST_UNDER_WAY / SHARDS {
            return Err(Refused::Full);
        }
        shard.under_way.insert(key);
        drop(shard);
        Ok(UnderWay {
            sessions: Arc::clone(self),
            key,
        })
    }

    /// The block that the session was given by that query.
    pub(super) fn find(&self, session: u64, query: u64, now: Instant) -> Known {
        let mut shard = self.shard(session);
        let Some(known) = shard.known.get_mut(&session) else {
            return Known::Nothing;
        };
        if now.saturating_duration_since(known.used) >= TTL {
            shard.known.remove(&session);
            return Known::Nothing;
        }
        known.used = now;
        let Some(at) = known.bound.iter().position(|bound| bound.query == query) else {
            return Known::Other;
        };
        known.bound[at..].rotate_left(1);
        let last = known.bound.last();
        last.map_or(Known::Nothing, |bound| {
            Known::Block(Arc::clone(&bound.block))
        })
    }

    /// The session is given that block by that query.
    pub(super) fn bind(&self, session: u64, query: u64, block: &Arc<str>, now: Instant) {
        let mut shard = self.shard(session);
        if !shard.known.contains_key(&session) && shard.known.len() >= MOST / SHARDS {
            shard.make_room(now);
        }
        let known = shard.known.entry(session).or_insert_with(|| Session {
            used: now,
            bound: Vec::with_capacity(1),
        });
        known.used = now;
        known.bound.retain(|bound| bound.query != query);
        if known.bound.len() == MOST_QUERIES {
            known.bound.remove(0);
        }
        known.bound.push(Bound {
            query,
            block: Arc::clone(block),
        });
    }

    /// The block that the session was given by that query did not answer; if it has
    /// another one by now, that stays.
    pub(super) fn forget(&self, session: u64, query: u64, block: &Arc<str>) {
        if let Some(known) = self.shard(session).known.get_mut(&session) {
            let is_it = |bound: &Bound| bound.query == query && bound.block == *block;
            known.bound.retain(|bound| !is_it(bound));
        }
    }

    /// Sessions known now.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| locked(shard).known.len())
            .sum()
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        let at = usize::try_from(key >> 60).unwrap_or_default();
        locked(&self.shards[at % SHARDS])
    }
}

/// Nothing in a shard can be half done.
fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    /// Forgets those that rest too long; that failing, the one that rests longest.
    fn make_room(&mut self, now: Instant) {
        let before = self.known.len();
        let is_young = |known: &Session| now.saturating_duration_since(known.used) < TTL;
        self.known.retain(|_, known| is_young(known));
        if self.known.len() < before {
            return;
        }
        let oldest = self.known.iter().min_by_key(|(_, known)| known.used);
        if let Some(key) = oldest.map(|(key, _)| *key) {
            self.known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    #[test]
    fn a_session_keeps_its_block_for_each_query() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let session = sessions.key("s");
        assert_eq!(sessions.find(session, 1, now), Known::Nothing);
        sessions.bind(session, 1, &block("a"), now);
        assert_eq!(sessions.find(session, 1, now), Known::Block(block("a")));
        assert_eq!(sessions.find(session, 2, now), Known::Other);
        sessions.bind(session, 2, &block("b"), now);
        assert_eq!(sessions.find(session, 1, now), Known::Block(block("a")));
        sessions.bind(session, 1, &block("c"), now);
        assert_eq!(sessions.find(session, 1, now), Known::Block(block("c")));
        assert_eq!(sessions.find(sessions.key("t"), 1, now), Known::Nothing);
        // It has another one by now.
        sessions.forget(session, 1, &block("a"));
        assert_eq!(sessions.find(session, 1, now), Known::Block(block("c")));
        sessions.forget(session, 1, &block("c"));
        assert_eq!(sessions.find(session, 1, now), Known::Other);
        sessions.bind(session, 1, &block("c"), now);
        // The query that was used longest ago is forgotten.
        for query in 3..=5 {
            sessions.bind(session, query, &block("d"), now);
        }
        assert_eq!(sessions.find(session, 2, now), Known::Other);
        assert_eq!(sessions.find(session, 1, now), Known::Block(block("c")));
    }

    #[test]
    fn a_session_that_rests_is_forgotten() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        sessions.bind(7, 1, &block("a"), now);
        let later = now + TTL - Duration::from_secs(1);
        assert_eq!(sessions.find(7, 1, later), Known::Block(block("a")));
        assert_eq!(sessions.find(7, 1, later + TTL), Known::Nothing);
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn sessions_are_bounded() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let at = |n: u32| now + Duration::from_millis(u64::from(n));
        for n in 0..30_000 {
            sessions.bind(sessions.key(&n.to_string()), 1, &block("a"), at(n));
        }
        assert!(sessions.len() <= MOST, "{}", sessions.len());
        let newest = sessions.key("29999");
        assert_eq!(
            sessions.find(newest, 1, at(30_000)),
            Known::Block(block("a"))
        );
        assert_eq!(
            sessions.find(sessions.key("0"), 1, at(30_000)),
            Known::Nothing
        );
    }

    #[test]
    fn a_request_is_under_way_once() {
        let sessions: Arc<Sessions> = Arc::default();
        let first = sessions.begin(1, 1).unwrap();
        assert_eq!(sessions.begin(1, 1).unwrap_err(), Refused::UnderWay);
        let other = sessions.begin(1, 2).unwrap();
        let elsewhere = sessions.begin(2, 1).unwrap();
        drop(first);
        let again = sessions.begin(1, 1).unwrap();
        drop((other, elsewhere, again));
        let all: Vec<UnderWay> = (0..100_000)
            .map_while(|n| sessions.begin(3, n).ok())
            .collect();
        assert!(all.len() <= MOST_UNDER_WAY, "{}", all.len());
        drop(all);
        assert!(sessions.begin(3, 0).is_ok());
    }
}
