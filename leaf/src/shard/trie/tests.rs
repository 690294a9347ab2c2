//! Tests of `trie`.

use std::collections::BTreeMap;

use plan::PathKinds;

use super::*;
use crate::shard::state::{merge_kinds, note_overflow};

fn observe(trie: &mut Trie, document: &str) {
    trie.observe(&proto::json::parse(document.as_bytes()).expect("json"));
}

fn kinds(trie: &Trie) -> BTreeMap<String, Kinds> {
    trie.unsaved()
        .into_iter()
        .map(|(path, kinds)| (path.to_string(), kinds))
        .collect()
}

#[test]
fn kinds_accumulate_over_documents() {
    let mut trie = Trie::default();
    observe(
        &mut trie,
        r#"{"a":1,"b":{"c":"x","d":null},"e":[1,{"f":2},[{"g":true}]],"h":[]}"#,
    );
    observe(&mut trie, r#"{"b":7,"a":1.5}"#);
    let expected = [
        ("a", Kinds::INT | Kinds::FLOAT),
        ("b", Kinds::OBJECT | Kinds::INT),
        ("b.c", Kinds::TEXT),
        ("b.d", Kinds::NULL),
        ("e", Kinds::ARRAY | Kinds::ELEMENT),
        ("e.f", Kinds::ELEMENT),
        ("e.g", Kinds::ELEMENT),
        ("h", Kinds::ARRAY),
    ];
    assert_eq!(
        kinds(&trie),
        expected
            .into_iter()
            .map(|(path, kinds)| (path.to_owned(), kinds))
            .collect()
    );
}

#[test]
fn only_new_kinds_are_unsaved() {
    let mut trie = Trie::default();
    observe(&mut trie, r#"{"a":1,"b":2}"#);
    let stored = trie.unsaved();
    trie.saved();
    observe(&mut trie, r#"{"b":3,"a":4}"#);
    assert_eq!(trie.unsaved(), []);
    let mut again = Trie::load(stored, false);
    observe(&mut again, r#"{"b":3,"a":true,"c":null}"#);
    assert_eq!(
        kinds(&again),
        [
            ("a".to_owned(), Kinds::INT | Kinds::BOOL),
            ("c".to_owned(), Kinds::NULL)
        ]
        .into()
    );
}

#[test]
fn many_children_are_found_and_paths_above_the_limit_are_ignored() {
    let mut trie = Trie::default();
    let wide = |from: usize, to: usize| {
        format!(
            "{{{}}}",
            (from..to)
                .map(|i| format!("\"k{i}\":{i}"))
                .collect::<Vec<_>>()
                .join(",")
        )
    };
    observe(&mut trie, &wide(0, 20));
    observe(&mut trie, &wide(10, 9_000));
    assert!(!trie.overflow_unsaved());
    observe(&mut trie, &wide(5_000, 30_000));
    assert!(trie.overflow_unsaved());
    assert_eq!(trie.unsaved().len(), PATHS_MAX);
    trie.saved();
    observe(&mut trie, &wide(0, 30_000));
    assert_eq!((trie.unsaved().len(), trie.overflow_unsaved()), (0, false));
    observe(&mut trie, &format!("{{\"{}\":1}}", "x".repeat(PATH_BYTES_MAX + 1)));
    assert_eq!(trie.unsaved().len(), 0, "a path above the length limit is not recorded");
}

/// When an aggregator opens a read view, the leaf sends it the whole table in one message.
#[test]
fn long_paths_are_limited_in_all() {
    let mut trie = Trie::default();
    let mut table = PathKinds::default();
    for number in 0..1_000 {
        observe(&mut trie, &format!(r#"{{"{number:04}{}":1}}"#, "k".repeat(4_000)));
    }
    assert!(trie.overflow_unsaved());
    let seen = trie.unsaved();
    assert_eq!(seen.len(), PATHS_BYTES_MAX / 4_004);
    // The same limit holds for the tables of several partitions together.
    merge_kinds(&mut table, seen);
    assert!(!table.overflow);
    let long = |number: u32| Path::new(vec![Step::Key(format!("{number}{}", "m".repeat(4_000)).into())]);
    let more = (0..10).map(|number| (long(number), Kinds::INT));
    merge_kinds(&mut table, more);
    assert_eq!((table.paths.len(), table.overflow), (PATHS_BYTES_MAX / 4_004, true));
    let wire = serde_json::to_vec(&table).expect("JSON").len();
    assert!(wire < 2 * PATHS_BYTES_MAX, "{wire}");
}

/// The tail of one partition must not be read by the types of another one.
#[test]
fn a_path_that_a_full_partition_does_not_know_may_have_any_kind() {
    let mut full = Trie::default();
    observe(&mut full, r#"{"known":1}"#);
    let wide: Vec<String> = (0..=PATHS_MAX).map(|n| format!("\"k{n}\":1")).collect();
    observe(&mut full, &format!("{{{}}}", wide.join(",")));
    let path = |key: &str| Path::of_keys([key]);
    let mut table = PathKinds::default();
    merge_kinds(&mut table, [(path("known"), Kinds::INT), (path("before"), Kinds::INT)]);
    note_overflow(&mut table, &full.known());
    merge_kinds(&mut table, [(path("after"), Kinds::INT)]);
    let kinds = ["known", "before", "after"].map(|key| table.paths[&path(key)]);
    assert_eq!(kinds, [Kinds::INT, Kinds::ANY, Kinds::ANY]);
    // And so for shards.
    let mut shards = PathKinds::default();
    shards.paths.insert(path("before"), Kinds::TEXT);
    shards.paths.insert(path("elsewhere"), Kinds::TEXT);
    shards.merge(&table);
    let kinds = ["known", "before", "elsewhere"].map(|key| shards.paths[&path(key)]);
    assert_eq!(kinds, [Kinds::INT, Kinds::ANY, Kinds::ANY]);
    let mut other = PathKinds::default();
    other.paths.insert(path("later"), Kinds::TEXT);
    shards.merge(&other);
    assert_eq!(shards.paths[&path("later")], Kinds::ANY);
}
