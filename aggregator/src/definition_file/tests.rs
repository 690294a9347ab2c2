//! Tests of files of definitions.

use proto::catalog::{Change, ChangeRecord};
use uuid::Uuid;

use super::*;

/// A catalog after these changes.
fn catalog(changes: Vec<Change>) -> Catalog {
    changes.into_iter().fold(Catalog::default(), |catalog, change| {
        let (after, verdict) = catalog.apply(&ChangeRecord {
            uid: Uuid::now_v7(),
            level: proto::catalog::CATALOG_RULES_LEVEL,
            expected: None,
            change,
        });
        verdict.expect("the change is accepted");
        after
    })
}

fn function(name: &str, text: &str, uses: &[&str]) -> Change {
    let used = |name: &&str| proto::catalog::DefinitionUse {
        id: DefinitionId::global(DefinitionKind::Function, name),
        version: VersionRef::latest(),
    };
    Change::Define {
        id: DefinitionId::global(DefinitionKind::Function, name),
        text: text.to_owned(),
        uses: uses.iter().map(used).collect(),
        reads: Vec::new(),
        replace: true,
        note: None,
        author: None,
    }
}

fn tagged(name: &str, tag: &str, to: u32) -> Change {
    Change::SetTag {
        id: DefinitionId::global(DefinitionKind::Function, name),
        tag: tag.to_owned(),
        to: Some(to),
        from: None,
        author: None,
    }
}

fn two_functions() -> Catalog {
    catalog(vec![
        function("z", "() RETURNS int AS 1", &[]),
        tagged("z", "prod", 1),
        function("z", "() RETURNS int AS 2", &[]),
        function("a", "() RETURNS int AS z()", &["z"]),
        function("z", "() RETURNS int AS 3", &[]),
        tagged("z", "latest", 2),
    ])
}

const FILE: &str = "-- The definitions of Rachis. Apply them with: rachis definition apply -f FILE

CREATE OR REPLACE FUNCTION z () RETURNS int AS 1;
ALTER FUNCTION z SET TAG prod TO latest;
CREATE OR REPLACE FUNCTION z () RETURNS int AS 2;

CREATE OR REPLACE FUNCTION a () RETURNS int AS z();
";

fn actions(file: &str, catalog: &Catalog) -> Vec<String> {
    let steps = DefinitionFile::parse(file)
        .expect("a file")
        .steps(catalog)
        .expect("steps");
    let shown = |step: &Step| format!("{}: {}", step.definition, step.action);
    steps.iter().map(shown).collect()
}

#[test]
fn what_is_exported_changes_nothing_where_it_came_from_and_creates_all_elsewhere() {
    let catalog = two_functions();
    assert_eq!(export(&catalog), FILE);
    assert!(actions(FILE, &catalog).is_empty());
    assert_eq!(
        actions(FILE, &Catalog::default()),
        [
            "function z: create",
            "function z: move prod to latest",
            "function z: new version",
            "function a: create"
        ]
    );
}

#[test]
fn a_file_moves_tags_to_versions_that_exist() {
    let file = "CREATE FUNCTION z() RETURNS int AS 3; CREATE FUNCTION z() RETURNS int AS 1;
                ALTER FUNCTION z SET TAG prod TO latest; ALTER FUNCTION z SET TAG \"old-one\" TO latest;";
    let spaced = file.replace("z()", "z ()");
    assert_eq!(
        actions(&spaced, &two_functions()),
        ["function z: move old-one to 1", "function z: move latest to 1"]
    );
    let steps = DefinitionFile::parse(&spaced)
        .expect("a file")
        .steps(&two_functions())
        .expect("steps");
    assert_eq!(steps[0].statement, "ALTER FUNCTION z SET TAG \"old-one\" TO 1");
}

#[test]
fn a_file_has_definitions_only() {
    for (file, expected) in [
        ("DROP VIEW a", "only CREATE"),
        ("CREATE VIEW a AS SELECT 1; SELECT 1", "statement 2 of the file"),
        ("ALTER VIEW a SET TAG x TO latest", "comes before its text"),
        ("CREATE VIEW a AS SELECT 1; ALTER VIEW a SET TAG x TO 1", "only CREATE"),
        ("CREATE THING a", "CREATE THING is not supported"),
    ] {
        let Err(problem) = DefinitionFile::parse(file) else {
            panic!("{file} is accepted")
        };
        assert!(problem.to_string().contains(expected), "{file}: {problem}");
    }
}

/// `a` uses the first version of `z` by its number; `z` has the same text twice.
fn pinned_catalog() -> Catalog {
    let mut pinned = function("a", "() RETURNS int AS z@1()", &[]);
    if let Change::Define { uses, .. } = &mut pinned {
        uses.push(DefinitionUse {
            id: DefinitionId::global(DefinitionKind::Function, "z"),
            version: VersionRef::Number(1),
        });
    }
    catalog(vec![
        function("z", "() RETURNS int AS 1", &[]),
        function("z", "() RETURNS int AS 2", &[]),
        function("z", "() RETURNS int AS 1", &[]),
        tagged("z", "prod", 1),
        tagged("z", "latest", 2),
        pinned,
    ])
}

#[test]
fn versions_that_are_named_by_number_keep_their_numbers_or_the_file_is_refused() {
    let (catalog, file) = (pinned_catalog(), export(&pinned_catalog()));
    assert!(actions(&file, &catalog).is_empty(), "{file}");
    assert_eq!(
        actions(&file, &Catalog::default()),
        [
            "function z: create",
            "function z: move prod to latest",
            "function z: new version",
            "function z: new version",
            "function z: move latest to 2",
            "function a: create"
        ],
        "{file}"
    );
    let refused = DefinitionFile::parse(&file)
        .expect("a file")
        .steps(&two_functions_of_other_texts());
    let problem = refused.expect_err("version 1 has another text there");
    assert!(problem.to_string().contains("would get another number"), "{problem}");
}

fn two_functions_of_other_texts() -> Catalog {
    catalog(vec![function("z", "() RETURNS int AS 7", &[])])
}
