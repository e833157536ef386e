//! The processes that a bench measures: this binary as engine and as proxy.

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A process of this binary, ended with the bench.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    address: SocketAddr,
}

impl Child {
    pub(super) fn engine() -> anyhow::Result<Self> {
        let flags = "engine --model m --port 0 --ttft 0 --itl 0 --prefill 1e12";
        Self::start(flags.split(' '))
    }

    pub(super) fn proxy(engine: &str) -> anyhow::Result<Self> {
        let flags = "--host 127.0.0.1 --port 0 --service-discovery static --static-models m \
                     --routing-logic roundrobin --drain-settle 0 --workers 1 --static-backends";
        Self::start(flags.split_whitespace().chain([engine]))
    }

    /// Starts this binary and reads the address off its log.
    fn start<'a>(flags: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(flags)
            .args(["--log-format", "json"])
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = process
            .stderr
            .take()
            .ok_or_else(|| io::Error::other("no log"))?;
        let mut said = String::new();
        let mut lines = BufReader::new(stderr).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            said.push_str(&line);
            let line: serde_json::Value = serde_json::from_str(&line).ok()?;
            line["fields"]["address"].as_str()?.parse().ok()
        });
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        match address {
            Some(address) => Ok(Self { process, address }),
            None => anyhow::bail!("a process of the bench did not start: {said}"),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// CPU time of all its threads.
    pub(super) fn cpu(&self) -> io::Result<Duration> {
        let mut nanos = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            nanos += text
                .split(' ')
                .next()
                .and_then(|n| n.parse::<u64>().ok())
                .unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// The id of its thread with that name.
    pub(super) fn thread(&self, name: &str) -> io::Result<i32> {
        for task in std::fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let path = task?.path();
            if std::fs::read_to_string(path.join("comm"))?.trim() == name {
                let id = path
                    .file_name()
                    .and_then(|id| id.to_str())
                    .and_then(|id| id.parse().ok());
                return id.ok_or_else(|| io::Error::other("no thread id"));
            }
        }
        Err(io::Error::other("no such thread"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
