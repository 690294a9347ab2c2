//! Tests of `json`.

use super::*;

fn text(text: &str) -> Value<'_> {
    Value::Text(text.into())
}

#[test]
fn valid_json_is_parsed() {
    let cases = [
        ("1", Value::Int(1)),
        ("-0", Value::Float(-0.0)),
        ("1.0", Value::Float(1.0)),
        ("1e2", Value::Float(100.0)),
        ("9223372036854775807", Value::Int(i64::MAX)),
        ("-9223372036854775808", Value::Int(i64::MIN)),
        ("9223372036854775808", Value::Float(9223372036854775808.0)),
        ("123456789012345678901234567890", Value::Float(1.2345678901234568e29)),
        ("1e400", Value::Big("1e400".into())),
        (r#""\ud800""#, text("\u{FFFD}")),
        (r#""\ud83d\ude00""#, text("😀")),
        (r#""\u0000""#, text("\0")),
        (
            r#" {"a":1,"b":2,"a":3} "#,
            Value::Object(vec![("b".into(), Value::Int(2)), ("a".into(), Value::Int(3))]),
        ),
        (
            r#"{"\udc00x":[null,true,1e999]}"#,
            Value::Object(vec![(
                "\u{FFFD}x".into(),
                Value::Array(vec![Value::Null, Value::Bool(true), Value::Big("1e999".into())]),
            )]),
        ),
    ];
    for (json, value) in cases {
        assert_eq!(parse(json.as_bytes()), Ok(value.clone()), "{json}");
        assert_eq!(from_raw(json).ok(), Some(value), "{json}, by the slow parser");
    }
}

#[test]
fn invalid_json_is_refused() {
    for json in [
        "",
        "  ",
        "{",
        "nul",
        "01",
        "1.",
        ".5",
        "+1",
        "NaN",
        "'a'",
        "{\"a\":1,}",
        "[1,]",
        "1 2",
        "\"a\nb\"",
        "\"\\x\"",
        "\"\\ud8\"",
        "{a:1}",
        "\u{feff}1",
    ] {
        assert!(parse(json.as_bytes()).is_err(), "{json:?} is refused");
    }
    assert!(parse(b"\"\xff\"").is_err(), "invalid UTF-8 is refused");
    assert_eq!(parse(&b"[".repeat(101)), Err(JsonError::TooDeep));
    let deepest = format!("{}{}", "[".repeat(100), "]".repeat(100));
    assert!(parse(deepest.as_bytes()).is_ok());
    assert!(parse(format!("[{deepest}]").as_bytes()).is_err());
    assert!(
        parse(format!("\"{}\"", "[".repeat(500)).as_bytes()).is_ok(),
        "brackets in a string do not nest"
    );
}

#[test]
fn raw_at_returns_verbatim_text() {
    let document = r#" {"a": {"b": [1.50, {"c" : "x\u0041"}]}, "n":1e2, "a.b":3, "n": -0 }"#;
    let at = |path: &[Step<&str>]| raw_at(document, path);
    assert_eq!(at(&[Step::Key("a"), Step::Key("b"), Step::Index(0)]), Some("1.50"));
    assert_eq!(
        at(&[Step::Key("a"), Step::Key("b"), Step::Index(1), Step::Key("c")]),
        Some(r#""x\u0041""#)
    );
    assert_eq!(at(&[Step::Key("n")]), Some("-0"), "the last key wins");
    assert_eq!(at(&[Step::Key("a.b")]), Some("3"));
    assert_eq!(at(&[Step::Key("a"), Step::Index(0)]), None);
    assert_eq!(at(&[]), Some(document.trim()));
}

#[test]
fn an_object_of_200_000_keys_is_parsed_quickly() {
    let entries: Vec<String> = (0..200_000).map(|i| format!("\"k{i}\":{i}")).collect();
    let document = format!("{{{}}}", entries.join(","));
    assert!(matches!(parse(document.as_bytes()), Ok(Value::Object(entries)) if entries.len() == 200_000));
}

/// JSON text with the hard cases: escapes, surrogates, odd numbers, duplicate keys, white space.
fn any_json() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let string = prop::collection::vec(
        prop_oneof![
            "[a-z]{1,3}",
            Just(r"\n".into()),
            Just(r"\ud800".into()),
            Just(r"\udc00".into()),
            Just(r"\u0000".into()),
            Just("é😀".into())
        ],
        0..4,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,25})",
        "-?[0-9]\\.[0-9]{1,20}",
        "[1-9]e[+-]?[0-9]{1,3}"
    ];
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".into()),
        Just("false".into()),
        number,
        string.clone()
    ];
    scalar.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[ {} ]", items.join(" , "))),
            prop::collection::vec((string.clone(), inner), 0..5).prop_map(|entries| format!(
                "{{{}}}",
                entries
                    .iter()
                    .map(|(key, value)| format!("{key} : {value}"))
                    .collect::<Vec<_>>()
                    .join(",")
            )),
        ]
    })
}

proptest::proptest! {
    #[test]
    fn both_parsers_agree_on_all_json(json in any_json()) {
        let value = parse(json.as_bytes());
        proptest::prop_assert!(value.is_ok(), "{json} is refused");
        proptest::prop_assert_eq!(value.ok(), from_raw(&json).ok());
    }

    #[test]
    fn text_that_a_strict_parser_refuses_is_refused(text in "[\\[\\]{}:,\"0-9a-z.eE+\\- \\\\\n\t]{0,24}") {
        let strict = serde_json::from_str::<&RawValue>(&text).is_ok();
        proptest::prop_assert_eq!(parse(text.as_bytes()).is_ok(), strict, "{:?}", text);
    }
}

proptest::proptest! {
    #[test]
    fn the_last_of_equal_keys_wins_in_objects_of_any_size(
        keys in proptest::collection::vec("[ab]{0,2}|key_[a-c]{8,10}_url", 0..20),
        unique in 0..400usize,
    ) {
        let unique = (0..unique).map(|number| format!("u{number}"));
        let keys: Vec<String> = keys.iter().cloned().chain(unique).chain(keys.iter().rev().step_by(3).cloned()).collect();
        let entries: Vec<String> = keys.iter().zip(0..).map(|(key, value)| format!("\"{key}\":{value}")).collect();
        let expected = keys.iter().zip(0..).filter(|(key, index)| !keys[index + 1..].contains(key));
        let expected = expected.map(|(key, value)| (key.as_str().into(), Value::Int(value as i64))).collect();
        let json = format!("{{{}}}", entries.join(","));
        proptest::prop_assert_eq!(parse(json.as_bytes()), Ok(Value::Object(expected)));
    }
}

#[test]
fn fuzzed_documents_are_parsed_exactly_if_they_are_json() {
    let corpus = [
        r#"{"user":{"name":"ada"},"ms":12,"tags":["a",null,true],"t":"2026-01-31T08:00:00Z"}"#,
        r#" [1, -0.5e-3, 1e400, "\u00e9\ud83d\ude00\n", {}, [], ""] "#,
        "{\"a\":18446744073709551616}",
        "\"\u{1f600}\"",
    ];
    fuzz::fuzz("documents", corpus, |input| {
        let parsed = parse(input);
        let strict = std::str::from_utf8(input).is_ok_and(|text| serde_json::from_str::<&RawValue>(text).is_ok());
        assert_eq!(parsed.is_ok(), strict, "{parsed:?}");
        let _ = crate::wire::push::decode(&bytes::Bytes::copy_from_slice(input));
    });
}
