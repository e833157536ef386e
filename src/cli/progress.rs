//! A bar on a terminal, while something takes its time.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// How often the progress is shown.
const SHOWN: Duration = Duration::from_millis(200);
/// Characters of the bar.
const WIDTH: usize = 40;

/// Shows how much of `all` is done, until it is over; nothing where there is
/// no terminal.
pub(super) fn show(all: usize, unit: &str, done: impl Fn() -> usize, is_over: impl Fn() -> bool) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    while !is_over() {
        let done = done().min(all);
        let filled = (done * WIDTH).checked_div(all).unwrap_or(WIDTH);
        let bar: String = (0..WIDTH)
            .map(|at| if at < filled { '#' } else { '.' })
            .collect();
        let percent = (done * 100).checked_div(all).unwrap_or(100);
        // Whoever closed it does not want to see it.
        let _ = write!(std::io::stderr(), "\r[{bar}] {percent:3} % of {all} {unit}");
        std::thread::park_timeout(SHOWN);
    }
    let _ = write!(std::io::stderr(), "\r\x1b[K");
}
