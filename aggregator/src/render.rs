//! An Arrow cell -> JSON or CSV text: the rules of values as users see them.
//!
//! A cell of JSON (by its field's metadata, which `_doc` has not) stands in JSON answers as the value it is, verbatim;
//! `_doc` is exact text. Timestamps are RFC 3339 in UTC, decimals are numbers with their own digits, what JSON cannot
//! say (NaN, infinity) is null, bytes are hexadecimal.

use chrono::{DateTime, SecondsFormat, Utc};
use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{
        DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Field,
        Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
        UInt16Type, UInt32Type, UInt64Type,
    },
    util::display::{ArrayFormatter, FormatOptions},
};
use plan::column::is_json;

/// A row as a JSON object of these columns.
pub(crate) fn row(batch: &RecordBatch, columns: usize, row: usize) -> String {
    let (mut out, schema) = (Vec::new(), batch.schema());
    let fields = schema.fields().iter().zip(batch.columns()).take(columns);
    object(
        &mut out,
        fields.map(|(field, column)| (field.name().clone(), field.as_ref(), column, row)),
        Lines::Any,
    );
    String::from_utf8(out).unwrap_or_default()
}

/// The columns of a batch in forms that the writers below know.
pub(crate) fn plain_columns(batch: &RecordBatch) -> Vec<ArrayRef> {
    batch.columns().iter().map(plain).collect()
}

fn plain(array: &ArrayRef) -> ArrayRef {
    let to = match array.data_type() {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        DataType::RunEndEncoded(_, values) => values.data_type().clone(),
        DataType::ListView(item) => DataType::List(item.clone()),
        DataType::LargeListView(item) => DataType::LargeList(item.clone()),
        _ => return array.clone(),
    };
    cast(array, &to).unwrap_or_else(|_| array.clone())
}

/// Where JSON is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// Anywhere.
    Any,
    /// Into one line: a line break between the values of a document becomes a blank (within a string there can be
    /// none).
    One,
}

/// Writes a cell as JSON.
pub(crate) fn json(out: &mut Vec<u8>, field: &Field, array: &dyn Array, row: usize, lines: Lines) {
    if array.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match array.data_type() {
        DataType::Null => out.extend_from_slice(b"null"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = text_of(array, row);
            if is_json(field.data_type()) {
                verbatim(out, text, lines)
            } else {
                string(out, text)
            }
        }
        DataType::Float16 => float(out, f64::from(array.as_primitive::<Float16Type>().value(row))),
        DataType::Float32 => float32(out, array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => float(out, array.as_primitive::<Float64Type>().value(row)),
        DataType::List(item) => list(out, item, &array.as_list::<i32>().value(row), lines),
        DataType::LargeList(item) => list(out, item, &array.as_list::<i64>().value(row), lines),
        DataType::FixedSizeList(item, _) => list(out, item, &array.as_fixed_size_list().value(row), lines),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            object(
                out,
                fields
                    .iter()
                    .zip(columns)
                    .map(|(field, column)| (field.name().clone(), field.as_ref(), column, row)),
                lines,
            );
        }
        DataType::Map(entry, _) => map(out, entry, array, row, lines),
        other => match bare(array, row) {
            Some((text, true)) => out.extend_from_slice(text.as_bytes()),
            Some((text, false)) => string(out, &text),
            None => string(out, &format!("a value of type {other}")),
        },
    }
}

/// Writes a cell as CSV: NULL is nothing, an empty text is `""`.
pub(crate) fn csv(out: &mut Vec<u8>, field: &Field, array: &dyn Array, row: usize) {
    if array.is_null(row) {
        return;
    }
    match array.data_type() {
        DataType::Null => {}
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => csv_text(out, text_of(array, row)),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let start = out.len();
            json(out, field, array, row, Lines::One);
            if out[start..] == *b"null" {
                out.truncate(start);
            }
        }
        _ => match bare(array, row) {
            Some((text, _)) => csv_text(out, &text),
            None => {
                let mut nested = Vec::new();
                json(&mut nested, field, array, row, Lines::One);
                csv_text(out, &String::from_utf8_lossy(&nested));
            }
        },
    }
}

