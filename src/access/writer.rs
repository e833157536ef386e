//! The thread that writes the access log: whole buffers, as workers hand them
//! over. When it is behind, lines are lost and counted; nobody waits for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

use crate::metrics::Counter;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::LogTarget;

/// Buffers that may wait: at 64 KiB each, 8 MiB.
pub const QUEUE: usize = 128;

/// Lines of one worker.
#[derive(Debug, Default)]
pub struct Lines {
    /// The lines, whole.
    pub bytes: Vec<u8>,
    /// How many.
    pub count: u64,
}

/// The log, open.
#[derive(Debug)]
pub struct Log {
    target: LogTarget,
    file: Option<File>,
    /// Whether the last write failed, which is told once.
    is_failing: bool,
    dropped: Counter,
}

impl Log {
    /// Opens it; lines that cannot be written are counted in `dropped`.
    ///
    /// # Errors
    /// A file that cannot be appended to.
    pub fn open(target: LogTarget, dropped: Counter) -> io::Result<Self> {
        let mut log = Self {
            target,
            file: None,
            is_failing: false,
            dropped,
        };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the file anew: the old one may have been moved away.
    fn reopen(&mut self) -> io::Result<()> {
        if let LogTarget::File(path) = &self.target {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            self.file = Some(file);
        }
        Ok(())
    }

    fn write(&mut self, lines: &Lines) {
        let written = match &mut self.file {
            Some(file) => file.write_all(&lines.bytes),
            None => {
                let mut out = io::stdout().lock();
                out.write_all(&lines.bytes).and_then(|()| out.flush())
            }
        };
        match written {
            Ok(()) => self.is_failing = false,
            Err(error) => {
                self.dropped.increment(lines.count);
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(%error, "the access log cannot be written; lines are lost");
                }
            }
        }
    }
}

/// Writes what comes, until no worker is left. SIGHUP opens the file anew.
///
/// # Errors
/// When the runtime cannot be made.
pub fn run(mut log: Log, mut queue: mpsc::Receiver<Lines>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut hangup = match log.target {
            LogTarget::File(_) => signal(SignalKind::hangup()).ok(),
            LogTarget::Stdout => None,
        };
        loop {
            let hung_up = async {
                match &mut hangup {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = hung_up => match log.reopen() {
                    Ok(()) => tracing::info!("SIGHUP: the access log was opened anew"),
                    Err(error) => {
                        tracing::error!(%error, "the access log cannot be opened anew; the old file stays");
                    }
                },
                lines = queue.recv() => match lines {
                    Some(lines) => log.write(&lines),
                    None => return Ok(()),
                },
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_opened_is_an_error_and_what_cannot_be_written_is_counted() {
        let target = LogTarget::File("/nowhere/at/all.log".into());
        assert!(Log::open(target, Counter::default()).is_err());
        // It takes nothing, as a full disk.
        let target = LogTarget::File("/dev/full".into());
        let dropped = Counter::default();
        let mut log = Log::open(target, dropped.clone()).unwrap();
        for _ in 0..2 {
            log.write(&Lines {
                bytes: b"a\nb\n".to_vec(),
                count: 2,
            });
        }
        assert_eq!(dropped.get(), 4);
    }
}
