//! The simulated engine: behaves as vLLM does on the wire, without a model.
//!
//! The demo, the tests and the benches share it. Its speed follows from its
//! load as a real engine's does ([`speed`]), its metrics move truthfully
//! ([`gauges`]), and it fails on demand ([`faults`]). It speaks HTTP by hand,
//! so that it can also speak it wrongly.

mod answer;
pub mod engine;
mod fail;
pub mod faults;
pub mod gauges;
mod serve;
pub mod speed;
mod wire;

pub use answer::{text, word};
pub use engine::{SimConfig, SimEngine};
