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
        number: None,
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
    let steps = DefinitionFile::parse(file).expect("a file").steps(catalog);
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
            "function z: move prod to 1",
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
    let steps = DefinitionFile::parse(&spaced).expect("a file").steps(&two_functions());
    assert_eq!(steps[0].statement, "ALTER FUNCTION z SET TAG \"old-one\" TO 1");
}

#[test]
fn a_problem_names_its_place_in_the_file() {
    let first = "-- é\nCREATE VIEW a AS SELECT 1;\n\n  ";
    for (second, place) in [("SELECT 1", (4, 3)), ("CREATE THING a", (4, 16))] {
        let file = format!("{first}{second};\nCREATE VIEW c AS SELECT 1;");
        let problem = DefinitionFile::parse(&file).err().expect(second);
        assert_eq!(problem.at, Some(place), "{second}: {problem}");
    }
}

#[test]
fn a_file_has_definitions_only() {
    for (file, expected) in [
        ("DROP VIEW a", "only CREATE"),
        ("CREATE VIEW a AS SELECT 1; SELECT 1", "only CREATE"),
        ("ALTER VIEW a SET TAG x TO latest", "comes before its text"),
        (
            "CREATE VIEW a AS SELECT 1; ALTER VIEW a SET TAG x TO prod",
            "only CREATE",
        ),
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

const PINNED: &str = "-- The definitions of Rachis. Apply them with: rachis definition apply -f FILE

CREATE OR REPLACE FUNCTION z@1 () RETURNS int AS 1;
ALTER FUNCTION z SET TAG prod TO 1;
CREATE OR REPLACE FUNCTION z@2 () RETURNS int AS 2;

CREATE OR REPLACE FUNCTION a () RETURNS int AS z@1();
";

#[test]
fn versions_that_are_named_by_number_keep_their_numbers() {
    let catalog = pinned_catalog();
    assert_eq!(export(&catalog), PINNED);
    assert!(actions(PINNED, &catalog).is_empty());
    assert_eq!(
        actions(PINNED, &Catalog::default()),
        [
            "function z: create",
            "function z: move prod to 1",
            "function z: new version",
            "function a: create"
        ]
    );
    let steps = DefinitionFile::parse(PINNED)
        .expect("a file")
        .steps(&Catalog::default());
    assert!(matches!(&steps[2].change, DefinitionChange::Define(new) if new.number == Some(2)));
    // Where the number has another text, the catalog refuses the change.
    let others = DefinitionFile::parse(PINNED)
        .expect("a file")
        .steps(&two_functions_of_other_texts());
    assert_eq!(others[0].action, "new version");
}

/// `g` uses the first version of `f`, and the second version of `f` uses `g`. The latest version of `f` is the first.
#[test]
fn versions_that_use_each_other_are_written_one_after_another() {
    let used = |name: &str, version: VersionRef| DefinitionUse {
        id: DefinitionId::global(DefinitionKind::Function, name),
        version,
    };
    let using = |name: &str, text: &str, used: DefinitionUse| {
        let mut change = function(name, text, &[]);
        if let Change::Define { uses, .. } = &mut change {
            uses.push(used);
        }
        change
    };
    let catalog = catalog(vec![
        function("f", "() RETURNS int AS 1", &[]),
        using("g", "() RETURNS int AS f@1()", used("f", VersionRef::Number(1))),
        using("f", "() RETURNS int AS g()", used("g", VersionRef::latest())),
        tagged("f", "next", 2),
        tagged("f", "latest", 1),
    ]);
    let file = export(&catalog);
    let expected = "
CREATE OR REPLACE FUNCTION f@1 () RETURNS int AS 1;

CREATE OR REPLACE FUNCTION g () RETURNS int AS f@1();

CREATE OR REPLACE FUNCTION f@2 () RETURNS int AS g();
ALTER FUNCTION f SET TAG next TO 2;
ALTER FUNCTION f SET TAG latest TO 1;
";
    assert!(file.ends_with(expected), "{file}");
    assert!(actions(&file, &catalog).is_empty());
    assert_eq!(
        actions(&file, &Catalog::default()),
        [
            "function f: create",
            "function g: create",
            "function f: new version",
            "function f: move next to 2",
            "function f: move latest to 1"
        ]
    );
}

fn two_functions_of_other_texts() -> Catalog {
    catalog(vec![function("z", "() RETURNS int AS 7", &[])])
}

#[test]
fn a_file_of_another_editor_changes_nothing_and_no_part_of_a_file_is_left_out() {
    let catalog = catalog(vec![function("f", "(x bigint) RETURNS bigint\nAS x + 1", &[])]);
    let file = "\u{feff}CREATE FUNCTION f(x bigint) RETURNS bigint\r\nAS x + 1;\r\n";
    assert_eq!(actions(file, &catalog), [""; 0]);
    let open =
        "CREATE FUNCTION f(x bigint) RETURNS bigint AS x; /* a note\nCREATE FUNCTION g(x bigint) RETURNS bigint AS x;";
    let problem = DefinitionFile::parse(open).err().expect("the comment is not closed");
    assert_eq!(problem.at.map(|(line, _)| line), Some(2), "{problem}");
}
