//! The cursor of a search: the position where a page ended. The next page starts right after it, even if documents
//! arrived in between.
//!
//! A cursor is opaque to users: base64 of JSON with the sort order and the last hit's sort values and address. Rows
//! have no address: their keys end with tie-breakers, and the cursor counts the rows equal to the last one.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use datafusion::{arrow::datatypes::DataType, scalar::ScalarValue};
use plan::{
    Type,
    scan::{PageStart, SortKey},
};
use proto::{Address, Code, Problem};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Cursor {
    /// The sort order, which the next request must have, too.
    by: String,
    /// The sort values as [`encode_value`] writes them.
    values: Vec<Option<String>>,
    /// The address, with the item number if the record holds several.
    address: String,
}

/// Writes the cursor of a page of hits.
pub(super) fn write(keys: &[SortKey], after: &PageStart) -> String {
    let cursor = Cursor {
        by: sort_order(keys),
        values: after.values.iter().map(encode_value).collect(),
        address: after.address.to_string(),
    };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
}

/// Reads the cursor of a page of hits; fails if it was written for another sort order.
pub(super) fn read(text: &str, keys: &[SortKey]) -> Result<PageStart, Problem> {
    let cursor = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Cursor>(&bytes).ok())
        .ok_or_else(malformed)?;
    if cursor.by != sort_order(keys) || cursor.values.len() != keys.len() {
        return Err(sort_order_differs());
    }
    let values = cursor
        .values
        .iter()
        .zip(keys)
        .map(|(value, key)| decode_value(value.as_deref(), key.column.read_as.to))
        .collect::<Option<_>>();
    let address: Option<Address> = cursor.address.parse().ok();
    Ok(PageStart {
        values: values.ok_or_else(malformed)?,
        address: address.ok_or_else(malformed)?,
    })
}

/// The position after which a page of rows starts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RowsPageStart {
    /// The last row's keys.
    pub values: Vec<ScalarValue>,
    /// How many rows with these keys earlier pages have shown.
    pub rows: usize,
}

#[derive(Serialize, Deserialize)]
struct RowsCursor {
    by: String,
    /// Cast to text; [`read_rows`] casts them back.
    keys: Vec<Option<String>>,
    rows: usize,
}

/// Limit on the equal rows that a cursor counts, because the next page reads them again.
const EQUAL_ROWS_MAX: usize = 100_000;

/// Writes the cursor of a page of rows.
pub(super) fn write_rows(by: &str, after: &RowsPageStart) -> Result<String, Problem> {
    let text = |value: &ScalarValue| {
        value
            .cast_to(&DataType::Utf8)
            .map(|text| text.try_as_str().flatten().map(str::to_owned))
    };
    let keys = after
        .values
        .iter()
        .map(text)
        .collect::<Result<_, _>>()
        .map_err(crate::failure::problem)?;
    let cursor = RowsCursor {
        by: by.to_owned(),
        keys,
        rows: after.rows,
    };
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default()))
}

/// Reads the cursor of a page of rows, whose keys have these types; fails if it was written for another sort order.
pub(super) fn read_rows(text: &str, by: &str, types: &[DataType]) -> Result<RowsPageStart, Problem> {
    let cursor = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<RowsCursor>(&bytes).ok())
        .ok_or_else(malformed)?;
    if cursor.by != by || cursor.keys.len() != types.len() {
        return Err(sort_order_differs());
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
            let value = ScalarValue::Utf8(text).cast_to(of).ok();
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
    })
}

fn sort_order_differs() -> Problem {
    Problem::new(Code::BadRequest, "`after` belongs to a search with another sort order")
        .hint("use the `sort` of the previous page, or leave `after` out")
}

fn malformed() -> Problem {
    Problem::new(Code::BadRequest, "`after` is not a cursor").hint("copy `after` unchanged from the previous page")
}

fn sort_order(keys: &[SortKey]) -> String {
    let signed = |key: &SortKey| format!("{}{}", if key.descending { "-" } else { "+" }, key.column.name());
    keys.iter().map(signed).collect::<Vec<_>>().join(",")
}

fn encode_value(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::Boolean(value) => value.map(|v| v.to_string()),
        ScalarValue::Int64(value) | ScalarValue::TimestampMicrosecond(value, _) => value.map(|v| v.to_string()),
        // Its bits, so that every double reads back exactly.
        ScalarValue::Float64(value) => value.map(|v| v.to_bits().to_string()),
        other => other.try_as_str().flatten().map(str::to_owned),
    }
}

/// Returns `None` if the text is not a value of the type.
fn decode_value(text: Option<&str>, of: Type) -> Option<ScalarValue> {
    Some(match of {
        Type::Bool => ScalarValue::Boolean(parsed(text)?),
        Type::Int => ScalarValue::Int64(parsed(text)?),
        Type::Time => ScalarValue::TimestampMicrosecond(parsed(text)?, Some("UTC".into())),
        Type::Double => ScalarValue::Float64(parsed::<u64>(text)?.map(f64::from_bits)),
        Type::Text | Type::Rank => ScalarValue::Utf8View(text.map(str::to_owned)),
        Type::Json | Type::Canonical => ScalarValue::LargeUtf8(text.map(str::to_owned)),
    })
}

fn parsed<T: std::str::FromStr>(text: Option<&str>) -> Option<Option<T>> {
    text.map(str::parse).transpose().ok()
}

#[cfg(test)]
mod tests;
