//! Scalars as Python's `str()` prints them: what the reference router hashes
//! when a session's id is no text.

/// A JSON number, from its text.
pub(super) fn number(text: &str) -> String {
    if !text.contains(['.', 'e', 'E']) {
        // An integer of any length; only zero has a sign to lose.
        return if text == "-0" { "0" } else { text }.to_owned();
    }
    let Ok(value) = text.parse::<f64>() else {
        return text.to_owned();
    };
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    // The shortest digits that read back the same, as Python's repr() has them.
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') {
            plain
        } else {
            format!("{plain}.0")
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `true`, `false` or `null`, from what follows the first letter.
pub(super) fn literal(rest: &[u8]) -> Option<String> {
    match rest {
        b"rue" => Some("True".to_owned()),
        b"alse" => Some("False".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right column was printed by CPython 3.11.
    #[test]
    fn numbers_are_printed_as_python_does() {
        for (json, printed) in [
            ("42", "42"),
            ("-0", "0"),
            (
                "123456789012345678901234567890",
                "123456789012345678901234567890",
            ),
            ("1.5", "1.5"),
            ("1.0", "1.0"),
            ("-0.0", "-0.0"),
            ("1e5", "100000.0"),
            ("1e15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("1.25E+22", "1.25e+22"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1.1e-7", "1.1e-07"),
            ("1e-300", "1e-300"),
            ("1e999", "inf"),
            ("0.1", "0.1"),
        ] {
            assert_eq!(number(json), printed, "{json}");
        }
        assert_eq!(literal(b"rue").as_deref(), Some("True"));
        assert_eq!(literal(b"ull"), None);
    }
}
