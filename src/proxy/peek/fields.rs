//! The scanner at the top level: keys that are looked for, and their values.

use super::found::{Field, ModelField, PeekFault, PromptAt, SelectionAt, Span};
use super::{At, Scanner, python};

impl Scanner {
    pub(super) fn end_key(&mut self) {
        let key = self.text.key();
        self.field = key.and_then(Field::named);
        self.is_session = key.is_some() && key == self.session_key.as_deref().map(str::as_bytes);
        if self.is_session && self.field.is_none() {
            self.field = Some(Field::Session);
        }
        if self.field == Some(Field::Selection) {
            // Only where it stands is of interest: its value may be of any type.
            self.selecting = true;
        }
        if self.found.prompt.is_some() {
            self.span = self.text.key().and_then(PromptAt::span);
        }
    }

    pub(super) fn refuse_twice(&mut self) -> Result<(), PeekFault> {
        let seen = match self.field {
            Some(Field::Model) => &mut self.found.seen_model,
            Some(Field::Stream) => &mut self.found.seen_stream,
            Some(Field::Selection) => &mut self.found.seen_selection,
            _ => return Ok(()),
        };
        if std::mem::replace(seen, true) {
            return Err(PeekFault::Duplicate(self.field.map_or("", Field::name)));
        }
        Ok(())
    }

    /// After a number or a literal.
    pub(super) fn end_scalar(&mut self) {
        if self.is_session
            && let Some(text) = self.text.number()
        {
            self.found.session = Some(python::number(text));
        }
        match self.field {
            Some(Field::MaxTokens) if self.found.max_tokens.is_none() => {
                self.found.max_tokens = self.text.take().parse().ok();
            }
            Some(Field::MaxCompletionTokens) => {
                self.found.max_tokens = self.text.take().parse().ok();
            }
            // An engine that reads session ids as text prints numbers so.
            Some(Field::SessionId) => {
                self.found.session_id = Some(self.text.take()).filter(|id| !id.is_empty());
            }
            _ => {}
        }
        self.settle_untyped();
        self.after_value();
    }

    /// The current field's value is no string.
    pub(super) fn settle_untyped(&mut self) {
        self.is_session = false;
        if self.field.take() == Some(Field::Model) {
            self.found.model = ModelField::NotText;
        }
    }

    /// Notes where keys and commas stand at the top level, and with them the
    /// selection.
    pub(super) fn mark_selection(&mut self, byte: u8, i: usize) {
        let at = self.offset + i as u64;
        match (self.at, byte) {
            (At::FirstKeyOrEnd | At::Key, b'"') => self.key_at = at,
            (At::Value, _) if self.selecting => {
                self.found.selection = Some(Box::new(SelectionAt {
                    value: at..at,
                    whole: self.comma_at.unwrap_or(self.key_at)..at,
                }));
            }
            (At::CommaOrEnd, _) => {
                if std::mem::take(&mut self.selecting)
                    && let Some(selection) = &mut self.found.selection
                {
                    selection.value.end = at;
                    // The first key takes the comma behind it with it.
                    let takes_comma = self.comma_at.is_none() && byte == b',';
                    selection.whole.end = at + u64::from(takes_comma);
                }
                if byte == b',' {
                    self.comma_at = Some(at);
                }
            }
            _ => {}
        }
    }

    /// Notes where a part of the prompt, or an element of it, begins and ends.
    pub(super) fn mark(&mut self, byte: u8, i: usize) {
        let (Some(span), Some(prompt)) = (self.span, &mut self.found.prompt) else {
            return;
        };
        let at = self.offset + i as u64;
        match (self.at, self.depth, byte) {
            (At::Value, 1, _) => prompt.begin(span, at),
            (At::CommaOrEnd, 1, _) => {
                prompt.end(span, at);
                self.span = None;
            }
            (At::CommaOrEnd, 3, b'}' | b']') if span == Span::Main => prompt.element_ends(at + 1),
            _ => {}
        }
    }
}
