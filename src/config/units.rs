//! Durations as people write them.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds that a duration may have: more than thirty years.
const LONGEST: f64 = 1e9;

/// Reads `250ms`, `30s`, `5m`, or seconds as a number.
///
/// # Errors
/// Says what was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let (number, unit) = if let Some(number) = text.strip_suffix("ms") {
        (number, 1e-3)
    } else if let Some(number) = text.strip_suffix('s') {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix('m') {
        (number, 60.0)
    } else {
        (text, 1.0)
    };
    let value: Result<f64, _> = number.trim().parse();
    value
        .ok()
        .map(|value| value * unit)
        .filter(|seconds| *seconds <= LONGEST)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("'{text}' is no duration; expected 250ms, 30s, 5m or seconds"))
}

/// A duration in the dynamic file: seconds as a number, or text with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(seconds) => seconds.to_string(),
            Written::Text(text) => text,
        };
        duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_secs_f64())
    }
}

impl JsonSchema for Seconds {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Seconds as a number, or text with a unit: 250ms, 30s, 5m.",
            "type": ["number", "string"],
            "minimum": 0,
            "maximum": 1_000_000_000,
            "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m)?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("2m", 120_000),
            ("1.5", 1500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
            let json = serde_json::to_string(text).unwrap();
            let Seconds(read) = serde_json::from_str(&json).unwrap();
            assert_eq!(read, Duration::from_millis(millis));
        }
        for text in ["", "x", "-1s", "1h", "nan", "1e19"] {
            assert!(duration(text).is_err(), "{text}");
        }
        let Seconds(read) = serde_json::from_str("0.25").unwrap();
        assert_eq!(read, Duration::from_millis(250));
    }
}
