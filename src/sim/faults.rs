//! Failing on demand: by `--fault`, or by a request's `x-sim-fault` field.

use std::str::FromStr;
use std::time::Duration;

/// The request field that asks for a fault; only simulated engines honour it.
pub const FIELD: &str = "x-sim-fault";

/// One way to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Answer with this status.
    Status(u16),
    /// Answer 429 with `Retry-After` of so many seconds.
    Busy(u32),
    /// Close without a byte of an answer.
    Refuse,
    /// Reset without a byte of an answer.
    ResetBeforeHead,
    /// Send bytes that are no HTTP, and close.
    Garbage,
    /// Send a good status line and then bytes that are no field, and close.
    GarbageHead,
    /// Say `100 Continue` for ever, and nothing else.
    ContinueForever,
    /// Reset after so many events, or so many tokens' share of a whole answer.
    ResetAfter(usize),
    /// End the connection cleanly after so many events, in the midst of the
    /// chunked body; or so many tokens' share of a whole answer.
    TruncateAfter(usize),
    /// Send bytes that are no chunk after so many events; a whole answer is
    /// then chunked too.
    GarbageAfter(usize),
    /// Fall silent after so many events, or so many tokens' share of a whole
    /// answer.
    StallAfter(usize),
    /// Answer properly, and send more bytes after the answer's end.
    Surplus,
    /// Take so long for each token.
    Slow(Duration),
    /// Never answer.
    Hang,
    /// Answer late.
    SlowHead(Duration),
    /// Answer before the upload has ended, and read no more of it.
    Early,
    /// Restart: every connection breaks, every counter starts anew.
    Restart,
}

/// Why a text is no fault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "'{0}' is no fault; expected status=CODE, busy=SECONDS, refuse, reset-before-head, \
     garbage, garbage-head, continue-forever, reset-after=EVENTS, truncate-after=EVENTS, \
     garbage-after=EVENTS, stall-after=EVENTS, surplus, slow=MILLISECONDS, hang, \
     slow-head=MILLISECONDS, early or restart"
)]
pub struct NoFault(String);

impl Fault {
    /// After how many events it breaks an answer off, if it is of that kind.
    #[must_use]
    pub fn after(&self) -> Option<usize> {
        match self {
            Self::ResetAfter(events)
            | Self::TruncateAfter(events)
            | Self::GarbageAfter(events)
            | Self::StallAfter(events) => Some(*events),
            _ => None,
        }
    }
}

impl FromStr for Fault {
    type Err = NoFault;

    fn from_str(text: &str) -> Result<Self, NoFault> {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let bad = || NoFault(text.to_owned());
        let count = || value.parse::<usize>().map_err(|_| bad());
        let time = || {
            let millis = value.parse().map_err(|_| bad())?;
            Ok(Duration::from_millis(millis))
        };
        Ok(match (name, value) {
            ("refuse", "") => Self::Refuse,
            ("reset-before-head", "") => Self::ResetBeforeHead,
            ("garbage", "") => Self::Garbage,
            ("garbage-head", "") => Self::GarbageHead,
            ("continue-forever", "") => Self::ContinueForever,
            ("surplus", "") => Self::Surplus,
            ("hang", "") => Self::Hang,
            ("early", "") => Self::Early,
            ("restart", "") => Self::Restart,
            ("status", _) => {
                let code = value.parse().ok().filter(|code| (200..600).contains(code));
                Self::Status(code.ok_or_else(bad)?)
            }
            ("busy", _) => Self::Busy(value.parse().map_err(|_| bad())?),
            ("slow-head", _) => Self::SlowHead(time()?),
            ("slow", _) => Self::Slow(time()?),
            ("reset-after", _) => Self::ResetAfter(count()?),
            ("truncate-after", _) => Self::TruncateAfter(count()?),
            ("garbage-after", _) => Self::GarbageAfter(count()?),
            ("stall-after", _) => Self::StallAfter(count()?),
            _ => return Err(bad()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_mistakes_explained() {
        for (text, fault) in [
            ("status=503", Fault::Status(503)),
            ("busy=7", Fault::Busy(7)),
            ("hang", Fault::Hang),
            ("reset-after=3", Fault::ResetAfter(3)),
            ("slow-head=250", Fault::SlowHead(Duration::from_millis(250))),
            ("slow=40", Fault::Slow(Duration::from_millis(40))),
            ("garbage", Fault::Garbage),
            ("garbage-head", Fault::GarbageHead),
            ("continue-forever", Fault::ContinueForever),
            ("surplus", Fault::Surplus),
        ] {
            assert_eq!(text.parse(), Ok(fault));
        }
        for text in [
            "",
            "hang=1",
            "status=99",
            "status=x",
            "nonsense",
            "stall-after=",
            "slow=",
            "garbage=3",
            "continue-forever=1",
        ] {
            let error = text.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains("status=CODE"), "{text}: {error}");
        }
    }
}
