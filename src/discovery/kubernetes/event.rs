//! What is followed at an API server, and what is told of it.

use std::fmt::Write as _;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Objects of a page of a list, as `kubectl` asks for them.
const PAGE: u32 = 500;

/// What happens to the objects that are followed. Between [`Event::Listing`] and
/// [`Event::Listed`] there is nothing but [`Event::Item`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A list begins: what follows replaces all that is known, at [`Event::Listed`].
    /// One that fails half-way is followed by another `Listing`.
    Listing,
    /// One object of the list, as JSON.
    Item(&'a [u8]),
    /// The list is whole.
    Listed,
    /// An object that was added or changed, as JSON.
    Applied(&'a [u8]),
    /// An object that is gone, or matches no more: its last state, as JSON.
    Deleted(&'a [u8]),
}

/// Which objects are followed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The collection, as in `/api/v1/namespaces/NAME/pods`.
    pub path: String,
    /// Empty: all.
    pub label_selector: String,
    /// Empty: all.
    pub field_selector: String,
    /// How long one watch lasts, by and large, before the next one begins where it
    /// ended; in whole seconds, up.
    pub timeout: Duration,
    /// Whether to ask for lists as streams of the watch, where the server has them.
    pub streaming_lists: bool,
}

impl Watched {
    /// A page of the list: the first one, or the one that token leads to. Without
    /// a version of the list that is asked for: the newest.
    #[must_use]
    pub fn page(&self, token: Option<&str>) -> String {
        let mut url = self.selected(&format!("limit={PAGE}"));
        if let Some(token) = token {
            add(&mut url, "continue", token);
        }
        url
    }

    /// What follows that version, for so many seconds.
    #[must_use]
    pub fn since(&self, version: &str, seconds: u64) -> String {
        let mut url = self.selected(&watching(seconds));
        add(&mut url, "resourceVersion", version);
        url
    }

    /// All there is, as events, and then what follows.
    #[must_use]
    pub fn streamed(&self, seconds: u64) -> String {
        let mut url = self.selected(&watching(seconds));
        url.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
        url
    }

    fn selected(&self, query: &str) -> String {
        let mut url = format!("{}?{query}", self.path);
        for (name, selector) in [
            ("labelSelector", &self.label_selector),
            ("fieldSelector", &self.field_selector),
        ] {
            if !selector.is_empty() {
                add(&mut url, name, selector);
            }
        }
        url
    }
}

fn watching(seconds: u64) -> String {
    format!("watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}")
}

fn add(url: &mut String, name: &str, value: &str) {
    let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
    // Writing to a `String` cannot fail.
    let _ = write!(url, "&{name}={value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let all = Watched {
            path: "/api/v1/namespaces/ns/pods".into(),
            label_selector: String::new(),
            field_selector: String::new(),
            timeout: Duration::from_secs(60),
            streaming_lists: false,
        };
        assert_eq!(all.page(None), "/api/v1/namespaces/ns/pods?limit=500");
        assert_eq!(
            all.since("7", 61),
            "/api/v1/namespaces/ns/pods?watch=1&allowWatchBookmarks=true&timeoutSeconds=61&resourceVersion=7"
        );
        let some = Watched {
            label_selector: "app=engine,tier in (a,b)".into(),
            field_selector: "status.phase!=Failed".into(),
            ..all
        };
        assert_eq!(
            some.page(Some("a/b=")),
            "/api/v1/namespaces/ns/pods?limit=500&labelSelector=app%3Dengine%2Ctier%20in%20%28a%2Cb%29\
             &fieldSelector=status%2Ephase%21%3DFailed&continue=a%2Fb%3D"
        );
        assert!(some.streamed(60).contains("&sendInitialEvents=true&"));
    }
}
