//! CSV and TSV as items of a push: each row becomes a JSON object with the names of the header.
//!
//! A field that is a JSON number or `true` or `false` stays so, digit for digit; any other is a text; an empty one is left
//! out. A row that does not fit the header stays as it is, and becomes a dead letter.

use std::collections::HashSet;

use bytes::Bytes;
use csv::{ByteRecord, ReaderBuilder};
use proto::{
    Code, Problem,
    limits::{PUSH_BYTES_MAX, PUSH_ITEMS_MAX},
};

use super::items::too_many;

/// Digits of a number that stays one: those that a 64-bit float keeps. Integers have up to 64 bits.
const DIGITS_MAX: usize = 15;

/// What separates the fields of a body: a tab, or what its first line has more of outside of quotes.
pub(super) fn separator_of(body: &[u8], tabs: bool) -> u8 {
    let first = body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |separator: u8| {
        let mut is_quoted = false;
        let outside_quotes = |byte: &&u8| {
            is_quoted ^= **byte == b'"';
            !is_quoted && **byte == separator
        };
        first.iter().filter(outside_quotes).count()
    };
    match (tabs, count(b';') > count(b',')) {
        (true, _) => b'\t',
        (false, true) => b';',
        (false, false) => b',',
    }
}

/// The rows of a body as items. Fails if there is no usable header or if a quote never closes: then nothing is certain.
pub(super) fn rows(body: &Bytes, separator: u8) -> Result<Vec<Bytes>, Problem> {
    let mut reader = ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        .from_reader(&body[..]);
    let mut row = ByteRecord::new();
    let mut items = Vec::new();
    let mut bytes = 0;
    let mut names: Option<Vec<String>> = None;
    let (mut start, mut line) = (0, 1);
    while reader.read_byte_record(&mut row).map_err(not_read)? {
        let end = reader.position().byte() as usize;
        let raw = trimmed(&body[start..end]);
        if end == body.len() && is_open(raw, separator) {
            let detail = format!("the quote that opens in line {line} never closes; nothing was stored");
            return Err(bad(detail).hint("close it, or write a quote within a quoted field twice"));
        }
        (start, line) = (end, reader.position().line());
        let Some(names) = &names else {
            names = Some(checked_names(&row)?);
            continue;
        };
        if items.len() == PUSH_ITEMS_MAX {
            return Err(too_many());
        }
        let item = match json_object(names, &row) {
            Some(object) => Bytes::from(object.into_boxed_slice()),
            None => as_it_is(body, raw, separator),
        };
        bytes += item.len();
        if bytes > PUSH_BYTES_MAX {
            let detail = format!("the documents of the rows have more than {PUSH_BYTES_MAX} bytes");
            return Err(
                Problem::new(Code::TooLarge, detail).hint("send the rows in several requests, each with the header")
            );
        }
        items.push(item);
    }
    match (names.is_some(), items.is_empty()) {
        (true, false) => Ok(items),
        (true, true) => {
            Err(bad("the body has a header and no rows".into()).hint("send the header and the rows in one body"))
        }
        (false, _) => Err(bad("the body is empty".into()).hint("send a header and rows")),
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(Code::BadRequest, detail)
}

fn not_read(error: csv::Error) -> Problem {
    bad(format!("the body cannot be read as rows: {error}"))
}

/// A row without the line breaks around it.
fn trimmed(mut raw: &[u8]) -> &[u8] {
    while let [b'\n' | b'\r', rest @ ..] | [rest @ .., b'\n' | b'\r'] = raw {
        raw = rest;
    }
    raw
}

/// Whether a quote is open at the end of the last row: then another line would still belong to it.
fn is_open(raw: &[u8], separator: u8) -> bool {
    let with_line = [raw, b"\nx"].concat();
    let mut reader = ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        .from_reader(&with_line[..]);
    raw.contains(&b'"') && reader.byte_records().count() == 1
}

/// The names of the header, each once.
fn checked_names(row: &ByteRecord) -> Result<Vec<String>, Problem> {
    const HINT: &str = "the first line must name the columns, each once";
    let (mut names, mut known) = (Vec::new(), HashSet::new());
    for (number, name) in (1..).zip(row) {
        let name = std::str::from_utf8(name)
            .map_err(|_| bad(format!("the name of column {number} is not UTF-8")).hint(HINT))?;
        let name = name.trim();
        if name.is_empty() {
            return Err(bad(format!("column {number} of the header has no name")).hint(HINT));
        }
        if !known.insert(name) {
            return Err(bad(format!("the header has column {name:?} twice")).hint(HINT));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// A row as JSON; none if it has another number of fields than the header, or is not UTF-8.
fn json_object(names: &[String], row: &ByteRecord) -> Option<Vec<u8>> {
    if row.len() != names.len() {
        return None;
    }
    let mut object = vec![b'{'];
    for (name, field) in names.iter().zip(row) {
        let field = std::str::from_utf8(field).ok()?;
        if field.is_empty() {
            continue;
        }
        if object.len() > 1 {
            object.push(b',');
        }
        serde_json::to_writer(&mut object, name).ok()?;
        object.push(b':');
        match is_literal(field) {
            true => object.extend_from_slice(field.as_bytes()),
            false => serde_json::to_writer(&mut object, field).ok()?,
        }
    }
    object.push(b'}');
    Some(object)
}

/// Whether a field is `true`, `false` or a number that JSON has and that loses no digit.
fn is_literal(field: &str) -> bool {
    let is_number = || {
        let starts = field.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        let ends = field.ends_with(|c: char| c.is_ascii_digit());
        let digits = field.bytes().filter(u8::is_ascii_digit).count();
        let is_exact = digits <= DIGITS_MAX || field.parse::<i64>().is_ok();
        // `12e45` is rather a code.
        let is_code = field.contains(['e', 'E']) && !field.contains(['.', '+', '-']);
        starts && ends && is_exact && !is_code && serde_json::from_str::<f64>(field).is_ok()
    };
    field == "true" || field == "false" || is_number()
}

/// The bytes of a row that is no document. One that is JSON by itself gets a separator, so that it does not become one.
fn as_it_is(body: &Bytes, raw: &[u8], separator: u8) -> Bytes {
    match serde_json::from_slice::<&serde_json::value::RawValue>(raw) {
        // A tab is a blank in JSON.
        Ok(_) => [
            raw,
            if separator == b'\t' {
                b","
            } else {
                std::slice::from_ref(&separator)
            },
        ]
        .concat()
        .into(),
        Err(_) => body.slice_ref(raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(body: &str) -> Vec<String> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let rows = rows(&body, separator_of(&body, false)).expect("rows");
        rows.iter()
            .map(|item| String::from_utf8_lossy(item).into_owned())
            .collect()
    }

    fn problem(body: &str) -> String {
        let body = Bytes::copy_from_slice(body.as_bytes());
        rows(&body, separator_of(&body, false))
            .expect_err("a problem")
            .to_string()
    }

    #[test]
    fn rows_become_objects_whose_numbers_keep_their_digits() {
        assert_eq!(
            items("id,price,name,ok\n1,1.50,\"a, \"\"b\"\"\",true\r\n007,-3e2,\"two\nlines\",False\n,,x,\n"),
            [
                r#"{"id":1,"price":1.50,"name":"a, \"b\"","ok":true}"#,
                r#"{"id":"007","price":-3e2,"name":"two\nlines","ok":"False"}"#,
                r#"{"name":"x"}"#,
            ]
        );
        assert_eq!(items("a;b\n1,5;2\n"), [r#"{"a":"1,5","b":2}"#]);
        assert_eq!(items("a,\"b;c;d\"\n1,2\n"), [r#"{"a":1,"b;c;d":2}"#]);
        assert_eq!(
            items(
                "n\n9223372036854775807\n1 \n12e45\n1e-3\n9223372036854775808\n1e999\n0.1234567890123456789\n+1\n.5\nNaN\n 1\n"
            ),
            [
                r#"{"n":9223372036854775807}"#,
                r#"{"n":"1 "}"#,
                r#"{"n":"12e45"}"#,
                r#"{"n":1e-3}"#,
                r#"{"n":"9223372036854775808"}"#,
                r#"{"n":"1e999"}"#,
                r#"{"n":"0.1234567890123456789"}"#,
                r#"{"n":"+1"}"#,
                r#"{"n":".5"}"#,
                r#"{"n":"NaN"}"#,
                r#"{"n":" 1"}"#,
            ]
        );
    }

    #[test]
    fn a_row_that_does_not_fit_stays_as_it_is_and_is_no_json() {
        assert_eq!(
            items("a,b\n1,2\n3\n4,5,6\n{}\n\n\"x\"\n7,8"),
            [r#"{"a":1,"b":2}"#, "3,", "4,5,6", "{},", "\"x\",", r#"{"a":7,"b":8}"#]
        );
        let body = Bytes::from_static(b"a,b\n\xff,1\n2,3\n");
        let rows = rows(&body, b',').expect("rows");
        assert_eq!(rows, [&b"\xff,1"[..], b"{\"a\":2,\"b\":3}"]);
        let tabs = super::rows(&Bytes::from_static(b"a\tb\n5\n"), b'\t').expect("rows");
        assert_eq!(tabs, [&b"5,"[..]]);
    }

    #[test]
    fn a_quote_that_never_closes_is_named_and_one_within_a_field_is_none() {
        let open = problem("a,b\n1,2\n3,\"x\n4,5\n6,7\n");
        assert!(open.contains("opens in line 3"), "{open}");
        assert!(problem("a,b\n1,\"x").contains("opens in line 2"));
        assert_eq!(items("a,b\n1,5\" pipe\n"), [r#"{"a":1,"b":"5\" pipe"}"#]);
        assert_eq!(items("a,b\n1,\"\"\"\"\n"), [r#"{"a":1,"b":"\""}"#]);
    }

    #[test]
    fn a_header_names_each_column_once() {
        assert!(problem("a,,c\n1,2,3\n").contains("column 2 of the header has no name"));
        assert!(problem("a, a\n1,2\n").contains("\"a\" twice"));
        assert!(problem("a,b\n").contains("no rows"));
        assert!(problem("").contains("empty"));
        let wide = format!("{}\n{}", "n".repeat(1_000), "1\n".repeat(100_000));
        assert!(problem(&wide).contains("bytes"));
    }
}
