//! The thread that sends spans to a collector: in batches, over one connection,
//! each post with a deadline and two repetitions. What does not get there in
//! time, or finds no room to wait, is dropped and counted; no request ever waits.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::metrics::Counter;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsConnector;

use super::otlp::{KeyValue, batch};
use super::span::spans;
use super::wire::{self, PostError, Wire};
use crate::account::Account;
use crate::config::TraceSettings;
use crate::metrics::Telling;

/// Batches that workers may hand over before they are taken up.
pub const QUEUE: usize = 64;
/// Spans that wait to be sent; with their requests' accounts some 4 MiB, and 12
/// if each request has one span and texts as long as they may be.
pub const WAITING: usize = 4096;
/// Spans of one batch, and how long the first of them waits.
const BATCH: (usize, Duration) = (512, Duration::from_secs(5));
/// How long one post may take.
const POST: Duration = Duration::from_secs(10);
/// Posts of one batch, and the pause before the second, doubled each time.
const POSTS: (u32, Duration) = (3, Duration::from_secs(1));
/// How long the last may take, once the workers are gone.
const LAST: Duration = Duration::from_secs(3);
/// How often it is told that a collector takes nothing.
const TELL: Duration = Duration::from_secs(60);

/// What the exporter starts with.
pub struct Exporter {
    settings: TraceSettings,
    tls: Option<TlsConnector>,
    exported: Counter,
    dropped: Counter,
}

impl Exporter {
    /// An exporter for that collector.
    ///
    /// # Errors
    /// When it is to speak TLS, and no certificate is trusted.
    pub fn new(settings: TraceSettings, telling: &Telling) -> io::Result<Self> {
        Ok(Self {
            tls: wire::tls(&settings.collector)?,
            settings,
            exported: telling.spans_exported.clone(),
            dropped: telling.spans_dropped.clone(),
        })
    }

    /// Exports what comes, until no worker is left.
    ///
    /// # Errors
    /// When the runtime cannot be made.
    pub fn run(self, queue: mpsc::Receiver<Vec<Box<Account>>>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let waiting = Waiting::default();
            let taking = take(queue, &waiting, &self.dropped);
            let exporting = export(&self, &waiting);
            let ending = async {
                taking.await;
                tokio::time::sleep(LAST).await;
            };
            tokio::select! {
                () = exporting => {}
                () = ending => {}
            }
            self.dropped.increment(waiting.left() as u64);
        });
        Ok(())
    }

    /// What is said of this process with every batch.
    fn resource(&self, instance: &str) -> Vec<KeyValue> {
        vec![
            KeyValue::new("service.name", &*self.settings.service),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
            KeyValue::new("process.pid", u64::from(std::process::id())),
        ]
    }
}

/// Recorded requests that wait to be exported.
#[derive(Default)]
struct Waiting {
    queue: RefCell<VecDeque<Box<Account>>>,
    /// Their spans.
    spans: Cell<usize>,
    /// Spans that are being sent.
    sending: Cell<usize>,
    /// Whether more may come.
    is_closed: Cell<bool>,
    changed: Notify,
}

impl Waiting {
    /// Takes one in if there is room.
    fn put(&self, account: Box<Account>) -> Result<(), usize> {
        let count = account.spans();
        if self.spans.get() + count > WAITING {
            return Err(count);
        }
        self.spans.set(self.spans.get() + count);
        self.queue.borrow_mut().push_back(account);
        Ok(())
    }

    fn pop(&self) -> Option<Box<Account>> {
        let account = self.queue.borrow_mut().pop_front()?;
        self.spans.set(self.spans.get() - account.spans());
        Some(account)
    }

    /// Requests of which at most so many spans tell; one at least, if there is any.
    fn take(&self, most: usize) -> Vec<Box<Account>> {
        let mut taken = Vec::new();
        let mut count = 0;
        while let Some(account) = self.pop() {
            count += account.spans();
            taken.push(account);
            let next = self.queue.borrow().front().map_or(0, |next| next.spans());
            if count + next > most {
                break;
            }
        }
        self.sending.set(count);
        taken
    }

    /// Waits until there is a batch, or time for a smaller one; false when
    /// there is nothing, and nothing more will come.
    async fn ready(&self) -> bool {
        let mut since = None;
        loop {
            match self.look(&mut since, Instant::now()) {
                Next::Batch => return true,
                Next::Nothing => return false,
                Next::More => self.changed.notified().await,
                Next::MoreUntil(due) => {
                    // Either way it is to be looked at again.
                    let _ = tokio::time::timeout_at(due.into(), self.changed.notified()).await;
                }
            }
        }
    }

