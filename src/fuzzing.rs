//! What fuzz targets check: each function takes any bytes, and panics if what we
//! make of them contradicts its oracle. The targets in `fuzz/` are one call each;
//! the same functions run over the seeds, and over all that was ever found, with
//! the other tests.
//!
//! No normal build has this module.

mod connection;
mod messages;

use std::time::Duration;

use serde_json::json;

use crate::config::resolve::resolve;
use crate::config::validate::{Format, parse};
use crate::fleet::Snapshot;
use crate::fleet::attributes::Freshness;
use crate::query::{Envelope, Query, Subject, Vocabulary};
use crate::select;

pub use crate::proxy::fuzzing::{multipart, peek, sse};
pub use crate::scrape::fuzzing::exposition;
pub use connection::connection;

/// Lengths of the pieces that bytes are given in.
const STEPS: [usize; 6] = [1, 2, 3, 7, 64, 1000];

/// What `read` makes of `data`, which must be the same however it is cut.
pub(crate) fn alike<T: PartialEq + std::fmt::Debug>(
    data: &[u8],
    mut read: impl FnMut(&[&[u8]]) -> T,
) -> T {
    let whole = read(&[data]);
    for step in STEPS {
        let pieces: Vec<&[u8]> = data.chunks(step).collect();
        assert_eq!(read(&pieces), whole, "in pieces of {step}, and as a whole");
    }
    whole
}

/// Selections and queries: whatever is read is asked of blocks; what NOT says is
/// the contrary, and what AND and OR of one thing say is the same.
pub fn query(data: &[u8]) {
    let Ok(value) = select::read(data) else {
        return;
    };
    let snapshot = blocks();
    for envelope in [Envelope::search(&value), Envelope::filter(&value)] {
        let Ok(envelope) = envelope else { continue };
        // Either is an answer.
        let _ = select::compile((&envelope, data.len()), &snapshot, None);
        let _ = select::filter(&envelope, &snapshot);
    }
    let vocabulary = Vocabulary { own: &[] };
    let Ok(asked) = Query::parse(&value, "", vocabulary) else {
        return;
    };
    let joined = |join: &str| {
        let both = json!({"logicalOperator": join, "conditions": [value]});
        Query::parse(&both, "", vocabulary).ok()
    };
    let [not, and, or] = ["NOT", "AND", "OR"].map(joined);
    let list = snapshot.all.candidates.list();
    for at in 0..list.len() {
        let members = [u32::try_from(at).unwrap_or(0)];
        let subject = Subject {
            id: &format!("block-{at}"),
            list,
            members: &members,
        };
        let by = Freshness::new(Duration::from_secs(1), Duration::from_secs(60));
        let admits =
            |query: &Query| query.admits_fixed(&subject) && query.admits_live(&subject, by);
        let is = admits(&asked);
        assert_eq!(not.as_ref().map_or(!is, admits), !is, "NOT is no contrary");
        assert_eq!(and.as_ref().map_or(is, admits), is, "AND of one");
        assert_eq!(or.as_ref().map_or(is, admits), is, "OR of one");
        assert!(asked.explain(&subject, by).len() <= 256);
    }
}

/// Three engines with metadata of every type.
fn blocks() -> std::sync::Arc<Snapshot> {
    let text = include_bytes!("fuzzing/blocks.json");
    let keys = parse(text, Format::Json);
    let settings = keys.and_then(|keys| resolve(&keys));
    connection::fleet_of(settings.expect("they are well written").settings)
        .published()
        .load_full()
}

/// Dynamic files: read as JSON and as YAML, resolved. JSON is YAML, and what was
/// read can be written and read again.
pub fn dynamic(data: &[u8]) {
    let [json, yaml] = [Format::Json, Format::Yaml].map(|format| parse(data, format));
    if let (Ok(json), Ok(yaml)) = (&json, &yaml) {
        assert_eq!(json, yaml, "JSON is no longer YAML");
    }
    for keys in [json, yaml].into_iter().flatten() {
        let text = serde_json::to_vec(&keys).expect("keys can be written");
        let again = parse(&text, Format::Json);
        assert_eq!(again.as_ref(), Ok(&keys), "written and read");
        let resolved = resolve(&keys);
        assert_eq!(resolve(&keys), resolved, "resolved twice");
        if let Err(problems) = resolved {
            assert!(!problems.is_empty());
        }
    }
}

#[cfg(test)]
mod tests;
