//! Documents and helpers for the tests of searches.

use serde_json::json;

use super::*;
use crate::answer::{SearchAnswer, SearchQuery};

/// Sales, with amounts that repeat, are missing or are text, and with tags that are a list or a text.
pub(super) fn sales(count: i64) -> impl Iterator<Item = Value> {
    (0..count).map(|n| {
        let cents = match n % 7 {
            5 => Value::Null,
            6 => json!("free"),
            rest => json!(rest * 100 + n / 50),
        };
        let tags = if n % 3 == 0 {
            json!(["new", { "kind": "gift" }])
        } else {
            json!("old")
        };
        json!({ "n": n, "at": n / 4, "cents": cents, "tags": tags, "user": { "name": format!("user {}", n % 5) } })
    })
}

/// A search of a collection or view.
pub(super) fn search_query(name: &str, query: &str) -> SearchQuery {
    SearchQuery {
        collection: name.into(),
        query: query.into(),
        ..SearchQuery::default()
    }
}

/// The value of a key in each hit's document.
pub(super) fn values(answer: &SearchAnswer, key: &str) -> Vec<Value> {
    answer
        .hits
        .iter()
        .map(|hit| serde_json::from_str::<Value>(&hit.document).expect("JSON")[key].clone())
        .collect()
}

impl Bench {
    pub(super) async fn run_search(&self, request: SearchQuery) -> SearchAnswer {
        self.engine
            .search(request.clone())
            .await
            .unwrap_or_else(|problem| panic!("{request:?}: {problem}"))
    }

    pub(super) async fn search_error(&self, request: SearchQuery) -> Problem {
        self.engine
            .search(request.clone())
            .await
            .map(|answer| answer.total)
            .expect_err(&format!("{request:?}"))
    }

    /// The documents of all pages.
    pub(super) async fn all_pages(&self, request: SearchQuery) -> Vec<String> {
        let (mut documents, mut after) = (Vec::new(), None);
        loop {
            let page = self
                .run_search(SearchQuery {
                    after,
                    ..request.clone()
                })
                .await;
            assert!(
                page.hits.len() <= request.limit.unwrap_or(20),
                "a page has at most as many hits as requested"
            );
            assert!(documents.len() as u64 <= page.total, "the pages of {request:?} end");
            documents.extend(page.hits.into_iter().map(|hit| hit.document));
            match page.after {
                Some(next) => after = Some(next),
                None => return documents,
            }
        }
    }

    /// The filters of all scans.
    pub(super) fn filters(&self) -> String {
        let requests = self.leaf.requests.lock();
        requests
            .iter()
            .flat_map(|request| &request.filter)
            .map(|condition| format!("{condition}\n"))
            .collect()
    }
}
