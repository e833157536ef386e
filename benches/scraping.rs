//! What reading engines' metrics costs, in shares of a core: the control
//! thread's time, while a stand-in for so many engines gives each a page of
//! vLLM's kind and size (300 kB).
//!
//! `cargo bench --bench scraping` prints a line for each case; Linux only.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench may fail where it stands, and prints"
)]

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use pilotfish::app;
use pilotfish::config::policies::{PolicyKind, PolicySpec, Routing};
use pilotfish::config::{Config, ListedEngine, Settings, StatsSettings};

/// Bytes of a page at least.
const PAGE: usize = 300_000;
/// How long each case is watched.
const WATCHED: Duration = Duration::from_secs(20);

/// A page of vLLM's kind: the families that are looked for, among histograms.
fn page() -> String {
    let labels = r#"engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct""#;
    let mut page = String::from("process_start_time_seconds 1.7e9\n");
    for name in [
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "prefix_cache_hits_total",
        "prefix_cache_queries_total",
        "generation_tokens_total",
        "prompt_tokens_total",
        "time_to_first_token_seconds_sum",
        "time_to_first_token_seconds_count",
    ] {
        writeln!(page, "# HELP vllm:{name} Text.\n# TYPE vllm:{name} gauge").unwrap();
        writeln!(page, "vllm:{name}{{{labels}}} 1.0").unwrap();
    }
    let mut bound = 0;
    while page.len() < PAGE {
        bound += 1;
        let name = "vllm:request_prefill_time_seconds_bucket";
        writeln!(page, "{name}{{{labels},le=\"{bound}.0\"}} {bound}.0").unwrap();
    }
    page
}

/// Serves the page under any prefix; tells the address, and counts the pages.
fn serve() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let page = page();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{page}",
        page.len()
    );
    let (answer, served) = (Arc::new(answer), Arc::new(AtomicU64::new(0)));
    for _ in 0..8 {
        let (listener, answer) = (listener.try_clone().unwrap(), Arc::clone(&answer));
        let served = Arc::clone(&served);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                let mut head = [0; 4096];
                // The head comes in one piece.
                let length = stream.read(&mut head).unwrap_or(0);
                let line = head[..length].split(|byte| *byte == b'\r').next().unwrap();
                if !line.ends_with(b"/metrics HTTP/1.1") {
                    let _ =
                        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
                } else if stream.write_all(answer.as_bytes()).is_ok() {
                    served.fetch_add(1, Relaxed);
                }
            }
        });
    }
    (address, served)
}

/// What the thread of that name has used of a processor.
fn used(thread: &str) -> Duration {
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").trim() == thread {
            let schedstat = read("schedstat");
            let nanos = schedstat.split(' ').next().unwrap().parse().unwrap();
            return Duration::from_nanos(nanos);
        }
    }
    panic!("no thread {thread}");
}

fn case(
    name: &str,
    engines: usize,
    interval: Duration,
    aperture: Option<usize>,
    policy: PolicyKind,
) {
    let (address, served) = serve();
    let engines = (0..engines).map(|n| {
        let url = format!("http://{address}/e{n}");
        ListedEngine::new(&url, &["m"]).unwrap()
    });
    let mut settings = Settings {
        engines: engines.collect(),
        routing: Routing {
            policy: PolicySpec::plain("bench", policy),
            ..Routing::default()
        },
        ..Settings::default()
    };
    settings.scraping.aperture = aperture;
    let app = app::build(Config {
        listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        settings,
        stats: StatsSettings {
            scrape_every: interval,
            ..StatsSettings::default()
        },
        ..Config::default()
    })
    .unwrap();
    // Every engine has been read, and asked for its models.
    std::thread::park_timeout(interval.max(Duration::from_secs(8)));
    let (before, begun, pages) = (used("control"), Instant::now(), served.load(Relaxed));
    while begun.elapsed() < WATCHED {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let share = (used("control") - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    let pages = served.load(Relaxed) - pages;
    println!("{name:<50} {pages:>5} pages   {share:.4} of a core");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(app.drain());
}

fn main() {
    let second = Duration::from_secs(1);
    case(
        "100 engines, every 5 s",
        100,
        second * 5,
        Some(100),
        PolicyKind::LeastLoad,
    );
    case(
        "1,000 engines, every 5 s, aperture of 20",
        1000,
        second * 5,
        None,
        PolicyKind::LeastLoad,
    );
    case(
        "100 engines, idle, adaptive",
        100,
        second * 30,
        None,
        PolicyKind::LeastLoad,
    );
}
