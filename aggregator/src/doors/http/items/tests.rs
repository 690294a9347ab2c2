//! Tests of `items`.

use super::*;

fn items(body: &str, format: PushFormat) -> Result<Vec<String>, Code> {
    split(&Bytes::copy_from_slice(body.as_bytes()), format)
        .map(|items| {
            items
                .iter()
                .map(|item| String::from_utf8_lossy(item).into_owned())
                .collect()
        })
        .map_err(|p| p.code)
}

fn by_content(body: &str) -> Result<Vec<String>, Code> {
    items(body, PushFormat::ByContent)
}

fn texts(texts: &[&str]) -> Result<Vec<String>, Code> {
    Ok(texts.iter().map(|text| (*text).to_owned()).collect())
}

#[test]
fn array_elements_are_verbatim() {
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
fn each_line_that_is_not_blank_is_an_item_even_if_it_is_not_json() {
    assert_eq!(
        by_content("{\"a\":1}\r\n\n  \n{oops\n 7 \n"),
        texts(&["{\"a\":1}", "{oops", " 7 "])
    );
    assert_eq!(items("[1]\n[2,3]\n", PushFormat::Lines), texts(&["[1]", "[2,3]"]));
    assert_eq!(by_content("{\"a\":1}"), texts(&["{\"a\":1}"]));
    assert_eq!(
        by_content("\u{feff}{\"a\":1}\n"),
        texts(&["{\"a\":1}"]),
        "a byte order mark is not part of a document"
    );
}

#[test]
fn a_document_may_span_several_lines() {
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
        items("{\n}\n", PushFormat::Lines),
        texts(&["{", "}"]),
        "NDJSON is always split into lines"
    );
}

#[test]
fn an_error_among_multiline_documents_rejects_the_body_and_one_among_lines_only_the_line() {
    assert_eq!(by_content("{\n  \"a\": 1\n}\n{\n  \"a\" 2\n}"), Err(Code::BadRequest));
    assert_eq!(
        by_content("{\"a\":1}\n{\"a\":\n{\"b\":2}\n"),
        texts(&["{\"a\":1}", "{\"a\":", "{\"b\":2}"])
    );
    assert_eq!(
        by_content("{\"a\":\n1}\n{\"b\":2}\noops"),
        texts(&["{\"a\":", "1}", "{\"b\":2}", "oops"]),
        "a line that is a document is an item"
    );
    assert_eq!(
        by_content("1 2\n{\"a\":1}"),
        texts(&["1 2", "{\"a\":1}"]),
        "several values on one line stay one item"
    );
}

#[test]
fn a_malformed_array_is_one_error() {
    for body in ["[1,2", "[1]\n[2]", "[{oops}]", "[1,]"] {
        assert_eq!(by_content(body), Err(Code::BadRequest), "{body}");
    }
    assert_eq!(
        split(&Bytes::from_static(b"[\"\xff\"]"), PushFormat::ByContent).map_err(|p| p.code),
        Err(Code::BadRequest)
    );
}

#[test]
fn a_body_without_items_is_rejected() {
    for body in ["", " \n\n ", "[]", " [ ] "] {
        assert_eq!(by_content(body), Err(Code::BadRequest), "{body:?}");
    }
}

#[test]
fn json_and_text_content_types_pass_and_others_do_not() {
    assert_eq!(PushFormat::of(None).ok(), Some(PushFormat::ByContent));
    assert_eq!(
        PushFormat::of(Some("application/json; charset=utf-8")).ok(),
        Some(PushFormat::ByContent)
    );
    assert_eq!(
        PushFormat::of(Some("Application/X-NDJSON")).ok(),
        Some(PushFormat::Lines)
    );
    assert_eq!(
        PushFormat::of(Some("application/vnd.api+json")).ok(),
        Some(PushFormat::ByContent)
    );
    for other in [
        "multipart/form-data; boundary=x",
        "application/xml",
        "image/png",
        "application/vnd.apache.arrow.stream",
    ] {
        assert_eq!(
            PushFormat::of(Some(other)).map_err(|p| p.code),
            Err(Code::UnsupportedMedia),
            "{other}"
        );
    }
}

#[test]
fn too_many_items_are_rejected() {
    assert_eq!(by_content(&"1\n".repeat(PUSH_ITEMS_MAX + 1)), Err(Code::TooLarge));
    assert_eq!(
        by_content(&"1\n".repeat(PUSH_ITEMS_MAX)).map(|items| items.len()),
        Ok(PUSH_ITEMS_MAX)
    );
}

#[test]
fn the_values_of_a_column_are_documents_byte_for_byte() {
    let split = |format, body: &'static [u8]| split(&Bytes::from_static(body), format).expect("items");
    let objects = br#"{"_doc":" {\"a\" :\n1.50}\u0000","x":1}
{"x":{"_doc":"y"},"_doc":{"b" : 2}}
{"_doc":7.10}
"#;
    assert_eq!(
        values_of("_doc", &split(PushFormat::Lines, objects)),
        Ok([" {\"a\" :\n1.50}\0", "{\"b\" : 2}", "7.10"].map(Bytes::from).to_vec())
    );
    let rows = b"x,_doc\n1,\"{\"\"a\"\" : 1,\n\"\"b\"\":2}\"\n";
    assert_eq!(
        values_of("_doc", &split(PushFormat::Csv, rows)),
        Ok(vec![Bytes::from("{\"a\" : 1,\n\"b\":2}")])
    );
}

#[test]
fn an_item_without_the_column_is_named_and_nothing_is_taken() {
    for item in [r#"{"x":1}"#, r#"{"_doc":null}"#, "[1]", "oops", r#"{"_doc":"\ud800"}"#] {
        let items = [Bytes::from_static(b"{\"_doc\":1}"), Bytes::from(item)];
        let problem = values_of("_doc", &items).expect_err(item).to_string();
        assert!(
            problem.contains("item 1 of the body has no value at \"_doc\""),
            "{problem}"
        );
    }
}
