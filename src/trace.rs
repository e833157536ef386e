//! Distributed traces: whose trace a request belongs to, the spans that tell of
//! it, and how they get to a collector (OTLP).

pub mod context;
pub mod export;
pub mod otlp;
pub mod span;
mod wire;