    /// What is to be done now; `since` is when the first span was seen.
    fn look(&self, since: &mut Option<Instant>, now: Instant) -> Next {
        let count = self.spans.get();
        if count == 0 && self.is_closed.get() {
            return Next::Nothing;
        }
        if count == 0 {
            return Next::More;
        }
        let due = *since.get_or_insert(now) + BATCH.1;
        if count >= BATCH.0 || self.is_closed.get() || now >= due {
            return Next::Batch;
        }
        Next::MoreUntil(due)
    }

    fn left(&self) -> usize {
        self.spans.get() + self.sending.get()
    }
}

/// What an exporter does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Sends.
    Batch,
    /// Waits for a span.
    More,
    /// Waits for more of them, until then.
    MoreUntil(Instant),
    /// Ends.
    Nothing,
}

/// Takes what workers hand over, so that they always find room.
async fn take(mut queue: mpsc::Receiver<Vec<Box<Account>>>, waiting: &Waiting, dropped: &Counter) {
    while let Some(accounts) = queue.recv().await {
        for account in accounts {
            if let Err(count) = waiting.put(account) {
                dropped.increment(count as u64);
            }
        }
        waiting.changed.notify_one();
    }
    waiting.is_closed.set(true);
    waiting.changed.notify_one();
}

async fn export(exporter: &Exporter, waiting: &Waiting) {
    let mut wire = Wire::new(exporter.settings.collector.clone(), exporter.tls.clone());
    let instance = format!("{:032x}", fastrand::u128(..));
    let mut told: Option<Instant> = None;
    while waiting.ready().await {
        let mut list = Vec::new();
        for account in waiting.take(BATCH.0) {
            spans(&account, &mut list);
        }
        let count = list.len() as u64;
        let message = wire.framed(&batch(exporter.resource(&instance), list));
        match post(&mut wire, message).await {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                exporter.exported.increment(count - rejected);
                exporter.dropped.increment(rejected);
                if told.take().is_some() {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                exporter.dropped.increment(count);
                if told.is_none_or(|at| at.elapsed() > TELL) {
                    tracing::warn!(%error, spans = count, "spans were dropped");
                    told = Some(Instant::now());
                }
            }
        }
        waiting.sending.set(0);
    }
}

/// Posts a batch, again if that may help; tells how many spans were refused.
async fn post(wire: &mut Wire, message: bytes::Bytes) -> Result<u64, PostError> {
    let (most, mut pause) = POSTS;
    let mut posted = 1;
    loop {
        match wire.post(message.clone(), POST).await {
            Ok(None) => return Ok(0),
            Ok(Some(partial)) => {
                if !partial.error_message.is_empty() {
                    tracing::debug!(message = partial.error_message, "the collector says");
                }
                return Ok(u64::try_from(partial.rejected_spans).unwrap_or(0));
            }
            Err(error) if posted == most || !error.may_pass() => return Err(error),
            Err(error) => tracing::debug!(%error, "spans are posted again"),
        }
        posted += 1;
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        pause *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded() -> Box<Account> {
        Box::new(Account::new(Instant::now()))
    }

    #[test]
    fn what_waits_is_bounded_and_goes_in_batches() {
        let waiting = Waiting::default();
        for _ in 0..WAITING {
            assert!(waiting.put(recorded()).is_ok());
        }
        assert_eq!(waiting.put(recorded()), Err(1));
        assert_eq!(waiting.take(BATCH.0).len(), BATCH.0);
        assert_eq!(waiting.left(), WAITING);
        waiting.sending.set(0);
        assert_eq!(waiting.left(), WAITING - BATCH.0);
        assert_eq!(waiting.take(0).len(), 1, "one at least");
    }

    #[test]
    fn a_small_batch_waits_for_others_a_while() {
        let waiting = Waiting::default();
        let (mut since, began) = (None, Instant::now());
        assert_eq!(waiting.look(&mut since, began), Next::More);
        assert!(waiting.put(recorded()).is_ok());
        let due = began + BATCH.1;
        assert_eq!(waiting.look(&mut since, began), Next::MoreUntil(due));
        assert!(waiting.put(recorded()).is_ok());
        let later = began + Duration::from_secs(1);
        assert_eq!(waiting.look(&mut since, later), Next::MoreUntil(due));
        assert_eq!(waiting.look(&mut since, due), Next::Batch);
        for _ in 2..BATCH.0 {
            assert!(waiting.put(recorded()).is_ok());
        }
        assert_eq!(waiting.look(&mut None, began), Next::Batch);
        waiting.take(BATCH.0 - 1);
        waiting.is_closed.set(true);
        assert_eq!(
            waiting.look(&mut None, began),
            Next::Batch,
            "the last go at once"
        );
        waiting.take(1);
        assert_eq!(waiting.look(&mut None, began), Next::Nothing);
    }
}
