//! The body of an answer in other words: whoever polls it polls the engine's
//! socket, as with every answer.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::sessions::{Bond, UnderWay};
use super::stream::Deltas;
use crate::fleet::engine::Outcome;
use crate::proxy::body::Relay;
use crate::proxy::budget::Share;
use crate::proxy::error::{CUT_EVENT, LATE_EVENT};
use crate::upstream::Fault;

/// Pieces of an engine's stream that may tell the client nothing before others
/// have their turn.
const MOST_SILENT: usize = 32;

/// An engine's answer, told in the words of `/v1/infer`.
#[derive(Debug)]
pub struct Retold {
    relay: Box<Relay>,
    told: Told,
    #[expect(dead_code, reason = "held, not read: given up by being dropped")]
    held: (UnderWay, Option<Share>),
}

#[derive(Debug)]
enum Told {
    /// All of it.
    Whole(Bytes),
    /// Event by event.
    Stream {
        deltas: Deltas,
        is_over: bool,
        /// A fault that waits for what came before it to be flushed.
        held: Option<Fault>,
        bond: Option<Bond>,
    },
}

impl Retold {
    /// A whole answer, of which the engine has sent all that it will.
    pub(super) fn whole(
        relay: Box<Relay>,
        data: Bytes,
        (under_way, share): (UnderWay, Share),
    ) -> Self {
        Self {
            relay,
            told: Told::Whole(data),
            held: (under_way, Some(share)),
        }
    }

    /// A stream that begins.
    pub(super) fn stream(relay: Box<Relay>, (under_way, bond): (UnderWay, Option<Bond>)) -> Self {
        let told = Told::Stream {
            deltas: Deltas::default(),
            is_over: false,
            held: None,
            bond,
        };
        Self {
            relay,
            told,
            held: (under_way, None),
        }
    }

    pub(in crate::proxy) fn is_ended(&self) -> bool {
        match &self.told {
            Told::Whole(data) => data.is_empty(),
            Told::Stream { is_over, held, .. } => *is_over && held.is_none(),
        }
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        match &self.told {
            Told::Whole(data) => SizeHint::with_exact(data.len() as u64),
            Told::Stream { .. } => SizeHint::new(),
        }
    }

    pub(in crate::proxy) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let Self { relay, told, .. } = self;
        let (deltas, is_over, held, bond) = match told {
            Told::Whole(data) if data.is_empty() => return Poll::Ready(None),
            Told::Whole(data) => return relay.give(std::mem::take(data)),
            Told::Stream {
                deltas,
                is_over,
                held,
                bond,
            } => (deltas, is_over, held, bond),
        };
        for _ in 0..MOST_SILENT {
            if held.is_some() {
                std::task::ready!(relay.poll_flushed(cx));
                return Poll::Ready(held.take().map(Err));
            }
            if *is_over {
                return Poll::Ready(None);
            }
            let (mut out, mut bad) = (Vec::new(), None);
            let mut ended = false;
            match std::task::ready!(relay.poll_piece(cx)) {
                Some(Ok(data)) => bad = deltas.push(&data, &mut out).err(),
                Some(Err(fault)) => *held = Some(fault),
                None => ended = true,
            }
            ended = held.is_none() && bad.is_none() && (ended || relay.is_ended());
            if ended {
                bad = deltas.finish(&mut out).err();
            }
            if let Some(bad) = bad {
                let fault = Fault::Broken(std::io::Error::other(bad));
                *held = Some(relay.broken(fault, Outcome::Failure));
            }
            if let Some(fault) = held {
                let event = match bad {
                    Some(bad) => bad.event(),
                    None if matches!(fault, Fault::Expired) => LATE_EVENT,
                    None => CUT_EVENT,
                };
                // Whose time is up has not been left by the block.
                if !matches!(fault, Fault::Expired) {
                    bond.take().iter().for_each(Bond::part);
                }
                if !deltas.is_told() && relay.may_tell() {
                    out.extend_from_slice(event.as_bytes());
                }
            }
            *is_over = ended || held.is_some();
            if !out.is_empty() {
                return relay.give(Bytes::from(out));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
