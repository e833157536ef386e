//! The engine's side: connections, each worker's pool of them, and the
//! HTTP/1.1 client codec.
//!
//! The codec is our own, since what the data path needs of one is little and
//! particular: the connection is polled by whoever polls the answer's body, so
//! no task and no channel stand between an engine's event and the client; what
//! was written and read is known to the byte, so that "never sent" and "closed
//! just as it was reused" are facts and not guesses; and an open stream holds
//! no buffer of its own.
//!
//! Invariant: a connection goes back to the pool only when the answer ended at
//! its proper end, the request was wholly written, and the socket is silent.

mod answer;
mod codec;
mod fetch;
mod link;
mod pool;
mod secure;
mod upload;

pub use answer::AnswerBody;
pub(crate) use codec::Decoder;
pub use codec::{AnswerHead, Framing, ProtocolFault};
pub use fetch::{FetchError, Get, ask, converse, fetch, stream};
pub use link::{Evidence, Fault, Link, Reading};
pub use pool::Pool;
pub use secure::{Secure, SecureError};
pub use upload::{ClientFault, Streaming, Upload};
