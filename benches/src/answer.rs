//! Is an answer the same as another system's? Answers are normalized, then compared.
//!
//! Rows are sorted. A missing value and an empty text are equal. Times become microseconds since 1970, and texts that
//! spell a number become the number, because some systems answer with texts only. Of whole documents only [`IDENTITY`]
//! is compared, because some systems return them with other types or without empty values.

use std::{cmp::Ordering, fmt};

use anyhow::{Context as _, Result};
use chrono::{DateTime, NaiveDateTime};
use serde_json::Value;

/// The paths of a document that make up its row in a normalized answer.
const IDENTITY: [&str; 4] = ["id", "type", "actor.login", "repo.name"];
/// Relative difference that two fractions may have.
const FRACTION_TOLERANCE: f64 = 1e-9;
/// Relative difference that an estimate may have.
const ESTIMATE_TOLERANCE: f64 = 0.02;
/// Rows of an answer that an error message shows.
const SHOWN_ROWS_MAX: usize = 30;

/// What a question asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    /// Rows of values.
    Rows,
    /// Whole documents: each row has one value, a document as an object or as its text.
    Documents,
    /// The answer of a search: rows of [`search_rows`].
    Search,
}

/// Begins a row with the score of a hit. Scores may differ as much as estimates do: each system rounds lengths its way.
const SCORE: &str = "score";

/// A normalized answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer(Vec<Vec<AnswerCell>>);

#[derive(Debug, Clone)]
enum AnswerCell {
    Number(f64),
    Text(String),
}

impl Answer {
    /// Normalizes the rows that a system returned.
    pub(crate) fn new(kind: AnswerKind, rows: &[Vec<Value>]) -> Result<Self> {
        let mut rows: Vec<Vec<AnswerCell>> = match kind {
            AnswerKind::Rows | AnswerKind::Search => rows.iter().map(|row| row.iter().map(cell).collect()).collect(),
            AnswerKind::Documents => rows.iter().map(|row| identity(row)).collect::<Result<_>>()?,
        };
        rows.sort_by(|a, b| compare_rows(a, b));
        Ok(Self(rows))
    }

    /// Whether the other answer is the same. If one of them is an estimate, its numbers may differ a little.
    pub(crate) fn matches(&self, other: &Self, estimate: bool) -> bool {
        let same_row = |(a, b): (&Vec<AnswerCell>, &Vec<AnswerCell>)| {
            let estimate = estimate || matches!(a.first(), Some(AnswerCell::Text(text)) if text == SCORE);
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.matches(b, estimate))
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same_row)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows", self.0.len())?;
        for row in self.0.iter().take(SHOWN_ROWS_MAX) {
            let cells: Vec<String> = row.iter().map(ToString::to_string).collect();
            write!(f, "\n    {}", cells.join(" | "))?;
        }
        if self.0.len() > SHOWN_ROWS_MAX {
            write!(f, "\n    …")?;
        }
        Ok(())
    }
}

