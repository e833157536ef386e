//! What follows from how an attempt ended: one table, by kind of fault or by
//! status. Who is blamed, whether another engine may be asked, and what the
//! client is told if not.

use crate::config::Causes;
use crate::fleet::engine::Outcome;
use crate::upstream::Fault;

use super::error::ProxyError;

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// How the attempt ended, as far as the engine is concerned.
    pub outcome: Outcome,
    /// Whether it may be repeated.
    pub repeat: Repeat,
}

/// Whether a request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// In no case.
    Never,
    /// To another engine, in any case: nobody had it.
    Elsewhere,
    /// To another engine, if it is held, the configuration allows this cause,
    /// and the budget lasts.
    If(Cause),
}

/// Why a request that an engine had is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The connection broke, or what came was no HTTP.
    Reset,
    /// 429 or 503.
    Busy,
    /// No answer in time.
    Timeout,
    /// Another 5xx than 501 and 503.
    ServerError,
}

impl Cause {
    /// Whether the configuration allows it.
    #[must_use]
    pub fn is_in(self, causes: &Causes) -> bool {
        match self {
            Self::Reset => causes.reset,
            Self::Busy => causes.busy,
            Self::Timeout => causes.timeout,
            Self::ServerError => causes.server_error,
        }
    }
}

impl Verdict {
    /// Of an attempt that brought no answer.
    #[must_use]
    pub fn of_fault(fault: &Fault) -> Self {
        let (outcome, repeat) = match fault {
            Fault::Unsent(_) => (Outcome::Unreachable, Repeat::Elsewhere),
            // The attempt itself has sent it again already, where it may.
            Fault::Stale | Fault::Broken(_) | Fault::Protocol(_) => {
                (Outcome::Failure, Repeat::If(Cause::Reset))
            }
            Fault::Silent => (Outcome::Timeout, Repeat::If(Cause::Timeout)),
            Fault::Overdue => (Outcome::Timeout, Repeat::Never),
            Fault::Expired => (Outcome::Unrelated, Repeat::Never),
            // Nobody had it, and ports are a matter of the address.
            Fault::NoSocket(_) => (Outcome::Unrelated, Repeat::Elsewhere),
            Fault::Client(_) => (Outcome::ClientGone, Repeat::Never),
        };
        Self { outcome, repeat }
    }

    /// Of an answer with this status.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        let outcome = Outcome::of_status(status);
        let repeat = match outcome {
            Outcome::Overloaded => Repeat::If(Cause::Busy),
            Outcome::Failure => Repeat::If(Cause::ServerError),
            _ => Repeat::Never,
        };
        Self { outcome, repeat }
    }
}

/// What the client is told when nobody else is asked.
#[must_use]
pub fn told(fault: &Fault) -> ProxyError {
    match fault {
        Fault::Client(fault) => ProxyError::BodyBroke(fault.0.to_string()),
        Fault::Silent => ProxyError::EngineLate,
        Fault::Expired | Fault::Overdue => ProxyError::Expired,
        Fault::NoSocket(error) => ProxyError::NoSocket(error.to_string()),
        Fault::Unsent(_) | Fault::Stale | Fault::Broken(_) | Fault::Protocol(_) => {
            ProxyError::EngineFailed(fault.to_string())
        }
    }
}

/// The word for a client that does not send all of its body.
pub const CLIENT_BROKE_OFF: &str = "client_broke_off";

