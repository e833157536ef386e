//! What runs the rows: an app before an engine that takes down what it is
//! asked, or says what it is told to; and what is looked at after each row.

use std::io::Read as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pilotfish::config::Config;

use crate::support::engine::{Conn as EngineConn, RawEngine, Seen};
use crate::support::{Client, TestApp};

/// A deadline that some rows wait for.
pub(crate) const SHORT: Duration = Duration::from_millis(300);
/// No row waits longer.
const ROW: Duration = Duration::from_secs(3);

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conn {
    /// It serves another request.
    Kept,
    /// It may: so much of the body may have been left unread that it may not.
    Either,
    /// It ends, and nothing comes before the end.
    Closed,
    /// It breaks off before the answer's end, which no client can take for whole.
    Reset,
}

/// What the engine's account says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// No engine was asked.
    Never,
    /// Whatever it was asked, it has not failed.
    NoEffect,
    /// It has failed.
    Fails,
    /// It has too much to do.
    Busy,
}

/// One input, and all that is expected of it.
pub(crate) struct Row {
    case: (u8, &'static str),
    send: Vec<u8>,
    /// Statuses that will do; none: no answer at all.
    status: &'static [u16],
    /// Of an error of ours; empty: any, or an answer that is none.
    code: &'static str,
    conn: Conn,
    engine: Blame,
}

/// A row of case and name, what is sent, what is answered, what follows.
pub(crate) fn row(
    case: (u8, &'static str),
    send: impl AsRef<[u8]>,
    (status, code): (&'static [u16], &'static str),
    (conn, engine): (Conn, Blame),
) -> Row {
    Row {
        case,
        send: send.as_ref().to_vec(),
        status,
        code,
        conn,
        engine,
    }
}

/// A request as a witness saw it; without a body, it did not end.
#[derive(Debug, Clone)]
pub(crate) struct Met {
    pub(crate) head: String,
    pub(crate) body: Option<Vec<u8>>,
}

/// An engine that answers well, and takes down what clients ask it.
pub(crate) struct Witness {
    engine: RawEngine,
    met: Arc<Mutex<Vec<Met>>>,
}

/// Whether a head is of a client's request: others are our own questions.
fn is_client(head: &str) -> bool {
    head.contains("\r\nx-forwarded-for: ")
}

impl Witness {
    pub(crate) fn start() -> Self {
        let met = Arc::new(Mutex::new(Vec::<Met>::new()));
        let taken = Arc::clone(&met);
        let engine = RawEngine::start(move |mut conn| {
            while let Some(head) = conn.head() {
                if !is_client(&head) {
                    conn.json(r#"{"object":"list","data":[{"id":"m"}]}"#);
                    continue;
                }
                let at = {
                    let mut taken = taken.lock().unwrap();
                    let head = head.clone();
                    taken.push(Met { head, body: None });
                    taken.len() - 1
                };
                let Some(Seen { body, .. }) = conn.rest_of(head) else {
                    return;
                };
                taken.lock().unwrap()[at].body = Some(body);
                conn.json("{}");
            }
        });
        Self { engine, met }
    }

    pub(crate) fn url(&self) -> String {
        self.engine.url()
    }

    pub(crate) fn met(&self) -> Vec<Met> {
        self.met.lock().unwrap().clone()
    }
}

/// What a puppet does after its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Takes another request.
    Keeps,
    Closes,
    Resets,
    /// Says nothing more, until we leave.
    Hangs,
}

/// An engine that answers each client with the same bytes, whatever they are.
pub(crate) struct Puppet {
    engine: RawEngine,
    says: Arc<Mutex<(Vec<u8>, Then)>>,
}

impl Puppet {
    pub(crate) fn start() -> Self {
        let says = Arc::new(Mutex::new((Vec::new(), Then::Closes)));
        let told = Arc::clone(&says);
        let engine = RawEngine::start(move |mut conn| {
            while let Some(seen) = conn.request() {
                if !is_client(&seen.head) {
                    conn.json(r#"{"object":"list","data":[{"id":"m"}]}"#);
                    continue;
                }
                let (bytes, then) = told.lock().unwrap().clone();
                // Who has left is what some rows are about.
                let _ = std::io::Write::write_all(&mut conn.stream, &bytes);
                if !go_on(&mut conn, then) {
                    return;
                }
            }
        });
        Self { engine, says }
    }

    pub(crate) fn url(&self) -> String {
        self.engine.url()
    }

    pub(crate) fn says(&self, bytes: impl AsRef<[u8]>, then: Then) {
        *self.says.lock().unwrap() = (bytes.as_ref().to_vec(), then);
    }
}

fn go_on(conn: &mut EngineConn, then: Then) -> bool {
    match then {
        Then::Keeps => return true,
        Then::Closes => {}
        Then::Resets => {
            // What was said is to arrive before the reset, which would overtake it.
            std::thread::park_timeout(Duration::from_millis(30));
            reset_on_close(&conn.stream);
        }
        Then::Hangs => drop(conn.closed()),
    }
    false
}

/// Makes the coming close a reset.
pub(crate) fn reset_on_close(stream: &std::net::TcpStream) {
    socket2::SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
}

/// Requests by what the engines' account says of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcomes {
    pub(crate) faults: u64,
    pub(crate) busy: u64,
    pub(crate) client_gone: u64,
    pub(crate) success: u64,
}

impl Outcomes {
    pub(crate) fn of(app: &TestApp) -> Self {
        let page = app.get("/metrics").text();
        let sum = |names: &[&str]| {
            let of_engines = "pilotfish_engine_requests_total{";
            let mut sum = 0;
            for line in page.lines().filter(|line| line.starts_with(of_engines)) {
                let is_one = |name: &&str| line.contains(&format!("outcome=\"{name}\""));
                if names.iter().any(is_one) {
                    sum += line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
                }
            }
            sum
        };
        Self {
            faults: sum(&["failure", "timeout", "unreachable"]),
            busy: sum(&["overloaded"]),
            client_gone: sum(&["client_gone"]),
            success: sum(&["success"]),
        }
    }
}

/// An app that never sets its engine aside: one row is not to decide what
/// another one sees. Only a body that stops is given up soon.
pub(crate) fn app(url: &str, change: impl FnOnce(&mut Config)) -> TestApp {
    TestApp::with(&[(url, "m")], |config| {
        config.workers = 1;
        let settings = &mut config.settings;
        settings.timeouts.client_body_idle = Duration::from_secs(1);
        settings.retry.attempts = 0;
        settings.breaker.failures = 100_000;
        settings.breaker.ratio = 1.1;
        change(config);
    })
}

/// The same, that waits for its engine no longer than this.
pub(crate) fn impatient(url: &str, change: impl FnOnce(&mut Config)) -> TestApp {
    app(url, |config| {
        config.settings.timeouts.engine_head = SHORT;
        config.settings.timeouts.engine_idle = SHORT;
        change(config);
    })
}

/// Runs all rows, and tells of all that fail.
#[track_caller]
pub(crate) fn run(app: &TestApp, witness: Option<&Witness>, rows: &[Row]) {
    let mut failed = Vec::new();
    for row in rows {
        let checked = catch_unwind(AssertUnwindSafe(|| check(app, witness, row)));
        let found = checked.unwrap_or_else(|_| vec!["it could not be checked".to_owned()]);
        let (case, name) = row.case;
        failed.extend(found.iter().map(|one| format!("\n{case} {name}: {one}")));
    }
    assert!(failed.is_empty(), "{}", failed.concat());
}

fn check(app: &TestApp, witness: Option<&Witness>, row: &Row) -> Vec<String> {
    let before = (Outcomes::of(app), witness.map_or(0, |one| one.met().len()));
    let mut client = app.connect();
    // It may be refused before all of it is taken.
    let _ = std::io::Write::write_all(&mut client.stream, &row.send);
    let mut wrong = Vec::new();
    match client.answer() {
        None if row.status.is_empty() => {}
        None => wrong.push("no answer".to_owned()),
        Some(answer) => {
            let status = answer.status;
            if !row.status.contains(&status) {
                wrong.push(format!("{status}, not {:?}: {answer:?}", row.status));
            }
            let said = serde_json::from_slice::<serde_json::Value>(&answer.body);
            let said = said.unwrap_or_default()["error"]["code"].clone();
            let is_ours = status >= 400 && !row.code.is_empty();
            if is_ours && said != row.code {
                wrong.push(format!("code {said}, not {}: {answer:?}", row.code));
            }
            if answer.whole == (row.conn == Conn::Reset) {
                wrong.push(format!("whole: {}", answer.whole));
            }
        }
    }
    wrong.extend(ends(&mut client, row.conn));
    drop(client);
    app.settled();
    let after = (Outcomes::of(app), witness.map_or(0, |one| one.met().len()));
    wrong.extend(blames(row.engine, before, after));
    wrong
}

/// What is wrong with the connection, after the answer.
fn ends(client: &mut Client, conn: Conn) -> Option<String> {
    if conn == Conn::Either {
        return None;
    }
    if conn == Conn::Kept {
        // It may have ended.
        let live = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
        let _ = std::io::Write::write_all(&mut client.stream, live);
        let next = client.answer().map(|answer| answer.status);
        return (next != Some(200)).then(|| format!("another request: {next:?}"));
    }
    let mut rest = client.unread();
    let since = Instant::now();
    client.stream.set_read_timeout(Some(SHORT)).unwrap();
    let mut piece = [0; 4096];
    while since.elapsed() < ROW && rest.is_empty() {
        match client.stream.read(&mut piece) {
            Ok(0) => return None,
            Ok(n) => rest.extend_from_slice(&piece[..n]),
            Err(error) if is_reset(&error) => return None,
            Err(_) => {}
        }
    }
    Some(format!("no end, but {:?}", String::from_utf8_lossy(&rest)))
}

pub(crate) fn is_reset(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), ConnectionReset | BrokenPipe)
}

fn blames(
    blame: Blame,
    (before, asked): (Outcomes, usize),
    (after, asked_since): (Outcomes, usize),
) -> Option<String> {
    let (failed, busy) = (after.faults - before.faults, after.busy - before.busy);
    let is_right = match blame {
        Blame::Never => asked_since == asked && (failed, busy) == (0, 0),
        Blame::NoEffect => (failed, busy) == (0, 0),
        Blame::Fails => failed > 0 && busy == 0,
        Blame::Busy => failed == 0 && busy > 0,
    };
    let asked = asked_since - asked;
    (!is_right).then(|| format!("{blame:?}: asked {asked}, {before:?} -> {after:?}"))
}
