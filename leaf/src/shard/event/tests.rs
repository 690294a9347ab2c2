//! Tests of `event`.

use super::*;

fn push(item: &str) -> Event<'_> {
    let key_rule = KeyRule::of(&Rules::default(), true).expect("rules");
    classify(Some(item.as_bytes()), None, Format::Json, &key_rule)
}

fn id_of(event: Event) -> Result<Option<String>, &'static str> {
    match event {
        Event::Document { id, .. } => Ok(id.map(|id| id.to_string())),
        Event::Tombstone { .. } => Err("tombstone"),
        Event::DeadLetter { code, .. } => Err(code),
    }
}

#[test]
fn a_push_uses_its_top_level_id_as_key() {
    assert_eq!(id_of(push(r#"{"_id":"a"}"#)), Ok(Some("a".into())));
    assert_eq!(id_of(push(r#"{"_id":-7}"#)), Ok(Some("-7".into())));
    for unnamed in [
        r#"{"a":1}"#,
        r#"{"_id":null}"#,
        "[1]",
        "3",
        "null",
        r#"{"x":{"_id":"a"}}"#,
    ] {
        assert_eq!(id_of(push(unnamed)), Ok(None), "{unnamed}");
    }
    let long = format!(r#"{{"_id":"{}"}}"#, "x".repeat(513));
    for bad in [
        r#"{"_id":""}"#,
        r#"{"_id":1.5}"#,
        r#"{"_id":true}"#,
        r#"{"_id":["a"]}"#,
        r#"{"_id":"clicks/0@1"}"#,
        r#"{"_id":"push/3@4.5"}"#,
        &long,
    ] {
        assert_eq!(id_of(push(bad)), Err("bad_id"), "{bad}");
    }
}

#[test]
fn unusable_items_have_a_code() {
    for (item, code) in [
        ("", "empty"),
        (" \n", "empty"),
        ("{", "not_json"),
        ("\u{feff}1", "not_json"),
    ] {
        assert_eq!(id_of(push(item)), Err(code), "{item:?}");
    }
    assert_eq!(id_of(push(&"[".repeat(101))), Err("too_deep"));
    assert_eq!(
        id_of(push(&format!("\"{}\"", "x".repeat(DOCUMENT_BYTES_MAX)))),
        Err("too_big")
    );
    let text = |bytes| id_of(classify(Some(bytes), None, Format::Text, &KeyRule::Unnamed));
    assert_eq!(
        (text(b""), text(b" "), text(b"\xff")),
        (Err("empty"), Ok(None), Err("not_text"))
    );
}

#[test]
fn the_key_of_a_source_follows_its_rules() {
    let key_rule = |key: &str| {
        KeyRule::of(
            &Rules {
                key: Some(key.to_owned().into()),
                ..Rules::default()
            },
            false,
        )
        .expect("rules")
    };
    let read = |value: Option<&'static str>, key: Option<&'static str>, key_rule: &KeyRule| {
        classify(value.map(str::as_bytes), key.map(str::as_bytes), Format::Json, key_rule)
    };
    assert_eq!(
        id_of(read(Some("{}"), Some("k"), &key_rule("record"))),
        Ok(Some("k".into()))
    );
    assert_eq!(id_of(read(Some("{}"), None, &key_rule("record"))), Ok(None));
    assert_eq!(id_of(read(Some("{}"), Some(""), &key_rule("record"))), Err("bad_id"));
    assert_eq!(
        read(None, Some("k"), &key_rule("record")),
        Event::Tombstone { id: Some("k".into()) }
    );
    assert_eq!(read(None, Some("k"), &KeyRule::Unnamed), Event::Tombstone { id: None });
    assert_eq!(
        id_of(read(
            Some(r#"{"u":[{"id":7}],"_id":"x"}"#),
            Some("k"),
            &key_rule("u[0].id")
        )),
        Ok(Some("7".into()))
    );
    assert_eq!(
        id_of(read(Some(r#"{"_id":"x"}"#), Some("k"), &KeyRule::Unnamed)),
        Ok(None),
        "only a push has _id"
    );
    assert!(
        KeyRule::of(
            &Rules {
                key: Some("a..b".to_owned().into()),
                ..Rules::default()
            },
            false
        )
        .is_err()
    );
}
