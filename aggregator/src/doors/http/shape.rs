//! Reads a request into its type, strictly, and says in plain words what does not fit: which field, what it must be,
//! and what it is.
//!
//! serde speaks of Rust's types (`invalid type: map, expected usize`). A client reads the words of JSON instead, which
//! are chosen here and nowhere else.

use std::cell::Cell;

use axum::extract::rejection::QueryRejection;
use proto::{Code, Problem};
use serde::{
    Deserialize,
    de::{DeserializeOwned, value::MapDeserializer},
};
use serde_json::{Map, Value};

use super::sql::QueryOptionsBody;

/// Characters of a request that a message repeats at once.
const EXCERPT_CHARS_MAX: usize = 100;

/// Reads a body, which must be an object.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if body.trim_ascii_start().starts_with(b"{") {
        return serde_json::from_slice(body).map_err(|error| misfit::<T>(body, &error));
    }
    // serde would take the items of a list for the fields, in their order.
    let value: Value = serde_json::from_slice(body).map_err(|error| not_json(&error))?;
    from_value(&value)
}

/// Reads a body that is parsed already. It must be an object, too.
pub(super) fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    let Value::Object(object) = value else {
        return Err(bad(format!("the body must be an object, not {}", kind(value))));
    };
    from_object(object).map_err(|(error, field)| {
        let message = error.to_string();
        // The options of a query are flattened into its body: they are read after all other fields.
        let option = || match from_object::<QueryOptionsBody>(object) {
            Err((same, field)) if same.to_string() == message => field,
            _ => None,
        };
        let field = field.or_else(option);
        bad(in_plain_words(
            &message,
            field,
            field.and_then(|field| object.get(field)),
        ))
    })
}

/// The problem of a query string that does not fit.
pub(super) fn bad_query(rejection: &QueryRejection) -> Problem {
    let text = rejection.body_text();
    let text = text
        .strip_prefix("Failed to deserialize query string: ")
        .unwrap_or(&text);
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let (field, message) = match text.split_once(": ") {
        Some((field, message)) if is_name(field) => (Some(field), message),
        _ => (None, text),
    };
    bad(in_plain_words(message, field, None))
}

/// The problem of a body that begins as an object and does not fit.
fn misfit<T: DeserializeOwned>(body: &[u8], error: &serde_json::Error) -> Problem {
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return not_json(&error),
    };
    match from_value::<T>(&value) {
        Err(problem) => problem,
        // It has a field twice: a value keeps only the last.
        Ok(_) => bad(in_plain_words(&error.to_string(), None, None)),
    }
}

/// Reads an object. An error comes with the field that was being read, if it was one.
fn from_object<T: DeserializeOwned>(object: &Map<String, Value>) -> Result<T, (serde_json::Error, Option<&str>)> {
    let current: Cell<Option<&str>> = Cell::new(None);
    let mut rest = object.iter();
    let fields = std::iter::from_fn(|| {
        let field = rest.next().map(|(name, value)| (name.as_str(), value));
        current.set(field.map(|(name, _)| name));
        field
    });
    let read: Result<T, serde_json::Error> =
        Deserialize::deserialize(MapDeserializer::<_, serde_json::Error>::new(fields));
    read.map_err(|error| (error, current.get()))
}

fn bad(detail: String) -> Problem {
    Problem::new(Code::BadRequest, detail)
}

fn not_json(error: &serde_json::Error) -> Problem {
    let why = error
        .to_string()
        .replace("EOF while parsing", "it ends within")
        .replace("expected ident", "expected true, false or null")
        .replace("expected value", "expected a value")
        .replace("recursion limit exceeded", "lists and objects are nested too deeply");
    bad(format!("the body cannot be read as JSON: {why}"))
}

/// An error of serde in the words of JSON. `field` is where it is, and `value` what that field has, if they are known.
fn in_plain_words(message: &str, field: Option<&str>, value: Option<&Value>) -> String {
    let subject = field.unwrap_or("a value");
    let (what, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    let mismatch = ["invalid type: ", "invalid value: "]
        .into_iter()
        .find_map(|prefix| what.strip_prefix(prefix))
        .filter(|_| !expected.is_empty());
    if let Some(found) = mismatch {
        let is_within = value.is_some_and(|value| is_within(value, found, expected));
        let place = if is_within { "a value in " } else { "" };
        return format!(
            "{place}{subject} must be {}, not {}",
            expected_kind(expected),
            found_value(found)
        );
    }
    if let Some(found) = what.strip_prefix("unknown variant ") {
        return format!("{subject} must be {expected}, not {}", excerpt(found));
    }
    if what.starts_with("unknown field ") {
        return match expected {
            "" => excerpt(what),
            _ => format!("{}, expected {expected}", excerpt(what)),
        };
    }
    if let Some(name) = message.strip_prefix("duplicate field `") {
        return format!("{} is given twice", name.split('`').next().unwrap_or(name));
    }
    match (message, field) {
        ("invalid digit found in string" | "cannot parse integer from empty string", _) => {
            format!("{subject} must be a whole number from 0")
        }
        ("number too large to fit in target type", _) => format!("{subject} is too large a number"),
        ("provided string was not `true` or `false`", _) => format!("{subject} must be true or false"),
        ("invalid value: expected key to be a number in quotes", _) => {
            format!("the names of the fields in {subject} must be whole numbers")
        }
        // As the types of this interface say it themselves.
        (sentence, _) if sentence.starts_with("must be ") => format!("{subject} {sentence}"),
        (sentence, Some(field)) => format!("{field}: {sentence}"),
        (sentence, None) => sentence.to_owned(),
    }
}

/// Whether what does not fit is inside of a list or an object, which itself fits.
fn is_within(value: &Value, found: &str, expected: &str) -> bool {
    let is_found = |value: &Value| {
        found.starts_with(match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "floating point",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "sequence",
            Value::Object(_) => "map",
        })
    };
    if is_found(value) && matches!(expected, "a sequence" | "a map") {
        return false;
    }
    match value {
        Value::Array(items) => !is_found(value) || items.iter().any(is_found),
        Value::Object(fields) => !is_found(value) || fields.values().any(is_found),
        _ => false,
    }
}

