//! The cursor of a search: where a page ended, so that the next begins right after it, whatever came in between.
//!
//! It is opaque to users: base64 of JSON with the order, the last hit's values of the sort keys and its address. Rows
//! have no address: their keys end with what breaks ties, and rows that are equal to the last one are counted.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use datafusion::{arrow::datatypes::DataType, scalar::ScalarValue};
use plan::{
    Type,
    scan::{After, SortKey},
};
use proto::{Address, Code, Problem};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Cursor {
    /// The order it belongs to.
    by: String,
    /// The values; text as it is, anything else as [`spell`] writes it.
    values: Vec<Option<String>>,
    /// The address, with the item where one record holds many.
    address: String,
}

/// Writes a cursor.
pub(super) fn write(keys: &[SortKey], after: &After) -> String {
    let cursor = Cursor {
        by: order(keys),
        values: after.values.iter().map(spell).collect(),
        address: after.address.to_string(),
    };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
}

/// Reads a cursor that was given for the same order.
pub(super) fn read(text: &str, keys: &[SortKey]) -> Result<After, Problem> {
    let cursor = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Cursor>(&bytes).ok())
        .ok_or_else(malformed)?;
    if cursor.by != order(keys) || cursor.values.len() != keys.len() {
        return Err(of_another_order());
    }
    let values = cursor
        .values
        .iter()
        .zip(keys)
        .map(|(value, key)| value_of(value.as_deref(), key.column.view.to))
        .collect::<Option<_>>();
    let address: Option<Address> = cursor.address.parse().ok();
    Ok(After {
        values: values.ok_or_else(malformed)?,
        address: address.ok_or_else(malformed)?,
    })
}

/// Where a page of rows ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RowsAfter {
    /// The last row's keys.
    pub values: Vec<ScalarValue>,
    /// How many rows with these keys were shown.
    pub rows: usize,
}

#[derive(Serialize, Deserialize)]
struct RowsCursor {
    by: String,
    /// As texts, which their types read back.
    keys: Vec<Option<String>>,
    rows: usize,
}

/// Equal rows that a cursor may count: the next page reads them again.
const EQUAL_ROWS_MAX: usize = 100_000;

/// Writes a cursor of rows.
pub(super) fn write_rows(by: &str, after: &RowsAfter) -> Result<String, Problem> {
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
        .map_err(super::failure::problem)?;
    let cursor = RowsCursor {
        by: by.to_owned(),
        keys,
        rows: after.rows,
    };
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default()))
}

/// Reads a cursor of rows that was given for the same order, whose keys have these types.
pub(super) fn read_rows(text: &str, by: &str, types: &[DataType]) -> Result<RowsAfter, Problem> {
    let cursor = URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<RowsCursor>(&bytes).ok())
        .ok_or_else(malformed)?;
    if cursor.by != by || cursor.keys.len() != types.len() {
        return Err(of_another_order());
    }
    if cursor.rows > EQUAL_ROWS_MAX {
        return Err(
            Problem::new(Code::LimitReached, format!("over {EQUAL_ROWS_MAX} rows are equal"))
                .hint("GROUP BY what they have, by SQL"),
        );
    }
    let value = |(text, of): (Option<String>, &DataType)| {
        let there = text.is_some();
        ScalarValue::Utf8(text)
            .cast_to(of)
            .ok()
            .filter(|value| value.is_null() != there)
    };
    let values = cursor
        .keys
        .into_iter()
        .zip(types)
        .map(value)
        .collect::<Option<_>>()
        .ok_or_else(malformed)?;
    Ok(RowsAfter {
        values,
        rows: cursor.rows,
    })
}

fn of_another_order() -> Problem {
    Problem::new(
        Code::BadRequest,
        "`after` belongs to another search: the order is not the same",
    )
    .hint("keep sort as it was, or leave `after` out")
}

fn malformed() -> Problem {
    Problem::new(Code::BadRequest, "`after` is not a cursor").hint("take it from the page before, as it is")
}

fn order(keys: &[SortKey]) -> String {
    let spelled = |key: &SortKey| format!("{}{}", if key.descending { "-" } else { "+" }, key.column.name());
    keys.iter().map(spelled).collect::<Vec<_>>().join(",")
}

