//! More clients than there is room for: who works stays, who is idle goes, and
//! newcomers get their turn.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use h2::client;
use http::{Request, Version};

use crate::binary::{free_port, pilotfish};
use crate::support::engine::RawEngine;
use crate::support::{Client, Folder, PATIENCE, TestApp, eventually, post};

const LIVE: &[u8] = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
const HALF_A_HEAD: &[u8] = b"GET /livez HTTP/1.1\r\nho";
const STREAM: &str = r#"{"model":"m","stream":true}"#;

/// An app with room for so many clients.
fn room_for(most: usize, engine: &RawEngine) -> TestApp {
    TestApp::with(&[(&engine.url(), "m")], |config| {
        config.workers = 1;
        config.bounds.max_connections = most;
        config.settings.timeouts.client_head = Duration::from_secs(2);
        config.settings.timeouts.client_body_idle = Duration::from_secs(2);
    })
}

/// A client that has had an answer and is idle now.
fn idle(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.write(LIVE);
    assert_eq!(client.answer().unwrap().status, 200);
    client
}

/// A value of /metrics, asked for on a connection that is there already.
fn metric(client: &mut Client, series: &str) -> u64 {
    client.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    let page = client.answer().unwrap().text();
    let line = page.lines().find(|line| line.starts_with(series));
    let line = line.unwrap_or_else(|| panic!("{series} not in\n{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn is_open(client: &mut Client) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let read = client.stream.read(&mut [0]);
    client.stream.set_nonblocking(false).unwrap();
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn the_longest_idle_make_room_and_who_works_stays() {
    let (engine, go) = RawEngine::stepped(2);
    let app = room_for(5, &engine);
    let mut streaming = app.connect();
    streaming.write(post("/v1/chat/completions", STREAM).as_bytes());
    streaming.until("data: 0\n\n");
    let mut first = idle(app.address);
    let mut silent = app.connect();
    let mut second = idle(app.address);
    let mut third = idle(app.address);
    // Each newcomer takes the place of the one that has been idle for longest.
    let mut newcomer = idle(app.address);
    assert!(!first.more(), "closed, with nothing said");
    let mut next = idle(app.address);
    assert!(!silent.more());
    assert_eq!(
        metric(&mut newcomer, "pilotfish_client_connections_closed_idle"),
        2
    );
    assert_eq!(metric(&mut newcomer, "pilotfish_client_connections "), 5);
    assert_eq!(metric(&mut newcomer, "pilotfish_accept_errors_total"), 0);
    for client in [&mut second, &mut third, &mut next] {
        assert!(is_open(client));
        client.write(LIVE);
        assert_eq!(client.answer().unwrap().status, 200);
    }
    go.send(()).unwrap();
    streaming.until("data: 1\n\n");
    go.send(()).unwrap();
    streaming.until("data: [DONE]\n\n");
}

#[test]
fn newcomers_wait_while_nobody_is_idle() {
    let (engine, _go) = RawEngine::stepped(2);
    let app = room_for(2, &engine);
    let mut streaming: Vec<Client> = (0..2).map(|_| app.connect()).collect();
    for client in &mut streaming {
        client.write(post("/v1/chat/completions", STREAM).as_bytes());
        client.until("data: 0\n\n");
    }
    let mut newcomer = app.connect();
    newcomer.write(LIVE);
    newcomer
        .stream
        .set_read_timeout(Some(Duration::from_millis(700)))
        .unwrap();
    let waited = newcomer.stream.read(&mut [0]);
    assert!(waited.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    assert!(streaming.iter_mut().all(is_open));
    streaming.pop();
    newcomer.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(newcomer.answer().unwrap().status, 200);
    assert!(is_open(&mut streaming[0]));
}

#[test]
fn slow_heads_and_bodies_are_not_idle_but_late() {
    let engine = RawEngine::echo();
    let app = room_for(40, &engine);
    let body = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 9\r\n\r\n{";
    // As many again wait to be taken.
    let mut slow: Vec<Client> = (0..80).map(|_| app.connect()).collect();
    for (n, client) in slow.iter_mut().enumerate() {
        client.write(if n % 2 == 0 {
            HALF_A_HEAD
        } else {
            body.as_bytes()
        });
    }
    let mut newcomer = idle(app.address);
    for client in &mut slow {
        let late = client.answer().expect("an answer, if a late one");
        assert_eq!(late.status, 408);
    }
    assert_eq!(
        metric(&mut newcomer, "pilotfish_client_connections_closed_idle"),
        0
    );
    app.settled();
}

#[test]
fn an_idle_http2_connection_is_told_to_go() {
    let engine = RawEngine::echo();
    let app = room_for(1, &engine);
    let address = app.address;
    on_a_runtime(async {
        let (send, connection) = connect_h2(address).await;
        let ended = tokio::spawn(connection);
        let live = Request::get("http://x/livez").version(Version::HTTP_2);
        let mut send = send.ready().await.unwrap();
        let (answer, _) = send.send_request(live.body(()).unwrap(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        let newcomer = tokio::task::spawn_blocking(move || drop(idle(address)));
        // A GOAWAY without an error, then the end.
        ended.await.unwrap().unwrap();
        newcomer.await.unwrap();
    });
}

#[test]
fn a_client_that_resets_all_it_asks_for_is_cut() {
    // Takes requests and never answers them.
    let engine = RawEngine::start(|mut conn| {
        if conn
            .request()
            .is_some_and(|seen| seen.head.starts_with("POST"))
        {
            conn.closed();
        }
    });
    let app = TestApp::new(&[engine.url()]);
    on_a_runtime(async {
        let (send, connection) = connect_h2(app.address).await;
        let ended = tokio::spawn(connection);
        let in_flight = async |wanted: u32| {
            while app.in_flight() != wanted && !ended.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let mut reset = 0;
        while !ended.is_finished() && reset < 5000 {
            let mut streams = Vec::new();
            for _ in 0..50 {
                let request = Request::post("http://x/v1/completions")
                    .version(Version::HTTP_2)
                    .header("content-type", "application/json");
                let Ok(mut send) = send.clone().ready().await else {
                    break;
                };
                let (answer, mut upload) =
                    send.send_request(request.body(()).unwrap(), false).unwrap();
                upload.send_data(r#"{"model":"m"}"#.into(), true).unwrap();
                streams.push((answer, upload));
            }
            in_flight(streams.len() as u32).await;
            reset += streams.len();
            for (_, upload) in &mut streams {
                upload.send_reset(h2::Reason::CANCEL);
            }
            in_flight(0).await;
        }
        assert!((1000..5000).contains(&reset), "cut after {reset}");
    });
    assert_eq!(app.get("/livez").status, 200, "others are served");
    let page = app.get("/metrics").text();
    let blamed = "pilotfish_engine_requests_total";
    for line in page.lines().filter(|line| line.starts_with(blamed)) {
        let blamed = line.contains("failure") || line.contains("timeout");
        assert!(!blamed || line.ends_with(" 0"), "{line}");
    }
}

async fn connect_h2(
    address: SocketAddr,
) -> (
    client::SendRequest<bytes::Bytes>,
    client::Connection<tokio::net::TcpStream>,
) {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = tokio::net::TcpStream::from_std(socket).unwrap();
    client::handshake(socket).await.unwrap()
}

fn on_a_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(async { tokio::time::timeout(2 * PATIENCE, test).await })
        .unwrap();
}

/// The binary with so few descriptors, and where its log goes.
struct Short {
    child: Child,
    address: SocketAddr,
    folder: Folder,
}

impl Short {
    const LOG: &str = "log";

    fn start(engine: &RawEngine) -> Self {
        let folder = Folder::new("descriptors");
        let log = std::fs::File::create(folder.path(Self::LOG)).unwrap();
        let port = free_port();
        let child = Command::new("sh")
            .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
            .arg(pilotfish().get_program())
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--workers", "1", "--routing-logic", "roundrobin"])
            .args(["--service-discovery", "static", "--static-models", "m"])
            .args(["--static-backends", &engine.url()])
            .stderr(Stdio::from(log.try_clone().unwrap()))
            .stdout(Stdio::from(log))
            .spawn()
            .unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        // All of its threads have what they need once this page is there.
        eventually("it serves", || {
            TcpStream::connect(address).is_ok() && {
                let mut client = Client::connect(address);
                client.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
                client.answer().is_some_and(|answer| answer.status == 200)
            }
        });
        Self {
            child,
            address,
            folder,
        }
    }

    /// Processor time that it has used, in ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, after) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = after.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// How often the log tells of it.
    fn warnings(&self) -> usize {
        self.log().matches("cannot take more connections").count()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path(Self::LOG)).unwrap()
    }
}

impl Drop for Short {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn without_descriptors_it_waits_and_idle_connections_go_first() {
    let engine = RawEngine::echo();
    let short = Short::start(&engine);
    let began = Instant::now();
    // More than it has descriptors for, and none of them idle.
    let mut slow: Vec<Client> = (0..80).map(|_| Client::connect(short.address)).collect();
    slow.iter_mut().for_each(|client| client.write(HALF_A_HEAD));
    eventually("it is short", || short.warnings() > 0);
    let (before, since) = (short.ticks(), Instant::now());
    eventually("a second", || since.elapsed() > Duration::from_secs(1));
    let used = short.ticks() - before;
    assert!(used < 50, "{used} ticks of 100 were spent on waiting");
    drop(slow);
    // Idle ones, far more than fit: each in its turn, and one that needs an
    // engine gets a descriptor for that too.
    let mut kept: Vec<Client> = (0..100).map(|_| idle(short.address)).collect();
    let mut client = Client::connect(short.address);
    client.write(post("/v1/completions", r#"{"model":"m"}"#).as_bytes());
    assert_eq!(client.answer().unwrap().status, 200);
    let open = kept
        .iter_mut()
        .filter_map(|client| is_open(client).then_some(()));
    assert!(open.count() < 64);
    assert!(metric(&mut client, "pilotfish_client_connections_closed_idle") >= 40);
    assert!(metric(&mut client, "pilotfish_accept_errors_total") >= 1);
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    let warnings = short.warnings();
    assert!(warnings <= seconds + 1, "{warnings} warnings");
}
