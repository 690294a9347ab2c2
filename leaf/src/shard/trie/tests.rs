//! Tests of `trie`.

use std::collections::BTreeMap;

use super::*;

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
