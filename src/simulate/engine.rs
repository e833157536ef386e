//! One inference engine in simulated time, by the rules of [`Speed`]: slots, a
//! first-come queue, prefill that a prefix cache shortens, and decoding that
//! every further sequence slows.
//!
//! Tokens are not simulated one by one. All sequences decode at the same pace,
//! so one virtual clock counts the tokens that each of them would have made; a
//! sequence is done when the clock has moved by its length. Only what changes
//! the pace, and reports, cost work.

mod cache;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use self::cache::Cache;
use super::trace::{BLOCK_TOKENS, Request};
use crate::sim::speed::Speed;

/// Tokens between two reports of progress.
const REPORT_TOKENS: u32 = 64;

/// What happened to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Its first token came.
    FirstToken(u32),
    /// So many tokens came since its last report, or since the first token.
    Progress(u32, u32),
    /// Its last token came. The tokens since the last report have none of
    /// their own.
    Done(u32),
}

/// Something that will happen to a running request.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    /// When, as bits: those of numbers that are not negative order as the
    /// numbers do. Seconds while prefilling, tokens of the virtual clock while
    /// decoding.
    at: u64,
    id: u32,
    /// Tokens that are still to come then.
    left: u32,
}

/// A request without a slot.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    id: u32,
    input_tokens: u32,
    output_tokens: u32,
    blocks: usize,
}

/// A simulated engine.
#[derive(Debug)]
pub struct Engine {
    speed: Speed,
    cache: Cache,
    /// Up to when all has happened, in seconds.
    clock: f64,
    /// The virtual clock: tokens that a sequence would have made so far.
    tokens: f64,
    /// Seconds between two tokens, at this many running.
    gap: f64,
    /// Requests with a slot.
    running: usize,
    prefilling: BinaryHeap<Reverse<Due>>,
    decoding: BinaryHeap<Reverse<Due>>,
    waiting: VecDeque<Waiting>,
    /// The blocks of all that wait, one after another: they come and go in
    /// the same order, and no request needs a list of its own.
    waiting_blocks: VecDeque<u64>,
    /// The blocks of the request that gets a slot; kept for its memory.
    admitted: Vec<u64>,
    prompt_tokens: u64,
    hit_tokens: u64,
    busy_seconds: f64,
}

impl Engine {
    /// An idle engine at time 0, whose prefix cache holds so many tokens. The
    /// cache of `speed` has other blocks and is not used. There is always at
    /// least one slot.
    #[must_use]
    pub fn new(speed: Speed, cache_tokens: u64) -> Self {
        let blocks = cache_tokens / u64::from(BLOCK_TOKENS);
        Self {
            speed,
            cache: Cache::new(usize::try_from(blocks).unwrap_or(usize::MAX)),
            clock: 0.0,
            tokens: 0.0,
            gap: 0.0,
            running: 0,
            prefilling: BinaryHeap::new(),
            decoding: BinaryHeap::new(),
            waiting: VecDeque::new(),
            waiting_blocks: VecDeque::new(),
            admitted: Vec::new(),
            prompt_tokens: 0,
            hit_tokens: 0,
            busy_seconds: 0.0,
        }
    }

    /// A request comes at `now`, up to which the engine was advanced. Its id
    /// is not that of another request in flight.
    pub fn arrive(&mut self, id: u32, request: &Request, now: f64) {
        debug_assert!(self.next_event().is_none_or(|at| at >= now), "not advanced");
        self.pass(now);
        let one = Waiting {
            id,
            input_tokens: request.input_tokens,
            output_tokens: request.output_tokens,
            blocks: request.blocks.len(),
        };
        if self.running < self.speed.max_running.max(1) {
            self.set_running(self.running + 1);
            self.admit(one, &request.blocks);
        } else {
            self.waiting.push_back(one);
            self.waiting_blocks.extend(&request.blocks);
        }
    }

    /// When the next thing happens, in seconds since the start.
    #[must_use]
    pub fn next_event(&self) -> Option<f64> {
        let at = self.next_prefilled().min(self.next_decoded());
        at.is_finite().then_some(at)
    }

    /// Lets all happen that happens up to and at `now`, and appends it in
    /// order.
    pub fn advance(&mut self, now: f64, events: &mut Vec<Event>) {
        loop {
            let (prefilled, decoded) = (self.next_prefilled(), self.next_decoded());
            if prefilled.min(decoded) > now {
                break;
            }
            self.pass(prefilled.min(decoded));
            if prefilled <= decoded {
                self.first_token(events);
            } else {
                self.more_tokens(events);
            }
        }
        self.pass(now);
    }

