//! Who has been idle for longest: those leave first when room is needed.
//!
//! A connection stands in the queue once for each tick of the clock in which
//! it came to rest. It is not taken out when it goes to work again: an entry
//! whose time is not the connection's any more counts for nothing, and is
//! swept away when the queue has doubled. So a request pays for a comparison,
//! and making room never looks at all connections.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Weak;
use std::time::{Duration, Instant};

use crate::metrics::Counter;

use super::conn::ConnState;

/// Idle for less than this is not idle: the client may have only just
/// connected, or its next request may be on its way.
const GRACE: Duration = Duration::from_millis(500);
/// Entries that are never worth a sweep.
const FEW: usize = 64;

/// The idle connections of a worker, the longest idle first.
#[derive(Debug)]
pub struct IdleQueue {
    entries: RefCell<VecDeque<(Weak<ConnState>, Instant)>>,
    sweep_at: Cell<usize>,
    closed: Counter,
}

impl IdleQueue {
    /// An empty queue; `closed` counts who left to make room.
    #[must_use]
    pub fn new(closed: Counter) -> Self {
        Self {
            entries: RefCell::default(),
            sweep_at: Cell::new(FEW),
            closed,
        }
    }

    /// Asks so many connections at most to leave, those that have been idle
    /// for longest. A connection that turns out to have work stays.
    pub fn make_room(&self, most: usize, now: Instant) {
        let mut entries = self.entries.borrow_mut();
        let mut asked = 0;
        while asked < most
            && let Some((conn, since)) = entries.front()
        {
            let rests = conn.upgrade().filter(|conn| conn.rests_since(*since));
            if rests.is_some() && now < *since + GRACE {
                return;
            }
            if let Some(conn) = rests {
                conn.ask_to_leave();
                asked += 1;
            }
            entries.pop_front();
        }
    }

    /// A connection has come to rest.
    pub(super) fn push(&self, conn: Weak<ConnState>, since: Instant) {
        let mut entries = self.entries.borrow_mut();
        if entries.len() >= self.sweep_at.get() {
            entries.retain(|(conn, since)| {
                conn.upgrade().is_some_and(|conn| conn.rests_since(*since))
            });
            self.sweep_at.set(FEW.max(2 * entries.len()));
        }
        entries.push_back((conn, since));
    }

    /// One has left to make room.
    pub(super) fn count_closed(&self) {
        self.closed.increment(1);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use http::Version;

    use super::super::Shared;
    use super::super::conn::Handled;
    use super::super::watch::Watch;
    use super::*;
    use crate::config::Timeouts;
    use crate::drain::DrainWatch;

    fn shared(start: Instant) -> Shared {
        Shared {
            trusted: std::sync::Arc::default(),
            unseen: crate::downstream::strict::Unseen::new(|_| {}),
            watch: Watch::new(start),
            timeouts: Cell::new(Timeouts::default()),
            drain: DrainWatch::default(),
            idle: Rc::new(IdleQueue::new(Counter::default())),
            tls: None,
        }
    }

    fn conn(shared: &Shared) -> Rc<ConnState> {
        ConnState::new("127.0.0.1:1".parse().unwrap(), shared)
    }

    /// Who has been asked to leave.
    fn asked(conns: &[Rc<ConnState>]) -> Vec<bool> {
        conns.iter().map(|conn| conn.is_asked_to_leave()).collect()
    }

    #[test]
    fn the_longest_idle_is_asked_first_and_who_works_never() {
        let start = Instant::now();
        let at = |tick: u32| start + Duration::from_millis(100) * tick;
        let shared = shared(start);
        let mut conns = Vec::new();
        for tick in 0..4 {
            shared.watch.sweep(at(tick));
            conns.push(conn(&shared));
        }
        // The first works, the second has worked, the third has begun a head.
        let serving = Handled::http1(&conns[0]).serve(Version::HTTP_11);
        drop(Handled::http1(&conns[1]).serve(Version::HTTP_11));
        conns[2].head_begins();
        shared.idle.make_room(9, at(4));
        assert_eq!(asked(&conns), [false; 4], "nobody has been idle for long");
        shared.idle.make_room(1, at(50));
        assert_eq!(asked(&conns), [false, false, false, true]);
        shared.idle.make_room(9, at(50));
        assert_eq!(asked(&conns), [false, true, false, true]);
        shared.watch.sweep(at(51));
        drop(serving);
        shared.idle.make_room(9, at(60));
        assert_eq!(asked(&conns), [true, true, false, true]);
        // Work comes before leaving.
        let _serving = Handled::http1(&conns[0]).serve(Version::HTTP_11);
        assert_eq!(asked(&conns), [false, true, false, true]);
    }

    #[test]
    fn an_answer_on_its_way_keeps_a_connection_and_then_it_is_idle() {
        let start = Instant::now();
        let shared = shared(start);
        let conns = [conn(&shared)];
        drop(Handled::http1(&conns[0]).serve(Version::HTTP_11));
        conns[0].write_stalls();
        shared.idle.make_room(9, start + Duration::from_secs(9));
        assert_eq!(asked(&conns), [false]);
        shared.watch.sweep(start + Duration::from_secs(10));
        conns[0].write_moves();
        let cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(!conns[0].deadline.expired(&cx));
        shared.idle.make_room(9, start + Duration::from_secs(20));
        assert_eq!(asked(&conns), [true]);
        shared.watch.sweep(start + Duration::from_secs(100));
        assert!(conns[0].deadline.expired(&cx), "idle for too long");
    }

    #[test]
    fn the_queue_is_bounded_by_its_connections() {
        let start = Instant::now();
        let shared = shared(start);
        let conns: Vec<_> = (0..10).map(|_| conn(&shared)).collect();
        for tick in 0..1000 {
            shared
                .watch
                .sweep(start + Duration::from_millis(100) * tick);
            for conn in &conns {
                for _ in 0..3 {
                    drop(Handled::http1(conn).serve(Version::HTTP_11));
                }
            }
            assert!(shared.idle.entries.borrow().len() <= FEW);
        }
        // All of them are still known.
        shared.idle.make_room(99, start + Duration::from_secs(1000));
        assert_eq!(asked(&conns), [true; 10]);
    }
}
