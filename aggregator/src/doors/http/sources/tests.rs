//! Tests of `sources`.

use super::*;

fn parse(body: Value) -> Result<SourceSettings, Problem> {
    check(parse_settings(body)?, None)
}

#[test]
fn a_source_needs_only_collection_topic_and_servers() {
    let settings = parse(
        json!({"collection": "c", "topic": "t", "config": {"bootstrap.servers": "b:1", "fetch.wait.max.ms": 10}}),
    )
    .expect("a source");
    assert_eq!(
        (
            settings.rules.format,
            settings.rules.key,
            settings.config["fetch.wait.max.ms"].as_str()
        ),
        (Format::Json, None, "10")
    );
    let settings = parse(
        json!({"collection": "c", "topic": "t", "config": {"bootstrap.servers": "b:1"}, "format": "text", "key": "user.id", "start": "latest"}),
    );
    assert_eq!(
        settings.map(|s| s.rules.key),
        Ok(Some(record::Key::Path("user.id".into())))
    );
}

#[test]
fn unknown_keys_and_values_are_errors_that_name_them() {
    let with = |key: &str, value: Value| {
        let mut body = json!({"collection": "c", "topic": "t", "config": {"bootstrap.servers": "b:1"}});
        body[key] = value;
        parse(body).expect_err("an error")
    };
    for (key, value, named) in [
        ("partitons", json!(3), "partitons"),
        ("partitions", json!(3), "partitions"),
        ("format", json!("avro"), "avro"),
        ("start", json!("middle"), "middle"),
        ("collection", json!("Bad Name"), "Bad Name"),
        ("topic", json!(""), "topic"),
        ("key", json!("a..b"), "key"),
        (
            "config",
            json!({"bootstrap.servers": "b:1", "plugin.library.paths": "x"}),
            "plugin.library.paths",
        ),
        ("config", json!({}), "bootstrap.servers"),
    ] {
        let problem = with(key, value);
        assert!(
            problem.code == Code::BadRequest && problem.to_string().contains(named),
            "{key}: {problem}"
        );
    }
}

#[test]
fn a_preview_shows_why_a_record_would_not_become_a_document() {
    let one = |bytes: &'static [u8], format| {
        sample(
            0,
            &Record {
                value: record::RecordValue::One(bytes.into()),
                ..Record::default()
            },
            format,
        )
    };
    assert_eq!(one(b"{\"a\":1}", Format::Json)["document"], json!({"a": 1}));
    assert_eq!(one(b"{oops", Format::Json)["problem"]["code"], "not_json");
    assert_eq!(one(b"{oops", Format::Text)["problem"], Value::Null);
    assert_eq!(one(b"\xff", Format::Text)["problem"]["code"], "not_utf8");
}
