//! Whether two answers are the same.

use std::cmp::Ordering;

use serde_json::Value;

/// How far two numbers with a fraction may be apart, of the larger one: the order of a sum decides the last digits.
const APART_MAX: f64 = 1e-9;
/// Below this the sum of what cancels out is taken for nothing.
const NOTHING: f64 = 1e-7;
/// Rows that are shown of a difference.
const SHOWN_ROWS_MAX: usize = 5;
/// Characters that are shown of a row.
const SHOWN_CHARS_MAX: usize = 400;

/// What is different, if anything is: the first rows that one has and the other has not.
pub fn difference(ours: &[Vec<Value>], theirs: &[Vec<Value>], ordered: bool) -> Option<String> {
    let fractions = with_fractions(ours, theirs);
    let (ours, theirs) = if ordered {
        (ours.to_vec(), theirs.to_vec())
    } else {
        (sorted(ours, &fractions), sorted(theirs, &fractions))
    };
    let same = |a: &Vec<Value>, b: &Vec<Value>| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b));
    let at = ours.iter().zip(&theirs).position(|(a, b)| !same(a, b));
    if at.is_none() && ours.len() == theirs.len() {
        return None;
    }
    let at = at.unwrap_or(ours.len().min(theirs.len()));
    Some(format!(
        "{} rows, expected {}; from row {at} of the {}:\n      got      {}\n      expected {}",
        ours.len(),
        theirs.len(),
        if ordered { "answer" } else { "sorted answer" },
        shown(&ours[at..]),
        shown(&theirs[at..])
    ))
}

/// The first of some rows.
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

/// Rows in an order that both sides agree on: columns without fractions decide first, so that last digits decide among
/// equals only.
fn sorted(rows: &[Vec<Value>], fractions: &[bool]) -> Vec<Vec<Value>> {
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| {
        let of = |fractions_wanted: bool| {
            let columns = a
                .iter()
                .zip(b)
                .zip(fractions)
                .filter(move |(_, fraction)| **fraction == fractions_wanted);
            columns.map(|((a, b), _)| in_order(a, b)).find(|order| order.is_ne())
        };
        of(false).or_else(|| of(true)).unwrap_or(Ordering::Equal)
    });
    rows
}

/// Columns in which either side has a number with a fraction.
fn with_fractions(ours: &[Vec<Value>], theirs: &[Vec<Value>]) -> Vec<bool> {
    let columns = ours.iter().chain(theirs).map(Vec::len).max().unwrap_or_default();
    let fraction = |row: &Vec<Value>, column: usize| {
        row.get(column)
            .and_then(Value::as_f64)
            .is_some_and(|number| number.fract() != 0.0)
    };
    (0..columns)
        .map(|column| ours.iter().chain(theirs).any(|row| fraction(row, column)))
        .collect()
}

fn in_order(a: &Value, b: &Value) -> Ordering {
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
            a == b || (a - b).abs() <= APART_MAX * a.abs().max(b.abs()) || a.abs().max(b.abs()) < NOTHING
        }
        (None, None) => text(a) == text(b),
        _ => false,
    }
}

/// A value as text: a moment without its zone and without zeros behind, since both mean UTC.
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
