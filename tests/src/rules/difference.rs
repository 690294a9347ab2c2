//! Compares an answer with the expected rows, and two answers with each other.

use serde_json::Value;

use super::{
    answer::ExpectedRows,
    statement::EvalStatement,
    value::{SqlValue, same_cell},
};

/// How many rows of a difference are shown.
const SHOWN_ROWS_MAX: usize = 6;

impl EvalStatement {
    /// Describes how an answer differs from the expected rows, if it does.
    pub fn diff_expected(&self, expected: &ExpectedRows, got: &[Vec<Value>]) -> Option<String> {
        let (surplus, missing) = unmatched(got, &expected.rows, |got, expected| {
            got.len() == expected.len() && expected.iter().zip(got).all(|(value, cell)| value.matches_cell(cell))
        });
        if !surplus.is_empty() || !missing.is_empty() {
            let missing: Vec<String> = missing
                .iter()
                .map(|row| {
                    format!(
                        "[{}]",
                        row.iter().map(SqlValue::to_string).collect::<Vec<_>>().join(",")
                    )
                })
                .collect();
            return Some(describe(
                surplus
                    .iter()
                    .map(|row| Value::from((*row).clone()).to_string())
                    .collect(),
                missing,
            ));
        }
        if self.is_ordered() {
            expected.rows.iter().zip(got).enumerate().find_map(misplaced)
        } else {
            None
        }
    }

    /// Describes how two answers to the same statement differ, if they do.
    pub fn diff_answers(&self, expected: &[Vec<Value>], got: &[Vec<Value>]) -> Option<String> {
        let same_row =
            |a: &Vec<Value>, b: &Vec<Value>| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_cell(a, b));
        let (surplus, missing) = unmatched(got, expected, same_row);
        let text = |rows: Vec<&Vec<Value>>| {
            rows.into_iter()
                .map(|row| Value::from(row.clone()).to_string())
                .collect::<Vec<_>>()
        };
        if !surplus.is_empty() || !missing.is_empty() {
            return Some(describe(text(surplus), text(missing)));
        }
        let at = got.iter().zip(expected).position(|(a, b)| !same_row(a, b))?;
        self.is_ordered().then(|| {
            format!(
                "row {at} is {}, expected {}",
                Value::from(got[at].clone()),
                Value::from(expected[at].clone())
            )
        })
    }
}

/// Describes a row of an ORDER BY at the wrong place. Booleans, lists and objects may come in any order among
/// themselves.
fn misplaced((at, (expected, got)): (usize, (&Vec<SqlValue>, &Vec<Value>))) -> Option<String> {
    /// The rank of booleans, lists and objects.
    const UNORDERED_RANK: usize = 2;
    let same = if expected[1].sort_rank() == UNORDERED_RANK {
        SqlValue::from_cell(&got[1]).sort_rank() == UNORDERED_RANK
    } else {
        expected[0].matches_cell(&got[0])
    };
    (!same).then(|| {
        format!(
            "row {at} is {}, expected [{},{}]",
            Value::from(got.clone()),
            expected[0],
            expected[1]
        )
    })
}

fn describe(surplus: Vec<String>, missing: Vec<String>) -> String {
    let shown = |rows: &[String]| {
        let more = if rows.len() > SHOWN_ROWS_MAX { " …" } else { "" };
        format!("{}{more}", rows[..rows.len().min(SHOWN_ROWS_MAX)].join(" "))
    };
    format!(
        "{} unexpected rows: {}; {} missing rows: {}",
        surplus.len(),
        shown(&surplus),
        missing.len(),
        shown(&missing)
    )
}

/// The rows of each side that have no equal row on the other side.
fn unmatched<'a, A, B>(got: &'a [A], expected: &'a [B], same: impl Fn(&A, &B) -> bool) -> (Vec<&'a A>, Vec<&'a B>) {
    let mut missing: Vec<&B> = expected.iter().collect();
    let mut surplus = Vec::new();
    for row in got {
        match missing.iter().position(|expected| same(row, expected)) {
            Some(at) => drop(missing.remove(at)),
            None => surplus.push(row),
        }
    }
    (surplus, missing)
}
