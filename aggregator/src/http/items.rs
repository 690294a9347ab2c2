//! The body of a push -> its items, verbatim: slices of what was sent, never written anew.
//!
//! Unless the content type says NDJSON, a body that begins with `[` is a list and each element is an item; a body of
//! JSON values of which one spreads over lines is these values; of any other body each line that is not blank is one.
//! Whether an item is JSON is judged later, one by one: its neighbours are kept.

use bytes::Bytes;
use proto::{Code, Problem, limits::PUSH_ITEMS_MAX};
use serde_json::value::RawValue;

use super::foreign;

/// What the content type says of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Lines, whatever they begin with.
    Lines,
    /// By what the body looks like.
    ByContent,
}

impl Form {
    /// What a content type means. Clients send JSON under many names, so all texts pass; what is surely something else
    /// is refused.
    pub fn of(content_type: Option<&str>) -> Result<Self, Problem> {
        let essence = content_type
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        match essence.as_str() {
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonl"
            | "application/jsonlines"
            | "application/x-jsonlines"
            | "application/json-lines"
            | "text/x-ndjson" => Ok(Self::Lines),
            "" | "application/json" | "application/x-www-form-urlencoded" | "application/octet-stream" => {
                Ok(Self::ByContent)
            }
            text if text.starts_with("text/") || text.ends_with("+json") => Ok(Self::ByContent),
            other => Err(
                Problem::new(Code::UnsupportedMedia, format!("a push cannot be {other:?}"))
                    .hint("send application/json or application/x-ndjson"),
            ),
        }
    }
}

/// The items of a body; at least one.
pub(super) fn split(body: &Bytes, form: Form) -> Result<Vec<Bytes>, Problem> {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    let body = if body.starts_with(BYTE_ORDER_MARK) {
        body.slice(BYTE_ORDER_MARK.len()..)
    } else {
        body.clone()
    };
    foreign::refuse(&body)?;
    let items = match form {
        Form::ByContent if body.trim_ascii_start().starts_with(b"[") => elements(&body)?,
        Form::ByContent if may_spread(&body) => values_over_lines(&body)?.map_or_else(|| lines(&body), Ok)?,
        _ => lines(&body)?,
    };
    match items.is_empty() {
        false => Ok(items),
        true => Err(Problem::new(Code::BadRequest, "the body holds no document")
            .hint("send a JSON document, a list of them, or one on each line")),
    }
}

