//! What routing may look at, and how it is read off a request's body.
//!
//! The body is held, piece by piece and as it came, until the request can be
//! routed; what is held is bounded for each request and for the process.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http_body::Body;
use hyper::body::Incoming;

pub use super::budget::Budget;
use super::budget::Share;
use super::error::ProxyError;
use super::infer::fault::InferError;
use super::multipart::Multipart;
use super::peek::{Found, ModelField, PromptAt, Scanner, SelectionAt};
use super::pieces::{next_piece, too_slow};
use crate::config::Limits;
use crate::downstream::watch::Deadline;

/// Paths of OpenAI-like inference APIs, where a body without a model is wrong.
pub(super) const INFERENCE_PATHS: [&str; 19] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/v1/score",
    "/score",
    "/tokenize",
    "/detokenize",
    "/pooling",
    "/classify",
    "/v1/moderations",
    "/v1/audio/speech",
    "/v1/images/generations",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
];

/// Bodies of unknown types are held up to this length, so that a request that
/// meets a closed connection can be sent again; longer ones are passed on.
const OPAQUE_HELD: u64 = 64 << 10;

/// All that routing may look at.
#[derive(Debug, Default)]
pub struct RequestFacts {
    /// The model asked for; `None` sends the request to any engine.
    pub model: Option<String>,
    /// Whether its path is one of an inference API.
    pub is_inference: bool,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// The answer's length at most, in tokens.
    pub max_tokens: Option<u64>,
    /// The `user` key.
    pub user: Option<String>,
    /// The `session_id` key.
    pub session_id: Option<String>,
    /// The key that the policy looks for, and its value.
    pub keyed: Option<(Arc<str>, String)>,
    /// Where the prompt stands, if the policy looks at it.
    pub prompt: Option<Box<PromptAt>>,
    /// Body bytes divided by four.
    pub estimated_tokens: u64,
}

/// A body as far as it was read, and what was found in it.
#[derive(Debug)]
pub struct Peeked {
    /// For routing.
    pub facts: RequestFacts,
    /// The pieces read, as they came.
    pub held: Vec<Bytes>,
    /// Their length.
    pub held_bytes: usize,
    /// What the client is still to send.
    pub rest: Option<Incoming>,
    /// No model within reach: right only when one model is served.
    pub out_of_reach: bool,
    /// Where in the pieces the model's name stands, and how it is written.
    pub model_at: Option<(Range<u64>, Written)>,
    /// Where a selection stands in the pieces.
    pub selection_at: Option<Box<SelectionAt>>,
    /// Given back when the request has an answer.
    pub share: Share,
}

impl Peeked {
    fn new(share: Share) -> Self {
        Self {
            facts: RequestFacts::default(),
            held: Vec::new(),
            held_bytes: 0,
            rest: None,
            out_of_reach: false,
            model_at: None,
            selection_at: None,
            share,
        }
    }

    /// What can be said when all that will be read was.
    fn finish(&mut self, inference: bool, wanted: Wanted<'_>) -> Result<(), ProxyError> {
        let is_open = matches!(self.facts.model.as_deref(), Some("" | "auto"));
        let mut selection = self.selection_at.iter();
        if selection.any(|at| at.value.is_empty()) {
            return Err(ProxyError::BodyTooLarge("selection_query", self.held_bytes));
        }
        let is_left_open = wanted.any_model || self.selection_at.is_some();
        if inference && is_open && !is_left_open {
            // What it is selected by may stand behind what is held.
            return Err(match self.rest {
                Some(_) => ProxyError::BodyTooLarge("selection_query", self.held_bytes),
                None => ProxyError::BadModel,
            });
        }
        Ok(())
    }
}

/// How a value stands in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// As a JSON string, with its quotes.
    Json,
    /// As it is, in a form.
    Plain,
}