/// What was expected: serde's name of a type -> ours.
fn expected_kind(expected: &str) -> &str {
    match expected {
        "a string" | "string or map" => "a text",
        "a boolean" => "true or false",
        "usize" | "u64" => "a whole number from 0",
        "u32" => "a whole number from 0 to 4294967295",
        "i32" | "i64" => "a whole number",
        "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

/// What was found: serde's description of a value -> ours.
fn found_value(found: &str) -> String {
    if let Some(text) = found.strip_prefix("string ") {
        return format!("the text {}", excerpt(text));
    }
    match found {
        "sequence" => "a list".to_owned(),
        "map" => "an object".to_owned(),
        "unit value" => "null".to_owned(),
        // integer `5`
        scalar => scalar.split('`').nth(1).unwrap_or(scalar).to_owned(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::{extract::Query, http::Uri};

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Shelf {
        books: usize,
        width: Option<u32>,
        titles: Vec<String>,
        labels: BTreeMap<String, String>,
        rooms: BTreeMap<i32, Value>,
        open: bool,
        kind: ShelfKind,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum ShelfKind {
        #[default]
        Wood,
        Steel,
    }

    fn refused(body: &str) -> String {
        read::<Shelf>(body.as_bytes()).expect_err(body).detail
    }

    #[test]
    fn an_object_is_read_and_nothing_else_is_taken_for_one() {
        assert_eq!(read::<Shelf>(b" {} "), Ok(Shelf::default()));
        for (body, kind) in [
            ("[]", "a list"),
            ("[3]", "a list"),
            ("\"wood\"", "a text"),
            ("5", "a number"),
            ("true", "true"),
            ("null", "null"),
        ] {
            assert_eq!(refused(body), format!("the body must be an object, not {kind}"));
        }
    }

    #[test]
    fn a_field_that_does_not_fit_is_named_with_what_it_must_be() {
        for (body, words) in [
            (
                r#"{"books":"5"}"#,
                "books must be a whole number from 0, not the text \"5\"",
            ),
            (r#"{"books":-1}"#, "books must be a whole number from 0, not -1"),
            (r#"{"books":1.5}"#, "books must be a whole number from 0, not 1.5"),
            (r#"{"books":null}"#, "books must be a whole number from 0, not null"),
            (
                r#"{"width":5000000000}"#,
                "width must be a whole number from 0 to 4294967295, not 5000000000",
            ),
            (r#"{"books":1,"titles":{}}"#, "titles must be a list, not an object"),
            (r#"{"titles":{"a":{}}}"#, "titles must be a list, not an object"),
            (r#"{"titles":["a",1]}"#, "a value in titles must be a text, not 1"),
            (r#"{"labels":[]}"#, "labels must be an object, not a list"),
            (
                r#"{"labels":{"a":{}}}"#,
                "a value in labels must be a text, not an object",
            ),
            (
                r#"{"rooms":{"x":1}}"#,
                "the names of the fields in rooms must be whole numbers",
            ),
            (r#"{"open":"yes"}"#, "open must be true or false, not the text \"yes\""),
            (r#"{"kind":"rw"}"#, "kind must be `wood` or `steel`, not `rw`"),
            (r#"{"kind":5}"#, "kind must be a text, not 5"),
            (r#"{"books":1,"books":2}"#, "books is given twice"),
        ] {
            assert_eq!(refused(body), words, "{body}");
        }
        let unknown = refused(r#"{"boks":1}"#);
        assert!(
            unknown.starts_with("unknown field `boks`, expected one of "),
            "{unknown}"
        );
    }

    #[test]
    fn a_message_repeats_little_of_a_long_request() {
        let long = "x".repeat(10_000);
        for body in [
            format!(r#"{{"books":"{long}"}}"#),
            format!(r#"{{"kind":"{long}"}}"#),
            format!(r#"{{"{long}":1}}"#),
        ] {
            assert!(refused(&body).chars().count() < 300, "{}", refused(&body));
        }
    }

    #[test]
    fn a_body_that_is_not_json_is_called_that() {
        for (body, words) in [
            ("", "it ends within a value"),
            ("{\"books\":", "it ends within a value"),
            ("{\"books\":}", "expected a value"),
            ("disk full", "expected a value"),
            ("{\"books\":\"5\"", "it ends within an object"),
        ] {
            let detail = refused(body);
            assert!(
                detail.starts_with("the body cannot be read as JSON: ") && detail.contains(words),
                "{body}: {detail}"
            );
        }
    }

    #[test]
    fn a_parameter_of_a_query_string_is_named_with_what_it_must_be() {
        for (query, words) in [
            ("books=many", "books must be a whole number from 0"),
            ("books=", "books must be a whole number from 0"),
            ("books=-1", "books must be a whole number from 0"),
            ("books=99999999999999999999", "books is too large a number"),
            ("open=yes", "open must be true or false"),
            ("kind=rw", "kind must be `wood` or `steel`, not `rw`"),
            ("books=1&books=2", "books is given twice"),
            ("boks=1", "unknown field `boks`, expected one of "),
        ] {
            let uri: Uri = format!("/shelf?{query}").parse().expect("an address");
            let rejection = Query::<Shelf>::try_from_uri(&uri).expect_err(query);
            let detail = bad_query(&rejection).detail;
            assert!(detail.starts_with(words), "{query}: {detail}");
        }
    }
}
