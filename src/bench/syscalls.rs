//! Counts a thread's system calls, by ptrace(2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A thread that traces another process's thread: only it may.
#[derive(Debug)]
pub(super) struct Tracer {
    done: Arc<AtomicBool>,
    thread: JoinHandle<nix::Result<u64>>,
}

impl Tracer {
    /// Starts counting.
    pub(super) fn start(thread: i32) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&done);
        let thread = std::thread::spawn(move || count(Pid::from_raw(thread), &stop));
        Self { done, thread }
    }

    /// Ends it; `None` where tracing is not allowed.
    pub(super) fn stop(self) -> Option<u64> {
        self.done.store(true, Relaxed);
        self.thread.join().ok()?.ok()
    }
}

fn count(thread: Pid, done: &AtomicBool) -> nix::Result<u64> {
    ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD)?;
    ptrace::interrupt(thread)?;
    let mut stops = 0;
    loop {
        match waitpid(thread, Some(WaitPidFlag::__WALL))? {
            WaitStatus::PtraceSyscall(_) => stops += 1,
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => break,
            _ => {}
        }
        // A worker ticks ten times a second, so there is always a next stop.
        if done.load(Relaxed) {
            ptrace::detach(thread, None)?;
            break;
        }
        ptrace::syscall(thread, None)?;
    }
    // A stop on the way in, one on the way out.
    Ok(stops / 2)
}
