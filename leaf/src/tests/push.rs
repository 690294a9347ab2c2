//! Pushes are durable and visible when acknowledged and applied once. A bad item does not fail the whole push.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use plan::{Kinds, Path, scan::Scan as _};
use proto::{
    Code, PositionVector, SourceName,
    ingest::{Push, PushResult},
};

use super::support::{Fixture, all_documents, small, tail_only};

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_push_is_visible() {
    let fixture = Fixture::start(tail_only);
    let pushed = fixture.push(&[r#"{"a": 1}"#]).await;
    assert_eq!(
        (pushed.accepted, pushed.rejected, pushed.position.to_string()),
        (1, 0, "push/0@0".into())
    );
    let pushed = fixture.push(&[r#"{"a":2.5}"#, " [3] "]).await;
    assert_eq!(pushed.position.to_string(), "push/0@1");
    let expected = [
        ("push/0@0", r#"{"a": 1}"#),
        ("push/0@1.0", r#"{"a":2.5}"#),
        ("push/0@1.1", " [3] "),
    ];
    assert_eq!(
        fixture.documents().await,
        expected.map(|(a, t)| (a.to_owned(), t.to_owned())).into()
    );
    let view = fixture.view().await;
    assert_eq!(view.positions.to_string(), "push/0@1");
    assert_eq!(
        view.paths.paths,
        [(Path::of_keys(["a"]), Kinds::INT | Kinds::FLOAT)].into()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_item_is_reported_and_the_other_items_are_accepted() {
    let fixture = Fixture::start(tail_only);
    let pushed = fixture.push(&["1", "{", r#"{"_id":"push/0@1"}"#, "", "2"]).await;
    assert_eq!((pushed.accepted, pushed.rejected), (2, 3));
    let errors: Vec<(u64, &str)> = pushed.errors.iter().map(|e| (e.index, e.code.as_str())).collect();
    assert_eq!(errors, [(1, "not_json"), (2, "bad_id"), (3, "empty")]);
    let letters = fixture.leaf.dead_letters(fixture.shard, 2).await.expect("dead letters");
    let entries: Vec<(String, &str, &[u8])> = letters
        .iter()
        .map(|l| (l.address.to_string(), l.code.as_str(), &l.bytes[..]))
        .collect();
    assert_eq!(
        entries,
        [
            ("push/0@0.3".into(), "empty", &b""[..]),
            ("push/0@0.2".into(), "bad_id", br#"{"_id":"push/0@1"}"#)
        ]
    );
    let outcomes = fixture.outcomes(&SourceName::push(), 0).await;
    assert_eq!(
        (
            outcomes.events,
            outcomes.accepted,
            outcomes.dead_letters,
            outcomes.documents
        ),
        (5, 2, 3, 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_request_is_applied_once() {
    let fixture = Fixture::start(tail_only);
    let first = fixture
        .try_push(fixture.keyed_push_request("k", &["1", "{", "2"]))
        .await
        .expect("a push");
    fixture.push(&["3"]).await;
    let again = fixture
        .try_push(fixture.keyed_push_request("k", &["1", "{", "2"]))
        .await
        .expect("the same answer");
    assert!(!first.repeated);
    let first = PushResult {
        repeated: true,
        ..first
    };
    assert_eq!(again, first);
    let other = fixture
        .try_push(fixture.keyed_push_request("k", &["1"]))
        .await
        .expect_err("another body");
    assert_eq!(other.code, Code::Conflict);
    let fixture = fixture.restart().await;
    assert_eq!(
        fixture
            .try_push(fixture.keyed_push_request("k", &["1", "{", "2"]))
            .await,
        Ok(first)
    );
    assert_eq!(fixture.documents().await.len(), 3);
    assert_eq!(fixture.outcomes(&SourceName::push(), 0).await.events, 4);
}

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// Pushes one document under a request key at this time.
async fn push_at(fixture: &Fixture, time_ms: i64, key: &str) -> PushResult {
    let push = Push {
        time_ms,
        ..fixture.keyed_push_request(key, &["1"])
    };
    fixture.try_push(push).await.expect("a push")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_key_can_be_reused_after_a_day() {
    let fixture = Fixture::start(tail_only);
    let first = push_at(&fixture, DAY_MS, "k").await;
    assert_eq!(push_at(&fixture, 2 * DAY_MS, "other").await.position.offset, 1);
    assert_eq!(
        push_at(&fixture, 2 * DAY_MS, "k").await,
        PushResult {
            repeated: true,
            ..first
        },
        "not more than a day has passed"
    );
    push_at(&fixture, 2 * DAY_MS + 1, "third").await;
    assert_eq!(push_at(&fixture, 2 * DAY_MS + 1, "k").await.position.offset, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_request_key_is_applied_once_again() {
    let fixture = Fixture::start(tail_only);
    // More old requests than one push cleans up, so that the row of `x` still exists when `x` is reused.
    for number in 0..150 {
        push_at(&fixture, DAY_MS, &format!("old {number:03}")).await;
    }
    push_at(&fixture, DAY_MS, "x").await;
    for key in ["old 000", "x"] {
        let again = push_at(&fixture, 2 * DAY_MS + 1, key).await;
        assert!(!again.repeated, "{key} can be reused");
        push_at(&fixture, 2 * DAY_MS + 1, &format!("after {key}")).await;
        assert_eq!(
            push_at(&fixture, 2 * DAY_MS + 1, key).await,
            PushResult {
                repeated: true,
                ..again
            },
            "{key}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_duplicates_of_a_request_are_applied_once() {
    let fixture = Arc::new(Fixture::start(tail_only));
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let fixture = fixture.clone();
            tokio::spawn(async move {
                fixture
                    .try_push(fixture.keyed_push_request("k", &["1", "2"]))
                    .await
                    .expect("an answer")
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.expect("a task"));
    }
    assert_eq!(
        answers.iter().filter(|answer| !answer.repeated).count(),
        1,
        "exactly one of them was applied"
    );
    answers.iter_mut().for_each(|answer| answer.repeated = false);
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(fixture.documents().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_sees_all_pushes_acknowledged_before_it() {
    let fixture = Arc::new(Fixture::start(small));
    let pushers: Vec<_> = (0..4)
        .map(|pusher| {
            let fixture = fixture.clone();
            tokio::spawn(async move {
                for round in 0..50 {
                    let text = format!(r#"{{"pusher":{pusher},"round":{round}}}"#);
                    let pushed = fixture.push(&[&text]).await;
                    let view = fixture.view().await;
                    let at = view.positions.get(&SourceName::push(), 0).expect("a position");
                    assert!(at >= pushed.position.offset);
                    let documents = all_documents(&view);
                    assert_eq!(
                        documents.len() as i64,
                        at + 1,
                        "all documents through the position and none after it"
                    );
                    assert!(documents.iter().any(|d| d.text() == text));
                }
            })
        })
        .collect();
    for pusher in pushers {
        pusher.await.expect("a pusher");
    }
    assert_eq!(fixture.documents().await.len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_waits_for_a_position_until_its_deadline() {
    let fixture = Arc::new(Fixture::start(tail_only));
    let at_least: PositionVector = "push/0@0".parse().expect("a vector");
    assert!(fixture.documents().await.is_empty(), "the shard is open");
    let soon = Instant::now() + Duration::from_millis(20);
    let late = fixture.open_at(fixture.shard, at_least.clone(), soon).await;
    let late = late.map(drop).expect_err("nothing was pushed");
    assert_eq!(late.code, Code::Timeout);
    let waiting = {
        let (fixture, at_least) = (fixture.clone(), at_least.clone());
        tokio::spawn(async move {
            let deadline = Instant::now() + Duration::from_secs(20);
            fixture.open_at(fixture.shard, at_least, deadline).await
        })
    };
    fixture.push(&["1"]).await;
    let views = waiting.await.expect("a task").expect("a view");
    let view = views.of(fixture.shard).expect("it is open");
    assert!(view.positions.covers(&at_least));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_view_does_not_change() {
    let fixture = Fixture::start(small);
    fixture.push(&[r#"{"_id":"a","v":1}"#, r#"{"_id":"b","v":1}"#]).await;
    let views = fixture.open(fixture.shard).await;
    let before = all_documents(views.of(fixture.shard).expect("it is open"));
    for round in 0..60 {
        fixture.push(&[&format!(r#"{{"_id":"a","v":{round}}}"#)]).await;
    }
    assert_eq!(all_documents(views.of(fixture.shard).expect("still open")), before);
    assert_eq!(fixture.documents().await.len(), 2);
    assert_eq!(fixture.leaf.open_views(), 1);
    drop(views);
    assert_eq!(fixture.leaf.open_views(), 0);
}
