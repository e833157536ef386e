//! What a text is made of: its words and pairs of words, hashed into buckets, and
//! its shape (how long, how many digits, lines, ...).
//!
//! A word is a run of letters and digits in lower case; any other visible
//! character, and each ideograph, stands for itself. Hashes are our own: what was
//! fitted on one machine must hold on another, and after an update.

use crate::smart::history::MOST_QUERY;

/// Buckets of words. Fewer than 2^15 cost quality, more gain none (MMLU, 1,500
/// rows: 2^14 0.639, 2^15 to 2^18 0.642).
pub(in crate::smart) const BUCKETS: usize = 1 << 16;
/// Numbers that tell of a text's shape.
pub(in crate::smart) const SHAPE: usize = 11;
/// The last lines, of which the longest counts: where choices are listed.
const LAST_LINES: usize = 6;

/// Reads texts; its buffers are used again.
#[derive(Debug)]
pub(in crate::smart) struct Reader {
    counts: Box<[u8]>,
    met: Vec<u16>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS].into(),
            met: Vec::new(),
        }
    }
}

impl Reader {
    /// Reads a text, and returns its shape.
    pub(in crate::smart) fn read(&mut self, text: &str) -> [f32; SHAPE] {
        for bucket in self.met.drain(..) {
            self.counts[usize::from(bucket)] = 0;
        }
        let text = beginning(text);
        let mut shape = Shape::default();
        let mut word = Word::default();
        for character in text.chars() {
            shape.add(character);
            if is_ideograph(character) || !character.is_alphanumeric() {
                self.end(&mut word);
                if !character.is_whitespace() {
                    word.add(character);
                    self.end(&mut word);
                }
            } else if character.is_ascii() {
                word.add(character.to_ascii_lowercase());
            } else {
                character.to_lowercase().for_each(|lower| word.add(lower));
            }
        }
        self.end(&mut word);
        shape.numbers(self.repetition())
    }

    /// The buckets that the text has, each once, in order of appearance.
    pub(in crate::smart) fn met(&self) -> &[u16] {
        &self.met
    }

    /// How often it has that bucket, up to 255.
    pub(in crate::smart) fn count(&self, bucket: u16) -> u8 {
        self.counts[usize::from(bucket)]
    }

    /// The share of words and pairs that are not met for the first time.
    #[expect(clippy::cast_precision_loss, reason = "counts of at most 4,096")]
    fn repetition(&self) -> f32 {
        let all: u32 = self.met.iter().map(|one| u32::from(self.count(*one))).sum();
        1.0 - self.met.len() as f32 / all.max(1) as f32
    }

    fn end(&mut self, word: &mut Word) {
        let Some(hash) = word.hash.take() else {
            return;
        };
        self.meet(mix(hash));
        if let Some(before) = word.before.replace(hash) {
            self.meet(mix(before.rotate_left(23) ^ hash.wrapping_mul(PAIR)));
        }
    }

    fn meet(&mut self, hash: u64) {
        let bucket = (hash >> 48) as u16;
        let count = &mut self.counts[usize::from(bucket)];
        if *count == 0 {
            self.met.push(bucket);
        }
        *count = count.saturating_add(1);
    }
}

