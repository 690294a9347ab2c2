//! Tests of `change`.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::{
    catalog::VersionRef,
    limits::{DELETIONS_MAX, RETIRED_NAMES_MAX},
};

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

/// The catalog after a change, if it is accepted, else the code of the refusal.
pub(super) fn apply(catalog: &Catalog, change: Change) -> Result<Catalog, Code> {
    let record = ChangeRecord {
        uid: Uuid::now_v7(),
        level: CATALOG_RULES_LEVEL,
        expected: None,
        change,
    };
    // As the change log has it.
    let json = serde_json::to_vec(&record).expect("JSON");
    let record = serde_json::from_slice(&json).expect("a record");
    let (next, result) = catalog.apply(&record);
    // And as a node keeps it.
    let saved = serde_json::to_vec(&next).expect("JSON");
    assert_eq!(serde_json::from_slice::<Catalog>(&saved).expect("a catalog"), next);
    result.map(|()| next).map_err(|problem| problem.code)
}

fn create(text: &str) -> Change {
    Change::CreateCollection {
        name: name(text),
        settings: CollectionSettings::default(),
        placement: Vec::new(),
    }
}

fn field(text: &str, uses: &[&str], replace: bool) -> Change {
    // Each text is new, because a replacement that equals the latest version creates none.
    static TEXTS: AtomicU32 = AtomicU32::new(0);
    Change::Define {
        id: DefinitionId::field(name("events"), text),
        text: TEXTS.fetch_add(1, Ordering::Relaxed).to_string(),
        uses: uses.iter().map(|text| used(text)).collect(),
        reads: vec![],
        replace,
        note: None,
        author: None,
        number: None,
    }
}

