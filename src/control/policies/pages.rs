//! What `/policy` shows.

use bytes::Bytes;
use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::admin;
use crate::api::Page;
use crate::config::dynamic::DynamicFile;
use crate::registry::{BUILT_IN, Cause, Refused, Registry};

/// Policies on one page of the list, when it is not told how many.
const USUAL: usize = 100;
/// Bytes of a page of documents; those that do not fit are left out.
const MOST_PAGE: usize = 8 << 20;

/// A page of the list, without the documents.
pub(super) fn list(registry: &Registry, query: &str) -> Result<Page, Refused> {
    let (mut limit, mut after) = (USUAL, String::new());
    for pair in query.split('&') {
        if let Some(text) = pair.strip_prefix("limit=") {
            let number = text
                .parse()
                .ok()
                .filter(|limit| (1..=USUAL).contains(limit));
            limit = number
                .ok_or_else(|| Refused::new(Cause::Invalid, format!("give ?limit=1 to {USUAL}")))?;
        } else if let Some(text) = pair.strip_prefix("after=") {
            after = percent_decode_str(text).decode_utf8_lossy().into_owned();
        }
    }
    let uris = registry.uris();
    let total = uris.len();
    let shown = uris
        .into_iter()
        .filter(|uri| *uri > after.as_str())
        .take(limit);
    let shown: Vec<Value> = shown
        .filter_map(|uri| {
            let policy = registry.get(uri)?;
            let document = &policy.document;
            Some(json!({
                "uri": uri,
                "type": policy.kind.name(),
                "built_in": BUILT_IN.contains(&uri),
                "registered_at": policy.registered_seconds(),
                "tags": document.get("tags"),
                "description": document.get("description"),
            }))
        })
        .collect();
    let page = json!({"success": true, "total": total, "data": shown});
    Ok(admin::json(StatusCode::OK, &page))
}

/// The document as it was sent, what it makes, and why nobody can have that, if
/// it does not fit these keys.
pub(super) fn one(registry: &Registry, uri: &str, keys: &DynamicFile) -> Result<Page, Refused> {
    let policy = registry.get(uri).ok_or_else(|| Refused::unknown(uri))?;
    let mut page = json!({
        "success": true,
        "data": policy.document,
        "in_force": {
            "uri": uri,
            "built_in": BUILT_IN.contains(&uri),
            "registered_at": policy.registered_seconds(),
            "policy": policy.entry()?,
            "warnings": policy.warnings,
        },
    });
    if let Some(why) = registry.set_aside(uri, keys) {
        page["in_force"]["set_aside"] = why.to_string().into();
    }
    Ok(admin::json(StatusCode::OK, &page))
}

/// The registered documents that a query finds.
pub(super) fn found(registry: &Registry, body: &[u8]) -> Result<Page, Refused> {
    let invalid = |message: String| Refused::new(Cause::Invalid, message);
    let asked: Value =
        serde_json::from_slice(body).map_err(|error| invalid(format!("no JSON: {error}")))?;
    let query: &Map<String, Value> =
        asked
            .get("query")
            .and_then(Value::as_object)
            .ok_or_else(|| {
                invalid(
            r#"expected {"query": {"FIELD": VALUE}}, as {"query": {"metadata.author": "admin"}}"#
                .to_owned(),
        )
            })?;
    let operator = query.keys().find(|key| key.starts_with('$'));
    if let Some(operator) = operator {
        let message = format!("{operator:?} is unknown: fields are compared for being equal");
        return Err(invalid(message));
    }
    // One by one: a document may be large, and as a tree it is larger.
    let (mut text, mut is_whole) = (String::from(r#"{"success":true,"data":["#), true);
    for (at, policy) in registry.matching(query).enumerate() {
        let document = policy.document.to_string();
        if text.len() + document.len() > MOST_PAGE {
            is_whole = false;
            break;
        }
        if at > 0 {
            text.push(',');
        }
        text.push_str(&document);
    }
    text.push_str(if is_whole {
        "]}"
    } else {
        r#"],"truncated":true}"#
    });
    Ok(Page::json(StatusCode::OK, Bytes::from(text)))
}

/// As the reference has it, and as all our errors are.
pub(super) fn refusal(refused: &Refused) -> Page {
    let (status, code) = refused.cause.words();
    let kind = if status < 500 {
        "invalid_request_error"
    } else {
        "server_error"
    };
    let problems = refused.problems.iter();
    let problems = problems.map(|one| json!({"path": one.path, "message": one.message}));
    let message = refused.to_string();
    let page = json!({
        "success": false,
        "message": message,
        "error": {"message": message, "type": kind, "param": null, "code": code},
        "problems": problems.collect::<Vec<_>>(),
    });
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    admin::json(status, &page)
}
