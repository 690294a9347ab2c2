//! The answer that the rules define for a statement.

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    expression::{EvalExpr, Row},
    statement::EvalStatement,
    value::{Number, SqlValue, Unspecified},
};

/// The rows that the rules define.
#[derive(Debug, Clone)]
pub struct ExpectedRows {
    /// The rows.
    pub rows: Rows,
}

/// Rows of values.
type Rows = Vec<Vec<SqlValue>>;

/// A key, and the numbers of the rows that have it.
type Group = (Vec<SqlValue>, Vec<usize>);

impl EvalStatement {
    /// Its answer over documents that are numbered from 0.
    pub fn answer(&self, rows: &[Row]) -> Result<ExpectedRows, Unspecified> {
        let rows = match self {
            Self::Item(item) => rows
                .iter()
                .enumerate()
                .map(|(k, row)| Ok(vec![SqlValue::count(k), item.value(row)?]))
                .collect::<Result<_, _>>()?,
            Self::Filter(filter) => filtered(filter, rows)?,
            Self::Groups(keys) => row_numbers_by_key(keys, rows)?,
            Self::Distinct(item) => {
                let values = rows
                    .iter()
                    .map(|row| Ok(vec![item.value(row)?]))
                    .collect::<Result<Vec<_>, _>>()?;
                distinct(&values)?
            }
            Self::SetOperation(operator, a, b) => {
                let half = |item: &EvalExpr, remainder: usize| {
                    rows.iter()
                        .enumerate()
                        .filter(|(k, _)| k % 2 == remainder)
                        .map(|(_, row)| Ok(vec![item.value(row)?]))
                        .collect::<Result<Vec<_>, _>>()
                };
                set_operation(operator, half(a, 0)?, half(b, 1)?)?
            }
            Self::Join(outer, a, b) => joined(*outer, a, b, rows)?,
            Self::InSubquery(not, a, b) => members(*not, a, b, false, rows)?,
            Self::Exists(not, a, b) => members(*not, a, b, true, rows)?,
            Self::OrderBy(a, descending) => ordered(a, *descending, rows),
            Self::Counts(a) => counts(a, rows)?,
            Self::MinMax(a) => {
                let min_max = |(k, row): (usize, &Row)| match at(row, a) {
                    SqlValue::Bool(_) | SqlValue::Json(..) => Err(Unspecified),
                    value => Ok(vec![SqlValue::count(k), value.clone(), value]),
                };
                rows.iter().enumerate().map(min_max).collect::<Result<_, _>>()?
            }
            Self::Window(a) => windows(a, rows)?,
        };
        Ok(ExpectedRows { rows })
    }
}

fn at(row: &Row, path: &'static str) -> SqlValue {
    row.get(path).cloned().unwrap_or(SqlValue::Null)
}

fn filtered(filter: &EvalExpr, rows: &[Row]) -> Result<Rows, Unspecified> {
    let mut found = Vec::new();
    for (k, row) in rows.iter().enumerate() {
        if filter.truth(row)? == Some(true) {
            found.push(vec![SqlValue::count(k)]);
        }
    }
    Ok(found)
}

fn row_numbers_by_key(keys: &[EvalExpr], rows: &[Row]) -> Result<Rows, Unspecified> {
    let keys = rows
        .iter()
        .map(|row| keys.iter().map(|key| key.value(row)).collect())
        .collect::<Result<Vec<Vec<SqlValue>>, _>>()?;
    Ok(groups(&keys)?
        .into_iter()
        .map(|(_, members)| vec![SqlValue::Json(Value::from(members), None)])
        .collect())
}

fn joined(outer: bool, a: &'static str, b: &'static str, rows: &[Row]) -> Result<Rows, Unspecified> {
    let mut pairs = Vec::new();
    for (k, x) in rows.iter().enumerate() {
        let before = pairs.len();
        for (j, y) in rows.iter().enumerate() {
            if at(x, a).equals(&at(y, b))? == Some(true) {
                pairs.push(vec![SqlValue::count(k), SqlValue::count(j)]);
            }
        }
        if outer && pairs.len() == before {
            pairs.push(vec![SqlValue::count(k), SqlValue::Null]);
        }
    }
    Ok(pairs)
}