/// Writes a text as a CSV field, quoted where it has to be.
pub(crate) fn csv_text(out: &mut Vec<u8>, text: &str) {
    let plain = !text.is_empty()
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !text.bytes().any(|b| matches!(b, b',' | b'"' | b'\n' | b'\r'));
    if plain {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Writes a JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text can be written to memory");
}

/// Embeds JSON text as the value it is. What is not JSON (a document of text) stays a text, so an answer is always
/// JSON.
pub(crate) fn verbatim(out: &mut Vec<u8>, text: &str, lines: Lines) {
    if serde_json::from_str::<&serde_json::value::RawValue>(text).is_err() {
        return string(out, text);
    }
    match lines {
        Lines::One if text.bytes().any(|b| matches!(b, b'\n' | b'\r')) => {
            out.extend(text.bytes().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }));
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
}

fn text_of(array: &dyn Array, row: usize) -> &str {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row),
        _ => array.as_string_view().value(row),
    }
}

/// A value without parts, as text, and whether that is a JSON value by itself.
fn bare(array: &dyn Array, row: usize) -> Option<(String, bool)> {
    macro_rules! number {
        ($kind:ty) => {
            (array.as_primitive::<$kind>().value(row).to_string(), true)
        };
    }
    macro_rules! decimal {
        ($kind:ty) => {
            (array.as_primitive::<$kind>().value_as_string(row), true)
        };
    }
    Some(match array.data_type() {
        DataType::Boolean => (array.as_boolean().value(row).to_string(), true),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Decimal32(..) => decimal!(Decimal32Type),
        DataType::Decimal64(..) => decimal!(Decimal64Type),
        DataType::Decimal128(..) => decimal!(Decimal128Type),
        DataType::Decimal256(..) => decimal!(Decimal256Type),
        DataType::Timestamp(unit, _) => (timestamp(array, *unit, row), false),
        DataType::Date32 => (date(array.as_primitive::<Date32Type>().value_as_datetime(row)), false),
        DataType::Date64 => (date(array.as_primitive::<Date64Type>().value_as_datetime(row)), false),
        DataType::Binary => (hex(array.as_binary::<i32>().value(row)), false),
        DataType::LargeBinary => (hex(array.as_binary::<i64>().value(row)), false),
        DataType::BinaryView => (hex(array.as_binary_view().value(row)), false),
        DataType::FixedSizeBinary(_) => (hex(array.as_fixed_size_binary().value(row)), false),
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::FixedSizeList(..)
        | DataType::Struct(_)
        | DataType::Map(..) => return None,
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(array, &options).ok()?;
            (formatter.value(row).try_to_string().ok()?, false)
        }
    })
}

/// RFC 3339 in UTC; a moment beyond the calendar is its count of units.
fn timestamp(array: &dyn Array, unit: TimeUnit, row: usize) -> String {
    let (raw, time): (i64, Option<DateTime<Utc>>) = match unit {
        TimeUnit::Second => {
            let raw = array.as_primitive::<TimestampSecondType>().value(row);
            (raw, DateTime::from_timestamp(raw, 0))
        }
        TimeUnit::Millisecond => {
            let raw = array.as_primitive::<TimestampMillisecondType>().value(row);
            (raw, DateTime::from_timestamp_millis(raw))
        }
        TimeUnit::Microsecond => {
            let raw = array.as_primitive::<TimestampMicrosecondType>().value(row);
            (raw, DateTime::from_timestamp_micros(raw))
        }
        TimeUnit::Nanosecond => {
            let raw = array.as_primitive::<TimestampNanosecondType>().value(row);
            (raw, Some(DateTime::from_timestamp_nanos(raw)))
        }
    };
    time.map_or_else(
        || raw.to_string(),
        |time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
    )
}

