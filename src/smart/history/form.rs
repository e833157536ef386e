//! The form of a line: what it must say, and how we write it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::{MOST_MODELS, MOST_NAME, MOST_OUTPUTS, MOST_QUERY, Names, Output, Row, Split};

/// Of a query that is cut and does not tell how many tokens it has.
const BYTES_OF_A_TOKEN: usize = 4;

/// As much of a query as is kept.
#[must_use]
pub fn cut(query: &str) -> &str {
    let mut end = query.len().min(MOST_QUERY);
    while !query.is_char_boundary(end) {
        end -= 1;
    }
    &query[..end]
}

#[derive(Deserialize)]
#[serde(expecting = "an object with query and outputs")]
struct Told<'a> {
    #[serde(borrow)]
    query: Cow<'a, str>,
    #[serde(default, deserialize_with = "tokens")]
    input_token_length: Option<u32>,
    #[serde(default, deserialize_with = "split")]
    split: Option<Split>,
    #[serde(borrow)]
    outputs: Vec<ToldOutput<'a>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object with model_name and correctness or output_token_length")]
struct ToldOutput<'a> {
    #[serde(borrow)]
    model_name: Cow<'a, str>,
    #[serde(default, deserialize_with = "score")]
    correctness: Option<f32>,
    #[serde(default, deserialize_with = "tokens")]
    output_token_length: Option<u32>,
}

/// A line as a row. Only a line that is a row takes room among the names.
///
/// # Errors
/// What is wrong with it, to be said after its number.
pub fn parse(line: &[u8], names: &mut Names) -> Result<Row, String> {
    if line.trim_ascii_start().starts_with(b"[") {
        return Err("is not an object: one object in each line is expected, not a list".to_owned());
    }
    let told: Told<'_> = serde_json::from_slice(line).map_err(|error| unread(line, &error))?;
    let count = told.outputs.len();
    if count == 0 {
        return Err("has no outputs: at least one is expected".to_owned());
    }
    if count > MOST_OUTPUTS {
        return Err(format!("has {count} outputs, more than {MOST_OUTPUTS}"));
    }
    let known = known(&told.outputs)?;
    if known.is_empty() {
        return Err("tells of no model's score or length".to_owned());
    }
    let mut outputs: Vec<Output> = Vec::with_capacity(known.len());
    for output in known {
        outputs.extend(names.get(&output.model_name).map(|model| Output {
            model,
            score: output.correctness,
            tokens: output.output_token_length,
        }));
    }
    if outputs.is_empty() {
        return Err(format!(
            "tells only of models that have no room beside {MOST_MODELS} others"
        ));
    }
    let query = cut(&told.query);
    // What is cut off was asked all the same.
    let whole = || u32::try_from(told.query.len() / BYTES_OF_A_TOKEN).ok();
    let is_cut = query.len() < told.query.len();
    Ok(Row {
        query: query.to_owned(),
        input_tokens: (told.input_token_length).or_else(|| whole().filter(|_| is_cut)),
        outputs,
        split: told.split,
    })
}

/// Those that tell something.
fn known<'a>(outputs: &'a [ToldOutput<'_>]) -> Result<Vec<&'a ToldOutput<'a>>, String> {
    let mut known: Vec<&ToldOutput<'_>> = Vec::with_capacity(outputs.len());
    for output in outputs {
        check_name(&output.model_name)?;
        if output.correctness.is_none() && output.output_token_length.is_none() {
            continue;
        }
        if known.iter().any(|one| one.model_name == output.model_name) {
            return Err(format!("tells of {:?} twice", output.model_name));
        }
        known.push(output);
    }
    Ok(known)
}

/// Whether a history may tell of a model with that name.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MOST_NAME {
        return Err(format!(
            "has a model_name of {} bytes: 1 to {MOST_NAME} are expected",
            name.len()
        ));
    }
    if name.chars().any(char::is_control) {
        return Err(format!(
            "has the model_name {name:?}: no control characters are expected"
        ));
    }
    Ok(())
}

/// Why a line is no row, without the number that `serde_json` gives to all.
fn unread(line: &[u8], error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let what = text.strip_suffix(&place).unwrap_or(&text);
    let column = error.column();
    if error.is_data() {
        return format!("{what} (column {column})");
    }
    let has_word = |word: &str| memchr::memmem::find(line, word.as_bytes()).is_some();
    let hint = match has_word("NaN") || has_word("Infinity") {
        true => "; NaN and Infinity are no JSON, null is \"not known\"",
        false => "",
    };
    format!("is not JSON: {what} (column {column}){hint}")
}

