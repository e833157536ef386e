//! A bounded number of places, and a queue of those who wait for one.
//!
//! Who finds a place takes it by one atomic operation. Only where there is none
//! is a lock taken, by those who wait and by those who leave while others wait.
//! A place that is given up goes to one who waits, not to whoever comes next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Priorities: 0 to 9, the highest first.
pub const PRIORITIES: usize = 10;
/// Every so often it is the turn of whoever has waited longest, so that nobody
/// waits for ever.
const OLDEST_EVERY: u32 = 4;

/// What all workers share of it.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Those of the process.
    pub process: Arc<Gate>,
    /// Requests that wait, for whatever place.
    waiting: Arc<AtomicU32>,
}

/// One of those that wait, counted until it is dropped.
#[derive(Debug)]
pub struct Counted(Arc<AtomicU32>);

impl Places {
    /// Requests that wait for a place.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// One more, unless so many wait already.
    #[must_use]
    pub fn count(&self, most: u32) -> Option<Counted> {
        let more = |count: u32| (count < most).then_some(count + 1);
        let counted = self.waiting.fetch_update(Relaxed, Relaxed, more);
        counted.is_ok().then(|| Counted(Arc::clone(&self.waiting)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Places, and who waits for them.
#[derive(Debug, Default)]
pub struct Gate {
    taken: AtomicU32,
    waiting: AtomicU32,
    /// As it was when someone last came.
    limit: AtomicU32,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    levels: [VecDeque<Arc<Waiter>>; PRIORITIES],
    /// Counts those who came.
    tickets: u64,
    /// Counts those who were let in.
    turns: u32,
}

#[derive(Debug)]
struct Waiter {
    ticket: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Waiting(Option<Waker>),
    /// The place is its own.
    Granted,
}

/// A place; given up when dropped.
#[derive(Debug)]
pub struct Place(Arc<Gate>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Someone who waits for a place; leaves the queue when dropped.
#[derive(Debug)]
pub struct Waiting {
    gate: Arc<Gate>,
    waiter: Arc<Waiter>,
    level: usize,
    is_over: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked left a whole value: each change is one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    /// A place, if one of `limit` is free and nobody waits for it.
    pub fn enter(self: &Arc<Self>, limit: u32) -> Option<Place> {
        // A change is rare, and those who wait are to know of it.
        if self.limit.load(Relaxed) != limit && self.limit.swap(limit, SeqCst) < limit {
            self.let_in(&mut lock(&self.queue));
        }
        let is_free = self.waiting.load(SeqCst) == 0 && self.take(limit);
        is_free.then(|| Place(Arc::clone(self)))
    }

    /// Waits for a place; 9 is the highest priority.
    pub fn wait(self: &Arc<Self>, limit: u32, priority: u8) -> Waiting {
        self.limit.store(limit, Relaxed);
        let level = usize::from(priority).min(PRIORITIES - 1);
        let mut queue = lock(&self.queue);
        queue.tickets += 1;
        let waiter = Arc::new(Waiter {
            ticket: queue.tickets,
            state: Mutex::new(State::Waiting(None)),
        });
        queue.levels[level].push_back(Arc::clone(&waiter));
        self.waiting.fetch_add(1, SeqCst);
        // Whoever left before that did not see that someone waits.
        self.let_in(&mut queue);
        drop(queue);
        Waiting {
            gate: Arc::clone(self),
            waiter,
            level,
            is_over: false,
        }
    }

    /// Places that are taken.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.taken.load(Relaxed)
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    fn take(&self, limit: u32) -> bool {
        let more = |taken: u32| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    fn leave(&self) {
        self.taken.fetch_sub(1, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            self.let_in(&mut lock(&self.queue));
        }
    }

    fn let_in(&self, queue: &mut Queue) {
        let limit = self.limit.load(Relaxed);
        while queue.is_waited_in() && self.take(limit) {
            let Some(waiter) = queue.next() else {
                self.taken.fetch_sub(1, SeqCst);
                return;
            };
            self.waiting.fetch_sub(1, SeqCst);
            let before = std::mem::replace(&mut *lock(&waiter.state), State::Granted);
            if let State::Waiting(Some(waker)) = before {
                waker.wake();
            }
        }
    }
}

impl Queue {
    fn is_waited_in(&self) -> bool {
        self.levels.iter().any(|level| !level.is_empty())
    }

    fn next(&mut self) -> Option<Arc<Waiter>> {
        self.turns = self.turns.wrapping_add(1);
        let mut waited = self.levels.iter_mut().filter(|level| !level.is_empty());
        if self.turns.is_multiple_of(OLDEST_EVERY) {
            let oldest = waited.min_by_key(|level| level.front().map(|first| first.ticket));
            return oldest?.pop_front();
        }
        waited.next_back()?.pop_front()
    }
}

impl Waiting {
    /// Ready when there is a place.
    pub fn poll(&mut self, cx: &Context<'_>) -> Poll<Place> {
        let mut state = lock(&self.waiter.state);
        match &mut *state {
            State::Granted => {
                drop(state);
                self.is_over = true;
                Poll::Ready(Place(Arc::clone(&self.gate)))
            }
            State::Waiting(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut queue = lock(&self.gate.queue);
        let ticket = self.waiter.ticket;
        let level = &mut queue.levels[self.level];
        // In the order of their tickets.
        if let Ok(at) = level.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            level.remove(at);
            self.gate.waiting.fetch_sub(1, SeqCst);
            return;
        }
        drop(queue);
        // It was let in, and does not come.
        self.gate.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn poll(waiting: &mut Waiting) -> Option<Place> {
        match waiting.poll(&Context::from_waker(Waker::noop())) {
            Poll::Ready(place) => Some(place),
            Poll::Pending => None,
        }
    }

    #[test]
    fn places_are_bounded_and_handed_on_in_order() {
        let gate = Arc::new(Gate::default());
        let first = gate.enter(2).unwrap();
        let second = gate.enter(2).unwrap();
        assert!(gate.enter(2).is_none());
        let mut waiting: Vec<Waiting> = (0..3).map(|_| gate.wait(2, 5)).collect();
        assert!(waiting.iter_mut().all(|one| poll(one).is_none()));
        drop(first);
        assert!(gate.enter(2).is_none(), "it is not for those who come");
        let place = poll(&mut waiting[0]).unwrap();
        assert!(poll(&mut waiting[1]).is_none());
        drop(waiting.remove(1));
        drop(second);
        assert!(poll(&mut waiting[1]).is_some(), "who left is passed over");
        drop((place, waiting));
        assert_eq!((gate.taken(), gate.waiting()), (0, 0));
    }

    #[test]
    fn who_is_let_in_and_gone_gives_the_place_on() {
        let gate = Arc::new(Gate::default());
        let place = gate.enter(1).unwrap();
        let gone = gate.wait(1, 0);
        let mut stays = gate.wait(1, 0);
        drop(place);
        drop(gone);
        assert!(poll(&mut stays).is_some());
        assert_eq!((gate.taken(), gate.waiting()), (0, 0));
    }

    #[test]
    fn a_higher_limit_lets_several_in() {
        let gate = Arc::new(Gate::default());
        let place = gate.enter(1).unwrap();
        let mut waiting: Vec<Waiting> = (0..3).map(|_| gate.wait(1, 0)).collect();
        let more = gate.enter(4);
        assert!(more.is_none(), "those who wait come first");
        assert!(waiting.iter_mut().all(|one| poll(one).is_some()));
        drop(place);
    }

    #[test]
    fn high_priorities_come_first_and_low_ones_are_not_forgotten() {
        let gate = Arc::new(Gate::default());
        let mut place = gate.enter(1);
        let mut low = gate.wait(1, 0);
        let mut high: Vec<Waiting> = (0..20).map(|_| gate.wait(1, 9)).collect();
        for turn in 1..=20 {
            drop(place.take());
            let is_low = poll(&mut low);
            if turn == OLDEST_EVERY {
                assert!(is_low.is_some(), "the oldest has its turn");
                return;
            }
            assert!(is_low.is_none());
            place = poll(&mut high.remove(0));
            assert!(place.is_some());
        }
        drop(place);
    }

    proptest! {
        /// Never more places than the limit; whoever stays is let in; all is
        /// given back.
        #[test]
        fn whatever_comes_and_goes(steps in prop::collection::vec((0..4u8, 0..12u8), 1..200)) {
            const LIMIT: u32 = 3;
            let gate = Arc::new(Gate::default());
            let (mut inside, mut waiting) = (Vec::new(), Vec::new());
            for (step, which) in steps {
                let at = |length: usize| usize::from(which) % length.max(1);
                match step {
                    0 => match gate.enter(LIMIT) {
                        Some(place) => inside.push(place),
                        None => waiting.push(gate.wait(LIMIT, which)),
                    },
                    1 if !inside.is_empty() => drop(inside.swap_remove(at(inside.len()))),
                    2 if !waiting.is_empty() => drop(waiting.remove(at(waiting.len()))),
                    _ => {}
                }
                let mut still = Vec::new();
                for mut one in waiting {
                    match poll(&mut one) {
                        Some(place) => inside.push(place),
                        None => still.push(one),
                    }
                }
                waiting = still;
                prop_assert!(inside.len() <= LIMIT as usize);
                prop_assert_eq!(gate.taken() as usize, inside.len());
                prop_assert_eq!(gate.waiting() as usize, waiting.len());
                prop_assert!(waiting.is_empty() || inside.len() == LIMIT as usize);
            }
            drop((inside, waiting));
            prop_assert_eq!((gate.taken(), gate.waiting()), (0, 0));
        }
    }
}
