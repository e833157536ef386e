//! Smart routing: the cheapest model that is likely to be right, learned from what
//! models answered before.
//!
//! A worker takes the query of a request, has predicted how good and how long each
//! model's answer will be ([`predict`]), and takes the cheapest that is good enough
//! ([`choose`]). Whatever is slow is done beside the workers: predictions over a
//! long history, the policies' multipliers and the shadow on one thread
//! ([`service`]), the history itself on another ([`learner`]).
//!
//! Invariant: no request waits for a disk, and for a prediction no longer than
//! [`worker::PATIENCE`]; without one, the models' own means decide.

pub mod choose;
pub mod dual;
pub mod eval;
pub mod history;
pub mod in_force;
pub mod learner;
pub mod log;
pub mod predict;
pub mod running;
pub mod service;
pub mod store;
pub mod weigh;
pub mod worker;

mod embed;
mod fit;
mod index;
mod shadow;
