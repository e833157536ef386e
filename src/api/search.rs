//! `POST /api/search` and `POST /api/filter`, as the AIOS reference has them: the
//! block that is best, and those that match.
//!
//! One block is looked for and shown by the worker; a list of blocks is made by
//! the control thread, as other pages that are O(fleet).

mod listing;

use std::rc::Rc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::blocks::{Document, Now};
use super::body::{self, BodyFault, Reading};
use super::{Answer, Ask, Page, finish};
use crate::downstream::{Handled, Serving};
use crate::policy::{Advice, Refusal};
use crate::proxy::Proxy;
use crate::proxy::error::ProxyError;
use crate::select;
pub use listing::{Listed, Listing};

/// Methods of these routes.
const ALLOW: &str = "POST, OPTIONS";

/// What one of these routes answers, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    asks: Asks,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// The best block.
    Best,
    /// All that match.
    Matching,
}

/// The reference's two servers word the same answer in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{success, task_id, result}`.
    Parser,
    /// `{success, data}`.
    Server,
}

impl Form {
    /// That of this path, if it is one of these routes.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        let (asks, shape) = match path.strip_prefix("/api/")? {
            "search" => (Asks::Best, Shape::Parser),
            "filter" => (Asks::Matching, Shape::Parser),
            "similarity-search" | "no-ir/similarity-search" => (Asks::Best, Shape::Server),
            "filter-data" | "no-ir/filter" => (Asks::Matching, Shape::Server),
            _ => return None,
        };
        Some(Self { asks, shape })
    }
}

/// Who answers them.
#[derive(Debug)]
pub struct Desk {
    proxy: Rc<Proxy>,
    control: mpsc::Sender<Ask>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Body(#[from] BodyFault),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("Only POST is allowed here.")]
    Method,
    #[error("Too many lists of blocks at once. Please try again later.")]
    Busy,
}

impl Desk {
    /// A worker's; lists are made at the other end of `control`.
    #[must_use]
    pub fn new(proxy: Rc<Proxy>, control: mpsc::Sender<Ask>) -> Self {
        Self { proxy, control }
    }

    /// Answers a request.
    pub async fn answer(self, form: Form, request: Request<Incoming>, handled: Handled) -> Answer {
        let (head, body) = request.into_parts();
        let serving = handled.serve(head.version);
        let query = head.uri.query().unwrap_or_default();
        let page = match head.method {
            Method::POST => self.page(form, query, body, &serving).await,
            Method::OPTIONS => Ok(Page::json(StatusCode::NO_CONTENT, "")),
            _ => Err(Fault::Method),
        };
        let page = page.unwrap_or_else(|fault| self.fault(&fault));
        finish(page.allowing(ALLOW), &head, serving)
    }

    async fn page(
        &self,
        form: Form,
        query: &str,
        body: Incoming,
        serving: &Serving,
    ) -> Result<Page, Fault> {
        let reading = Reading {
            limit: select::MOST_TEXT,
            budget: self.proxy.budget(),
            deadline: serving.deadline(),
            idle: self.proxy.body_idle(),
        };
        let (text, _share) = body::read(body, reading).await?;
        let bytes = match form.asks {
            Asks::Best => {
                self.search(form.shape, wants_explanation(query), &text)
                    .await?
            }
            Asks::Matching => self.filter(form.shape, &text).await?,
        };
        Ok(Page::json(StatusCode::OK, bytes))
    }

    async fn search(&self, shape: Shape, is_explained: bool, text: &[u8]) -> Result<Bytes, Fault> {
        let search = self.proxy.search(text)?;
        let advice = self.proxy.advised(&search).await;
        let warnings = warnings(&search.ignored, &advice);
        let stale_after = self.proxy.stale_after();
        if is_explained {
            let listing = Listing {
                snapshot: search.snapshot,
                what: Listed::Ranked(search.policy, advice),
                stale_after,
                shape,
                warnings,
            };
            return self.list(listing).await;
        }
        let found = self.proxy.best(&search, advice);
        let now = Now::of(&search.snapshot, stale_after);
        let found =
            found.and_then(|n| Document::of(&search.snapshot, n, now).ok_or(Refusal::Nobody));
        Ok(Reply::found(shape, found, warnings).bytes())
    }

    async fn filter(&self, shape: Shape, text: &[u8]) -> Result<Bytes, Fault> {
        let filter = self.proxy.filter(text)?;
        let listing = Listing {
            snapshot: filter.snapshot,
            what: Listed::Matching(Box::new(filter.of)),
            stale_after: self.proxy.stale_after(),
            shape,
            warnings: warnings(&filter.ignored, &Advice::None),
        };
        self.list(listing).await
    }

    /// Has the control thread make a list.
    async fn list(&self, listing: Listing) -> Result<Bytes, Fault> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Blocks(Box::new(listing), reply);
        self.control.try_send(ask).map_err(|_| Fault::Busy)?;
        answer.await.map_err(|_| Fault::Busy)
    }

