//! JSONBench's five questions about Bluesky events.
//!
//! OpenSearch has a text for the first only, which dashboards ask while documents come in: with its default mapping it
//! refuses many documents, because `commit.record.subject` is a text in some and an object in others. VictoriaLogs
//! keeps `time_us` as `_time`.

use super::{LogsQl, QueryDsl, Question};
use crate::answer::AnswerKind;

/// The questions.
pub(crate) static JSONBENCH: [Question; 5] = [
    Question {
        name: "Q1: events by collection",
        answer: AnswerKind::Rows,
        rachis: "select commit.collection as event, count(*) as n from bluesky group by event order by n desc",
        duckdb: "select commit.collection as event, count(*) as n from bluesky group by event",
        chdb: "select data.commit.collection.:String as event, count() as n from bluesky group by event",
        victoria_logs: LogsQl {
            query: r#"* | stats by ("commit.collection") count() n"#,
            columns: &["commit.collection", "n"],
        },
        open_search: Some(QueryDsl {
            body: r#"{"size":0,"aggs":{"events":{"terms":{"field":"commit.collection.keyword","size":100}}}}"#,
            estimate: false,
        }),
        tantivy: None,
    },
    Question {
        name: "Q2: creates and users by collection",
        answer: AnswerKind::Rows,
        rachis: "select commit.collection as event, count(*) as n, count(distinct did) as users from bluesky \
                 where kind = 'commit' and commit.operation = 'create' group by event order by n desc",
        duckdb: "select commit.collection as event, count(*) as n, count(distinct did) as users from bluesky \
                 where kind = 'commit' and commit.operation = 'create' group by event",
        chdb: "select data.commit.collection.:String as event, count() as n, uniqExact(data.did.:String) as users \
               from bluesky where data.kind.:String = 'commit' and data.commit.operation.:String = 'create' \
               group by event",
        victoria_logs: LogsQl {
            query: concat!(
                r#"kind:="commit" "commit.operation":="create" "#,
                r#"| stats by ("commit.collection") count() n, count_uniq(did) users"#
            ),
            columns: &["commit.collection", "n", "users"],
        },
        open_search: None,
        tantivy: None,
    },
    Question {
        name: "Q3: creates by collection and hour",
        answer: AnswerKind::Rows,
        rachis: "select commit.collection as event, extract(hour from to_timestamp_micros(time_us)) as hour, \
                 count(*) as n from bluesky where kind = 'commit' and commit.operation = 'create' and \
                 commit.collection in ('app.bsky.feed.post', 'app.bsky.feed.repost', 'app.bsky.feed.like') \
                 group by event, hour order by hour, event",
        duckdb: "select commit.collection as event, extract(hour from make_timestamp(time_us)) as hour, count(*) as n \
                 from bluesky where kind = 'commit' and commit.operation = 'create' and commit.collection in \
                 ('app.bsky.feed.post', 'app.bsky.feed.repost', 'app.bsky.feed.like') group by event, hour",
        chdb: "select data.commit.collection.:String as event, \
               toHour(fromUnixTimestamp64Micro(data.time_us.:Int64, 'UTC')) as hour, count() as n from bluesky \
               where data.kind.:String = 'commit' and data.commit.operation.:String = 'create' \
               and data.commit.collection.:String in \
               ('app.bsky.feed.post', 'app.bsky.feed.repost', 'app.bsky.feed.like') group by event, hour",
        victoria_logs: LogsQl {
            query: concat!(
                r#"kind:="commit" "commit.operation":="create" "#,
                r#""commit.collection":in("app.bsky.feed.post", "app.bsky.feed.repost", "app.bsky.feed.like") "#,
                r#"| stats by (_time:1h, "commit.collection") count() n | extract "T<hour>:" from _time "#,
                r#"| stats by ("commit.collection", hour) sum(n) n"#
            ),
            columns: &["commit.collection", "hour", "n"],
        },
        open_search: None,
        tantivy: None,
    },
    Question {
        name: "Q4: the three first users who post",
        answer: AnswerKind::Rows,
        rachis: "select did, min(time_us) as first from bluesky where kind = 'commit' and commit.operation = 'create' \
                 and commit.collection = 'app.bsky.feed.post' group by did order by first limit 3",
        duckdb: "select did, min(time_us) as first_us from bluesky where kind = 'commit' \
                 and commit.operation = 'create' and commit.collection = 'app.bsky.feed.post' \
                 group by did order by first_us limit 3",
        chdb: "select data.did.:String as user_id, min(data.time_us.:Int64) as first_us from bluesky \
               where data.kind.:String = 'commit' and data.commit.operation.:String = 'create' \
               and data.commit.collection.:String = 'app.bsky.feed.post' group by user_id order by first_us limit 3",
        victoria_logs: LogsQl {
            query: concat!(
                r#"kind:="commit" "commit.operation":="create" "commit.collection":="app.bsky.feed.post" "#,
                r#"| stats by (did) min(_time) first_time | sort by (first_time) limit 3"#
            ),
            columns: &["did", "first_time"],
        },
        open_search: None,
        tantivy: None,
    },
    Question {
        name: "Q5: the three users who post longest",
        answer: AnswerKind::Rows,
        rachis: "select did, max(time_us) - min(time_us) as span from bluesky where kind = 'commit' \
                 and commit.operation = 'create' and commit.collection = 'app.bsky.feed.post' \
                 group by did order by span desc limit 3",
        duckdb: "select did, max(time_us) - min(time_us) as span_us from bluesky where kind = 'commit' \
                 and commit.operation = 'create' and commit.collection = 'app.bsky.feed.post' \
                 group by did order by span_us desc limit 3",
        chdb: "select data.did.:String as user_id, max(data.time_us.:Int64) - min(data.time_us.:Int64) as span_us \
               from bluesky where data.kind.:String = 'commit' and data.commit.operation.:String = 'create' \
               and data.commit.collection.:String = 'app.bsky.feed.post' \
               group by user_id order by span_us desc limit 3",
        victoria_logs: LogsQl {
            // Times are doubles of nanoseconds in `math`, exact to 256 ns.
            query: concat!(
                r#"kind:="commit" "commit.operation":="create" "commit.collection":="app.bsky.feed.post" "#,
                r#"| stats by (did) min(_time) first_time, max(_time) last_time "#,
                r#"| math round((last_time - first_time) / 1000) as span_us | sort by (span_us desc) limit 3"#
            ),
            columns: &["did", "span_us"],
        },
        open_search: None,
        tantivy: None,
    },
];
