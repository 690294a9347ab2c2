//! Tests of parsers.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn object(format: Format, argument: &str, text: &str) -> Option<Value> {
    let parser = TextParser::compile(format, argument).unwrap_or_else(|problem| panic!("{argument}: {problem}"));
    let parsed = parser.parse_json(text, |_, _| ())?;
    Some(serde_json::from_str(&parsed).expect("JSON"))
}

fn refused(format: Format, argument: &str) -> String {
    match TextParser::compile(format, argument) {
        Ok(parser) => panic!("{argument} is accepted: {parser:?}"),
        Err(problem) => problem.to_string(),
    }
}

/// A line of the common log format.
const ACCESS: &str = r#"203.0.113.7 - ann [10/Oct/2026:13:55:36 +0000] "GET /a?b=1 HTTP/1.1" 404 -"#;

#[test]
fn grok_reads_named_patterns_with_types() {
    assert_eq!(
        object(
            Format::Grok,
            r"%{IP:client} %{WORD:method} %{NUMBER:status:int} %{NUMBER:took:float}ms",
            "x 1.2.3.4 GET 200 0.5ms"
        ),
        Some(json!({ "client": "1.2.3.4", "method": "GET", "status": 200, "took": 0.5 }))
    );
    assert_eq!(object(Format::Grok, "%{IP:client}", "no address"), None);
}

#[test]
fn grok_finds_whole_numbers() {
    for text in ["10.0.0.255", "10.0.0.201", "1.2.3.4", "255.255.255.255"] {
        assert_eq!(
            object(Format::Grok, "from %{IP:a}", &format!("from {text}")),
            Some(json!({ "a": text }))
        );
    }
    assert_eq!(
        object(Format::Grok, "%{TIME:a}", "at 12:34:60"),
        Some(json!({ "a": "12:34:60" }))
    );
}