impl AnswerCell {
    fn matches(&self, other: &Self, estimate: bool) -> bool {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => {
                let tolerance = match estimate {
                    true => ESTIMATE_TOLERANCE,
                    false if a.fract() == 0.0 && b.fract() == 0.0 => 0.0,
                    false => FRACTION_TOLERANCE,
                };
                (a - b).abs() <= tolerance * a.abs().max(b.abs())
            }
            (Self::Text(a), Self::Text(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for AnswerCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

fn compare_rows(a: &[AnswerCell], b: &[AnswerCell]) -> Ordering {
    let cells = a.iter().zip(b).map(|(a, b)| compare_cells(a, b));
    cells.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
}

/// Numbers come before texts.
fn compare_cells(a: &AnswerCell, b: &AnswerCell) -> Ordering {
    match (a, b) {
        (AnswerCell::Number(a), AnswerCell::Number(b)) => a.total_cmp(b),
        (AnswerCell::Text(a), AnswerCell::Text(b)) => a.cmp(b),
        (AnswerCell::Number(_), AnswerCell::Text(_)) => Ordering::Less,
        (AnswerCell::Text(_), AnswerCell::Number(_)) => Ordering::Greater,
    }
}

fn cell(value: &Value) -> AnswerCell {
    match value {
        Value::Null => AnswerCell::Text(String::new()),
        Value::Number(number) => number
            .as_f64()
            .map_or_else(|| AnswerCell::Text(number.to_string()), AnswerCell::Number),
        Value::String(text) => text_cell(text),
        other => AnswerCell::Text(other.to_string()),
    }
}

fn text_cell(text: &str) -> AnswerCell {
    if let Some(time_us) = time_us(text) {
        return AnswerCell::Number(time_us as f64);
    }
    let may_be_number = text.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    match text.parse::<f64>() {
        Ok(number) if may_be_number && number.is_finite() => AnswerCell::Number(number),
        _ => AnswerCell::Text(text.to_owned()),
    }
}

/// Microseconds since 1970 of a text that is a date with a time of day; UTC if it has no zone.
fn time_us(text: &str) -> Option<i64> {
    const FORMATS: [&str; 2] = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
    let bytes = text.as_bytes();
    if bytes.len() < "2015-01-01T00:00:00".len() || bytes[4] != b'-' || bytes[13] != b':' {
        return None;
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    let time = FORMATS
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
    Some(time.and_utc().timestamp_micros())
}

/// A facet of a search: values with their counts.
pub(crate) struct Facet<'a> {
    pub(crate) name: &'a str,
    pub(crate) values: Vec<(&'a Value, &'a Value)>,
    /// The count of all other values.
    pub(crate) others: &'a Value,
}

/// What a search found: its total, its hits, the values of its facets and the intervals of its histogram. Hits are
/// compared by their scores in whole numbers or, without one, by their times: others may be as good. Scores differ by up
/// to two percent because systems divide `don't` differently, so that texts have other lengths; the test `searches`
/// compares them with one division into words.
pub(crate) fn search_rows(
    total: &Value,
    hits: &[(Option<f64>, &Value)],
    facets: &[Facet<'_>],
    histogram: Option<Vec<(&Value, &Value)>>,
) -> Vec<Vec<Value>> {
    let text = |text: &str| Value::String(text.to_owned());
    let mut rows = vec![vec![text("total"), total.clone()]];
    rows.extend(hits.iter().map(|(score, time)| match score {
        Some(score) => vec![text(SCORE), Value::from(*score)],
        None => vec![text("time"), (*time).clone()],
    }));
    for Facet { name, values, others } in facets {
        let facet = |value: &Value, count: &Value| vec![text("facet"), text(name), value.clone(), count.clone()];
        rows.extend(values.iter().map(|(value, count)| facet(value, count)));
        rows.push(vec![text("others"), text(name), (*others).clone()]);
    }
    let intervals = histogram.into_iter().flatten();
    rows.extend(intervals.map(|(time, count)| vec![text("interval"), time.clone(), count.clone()]));
    rows
}

/// The cells of a document, which is the only value of its row.
fn identity(row: &[Value]) -> Result<Vec<AnswerCell>> {
    let value = row.first().context("a row without a document")?;
    let parsed = match value {
        Value::String(text) => Some(serde_json::from_str::<Value>(text).context("a document is not JSON")?),
        _ => None,
    };
    let document = parsed.as_ref().unwrap_or(value);
    Ok(IDENTITY.iter().map(|path| cell(value_at(document, path))).collect())
}

/// The value at a path of a nested document, or of one that has whole paths as its keys.
fn value_at<'a>(document: &'a Value, path: &str) -> &'a Value {
    document
        .get(path)
        .unwrap_or_else(|| path.split('.').fold(document, |value, key| &value[key]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(rows: Value) -> Answer {
        let rows: Vec<Vec<Value>> = serde_json::from_value(rows).expect("rows");
        Answer::new(AnswerKind::Rows, &rows).expect("an answer")
    }

    #[test]
    fn order_types_and_spellings_do_not_matter_but_values_do() {
        let answer = rows(json!([["a", 3], [null, 1_420_070_400_000_000_i64]]));
        assert!(answer.matches(&rows(json!([["", "2015-01-01 00:00:00"], ["a", "3"]])), false));
        assert!(answer.matches(&rows(json!([["", "2015-01-01T00:00:00.000Z"], ["a", 3.0]])), false));
        assert!(!answer.matches(&rows(json!([["a", 4], [null, 1_420_070_400_000_000_i64]])), false));
        assert!(!answer.matches(&rows(json!([["a", 3]])), false));
    }

    #[test]
    fn only_fractions_and_estimates_may_differ_a_little() {
        let close = |a: f64, b: f64, estimate| rows(json!([[a]])).matches(&rows(json!([[b]])), estimate);
        assert!(close(5.234_756_820_877_8, 5.234_756_820_877_9, false));
        assert!(!close(5.2347, 5.2348, false));
        assert!(!close(6208.0, 6209.0, false));
        assert!(close(6208.0, 6209.0, true));
    }

    #[test]
    fn documents_are_equal_however_they_are_returned() {
        let answer = |document: Value| Answer::new(AnswerKind::Documents, &[vec![document]]).expect("an answer");
        let nested = json!({"id": "7", "type": "T", "actor": {"login": "a"}, "repo": {"name": "r"}, "size": 1});
        let flat = json!({"id": "7", "type": "T", "actor.login": "a", "repo.name": "r", "size": "1"});
        assert!(answer(nested.clone()).matches(&answer(flat), false));
        assert!(answer(nested.clone()).matches(&answer(Value::String(nested.to_string())), false));
    }
}
