//! One engine's turn: when it is read next, where, and what its last page was.

use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;

use super::fetching::{Endpoint, Outcome};
use super::reading::Reading;
use super::schedule::{Pace, Past};
use super::wanted::Wanted;
use crate::config::EngineType;
use crate::fleet::Engine;
use crate::fleet::attributes::{Live, Values};
use crate::upstream::FetchError;

/// Counters that fall again within so many pages are those of several processes.
const FALLS_APART: u32 = 10;

/// What is known of one engine's pages.
#[derive(Debug)]
pub(super) struct Turn {
    /// Not before.
    pub(super) due: Instant,
    /// When it was last read, well or not.
    pub(super) read_at: Option<Instant>,
    /// By how much the next pause is longer or shorter: sidecars are many.
    jitter: f64,
    pub(super) is_being_read: bool,
    past: Past,
    /// Bytes of the last page.
    pub(super) bytes: usize,
    /// What is said of its type.
    kind: Option<EngineType>,
    /// Which of [`Endpoint::of`].
    endpoint: usize,
    dialect: EngineType,
    has_no_slots: bool,
    /// The last page, for what counters did since.
    pub(super) last: Option<(Reading, Instant)>,
    /// When the newest process behind the URL began, in Unix seconds.
    started: Option<f64>,
    /// Pages since something that only grows was less than before.
    since_fall: u32,
}

impl Turn {
    /// A turn that comes at that moment.
    pub(super) fn new(due: Instant) -> Self {
        Self {
            due,
            read_at: None,
            jitter: 1.0,
            is_being_read: false,
            past: Past::default(),
            bytes: 0,
            kind: None,
            endpoint: 0,
            dialect: EngineType::Other,
            has_no_slots: false,
            last: None,
            started: None,
            since_fall: u32::MAX,
        }
    }

    pub(super) fn is_due(&self, pace: &Pace, now: Instant) -> bool {
        let pause = || pace.after(&self.past).mul_f64(self.jitter);
        let waited = |at: Instant| now.saturating_duration_since(at) >= pause();
        !self.is_being_read && now >= self.due && self.read_at.is_none_or(waited)
    }

    /// Begins to read it, as an engine of that type: where, and whether its slots
    /// too.
    pub(super) fn begin(&mut self, kind: Option<EngineType>) -> (Endpoint, bool) {
        self.is_being_read = true;
        if self.kind != kind {
            (self.kind, self.endpoint, self.past) = (kind, 0, Past::default());
        }
        let endpoint = Endpoint::of(kind)[self.endpoint];
        let is_llamacpp = self.dialect == EngineType::Llamacpp;
        let with_slots = is_llamacpp && endpoint == Endpoint::Metrics && !self.has_no_slots;
        (endpoint, with_slots)
    }

    /// Takes in what came of it; tells whether that was anything.
    pub(super) fn end(&mut self, outcome: Outcome, stale_after: Duration, now: Instant) -> bool {
        self.is_being_read = false;
        self.read_at = Some(now);
        self.jitter = 0.9 + 0.2 * fastrand::f64();
        self.bytes = outcome.bytes;
        let reading = match outcome.reading {
            Ok(Some(reading)) => reading,
            failed => {
                self.failed(failed.err().as_ref(), &outcome.engine);
                return false;
            }
        };
        self.has_no_slots |= outcome.has_no_slots;
        self.past = Past {
            // One slow page is no slow engine.
            took: (self.past.took + outcome.took) / 2,
            ..Past::default()
        };
        self.dialect = self
            .kind
            .unwrap_or_else(|| reading.dialect(&outcome.wanted));
        let by = (&*outcome.wanted, stale_after);
        self.learn(&outcome.engine, reading, by, now);
        true
    }

