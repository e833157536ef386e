//! Moments as RFC 3339 writes them.

use std::time::Duration;

/// Since the Unix epoch, a moment like `2027-01-01T00:00:00Z`; one before it is
/// none.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = bytes.get(from..to)?;
        let is_number = digits.iter().all(u8::is_ascii_digit);
        is_number.then(|| text[from..to].parse().ok())?
    };
    let is_at = |at: usize, among: &[u8]| bytes.get(at).is_some_and(|byte| among.contains(byte));
    let is_shaped =
        is_at(4, b"-") && is_at(7, b"-") && is_at(10, b"Tt ") && is_at(13, b":") && is_at(16, b":");
    if !text.is_ascii() || !is_shaped {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let is_sane = (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    if !is_sane {
        return None;
    }
    let rest = text.get(19..)?;
    let zone = match rest.strip_prefix('.') {
        None => rest,
        Some(part) => {
            let zone = part.trim_start_matches(|c: char| c.is_ascii_digit());
            (zone.len() < part.len()).then_some(zone)?
        }
    };
    let seconds = days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    let seconds = i64::try_from(seconds).ok()? - offset(zone)?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

/// Seconds that the zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let two = |text: &str, most: i64| -> Option<i64> {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = is_number.then(|| text.parse().ok())??;
        (number < most).then_some(number)
    };
    Some(sign * (two(hours, 24)? * 3600 + two(minutes, 60)? * 60))
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let since = |year: u64| year * 365 + year / 4 - year / 100 + year / 400;
    let years = since(year.checked_sub(1)?).checked_sub(since(1969))?;
    let months: u64 = (1..month).map(|month| days_of(year, month)).sum();
    Some(years + months + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_as_rfc_3339_writes_them() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2027-01-01T00:00:00Z", Some(1_798_761_600)),
            ("2027-01-01t00:00:00.999z", Some(1_798_761_600)),
            ("2027-01-01T01:30:00+01:30", Some(1_798_761_600)),
            ("2026-12-31T19:00:00-05:00", Some(1_798_761_600)),
            ("2100-03-01T00:00:00Z", Some(4_107_542_400)),
            ("1969-12-31T23:59:59Z", None),
            ("2027-02-29T00:00:00Z", None),
            ("2027-13-01T00:00:00Z", None),
            ("2027-00-01T00:00:00Z", None),
            ("2027-01-01T24:00:00Z", None),
            ("2027-01-01T00:00:00", None),
            ("2027-01-01T00:00:00.Z", None),
            ("2027-01-01T00:00:00+1:00", None),
            ("2027-01-01", None),
            ("0000-01-01T00:00:00Z", None),
            ("+027-01-01T00:00:00Z", None),
            ("2027-01-01T00:00:0éZ", None),
            ("", None),
        ] {
            assert_eq!(parse(text), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
