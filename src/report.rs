//! Telling of requests that have ended: a worker's own buffers, and how they
//! are handed over to the threads that write lines and export spans.
//!
//! Invariant: a request wakes nobody. What is told of it stays with its worker
//! until there is much of it, or until the next sweep; then it is handed over if
//! there is room. If there is none it stays, and what is too much is dropped and
//! counted. Nobody ever waits.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::metrics::Counter;
use http::request::Parts;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::access::writer::Lines;
use crate::access::{self, Stamp};
use crate::account::{Account, Ending, Trace};
use crate::config::LineForm;
use crate::drain::{DrainPhase, DrainWatch};
use crate::trace::context::{Onward, Sampler, TraceContext, Traced};

/// Bytes of lines that a worker holds.
const LINES: usize = 64 << 10;
/// Recorded requests that a worker holds.
const SPANS: usize = 256;
/// Accounts that a worker keeps to use again: 1.2 KiB each.
const SPARE: usize = 256;
/// How long a worker that ends waits for room for the last of it.
const LAST: Duration = Duration::from_secs(1);

/// Where a process tells of its requests; each may be missing.
#[derive(Debug, Clone, Default)]
pub struct Outlets {
    /// The access log.
    pub log: Option<LogOutlet>,
    /// Traces.
    pub spans: Option<SpanOutlet>,
}

/// The way to the access log.
#[derive(Debug, Clone)]
pub struct LogOutlet {
    /// The form of a line.
    pub form: LineForm,
    /// To the writer.
    pub queue: mpsc::Sender<Lines>,
    /// Lines that found no room.
    pub dropped: Counter,
}

/// The way to the collector of traces.
#[derive(Debug, Clone)]
pub struct SpanOutlet {
    /// Which traces are recorded.
    pub sampler: Sampler,
    /// To the exporter.
    pub queue: mpsc::Sender<Vec<Box<Account>>>,
    /// Spans that found no room.
    pub dropped: Counter,
}

/// One worker's telling.
#[derive(Debug)]
pub struct Reporter {
    outlets: Outlets,
    drain: DrainWatch,
    lines: RefCell<Lines>,
    stamp: RefCell<Stamp>,
    ended: RefCell<Vec<Box<Account>>>,
    spare: RefCell<Vec<Box<Account>>>,
    clock: Cell<Clock>,
}

/// One moment by both clocks.
#[derive(Debug, Clone, Copy)]
struct Clock {
    at: Instant,
    since_epoch: Duration,
}

impl Clock {
    fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            at: Instant::now(),
            since_epoch: since.unwrap_or_default(),
        }
    }
}

impl Reporter {
    /// A worker's telling through these outlets.
    #[must_use]
    pub fn new(outlets: Outlets, drain: DrainWatch) -> Rc<Self> {
        Rc::new(Self {
            outlets,
            drain,
            lines: RefCell::default(),
            stamp: RefCell::default(),
            ended: RefCell::default(),
            spare: RefCell::default(),
            clock: Cell::new(Clock::now()),
        })
    }

    /// A report of the request with that head, id, and client; none when
    /// nothing is told of any. It has an account only if this one is told of.
    #[must_use]
    pub fn begin(
        self: &Rc<Self>,
        head: &Parts,
        id: &str,
        client: &str,
        began: Instant,
    ) -> Option<Report> {
        if self.outlets.log.is_none() && self.outlets.spans.is_none() {
            return None;
        }
        let spans = self.outlets.spans.as_ref();
        let traced = spans.map(|spans| Traced::begin(&head.headers, spans.sampler));
        let is_recorded = traced.is_some_and(|traced| traced.own.is_sampled());
        let mut account = (self.outlets.log.is_some() || is_recorded)
            .then(|| self.account(head, id, client, began));
        if let Some(account) = &mut account {
            account.trace = match traced {
                Some(traced) => Trace::Ours(traced),
                None => {
                    let theirs = TraceContext::of(&head.headers);
                    theirs.map_or(Trace::None, |theirs| Trace::Theirs(theirs.trace))
                }
            };
            if is_recorded && traced.is_some_and(|traced| traced.parent.is_some()) {
                account.take_state(&head.headers);
            }
        }
        let passed = traced.filter(|_| account.is_none()).map(Box::new);
        Some(Report {
            account,
            passed,
            reporter: Rc::clone(self),
        })
    }

    /// An account that has begun.
    fn account(&self, head: &Parts, id: &str, client: &str, began: Instant) -> Box<Account> {
        let spare = self.spare.borrow_mut().pop();
        let mut account = spare.unwrap_or_else(|| Box::new(Account::new(began)));
        account.began = began;
        account.id.push_str(id);
        account.client.push_str(client);
        account.take_method(&head.method);
        account.version = head.version;
        account.take_path(head.uri.path());
        account
    }

    /// Hands over what there is; looks at the clocks.
    pub fn sweep(&self) {
        if self.outlets.log.is_none() && self.outlets.spans.is_none() {
            return;
        }
        // The wall clock may have been set.
        self.clock.set(Clock::now());
        self.hand_over_lines(None);
        self.hand_over_spans(None);
    }