fn date(time: Option<chrono::NaiveDateTime>) -> String {
    time.map_or_else(String::new, |time| time.date().to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn float(out: &mut Vec<u8>, value: f64) {
    serde_json::to_writer(out, &value).expect("a number can be written to memory");
}

fn float32(out: &mut Vec<u8>, value: f32) {
    serde_json::to_writer(out, &value).expect("a number can be written to memory");
}

fn list(out: &mut Vec<u8>, item: &Field, values: &ArrayRef, lines: Lines) {
    let values = plain(values);
    out.push(b'[');
    for row in 0..values.len() {
        if row > 0 {
            out.push(b',');
        }
        json(out, item, &values, row, lines);
    }
    out.push(b']');
}

fn object<'a>(
    out: &mut Vec<u8>,
    entries: impl Iterator<Item = (String, &'a Field, &'a ArrayRef, usize)>,
    lines: Lines,
) {
    out.push(b'{');
    for (i, (name, field, column, row)) in entries.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, &name);
        out.push(b':');
        json(out, field, &plain(column), row, lines);
    }
    out.push(b'}');
}

fn map(out: &mut Vec<u8>, entry: &Field, array: &dyn Array, row: usize, lines: Lines) {
    let entries = array.as_map().value(row);
    let (DataType::Struct(fields), [keys, values]) = (entry.data_type(), entries.columns()) else {
        return out.extend_from_slice(b"{}");
    };
    let keys = plain(keys);
    let name = |row: usize| match keys.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => text_of(&keys, row).to_owned(),
        _ => bare(&keys, row).map(|(text, _)| text).unwrap_or_default(),
    };
    object(
        out,
        (0..entries.len()).map(|at| (name(at), fields[1].as_ref(), values, at)),
        lines,
    );
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int64Array,
        LargeStringArray, ListArray, StringViewArray, StructArray, TimestampMicrosecondArray, UInt64Array,
    };

    use super::*;

    fn rendered(field: Field, array: ArrayRef) -> Vec<String> {
        let array = plain(&array);
        let one = |row| {
            let mut out = Vec::new();
            json(&mut out, &field, &array, row, Lines::One);
            String::from_utf8(out).expect("UTF-8")
        };
        (0..array.len()).map(one).collect()
    }

    fn of(array: impl Array + 'static) -> Vec<String> {
        let array: ArrayRef = Arc::new(array);
        rendered(Field::new("x", array.data_type().clone(), true), array)
    }

    fn csv_of(array: impl Array + 'static) -> Vec<String> {
        let field = Field::new("x", array.data_type().clone(), true);
        let one = |row| {
            let mut out = Vec::new();
            csv(&mut out, &field, &array, row);
            String::from_utf8(out).expect("UTF-8")
        };
        (0..array.len()).map(one).collect()
    }

    fn json_field(name: &str) -> Field {
        plan::column::json_field(name, plan::Kinds::default())
    }

    #[test]
    fn numbers_keep_their_digits_and_what_json_cannot_say_is_null() {
        assert_eq!(
            of(Int64Array::from(vec![Some(i64::MAX), Some(i64::MIN), None])),
            ["9223372036854775807", "-9223372036854775808", "null"]
        );
        assert_eq!(of(UInt64Array::from(vec![u64::MAX])), ["18446744073709551615"]);
        assert_eq!(
            of(Float64Array::from(vec![1.0, 0.1, f64::NAN, f64::INFINITY, -0.0, 1e300])),
            ["1.0", "0.1", "null", "null", "-0.0", "1e+300"]
        );
        let sums = Decimal128Array::from(vec![i128::from(i64::MAX) * 10, -5]);
        assert_eq!(
            of(sums.clone().with_precision_and_scale(38, 0).expect("fits")),
            ["92233720368547758070", "-5"]
        );
        assert_eq!(
            of(sums.with_precision_and_scale(38, 2).expect("fits")),
            ["922337203685477580.70", "-0.05"]
        );
        assert_eq!(of(BooleanArray::from(vec![true, false])), ["true", "false"]);
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let times = TimestampMicrosecondArray::from(vec![0, 1_700_000_000_123_456, -1, i64::MAX]).with_timezone("UTC");
        let shown = [
            "\"1970-01-01T00:00:00Z\"",
            "\"2023-11-14T22:13:20.123456Z\"",
            "\"1969-12-31T23:59:59.999999Z\"",
            "\"9223372036854775807\"",
        ];
        assert_eq!(of(times), shown);
        assert_eq!(of(Date32Array::from(vec![19_675])), ["\"2023-11-14\""]);
    }

    #[test]
    fn a_json_cell_is_the_value_it_is_and_a_document_is_exact_text() {
        let texts = vec!["{\"a\" : 1.50}", "\"x\"", "1e400", "[\n1]", "not json"];
        let cells = || Arc::new(StringViewArray::from(texts.clone())) as ArrayRef;
        assert_eq!(
            rendered(json_field("x"), Arc::new(LargeStringArray::from(texts.clone()))),
            ["{\"a\" : 1.50}", "\"x\"", "1e400", "[ 1]", "\"not json\""]
        );
        assert_eq!(
            rendered(
                plan::Column::always("_doc").expect("it is always there").field(),
                cells()
            ),
            [
                "\"{\\\"a\\\" : 1.50}\"",
                "\"\\\"x\\\"\"",
                "\"1e400\"",
                "\"[\\n1]\"",
                "\"not json\""
            ]
        );
    }

    #[test]
    fn what_has_parts_is_json_too() {
        use datafusion::arrow::datatypes::Int64Type;
        let list =
            ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])]);
        assert_eq!(of(list), ["[1,null]", "null", "[]"]);
        let fields = vec![Field::new("a\"b", DataType::Int64, true), json_field("j")];
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1])),
            Arc::new(LargeStringArray::from(vec!["{\"k\":[]}"])),
        ];
        assert_eq!(
            of(StructArray::new(fields.into(), columns, None)),
            ["{\"a\\\"b\":1,\"j\":{\"k\":[]}}"]
        );
        let words: DictionaryArray<datafusion::arrow::datatypes::Int32Type> = vec!["x", "y", "x"].into_iter().collect();
        assert_eq!(of(words), ["\"x\"", "\"y\"", "\"x\""]);
        assert_eq!(of(BinaryArray::from(vec![&b"\x00\xff"[..]])), ["\"00ff\""]);
    }

    #[test]
    fn csv_tells_null_from_nothing_and_quotes_what_it_must() {
        let texts = StringViewArray::from(vec![
            Some("a,b"),
            Some(""),
            None,
            Some("say \"hi\""),
            Some("two\nlines"),
            Some("plain"),
        ]);
        assert_eq!(
            csv_of(texts),
            ["\"a,b\"", "\"\"", "", "\"say \"\"hi\"\"\"", "\"two\nlines\"", "plain"]
        );
        assert_eq!(csv_of(Float64Array::from(vec![1.5, f64::NAN])), ["1.5", ""]);
        use datafusion::arrow::datatypes::Int64Type;
        assert_eq!(
            csv_of(ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![
                Some(1),
                Some(2)
            ])])),
            ["\"[1,2]\""]
        );
    }

    #[test]
    fn types_have_sql_names() {
        let name = |to: DataType| crate::answer::type_name(&to);
        assert_eq!(name(DataType::Int64), "BIGINT");
        assert_eq!(name(DataType::Decimal128(38, 0)), "DECIMAL(38,0)");
        assert_eq!(name(DataType::new_list(DataType::Utf8, true)), "TEXT[]");
        assert_eq!(
            name(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            "TIMESTAMP"
        );
        assert_eq!(crate::answer::type_name(json_field("x").data_type()), "JSON");
    }
}
