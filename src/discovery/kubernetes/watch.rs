//! Following a collection for ever: a list, then watches, each from where the last
//! one ended, and now and then a list again.
//!
//! Written for bad days. Whatever fails is tried again with growing pauses, which
//! end when something goes well, not when it merely begins; what is known stays in
//! force until a list is whole. A lost version is followed by a list at once. A
//! watch that says nothing, not even its end, is cut; one that is silent though
//! things happen is found out by the next list.

mod listing;
mod reading;

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::debug;

use super::api::{Answer, ApiServer};
pub use super::event::{Event, Watched};
use super::fault::Fault;
use super::lines::Lines;
use super::pace::{Backoff, Pace, spread, within};
use super::status::Status;
use reading::MOST_LINE;

/// Follows for ever; calls `tell` for each event, in order. What `tell` is given
/// is not known to be good JSON. Dropping it ends all.
pub async fn follow(
    api: &ApiServer,
    watched: &Watched,
    pace: &Pace,
    status: &Status,
    tell: impl FnMut(Event<'_>),
) -> Infallible {
    let mut follower = Follower {
        api,
        watched,
        pace,
        status,
        tell,
        version: String::new(),
        listing: Backoff::default(),
        watching: Backoff::default(),
        listed_at: None,
        watched_at: None,
    };
    sleep(within(pace.start)).await;
    loop {
        let stream = follower.list().await;
        follower.watch(stream).await;
    }
}

/// One collection that is followed.
struct Follower<'a, T> {
    api: &'a ApiServer,
    watched: &'a Watched,
    pace: &'a Pace,
    status: &'a Status,
    tell: T,
    /// Where the next watch begins.
    version: String,
    listing: Backoff,
    watching: Backoff,
    /// When the last list began.
    listed_at: Option<Instant>,
    /// When the last watch began.
    watched_at: Option<Instant>,
}

/// A watch's answer.
struct Stream {
    answer: Answer,
    lines: Lines,
    began: Instant,
    /// Until then it has to end.
    until: Instant,
    /// Whether there was an event in it.
    is_good: bool,
}

impl<T: FnMut(Event<'_>)> Follower<'_, T> {
    /// Watches until a list is due, or needed. `stream` is a watch that goes on.
    async fn watch(&mut self, mut stream: Option<Stream>) {
        let list_at = Instant::now() + spread(self.pace.relist, 0.2);
        loop {
            let left = list_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let outcome = match stream.take() {
                Some(stream) => self.read(stream).await,
                None => self.watch_once(left).await,
            };
            if let Err(fault) = outcome {
                let pause = self.watching.after(&fault, self.pace);
                self.status.failed(&self.watched.path, &fault, pause);
                sleep(pause).await;
                if fault.needs_list() {
                    return;
                }
            }
        }
    }

    /// One watch; shorter than the others if a list is due sooner.
    async fn watch_once(&mut self, left: Duration) -> Result<(), Fault> {
        apart(&mut self.watched_at, self.pace).await;
        let lasting = spread(self.watched.timeout, 0.1).min(left);
        let path = self.watched.since(&self.version, seconds(lasting));
        let stream = self.open(&path, lasting).await?;
        self.read(stream).await
    }

    /// Begins a watch.
    async fn open(&mut self, path: &str, lasting: Duration) -> Result<Stream, Fault> {
        let answer = self.api.get(path, self.pace.head).await?;
        self.status.heard();
        self.status.watching();
        let began = Instant::now();
        Ok(Stream {
            answer,
            lines: Lines::new(MOST_LINE),
            began,
            until: began + lasting + self.pace.grace,
            is_good: false,
        })
    }

    /// Reads a watch to its end, or until it should have ended.
    async fn read(&mut self, mut stream: Stream) -> Result<(), Fault> {
        let settled = stream.began + self.pace.settled;
        loop {
            // No timer runs for a watch that nobody worries about.
            let worry = self.is_worried() && Instant::now() < settled;
            let until = if worry {
                settled.min(stream.until)
            } else {
                stream.until
            };
            match timeout_at(until, stream.answer.piece()).await {
                Ok(Ok(Some(piece))) => {
                    self.status.heard();
                    self.take(&mut stream, &piece)?;
                }
                Ok(Ok(None)) => return self.ended(&stream, settled),
                Ok(Err(fault)) => return Err(fault),
                Err(_) if Instant::now() >= stream.until => {
                    let path = &self.watched.path;
                    debug!(path, "a watch that did not end is cut");
                    return Ok(());
                }
                Err(_) => self.good(),
            }
        }
    }

    /// The server has closed the watch.
    fn ended(&mut self, stream: &Stream, settled: Instant) -> Result<(), Fault> {
        if stream.lines.has_begun() {
            debug!(path = self.watched.path, "a watch ended within a line");
        }
        if stream.is_good || Instant::now() >= settled {
            self.good();
            return Ok(());
        }
        // One that asked for little time, and took it.
        let asked = stream.until - self.pace.grace;
        if Instant::now() >= asked {
            return Ok(());
        }
        let lasted = stream.began.elapsed();
        Err(Fault::Broken(format!(
            "a watch was closed after {lasted:.1?}, without an event"
        )))
    }

    fn is_worried(&self) -> bool {
        self.watching.is_failing() || self.status.is_failing()
    }

    /// The watch is a good one.
    fn good(&mut self) {
        self.watching.reset();
        self.status.recovered(&self.watched.path);
    }
}

/// Waits until the last one is long enough ago, and notes that another begins.
async fn apart(last: &mut Option<Instant>, pace: &Pace) {
    if let Some(last) = last {
        sleep_until(*last + pace.apart).await;
    }
    *last = Some(Instant::now());
}

/// As Kubernetes takes them: whole, and not 0.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0).max(u64::from(time.is_zero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds() {
        for (millis, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (66_000, 66)] {
            assert_eq!(seconds(Duration::from_millis(millis)), expected);
        }
    }

    #[tokio::test]
    async fn beginnings_are_apart() {
        let pace = Pace {
            apart: Duration::from_millis(5),
            ..Pace::default()
        };
        let (mut last, began) = (None, Instant::now());
        for _ in 0..10 {
            apart(&mut last, &pace).await;
        }
        assert!(began.elapsed() >= 9 * pace.apart);
    }
}
