//! Deadlines without timers: a worker looks at all of them ten times a second.
//!
//! A stream moves its deadline at every event; a timer each would cost a lock
//! and a wheel insertion each time, this costs one store. The price is that a
//! deadline is about a tenth of a second coarse.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// How often the deadlines are looked at.
pub const TICK: Duration = Duration::from_millis(100);

/// All deadlines of a worker, and its coarse clock.
#[derive(Debug)]
pub struct Watch {
    entries: RefCell<Vec<Weak<Deadline>>>,
    now: Cell<Instant>,
}

/// One deadline; never, until it is set.
#[derive(Debug)]
pub struct Deadline {
    at: Cell<Option<Instant>>,
    /// When the whole must have ended, whatever it is that is waited for.
    total: Cell<Option<Instant>>,
    waker: RefCell<Option<Waker>>,
    watch: Rc<Watch>,
}

impl Watch {
    /// A watch without deadlines, at this time.
    #[must_use]
    pub fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            entries: RefCell::default(),
            now: Cell::new(now),
        })
    }

    /// A new deadline that the sweep looks at as long as it lives.
    #[must_use]
    pub fn deadline(self: &Rc<Self>) -> Rc<Deadline> {
        let deadline = Rc::new(Deadline {
            at: Cell::new(None),
            total: Cell::new(None),
            waker: RefCell::new(None),
            watch: Rc::clone(self),
        });
        self.entries.borrow_mut().push(Rc::downgrade(&deadline));
        deadline
    }

    /// The time of the last sweep.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// Wakes whoever's deadline has passed.
    pub fn sweep(&self, now: Instant) {
        self.now.set(now);
        self.wake_where(|deadline| deadline.passed());
    }

    /// Wakes everyone: something else than time has changed.
    pub fn wake_all(&self) {
        self.wake_where(|_| true);
    }

    fn wake_where(&self, ripe: impl Fn(&Deadline) -> bool) {
        let mut wakers = Vec::new();
        self.entries.borrow_mut().retain(|entry| {
            let Some(deadline) = entry.upgrade() else {
                return false;
            };
            if ripe(&deadline) {
                wakers.extend(deadline.waker.borrow_mut().take());
            }
            true
        });
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Deadline {
    /// Sets it to so long from now.
    pub fn set(&self, within: Duration) {
        self.at.set(self.watch.now().checked_add(within));
    }

    /// Sets it to that time; the past is now.
    pub fn until(&self, at: Instant) {
        self.at.set(Some(at));
    }

    /// Sets it to never.
    pub fn clear(&self) {
        self.at.set(None);
    }

    /// Sets when the whole must have ended, whatever [`Deadline::set`] and
    /// [`Deadline::clear`] do meanwhile.
    pub fn limit(&self, total: Option<Instant>) {
        self.total.set(total);
    }

    /// Whether the time of the whole is up, or another deadline passed so long
    /// ago; if not, the caller's task is woken when either has passed, and again
    /// at each sweep from then on.
    pub fn is_overdue(&self, by: Duration, cx: &Context<'_>) -> bool {
        let now = self.watch.now();
        if self.is_over() || self.at.get().is_some_and(|at| now >= at + by) {
            return true;
        }
        self.wakes(cx);
        false
    }

    /// Whether the time of the whole is up.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.total.get().is_some_and(|at| self.watch.now() >= at)
    }

    /// Whether it has passed; if not, the caller's task is woken when it does.
    pub fn expired(&self, cx: &Context<'_>) -> bool {
        if self.passed() {
            return true;
        }
        self.wakes(cx);
        false
    }

    fn wakes(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }

    /// The coarse clock that it is measured by.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.watch.now()
    }

    /// Wakes whoever watches it: something else than time has changed.
    pub fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        waker.into_iter().for_each(Waker::wake);
    }

    fn passed(&self) -> bool {
        self.at.get().is_some_and(|at| self.watch.now() >= at) || self.is_over()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn wakes_when_passed_and_only_then() {
        let start = Instant::now();
        let watch = Watch::new(start);
        let deadline = watch.deadline();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        assert!(!deadline.expired(&cx));
        deadline.set(Duration::from_secs(1));
        watch.sweep(start + Duration::from_millis(900));
        assert_eq!(count.0.load(Relaxed), 0);
        deadline.set(Duration::from_secs(1));
        watch.sweep(start + Duration::from_millis(1500));
        assert_eq!(count.0.load(Relaxed), 0, "it was moved");
        watch.sweep(start + Duration::from_millis(1900));
        assert_eq!(count.0.load(Relaxed), 1);
        assert!(deadline.expired(&cx));
        deadline.clear();
        assert!(!deadline.expired(&cx));
        deadline.limit(Some(start + Duration::from_secs(3)));
        deadline.set(Duration::from_secs(60));
        assert!(!deadline.expired(&cx) && !deadline.is_over());
        watch.sweep(start + Duration::from_secs(3));
        assert!(deadline.expired(&cx) && deadline.is_over());
    }

    #[test]
    fn forgets_the_dropped() {
        let watch = Watch::new(Instant::now());
        drop(watch.deadline());
        let _kept = watch.deadline();
        watch.wake_all();
        assert_eq!(watch.entries.borrow().len(), 1);
    }
}
