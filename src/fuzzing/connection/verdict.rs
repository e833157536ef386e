//! Whether all that was seen of an exchange is as it must be.

use std::str::from_utf8;

use super::super::messages::{self, Answer, Request, list};
use super::{ENGINE_CLOSES, Script, Seen};
use crate::proxy::error::{CUT_EVENT, LATE_EVENT};

/// Fields that we set, whatever the client said.
const OURS: [&str; 14] = [
    "endpoint-load-metrics-format",
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "via",
    "forwarded",
    "traceparent",
    "tracestate",
    "x-request-id",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
];
/// Fields that no engine gets but in an upgrade.
const NEVER: [&str; 7] = [
    "upgrade",
    "expect",
    "te",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "http2-settings",
];

/// Panics if the engine got what the client had not sent, or the client what the
/// engine had not.
pub(super) fn check(script: &Script<'_>, seen: &Seen) {
    for request in seen.requests.iter().chain(&seen.parts) {
        is_well_formed(request);
    }
    let is_switched = seen.requests.iter().any(is_upgrade);
    let nonsense = &seen.nonsense;
    assert!(
        is_switched || nonsense.is_empty(),
        "the engine got {nonsense:?}"
    );
    // HTTP/2 is its own language; what follows an upgrade is no HTTP.
    let lower = script.client.to_ascii_lowercase();
    let may_switch = memchr::memmem::find(&lower, b"upgrade").is_some();
    if script.client.starts_with(b"PRI ") || may_switch {
        return;
    }
    let sent = messages::requests(script.client);
    are_sent(seen, &sent);
    are_honest(script, seen, &sent);
}

fn is_upgrade(request: &Request) -> bool {
    !list(&request.fields, "upgrade").is_empty()
}

fn count(request: &Request, name: &str) -> usize {
    let of_name = |(known, _): &&(String, String)| known == name;
    request.fields.iter().filter(of_name).count()
}

/// What we send leaves no doubt.
fn is_well_formed(request: &Request) {
    let framings = count(request, "content-length") + count(request, "transfer-encoding");
    let coding = list(&request.fields, "transfer-encoding");
    let has_never = NEVER.iter().any(|name| count(request, name) > 0);
    let is_bad = |(name, _): &(String, String)| name.starts_with("x-pilotfish-");
    let is_right = count(request, "host") == 1
        && count(request, "x-request-id") == 1
        && framings <= 1
        && (coding.is_empty() || coding == ["chunked"])
        && (is_upgrade(request) || !has_never)
        && !request.fields.iter().any(is_bad);
    assert!(is_right, "the engine got {request:?}");
}

/// Each request that an engine got is one that the client sent, in its order, or
/// the one before it once more.
fn are_sent(seen: &Seen, sent: &[Request]) {
    let mut next = 0;
    for request in &seen.requests {
        let from = next.max(1) - 1;
        let found = sent.iter().skip(from).position(|one| is_same(request, one));
        let Some(found) = found else {
            panic!("the client did not send {request:?}; it sent {sent:?}");
        };
        next = from + found + 1;
    }
    for part in &seen.parts {
        let is_known = sent.iter().any(|one| is_same(part, one));
        assert!(
            is_known,
            "the client did not send {part:?}; it sent {sent:?}"
        );
    }
}

fn is_same(got: &Request, sent: &Request) -> bool {
    let is_body = if got.is_whole {
        sent.is_whole && got.body == sent.body
    } else {
        sent.body.starts_with(&got.body)
    };
    // No server is sent a fragment.
    let target = sent.target.split('#').next().unwrap_or_default();
    let mut fields = got
        .fields
        .iter()
        .filter(|(name, _)| !OURS.contains(&&**name));
    is_body
        && got.method == sent.method
        && target.ends_with(&got.target)
        && fields.all(|field| sent.fields.contains(field))
}

/// Each answer that the client got is an engine's, or an error of ours.
fn are_honest(script: &Script<'_>, seen: &Seen, sent: &[Request]) {
    let closes = script.says(ENGINE_CLOSES);
    let given: Vec<Answer> = (seen.given.iter())
        .filter_map(|(which, method)| messages::answer(script.answers[*which], method, closes))
        .map(|(answer, _)| answer)
        .collect();
    let ended = seen.has_ended && !seen.was_reset;
    let (mut left, mut at) = (&*seen.received, 0);
    while !left.is_empty() {
        let method = sent.get(at).map_or("GET", |request| &request.method);
        let Some((mut answer, after)) = messages::answer(left, method, ended) else {
            // That it may go on may be all that it was told.
            let rest = left.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n");
            let is_cut = is_part_of_a_head(rest.unwrap_or(left));
            assert!(is_cut, "the client got {:?}", String::from_utf8_lossy(left));
            return;
        };
        // An end that the client brought about says nothing.
        answer.is_whole &= !answer.by_close || seen.ended_first;
        let is_known = given.iter().any(|engines| is_relayed(&answer, engines));
        assert!(
            is_known || is_ours(&answer, method),
            "the client got {} {:?}, whole: {}; engines gave {given:?}",
            answer.status,
            String::from_utf8_lossy(&answer.body),
            answer.is_whole,
        );
        if !answer.is_whole {
            return;
        }
        (left, at) = (after, at + 1);
    }
}

/// The same, or a part of it that does not look whole.
fn is_relayed(answer: &Answer, engines: &Answer) -> bool {
    if answer.status != engines.status {
        return false;
    }
    if answer.is_whole {
        return engines.is_whole && answer.body == engines.body;
    }
    // Of our event too a part may have come.
    [CUT_EVENT, LATE_EVENT].iter().any(|event| {
        (0..=event.len()).any(|cut| {
            let body = answer.body.strip_suffix(&event.as_bytes()[..cut]);
            body.is_some_and(|body| engines.body.starts_with(body))
        })
    })
}

fn is_ours(answer: &Answer, method: &str) -> bool {
    let is_error = from_utf8(&answer.body).is_ok_and(|text| text.contains("\"error\":{"));
    let is_bare = answer.body.is_empty() && (method == "HEAD" || !answer.is_whole);
    // What the parser refuses by itself has no body.
    let is_refusal = answer.body.is_empty() && matches!(answer.status, 400 | 408 | 414 | 431);
    answer.status >= 400 && (is_bare || is_refusal || is_error)
}

fn is_part_of_a_head(bytes: &[u8]) -> bool {
    let mut room = [httparse::EMPTY_HEADER; 256];
    let parsed = httparse::Response::new(&mut room).parse(bytes);
    parsed.is_ok_and(|status| status.is_partial())
}