fn elements(body: &Bytes) -> Result<Vec<Bytes>, Problem> {
    let not_a_list = |reason: String| {
        Problem::new(
            Code::BadRequest,
            format!("the body begins with [ and is not a list of JSON values: {reason}"),
        )
        .hint("if each line is a document of its own, send it as application/x-ndjson")
    };
    let text = std::str::from_utf8(body).map_err(|e| not_a_list(e.to_string()))?;
    let items = proto::json::raw_items(text.trim_ascii()).map_err(|e| not_a_list(e.to_string()))?;
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

/// Whether a value may spread over lines: some line is surely no value by itself.
fn may_spread(body: &Bytes) -> bool {
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

/// The values of a body, where at least one spreads over lines. None, where each line is to be judged by itself; an
/// error, where values that spread over lines end in something else: its lines would be no documents.
fn values_over_lines(body: &Bytes) -> Result<Option<Vec<Bytes>>, Problem> {
    let (mut items, mut spread, mut line) = (Vec::new(), false, 1);
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
    while let Some(value) = values.next() {
        match value {
            Ok(_) if items.len() == PUSH_ITEMS_MAX => return Err(too_many()),
            Ok(value) => {
                spread |= value.get().contains('\n');
                items.push(body.slice_ref(value.get().as_bytes()));
                line = 1 + body[..values.byte_offset()]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count();
            }
            // It begins on the line where the one before ends, or after blank ones: what is wrong further below is
            // inside of it.
            Err(error) if (spread || error.line() > line + 1) && !has_line_document(body) => {
                let detail = format!(
                    "document {} of the body is not JSON: {error}; nothing was stored",
                    items.len()
                );
                return Err(Problem::new(Code::BadRequest, detail).hint("correct it and send the body again"));
            }
            Err(_) => return Ok(None),
        }
    }
    Ok(spread.then_some(items))
}

/// Whether a line looks like an object of its own, so that the body may be lines after all.
fn has_line_document(body: &Bytes) -> bool {
    body.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .any(|line| line.len() > 2 && line.starts_with(b"{") && line.ends_with(b"}"))
}

fn too_many() -> Problem {
    Problem::new(
        Code::TooLarge,
        format!("the body has more than {PUSH_ITEMS_MAX} documents"),
    )
    .hint("send it in several requests")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(body: &str, form: Form) -> Result<Vec<String>, Code> {
        split(&Bytes::copy_from_slice(body.as_bytes()), form)
            .map(|items| {
                items
                    .iter()
                    .map(|item| String::from_utf8_lossy(item).into_owned())
                    .collect()
            })
            .map_err(|p| p.code)
    }

    fn by_content(body: &str) -> Result<Vec<String>, Code> {
        items(body, Form::ByContent)
    }

    fn texts(texts: &[&str]) -> Result<Vec<String>, Code> {
        Ok(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn elements_of_a_list_are_verbatim() {
        assert_eq!(
            by_content(" [ {\"b\":1.50, \"a\" : 1e2} , [1,2],\"x\\u0041\" , null]\n"),
            texts(&["{\"b\":1.50, \"a\" : 1e2}", "[1,2]", "\"x\\u0041\"", "null"])
        );
        assert_eq!(
            by_content("[{\"n\":123456789012345678901234567890}]"),
            texts(&["{\"n\":123456789012345678901234567890}"])
        );
    }

    #[test]
    fn each_line_that_is_not_blank_is_an_item_be_it_json_or_not() {
        assert_eq!(
            by_content("{\"a\":1}\r\n\n  \n{oops\n 7 \n"),
            texts(&["{\"a\":1}", "{oops", " 7 "])
        );
        assert_eq!(items("[1]\n[2,3]\n", Form::Lines), texts(&["[1]", "[2,3]"]));
        assert_eq!(by_content("{\"a\":1}"), texts(&["{\"a\":1}"]));
        assert_eq!(
            by_content("\u{feff}{\"a\":1}\n"),
            texts(&["{\"a\":1}"]),
            "a byte order mark is no part of a document"
        );
    }

    #[test]
    fn a_document_may_spread_over_lines() {
        assert_eq!(by_content("{\n  \"a\": 1\n}\n"), texts(&["{\n  \"a\": 1\n}"]));
        assert_eq!(
            by_content("{\n  \"a\": 1\n}\n{\"b\":2}"),
            texts(&["{\n  \"a\": 1\n}", "{\"b\":2}"])
        );
        assert_eq!(
            by_content("{\"b\":2}\n{\"a\":\n1}{\n}\n7"),
            texts(&["{\"b\":2}", "{\"a\":\n1}", "{\n}", "7"])
        );
        assert_eq!(
            items("{\n}\n", Form::Lines),
            texts(&["{", "}"]),
            "lines are lines where that was said"
        );
    }

    #[test]
    fn a_fault_among_documents_over_lines_refuses_them_all_and_one_among_lines_only_itself() {
        assert_eq!(by_content("{\n  \"a\": 1\n}\n{\n  \"a\" 2\n}"), Err(Code::BadRequest));
        assert_eq!(
            by_content("{\"a\":1}\n{\"a\":\n{\"b\":2}\n"),
            texts(&["{\"a\":1}", "{\"a\":", "{\"b\":2}"])
        );
        assert_eq!(
            by_content("{\"a\":\n1}\n{\"b\":2}\noops"),
            texts(&["{\"a\":", "1}", "{\"b\":2}", "oops"]),
            "a line that is one is kept"
        );
        assert_eq!(
            by_content("1 2\n{\"a\":1}"),
            texts(&["1 2", "{\"a\":1}"]),
            "several values of one line stay what they were"
        );
    }

    #[test]
    fn a_list_that_is_none_is_one_error() {
        for body in ["[1,2", "[1]\n[2]", "[{oops}]", "[1,]"] {
            assert_eq!(by_content(body), Err(Code::BadRequest), "{body}");
        }
        assert_eq!(
            split(&Bytes::from_static(b"[\"\xff\"]"), Form::ByContent).map_err(|p| p.code),
            Err(Code::BadRequest)
        );
    }

    #[test]
    fn a_body_without_any_item_is_refused() {
        for body in ["", " \n\n ", "[]", " [ ] "] {
            assert_eq!(by_content(body), Err(Code::BadRequest), "{body:?}");
        }
    }

    #[test]
    fn content_types_of_json_pass_and_others_do_not() {
        assert_eq!(Form::of(None).ok(), Some(Form::ByContent));
        assert_eq!(
            Form::of(Some("application/json; charset=utf-8")).ok(),
            Some(Form::ByContent)
        );
        assert_eq!(Form::of(Some("Application/X-NDJSON")).ok(), Some(Form::Lines));
        assert_eq!(Form::of(Some("application/vnd.api+json")).ok(), Some(Form::ByContent));
        for other in [
            "multipart/form-data; boundary=x",
            "application/xml",
            "image/png",
            "application/vnd.apache.arrow.stream",
        ] {
            assert_eq!(
                Form::of(Some(other)).map_err(|p| p.code),
                Err(Code::UnsupportedMedia),
                "{other}"
            );
        }
    }

    #[test]
    fn too_many_items_are_refused() {
        assert_eq!(by_content(&"1\n".repeat(PUSH_ITEMS_MAX + 1)), Err(Code::TooLarge));
        assert_eq!(
            by_content(&"1\n".repeat(PUSH_ITEMS_MAX)).map(|items| items.len()),
            Ok(PUSH_ITEMS_MAX)
        );
    }
}