    /// A request has ended.
    fn end(&self, mut account: Box<Account>) {
        let clock = self.clock.get();
        account.ended_at = match account.ended.checked_duration_since(clock.at) {
            Some(since) => clock.since_epoch + since,
            None => clock.since_epoch.saturating_sub(clock.at - account.ended),
        };
        // We cut what is open, tunnels too: that is no client's doing.
        let may_be_ours = account.ending == Ending::ClientGone || account.is_tunnel();
        if may_be_ours && self.drain.phase() == DrainPhase::Cut {
            account.ending = Ending::Stopped;
        }
        if let Some(log) = &self.outlets.log {
            let mut lines = self.lines.borrow_mut();
            let mut stamp = self.stamp.borrow_mut();
            access::write(&mut lines.bytes, log.form, &account, &mut stamp);
            lines.count += 1;
            let is_much = lines.bytes.len() >= LINES;
            drop(lines);
            if is_much {
                self.hand_over_lines(None);
            }
        }
        let is_recorded = matches!(&account.trace, Trace::Ours(traced) if traced.own.is_sampled());
        if is_recorded {
            // It goes to another thread, and is freed there.
            self.ended.borrow_mut().push(account);
            if self.ended.borrow().len() >= SPANS {
                self.hand_over_spans(None);
            }
            return;
        }
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE {
            account.clear();
            spare.push(account);
        }
    }

    /// Hands over the lines; the last of them by then.
    fn hand_over_lines(&self, last: Option<Instant>) {
        let Some(log) = &self.outlets.log else { return };
        let mut lines = self.lines.borrow_mut();
        if lines.count == 0 {
            return;
        }
        match room(&log.queue, last) {
            Some(room) => {
                // As much will come again.
                let bytes = Vec::with_capacity(lines.bytes.len() + 1024);
                room.send(std::mem::replace(&mut *lines, Lines { bytes, count: 0 }));
            }
            None if last.is_none() && lines.bytes.len() < LINES => {}
            None => {
                log.dropped.increment(lines.count);
                lines.bytes.clear();
                lines.count = 0;
            }
        }
    }

    /// Hands over what is recorded; the last of it by then.
    fn hand_over_spans(&self, last: Option<Instant>) {
        let Some(spans) = &self.outlets.spans else {
            return;
        };
        let mut ended = self.ended.borrow_mut();
        if ended.is_empty() {
            return;
        }
        match room(&spans.queue, last) {
            Some(room) => room.send(std::mem::take(&mut *ended)),
            None if last.is_none() && ended.len() < SPANS => {}
            None => {
                let count: usize = ended.drain(..).map(|account| account.spans()).sum();
                spans.dropped.increment(count as u64);
            }
        }
    }
}

