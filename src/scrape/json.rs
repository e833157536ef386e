//! Pages that are JSON: SGLang's `/v1/loads`, llama.cpp's `/slots`.
//!
//! Their numbers go the way of samples, under names of our own.

use serde::Deserialize;

use super::page::Page;

/// Data-parallel ranks, or slots, of one engine at most.
const MOST: usize = 4096;

/// `/v1/loads`: an entry for each data-parallel rank.
#[derive(Deserialize)]
struct Loads {
    loads: Vec<Load>,
}

#[derive(Deserialize)]
struct Load {
    num_running_reqs: f64,
    num_waiting_reqs: f64,
    max_total_num_tokens: f64,
    token_usage: Option<f64>,
    gen_throughput: Option<f64>,
    cache_hit_rate: Option<f64>,
}

/// One of `/slots`.
#[derive(Deserialize)]
struct Slot {
    n_ctx: f64,
    is_processing: bool,
    /// What it holds: it grows with what is generated.
    #[serde(default)]
    n_prompt_tokens: f64,
}

/// Reads what `/v1/loads` says; one without ranks, or without memory yet, says
/// nothing.
pub(super) fn loads(body: &[u8], page: &mut Page<'_>) {
    let Ok(Loads { loads }) = serde_json::from_slice(body) else {
        return;
    };
    let is_ready = loads.iter().all(|load| load.max_total_num_tokens > 0.0);
    if !is_ready {
        return;
    }
    for (rank, load) in loads.iter().take(MOST).enumerate() {
        for (name, value) in [
            ("loads.num_running_reqs", Some(load.num_running_reqs)),
            ("loads.num_waiting_reqs", Some(load.num_waiting_reqs)),
            (
                "loads.max_total_num_tokens",
                Some(load.max_total_num_tokens),
            ),
            ("loads.token_usage", load.token_usage),
            ("loads.gen_throughput", load.gen_throughput),
            ("loads.cache_hit_rate", load.cache_hit_rate),
        ] {
            if let Some(value) = value {
                page.number(name, rank, value);
            }
        }
    }
}

/// Reads what `/slots` says.
pub(super) fn slots(body: &[u8], page: &mut Page<'_>) {
    let slots: Vec<Slot> = serde_json::from_slice(body).unwrap_or_default();
    let all: f64 = slots.iter().map(|slot| slot.n_ctx).sum();
    if all > 0.0 {
        // What others have left behind gives way.
        let busy = slots.iter().filter(|slot| slot.is_processing);
        let held: f64 = busy.map(|slot| slot.n_prompt_tokens).sum();
        page.number("slots.usage", 0, held / all);
    }
    for (n, slot) in slots.iter().take(MOST).enumerate() {
        page.number("slots.n_ctx", n, slot.n_ctx);
        let is_processing = f64::from(u8::from(slot.is_processing));
        page.number("slots.is_processing", n, is_processing);
    }
}
