//! A stream's bytes as lines, wherever they are cut on their way.

use memchr::memchr;

/// A line of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// Without its end.
    Whole(&'a [u8]),
    /// Longer than is allowed; it was not kept.
    TooLong,
}

/// Joins pieces to lines. Holds no more than one line of the allowed length.
#[derive(Debug)]
pub struct Lines {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    is_too_long: bool,
    most: usize,
}

impl Lines {
    /// Lines of `most` bytes at most.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            begun: Vec::new(),
            is_too_long: false,
            most,
        }
    }

    /// Takes the next piece; `each` gets every line that ends in it. Empty lines
    /// are left out.
    ///
    /// # Errors
    /// Those of `each`, at once; nothing more may be taken then.
    pub fn take<E>(
        &mut self,
        mut piece: &[u8],
        mut each: impl FnMut(Line<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(end) = memchr(b'\n', piece) {
            let (line, rest) = (&piece[..end], &piece[end + 1..]);
            piece = rest;
            if self.begun.is_empty() && !self.is_too_long {
                self.tell(line, &mut each)?;
                continue;
            }
            self.begin(line);
            let is_too_long = std::mem::take(&mut self.is_too_long);
            let whole = std::mem::take(&mut self.begun);
            if is_too_long {
                each(Line::TooLong)?;
            } else {
                self.tell(&whole, &mut each)?;
            }
        }
        self.begin(piece);
        Ok(())
    }

    /// Whether a line has begun and not ended.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        !self.begun.is_empty() || self.is_too_long
    }

    fn begin(&mut self, part: &[u8]) {
        if self.is_too_long || self.begun.len() + part.len() > self.most {
            self.is_too_long = true;
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }

    fn tell<E>(
        &self,
        line: &[u8],
        each: &mut impl FnMut(Line<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        match line.trim_ascii() {
            [] => Ok(()),
            line if line.len() > self.most => each(Line::TooLong),
            line => each(Line::Whole(line)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pieces, the lines that they make, and whether one is open.
    type Case<'a> = (&'a [&'a [u8]], Vec<Option<String>>, bool);
    type Never = Result<(), std::convert::Infallible>;

    fn lines(pieces: &[&[u8]], most: usize) -> (Vec<Option<String>>, bool) {
        let (mut lines, mut told) = (Lines::new(most), Vec::new());
        for piece in pieces {
            let each = |line: Line<'_>| -> Never {
                told.push(match line {
                    Line::Whole(line) => Some(String::from_utf8(line.to_vec()).unwrap()),
                    Line::TooLong => None,
                });
                Ok(())
            };
            let _ = lines.take(piece, each);
        }
        (told, lines.has_begun())
    }

    #[test]
    fn cut_anywhere_and_bounded() {
        let some = |line: &str| Some(line.to_owned());
        let cases: [Case<'_>; 7] = [
            (&[b"a\nb\n"], vec![some("a"), some("b")], false),
            (&[b"a", b"b", b"\nc"], vec![some("ab")], true),
            (&[b"\n\r\n \na\r\n"], vec![some("a")], false),
            (&[b"12345678\n"], vec![some("12345678")], false),
            (&[b"123456789\na\n"], vec![None, some("a")], false),
            (
                &[b"12345", b"6789", b"xxxx\na\n"],
                vec![None, some("a")],
                false,
            ),
            (&[b"123456789"], vec![], true),
        ];
        for (pieces, expected, begun) in cases {
            assert_eq!(lines(pieces, 8), (expected, begun), "{pieces:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_not_held() {
        let mut lines = Lines::new(1000);
        for _ in 0..1000 {
            let _ = lines.take(&[b'x'; 999], |_| -> Never { Ok(()) });
            assert!(lines.begun.capacity() <= 2000);
        }
        assert!(lines.has_begun());
    }

    proptest! {
        #[test]
        fn borders_make_no_difference(text in "[ab\n]{0,60}", at in 0usize..60, to in 0usize..60) {
            let text = text.as_bytes();
            let (at, to) = (at.min(to).min(text.len()), at.max(to).min(text.len()));
            let cut = [&text[..at], &text[at..to], &text[to..]];
            prop_assert_eq!(lines(&cut, 5), lines(&[text], 5));
        }
    }
}
