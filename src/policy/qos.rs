//! What a request needs of its engine: `x-pilotfish-qos`.

use serde::{Deserialize, Serialize};

use crate::config::dynamic::Privacy;

/// Needs, as `max_latency_ms=200, min_tokens_per_second=20,
/// privacy=confidential, cost_tolerance=80, prefer_gpu`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Qos {
    /// To the first token, in milliseconds.
    pub max_latency_ms: Option<f64>,
    /// For this request alone.
    pub min_tokens_per_second: Option<f64>,
    /// How far the engine must be trusted; `None`: as configured.
    pub privacy: Option<Privacy>,
    /// 0: the cheapest, 100: the fastest.
    pub cost_tolerance: u8,
    /// Engines without a GPU come last.
    pub prefer_gpu: bool,
}

impl Default for Qos {
    /// As in the reference: in the middle, and on a GPU.
    fn default() -> Self {
        Self {
            max_latency_ms: None,
            min_tokens_per_second: None,
            privacy: None,
            cost_tolerance: 50,
            prefer_gpu: true,
        }
    }
}

impl Qos {
    /// Reads the field's value.
    ///
    /// # Errors
    /// What is wrong with it, and what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut qos = Self::default();
        for part in text.split([',', ';']).map(str::trim) {
            if part.is_empty() {
                continue;
            }
            let (name, value) = part.split_once('=').unwrap_or((part, "true"));
            let (name, value) = (name.trim(), value.trim());
            let number = |most: f64| {
                let number: Option<f64> = value.parse().ok();
                let sane = number.filter(|number| (0.0..=most).contains(number));
                sane.ok_or_else(|| format!("{name}={value}: expected a number from 0 to {most}"))
            };
            match name {
                "max_latency_ms" => qos.max_latency_ms = Some(number(1e9)?),
                "min_tokens_per_second" => qos.min_tokens_per_second = Some(number(1e9)?),
                "cost_tolerance" => qos.cost_tolerance = tolerance(number(100.0)?),
                "privacy" => qos.privacy = Some(privacy(value)?),
                "prefer_gpu" => {
                    qos.prefer_gpu = match value {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        _ => return Err(format!("{name}={value}: expected true or false")),
                    }
                }
                _ => {
                    return Err(format!(
                        "{name:?} is unknown; expected max_latency_ms, min_tokens_per_second, \
                         privacy, cost_tolerance or prefer_gpu"
                    ));
                }
            }
        }
        Ok(qos)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "from 0 to 100"
)]
fn tolerance(number: f64) -> u8 {
    number.round() as u8
}

fn privacy(value: &str) -> Result<Privacy, String> {
    Ok(match value {
        "public" => Privacy::Public,
        "internal" => Privacy::Internal,
        "confidential" => Privacy::Confidential,
        "restricted" => Privacy::Restricted,
        _ => {
            return Err(format!(
                "privacy={value}: expected public, internal, confidential or restricted"
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read_and_nonsense_is_named() {
        assert_eq!(Qos::parse(""), Ok(Qos::default()));
        let all = "max_latency_ms=200, min_tokens_per_second = 12.5,privacy=restricted;cost_tolerance=80, prefer_gpu=false";
        let qos = Qos::parse(all).unwrap();
        assert_eq!(
            (qos.max_latency_ms, qos.min_tokens_per_second),
            (Some(200.0), Some(12.5))
        );
        assert_eq!(
            (qos.privacy, qos.cost_tolerance, qos.prefer_gpu),
            (Some(Privacy::Restricted), 80, false)
        );
        for (text, said) in [
            ("max_latency_ms=soon", "from 0"),
            ("max_latency_ms=-1", "from 0"),
            ("cost_tolerance=101", "0 to 100"),
            ("cost_tolerance=NaN", "0 to 100"),
            ("privacy=secret", "restricted"),
            ("prefer_gpu=maybe", "true or false"),
            ("speed=1", "unknown"),
        ] {
            let error = Qos::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
