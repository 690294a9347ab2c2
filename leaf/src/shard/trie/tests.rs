//! Tests of `trie`.

use std::collections::BTreeMap;

use plan::PathKinds;

use super::*;
use crate::shard::state::merge_kinds;

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

/// A table is sent to whoever opens a read view, in one message.
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
    // So do the tables of several partitions together.
    merge_kinds(&mut table, seen, false);
    assert!(!table.overflow);
    let long = |number: u32| Path::new(vec![Step::Key(format!("{number}{}", "m".repeat(4_000)).into())]);
    let more = (0..10).map(|number| (long(number), Kinds::INT));
    merge_kinds(&mut table, more, false);
    assert_eq!((table.paths.len(), table.overflow), (PATHS_BYTES_MAX / 4_004, true));
    let wire = serde_json::to_vec(&table).expect("JSON").len();
    assert!(wire < 2 * PATHS_BYTES_MAX, "{wire}");
}