/// The rows of `[NOT] IN` or of `[NOT] EXISTS` over a subquery. If no value is equal and a comparison is NULL, IN is
/// NULL and EXISTS is false.
fn members(not: bool, a: &'static str, b: &'static str, exists: bool, rows: &[Row]) -> Result<Rows, Unspecified> {
    let mut found = Vec::new();
    for (k, x) in rows.iter().enumerate() {
        let equal = rows
            .iter()
            .map(|y| at(x, a).equals(&at(y, b)))
            .collect::<Result<Vec<_>, _>>()?;
        let is_member = if equal.contains(&Some(true)) {
            Some(true)
        } else if !exists && equal.contains(&None) {
            None
        } else {
            Some(false)
        };
        if is_member == Some(!not) {
            found.push(vec![SqlValue::count(k)]);
        }
    }
    Ok(found)
}

/// Only numbers and strings have an order among themselves; the row number breaks ties.
fn ordered(path: &'static str, descending: bool, rows: &[Row]) -> Rows {
    let mut ordered: Vec<(usize, SqlValue)> = rows.iter().enumerate().map(|(k, row)| (k, at(row, path))).collect();
    ordered.sort_by(|(k, a), (j, b)| {
        let within_rank = if a.sort_rank() < 2 {
            a.order(b).ok().flatten()
        } else {
            None
        };
        let order = a
            .sort_rank()
            .cmp(&b.sort_rank())
            .then(within_rank.unwrap_or(Ordering::Equal));
        if descending { order.reverse() } else { order }.then(k.cmp(j))
    });
    ordered
        .into_iter()
        .map(|(k, value)| vec![SqlValue::count(k), value])
        .collect()
}

fn counts(path: &'static str, rows: &[Row]) -> Result<Rows, Unspecified> {
    let values: Rows = rows
        .iter()
        .map(|row| vec![at(row, path)])
        .filter(|value| !value[0].is_null())
        .collect();
    let mut sum: Option<Number> = None;
    for value in &values {
        if let SqlValue::Number(number) = &value[0] {
            sum = Some(sum.unwrap_or(Number::integer(0)).compute('+', number)?);
        }
    }
    Ok(vec![vec![
        SqlValue::count(values.len()),
        SqlValue::count(groups(&values)?.len()),
        sum.map_or(SqlValue::Null, SqlValue::Number),
    ]])
}

fn windows(path: &'static str, rows: &[Row]) -> Result<Rows, Unspecified> {
    let values: Rows = rows.iter().map(|row| vec![at(row, path)]).collect();
    let partitions = groups(&values)?;
    let size = |k: usize| {
        partitions
            .iter()
            .find(|(_, members)| members.contains(&k))
            .map_or(0, |(_, members)| members.len())
    };
    let lag = |k: usize| {
        k.checked_sub(1)
            .map_or(SqlValue::Null, |before| values[before][0].clone())
    };
    Ok((0..rows.len())
        .map(|k| vec![SqlValue::count(k), SqlValue::count(size(k)), lag(k)])
        .collect())
}

/// Groups of equal rows, with the numbers of their rows.
fn groups(rows: &[Vec<SqlValue>]) -> Result<Vec<Group>, Unspecified> {
    let mut groups: Vec<Group> = Vec::new();
    for (k, row) in rows.iter().enumerate() {
        if row.iter().any(|value| matches!(value, SqlValue::Approximate(_))) {
            return Err(Unspecified);
        }
        match groups.iter_mut().find(|(key, _)| same_row(key, row)) {
            Some((_, members)) => members.push(k),
            None => groups.push((row.clone(), vec![k])),
        }
    }
    Ok(groups)
}

fn same_row(a: &[SqlValue], b: &[SqlValue]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.same_group(b))
}

fn distinct(rows: &[Vec<SqlValue>]) -> Result<Rows, Unspecified> {
    Ok(groups(rows)?.into_iter().map(|(row, _)| row).collect())
}

fn set_operation(operator: &str, left: Rows, right: Rows) -> Result<Rows, Unspecified> {
    let all = operator.ends_with(" all");
    let (left, mut right) = if all || operator == "union" {
        (left, right)
    } else {
        (distinct(&left)?, distinct(&right)?)
    };
    let mut out = Vec::new();
    if operator.starts_with("union") {
        out.extend(left.into_iter().chain(right));
        return if all { Ok(out) } else { distinct(&out) };
    }
    for row in left {
        let matched = right.iter().position(|other| same_row(other, &row));
        matched.iter().for_each(|at| drop(right.swap_remove(*at)));
        if matched.is_some() == operator.starts_with("intersect") {
            out.push(row);
        }
    }
    Ok(out)
}
