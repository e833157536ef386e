//! `pilotfish demo`: three simulated engines and the proxy in one process, and
//! one line for each request.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::app;
use crate::config::{AccessLog, Config, LineForm, ListedEngine, LogTarget, Settings};
use crate::sim::speed::Speed;
use crate::sim::{SimConfig, SimEngine};

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
        access_log: Some(AccessLog {
            to: LogTarget::Stdout,
            form: LineForm::Table,
        }),
        ..Config::default()
    };
    app::until_stopped(|| {
        let app = app::build(config)?;
        print(&welcome(app.address, &engines));
        Ok(app)
    })?;
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

fn print(text: &str) {
    // A closed terminal is no reason to stop.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
