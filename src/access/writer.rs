//! The thread that writes the access log: whole buffers, as workers hand them
//! over. When it is behind, lines are lost and counted; nobody waits for it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;

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
    file: File,
    /// Whether only a part of the last line could be written.
    is_torn: bool,
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
        Ok(Self {
            file: open(&target)?,
            target,
            is_torn: false,
            is_failing: false,
            dropped,
        })
    }

    /// Opens the file anew: the old one may have been moved away.
    fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.target)?;
        let is_new = self.file.metadata().is_ok_and(|of| of.len() == 0);
        self.is_torn &= !is_new;
        Ok(())
    }

    fn write(&mut self, lines: &Lines) {
        // What comes next is a line of its own.
        let mended: &[u8] = if self.is_torn { b"\n" } else { b"" };
        let (_, mut failed) = put(&mut self.file, mended);
        let mut done = 0;
        if failed.is_none() {
            (done, failed) = put(&mut self.file, &lines.bytes);
            self.is_torn = lines.bytes[..done]
                .last()
                .is_some_and(|last| *last != b'\n');
        }
        let Some(error) = failed else {
            self.is_failing = false;
            return;
        };
        // The torn line's end is among the rest.
        let lost = memchr::memchr_iter(b'\n', &lines.bytes[done..]).count();
        self.dropped.increment(lost as u64);
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(%error, "the access log cannot be written; lines are lost");
        }
    }
}

fn open(target: &LogTarget) -> io::Result<File> {
    match target {
        LogTarget::File(path) => OpenOptions::new().create(true).append(true).open(path),
        // Not by way of the library's buffer: what it holds is not known.
        LogTarget::Stdout => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
    }
}

/// Writes what it can: tells how much that was, and why it was not all.
fn put(file: &mut impl Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut done = 0;
    while done < bytes.len() {
        match file.write(&bytes[done..]) {
            Ok(0) => return (done, Some(ErrorKind::WriteZero.into())),
            Ok(more) => done += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (done, Some(error)),
        }
    }
    (done, None)
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
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

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

    #[test]
    fn a_line_that_was_torn_is_lost_alone() {
        // It takes some, then nothing until it is read, as a disk that fills.
        let (reader, full) = UnixStream::pair().unwrap();
        full.set_nonblocking(true).unwrap();
        reader.set_nonblocking(true).unwrap();
        let dropped = Counter::default();
        let mut log = Log {
            target: LogTarget::Stdout,
            file: OwnedFd::from(full).into(),
            is_torn: false,
            is_failing: false,
            dropped: dropped.clone(),
        };
        let line = "x".repeat(99) + "\n";
        let many = Lines {
            bytes: line.repeat(50_000).into_bytes(),
            count: 50_000,
        };
        let mut text = Vec::new();
        let mut read = || while matches!((&reader).read_to_end(&mut text), Ok(n) if n > 0) {};
        log.write(&many);
        log.write(&many);
        read();
        log.write(&Lines {
            bytes: b"last\n".to_vec(),
            count: 1,
        });
        read();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.ends_with("x\nlast\n"),
            "{:?}",
            &text[text.len() - 20..]
        );
        let whole = text.lines().filter(|one| one.len() == 99).count() as u64;
        assert!(whole > 0);
        assert_eq!(dropped.get(), 100_000 - whole);
    }
}
