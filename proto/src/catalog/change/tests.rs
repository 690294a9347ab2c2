//! Tests of `change`.

use super::*;

fn name(text: &str) -> CollectionName {
    text.parse().expect("a name")
}

fn with(changes: Vec<Change>) -> (Catalog, Result<(), Problem>) {
    changes
        .into_iter()
        .fold((Catalog::default(), Ok(())), |(catalog, _), change| {
            catalog.apply(&ChangeRecord {
                uid: Uuid::now_v7(),
                level: CATALOG_RULES_LEVEL,
                expected: None,
                change,
            })
        })
}

fn create(text: &str) -> Change {
    Change::CreateCollection {
        name: name(text),
        settings: CollectionSettings::default(),
        placement: Vec::new(),
    }
}

fn field(text: &str, uses: &[&str], replace: bool) -> Change {
    let id = |text: &str| DefinitionId::field(name("events"), text);
    Change::Define {
        id: id(text),
        text: "1".into(),
        uses: uses.iter().map(|u| id(u)).collect(),
        reads: vec![],
        replace,
    }
}

#[test]
fn version_numbers_are_not_reused_after_a_drop() {
    let drop = Change::Undefine {
        id: DefinitionId::field(name("events"), "a"),
        if_exists: false,
    };
    let (catalog, result) = with(vec![
        create("events"),
        field("a", &[], false),
        field("a", &[], true),
        drop,
        field("a", &[], false),
    ]);
    assert_eq!(result, Ok(()));
    assert_eq!(catalog.field(&name("events"), "a").map(|d| d.current().number), Some(3));
}

#[test]
fn cycles_and_drops_of_used_definitions_are_refused_with_a_reason() {
    let (catalog, result) = with(vec![
        create("events"),
        field("a", &[], false),
        field("b", &["a"], false),
        field("c", &["b"], false),
        field("a", &["c"], true),
    ]);
    let problem = result.expect_err("a cycle");
    assert_eq!(
        problem.detail,
        "field events.a would use itself: field events.a -> field events.c -> field events.b -> field events.a"
    );
    let uid = Uuid::now_v7();
    let change = Change::Undefine {
        id: DefinitionId::field(name("events"), "b"),
        if_exists: false,
    };
    let (after, result) = catalog.apply(&ChangeRecord {
        uid,
        level: CATALOG_RULES_LEVEL,
        expected: None,
        change,
    });
    assert_eq!(
        result.expect_err("in use").detail,
        "field events.b is used by field events.c"
    );
    assert_eq!(after.definitions, catalog.definitions);
    let (_, result) = with(vec![create("events"), field("a", &["a"], false)]);
    assert_eq!(
        result.expect_err("itself").hint.as_deref(),
        Some("to reach the stored value of the same name, write _doc->'a'")
    );
}

#[test]
fn a_catalog_round_trips_through_json() {
    let (catalog, _) = with(vec![
        create("events"),
        field("a", &[], false),
        field("b", &["a"], false),
    ]);
    let json = serde_json::to_string(&catalog).expect("json");
    assert_eq!(serde_json::from_str::<Catalog>(&json).ok(), Some(catalog));
}

#[test]
fn a_change_based_on_an_old_version_is_a_conflict() {
    let (catalog, _) = with(vec![create("events")]);
    let record = |expected| ChangeRecord {
        uid: Uuid::now_v7(),
        level: CATALOG_RULES_LEVEL,
        expected: Some(expected),
        change: Change::DropCollection { name: name("events") },
    };
    assert_eq!(catalog.apply(&record(7)).1.map_err(|p| p.code), Err(Code::Conflict));
    assert_eq!(catalog.apply(&record(1)).1, Ok(()));
}

fn put_source(topic: &str, format: &str) -> Change {
    let settings = format!(r#"{{"collection":"events","topic":"{topic}","config":{{}},"format":"{format}"}}"#);
    Change::PutSource {
        name: "clicks".parse().expect("a name"),
        settings: serde_json::from_str(&settings).expect("settings"),
    }
}

#[test]
fn a_source_with_the_name_of_a_dropped_one_keeps_its_rules_and_skips() {
    let source: SourceName = "clicks".parse().expect("a name");
    let skips: Skips = serde_json::from_str(r#"{"3":[{"from":1,"to":7}]}"#).expect("skips");
    let skip = Change::SkipSource {
        name: source.clone(),
        skips: skips.clone(),
    };
    let drop = Change::DropSource { name: source.clone() };
    let begin = vec![create("events"), put_source("t", "json"), skip, drop];
    let (catalog, result) = with(begin.clone());
    assert_eq!(result, Ok(()));
    let json = serde_json::to_string(&catalog).expect("json");
    assert_eq!(serde_json::from_str::<Catalog>(&json).ok(), Some(catalog));
    for other in [put_source("other", "json"), put_source("t", "text")] {
        let (catalog, result) = with([begin.clone(), vec![other]].concat());
        assert_eq!(result.map_err(|p| p.code), Err(Code::Conflict));
        assert!(catalog.sources.is_empty());
    }
    let (catalog, result) = with([begin, vec![put_source("t", "json")]].concat());
    assert_eq!(result, Ok(()));
    assert_eq!(catalog.sources[&source].skips, skips);
    assert!(catalog.collections[&name("events")].retired_sources.is_empty());
}
