//! Six searches of GitHub events, as somebody who explores them asks: the best hits, facets, a histogram, all at once.
//!
//! Rachis is asked by its search, not in SQL. All totals are exact.

use super::{LogsQl, QueryDsl, Question};
use crate::answer::AnswerKind;

/// A search of Rachis and of OpenSearch: the bodies of their requests.
const fn search(name: &'static str, rachis: &'static str, open_search: &'static str) -> Question {
    Question {
        name,
        answer: AnswerKind::Search,
        rachis,
        duckdb: "",
        chdb: "",
        victoria_logs: LogsQl {
            query: "",
            columns: &[],
        },
        open_search: Some(QueryDsl {
            body: open_search,
            estimate: false,
        }),
        tantivy: None,
    }
}

/// The searches.
pub(crate) static SEARCHES: [Question; 6] = [
    search(
        "best 10 of a word",
        r#"{"q":"payload.comment.body:thanks","sort":"_score","limit":10}"#,
        r#"{"size":10,"track_total_hits":true,"query":{"match":{"payload.comment.body":"thanks"}}}"#,
    ),
    search(
        "best 10 of two words",
        r#"{"q":"payload.comment.body:(should OR just)","sort":"_score","limit":10}"#,
        r#"{"size":10,"track_total_hits":true,"query":{"match":{"payload.comment.body":"should just"}}}"#,
    ),
    search(
        "facet of 14 values",
        r#"{"limit":0,"facets":"type:10"}"#,
        r#"{"size":0,"track_total_hits":true,"aggs":{"type":{"terms":{"field":"type.keyword","size":10}}}}"#,
    ),
    search(
        "facet of 160,000 values",
        r#"{"limit":0,"facets":"payload.head:10"}"#,
        r#"{"size":0,"track_total_hits":true,
            "aggs":{"payload.head":{"terms":{"field":"payload.head.keyword","size":10}}}}"#,
    ),
    search(
        "histogram by hour",
        r#"{"limit":0,"histogram":"created_at:1h"}"#,
        r#"{"size":0,"track_total_hits":true,
            "aggs":{"histogram":{"date_histogram":{"field":"created_at","fixed_interval":"1h"}}}}"#,
    ),
    search(
        "hits, facets and histogram",
        r#"{"q":"type:PushEvent","limit":10,"sort":"created_at:desc","facets":"repo.name:10,actor.login:10",
            "histogram":"created_at:1h"}"#,
        r#"{"size":10,"track_total_hits":true,"query":{"term":{"type.keyword":"PushEvent"}},
            "sort":[{"created_at":"desc"}],
            "aggs":{"repo.name":{"terms":{"field":"repo.name.keyword","size":10}},
                    "actor.login":{"terms":{"field":"actor.login.keyword","size":10}},
                    "histogram":{"date_histogram":{"field":"created_at","fixed_interval":"1h"}}}}"#,
    ),
];