/// How a body is looked into.
enum Lens {
    Json(Box<Scanner>),
    Form(Box<Multipart>),
    /// Never parsed.
    Opaque,
}

/// What a policy looks for in a body.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// A top-level key.
    pub key: Option<&'a Arc<str>>,
    /// Where the prompt stands.
    pub prompt: bool,
    /// Whether the model may be left to the policy.
    pub any_model: bool,
}

/// What reading a body needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Peeking<'a> {
    /// Bounds.
    pub limits: &'a Limits,
    /// The process's budget.
    pub budget: &'a Budget,
    /// The request's deadline, moved as pieces arrive.
    pub deadline: &'a Deadline,
    /// Longest time between two pieces.
    pub idle: Duration,
    /// What the policy looks for in the body.
    pub wanted: Wanted<'a>,
}

/// Reads as much of `body` as routing needs.
///
/// # Errors
/// What is wrong with the body, or with the time it takes.
pub async fn peek(
    head: &Parts,
    mut body: Incoming,
    peeking: Peeking<'_>,
) -> Result<Peeked, ProxyError> {
    let inference = INFERENCE_PATHS.contains(&head.uri.path());
    let wanted = peeking.wanted;
    let mut lens = lens(head, inference, wanted)?;
    let mut peeked = Peeked::new(peeking.budget.share());
    let declared = body.size_hint().exact();
    let passes = matches!(lens, Lens::Opaque) && declared.is_none_or(|n| n > OPAQUE_HELD);
    let began = peeking.deadline.now();
    while !body.is_end_stream() {
        if passes || peeked.held_bytes > peeking.limits.max_peek_bytes {
            peeked.rest = Some(body);
            break;
        }
        let Some(data) = next_piece(&mut body, peeking.deadline, peeking.idle).await? else {
            break;
        };
        peeked.share.add(data.len())?;
        peeked.held_bytes += data.len();
        match &mut lens {
            Lens::Json(scanner) => scanner.push(&data)?,
            Lens::Form(form) => form.push(&data)?,
            Lens::Opaque => {}
        }
        peeked.held.push(data);
        too_slow(began, peeked.held_bytes, peeking.deadline, peeking.idle)?;
    }
    peeking.deadline.clear();
    let whole = declared.unwrap_or(0).max(peeked.held_bytes as u64);
    conclude(lens, inference, wanted.key, &mut peeked)?;
    peeked.facts.is_inference = inference;
    peeked.finish(inference, wanted)?;
    peeked.facts.estimated_tokens = whole / 4;
    Ok(peeked)
}

/// Reads all of `body`, up to the bound; its pieces are joined.
///
/// # Errors
/// What is wrong with it, or with the time it takes.
pub(super) async fn whole(
    mut body: Incoming,
    peeking: Peeking<'_>,
) -> Result<(Vec<u8>, Share), ProxyError> {
    let (mut held, mut share) = (Vec::new(), peeking.budget.share());
    let began = peeking.deadline.now();
    let most = peeking.limits.max_peek_bytes;
    if body.size_hint().lower() > most as u64 {
        return Err(InferError::TooLarge(most).into());
    }
    while let Some(data) = next_piece(&mut body, peeking.deadline, peeking.idle).await? {
        share.add(data.len())?;
        held.extend_from_slice(&data);
        if held.len() > most {
            return Err(InferError::TooLarge(most).into());
        }
        too_slow(began, held.len(), peeking.deadline, peeking.idle)?;
    }
    peeking.deadline.clear();
    Ok((held, share))
}

