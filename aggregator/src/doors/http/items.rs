//! Splits the body of a push into items: slices of the body, never serialized again, unless it is CSV or TSV.
//!
//! Unless the content type is NDJSON, a body that begins with `[` is an array, and each element is an item. A body of
//! JSON values of which at least one spans several lines has these values as items. In any other body, each line that
//! is not blank is an item. Whether an item is valid JSON is checked later and per item, so that a bad item does not
//! affect its neighbours.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use proto::{Code, Problem, limits::PUSH_ITEMS_MAX};
use serde::{
    Deserializer as _,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{body::media_type, delimited, sniff};

/// How a body is split, by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PushFormat {
    /// Each line is an item, even if it begins with `[`.
    Lines,
    /// Decided by the body.
    ByContent,
    /// A header, and rows of fields with commas or semicolons between them.
    Csv,
    /// The same, with tabs.
    Tsv,
}

impl PushFormat {
    /// Clients send JSON under many content types, so every text type passes. Types that are certainly something else
    /// are rejected.
    pub(super) fn of(content_type: Option<&str>) -> Result<Self, Problem> {
        match media_type(content_type.unwrap_or_default()).as_str() {
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonl"
            | "application/jsonlines"
            | "application/x-jsonlines"
            | "application/json-lines"
            | "text/x-ndjson" => Ok(Self::Lines),
            "text/csv" | "application/csv" => Ok(Self::Csv),
            "text/tab-separated-values" | "text/tsv" => Ok(Self::Tsv),
            "" | "application/json" | "application/x-www-form-urlencoded" | "application/octet-stream" => {
                Ok(Self::ByContent)
            }
            text if text.starts_with("text/") || text.ends_with("+json") => Ok(Self::ByContent),
            other => Err(Problem::new(
                Code::UnsupportedMedia,
                format!("the content type {other:?} is not supported for pushes"),
            )
            .hint("send application/json, application/x-ndjson, text/csv or text/tab-separated-values")),
        }
    }
}

/// The items of a body: at least one, at most `PUSH_ITEMS_MAX`.
pub(super) fn split(body: &Bytes, format: PushFormat) -> Result<Vec<Bytes>, Problem> {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    let body = if body.starts_with(BYTE_ORDER_MARK) {
        body.slice(BYTE_ORDER_MARK.len()..)
    } else {
        body.clone()
    };
    let first = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let could_be_rows =
        serde_json::from_slice::<&RawValue>(first).is_err() || !matches!(first.first(), Some(b'{' | b'['));
    let tabs = format == PushFormat::Tsv;
    if could_be_rows && (tabs || format == PushFormat::Csv) {
        sniff::reject_binary(&body)?;
        return delimited::rows(&body, delimited::separator_of(&body, tabs));
    }
    sniff::reject_non_json(&body)?;
    let items = match format {
        PushFormat::ByContent if body.trim_ascii_start().starts_with(b"[") => elements(&body)?,
        PushFormat::ByContent if may_span_lines(&body) => multiline_values(&body)?.map_or_else(|| lines(&body), Ok)?,
        _ => lines(&body)?,
    };
    match items.is_empty() {
        false => Ok(items),
        true => Err(Problem::new(Code::BadRequest, "the body has no documents")
            .hint("send a JSON document, an array of documents, or one document per line")),
    }
}

/// The values of one column of rows, or of one field of objects, as items: the content of a text, or the JSON of any other
/// value. Fails if an item has none.
pub(super) fn values_of(column: &str, items: &[Bytes]) -> Result<Vec<Bytes>, Problem> {
    let value = |(number, item): (usize, &Bytes)| {
        let mut object = serde_json::Deserializer::from_slice(item);
        let found = object.deserialize_map(ValueOf(column)).ok().flatten();
        let raw = found.map(RawValue::get).filter(|raw| *raw != "null");
        let value = raw.and_then(|raw| match raw.starts_with('"') {
            true => serde_json::from_str::<String>(raw).map(Bytes::from).ok(),
            false => Some(item.slice_ref(raw.as_bytes())),
        });
        value.ok_or_else(|| {
            let detail =
                format!("item {number} of the body has no value at {column:?}; nothing of the body was stored");
            Problem::new(Code::BadRequest, detail).hint("name a column that every row has, or leave out the column")
        })
    };
    items.iter().enumerate().map(value).collect()
}