/// Room for one more: if there is some now, or by then.
fn room<T>(queue: &mpsc::Sender<T>, by: Option<Instant>) -> Option<mpsc::Permit<'_, T>> {
    loop {
        match queue.try_reserve() {
            Ok(room) => return Some(room),
            Err(TrySendError::Full(())) if by.is_some_and(|by| Instant::now() < by) => {}
            Err(_) => return None,
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// The worker has ended, and with it its requests: the last of them are told.
impl Drop for Reporter {
    fn drop(&mut self) {
        let last = Some(Instant::now() + LAST);
        self.hand_over_lines(last);
        self.hand_over_spans(last);
    }
}

/// A request under way, told of when it is dropped.
#[derive(Debug)]
pub struct Report {
    /// Taken when it is dropped; none if this request is not told of.
    account: Option<Box<Account>>,
    /// Where it is in a trace that engines are told of, if that is all. Boxed,
    /// since a request's place is kept while its engine works.
    passed: Option<Box<Traced>>,
    reporter: Rc<Reporter>,
}

impl Report {
    /// What is told, if anything is.
    #[must_use]
    pub fn account(&mut self) -> Option<&mut Account> {
        self.account.as_deref_mut()
    }

    /// Says who sent it.
    pub fn is_of(&mut self, caller: &Arc<str>) {
        if let Some(account) = self.account() {
            account.caller = Some(Arc::clone(caller));
        }
    }

    /// The trace as engines are told of it, if we add to it.
    #[must_use]
    pub fn onward(&self) -> Option<Onward> {
        let told = self.account.as_ref().map(|account| &account.trace);
        match (told, &self.passed) {
            (Some(Trace::Ours(traced)), _) => Some(traced.onward()),
            (_, passed) => passed.as_ref().map(|traced| traced.onward()),
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(mut account) = self.account.take() {
            account.ended = Instant::now();
            self.reporter.end(account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Parts {
        let request = http::Request::get("/v1/models?secret=1").body(());
        request.unwrap().into_parts().0
    }

    fn one(reporter: &Rc<Reporter>) {
        drop(
            reporter
                .begin(&head(), "id", "::1", Instant::now())
                .unwrap(),
        );
    }

    fn logging(room: usize) -> (Outlets, mpsc::Receiver<Lines>, Counter) {
        let (queue, lines) = mpsc::channel(room);
        let dropped = Counter::default();
        let log = LogOutlet {
            form: LineForm::Json,
            queue,
            dropped: dropped.clone(),
        };
        let outlets = Outlets {
            log: Some(log),
            spans: None,
        };
        (outlets, lines, dropped)
    }

    #[test]
    fn nothing_is_told_when_nobody_listens() {
        let reporter = Reporter::new(Outlets::default(), DrainWatch::default());
        assert!(
            reporter
                .begin(&head(), "id", "::1", Instant::now())
                .is_none()
        );
    }

    #[test]
    fn lines_are_handed_over_when_swept_when_many_and_at_the_end() {
        let (outlets, mut lines, _) = logging(16);
        let reporter = Reporter::new(outlets, DrainWatch::default());
        one(&reporter);
        assert!(lines.try_recv().is_err(), "a request wakes nobody");
        one(&reporter);
        reporter.sweep();
        let got = lines.try_recv().unwrap();
        assert_eq!(got.count, 2);
        let text = String::from_utf8(got.bytes).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains("secret"));
        while lines.is_empty() {
            one(&reporter);
        }
        let many = lines.try_recv().unwrap();
        assert!((LINES..LINES + 1024).contains(&many.bytes.len()));
        one(&reporter);
        drop(reporter);
        assert_eq!(lines.try_recv().unwrap().count, 1);
    }

    #[test]
    fn without_room_lines_wait_and_too_many_are_lost_and_counted() {
        let (outlets, mut lines, dropped) = logging(1);
        let reporter = Reporter::new(outlets, DrainWatch::default());
        for _ in 0..3 {
            one(&reporter);
            one(&reporter);
            reporter.sweep();
        }
        assert_eq!(lines.try_recv().unwrap().count, 2);
        assert_eq!(dropped.get(), 0);
        reporter.sweep();
        assert_eq!(lines.len(), 1, "they go as soon as there is room");
        let mut told = 0;
        while dropped.get() == 0 {
            one(&reporter);
            told += 1;
            assert!(reporter.lines.borrow().bytes.len() < LINES);
        }
        assert_eq!(dropped.get(), told);
        assert_eq!(lines.try_recv().unwrap().count, 4);
    }

    #[test]
    fn what_has_room_nowhere_at_the_end_is_lost_and_counted() {
        let (outlets, lines, dropped) = logging(1);
        let reporter = Reporter::new(outlets, DrainWatch::default());
        one(&reporter);
        reporter.sweep();
        one(&reporter);
        drop(lines);
        drop(reporter);
        assert_eq!(dropped.get(), 1);
    }

    #[test]
    fn recorded_requests_are_bounded_and_others_are_not_held() {
        let (queue, mut spans) = mpsc::channel(1);
        let dropped = Counter::default();
        let sampled = |share| Outlets {
            log: None,
            spans: Some(SpanOutlet {
                sampler: Sampler::new(share),
                queue: queue.clone(),
                dropped: dropped.clone(),
            }),
        };
        let reporter = Reporter::new(sampled(1.0), DrainWatch::default());
        // A few wait for room.
        one(&reporter);
        reporter.sweep();
        (0..SPANS - 1).for_each(|_| one(&reporter));
        reporter.sweep();
        assert_eq!(spans.try_recv().unwrap().len(), 1);
        assert_eq!(dropped.get(), 0);
        reporter.sweep();
        assert_eq!(spans.try_recv().unwrap().len(), SPANS - 1);
        (0..SPANS * 3 + 1).for_each(|_| one(&reporter));
        assert_eq!(spans.try_recv().unwrap().len(), SPANS);
        assert_eq!(reporter.ended.borrow().len(), 1);
        assert_eq!(dropped.get(), SPANS as u64 * 2);

        // Without a log, nothing is kept of what is not recorded.
        let reporter = Reporter::new(sampled(0.0), DrainWatch::default());
        let mut report = reporter.begin(&head(), "id", "::1", Instant::now());
        let report = report.as_mut().unwrap();
        assert!(report.account().is_none() && report.onward().is_some());

        let (logged, _lines, _) = logging(16);
        let both = Outlets {
            log: logged.log,
            ..sampled(0.0)
        };
        let reporter = Reporter::new(both, DrainWatch::default());
        let all: Vec<_> = (0..SPARE + 9)
            .map(|_| reporter.begin(&head(), "id", "::1", Instant::now()))
            .collect();
        drop(all);
        assert!(reporter.ended.borrow().is_empty());
        assert_eq!(reporter.spare.borrow().len(), SPARE);
    }

    #[test]
    fn what_we_cut_is_not_the_clients_doing() {
        let (outlets, mut lines, _) = logging(16);
        let drain = DrainWatch::default();
        let reporter = Reporter::new(outlets, drain.clone());
        one(&reporter);
        drain.advance(DrainPhase::Cut);
        one(&reporter);
        reporter.sweep();
        let text = String::from_utf8(lines.try_recv().unwrap().bytes).unwrap();
        let ended: Vec<bool> = text
            .lines()
            .map(|line| line.contains(r#""ended":"stopped""#))
            .collect();
        assert_eq!(ended, [false, true]);
    }
}
