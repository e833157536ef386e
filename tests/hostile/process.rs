//! The binary itself, for what is to be seen of a process: its memory, its
//! processor time, its exit.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use serde_json::{Value, json};

use crate::support::{Answer, Client, Folder, eventually, post};

/// It, with one worker, before one engine; killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    folder: Folder,
}

const LOG: &str = "log";

impl Process {
    /// With these keys in its dynamic file, beside those that it needs.
    pub(crate) fn start(engine: &str, keys: &Value) -> Self {
        Self::start_with(engine, keys, &[])
    }

    pub(crate) fn start_with(engine: &str, keys: &Value, flags: &[&str]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let folder = Folder::new(&format!("hostile-{}", COUNT.fetch_add(1, SeqCst)));
        let mut file = json!({
            "service_discovery": "static",
            "routing_logic": "roundrobin",
            "engines": [{"url": engine, "models": ["m"]}],
        });
        for (key, value) in keys.as_object().unwrap() {
            file[key] = value.clone();
        }
        let dynamic = folder.path("dynamic.json");
        std::fs::write(&dynamic, file.to_string()).unwrap();
        let log = std::fs::File::create(folder.path(LOG)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_pilotfish"))
            .args(["--host", "127.0.0.1", "--port", "0", "--workers", "1"])
            .args(["--drain-settle", "0", "--drain-timeout", "0"])
            .args(["--dynamic-config-json", dynamic.to_str().unwrap()])
            .args(flags)
            .stderr(Stdio::from(log.try_clone().unwrap()))
            .stdout(Stdio::from(log))
            .spawn()
            .unwrap();
        let mut process = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            folder,
        };
        let mut port = None;
        eventually("it serves", || {
            assert!(
                process.child.try_wait().unwrap().is_none(),
                "{}",
                process.log()
            );
            let log = process.log();
            let at = log.split_once("address=127.0.0.1:").map(|(_, rest)| rest);
            let number = at.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
            port = number.and_then(|number| number.parse().ok());
            port.is_some()
        });
        process.address.set_port(port.unwrap());
        process
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path(LOG)).unwrap_or_default()
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    pub(crate) fn send(&self, raw: &str) -> Answer {
        let mut client = self.connect();
        client.write(raw.as_bytes());
        client.answer().expect("an answer")
    }

    /// What any process has done before it is measured.
    pub(crate) fn warm(&self) {
        for _ in 0..20 {
            let asked = post("/v1/completions", r#"{"model":"m"}"#);
            for request in [&asked, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"] {
                assert_eq!(self.send(request).status, 200);
            }
        }
    }

    /// Bytes of memory that it has in use.
    pub(crate) fn rss(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.unwrap().split_whitespace().nth(1).unwrap();
        number.parse::<u64>().unwrap() << 10
    }

    /// One value of /metrics, of the first series that starts so.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let page = self.send("GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").text();
        let line = page.lines().find(|line| line.starts_with(series));
        let line = line.unwrap_or_else(|| panic!("{series} not in\n{page}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(20).collect();
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("the last lines of its log: {last:#?}\n").as_bytes(),
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