/// Finds the value of one field of an object, without keeping the others.
struct ValueOf<'a>(&'a str);

impl<'de> Visitor<'de> for ValueOf<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = fields.next_key::<Cow<'de, str>>()? {
            match name == self.0 {
                true => found = Some(fields.next_value()?),
                false => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

fn elements(body: &Bytes) -> Result<Vec<Bytes>, Problem> {
    let not_an_array = |reason: String| {
        Problem::new(
            Code::BadRequest,
            format!("the body begins with [ but is not a JSON array: {reason}"),
        )
        .hint("if each line is a document, send the content type application/x-ndjson")
    };
    let text = std::str::from_utf8(body).map_err(|e| not_an_array(e.to_string()))?;
    let items = proto::json::raw_items(text.trim_ascii()).map_err(|e| not_an_array(e.to_string()))?;
    if items.len() > PUSH_ITEMS_MAX {
        return Err(too_many());
    }
    Ok(items.into_iter().map(|item| body.slice_ref(item.as_bytes())).collect())
}

fn lines(body: &Bytes) -> Result<Vec<Bytes>, Problem> {
    let mut items = Vec::new();
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.trim_ascii().is_empty() {
            continue;
        }
        if items.len() == PUSH_ITEMS_MAX {
            return Err(too_many());
        }
        items.push(body.slice_ref(line));
    }
    Ok(items)
}

/// Whether a value may span several lines: at least one line is certainly not a value on its own.
fn may_span_lines(body: &Bytes) -> bool {
    let mut lines = body
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty());
    let open = |line: &[u8]| matches!(line.last(), Some(b'{' | b'[' | b',' | b':'));
    lines
        .next()
        .is_some_and(|first| open(first) || serde_json::from_slice::<&RawValue>(first).is_err())
        || lines.any(open)
}

/// The values of a body if at least one spans several lines. None if each line is an item. Fails if something else
/// follows values that span several lines, because the lines of such a body are not documents either.
fn multiline_values(body: &Bytes) -> Result<Option<Vec<Bytes>>, Problem> {
    let (mut items, mut is_multiline) = (Vec::new(), false);
    // The line at this offset.
    let (mut line, mut end) = (1, 0);
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
    while let Some(value) = values.next() {
        match value {
            Ok(_) if items.len() == PUSH_ITEMS_MAX => return Err(too_many()),
            Ok(value) => {
                is_multiline |= value.get().contains('\n');
                items.push(body.slice_ref(value.get().as_bytes()));
                let between = &body[end..values.byte_offset()];
                line += between.iter().filter(|byte| **byte == b'\n').count();
                end = values.byte_offset();
            }
            // The bad value begins on the line where the one before it ends, or after blank lines. An error further
            // down is therefore inside of a value that spans several lines.
            Err(error) if (is_multiline || error.line() > line + 1) && !has_line_document(body) => {
                let detail = format!(
                    "document {} of the body is not JSON: {error}; nothing was stored",
                    items.len()
                );
                return Err(Problem::new(Code::BadRequest, detail).hint("fix it and send the body again"));
            }
            Err(_) => return Ok(None),
        }
    }
    Ok(is_multiline.then_some(items))
}

/// Whether some line looks like a complete object, so that the body may be one document per line after all.
fn has_line_document(body: &Bytes) -> bool {
    body.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .any(|line| line.len() > 2 && line.starts_with(b"{") && line.ends_with(b"}"))
}

pub(super) fn too_many() -> Problem {
    Problem::new(
        Code::TooLarge,
        format!("the body has more than {PUSH_ITEMS_MAX} documents"),
    )
    .hint("send it in several requests")
}

#[cfg(test)]
mod tests;