#[test]
fn json_is_read_as_it_is() {
    assert_eq!(
        object(Format::Json, "", r#"{"a":{"b":7}}"#),
        Some(json!({ "a": { "b": 7 } }))
    );
    assert_eq!(object(Format::Json, "", "{"), None);
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(object(Format::Json, "", &nested(100)).is_some());
    assert_eq!(
        object(Format::Json, "", &nested(101)),
        None,
        "as deep as documents may be"
    );
}

#[test]
fn grok_knows_the_patterns_of_access_logs() {
    let found = object(Format::Grok, "%{COMMONAPACHELOG}", ACCESS).expect("it matches");
    for (path, expected) in [
        ("clientip", json!("203.0.113.7")),
        ("auth", json!("ann")),
        ("response", json!("404")),
    ] {
        assert_eq!(found[path], expected, "{path} of {found}");
    }
    assert_eq!(found.get("bytes"), None, "a part that did not match has no value");
}

#[test]
fn names_with_dots_or_brackets_are_paths() {
    let found = object(Format::Grok, "%{IP:client.ip} %{INT:[http][status]:int}", "1.2.3.4 200");
    assert_eq!(
        found,
        Some(json!({ "client": { "ip": "1.2.3.4" }, "http": { "status": 200 } }))
    );
}

#[test]
fn of_two_parts_with_one_name_the_first_that_matches_counts() {
    let pattern = r"user=%{WORD:user}|uid=%{INT:user}";
    assert_eq!(object(Format::Grok, pattern, "uid=7"), Some(json!({ "user": "7" })));
    assert_eq!(
        object(Format::Grok, pattern, "user=ann"),
        Some(json!({ "user": "ann" }))
    );
}

#[test]
fn a_definition_that_cannot_be_used_is_refused_with_the_reason() {
    for (format, argument, expected) in [
        (Format::Grok, "%{IPP:client}", "no pattern named IPP"),
        (Format::Grok, "%{IP:client:date}", "date is not a type"),
        (Format::Grok, "%{IP}", "no field"),
        (Format::Grok, "(%{IP:client}", "unclosed group"),
        (Format::Grok, "%{IP:a} %{IP:a.b}", "same path"),
        (Format::Regex, "[0-9]+", "no field"),
        (Format::Regex, "(?<a>x)(?=y)", "look-around"),
        (Format::Regex, "(?<a>(?:x{1000}){1000})", "takes more than"),
        (Format::Csv, ",a,,b", "empty"),
        (Format::Csv, ",a,a", "twice"),
        (Format::Csv, "", "separator"),
    ] {
        let message = refused(format, argument);
        assert!(message.contains(expected), "{argument}: {message}");
    }
    assert!(refused(Format::Regex, &"x".repeat(ARGUMENT_BYTES_MAX + 1)).contains("limit"));
    assert!(refused(Format::Grok, &"%{COMBINEDAPACHELOG}".repeat(400)).contains("over"));
}

#[test]
fn a_regular_expression_reads_its_named_groups() {
    let pattern = r"(?<level>\w+): (?<text>.*)";
    assert_eq!(
        object(Format::Regex, pattern, "warn: disk full"),
        Some(json!({ "level": "warn", "text": "disk full" }))
    );
}

#[test]
fn logfmt_reads_keys_with_and_without_quotes() {
    for (text, expected) in [
        ("level=info took=12ms", Some(json!({ "level": "info", "took": "12ms" }))),
        (
            r#"msg="GET \"/a\"" b="""#,
            Some(json!({ "msg": "GET \"/a\"", "b": "" })),
        ),
        ("at=x debug a=", Some(json!({ "at": "x", "debug": true, "a": "" }))),
        (r#"a="open b=1"#, Some(json!({ "a": "\"open", "b": "1" }))),
        ("a=1 a=2", Some(json!({ "a": "2" }))),
        (
            "level=info the level rose",
            Some(json!({ "level": "info", "the": true, "rose": true })),
        ),
        (
            "http.status=200 http.method=GET",
            Some(json!({ "http": { "status": "200", "method": "GET" } })),
        ),
        ("url=http://x/?q=1", Some(json!({ "url": "http://x/?q=1" }))),
        (r#"a="\q""#, Some(json!({ "a": r"\q" }))),
        ("a=\"x\ty \\\"z\\\"\"", Some(json!({ "a": "x\ty \"z\"" }))),
        ("a=1 a.b=2", Some(json!({ "a": "1", "a.b": "2" }))),
        (
            "a.b=1 then a.b and a",
            Some(json!({ "a": { "b": "1" }, "then": true, "and": true })),
        ),
        ("only words here", None),
        ("", None),
    ] {
        assert_eq!(object(Format::Logfmt, "", text), expected, "{text}");
    }
}

#[test]
fn csv_reads_as_many_values_as_it_has_names() {
    for (argument, text, expected) in [
        (",a,b", "1,2", Some(json!({ "a": "1", "b": "2" }))),
        (",a,b", "1,\r\n", Some(json!({ "a": "1" }))),
        (",a,b", r#""x, ""y""",2"#, Some(json!({ "a": "x, \"y\"", "b": "2" }))),
        (";a;b", "1;2,3", Some(json!({ "a": "1", "b": "2,3" }))),
        ("\ta\tb", "1\t2", Some(json!({ "a": "1", "b": "2" }))),
        (",a,b", "x\ny,1", None),
        (",a,b", "1", None),
        (",a,b", "1,2,3", None),
        (",a,b", "\"1\"\n\"2\"", None),
    ] {
        assert_eq!(object(Format::Csv, argument, text), expected, "{argument} {text}");
    }
}

#[test]
fn a_url_has_parts_whether_it_is_whole_or_a_path() {
    assert_eq!(
        object(Format::Url, "", "https://ann@example.com/a%20b?q=x%20y&q=2&r#top"),
        Some(json!({
            "scheme": "https", "user": "ann", "host": "example.com", "port": 443, "path": "/a%20b",
            "query": "q=x%20y&q=2&r", "fragment": "top", "params": { "q": "x y", "r": "" },
        }))
    );
    assert_eq!(
        object(Format::Url, "", "/a?q=1"),
        Some(json!({ "path": "/a", "query": "q=1", "params": { "q": "1" } }))
    );
    assert_eq!(
        object(Format::Url, "", "/../etc\\x?#"),
        Some(json!({ "path": "/../etc\\x", "params": {} }))
    );
    for other in ["no url", "example.com:8080/x", "example:443"] {
        assert_eq!(object(Format::Url, "", other), None, "{other}");
    }
    assert!(object(Format::Url, "", "mailto:ann@example.com").is_some());
}

#[test]
fn a_user_agent_names_a_browser_and_a_system() {
    let text = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 \
                Safari/537.36";
    let found = object(Format::UserAgent, "", text).expect("it is known");
    assert_eq!(
        (&found["name"], &found["category"]),
        (&json!("Chrome"), &json!("pc")),
        "{found}"
    );
    assert_eq!(object(Format::UserAgent, "", "no browser at all"), None);
}

#[test]
fn a_long_text_is_not_parsed() {
    let text = format!("a={}", "x".repeat(TEXT_BYTES_MAX));
    assert_eq!(object(Format::Logfmt, "", &text), None);
    assert_eq!(object(Format::Regex, "(?<a>.*)", &text), None);
    // So many states that a shorter text would take seconds.
    let (pattern, text) = ("(?<x>a[ab]{40000}c)", "ab".repeat(4_000));
    assert_eq!(object(Format::Regex, pattern, &text), None);
    let parser = TextParser::compile(Format::Regex, pattern).expect("a parser");
    assert!(parser.steps(&text) <= STEPS_MAX);
}

#[test]
fn a_path_has_a_limited_number_of_keys() {
    let dots = ".".repeat(TEXT_BYTES_MAX - 10);
    let found = object(Format::Logfmt, "", &format!("{dots}=1 a=2")).expect("two keys");
    assert_eq!((&found["a"], &found[&dots]), (&json!("2"), &json!("1")));
    let long = vec!["a"; PATH_KEYS_MAX + 1].join(".");
    assert!(refused(Format::Grok, &format!("%{{IP:{long}}}")).contains("keys"));
}

#[test]
fn values_overlap_as_much_as_groups_are_nested() {
    let overlap = |pattern: &str| {
        let parser = TextParser::compile(Format::Regex, pattern).expect("a parser");
        parser.overlap()
    };
    assert_eq!(overlap("(?<a>x)(?<b>y)"), 1);
    assert_eq!(overlap("(?<a>x(?<b>y(?:(?<c>z)|u)*))"), 3);
}

proptest! {
    #[test]
    fn no_text_stops_a_parser(text in r#"[a-c="\\ ,;/%?&\[\]é\n0-9.-]{0,60}"#) {
        for (format, argument) in [
            (Format::Logfmt, ""),
            (Format::Grok, "%{COMBINEDAPACHELOG}"),
            (Format::Csv, ",a,b"),
            (Format::Url, ""),
            (Format::UserAgent, ""),
        ] {
            let parser = TextParser::cached(format, argument).expect("a parser");
            if let Some(Value::Object(object)) = object(format, argument, &text) {
                let known: Option<BTreeMap<&str, FieldType>> = parser
                    .fields()
                    .map(|fields| fields.iter().map(|field| (field.name.as_str(), field.field_type)).collect());
                if let Some(known) = known {
                    prop_assert!(object.keys().all(|key| known.contains_key(key.as_str())));
                }
            }
        }
    }

    /// What a program writes as CSV is what the parser reads.
    #[test]
    fn csv_reads_what_a_library_writes(values in prop::collection::vec(r#"[a-c", \n]{1,8}"#, 3)) {
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        writer.write_record(&values).expect("a record");
        let line = String::from_utf8(writer.into_inner().expect("its bytes")).expect("a text");
        let expected: Map<String, Value> =
            ["a", "b", "c"].into_iter().map(str::to_owned).zip(values.into_iter().map(Value::from)).collect();
        prop_assert_eq!(object(Format::Csv, ",a,b,c", &line), Some(Value::Object(expected)));
    }
}