/// A use of a field: `a`, `a@2`, `a@prod`.
fn used(text: &str) -> DefinitionUse {
    let (field, version) = text.split_once('@').unwrap_or((text, "latest"));
    DefinitionUse {
        id: DefinitionId::field(name("events"), field),
        version: VersionRef::parse(version).expect("a version"),
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

fn set_tag(field: &str, tag: &str, to: Option<u32>, from: Option<u32>) -> Change {
    Change::SetTag {
        id: DefinitionId::field(name("events"), field),
        tag: tag.into(),
        to,
        from,
        author: Some("ann".into()),
    }
}

fn rename(field: &str, to: &str) -> Change {
    Change::RenameDefinition {
        id: DefinitionId::field(name("events"), field),
        to: to.into(),
    }
}

#[test]
fn tags_move_by_compare_and_set_and_latest_moves_with_a_new_version() {
    let begin = [create("events"), field("a", &[], false), field("a", &[], true)];
    let numbers = |changes: &[Change]| {
        let (catalog, result) = with([&begin[..], changes].concat());
        let definition = &catalog.definitions[&DefinitionId::field(name("events"), "a")];
        let of = |version: &str| {
            let version = VersionRef::parse(version).expect("a version");
            definition.version(&version).map(|version| version.number)
        };
        (result.map_err(|problem| problem.code), of("latest"), of("prod"))
    };
    let moved = |to, from| set_tag("a", "prod", to, from);
    assert_eq!(numbers(&[moved(Some(1), None)]), (Ok(()), Some(2), Some(1)));
    assert_eq!(numbers(&[moved(Some(3), None)]), (Err(Code::BadSql), Some(2), None));
    assert_eq!(
        numbers(&[moved(Some(1), Some(2))]),
        (Err(Code::Conflict), Some(2), None)
    );
    let twice = [moved(Some(1), None), moved(Some(2), Some(1))];
    assert_eq!(numbers(&twice), (Ok(()), Some(2), Some(2)));
    assert_eq!(
        numbers(&[moved(Some(1), None), moved(None, None)]),
        (Ok(()), Some(2), None)
    );
    let reverted = set_tag("a", "latest", Some(1), Some(2));
    assert_eq!(numbers(std::slice::from_ref(&reverted)), (Ok(()), Some(1), None));
    assert_eq!(numbers(&[reverted, field("a", &[], true)]), (Ok(()), Some(3), None));
    assert_eq!(numbers(&[set_tag("a", "latest", None, None)]).0, Err(Code::Conflict));
}

#[test]
fn a_definition_may_use_earlier_versions_of_itself_but_no_tag_closes_a_circle() {
    let begin = vec![create("events"), field("a", &[], false), field("a", &["a@1"], true)];
    assert_eq!(with(begin.clone()).1, Ok(()));
    let prod = [
        begin,
        vec![set_tag("a", "prod", Some(2), None), field("b", &["a@prod"], false)],
    ]
    .concat();
    let (catalog, result) = with([prod.clone(), vec![field("a", &["b"], true)]].concat());
    assert_eq!(result, Ok(()), "version 3 uses b, which uses version 2");
    assert_eq!(catalog.field(&name("events"), "a").map(|d| d.current().number), Some(3));
    let circle = [
        prod,
        vec![field("a", &["b"], true), set_tag("a", "prod", Some(3), None)],
    ]
    .concat();
    assert_eq!(with(circle).1.map_err(|problem| problem.code), Err(Code::Conflict));
}

#[test]
fn what_is_in_use_is_neither_dropped_nor_renamed() {
    let begin = vec![
        create("events"),
        field("a", &[], false),
        field("b", &["a@1"], false),
        field("c", &["b"], false),
    ];
    let after = |change: Change| {
        let (_, result) = with([begin.clone(), vec![change]].concat());
        result.map_err(|problem| problem.detail)
    };
    assert_eq!(
        after(rename("a", "x")),
        Err("field events.a is used by field events.b".into())
    );
    assert_eq!(after(rename("c", "b")), Err("field events.b already exists".into()));
    assert_eq!(after(rename("c", "x")), Ok(()));
    // Only what has a tag, or is used by what has one, is in use.
    let unused = [begin.clone(), vec![field("b", &[], true), rename("a", "x")]].concat();
    assert_eq!(with(unused).1, Ok(()));
    let old = [
        begin,
        vec![field("b", &[], true), field("c", &["b@1"], true), rename("a", "x")],
    ]
    .concat();
    let problem = with(old).1.expect_err("c uses the first version of b");
    assert_eq!(problem.detail, "field events.a is used by field events.b");
}

#[test]
fn definitions_use_each_other_sixteen_levels_deep() {
    let mut changes = vec![create("events"), field("f1", &[], false)];
    for n in 2..=16 {
        changes.push(field(&format!("f{n}"), &[&format!("f{}", n - 1)], false));
    }
    assert_eq!(with(changes.clone()).1, Ok(()));
    let deeper = [changes.clone(), vec![field("f17", &["f16"], false)]].concat();
    assert_eq!(with(deeper).1.map_err(|problem| problem.code), Err(Code::TooComplex));
    // A new version deep inside makes those around it deeper.
    let inside = [changes, vec![field("f0", &[], false), field("f1", &["f0"], true)]].concat();
    assert_eq!(with(inside).1.map_err(|problem| problem.code), Err(Code::TooComplex));
}

#[test]
fn a_change_is_refused_if_another_definition_was_changed_since_it_was_checked() {
    let (catalog, _) = with(vec![create("events"), field("a", &[], false)]);
    let record = |expected| ChangeRecord {
        uid: Uuid::now_v7(),
        level: CATALOG_RULES_LEVEL,
        expected: Some(expected),
        change: field("b", &[], false),
    };
    let checked = catalog.definitions_version;
    let (after, result) = catalog.apply(&record(checked));
    assert_eq!(result, Ok(()));
    assert_ne!(after.definitions_version, checked);
    assert_eq!(after.apply(&record(checked)).1.map_err(|p| p.code), Err(Code::Conflict));
}

#[test]
fn definitions_of_the_first_release_are_read() {
    let id = r#"{"kind":"field","collection":"events","name":"b"}"#;
    let version = format!(r#"{{"number":4,"text":"b","uses":[{id}],"reads":["events"]}}"#);
    let definition: super::super::Definition =
        serde_json::from_str(&format!(r#"{{"versions":[{version}]}}"#)).expect("a definition");
    assert_eq!(definition.current().number, 4);
    assert_eq!(definition.current().uses, [used("b")]);
    assert_eq!(definition.tags_of(4).collect::<Vec<_>>(), ["latest"]);
}

#[test]
fn a_replacement_that_equals_the_latest_version_creates_none() {
    let first = field("a", &[], true);
    let (catalog, result) = with(vec![create("events"), first.clone(), first]);
    assert_eq!(result, Ok(()));
    assert_eq!(catalog.field(&name("events"), "a").map(|d| d.versions.len()), Some(1));
}

#[test]
fn the_oldest_versions_that_nothing_uses_are_forgotten() {
    let mut changes = vec![
        create("events"),
        field("a", &[], false),
        set_tag("a", "first", Some(1), None),
    ];
    changes.extend((0..1_005).map(|_| field("a", &[], true)));
    let (catalog, result) = with(changes);
    assert_eq!(result, Ok(()));
    let definition = catalog.field(&name("events"), "a").expect("a definition");
    let numbers: Vec<u32> = definition.versions.iter().map(|version| version.number).collect();
    assert_eq!(
        (numbers.len(), numbers[0], numbers[1], definition.current().number),
        (1_000, 1, 8, 1_006)
    );
}

#[test]
fn changes_of_the_first_release_are_judged_as_it_did() {
    let level_one = |catalog: &Catalog, change| {
        let record = ChangeRecord {
            uid: Uuid::now_v7(),
            level: 1,
            expected: None,
            change,
        };
        let (after, result) = catalog.apply(&record);
        result.map(|()| after)
    };
    let (mut catalog, _) = with(vec![create("events")]);
    for n in 0..40 {
        let uses = format!("f{}", n - 1);
        let uses: &[&str] = if n == 0 { &[] } else { &[&uses] };
        catalog = level_one(&catalog, field(&format!("f{n}"), uses, false)).expect("no limit of depth");
    }
    let same = field("same", &[], true);
    for number in 1..=1_001 {
        catalog = level_one(&catalog, same.clone()).expect("no limit of versions");
        assert_eq!(
            catalog.field(&name("events"), "same").map(|d| d.current().number),
            Some(number)
        );
    }
    assert_eq!(
        catalog.definitions_version, 0,
        "a loaded state and a replayed log agree"
    );
    let record = ChangeRecord {
        uid: Uuid::now_v7(),
        level: CATALOG_RULES_LEVEL,
        expected: Some(0),
        change: field("new", &[], false),
    };
    let (_, result) = catalog.apply(&record);
    assert_eq!(
        result,
        Ok(()),
        "deep definitions of the first release do not stop other changes"
    );
}

#[test]
fn a_renamed_definition_closes_no_circle() {
    let drop = |text: &str| Change::Undefine {
        id: DefinitionId::field(name("events"), text),
        if_exists: false,
    };
    let begin = [
        create("events"),
        field("y", &[], false),
        field("x", &["y"], false),
        field("x", &[], true),
        drop("y"),
    ];
    let after = |changes: Vec<Change>| {
        with([&begin[..], &changes[..]].concat())
            .1
            .map_err(|problem| problem.detail)
    };
    assert_eq!(
        after(vec![field("z", &[], false), rename("z", "y")]),
        Err("old versions of field events.x use the name field events.y".into())
    );
    let problem = after(vec![field("y", &["x@1"], false)]).expect_err("x@1 uses y");
    assert!(problem.contains("would use itself"), "{problem}");
}

fn drop_of(text: &str) -> Change {
    Change::Undefine {
        id: DefinitionId::field(name("events"), text),
        if_exists: false,
    }
}

/// A version with a number, whose text is the same each time.
fn numbered(text: &str, number: u32) -> Change {
    let mut change = field(text, &[], true);
    if let Change::Define { number: of, text, .. } = &mut change {
        *of = Some(number);
        *text = format!("{number}");
    }
    change
}

fn numbers(catalog: &Catalog, text: &str) -> Vec<u32> {
    let definition = catalog.field(&name("events"), text).expect("a definition");
    definition.versions.iter().map(|version| version.number).collect()
}

#[test]
fn a_version_may_name_its_number_if_it_is_free() {
    let begin = [create("events"), numbered("a", 2), numbered("a", 5)];
    let after = |changes: &[Change]| with([&begin[..], changes].concat());
    let (catalog, result) = after(&[numbered("a", 2), field("a", &[], true)]);
    assert_eq!((numbers(&catalog, "a"), result), (vec![2, 5, 6], Ok(())));
    for refused in [3, 0, u32::MAX] {
        let problem = after(&[numbered("a", refused)]).1.expect_err("it is not free");
        assert!(problem.detail.contains("versions up to 5"), "{problem}");
    }
    let mut other = numbered("a", 5);
    if let Change::Define { text, .. } = &mut other {
        text.push('x');
    }
    let problem = after(&[other]).1.expect_err("it has a text");
    assert!(problem.detail.contains("a version never changes"), "{problem}");
    // What was dropped may come back with its number; without one, it gets a new number.
    let (catalog, _) = after(&[drop_of("a"), numbered("a", 2), field("a", &[], true)]);
    assert_eq!(numbers(&catalog, "a"), [2, 6]);
}

#[test]
fn changes_that_are_made_together_are_accepted_together_or_not_at_all() {
    let all = |changes| Change::All { changes };
    let (catalog, result) = with(vec![
        create("events"),
        all(vec![field("a", &[], false), field("b", &["a"], false), drop_of("b")]),
    ]);
    assert_eq!(result, Ok(()));
    assert!(catalog.field(&name("events"), "a").is_some() && catalog.field(&name("events"), "b").is_none());
    let record = |change| ChangeRecord {
        uid: Uuid::now_v7(),
        level: CATALOG_RULES_LEVEL,
        expected: Some(catalog.definitions_version),
        change,
    };
    let (after, result) = catalog.apply(&record(all(vec![field("c", &[], false), field("d", &["x"], false)])));
    assert_eq!(result.map_err(|problem| problem.code), Err(Code::NotFound));
    assert_eq!(after.definitions, catalog.definitions);
    let (_, result) = catalog.apply(&record(all(vec![create("others")])));
    assert_eq!(result.map_err(|problem| problem.code), Err(Code::BadRequest));
}

#[test]
fn a_renamed_definition_may_get_its_name_back() {
    let begin = [
        create("events"),
        field("a", &[], false),
        field("a", &[], true),
        rename("a", "b"),
    ];
    let after = |changes: &[Change]| with([&begin[..], changes].concat());
    let (catalog, result) = after(&[rename("b", "a"), field("a", &[], true)]);
    assert_eq!((numbers(&catalog, "a"), result), (vec![1, 2, 3], Ok(())));
    // In between, the name had other versions.
    let (_, result) = after(&[field("a", &[], false), drop_of("a"), rename("b", "a")]);
    assert_eq!(result.map_err(|problem| problem.code), Err(Code::Conflict));
}

/// The catalog after a change that must be accepted.
fn accepted(catalog: &Catalog, change: Change) -> Catalog {
    apply(catalog, change).expect("an accepted change")
}

#[test]
fn of_dropped_names_a_limited_number_is_known_and_no_number_is_reused() {
    let mut catalog = with(vec![create("events")]).0;
    let fields = (0..=RETIRED_NAMES_MAX).map(|n| format!("f{n}"));
    catalog.retired = fields
        .map(|text| (DefinitionId::field(name("events"), &text), 7))
        .collect();
    let after = accepted(&accepted(&catalog, field("new", &[], false)), drop_of("new"));
    assert_eq!((after.retired.len(), after.retired_below), (RETIRED_NAMES_MAX, 7));
    let after = accepted(&after, field("new", &[], false));
    assert_eq!(numbers(&after, "new"), [8]);
}

#[test]
fn a_collection_remembers_its_last_deletes_and_covers_all_of_them() {
    let mut catalog = with(vec![create("events")]).0;
    let uid = catalog.collections[&name("events")].uid;
    let at = |position: &str| position.parse::<PositionVector>().expect("a position");
    let count = DELETIONS_MAX as u64 + 5;
    for number in 0..count {
        let deletion = Deletion {
            id: Uuid::now_v7(),
            requested_ms: 0,
            condition: "n = ?".into(),
            documents: number,
            complete: true,
            author: None,
            expired: false,
            position: at(&format!("_changes/0@{number}")),
        };
        let change = Change::AddDeletion {
            collection: uid,
            deletion,
        };
        catalog = accepted(&catalog, change);
    }
    let position = at("_changes/0@3,_changes/1@7");
    catalog = accepted(
        &catalog,
        Change::CoverChanges {
            collection: uid,
            position,
        },
    );
    let collection = &catalog.collections[&name("events")];
    assert_eq!(
        collection.changed_through,
        at(&format!("_changes/0@{},_changes/1@7", count - 1))
    );
    let documents: Vec<u64> = collection.deletions.iter().map(|deletion| deletion.documents).collect();
    assert_eq!(documents, (5..count).collect::<Vec<_>>());
    let json = serde_json::to_string(&catalog).expect("json");
    assert_eq!(serde_json::from_str::<Catalog>(&json).ok().as_ref(), Some(&catalog));
    let missing = Change::OpenChanges {
        collection: CollectionUid(Uuid::nil()),
    };
    let (_, result) = catalog.apply(&ChangeRecord {
        uid: Uuid::now_v7(),
        level: CATALOG_RULES_LEVEL,
        expected: None,
        change: missing,
    });
    assert_eq!(result.map_err(|problem| problem.code), Err(Code::NotFound));
}
