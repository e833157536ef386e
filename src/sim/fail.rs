//! The faults as they are done: before a request's body is read, instead of an
//! answer, and in the midst of one.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::answer::error;
use super::engine::State;
use super::faults::Fault;
use super::serve::pause;
use super::wire::{Answer, Wire};
use crate::net;

/// Between two interim answers that go on for ever.
const INTERIM: Duration = Duration::from_millis(5);

/// Faults that come before the body is read; false ends the connection.
pub(super) async fn before_body(
    fault: Option<&Fault>,
    wire: &mut Wire,
    state: &State,
) -> io::Result<bool> {
    match fault {
        Some(Fault::Refuse) => return Ok(false),
        Some(Fault::ResetBeforeHead) => {
            net::reset_on_close(&wire.stream);
            return Ok(false);
        }
        Some(Fault::Hang) => {
            wire.gone().await;
            state.gauges.aborted.fetch_add(1, Relaxed);
            return Ok(false);
        }
        Some(Fault::SlowHead(delay)) => tokio::time::sleep(*delay).await,
        Some(Fault::Early) => {
            let mut answer = Answer::json(413, &error("too large", "BadRequestError", 413));
            answer.extra = "connection: close\r\n".to_owned();
            wire.answer(&answer).await?;
            // Closing with unread bytes would be a reset, and eat the answer.
            wire.gone().await;
            return Ok(false);
        }
        Some(Fault::Restart) => {
            state.gauges.restart();
            state.life.send_modify(|life| *life += 1);
            return Ok(false);
        }
        _ => {}
    }
    Ok(true)
}

/// Faults that take an answer's place: whether the connection goes on, or
/// `None` when there is to be an answer.
pub(super) async fn instead(
    fault: Option<&Fault>,
    wire: &mut Wire,
    state: &State,
) -> io::Result<Option<bool>> {
    match fault {
        Some(Fault::Status(status)) => {
            let message = error("a fault on demand", "SimulatedError", *status);
            wire.answer(&Answer::json(*status, &message)).await?;
            Ok(Some(true))
        }
        Some(Fault::Busy(seconds)) => {
            let mut answer = Answer::json(429, &error("too busy", "RateLimitError", 429));
            answer.extra = format!("retry-after: {seconds}\r\n");
            wire.answer(&answer).await?;
            Ok(Some(true))
        }
        Some(Fault::Garbage) => {
            wire.send(b"this is no HTTP\r\n\r\n").await?;
            Ok(Some(false))
        }
        Some(Fault::GarbageHead) => {
            wire.send(b"HTTP/1.1 200 OK\r\nno field at all\0\r\n\r\n")
                .await?;
            Ok(Some(false))
        }
        Some(Fault::ContinueForever) => {
            // Until the client has had enough of it.
            loop {
                wire.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                if !pause(INTERIM, wire).await {
                    return Ok(Some(aborted(state)));
                }
            }
        }
        _ => Ok(None),
    }
}

/// Ends an answer that has begun, in the fault's way; false, since the
/// connection is of no more use.
pub(super) async fn break_off(fault: &Fault, wire: &mut Wire, state: &State) -> io::Result<bool> {
    match fault {
        Fault::ResetAfter(_) => net::reset_on_close(&wire.stream),
        Fault::GarbageAfter(_) => wire.send(b"this is no chunk\r\n").await?,
        Fault::StallAfter(_) => {
            wire.gone().await;
            return Ok(aborted(state));
        }
        // Closing says it all.
        _ => {}
    }
    Ok(false)
}

/// A client left; false, since there is nobody to go on for.
pub(super) fn aborted(state: &State) -> bool {
    state.gauges.aborted.fetch_add(1, Relaxed);
    false
}
