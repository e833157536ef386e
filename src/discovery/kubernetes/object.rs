//! Objects of the API server as they are written, as far as they are looked at.
//!
//! All else is skipped while it is read, and texts are borrowed: of a pod's 10 kB
//! nothing is copied that is not kept.

use std::borrow::{Borrow, Cow};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::annotations::is_known;
use super::notes::About;

/// Text, borrowed unless it has escapes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What every object has.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) uid: Text<'a>,
    #[serde(borrow)]
    creation_timestamp: Option<Text<'a>>,
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(borrow)]
    pub(super) labels: Option<BTreeMap<Text<'a>, Text<'a>>>,
    #[serde(borrow, default)]
    pub(super) annotations: Annotations<'a>,
}

impl Meta<'_> {
    /// The object, as notes name it.
    pub(super) fn about(&self, kind: &'static str) -> About<'_> {
        About {
            kind,
            name: &self.name,
            uid: &self.uid,
        }
    }

    /// Whether it is being deleted.
    pub(super) fn is_terminating(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// When it was made: a number that grows with time.
    pub(super) fn created(&self) -> u64 {
        // `2026-11-23T10:42:06Z`: to the second, always in UTC.
        let text = self.creation_timestamp.as_deref().unwrap_or_default();
        let digits = text.bytes().filter(u8::is_ascii_digit).take(14);
        digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    }

    pub(super) fn label(&self, name: &str) -> Option<&str> {
        let value = self.labels.as_ref()?.get(name)?;
        Some(value)
    }
}

/// The annotations that we know what to do with.
#[derive(Debug, Default)]
pub(super) struct Annotations<'a>(pub(super) Vec<(Text<'a>, Text<'a>)>);

impl<'de: 'a, 'a> Deserialize<'de> for Annotations<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnnotationsVisitor)
    }
}

struct AnnotationsVisitor;

impl<'de> Visitor<'de> for AnnotationsVisitor {
    type Value = Annotations<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("annotations")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Annotations::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut known = Vec::new();
        while let Some(key) = entries.next_key::<Text<'de>>()? {
            if is_known(&key) {
                known.push((key, entries.next_value()?));
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Annotations(known))
    }
}

/// An object of which only the name is looked at.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Named<'a> {
    #[serde(borrow)]
    pub(super) metadata: Name<'a>,
}

/// By what an object is known again.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Name<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) uid: Text<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_read() {
        let text = r#"{
            "name": "a", "uid": "u", "creationTimestamp": "2026-11-23T10:42:06Z",
            "generateName": "a-", "managedFields": [{"fieldsV1": {"f:metadata": {}}}],
            "labels": {"app": "x", "tab": "a\tb"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"a\": \"\\\"\"}",
                "pilotfish.dev/weight": "2", "other": "y"}
        }"#;
        let meta: Meta<'_> = serde_json::from_str(text).unwrap();
        assert_eq!((&*meta.name, &*meta.uid), ("a", "u"));
        assert_eq!(meta.created(), 20_261_123_104_206);
        assert!(!meta.is_terminating());
        assert_eq!(meta.label("app"), Some("x"));
        assert_eq!(meta.label("tab"), Some("a\tb"));
        assert_eq!(meta.annotations.0.len(), 1);
        assert!(matches!(meta.name.0, Cow::Borrowed(_)));
    }

    #[test]
    fn nothing_may_be_written_as_null() {
        let text = r#"{"name": "a", "uid": "u", "creationTimestamp": null,
            "deletionTimestamp": null, "labels": null, "annotations": null}"#;
        let meta: Meta<'_> = serde_json::from_str(text).unwrap();
        assert!(!meta.is_terminating() && meta.labels.is_none() && meta.created() == 0);
        let text = r#"{"name": "a", "uid": "u", "deletionTimestamp": "2026-11-23T10:42:06Z"}"#;
        let meta: Meta<'_> = serde_json::from_str(text).unwrap();
        assert!(meta.is_terminating() && meta.annotations.0.is_empty());
        for wrong in ["{}", r#"{"name": 1, "uid": "u"}"#, r#"{"name": "a"}"#] {
            assert!(serde_json::from_str::<Meta<'_>>(wrong).is_err(), "{wrong}");
        }
    }
}