/// A fault in one word, as it is logged and traced.
#[must_use]
pub fn word(fault: &Fault) -> &'static str {
    match fault {
        Fault::Unsent(_) => "unreachable",
        Fault::Stale | Fault::Broken(_) => "connection_broken",
        Fault::Protocol(_) => "protocol_error",
        Fault::Client(_) => CLIENT_BROKE_OFF,
        Fault::Silent | Fault::Overdue => "engine_timeout",
        Fault::Expired => "deadline_exceeded",
        Fault::NoSocket(_) => "no_socket",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;
    use crate::upstream::{Evidence, ProtocolFault};

    /// The whole way from what was seen on the socket to what is done about it.
    #[test]
    fn evidence_leads_to_one_verdict() {
        use Outcome::{Failure, Unreachable, Unrelated};
        let kinds = [
            ErrorKind::BrokenPipe,
            ErrorKind::ConnectionReset,
            ErrorKind::UnexpectedEof,
        ];
        // Bytes written, read, connection reused → outcome, repeat, status.
        let rows = [
            ((0, false, false), (Unreachable, Repeat::Elsewhere, 502)),
            ((0, true, false), (Failure, Repeat::If(Cause::Reset), 502)),
            ((9, false, false), (Failure, Repeat::If(Cause::Reset), 502)),
            ((9, true, false), (Failure, Repeat::If(Cause::Reset), 502)),
            ((9, true, true), (Failure, Repeat::If(Cause::Reset), 502)),
        ];
        for ((written, heard, reused), (outcome, repeat, status)) in rows {
            for kind in kinds {
                let evidence = Evidence {
                    written,
                    heard,
                    reused,
                };
                let fault = evidence.fault(Error::from(kind));
                let expected = Verdict { outcome, repeat };
                assert_eq!(Verdict::of_fault(&fault), expected, "{evidence:?} {kind}");
                assert_eq!(told(&fault).status(), status);
            }
        }
        // Closed as it was reused: sent again on a fresh connection, unblamed.
        for written in [0, 9] {
            let evidence = Evidence {
                written,
                heard: false,
                reused: true,
            };
            for kind in kinds {
                assert!(matches!(evidence.fault(kind.into()), Fault::Stale));
            }
            let other = evidence.fault(ErrorKind::Other.into());
            let expected = if written == 0 { Unreachable } else { Failure };
            assert_eq!(Verdict::of_fault(&other).outcome, expected);
        }
        // Out of descriptors: that is no engine's fault.
        for errno in [12, 23, 24, 99, 105] {
            let fault = Fault::connecting(Error::from_raw_os_error(errno));
            assert_eq!(Verdict::of_fault(&fault).outcome, Unrelated, "{errno}");
            assert_eq!(told(&fault).status(), 503);
        }
        for kind in [ErrorKind::ConnectionRefused, ErrorKind::TimedOut] {
            let fault = Fault::connecting(kind.into());
            assert_eq!(Verdict::of_fault(&fault).repeat, Repeat::Elsewhere);
        }
    }

    #[test]
    fn other_faults_and_statuses_have_theirs() {
        let overdue = Verdict::of_fault(&Fault::Overdue);
        assert_eq!(
            (overdue.outcome, overdue.repeat),
            (Outcome::Timeout, Repeat::Never)
        );
        let protocol = Fault::Protocol(ProtocolFault::TooManyInterim);
        for (fault, outcome, repeat, status) in [
            (
                Fault::Silent,
                Outcome::Timeout,
                Repeat::If(Cause::Timeout),
                504,
            ),
            (Fault::Expired, Outcome::Unrelated, Repeat::Never, 504),
            (protocol, Outcome::Failure, Repeat::If(Cause::Reset), 502),
        ] {
            assert_eq!(Verdict::of_fault(&fault), Verdict { outcome, repeat });
            assert_eq!(told(&fault).status(), status);
        }
        for (status, outcome, repeat) in [
            (200, Outcome::Success, Repeat::Never),
            (400, Outcome::Success, Repeat::Never),
            (429, Outcome::Overloaded, Repeat::If(Cause::Busy)),
            (500, Outcome::Failure, Repeat::If(Cause::ServerError)),
            (501, Outcome::Success, Repeat::Never),
            (502, Outcome::Failure, Repeat::If(Cause::ServerError)),
            (503, Outcome::Overloaded, Repeat::If(Cause::Busy)),
            (504, Outcome::Failure, Repeat::If(Cause::ServerError)),
        ] {
            let verdict = Verdict { outcome, repeat };
            assert_eq!(Verdict::of_status(status), verdict, "{status}");
        }
    }

    #[test]
    fn causes_are_allowed_one_by_one() {
        let causes = Causes::default();
        let allowed = [
            Cause::Reset,
            Cause::Busy,
            Cause::Timeout,
            Cause::ServerError,
        ]
        .map(|cause| cause.is_in(&causes));
        assert_eq!(allowed, [true, true, false, false]);
    }
}