    /// Requests with a slot.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Requests that wait for a slot.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Prompt tokens of all requests that got a slot.
    #[must_use]
    pub fn prompt_tokens(&self) -> u64 {
        self.prompt_tokens
    }

    /// Those of them that the prefix cache held.
    #[must_use]
    pub fn hit_tokens(&self) -> u64 {
        self.hit_tokens
    }

    /// The requests in flight, running or waiting, summed over time.
    #[must_use]
    pub fn busy_seconds(&self) -> f64 {
        self.busy_seconds
    }

    /// When the next prefill ends; infinite if there is none.
    fn next_prefilled(&self) -> f64 {
        let next = self.prefilling.peek();
        next.map_or(f64::INFINITY, |Reverse(due)| {
            f64::from_bits(due.at).max(self.clock)
        })
    }

    /// When the next report or last token is due at this pace; infinite if
    /// there is none.
    fn next_decoded(&self) -> f64 {
        let next = self.decoding.peek();
        next.map_or(f64::INFINITY, |Reverse(due)| {
            let tokens = f64::from_bits(due.at) - self.tokens;
            self.clock + tokens.max(0.0) * self.gap
        })
    }

    /// Brings the clocks to `now`; nothing happens on the way.
    fn pass(&mut self, now: f64) {
        let seconds = (now - self.clock).max(0.0);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a queue is far below 2^52 requests"
        )]
        let in_flight = (self.running + self.waiting.len()) as f64;
        self.busy_seconds += seconds * in_flight;
        self.clock = self.clock.max(now);
        // Without a gap all tokens come at once, and whoever is done moves the
        // virtual clock.
        if self.running > 0 && self.gap > 0.0 {
            self.tokens += seconds / self.gap;
        }
    }

    /// Changes the pace; the virtual clock must be up to date.
    fn set_running(&mut self, running: usize) {
        self.running = running;
        self.gap = self.speed.decode(running as u64).as_secs_f64();
    }

    /// Gives a request its slot: its prefill begins.
    fn admit(&mut self, one: Waiting, blocks: &[u64]) {
        let input = one.input_tokens as usize;
        let block = BLOCK_TOKENS as usize;
        let known = self.cache.hit(blocks, input / block) * block;
        // The last token is always computed: the answer follows from it.
        let hit = known.min(input.saturating_sub(1));
        self.prompt_tokens += input as u64;
        self.hit_tokens += hit as u64;
        let prefill = self.speed.prefill(input - hit).as_secs_f64();
        self.prefilling.push(Reverse(Due {
            at: (self.clock + prefill).to_bits(),
            id: one.id,
            left: one.output_tokens.saturating_sub(1),
        }));
    }

    /// The next prefill ends.
    fn first_token(&mut self, events: &mut Vec<Event>) {
        if let Some(Reverse(due)) = self.prefilling.pop() {
            events.push(Event::FirstToken(due.id));
            self.decode(due.id, due.left);
        }
    }

    /// Lets a sequence decode up to its next report, or its end.
    fn decode(&mut self, id: u32, left: u32) {
        let next = left.min(REPORT_TOKENS);
        self.decoding.push(Reverse(Due {
            at: (self.tokens + f64::from(next)).to_bits(),
            id,
            left: left - next,
        }));
    }

    /// The next report is due, or the next sequence done.
    fn more_tokens(&mut self, events: &mut Vec<Event>) {
        let Some(Reverse(due)) = self.decoding.pop() else {
            return;
        };
        // It is there now, whatever was lost in rounding.
        self.tokens = self.tokens.max(f64::from_bits(due.at));
        if due.left > 0 {
            events.push(Event::Progress(due.id, REPORT_TOKENS));
            self.decode(due.id, due.left);
            return;
        }
        events.push(Event::Done(due.id));
        let Some(next) = self.waiting.pop_front() else {
            self.set_running(self.running - 1);
            return;
        };
        let mut blocks = std::mem::take(&mut self.admitted);
        blocks.clear();
        blocks.extend(self.waiting_blocks.drain(..next.blocks));
        self.admit(next, &blocks);
        self.admitted = blocks;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Event::{Done, FirstToken, Progress};
    use std::time::Duration;

    /// 1 s and a second per 1000 tokens to the first token; 0.1 s a token, and
    /// half of that more for each other sequence.
    fn speed(max_running: usize) -> Speed {
        Speed {
            base_ttft: Duration::from_secs(1),
            prefill_tokens_per_second: 1000.0,
            itl: Duration::from_millis(100),
            batch_slowdown: 0.5,
            max_running,
            cache_blocks: 0,
        }
    }

    fn request(at: f64, input_tokens: u32, output_tokens: u32) -> Request {
        Request {
            at,
            input_tokens,
            output_tokens,
            blocks: Vec::new(),
            session: None,
            model: None,
        }
    }

    /// All that happens, and when.
    fn run(engine: &mut Engine, requests: &[Request]) -> Vec<(f64, Event)> {
        let (mut timeline, mut events) = (Vec::new(), Vec::new());
        let mut coming = (0u32..).zip(requests).peekable();
        loop {
            let next = engine.next_event().unwrap_or(f64::INFINITY);
            match coming.next_if(|(_, one)| one.at < next) {
                Some((id, one)) => {
                    engine.advance(one.at, &mut events);
                    assert!(events.is_empty());
                    engine.arrive(id, one, one.at);
                }
                None if next.is_finite() => {
                    engine.advance(next, &mut events);
                    assert!(!events.is_empty(), "nothing happened at {next}");
                    timeline.extend(events.drain(..).map(|event| (next, event)));
                }
                None => return timeline,
            }
        }
    }

    fn assert_timeline(timeline: &[(f64, Event)], expected: &[(f64, Event)]) {
        assert_eq!(timeline.len(), expected.len(), "{timeline:?}");
        for (one, other) in timeline.iter().zip(expected) {
            let is_same = one.1 == other.1 && (one.0 - other.0).abs() < 1e-6;
            assert!(is_same, "{one:?}, not {other:?}, in {timeline:?}");
        }
    }

    #[test]
    fn one_request() {
        let mut engine = Engine::new(speed(8), 0);
        let timeline = run(&mut engine, &[request(1.0, 2000, 150)]);
        let expected = [
            (4.0, FirstToken(0)),
            (10.4, Progress(0, 64)),
            (16.8, Progress(0, 64)),
            (18.9, Done(0)),
        ];
        assert_timeline(&timeline, &expected);
        assert!((engine.busy_seconds() - 17.9).abs() < 1e-6);
        assert_eq!((engine.running(), engine.waiting()), (0, 0));
        assert_eq!((engine.prompt_tokens(), engine.hit_tokens()), (2000, 0));
    }

    #[test]
    fn one_token_is_done_at_once_and_a_report_is_not_made_at_the_end() {
        let mut engine = Engine::new(speed(8), 0);
        let timeline = run(&mut engine, &[request(0.0, 0, 1)]);
        assert_timeline(&timeline, &[(1.0, FirstToken(0)), (1.0, Done(0))]);
        let timeline = run(&mut engine, &[request(2.0, 0, 65)]);
        assert_timeline(&timeline, &[(3.0, FirstToken(0)), (9.4, Done(0))]);
    }

    #[test]
    fn two_at_once_slow_each_other() {
        let mut engine = Engine::new(speed(8), 0);
        let timeline = run(
            &mut engine,
            &[request(0.0, 1000, 21), request(0.0, 1000, 11)],
        );
        let expected = [
            (2.0, FirstToken(0)),
            (2.0, FirstToken(1)),
            // 10 tokens at 0.15 s each, then 10 alone at 0.1 s.
            (3.5, Done(1)),
            (4.5, Done(0)),
        ];
        assert_timeline(&timeline, &expected);
        assert!((engine.busy_seconds() - 8.0).abs() < 1e-6);
    }

    #[test]
    fn a_second_that_joins_midway_slows_from_then_on() {
        let mut engine = Engine::new(speed(8), 0);
        let timeline = run(&mut engine, &[request(0.0, 0, 41), request(2.0, 500, 11)]);
        let expected = [
            (1.0, FirstToken(0)),
            // 10 tokens by 2.0; 10 by 3.5, while the second one prefills.
            (3.5, FirstToken(1)),
            (5.0, Done(1)),
            // 30 by 5.0, the last 10 alone.
            (6.0, Done(0)),
        ];
        assert_timeline(&timeline, &expected);
    }

    #[test]
    fn those_without_a_slot_wait_in_order() {
        let mut engine = Engine::new(speed(1), 0);
        let requests = [
            request(0.0, 0, 11),
            request(0.5, 1000, 1),
            request(0.6, 0, 1),
        ];
        let timeline = run(&mut engine, &requests);
        let expected = [
            (1.0, FirstToken(0)),
            (2.0, Done(0)),
            (4.0, FirstToken(1)),
            (4.0, Done(1)),
            (5.0, FirstToken(2)),
            (5.0, Done(2)),
        ];
        assert_timeline(&timeline, &expected);
        assert!((engine.busy_seconds() - (2.0 + 3.5 + 4.4)).abs() < 1e-6);
    }

    #[test]
    fn a_known_prefix_is_not_computed_again() {
        let with = |at: f64, input: u32, blocks: &[u64]| Request {
            blocks: blocks.to_vec(),
            ..request(at, input, 1)
        };
        let requests = [
            with(0.0, 1024, &[1, 2]),
            with(10.0, 1500, &[1, 2, 3]),
            // The third block is not full: it is computed.
            with(20.0, 1500, &[1, 2, 3]),
            // All of it is known, but for the token that is always computed.
            with(30.0, 1024, &[1, 2]),
        ];
        let mut engine = Engine::new(speed(1), 10 * 512);
        let timeline = run(&mut engine, &requests);
        let expected = [
            (2.024, FirstToken(0)),
            (2.024, Done(0)),
            (11.476, FirstToken(1)),
            (11.476, Done(1)),
            (21.476, FirstToken(2)),
            (21.476, Done(2)),
            (31.001, FirstToken(3)),
            (31.001, Done(3)),
        ];
        assert_timeline(&timeline, &expected);
        assert_eq!(engine.prompt_tokens(), 1024 + 1500 + 1500 + 1024);
        assert_eq!(engine.hit_tokens(), 1024 + 1024 + 1023);
        // Those that waited are looked up when they get their slot.
        let mut engine = Engine::new(speed(1), 10 * 512);
        let requests = [with(0.0, 1024, &[1, 2]), with(0.1, 1024, &[1, 2])];
        let timeline = run(&mut engine, &requests);
        assert!((timeline[2].0 - 3.025).abs() < 1e-6, "{timeline:?}");
    }

    #[test]
    fn an_instant_engine_takes_no_time() {
        let mut engine = Engine::new(Speed::instant(), 0);
        let timeline = run(&mut engine, &[request(3.0, 9000, 100), request(3.0, 1, 2)]);
        assert!(timeline.iter().all(|(at, _)| (*at - 3.0).abs() < 1e-9));
        assert_eq!(timeline.len(), 5);
    }

    #[test]
    fn what_comes_goes_once() {
        let mut rng = fastrand::Rng::with_seed(3);
        for max_running in [0, 1, 5, 64] {
            let mut engine = Engine::new(speed(max_running), 40 * 512);
            let mut at = 0.0;
            let requests: Vec<Request> = (0..2000)
                .map(|_| {
                    at += f64::from(rng.u32(..3)) * rng.f64();
                    let first = rng.u64(..60);
                    let blocks: Vec<u64> = (first..first + rng.u64(1..5)).collect();
                    Request {
                        blocks: blocks.clone(),
                        ..request(
                            at,
                            512 * u32::try_from(blocks.len()).unwrap(),
                            rng.u32(1..300),
                        )
                    }
                })
                .collect();
            let timeline = run(&mut engine, &requests);
            assert!(timeline.is_sorted_by(|one, other| one.0 <= other.0));
            let mut seen = vec![(0u32, 0u32, 0u32); requests.len()];
            for (at, event) in timeline {
                let (FirstToken(id) | Progress(id, _) | Done(id)) = event;
                assert!(at >= requests[id as usize].at);
                let seen = &mut seen[id as usize];
                match event {
                    FirstToken(_) => seen.0 += 1,
                    Progress(_, tokens) => seen.1 += tokens,
                    Done(_) => seen.2 += 1,
                }
                assert!(seen.0 == 1 && (seen.2 == 0 || matches!(event, Done(_))));
            }
            for (seen, request) in seen.iter().zip(&requests) {
                assert_eq!((seen.0, seen.2), (1, 1));
                let rest = request.output_tokens - 1 - seen.1;
                assert!(rest <= REPORT_TOKENS && (rest > 0 || request.output_tokens == 1));
            }
            assert_eq!((engine.running(), engine.waiting()), (0, 0));
            assert!(engine.waiting_blocks.is_empty());
            assert!(engine.hit_tokens() > 0 && engine.hit_tokens() < engine.prompt_tokens());
        }
    }
}
