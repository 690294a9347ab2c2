//! Compares the server's answer with DuckDB's.

use std::cmp::Ordering;

use serde_json::Value;

/// The largest relative error between two fractions: the last digits of a sum depend on its order.
const RELATIVE_ERROR_MAX: f64 = 1e-9;
/// Numbers below this count as zero: the rest of a sum whose terms cancel out.
const ZERO_BELOW: f64 = 1e-7;
/// How many rows of a difference are shown.
const SHOWN_ROWS_MAX: usize = 5;
/// How many characters of a row are shown.
const SHOWN_CHARS_MAX: usize = 400;

/// Describes how the answers differ, if they do: the rows from the first difference on.
pub fn difference(got: &[Vec<Value>], expected: &[Vec<Value>], ordered: bool) -> Option<String> {
    let fractions = with_fractions(got, expected);
    let (got, expected) = if ordered {
        (got.to_vec(), expected.to_vec())
    } else {
        (sorted(got, &fractions), sorted(expected, &fractions))
    };
    let same = |a: &Vec<Value>, b: &Vec<Value>| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b));
    let at = got.iter().zip(&expected).position(|(a, b)| !same(a, b));
    if at.is_none() && got.len() == expected.len() {
        return None;
    }
    let at = at.unwrap_or(got.len().min(expected.len()));
    Some(format!(
        "{} rows, expected {}; from row {at} of the {}:\n      got      {}\n      expected {}",
        got.len(),
        expected.len(),
        if ordered { "answer" } else { "sorted answer" },
        shown(&got[at..]),
        shown(&expected[at..])
    ))
}

/// The first of these rows as text.
pub fn shown(rows: &[Vec<Value>]) -> String {
    let row = |row: &Vec<Value>| {
        let text = Value::from(row.clone()).to_string();
        text.char_indices()
            .nth(SHOWN_CHARS_MAX)
            .map_or(text.clone(), |(end, _)| format!("{}…", &text[..end]))
    };
    let more = if rows.len() > SHOWN_ROWS_MAX { " …" } else { "" };
    format!(
        "{}{more}",
        rows.iter().take(SHOWN_ROWS_MAX).map(row).collect::<Vec<_>>().join(" ")
    )
}

/// Sorts rows so that both sides agree: columns without fractions first, so that last digits only break ties.
fn sorted(rows: &[Vec<Value>], fractions: &[bool]) -> Vec<Vec<Value>> {
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| {
        let first_difference = |fractions_wanted: bool| {
            let columns = a
                .iter()
                .zip(b)
                .zip(fractions)
                .filter(move |(_, fraction)| **fraction == fractions_wanted);
            columns.map(|((a, b), _)| order(a, b)).find(|order| order.is_ne())
        };
        first_difference(false)
            .or_else(|| first_difference(true))
            .unwrap_or(Ordering::Equal)
    });
    rows
}

/// Whether either side has a fraction, by column.
fn with_fractions(got: &[Vec<Value>], expected: &[Vec<Value>]) -> Vec<bool> {
    let columns = got.iter().chain(expected).map(Vec::len).max().unwrap_or_default();
    let fraction = |row: &Vec<Value>, column: usize| {
        row.get(column)
            .and_then(Value::as_f64)
            .is_some_and(|number| number.fract() != 0.0)
    };
    (0..columns)
        .map(|column| got.iter().chain(expected).any(|row| fraction(row, column)))
        .collect()
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => text(a).cmp(&text(b)),
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(_), Some(_)) if a.is_i64() && b.is_i64() => a == b,
        (Some(a), Some(b)) => {
            a == b || (a - b).abs() <= RELATIVE_ERROR_MAX * a.abs().max(b.abs()) || a.abs().max(b.abs()) < ZERO_BELOW
        }
        (None, None) => text(a) == text(b),
        _ => false,
    }
}

/// A value as text: a timestamp without its zone and without trailing zeros, since both sides use UTC.
fn text(value: &Value) -> String {
    let Some(text) = value.as_str() else {
        return value.to_string();
    };
    let shape: String = text
        .chars()
        .take(19)
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    if shape != "9999-99-99T99:99:99" {
        return format!("'{text}'");
    }
    let text = text.trim_end_matches('Z');
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    };
    format!("'{text}'")
}
