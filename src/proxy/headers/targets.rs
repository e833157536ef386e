//! What of a request's target is for us and not for an engine.

use http::{Request, request};
use percent_encoding::percent_decode_str;

use crate::proxy::facts::INFERENCE_PATHS;

/// Cuts `root` (empty, or `/prefix`) from the front of a request's path: the
/// prefix under which whoever stands before us publishes us.
pub fn strip_root<B>(request: &mut Request<B>, root: &str) {
    if root.is_empty() {
        return;
    }
    let whole = request.uri().path_and_query();
    let Some(rest) = whole.and_then(|whole| whole.as_str().strip_prefix(root)) else {
        return;
    };
    let rest = match rest.bytes().next() {
        Some(b'/') => rest.to_owned(),
        None | Some(b'?') => format!("/{rest}"),
        // `/prefixed` is not under `/prefix`.
        Some(_) => return,
    };
    if let Ok(uri) = rest.parse() {
        *request.uri_mut() = uri;
    }
}

/// Paths that are for one engine, which the request must name.
const ONE_ENGINE: [&str; 3] = ["/sleep", "/wake_up", "/is_sleeping"];

/// Whom a request must go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pinned {
    /// Whomever the policy chooses.
    No,
    /// The engine of that id.
    To(String),
    /// An engine that it should name, and does not.
    Unnamed,
}

/// Takes the engine's id off the query: of a path that is for one engine, and of
/// the inference paths, as in the reference; elsewhere `id` is the engine's.
pub fn take_pin(head: &mut request::Parts) -> Pinned {
    let path = head.uri.path();
    let is_for_one = ONE_ENGINE.contains(&path);
    let query = head.uri.query().unwrap_or_default();
    let names_one = || query.split('&').any(|pair| pair.starts_with("id="));
    let may_name_one = is_for_one || (INFERENCE_PATHS.contains(&path) && names_one());
    if !may_name_one {
        return Pinned::No;
    }
    let mut id = None;
    let mut rest = path.to_owned();
    for pair in query.split('&') {
        if let Some(value) = pair.strip_prefix("id=") {
            id = Some(percent_decode_str(value).decode_utf8_lossy().into_owned());
        } else if !pair.is_empty() {
            rest.push(if rest.len() == path.len() { '?' } else { '&' });
            rest.push_str(pair);
        }
    }
    match (id, rest.parse()) {
        (Some(id), Ok(uri)) => {
            head.uri = uri;
            Pinned::To(id)
        }
        _ => Pinned::Unnamed,
    }
}