/// The same as [`peek`] for a body that is here already.
///
/// # Errors
/// What is wrong with it.
pub fn look(head: &Parts, body: Bytes, wanted: Wanted<'_>) -> Result<Peeked, ProxyError> {
    let inference = INFERENCE_PATHS.contains(&head.uri.path());
    let mut lens = lens(head, inference, wanted)?;
    let mut peeked = Peeked::new(Budget::new(usize::MAX).share());
    match &mut lens {
        Lens::Json(scanner) => scanner.push(&body)?,
        Lens::Form(form) => form.push(&body)?,
        Lens::Opaque => {}
    }
    peeked.held_bytes = body.len();
    peeked.held.push(body);
    conclude(lens, inference, wanted.key, &mut peeked)?;
    peeked.facts.is_inference = inference;
    peeked.finish(inference, wanted)?;
    peeked.facts.estimated_tokens = peeked.held_bytes as u64 / 4;
    Ok(peeked)
}

/// Reads what the content type says can be read.
fn lens(head: &Parts, inference: bool, wanted: Wanted<'_>) -> Result<Lens, ProxyError> {
    let json = || {
        let mut scanner = Box::new(Scanner::looking_for(wanted.key.map(Arc::clone)));
        if wanted.prompt {
            scanner.look_for_prompt();
        }
        Lens::Json(scanner)
    };
    let Some(content_type) = head.headers.get(CONTENT_TYPE) else {
        let lens = if inference { json() } else { Lens::Opaque };
        return Ok(lens);
    };
    let text = content_type.to_str().unwrap_or("");
    let essence = text.split(';').next().unwrap_or("").trim();
    let is = |name: &str| essence.eq_ignore_ascii_case(name);
    let ends_json = || {
        let suffix = essence
            .len()
            .checked_sub(5)
            .and_then(|at| essence.get(at..));
        suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
    };
    if is("application/json") || ends_json() {
        let encoding = head.headers.get(CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(ProxyError::Encoded);
        }
        return Ok(json());
    }
    if is("multipart/form-data")
        && let Some(form) = Multipart::new(text)
    {
        return Ok(Lens::Form(Box::new(form)));
    }
    Ok(Lens::Opaque)
}

/// Makes facts of what was found.
fn conclude(
    lens: Lens,
    inference: bool,
    key: Option<&Arc<str>>,
    peeked: &mut Peeked,
) -> Result<(), ProxyError> {
    let whole = peeked.rest.is_none();
    match lens {
        Lens::Opaque => {}
        Lens::Form(form) => {
            let (model, at) = form.into_model().unzip();
            peeked.facts.model = model;
            peeked.model_at = at.map(|at| (at, Written::Plain));
            peeked.out_of_reach = peeked.facts.model.is_none() && !whole;
        }
        Lens::Json(_) if peeked.held_bytes == 0 && whole && !inference => {}
        Lens::Json(mut scanner) => {
            if whole && peeked.held_bytes == 0 {
                return Err(ProxyError::NotAnObject);
            }
            if whole {
                scanner.finish()?;
            }
            let mut found = scanner.into_found();
            if inference && !found.is_object {
                return Err(ProxyError::NotAnObject);
            }
            peeked.out_of_reach = found.model == ModelField::Missing && !whole;
            peeked.facts.keyed = key.map(Arc::clone).zip(found.session.take());
            take_facts(found, inference, peeked)?;
        }
    }
    Ok(())
}

fn take_facts(found: Found, inference: bool, peeked: &mut Peeked) -> Result<(), ProxyError> {
    peeked.facts.model = match found.model {
        ModelField::Name(name) => Some(name),
        ModelField::NotText if inference => return Err(ProxyError::BadModel),
        ModelField::Missing if inference && !peeked.out_of_reach => {
            return Err(ProxyError::NoModel);
        }
        ModelField::NotText | ModelField::Missing => None,
    };
    peeked.facts.stream = found.stream.unwrap_or(false);
    peeked.facts.max_tokens = found.max_tokens;
    peeked.facts.user = found.user;
    peeked.facts.session_id = found.session_id;
    peeked.facts.prompt = found.prompt;
    peeked.model_at = Some((found.model_at, Written::Json));
    peeked.selection_at = found
        .selection
        .filter(|at| inference && at.value.end > at.value.start);
    Ok(())
}
