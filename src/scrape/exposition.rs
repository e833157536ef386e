//! Reading Prometheus text (0.0.4, and `OpenMetrics` 1.0) line by line, for a
//! few families only: a page of megabytes costs no tree.

use memchr::memchr;

/// One sample's name, labels as they are written, and value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    pub(super) value: f64,
}

/// Every sample of the page; what is no sample is passed over.
pub(super) fn samples(page: &str) -> impl Iterator<Item = Sample<'_>> {
    page.lines().filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim_start();
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(end);
    let rest = match rest.strip_prefix('{') {
        Some(labels) => &labels[labels_end(labels)?..],
        None => rest,
    };
    // A timestamp or an exemplar may follow.
    let value = rest.split_ascii_whitespace().next()?;
    let value = match value {
        "+Inf" | "Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        _ => value.parse().ok()?,
    };
    Some(Sample { name, value })
}

/// Where the labels end, after their brace: a brace in quotes is none.
fn labels_end(labels: &str) -> Option<usize> {
    let bytes = labels.as_bytes();
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'}' => return Some(at + 1),
            b'"' => at = quoted_end(bytes, at + 1)?,
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

    fn all(page: &str) -> Vec<(&str, f64)> {
        samples(page).map(|one| (one.name, one.value)).collect()
    }

    #[test]
    fn samples_of_all_shapes() {
        let page = "# HELP a b\n# TYPE a gauge\na 1\nb{x=\"y\"} 2.5e-3\n\
            c{m=\"a}\\\"b\\\\\",n=\"\"} +Inf 1700000000\n  d{} -0 # {t=\"x\"} 1 2\n\
            e{broken\nf\nG nonsense\nh{q=\"\\\\\"}\t7\n# EOF\n";
        assert_eq!(
            all(page),
            [
                ("a", 1.0),
                ("b", 0.0025),
                ("c", f64::INFINITY),
                ("d", 0.0),
                ("h", 7.0)
            ]
        );
        assert!(all("n NaN")[0].1.is_nan());
        assert!(all("<html>\r\n<body>404").is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(page in "[ -~\n\"\\\\{}]{0,200}") {
            let _ = all(&page);
        }
    }
}