    /// An error's page: the reference's shape, and that of other errors of ours.
    fn fault(&self, fault: &Fault) -> Page {
        let wrong = |kind: &str, code: &str| json!({"message": fault.to_string(), "type": kind, "param": null, "code": code});
        let (status, mut error) = match fault {
            Fault::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                wrong("invalid_request_error", "method_not_allowed"),
            ),
            Fault::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                wrong("server_error", "overloaded"),
            ),
            Fault::Body(BodyFault::TooLarge(_)) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                wrong("invalid_request_error", "request_too_large"),
            ),
            Fault::Body(BodyFault::Broken(error)) | Fault::Proxy(error) => {
                self.proxy.count(error);
                let body: Value = serde_json::from_slice(&error.body()).unwrap_or_default();
                (error.status(), body["error"].clone())
            }
        };
        if let Fault::Proxy(ProxyError::Selection(at)) = fault {
            let pointer = at.pointer.as_str();
            error["param"] = Some(pointer).filter(|at| !at.is_empty()).into();
            error["message"] = match pointer {
                "" => at.message.clone().into(),
                _ => at.to_string().into(),
            };
        }
        let page = json!({"success": false, "message": error["message"], "error": error});
        Page::json(status, page.to_string())
    }
}

/// Whether the query string asks why.
fn wants_explanation(query: &str) -> bool {
    let mut pairs = query.split('&');
    pairs.any(|pair| matches!(pair, "explain" | "explain=1" | "explain=true"))
}

/// What was given and has no effect, and what has failed.
fn warnings(ignored: &[&'static str], advice: &Advice) -> Vec<String> {
    let ignored = ignored.iter();
    let mut warnings: Vec<String> = ignored
        .map(|key| format!("{key} is accepted, and has no effect here"))
        .collect();
    if let Advice::Failed(why) = advice {
        warnings.push(format!("the score decided, as nobody advised: {why}"));
    }
    warnings
}

/// An answer in the reference's words.
#[derive(Debug, Serialize)]
struct Reply<'a> {
    success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Told<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Told<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    /// The filter's conditions, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    conditions: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ranked: Option<Vec<Box<RawValue>>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Told<'a> {
    /// The parser's pair of whether it went well, and what came of it.
    Pair(bool, Box<Told<'a>>),
    Block(Box<Document<'a>>),
    /// Their documents.
    Blocks(Vec<Box<RawValue>>),
    Nobody {
        result: [(); 0],
        reason: String,
    },
}

impl<'a> Reply<'a> {
    fn new(shape: Shape, told: Told<'a>, warnings: Vec<String>) -> Self {
        let (task_id, result, data) = match shape {
            Shape::Parser => (Some(""), Some(told), None),
            Shape::Server => (None, None, Some(told)),
        };
        Self {
            success: true,
            task_id,
            result,
            data,
            warnings,
            conditions: None,
            ranked: None,
        }
    }

    /// What came of a search.
    fn found(shape: Shape, found: Result<Document<'a>, Refusal>, warnings: Vec<String>) -> Self {
        let told = match found {
            Ok(block) => Told::Block(Box::new(block)),
            Err(refusal) => Told::Nobody {
                result: [],
                reason: format!(
                    "No candidates found matching the criteria: {}.",
                    why(refusal)
                ),
            },
        };
        let told = match shape {
            Shape::Parser => Told::Pair(true, Box::new(told)),
            Shape::Server => told,
        };
        Self::new(shape, told, warnings)
    }

    fn bytes(&self) -> Bytes {
        // Maps with keys of text cannot fail.
        Bytes::from(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Why there is no block.
fn why(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::NoMatch => "no block has the metadata and labels that are asked for",
        Refusal::NoMatchNow => {
            "no block that has the metadata asked for does as well now as is asked"
        }
        Refusal::AllUnhealthy => "all that match are set aside after failures",
        Refusal::Full => "all that match have as many requests as they may",
        _ => "there is none that can be asked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_paths_are_ours_and_no_others() {
        use {
            Asks::{Best, Matching},
            Shape::{Parser, Server},
        };
        for (path, asks, shape) in [
            ("/api/search", Best, Parser),
            ("/api/filter", Matching, Parser),
            ("/api/similarity-search", Best, Server),
            ("/api/no-ir/similarity-search", Best, Server),
            ("/api/filter-data", Matching, Server),
            ("/api/no-ir/filter", Matching, Server),
        ] {
            assert_eq!(Form::of(path), Some(Form { asks, shape }), "{path}");
        }
        // Those of other engines' APIs go to the engines.
        for path in [
            "/api/chat",
            "/api/search/",
            "/api/",
            "/api",
            "/search",
            "/v1/search",
        ] {
            assert_eq!(Form::of(path), None, "{path}");
        }
    }

    #[test]
    fn an_explanation_is_asked_for_in_three_ways() {
        for (query, asks) in [
            ("explain=1", true),
            ("a=b&explain=true", true),
            ("explain", true),
            ("", false),
            ("explain=0", false),
            ("unexplain=1", false),
        ] {
            assert_eq!(wants_explanation(query), asks, "{query}");
        }
    }

    #[test]
    fn what_has_no_effect_is_told() {
        let failed = Advice::Failed("it hangs".to_owned());
        let told = warnings(&["METRICS_BASE_URL"], &failed);
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("METRICS_BASE_URL ") && told[1].ends_with("it hangs"));
        assert!(warnings(&[], &Advice::None).is_empty());
    }
}