    /// There is no page, or it says nothing.
    fn failed(&mut self, error: Option<&FetchError>, engine: &Engine) {
        let url = engine.url.text();
        match error {
            Some(error) => tracing::debug!(engine = url, %error, "no metrics"),
            None => tracing::debug!(engine = url, "no metrics that we know"),
        }
        if error.is_none_or(is_elsewhere) {
            // All places are looked at in a row; that is one failure.
            self.endpoint = (self.endpoint + 1) % Endpoint::of(self.kind).len();
            self.past.is_searching = self.endpoint != 0;
            if self.past.is_searching {
                return;
            }
        } else {
            // What comes back may be another process, with other pages.
            (self.endpoint, self.past.is_searching) = (0, false);
        }
        self.past.failures = self.past.failures.saturating_add(1);
    }

    /// Takes in a page.
    fn learn(
        &mut self,
        engine: &Engine,
        mut reading: Reading,
        (wanted, stale_after): (&Wanted, Duration),
        now: Instant,
    ) {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let unix = unix.unwrap_or_default().as_secs_f64();
        let since = |at: Instant| now.saturating_duration_since(at);
        // What it did while nobody looked says little of now.
        let last = self.last.take();
        let last = last.filter(|(_, at)| since(*at) <= stale_after);
        let change = self.change(last.as_ref(), &reading, wanted);
        if change == Change::Restart {
            let url = engine.url.text();
            tracing::info!(engine = url, "the engine has been restarted");
            engine.restarted(engine.clock(now));
            self.has_no_slots = false;
        }
        let before = last.as_ref().filter(|_| change == Change::None);
        let before = before.map(|(reading, at)| (reading, since(*at)));
        let mut values = reading.values(wanted, self.kind, before, unix);
        complete(&mut values, engine, unix);
        engine
            .attributes
            .set_adapters(std::mem::take(&mut reading.names));
        engine.attributes.speak(self.dialect);
        engine.told(&values, engine.clock(now));
        self.last = Some((reading, now));
    }

    /// Whether the page is of the process that told the one before.
    fn change(
        &mut self,
        last: Option<&(Reading, Instant)>,
        reading: &Reading,
        wanted: &Wanted,
    ) -> Change {
        if let Some(started) = reading.started(wanted) {
            let newest = self.started.replace(started);
            let newest = newest.unwrap_or(started);
            self.started = Some(newest.max(started));
            let before = last.and_then(|(before, _)| before.started(wanted));
            // Some round to seconds.
            let is_same = before.is_none_or(|before| (started - before).abs() <= 1.0);
            return match (started - newest > 1.0, is_same) {
                (true, _) => Change::Restart,
                // Behind one URL there may be several.
                (false, false) => Change::Other,
                (false, true) => Change::None,
            };
        }
        self.since_fall = self.since_fall.saturating_add(1);
        if !last.is_some_and(|(before, _)| reading.has_fallen(before, wanted)) {
            return Change::None;
        }
        match std::mem::take(&mut self.since_fall) {
            // Nothing restarts again and again: there are several processes.
            ..=FALLS_APART => Change::Other,
            _ => Change::Restart,
        }
    }
}

/// How a page's process differs from the one that told the page before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    /// It is a new one.
    Restart,
    /// It is another one behind the same URL.
    Other,
}

/// Whether that means that the page is not there, rather than not now.
fn is_elsewhere(error: &FetchError) -> bool {
    match error {
        FetchError::Status(status) => matches!(
            *status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        ),
        _ => false,
    }
}

/// Adds what follows from the page, or from what was known before.
fn complete(values: &mut Values, engine: &Engine, unix: f64) {
    let speed = values[Live::TokensPerSecond as usize].filter(|speed| *speed > 0.0);
    let busy = &mut values[Live::BusyTokensPerSecond as usize];
    let held = || engine.attributes.get(Live::BusyTokensPerSecond);
    *busy = busy.or(speed).or_else(held);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 seconds")]
    let since_seen = (unix - engine.created as f64) / 3600.0;
    values[Live::UptimeHours as usize].get_or_insert(since_seen.max(0.0));
}
