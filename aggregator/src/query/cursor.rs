//! The cursor of a search: the position where a page ended. The next page starts right after it, even if documents
//! arrived in between.
//!
//! A cursor is opaque to users: base64 of JSON with the sort order and the last row's keys, which end with tie-breakers,
//! and how many rows are equal to the last one. It also names its search and the definitions that this uses, in hashes:
//! a position among the hits of one search, or the values of one version, means nothing among those of another.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use datafusion::{arrow::datatypes::DataType, scalar::ScalarValue};
use plan::matcher::ScoreStatistics;
use proto::{Code, Problem};
use serde::{Deserialize, Serialize};

/// The position after which a page of rows starts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RowsPageStart {
    /// The last row's keys.
    pub values: Vec<ScalarValue>,
    /// How many rows with these keys earlier pages have shown.
    pub rows: usize,
    /// What the scores of the rows were computed from, if these are the keys: those of the next page are computed from
    /// the same, so that new documents do not move a row from one page to another.
    pub statistics: Option<ScoreStatistics>,
}

/// The order of rows that a cursor is a position in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct OrderIdentity {
    /// The collection or view and the search, in a hash. A cursor of an older release has none.
    #[serde(default)]
    pub search: Option<u64>,
    /// The sort key and the direction.
    pub by: String,
    /// The type of the sort key.
    #[serde(default)]
    pub data_type: String,
    /// See [`ResolvedQuery::definitions_hash`](crate::sql::ResolvedQuery).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub definitions_hash: u64,
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    #[serde(flatten)]
    order: OrderIdentity,
    /// Cast to text, times as numbers; [`read`] casts them back.
    keys: Vec<Option<String>>,
    rows: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    statistics: Option<ScoreStatistics>,
}

/// Limit on the equal rows that a cursor counts, because the next page reads them again.
const EQUAL_ROWS_MAX: usize = 100_000;

/// Writes the cursor of a page of rows.
pub(super) fn write(order: &OrderIdentity, after: &RowsPageStart) -> Result<String, Problem> {
    let text = |value: &ScalarValue| {
        written(&value.data_type())
            .map_or_else(|| Ok(value.clone()), |number| value.cast_to(&number))
            .and_then(|value| value.cast_to(&DataType::Utf8))
            .map(|text| text.try_as_str().flatten().map(str::to_owned))
    };
    let keys = after
        .values
        .iter()
        .map(text)
        .collect::<Result<_, _>>()
        .map_err(crate::failure::problem)?;
    let cursor = Cursor {
        order: order.clone(),
        keys,
        rows: after.rows,
        statistics: after.statistics.clone(),
    };
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default()))
}

fn decode(text: &str) -> Result<Cursor, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let cursor = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    cursor.ok_or_else(malformed)
}

/// What the scores of the rows before a cursor were computed from; None if it belongs to another search.
pub(super) fn statistics(text: &str, search: u64) -> Result<Option<ScoreStatistics>, Problem> {
    let Cursor { order, statistics, .. } = decode(text)?;
    Ok(statistics.filter(|_| order.search == Some(search)))
}

/// Reads the cursor of a page of rows, whose keys have these types; fails if it was written for another search or sort
/// order.
pub(super) fn read(text: &str, order: &OrderIdentity, types: &[DataType]) -> Result<RowsPageStart, Problem> {
    let cursor = decode(text)?;
    if cursor.order.search.is_some_and(|search| order.search != Some(search)) {
        return Err(Problem::new(Code::BadRequest, "`after` belongs to another search")
            .hint("use the collection and the `q` of the previous page, or leave `after` out"));
    }
    if cursor.order.by != order.by {
        // An older release called the order by score otherwise.
        let (detail, hint) = match cursor.order.search {
            Some(_) => (
                "`after` belongs to a search with another sort order",
                "use the `sort` of the previous page, or leave `after` out",
            ),
            None => (
                "`after` belongs to another sort order, or was written by an older release",
                "start again without `after`",
            ),
        };
        return Err(Problem::new(Code::BadRequest, detail).hint(hint));
    }
    let changed = if cursor.order.definitions_hash != order.definitions_hash {
        "a definition that this search uses was"
    } else if cursor.order.data_type != order.data_type || cursor.keys.len() != types.len() {
        "the type of the values that this search sorts by has"
    } else {
        ""
    };
    if !changed.is_empty() {
        let detail = format!("{changed} changed since the page that `after` belongs to");
        return Err(Problem::new(Code::BadRequest, detail).hint("start again without `after`"));
    }
    if cursor.rows > EQUAL_ROWS_MAX {
        return Err(Problem::new(
            Code::LimitReached,
            format!("more than {EQUAL_ROWS_MAX} rows are equal, so `after` cannot page through them"),
        )
        .hint("count them with GROUP BY in SQL, or sort by a field that differs between them"));
    }
    let value = |(text, of): (Option<String>, &DataType)| match text {
        None => ScalarValue::try_from(of).ok(),
        text => {
            let text = ScalarValue::Utf8(text);
            let value = written(of)
                .map_or_else(|| Ok(text.clone()), |number| text.cast_to(&number))
                .and_then(|value| value.cast_to(of))
                .ok();
            value.filter(|value| !value.is_null())
        }
    };
    let values = cursor
        .keys
        .into_iter()
        .zip(types)
        .map(value)
        .collect::<Option<_>>()
        .ok_or_else(malformed)?;
    Ok(RowsPageStart {
        values,
        rows: cursor.rows,
        statistics: cursor.statistics,
    })
}

/// The type that a value is cast to before it becomes text: the text of a time beyond the year 9999 does not read back.
fn written(of: &DataType) -> Option<DataType> {
    matches!(of, DataType::Timestamp(..)).then_some(DataType::Int64)
}

fn is_zero(hash: &u64) -> bool {
    *hash == 0
}

pub(super) fn malformed() -> Problem {
    Problem::new(Code::BadRequest, "`after` is not a cursor").hint("copy `after` unchanged from the previous page")
}

#[cfg(test)]
mod tests;
