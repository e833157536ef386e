//! `pilotfish demo`: three simulated engines and the proxy in one process, and
//! one line for each request.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::app::{self, Stopped};
use crate::config::{Config, ListedEngine, Settings};
use crate::proxy::meter::RequestRecord;
use crate::sim::speed::Speed;
use crate::sim::{SimConfig, SimEngine};

/// Request lines that may wait to be printed; more are dropped.
const LINES: usize = 1024;

/// Model, time between two tokens: two models, three speeds.
const ENGINES: [(&str, u64); 3] = [
    ("pilot-small", 15),
    ("pilot-small", 30),
    ("pilot-large", 60),
];

/// Runs until a signal.
///
/// # Errors
/// When the port is taken.
pub fn run(port: u16) -> anyhow::Result<()> {
    let mut engines = Vec::new();
    for (model, itl) in ENGINES {
        let speed = Speed {
            itl: Duration::from_millis(itl),
            base_ttft: Duration::from_millis(itl * 2),
            ..Speed::default()
        };
        engines.push(SimEngine::start(SimConfig::new(model, speed))?);
    }
    let listed = engines
        .iter()
        .zip(ENGINES)
        .map(|(engine, (model, _))| ListedEngine::new(&engine.url(), &[model]));
    let config = Config {
        listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
        settings: Settings {
            engines: listed.collect::<Result<_, _>>()?,
            ..Settings::default()
        },
        ..Config::default()
    };
    let (records, ended) = mpsc::channel(LINES);
    let app = app::build(config, Some(records))?;
    print(&welcome(app.address, &engines));
    let printer = std::thread::Builder::new()
        .name("lines".to_owned())
        .spawn(move || print_lines(ended))?;
    if app::until_stopped(app)? == Stopped::Drained {
        // The workers are gone, and with them the senders: it ends by itself.
        let _ = printer.join();
    }
    Ok(())
}

fn welcome(address: SocketAddr, engines: &[SimEngine]) -> String {
    let mut text = String::from("\nPilotfish demo: three simulated engines, two models\n\n");
    for (engine, (model, itl)) in engines.iter().zip(ENGINES) {
        text.push_str(&format!(
            "  {:<28} {model:<12} {itl:>3} ms a token\n",
            engine.url()
        ));
    }
    text.push_str(&format!(
        r#"
Try, in another terminal:

  curl -N http://{address}/v1/chat/completions -H 'content-type: application/json' \
    -d '{{"model":"pilot-small","stream":true,"max_tokens":40,"messages":[{{"role":"user","content":"Where to?"}}]}}'

  curl http://{address}/v1/models
  curl http://{address}/metrics

  python3 - <<'END'
  from openai import OpenAI
  client = OpenAI(base_url="http://{address}/v1", api_key="unused")
  for event in client.chat.completions.create(model="pilot-large", stream=True,
          messages=[{{"role": "user", "content": "Where to?"}}]):
      if event.choices: print(event.choices[0].delta.content or "", end="", flush=True)
  END

Ctrl-C stops.

{:<12} {:<28} {:>6} {:>10} {:>10}  why
"#,
        "model", "engine", "status", "TTFT", "tokens/s",
    ));
    text
}

fn print_lines(mut ended: mpsc::Receiver<RequestRecord>) {
    while let Some(record) = ended.blocking_recv() {
        print(&line(&record));
    }
}

fn line(record: &RequestRecord) -> String {
    let engine = record
        .engine
        .as_ref()
        .map_or("-", |engine| engine.url.text());
    let model = if record.model.is_empty() {
        "-"
    } else {
        &*record.model
    };
    let ttft = record
        .ttft
        .map_or("-".to_owned(), |ttft| format!("{} ms", ttft.as_millis()));
    let why = if record.why.is_empty() {
        "no engine asked"
    } else {
        record.why
    };
    format!(
        "{model:<12} {engine:<28} {:>6} {ttft:>10} {:>10}  {why}\n",
        record.status,
        rate(record),
    )
}

/// Pieces a second after the first: for a stream, tokens a second.
fn rate(record: &RequestRecord) -> String {
    let spent = record
        .duration
        .saturating_sub(record.ttft.unwrap_or_default())
        .as_secs_f64();
    if record.pieces < 3 || spent <= 0.0 {
        return "-".to_owned();
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a stream is far below 2^52 pieces"
    )]
    let rate = (record.pieces - 1) as f64 / spent;
    format!("{rate:.0}")
}

fn print(text: &str) {
    // A closed terminal is no reason to stop.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