fn spell(value: &ScalarValue) -> Option<String> {
    match value {
        ScalarValue::Boolean(value) => value.map(|v| v.to_string()),
        ScalarValue::Int64(value) | ScalarValue::TimestampMicrosecond(value, _) => value.map(|v| v.to_string()),
        // By its bits: the same value again, whatever it is.
        ScalarValue::Float64(value) => value.map(|v| v.to_bits().to_string()),
        other => other.try_as_str().flatten().map(str::to_owned),
    }
}

/// None where the text is no value of the type.
fn value_of(text: Option<&str>, of: Type) -> Option<ScalarValue> {
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
mod tests {
    use plan::{Column, Path};

    use super::*;

    fn key(of: Type, descending: bool) -> SortKey {
        SortKey {
            column: Column::path(Path::of_keys(["a.b", "c\""]), of),
            descending,
            nulls_first: false,
        }
    }

    #[test]
    fn a_cursor_reads_back_in_every_type() {
        let values = [
            (Type::Bool, ScalarValue::Boolean(Some(true))),
            (Type::Int, ScalarValue::Int64(Some(i64::MIN))),
            (Type::Double, ScalarValue::Float64(Some(-0.0))),
            (Type::Double, ScalarValue::Float64(None)),
            (Type::Text, ScalarValue::Utf8View(Some("a\"\0😀".into()))),
            (
                Type::Time,
                ScalarValue::TimestampMicrosecond(Some(-5), Some("UTC".into())),
            ),
            (Type::Json, ScalarValue::LargeUtf8(None)),
        ];
        for (of, value) in values {
            let (keys, after) = (
                [key(of, true)],
                After {
                    values: vec![value],
                    address: "push/0@7.0".parse().expect("an address"),
                },
            );
            assert_eq!(read(&write(&keys, &after), &keys), Ok(after));
        }
    }

    #[test]
    fn a_cursor_of_rows_reads_back_in_every_type() {
        let values = [
            ScalarValue::Boolean(Some(false)),
            ScalarValue::Int64(Some(i64::MIN)),
            ScalarValue::UInt64(Some(u64::MAX)),
            ScalarValue::Float64(Some(0.1 + 0.2)),
            ScalarValue::Float64(Some(-0.0)),
            ScalarValue::Float64(None),
            ScalarValue::Decimal128(Some(-123_456), 38, 4),
            ScalarValue::Utf8View(Some("a\"\0😀".into())),
            ScalarValue::TimestampMicrosecond(Some(-5), Some("UTC".into())),
            ScalarValue::TimestampNanosecond(Some(1_769_853_600_000_000_001), None),
            ScalarValue::Date32(Some(20_000)),
        ];
        let after = RowsAfter {
            values: values.to_vec(),
            rows: 3,
        };
        let types: Vec<DataType> = values.iter().map(ScalarValue::data_type).collect();
        let written = write_rows("price", &after).expect("a cursor");
        assert_eq!(read_rows(&written, "price", &types), Ok(after));
        assert_eq!(
            read_rows(&written, "cost", &types).map_err(|p| p.code),
            Err(Code::BadRequest)
        );
        assert_eq!(
            read_rows("e30", "price", &types).map_err(|p| p.code),
            Err(Code::BadRequest)
        );
    }

    #[test]
    fn a_cursor_of_another_order_and_junk_are_refused() {
        let after = After {
            values: vec![ScalarValue::Int64(Some(1))],
            address: "push/0@7".parse().expect("an address"),
        };
        let written = write(&[key(Type::Int, true)], &after);
        assert_eq!(
            read(&written, &[key(Type::Int, false)]).map_err(|p| p.code),
            Err(Code::BadRequest)
        );
        for junk in [
            "",
            "x",
            "!!",
            "e30",
            &URL_SAFE_NO_PAD.encode("{\"by\":\"\",\"values\":[],\"address\":\"\"}"),
        ] {
            assert_eq!(
                read(junk, &[key(Type::Int, true)]).map_err(|p| p.code),
                Err(Code::BadRequest),
                "{junk}"
            );
        }
    }
}
