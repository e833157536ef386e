//! Replacing one value in a body that is held in pieces; every other byte stays
//! as it came.

use std::ops::Range;

use bytes::Bytes;

use super::facts::{Peeked, Written};

/// Puts the model's own name where the request has an alias of it.
fn rename(peeked: &mut Peeked, model: &str) {
    let Some(asked) = &peeked.facts.model else {
        return;
    };
    if asked == model {
        return;
    }
    if let Some((at, written)) = peeked.model_at.take() {
        let name = match written {
            Written::Json => serde_json::Value::from(model).to_string(),
            Written::Plain => model.to_owned(),
        };
        splice(&mut peeked.held, at, Bytes::from(name));
        peeked.held_bytes = peeked.held.iter().map(Bytes::len).sum();
    }
}

/// Takes a selection out of the body, as if it had never been there, and puts
/// the model's own name where another stands.
pub(super) fn prepare(peeked: &mut Peeked, model: &str) {
    let model_at = peeked.model_at.as_ref().map(|(at, _)| at.start);
    match peeked.selection_at.take() {
        // What stands behind goes first, so that what stands before stays there.
        Some(selection) if model_at.is_none_or(|at| at < selection.whole.start) => {
            cut(peeked, selection.whole);
            rename(peeked, model);
        }
        Some(selection) => {
            rename(peeked, model);
            cut(peeked, selection.whole);
        }
        None => rename(peeked, model),
    }
}

fn cut(peeked: &mut Peeked, range: Range<u64>) {
    splice(&mut peeked.held, range, Bytes::new());
    peeked.held.retain(|piece| !piece.is_empty());
    peeked.held_bytes = peeked.held.iter().map(Bytes::len).sum();
}

/// The bytes of that range of the joined pieces.
pub(super) fn bytes(pieces: &[Bytes], range: &Range<u64>) -> Vec<u8> {
    let mut at = 0;
    let mut found = Vec::new();
    for piece in pieces {
        let length = piece.len() as u64;
        let cut = |offset: u64| usize::try_from(offset.saturating_sub(at).min(length));
        let (start, end) = (
            cut(range.start).unwrap_or_default(),
            cut(range.end).unwrap_or_default(),
        );
        found.extend_from_slice(&piece[start..end]);
        at += length;
    }
    found
}

/// Puts `with` where `range` of the joined pieces was. A range that is not
/// within them changes nothing.
fn splice(pieces: &mut Vec<Bytes>, range: Range<u64>, with: Bytes) {
    let whole: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
    if range.start >= range.end || range.end > whole {
        return;
    }
    let mut spliced = Vec::with_capacity(pieces.len() + 2);
    let mut with = Some(with);
    let mut at = 0;
    for piece in pieces.drain(..) {
        let length = piece.len() as u64;
        let cut = |offset: u64| usize::try_from(offset.saturating_sub(at).min(length));
        let (start, end) = (
            cut(range.start).unwrap_or_default(),
            cut(range.end).unwrap_or_default(),
        );
        if start > 0 {
            spliced.push(piece.slice(..start));
        }
        if at + length > range.start {
            spliced.extend(with.take());
        }
        if end < piece.len() {
            spliced.push(piece.slice(end..));
        }
        at += length;
    }
    *pieces = spliced;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn like_a_string_however_it_is_cut(
            text in "[a-z]{1,40}",
            ends in (0usize..40, 0usize..40),
            step in 1usize..41,
            with in "[A-Z]{0,5}",
        ) {
            let (a, b) = (ends.0.min(text.len()), ends.1.min(text.len()));
            let (start, end) = (a.min(b), a.max(b));
            let mut pieces: Vec<Bytes> = text
                .as_bytes()
                .chunks(step)
                .map(Bytes::copy_from_slice)
                .collect();
            splice(&mut pieces, start as u64..end as u64, Bytes::from(with.clone()));
            let mut expected = text.clone();
            if start < end {
                expected.replace_range(start..end, &with);
            }
            prop_assert_eq!(pieces.concat(), expected.into_bytes());
        }
    }

    #[test]
    fn a_range_beyond_the_end_changes_nothing() {
        let mut pieces = vec![Bytes::from_static(b"abc")];
        splice(&mut pieces, 2..4, Bytes::from_static(b"X"));
        assert_eq!(pieces.concat(), b"abc");
    }
}
