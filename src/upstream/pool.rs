//! One worker's idle connections to the engines, last in first out.
//!
//! Shared with nobody, hence without a lock. Bounded per engine; what is idle
//! for too long, or was closed by the engine, goes at the next sweep.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::io;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::link::Link;
use super::secure::Secure;
use crate::fleet::Engine;
use crate::net;
use crate::net::wire::Wire;

/// Bytes that one read takes from an engine at most.
const SCRATCH: usize = 64 << 10;

/// A worker's idle connections, and the read buffer that its streams share.
#[derive(Debug)]
pub struct Pool {
    idle: RefCell<HashMap<u64, Vec<Idle>, foldhash::fast::RandomState>>,
    scratch: RefCell<Vec<u8>>,
    most_per_engine: usize,
    idle_for: Cell<Duration>,
    connect_within: Cell<Duration>,
    secure: Arc<Secure>,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
    /// How long it may be at most, if its engine has told.
    limit: Option<Duration>,
}

impl Idle {
    /// Whether its engine is about to close it.
    fn has_had_its_time(&self, now: impl FnOnce() -> Instant) -> bool {
        let limit = self.limit;
        limit.is_some_and(|limit| now().saturating_duration_since(self.since) >= limit)
    }
}

impl Pool {
    /// An empty pool; engines that speak TLS must be known to this system.
    #[must_use]
    pub fn new(most_per_engine: usize, idle_for: Duration, connect_within: Duration) -> Rc<Self> {
        Self::secured(most_per_engine, (idle_for, connect_within), Arc::default())
    }

    /// The same, with what is known of engines that speak TLS.
    #[must_use]
    pub fn secured(
        most_per_engine: usize,
        (idle_for, connect_within): (Duration, Duration),
        secure: Arc<Secure>,
    ) -> Rc<Self> {
        Rc::new(Self {
            idle: RefCell::default(),
            scratch: RefCell::new(Vec::with_capacity(SCRATCH)),
            most_per_engine,
            idle_for: Cell::new(idle_for),
            connect_within: Cell::new(connect_within),
            secure,
        })
    }

    /// Changes how long connections may be idle, and connecting may take.
    pub fn set_timeouts(&self, idle_for: Duration, connect_within: Duration) {
        self.idle_for.set(idle_for);
        self.connect_within.set(connect_within);
    }

    /// The newest idle connection to `engine` that is still silent.
    #[must_use]
    pub fn take(&self, engine: &Engine) -> Option<Link> {
        let mut idle = self.idle.borrow_mut();
        let list = idle.get_mut(&engine.key)?;
        while let Some(mut entry) = list.pop() {
            if !entry.has_had_its_time(Instant::now) && entry.link.is_silent() {
                engine.reuses.fetch_add(1, Relaxed);
                entry.link.begin_reuse();
                return Some(entry.link);
            }
        }
        None
    }

    /// A new connection to `engine`.
    ///
    /// # Errors
    /// Those of connecting; `TimedOut` after the connect deadline, which is for
    /// the handshake too.
    pub async fn connect(&self, engine: &Arc<Engine>) -> io::Result<Link> {
        let (url, within) = (&engine.url, self.connect_within.get());
        let began = Instant::now();
        let stream = net::connect(url.host(), url.port(), within).await?;
        let wire = if url.is_tls() {
            // Boxed, since most connections are in clear text.
            let shaking = Box::pin(self.secure.shake(stream, url));
            let left = within.saturating_sub(began.elapsed());
            let shaken = tokio::time::timeout(left, shaking).await;
            shaken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
        } else {
            Wire::Plain(stream)
        };
        engine.connects.fetch_add(1, Relaxed);
        Ok(Link::new(wire, engine))
    }

    /// Takes back a connection whose last answer ended properly, and which may
    /// be idle so many seconds at most.
    pub(super) fn put(&self, mut link: Link, seconds: Option<NonZeroU32>) {
        // A pool that keeps none is never swept.
        if self.most_per_engine == 0 || !link.is_silent() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let list = idle.entry(link.engine_key()).or_default();
        if list.len() < self.most_per_engine {
            let since = Instant::now();
            let limit = seconds.map(|seconds| Duration::from_secs(seconds.get().into()));
            list.push(Idle { link, since, limit });
        }
    }

    /// Closes what has been idle for too long or was closed by the engine.
    pub fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, list| {
            list.retain_mut(|entry| {
                now.saturating_duration_since(entry.since) < self.idle_for.get()
                    && !entry.has_had_its_time(|| now)
                    && entry.link.is_silent()
            });
            !list.is_empty()
        });
    }

    /// Idle connections held.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.borrow().values().map(Vec::len).sum()
    }

    /// The empty read buffer; borrowed within one poll only.
    pub(super) fn scratch(&self) -> RefMut<'_, Vec<u8>> {
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        scratch
    }
}
