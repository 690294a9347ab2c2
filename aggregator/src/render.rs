//! Renders Arrow values as users see them: Arrow value -> JSON, CSV or TSV text.
//!
//! A JSON value (its field has JSON metadata, which `_doc` has not) is embedded verbatim in JSON answers; `_doc` is the
//! exact text of the document as a string. Timestamps are RFC 3339 in UTC, decimals are numbers with all their digits,
//! numbers that JSON cannot express (NaN, infinity) are null, and bytes are hexadecimal.

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

/// Renders the first `columns` columns of a row as a JSON object.
pub(crate) fn row(batch: &RecordBatch, columns: usize, row: usize) -> String {
    let (mut out, schema) = (Vec::new(), batch.schema());
    let fields = schema.fields().iter().zip(batch.columns()).take(columns);
    object(
        &mut out,
        fields.map(|(field, column)| (field.name().clone(), field.as_ref(), column, row)),
        LineBreaks::Keep,
    );
    String::from_utf8(out).unwrap_or_default()
}

/// The columns of a batch, without the encodings (dictionary, run-end, list view) that the functions below do not read.
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

/// What happens to line breaks between the values of a JSON document. Within a string, JSON has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineBreaks {
    Keep,
    /// They become spaces, so that the document fits on one line.
    ToSpaces,
}

/// Writes a value as JSON.
pub(crate) fn json(out: &mut Vec<u8>, field: &Field, array: &dyn Array, row: usize, line_breaks: LineBreaks) {
    if array.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match array.data_type() {
        DataType::Null => out.extend_from_slice(b"null"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = text_value(array, row);
            if is_json(field.data_type()) {
                verbatim(out, text, line_breaks)
            } else {
                string(out, text)
            }
        }
        DataType::Float16 => float(out, f64::from(array.as_primitive::<Float16Type>().value(row))),
        DataType::Float32 => float32(out, array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => float(out, array.as_primitive::<Float64Type>().value(row)),
        DataType::List(item) => list(out, item, &array.as_list::<i32>().value(row), line_breaks),
        DataType::LargeList(item) => list(out, item, &array.as_list::<i64>().value(row), line_breaks),
        DataType::FixedSizeList(item, _) => list(out, item, &array.as_fixed_size_list().value(row), line_breaks),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            object(
                out,
                fields
                    .iter()
                    .zip(columns)
                    .map(|(field, column)| (field.name().clone(), field.as_ref(), column, row)),
                line_breaks,
            );
        }
        DataType::Map(entry, _) => map(out, entry, array, row, line_breaks),
        other => match scalar(array, row) {
            Some((text, true)) => out.extend_from_slice(text.as_bytes()),
            Some((text, false)) => string(out, &text),
            None => string(out, &format!("a value of type {other}")),
        },
    }
}

/// A format of a line for each row, whose values are separated by one character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Separated {
    /// NULL is an empty field, an empty text is `""`.
    Csv,
    /// As PostgreSQL's COPY writes it: NULL is `\N`; a tab, a line break or a backslash in a text is `\t`, `\n`, `\r` or
    /// `\\`.
    Tsv,
}

impl Separated {
    /// What stands between two values.
    pub(crate) fn separator(self) -> u8 {
        match self {
            Self::Csv => b',',
            Self::Tsv => b'\t',
        }
    }

    /// Writes a value.
    pub(crate) fn value(self, out: &mut Vec<u8>, field: &Field, array: &dyn Array, row: usize) {
        if array.is_null(row) {
            return self.null(out);
        }
        match array.data_type() {
            DataType::Null => self.null(out),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => self.text(out, text_value(array, row)),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => {
                let start = out.len();
                json(out, field, array, row, LineBreaks::ToSpaces);
                if out[start..] == *b"null" {
                    out.truncate(start);
                    self.null(out);
                }
            }
            _ => match scalar(array, row) {
                Some((text, _)) => self.text(out, &text),
                None => {
                    let mut nested = Vec::new();
                    json(&mut nested, field, array, row, LineBreaks::ToSpaces);
                    self.text(out, &String::from_utf8_lossy(&nested));
                }
            },
        }
    }

    fn null(self, out: &mut Vec<u8>) {
        if self == Self::Tsv {
            out.extend_from_slice(b"\\N");
        }
    }

    /// Writes a text, quoted or escaped if necessary.
    pub(crate) fn text(self, out: &mut Vec<u8>, text: &str) {
        match self {
            Self::Csv => csv_text(out, text),
            Self::Tsv => tsv_text(out, text),
        }
    }
}

fn csv_text(out: &mut Vec<u8>, text: &str) {
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

fn tsv_text(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            byte => out.push(byte),
        }
    }
}

/// Writes a JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text can be written to memory");
}

/// Embeds JSON text verbatim. Text that is not JSON (a document of a text source) is written as a string, so that an
/// answer is always valid JSON.
pub(crate) fn verbatim(out: &mut Vec<u8>, text: &str, line_breaks: LineBreaks) {
    if serde_json::from_str::<&serde_json::value::RawValue>(text).is_err() {
        return string(out, text);
    }
    match line_breaks {
        LineBreaks::ToSpaces if text.bytes().any(|b| matches!(b, b'\n' | b'\r')) => {
            out.extend(text.bytes().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }));
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
}

fn text_value(array: &dyn Array, row: usize) -> &str {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row),
        _ => array.as_string_view().value(row),
    }
}

/// Renders a value that is not nested as text. Also returns whether the text is valid JSON without quotes.
fn scalar(array: &dyn Array, row: usize) -> Option<(String, bool)> {
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

/// RFC 3339 in UTC. A timestamp outside the calendar's range is rendered as its raw number.
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

fn list(out: &mut Vec<u8>, item: &Field, values: &ArrayRef, line_breaks: LineBreaks) {
    let values = plain(values);
    out.push(b'[');
    for row in 0..values.len() {
        if row > 0 {
            out.push(b',');
        }
        json(out, item, &values, row, line_breaks);
    }
    out.push(b']');
}

fn object<'a>(
    out: &mut Vec<u8>,
    entries: impl Iterator<Item = (String, &'a Field, &'a ArrayRef, usize)>,
    line_breaks: LineBreaks,
) {
    out.push(b'{');
    for (i, (name, field, column, row)) in entries.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        string(out, &name);
        out.push(b':');
        json(out, field, &plain(column), row, line_breaks);
    }
    out.push(b'}');
}

fn map(out: &mut Vec<u8>, entry: &Field, array: &dyn Array, row: usize, line_breaks: LineBreaks) {
    let entries = array.as_map().value(row);
    let (DataType::Struct(fields), [keys, values]) = (entry.data_type(), entries.columns()) else {
        return out.extend_from_slice(b"{}");
    };
    let keys = plain(keys);
    let name = |row: usize| match keys.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => text_value(&keys, row).to_owned(),
        _ => scalar(&keys, row).map(|(text, _)| text).unwrap_or_default(),
    };
    object(
        out,
        (0..entries.len()).map(|index| (name(index), fields[1].as_ref(), values, index)),
        line_breaks,
    );
}

#[cfg(test)]
mod tests;
