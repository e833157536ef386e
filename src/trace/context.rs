//! Whose trace a request belongs to: W3C Trace Context, level 1 and what level
//! 2 adds to its flags.
//!
//! `traceparent: 00-<trace, 32 digits>-<span, 16 digits>-<flags, 2 digits>`.
//! What is not written just so is no context, and a new trace begins.

use std::cell::Cell;

use http::header::{HeaderMap, HeaderName};

use crate::digits::hexadecimal;

/// The field that names trace and span.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What others keep of the trace; we pass it on.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// The trace is recorded.
const SAMPLED: u8 = 1;
/// The trace's id is random in its last seven bytes (level 2).
const RANDOM: u8 = 2;

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; not 0.
    pub trace: u128,
    /// The span; not 0.
    pub span: u64,
    /// Its flags, those that we know.
    pub flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent`. Of a later version, the part that it must share
    /// with version 00.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (head, rest) = text.split_at_checked(LENGTH)?;
        let version = hex(&head[..2])?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let has_dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
        if !is_whole || !has_dashes {
            return None;
        }
        let trace = hex(&head[3..35]).filter(|trace| *trace != 0)?;
        let span = u64::try_from(hex(&head[36..52])?).ok()?;
        let flags = u8::try_from(hex(&head[53..])?).ok()?;
        (span != 0).then_some(Self {
            trace,
            span,
            flags: flags & (SAMPLED | RANDOM),
        })
    }

    /// The context that a request came with; none if it has several.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let first = all.next()?;
        let is_one = all.next().is_none();
        is_one.then(|| Self::parse(first.as_bytes())).flatten()
    }

    /// The text of it, in version 00.
    #[must_use]
    pub fn text(&self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        hexadecimal(&mut text[3..35], self.trace);
        hexadecimal(&mut text[36..52], self.span.into());
        hexadecimal(&mut text[53..], self.flags.into());
        text
    }

    /// Whether the trace is recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// A number in lower-case hexadecimal digits, and nothing else.
fn hex(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |number: u128, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// Which of the traces that begin here are recorded.
///
/// It is told from the trace's id, as others do who sample by it: those of a
/// smaller share are among those of a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Ids whose last 56 bits are below it are not recorded.
    below: u64,
}

impl Sampler {
    /// For a share from 0 to 1.
    #[must_use]
    pub fn new(share: f64) -> Self {
        const ALL: f64 = (1u64 << 56) as f64;
        let below = (1.0 - share.clamp(0.0, 1.0)) * ALL;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to 2^56"
        )]
        let below = below as u64;
        Self { below }
    }

    fn takes(self, trace: u128) -> bool {
        trace & ((1 << 56) - 1) >= u128::from(self.below)
    }
}

/// A request's span, and those around it.
#[derive(Debug, Clone, Copy)]
pub struct Traced {
    /// Our span for the request.
    pub own: TraceContext,
    /// The client's span.
    pub parent: Option<u64>,
}

impl Traced {
    /// Goes on with the client's trace, or begins one.
    #[must_use]
    pub fn begin(headers: &HeaderMap, sampler: Sampler) -> Self {
        let span = new_span();
        match TraceContext::of(headers) {
            Some(client) => Self {
                own: TraceContext { span, ..client },
                parent: Some(client.span),
            },
            None => {
                let trace = fastrand::u128(1..);
                let sampled = if sampler.takes(trace) { SAMPLED } else { 0 };
                let flags = RANDOM | sampled;
                Self {
                    own: TraceContext { trace, span, flags },
                    parent: None,
                }
            }
        }
    }

    /// What engines are told.
    #[must_use]
    pub fn onward(self) -> Onward {
        Onward {
            context: Cell::new(self.own),
            keeps_state: self.parent.is_some(),
        }
    }
}

/// A span's id.
fn new_span() -> u64 {
    fastrand::u64(1..)
}

/// The trace as an engine is to go on with it: a span of its own for each try.
#[derive(Debug, Clone)]
pub struct Onward {
    context: Cell<TraceContext>,
    /// Whether the client's `tracestate` belongs to it.
    pub keeps_state: bool,
}

impl Onward {
    /// Begins the span of one more try; tells its id.
    pub fn next(&self) -> u64 {
        let span = new_span();
        let context = self.context.get();
        self.context.set(TraceContext { span, ..context });
        span
    }

    /// The engine's `traceparent`.
    #[must_use]
    pub fn text(&self) -> [u8; LENGTH] {
        self.context.get().text()
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn contexts_are_read_strictly() {
        let good = TraceContext::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(good.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(
            (good.span, good.is_sampled()),
            (0x00f0_67aa_0ba9_02b7, true)
        );
        let rest = &GOOD[2..];
        // Later versions, which must begin alike, and may go on after a dash.
        for (version, tail, is_good) in [
            ("01", "", true),
            ("cc", "-what-the-future-holds", true),
            ("01", "-", true),
            ("01", ".", false),
            ("00", "-", false),
            ("00", " ", false),
            ("ff", "", false),
            ("0A", "", false),
            ("0", "", false),
        ] {
            let text = format!("{version}{rest}{tail}");
            let found = TraceContext::parse(text.as_bytes());
            assert_eq!(found.is_some(), is_good, "{text}");
        }
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-011",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01,00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn flags_that_nobody_knows_are_not_passed_on() {
        let text = GOOD.replace("-01", "-ff");
        let context = TraceContext::parse(text.as_bytes()).unwrap();
        assert!(context.text().ends_with(b"-03"));
        let text = GOOD.replace("-01", "-f0");
        let context = TraceContext::parse(text.as_bytes()).unwrap();
        assert!(!context.is_sampled());
    }

    #[test]
    fn two_fields_are_none() {
        let mut headers = HeaderMap::new();
        assert_eq!(TraceContext::of(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert!(TraceContext::of(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(TraceContext::of(&headers), None);
    }

    #[test]
    fn a_clients_decision_stands_and_ours_is_a_share() {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(GOOD));
        let traced = Traced::begin(&headers, Sampler::new(0.0));
        assert!(traced.own.is_sampled());
        assert_eq!(traced.parent, Some(0x00f0_67aa_0ba9_02b7));
        let unsampled = GOOD.replace("-01", "-00").parse().unwrap();
        headers.insert(TRACEPARENT, unsampled);
        assert!(!Traced::begin(&headers, Sampler::new(1.0)).own.is_sampled());

        let none = HeaderMap::new();
        for (share, least, most) in [(0.0, 0, 0), (1.0, 1000, 1000), (0.25, 150, 350)] {
            let sampler = Sampler::new(share);
            let taken = (0..1000)
                .filter(|_| Traced::begin(&none, sampler).own.is_sampled())
                .count();
            assert!((least..=most).contains(&taken), "{share}: {taken}");
        }
    }

    #[test]
    fn each_try_has_a_span_of_its_own() {
        let traced = Traced::begin(&HeaderMap::new(), Sampler::new(1.0));
        let onward = traced.onward();
        let spans = [onward.next(), onward.next()];
        assert_ne!(spans[0], spans[1]);
        let told = TraceContext::parse(&onward.text()).unwrap();
        assert_eq!((told.trace, told.span), (traced.own.trace, spans[1]));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1u128.., span in 1u64.., flags in 0u8..4) {
            let context = TraceContext { trace, span, flags };
            prop_assert_eq!(TraceContext::parse(&context.text()), Some(context));
        }

        #[test]
        fn anything_may_come(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(found) = TraceContext::parse(&text) {
                prop_assert!(found.trace != 0 && found.span != 0);
            }
        }

        #[test]
        fn one_changed_byte_is_noticed_or_read_as_it_stands(at in 0usize..55, byte: u8) {
            let mut text = GOOD.as_bytes().to_vec();
            text[at] = byte;
            if let Some(found) = TraceContext::parse(&text) {
                prop_assert_eq!(&found.text()[3..53], &text[3..53]);
            }
        }
    }
}