/// A number, a truth, or nothing.
struct Number(&'static str);

/// What [`Number`] takes.
enum Taken {
    Nothing,
    Truth(f64),
    Number(f64),
}

impl Visitor<'_> for Number {
    type Value = Taken;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Taken, E> {
        Ok(Taken::Nothing)
    }

    fn visit_bool<E: de::Error>(self, is: bool) -> Result<Taken, E> {
        Ok(Taken::Truth(f64::from(u8::from(is))))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Taken, E> {
        Ok(Taken::Number(number))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "far beyond any bound, if at all"
    )]
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Taken, E> {
        Ok(Taken::Number(number as f64))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "far beyond any bound, if at all"
    )]
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Taken, E> {
        Ok(Taken::Number(number as f64))
    }
}

fn score<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f32>, D::Error> {
    const EXPECTED: &str = "a correctness of true, false or 0 to 1";
    match from.deserialize_any(Number(EXPECTED))? {
        Taken::Nothing => Ok(None),
        #[expect(clippy::cast_possible_truncation, reason = "0 to 1")]
        // The sum makes 0 of -0.
        Taken::Truth(score) | Taken::Number(score) if (0.0..=1.0).contains(&score) => {
            Ok(Some(score as f32 + 0.0))
        }
        Taken::Truth(score) | Taken::Number(score) => Err(de::Error::invalid_value(
            de::Unexpected::Float(score),
            &EXPECTED,
        )),
    }
}

fn tokens<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    const EXPECTED: &str = "a length of 0 to 4294967295 tokens";
    match from.deserialize_any(Number(EXPECTED))? {
        Taken::Nothing => Ok(None),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "in the range"
        )]
        Taken::Number(tokens) if (0.0..=f64::from(u32::MAX)).contains(&tokens) => {
            Ok(Some(tokens.round() as u32))
        }
        Taken::Truth(number) | Taken::Number(number) => Err(de::Error::invalid_value(
            de::Unexpected::Float(number),
            &EXPECTED,
        )),
    }
}

fn split<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Split>, D::Error> {
    let word: Option<String> = Option::deserialize(from)?;
    let word = word.map(|word| word.to_ascii_lowercase());
    match word.as_deref() {
        None => Ok(None),
        Some("train" | "val" | "validation" | "dev") => Ok(Some(Split::Train)),
        Some("test") => Ok(Some(Split::Test)),
        Some(other) => Err(de::Error::invalid_value(
            de::Unexpected::Str(cut(other)),
            &"a split of train, val or test",
        )),
    }
}

#[derive(Serialize)]
struct Written<'a> {
    query: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_token_length: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    split: Option<&'static str>,
    outputs: Outputs<'a>,
}

struct Outputs<'a>(&'a [Output]);

impl Serialize for Outputs<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|output| WrittenOutput {
            model_name: &output.model,
            correctness: output.score.map(Score::of),
            output_token_length: output.tokens,
        }))
    }
}

#[derive(Serialize)]
struct WrittenOutput<'a> {
    model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    correctness: Option<Score>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_token_length: Option<u32>,
}

/// As the reference writes it where it can: right or wrong.
#[derive(Serialize)]
#[serde(untagged)]
enum Score {
    Whole(bool),
    Part(f32),
}

impl Score {
    #[expect(clippy::float_cmp, reason = "exactly these two have a word")]
    fn of(score: f32) -> Self {
        match score {
            _ if score == 1.0 => Self::Whole(true),
            _ if score == 0.0 => Self::Whole(false),
            _ => Self::Part(score),
        }
    }
}

/// Appends a row as one line, with its end; [`parse`] reads the same row.
pub fn write(row: &Row, to: &mut Vec<u8>) {
    let written = Written {
        query: &row.query,
        input_token_length: row.input_tokens,
        split: row.split.map(|split| match split {
            Split::Train => "train",
            Split::Test => "test",
        }),
        outputs: Outputs(&row.outputs),
    };
    // A vector takes everything, and nothing in a row is without a form.
    let _ = serde_json::to_writer(&mut *to, &written);
    to.push(b'\n');
}
