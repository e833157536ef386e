//! Reading Prometheus text (0.0.4, and `OpenMetrics` 1.0) line by line as it
//! comes: a page of megabytes is never in memory as a whole, and most lines are
//! looked at no further than their name.

use memchr::memchr;

/// Longer lines are passed over: no engine's are.
const LONGEST_LINE: usize = 64 << 10;

/// Cuts what comes in pieces into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    /// Whether it is too long to be kept.
    is_too_long: bool,
}

impl Lines {
    /// Tells every line that ends in this piece, without its end.
    pub(super) fn feed(&mut self, mut piece: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = memchr(b'\n', piece) {
            let rest = &piece[..end];
            piece = &piece[end + 1..];
            if std::mem::take(&mut self.is_too_long) {
                continue;
            }
            if self.begun.is_empty() {
                line(rest);
            } else {
                self.begun.extend_from_slice(rest);
                line(&self.begun);
                self.begun.clear();
            }
        }
        if self.is_too_long || self.begun.len() + piece.len() > LONGEST_LINE {
            self.begun.clear();
            self.is_too_long = true;
        } else {
            self.begun.extend_from_slice(piece);
        }
    }

    /// Tells the last line, if it has no end.
    pub(super) fn finish(self, mut line: impl FnMut(&[u8])) {
        if !self.begun.is_empty() {
            line(&self.begun);
        }
    }
}

/// A line's name, and what follows it; `None`: it is no sample.
pub(super) fn name(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.trim_ascii_start();
    if line.first().is_none_or(|byte| *byte == b'#') {
        return None;
    }
    let end = line
        .iter()
        .position(|byte| matches!(byte, b'{' | b' ' | b'\t'))?;
    Some(line.split_at(end))
}

/// Labels as they are written, without braces, and the value.
pub(super) fn labels_and_value(rest: &[u8]) -> Option<(&[u8], f64)> {
    let (labels, rest) = match rest.trim_ascii_start().strip_prefix(b"{") {
        Some(labels) => {
            let end = labels_end(labels)?;
            (&labels[..end - 1], &labels[end..])
        }
        None => (&[][..], rest),
    };
    // A timestamp or an exemplar may follow.
    let mut words = rest.split(u8::is_ascii_whitespace);
    let value = words.find(|word| !word.is_empty())?;
    let value = match value {
        b"+Inf" | b"Inf" => f64::INFINITY,
        b"-Inf" => f64::NEG_INFINITY,
        _ => std::str::from_utf8(value).ok()?.parse().ok()?,
    };
    Some((labels, value))
}

/// The value of that label, with its escapes undone.
pub(super) fn label(labels: &[u8], name: &str) -> Option<String> {
    each_label(labels)
        .find(|(known, _)| *known == name.as_bytes())
        .map(|(_, value)| unescaped(value))
}

/// Names, and values as they are written between their quotes.
fn each_label(labels: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = labels;
    std::iter::from_fn(move || {
        let equals = memchr(b'=', rest)?;
        let name = rest[..equals].trim_ascii();
        let name = name.strip_prefix(b",").unwrap_or(name).trim_ascii();
        let open = equals + 1 + memchr(b'"', &rest[equals + 1..])?;
        let close = quoted_end(rest, open + 1)?;
        let value = &rest[open + 1..close - 1];
        rest = &rest[close..];
        Some((name, value))
    })
}

fn unescaped(value: &[u8]) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => b'\n',
                Some(other) => *other,
                None => b'\\',
            },
            other => *other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the labels end, after their brace: a brace in quotes is none.
fn labels_end(labels: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match labels.get(at)? {
            b'}' => return Some(at + 1),
            b'"' => at = quoted_end(labels, at + 1)?,
            _ => at += 1,
        }
    }
}

fn quoted_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let quote = at + memchr(b'"', bytes.get(at..)?)?;
        let escapes = bytes[at..quote].iter().rev();
        let escapes = escapes.take_while(|byte| **byte == b'\\').count();
        at = quote + 1;
        if escapes % 2 == 0 {
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples(pieces: &[&str]) -> Vec<(String, String, f64)> {
        let mut found = Vec::new();
        let mut line = |line: &[u8]| {
            if let Some((name, rest)) = name(line)
                && let Some((labels, value)) = labels_and_value(rest)
            {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                found.push((text(name), text(labels), value));
            }
        };
        let mut lines = Lines::default();
        for piece in pieces {
            lines.feed(piece.as_bytes(), &mut line);
        }
        lines.finish(&mut line);
        found
    }

    const PAGE: &str = "# HELP a b\n# TYPE a gauge\na 1\nb{x=\"y\"} 2.5e-3\n\
        c{m=\"a}\\\"b\\\\\",n=\"\"} +Inf 1700000000\n  d{} -0 # {t=\"x\"} 1 2\n\
        e{broken\nf\nG nonsense\nh{q=\"\\\\\"}\t7\n# EOF\ni 8\nj {q=\"1\"} 9";

    #[test]
    fn samples_of_all_shapes() {
        let found = samples(&[PAGE]);
        let short: Vec<(&str, f64)> = found.iter().map(|one| (&*one.0, one.2)).collect();
        assert_eq!(
            short,
            [
                ("a", 1.0),
                ("b", 0.0025),
                ("c", f64::INFINITY),
                ("d", 0.0),
                ("h", 7.0),
                ("i", 8.0),
                ("j", 9.0)
            ]
        );
        assert!(samples(&["n NaN"])[0].2.is_nan());
        assert!(samples(&["<html>\r\n<body>404"]).is_empty());
        let labels = found[2].1.as_bytes();
        assert_eq!(label(labels, "m").unwrap(), "a}\"b\\");
        assert_eq!(label(labels, "n").unwrap(), "");
        assert_eq!(label(labels, "o"), None);
        assert_eq!(label(b" a = \"1\" , b=\"2\\n\"", "b").unwrap(), "2\n");
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let long = "x".repeat(LONGEST_LINE);
        let pieces = ["a 1\nb{x=\"", &long, &long, "\"} 2\nc 3\n"];
        let names: Vec<String> = samples(&pieces).into_iter().map(|one| one.0).collect();
        assert_eq!(names, ["a", "c"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(page in "[ -~\n\"\\\\{}=,]{0,200}") {
            for (_, labels, _) in samples(&[&page]) {
                let _ = label(labels.as_bytes(), "a");
            }
        }

        #[test]
        fn pieces_make_no_difference(cuts in proptest::collection::vec(0..PAGE.len(), 0..5)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut from = 0;
            let mut pieces = Vec::new();
            for cut in cuts {
                pieces.push(&PAGE[from..cut]);
                from = cut;
            }
            pieces.push(&PAGE[from..]);
            prop_assert_eq!(samples(&pieces), samples(&[PAGE]));
        }
    }
}
