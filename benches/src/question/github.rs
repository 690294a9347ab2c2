//! Thirteen questions about GitHub events.
//!
//! Words are looked up in the bodies of comments, in upper or lower case. They are such that every system's way to
//! split texts into words finds the same documents. VictoriaLogs keeps these bodies as `_msg`, and `created_at` as
//! `_time`.

use super::{LogsQl, QueryDsl, Question, TantivySearch};
use crate::answer::AnswerKind;

const fn logs_ql(query: &'static str, columns: &'static [&'static str]) -> LogsQl {
    LogsQl { query, columns }
}

const fn dsl(body: &'static str) -> Option<QueryDsl> {
    Some(QueryDsl { body, estimate: false })
}

const fn tantivy(query: &'static str, documents_max: usize) -> Option<TantivySearch> {
    Some(TantivySearch { query, documents_max })
}

/// The questions.
pub(crate) static GITHUB: [Question; 13] = [
    Question {
        name: "count",
        answer: AnswerKind::Rows,
        rachis: "select count(*) from gh",
        duckdb: "select count(*) from gh",
        chdb: "select count() from gh",
        victoria_logs: logs_ql("* | stats count() n", &["n"]),
        open_search: dsl(r#"{"size":0,"track_total_hits":true}"#),
        tantivy: tantivy("*", 0),
    },
    Question {
        name: "by type",
        answer: AnswerKind::Rows,
        rachis: "select type, count(*) as n from gh group by type",
        duckdb: "select type, count(*) as n from gh group by type",
        chdb: "select data.type.:String as kind, count() as n from gh group by kind",
        victoria_logs: logs_ql("* | stats by (type) count() n", &["type", "n"]),
        open_search: dsl(r#"{"size":0,"aggs":{"types":{"terms":{"field":"type.keyword","size":100}}}}"#),
        tantivy: None,
    },
    Question {
        name: "top repositories",
        answer: AnswerKind::Rows,
        rachis: "select repo.name as r, count(*) as n from gh group by repo.name order by n desc, r limit 10",
        duckdb: "select repo.\"name\" as r, count(*) as n from gh group by r order by n desc, r limit 10",
        chdb: "select data.repo.name.:String as r, count() as n from gh group by r order by n desc, r limit 10",
        victoria_logs: logs_ql(
            r#"* | stats by ("repo.name") count() n | sort by (n desc, "repo.name") limit 10"#,
            &["repo.name", "n"],
        ),
        open_search: dsl(
            r#"{"size":0,"aggs":{"repositories":{"terms":{"field":"repo.name.keyword","size":10,
                "order":[{"_count":"desc"},{"_key":"asc"}]}}}}"#,
        ),
        tantivy: None,
    },
    Question {
        name: "distinct actors",
        answer: AnswerKind::Rows,
        rachis: "select count(distinct actor.login) as actors from gh",
        duckdb: "select count(distinct actor.login) as actors from gh",
        chdb: "select uniqExact(data.actor.login.:String) as actors from gh",
        victoria_logs: logs_ql(r#"* | stats count_uniq("actor.login") actors"#, &["actors"]),
        open_search: Some(QueryDsl {
            body: r#"{"size":0,"aggs":{"actors":{"cardinality":{"field":"actor.login.keyword",
                "precision_threshold":40000}}}}"#,
            estimate: true,
        }),
        tantivy: None,
    },
    Question {
        name: "by 10 minutes and type",
        answer: AnswerKind::Rows,
        rachis: "select date_bin(interval '10 minutes', created_at::timestamp, timestamp '1970-01-01 00:00:00') as t, \
                 type, count(*) as n from gh group by 1, 2",
        duckdb: "select time_bucket(interval '10 minutes', created_at) as t, type, count(*) as n from gh group by 1, 2",
        chdb: "select toStartOfInterval(parseDateTimeBestEffort(data.created_at::String), interval 10 minute) as t, \
               data.type.:String as kind, count() as n from gh group by t, kind",
        victoria_logs: logs_ql("* | stats by (_time:10m, type) count() n", &["_time", "type", "n"]),
        open_search: dsl(
            r#"{"size":0,"aggs":{"times":{"date_histogram":{"field":"created_at","fixed_interval":"10m",
                "min_doc_count":1},"aggs":{"types":{"terms":{"field":"type.keyword","size":100}}}}}}"#,
        ),
        tantivy: None,
    },
    Question {
        name: "word",
        answer: AnswerKind::Rows,
        rachis: "select count(*) as n from gh where search('payload.comment.body:thanks')",
        duckdb: r"select count(*) as n from gh where regexp_matches(payload.comment.body, '\bthanks\b', 'i')",
        chdb: r"select count() as n from gh where match(data.payload.comment.body.:String, '(?i)\\bthanks\\b')",
        victoria_logs: logs_ql("_msg:i(thanks) | stats count() n", &["n"]),
        open_search: dsl(r#"{"size":0,"track_total_hits":true,"query":{"match":{"payload.comment.body":"thanks"}}}"#),
        tantivy: tantivy("d.payload.comment.body:thanks", 0),
    },
    Question {
        name: "two words",
        answer: AnswerKind::Rows,
        rachis: "select count(*) as n from gh where search('payload.comment.body:(should AND just)')",
        duckdb: r"select count(*) as n from gh where regexp_matches(payload.comment.body, '\bshould\b', 'i')
                  and regexp_matches(payload.comment.body, '\bjust\b', 'i')",
        chdb: r"select count() as n from gh where match(data.payload.comment.body.:String, '(?i)\\bshould\\b')
                and match(data.payload.comment.body.:String, '(?i)\\bjust\\b')",
        victoria_logs: logs_ql("_msg:i(should) _msg:i(just) | stats count() n", &["n"]),
        open_search: dsl(
            r#"{"size":0,"track_total_hits":true,"query":{"match":{"payload.comment.body":
                {"query":"should just","operator":"and"}}}}"#,
        ),
        tantivy: tantivy("d.payload.comment.body:should AND d.payload.comment.body:just", 0),
    },
    Question {
        name: "phrase",
        answer: AnswerKind::Rows,
        rachis: "select count(*) as n from gh where search('payload.comment.body:\"looks like\"')",
        duckdb: r"select count(*) as n from gh where regexp_matches(payload.comment.body, '\blooks like\b', 'i')",
        chdb: r"select count() as n from gh where match(data.payload.comment.body.:String, '(?i)\\blooks like\\b')",
        victoria_logs: logs_ql(r#"_msg:i("looks like") | stats count() n"#, &["n"]),
        open_search: dsl(
            r#"{"size":0,"track_total_hits":true,"query":{"match_phrase":{"payload.comment.body":"looks like"}}}"#,
        ),
        tantivy: tantivy(r#"d.payload.comment.body:"looks like""#, 0),
    },
    Question {
        name: "document by id",
        answer: AnswerKind::Documents,
        rachis: "select _doc from gh where id = '2489368070'",
        duckdb: "select json from gh where id = '2489368070'",
        chdb: "select data from gh where data.id.:String = '2489368070'",
        victoria_logs: logs_ql(r#"id:="2489368070""#, &[]),
        open_search: dsl(r#"{"query":{"term":{"id.keyword":"2489368070"}}}"#),
        tantivy: tantivy("d.id:2489368070", 1),
    },
    Question {
        // Unique, like an id, but not the key of a system. The raw index has no token of 40 characters.
        name: "document by a field",
        answer: AnswerKind::Documents,
        rachis: "select _doc from gh where payload.head = 'fe6d08e43085ed465200ba9bc3ca8ba1799e7ed7'",
        duckdb: "select json from gh where payload.head::varchar = 'fe6d08e43085ed465200ba9bc3ca8ba1799e7ed7'",
        chdb: "select data from gh where data.payload.head.:String = 'fe6d08e43085ed465200ba9bc3ca8ba1799e7ed7'",
        victoria_logs: logs_ql(r#""payload.head":="fe6d08e43085ed465200ba9bc3ca8ba1799e7ed7""#, &[]),
        open_search: dsl(r#"{"query":{"term":{"payload.head.keyword":"fe6d08e43085ed465200ba9bc3ca8ba1799e7ed7"}}}"#),
        tantivy: None,
    },
    Question {
        name: "newest 20 of an actor",
        answer: AnswerKind::Documents,
        rachis: "select _doc from gh where actor.login = 'gyuho' order by created_at desc, id desc limit 20",
        duckdb: "select json from gh where actor.login = 'gyuho' order by created_at desc, id desc limit 20",
        chdb: "select data from gh where data.actor.login.:String = 'gyuho' \
               order by data.created_at::String desc, data.id.:String desc limit 20",
        victoria_logs: logs_ql(
            r#""actor.login":="gyuho" | sort by (_time desc, id desc) limit 20"#,
            &[],
        ),
        open_search: dsl(r#"{"size":20,"query":{"term":{"actor.login.keyword":"gyuho"}},
                "sort":[{"created_at":"desc"},{"id.keyword":"desc"}]}"#),
        tantivy: tantivy("d.actor.login:gyuho", 20),
    },
    Question {
        name: "average and maximum",
        answer: AnswerKind::Rows,
        rachis: "select avg(payload.size) as average, max(payload.size) as maximum from gh",
        duckdb: "select avg(payload.\"size\") as average, max(payload.\"size\") as maximum from gh",
        chdb: "select avg(data.payload.size.:Int64) as average, max(data.payload.size.:Int64) as maximum from gh",
        victoria_logs: logs_ql(
            r#"* | stats avg("payload.size") average, max("payload.size") maximum"#,
            &["average", "maximum"],
        ),
        open_search: dsl(r#"{"size":0,"aggs":{"average":{"avg":{"field":"payload.size"}},
                "maximum":{"max":{"field":"payload.size"}}}}"#),
        tantivy: None,
    },
    Question {
        name: "newest 20 with a word",
        answer: AnswerKind::Documents,
        rachis: "select _doc from gh where search('payload.comment.body:fixed') \
                 order by created_at desc, id desc limit 20",
        duckdb: r"select json from gh where regexp_matches(payload.comment.body, '\bfixed\b', 'i')
                  order by created_at desc, id desc limit 20",
        chdb: r"select data from gh where match(data.payload.comment.body.:String, '(?i)\\bfixed\\b')
                order by data.created_at::String desc, data.id.:String desc limit 20",
        victoria_logs: logs_ql("_msg:i(fixed) | sort by (_time desc, id desc) limit 20", &[]),
        open_search: dsl(r#"{"size":20,"query":{"match":{"payload.comment.body":"fixed"}},
                "sort":[{"created_at":"desc"},{"id.keyword":"desc"}]}"#),
        tantivy: tantivy("d.payload.comment.body:fixed", 20),
    },
];