/// What of a text is looked at: cut at a character.
fn beginning(text: &str) -> &str {
    let mut end = text.len().min(MOST_QUERY);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Scripts that are written without spaces.
fn is_ideograph(character: char) -> bool {
    matches!(character, '\u{2E80}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
        && character.is_alphanumeric()
}

/// FNV-1a's offset and prime.
const START: u64 = 0xcbf2_9ce4_8422_2325;
const STEP: u64 = 0x0000_0100_0000_01b3;
/// Any odd number: a pair is not its words swapped.
const PAIR: u64 = 0x9e37_79b9_7f4a_7c15;

/// The word being read, and the one before it.
#[derive(Default)]
struct Word {
    hash: Option<u64>,
    before: Option<u64>,
}

impl Word {
    fn add(&mut self, character: char) {
        let hash = self.hash.unwrap_or(START);
        self.hash = Some((hash ^ u64::from(character)).wrapping_mul(STEP));
    }
}

/// The end of `MurmurHash3`: each bit of the input moves half of the output's.
pub(in crate::smart) fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Counts of a text, from which its shape follows.
#[derive(Default)]
struct Shape {
    characters: u32,
    digits: u32,
    signs: u32,
    capitals: u32,
    stops: u32,
    visible: u32,
    words: u32,
    is_in_word: bool,
    lines: u32,
    line: u32,
    first_line: u32,
    last_line: u32,
    last_lines: [u32; LAST_LINES],
}

impl Shape {
    fn add(&mut self, character: char) {
        self.characters += 1;
        if character == '\n' {
            self.end_line();
            self.lines += 1;
        } else {
            self.line += 1;
        }
        let is_visible = !character.is_whitespace();
        self.visible += u32::from(is_visible);
        self.words += u32::from(is_visible && !self.is_in_word);
        self.is_in_word = is_visible;
        match character {
            '+' | '-' | '*' | '/' | '=' | '^' | '<' | '>' | '(' | ')' | '[' | ']' | '{' | '}'
            | '\\' | '$' | '%' => self.signs += 1,
            '.' | ',' | ';' | ':' | '!' | '?' => self.stops += 1,
            _ if character.is_numeric() => self.digits += 1,
            _ if character.is_uppercase() => self.capitals += 1,
            _ => {}
        }
    }

    fn end_line(&mut self) {
        if self.lines == 0 {
            self.first_line = self.line;
        }
        self.last_lines[self.lines as usize % LAST_LINES] = self.line;
        self.last_line = std::mem::take(&mut self.line);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of at most 2,048")]
    fn numbers(mut self, repetition: f32) -> [f32; SHAPE] {
        self.end_line();
        // What lies between the first line and the last: choices, if there are any.
        let middle =
            (self.characters - self.lines).saturating_sub(self.first_line + self.last_line);
        let middle_lines = self.lines.saturating_sub(1).max(1);
        let all = self.characters.max(1) as f32;
        let share = |count: u32| count as f32 / all;
        let longest = self.last_lines.into_iter().max().unwrap_or(0);
        [
            all.ln(),
            share(self.digits),
            self.lines as f32,
            share(self.signs),
            self.visible as f32 / self.words.max(1) as f32,
            share(self.capitals),
            share(self.stops),
            share(longest),
            (self.first_line as f32).ln_1p(),
            (middle as f32 / middle_lines as f32).ln_1p(),
            repetition,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<u16> {
        let mut reader = Reader::default();
        reader.read(text);
        reader.met().to_vec()
    }

    #[test]
    fn words_and_pairs_are_counted() {
        let mut reader = Reader::default();
        reader.read("The cat, the cat");
        // the, cat, comma; the-cat, cat-comma, comma-the.
        assert_eq!(reader.met().len(), 6);
        let counts: Vec<u8> = reader.met().iter().map(|one| reader.count(*one)).collect();
        assert_eq!(counts, [2, 2, 2, 1, 1, 1]);
        reader.read("cat");
        assert_eq!(reader.met().len(), 1, "nothing stays of the text before");
        assert_eq!(reader.count(reader.met()[0]), 1);
    }

    #[test]
    fn hashes_stay_what_they_are() {
        assert_eq!(read("Why is the sky blue?"), HASHES);
    }

    /// What files that were written before rely on.
    const HASHES: [u16; 11] = [
        13999, 14986, 61803, 52031, 19145, 40084, 50720, 38874, 42519, 41824, 64204,
    ];

    #[test]
    fn case_spaces_and_scripts() {
        assert_eq!(read("Ärger  im\tBÜRO"), read("ärger im büro"));
        assert_ne!(read("a b"), read("b a"));
        assert_eq!(read("天地").len(), 3, "each stands for itself");
        assert!(read(" \n\t").is_empty());
        assert!(read("").is_empty());
    }

    #[test]
    fn a_megabyte_is_cut_at_a_character() {
        let text = format!("a{}", "ü".repeat(1 << 19));
        assert_eq!(beginning(&text).len(), MOST_QUERY - 1);
        let mut reader = Reader::default();
        let shape = reader.read(&text);
        assert!(shape.iter().all(|one| one.is_finite()));
    }

    #[test]
    fn the_shape_is_counted() {
        let mut reader = Reader::default();
        let shape = reader.read("Add 12+30\nA. 42\nAnswer:");
        let close = |at: usize, expected: f32| {
            assert!((shape[at] - expected).abs() < 1e-5, "{at}: {}", shape[at]);
        };
        close(0, 23f32.ln());
        close(1, 6.0 / 23.0);
        close(2, 2.0);
        close(3, 1.0 / 23.0);
        close(4, 19.0 / 5.0);
        close(5, 3.0 / 23.0);
        close(6, 2.0 / 23.0);
        close(7, 9.0 / 23.0);
        close(8, 10f32.ln());
        close(9, 6f32.ln());
        close(10, 0.0);
        assert!(reader.read("so so so so")[10] > 0.5);
        assert_eq!(reader.read("one line")[9], 0.0);
    }
}
