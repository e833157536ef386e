//! Engines of a Kubernetes cluster: what its API server holds, every change of
//! it, for ever, through whatever becomes of the server; and which engines that
//! means.
//!
//! From objects to engines there is no I/O and no clock: [`known::Known`] takes
//! events, and tells the engines at any time. What is watched for a source, and
//! when its engines are told: `source`.

#[cfg(feature = "kubernetes")]
pub mod api;
pub mod event;
pub mod fault;
pub mod known;
pub mod lines;
pub mod list;
pub mod pace;
#[cfg(feature = "kubernetes")]
pub mod source;
pub mod status;
#[cfg(feature = "kubernetes")]
pub mod watch;

mod annotations;
mod engine;
mod notes;
mod object;
mod objects;
mod once;
mod pods;
mod pool;
mod services;
mod slices;
