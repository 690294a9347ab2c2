//! Tests of `push`.

use proto::{Position, SourceName};

use super::{
    partition::{PartitionBatch, id_of},
    *,
};

fn items(texts: &[&str]) -> Vec<Bytes> {
    texts
        .iter()
        .map(|text| Bytes::copy_from_slice(text.as_bytes()))
        .collect()
}

#[test]
fn a_body_without_ids_stays_together() {
    let body = items(&["{\"a\":1}", "oops", "{\"b\":{\"_id\":7}}"]);
    assert_eq!(
        partition_items(body.clone(), 8, 5, true),
        vec![PartitionBatch {
            partition: 5,
            items: body,
            indexes: None
        }]
    );
}

#[test]
fn the_same_id_goes_to_the_same_partition_however_it_is_written() {
    let spellings = [
        "{\"_id\":\"x1\"}",
        "{\"a\":0,\"_id\":\"\\u0078\\u0031\"}",
        "{\"\\u005fid\":\"x1\"}",
        "{\"_id\":\"no\",\"_id\":\"x1\"}",
    ];
    let ids: Vec<Option<String>> = spellings.iter().map(|item| id_of(item.as_bytes())).collect();
    assert!(ids.iter().all(|id| id.as_deref() == Some("x1")), "{ids:?}");
    assert_eq!(
        id_of(b"{\"_id\":7}"),
        id_of(b"{\"_id\":\"7\"}"),
        "an integer id equals its text"
    );
    assert_eq!(id_of(b"{\"_id\":{}}"), None);
}

#[test]
fn batches_keep_the_order_and_the_indexes_of_their_items() {
    let body: Vec<String> = (0..100).map(|i| format!("{{\"_id\":{i}}}")).collect();
    let body = items(&body.iter().map(String::as_str).collect::<Vec<_>>());
    let batches = partition_items(body.clone(), 4, 2, false);
    assert_eq!(batches[0].partition, 2, "the home partition is first");
    let mut seen = 0;
    for batch in &batches {
        let indexes = batch.indexes.clone().expect("the body is split");
        assert!(indexes.is_sorted());
        for (item, index) in batch.items.iter().zip(&indexes) {
            assert_eq!(*item, body[*index as usize]);
        }
        seen += indexes.len();
    }
    assert_eq!((seen, batches.len()), (100, 4));
}

#[test]
fn a_keyed_request_reaches_its_home_partition_even_without_items_for_it() {
    let elsewhere = (0..)
        .find(|id| {
            id_of(format!("{{\"_id\":{id}}}").as_bytes()).is_some_and(|id| proto::routing::push_partition(&id, 4) != 2)
        })
        .expect("an id");
    let body = items(&[&format!("{{\"_id\":{elsewhere}}}")]);
    let batches = |keyed| {
        partition_items(body.clone(), 4, 2, keyed)
            .iter()
            .map(|batch| (batch.partition == 2, batch.items.len()))
            .collect::<Vec<_>>()
    };
    assert_eq!(batches(true), [(true, 0), (false, 1)]);
    assert_eq!(batches(false), [(false, 1)]);
}

#[test]
fn errors_have_the_index_in_the_request() {
    let error = |index| ItemError {
        index,
        code: "not_json".into(),
        detail: String::new(),
    };
    let position = Position {
        source: SourceName::push(),
        partition: 3,
        offset: 9,
    };
    let mut outcome = PushSummary::default();
    outcome.add(
        PushResult {
            accepted: 1,
            rejected: 2,
            errors: vec![error(0), error(2)],
            position,
            repeated: false,
        },
        Some(vec![4, 8, 15]),
    );
    assert_eq!(outcome.errors.iter().map(|e| e.index).collect::<Vec<_>>(), [4, 15]);
    assert_eq!(outcome.position.to_string(), "push/3@9");
}
