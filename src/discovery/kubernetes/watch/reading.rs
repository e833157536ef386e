//! What a watch says, line by line.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tracing::debug;

use super::super::fault::{Fault, Told, shortened};
use super::super::lines::{Line, Lines};
use super::super::status::Kind;
use super::{Event, Follower, Stream};

/// Bytes of a line: an object of the allowed size, and what is around it.
pub(super) const MOST_LINE: usize = super::super::list::MOST_OBJECT + 1024;

/// A line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Frame<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) object: &'a RawValue,
}

/// An object, as much of it as following needs.
#[derive(Debug, Deserialize)]
struct Versioned<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
    #[serde(borrow, default)]
    annotations: Option<Annotations<'a>>,
}

/// Of a bookmark.
#[derive(Debug, Deserialize)]
struct Annotations<'a> {
    #[serde(borrow, default, rename = "k8s.io/initial-events-end")]
    end: Cow<'a, str>,
}

impl<'a> Frame<'a> {
    pub(super) fn read(line: &'a [u8]) -> Result<Self, Fault> {
        serde_json::from_slice(line).map_err(|_| {
            let begins = &line[..line.len().min(80)];
            let begins = shortened(&String::from_utf8_lossy(begins));
            Fault::Garbled(format!("a watch says `{begins}`"))
        })
    }

    /// `None` for one that we do not know.
    pub(super) fn kind(&self) -> Option<Kind> {
        match &*self.kind {
            "ADDED" => Some(Kind::Added),
            "MODIFIED" => Some(Kind::Modified),
            "DELETED" => Some(Kind::Deleted),
            "BOOKMARK" => Some(Kind::Bookmark),
            "ERROR" => Some(Kind::Error),
            other => {
                debug!(
                    kind = shortened(other),
                    "an event of a kind that we do not know"
                );
                None
            }
        }
    }

    /// The object's version, if it has one; and whether it says that a list that
    /// came as a stream is whole.
    pub(super) fn version(&self) -> (Cow<'a, str>, bool) {
        let object = serde_json::from_str::<Versioned<'a>>(self.object.get());
        let Ok(Versioned { metadata }) = object else {
            return (Cow::Borrowed(""), false);
        };
        let is_end = metadata.annotations.is_some_and(|it| it.end == "true");
        (metadata.resource_version, is_end)
    }

    /// The server's last words as a fault of that watch.
    pub(super) fn fault(&self, path: &str) -> Fault {
        Told::read(None, self.object.get().as_bytes()).into_fault("watch", path)
    }
}

impl<T: FnMut(Event<'_>)> Follower<'_, T> {
    /// Takes the next piece of a watch.
    pub(super) fn take(&mut self, stream: &mut Stream, piece: &[u8]) -> Result<(), Fault> {
        let Stream { lines, is_good, .. } = stream;
        self.lines(lines, piece, |follower, frame| {
            *is_good |= follower.event(frame)?;
            Ok(())
        })
    }

    /// Reads the lines that end in a piece.
    pub(super) fn lines(
        &mut self,
        lines: &mut Lines,
        piece: &[u8],
        mut each: impl FnMut(&mut Self, &Frame<'_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        lines.take(piece, |line| match line {
            Line::Whole(line) => each(self, &Frame::read(line)?),
            Line::TooLong => {
                let what = "an event that is larger than 2 MiB is left out";
                self.status.left_out(&self.watched.path, what);
                Ok(())
            }
        })
    }

    /// Takes in one event; tells whether it is one that we know.
    pub(super) fn event(&mut self, frame: &Frame<'_>) -> Result<bool, Fault> {
        let Some(kind) = frame.kind() else {
            return Ok(false);
        };
        self.status.happened(kind);
        if kind == Kind::Error {
            return Err(frame.fault(&self.watched.path));
        }
        let (version, _) = frame.version();
        let object = frame.object.get().as_bytes();
        match kind {
            Kind::Added | Kind::Modified => (self.tell)(Event::Applied(object)),
            Kind::Deleted => (self.tell)(Event::Deleted(object)),
            Kind::Bookmark | Kind::Error => {}
        }
        // Told of first: what was not told of must come again.
        if !version.is_empty() {
            version.as_ref().clone_into(&mut self.version);
        }
        if self.is_worried() {
            self.good();
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let line = br#"{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"a","resourceVersion":"7","annotations":null},"spec":{"resourceVersion":"8"}}}"#;
        let frame = Frame::read(line).unwrap();
        assert_eq!(frame.kind(), Some(Kind::Added));
        assert_eq!(frame.version(), ("7".into(), false));
        let line = br#"{"object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true","a":"b"}}},"type":"BOOKMARK"}"#;
        let frame = Frame::read(line).unwrap();
        assert_eq!(frame.kind(), Some(Kind::Bookmark));
        assert_eq!(frame.version(), ("9".into(), true));
        for object in [
            "null",
            "[]",
            "{}",
            r#"{"metadata":null}"#,
            r#"{"metadata":{"resourceVersion":7}}"#,
        ] {
            let line = format!(r#"{{"type":"NEW","object":{object}}}"#);
            let frame = Frame::read(line.as_bytes()).unwrap();
            assert_eq!(
                (frame.kind(), frame.version()),
                (None, ("".into(), false)),
                "{object}"
            );
        }
        for line in [
            "",
            "<html>",
            "{}",
            r#"{"type":"ADDED"}"#,
            r#"{"type":"ADDED","object":{}"#,
        ] {
            let fault = Frame::read(line.as_bytes()).unwrap_err();
            assert!(matches!(fault, Fault::Garbled(_)), "{line}");
        }
        assert!(Frame::read(b"\xff\xfe").is_err());
    }
}
