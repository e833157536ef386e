//! Numbers that are compared as they are written, whole or not.

use std::cmp::Ordering;

/// Up to this, whole numbers are floating-point numbers too.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// From this on no whole number of JSON is as large.
const BEYOND: f64 = 1e30;

/// A number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    /// One that a floating-point number holds exactly.
    Float(f64),
    /// A whole number of more than 2^53, above zero or below.
    Large(i128),
}

impl Number {
    /// The number of a document.
    pub(super) fn of(number: &serde_json::Number) -> Self {
        let whole = number.as_i64().map(i128::from);
        let whole = whole.or_else(|| number.as_u64().map(i128::from));
        match whole {
            Some(whole) if whole.unsigned_abs() > 1 << 53 => Self::Large(whole),
            Some(whole) => Self::Float(whole as f64),
            None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
        }
    }

    /// How it stands to another; `None`: one of them is none (NaN).
    #[inline]
    pub(super) fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Float(one), Self::Float(other)) => one.partial_cmp(&other),
            (Self::Large(one), Self::Large(other)) => Some(one.cmp(&other)),
            (Self::Float(one), Self::Large(other)) => against(one, other),
            (Self::Large(one), Self::Float(other)) => {
                against(other, one).map(std::cmp::Ordering::reverse)
            }
        }
    }
}

/// How a floating-point number stands to a whole one of more than 2^53.
fn against(float: f64, whole: i128) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    if float.abs() < EXACT || float.abs() >= BEYOND {
        // The larger of the two tells.
        let first = if float.abs() < EXACT { 0.0 } else { float };
        let second = if float.abs() < EXACT {
            whole.signum() as f64
        } else {
            0.0
        };
        return first.partial_cmp(&second);
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^127")]
    let float = float as i128;
    Some(float.cmp(&whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_and_others_are_compared_without_rounding() {
        use Ordering::{Equal, Greater, Less};
        for (one, order, other) in [
            ("1", Equal, "1.0"),
            ("0", Equal, "-0.0"),
            ("1", Less, "1.5"),
            ("-2", Less, "-1.5"),
            ("9007199254740993", Greater, "9007199254740992"),
            ("9007199254740993", Greater, "9007199254740992.0"),
            ("9007199254740993", Less, "9007199254740994.0"),
            ("9007199254740994", Equal, "9007199254740994.0"),
            ("18446744073709551615", Greater, "9223372036854775807"),
            ("18446744073709551615", Less, "18446744073709551616.0"),
            ("18446744073709551615", Less, "1e300"),
            ("-9223372036854775808", Greater, "-1e300"),
            ("-9223372036854775808", Equal, "-9223372036854775808.0"),
            ("9223372036854775807", Greater, "0.5"),
            ("-9223372036854775807", Less, "0.5"),
        ] {
            let number = |text: &str| match serde_json::from_str(text).unwrap() {
                serde_json::Value::Number(number) => Number::of(&number),
                _ => unreachable!(),
            };
            assert_eq!(
                number(one).order(number(other)),
                Some(order),
                "{one} {other}"
            );
            let back = Some(order.reverse());
            assert_eq!(number(other).order(number(one)), back, "{other} {one}");
        }
        let nan = Number::Float(f64::NAN);
        assert_eq!(nan.order(Number::Large(1 << 60)), None);
        assert_eq!(nan.order(nan), None);
    }
}
