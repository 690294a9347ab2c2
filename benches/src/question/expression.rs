//! Four questions about an expression over all documents. No index was built for it when they were loaded.
//!
//! Rachis has the fields of [`FIELDS`], created after loading; DuckDB and chdb compute from the text of the document.
//! VictoriaLogs keeps no text: it computes from its fields. OpenSearch and tantivy have no such expression.

use super::{LogsQl, Question};
use crate::answer::AnswerKind;

/// The definitions of the fields.
pub(crate) const FIELDS: [&str; 2] = [
    "create field texts.phase as (_doc->>'time_us')::bigint % 10007",
    r"create field texts.head as regexp_replace(_doc->>'did', '^did:plc:(...).*$', '\1')",
];
/// Questions that read all documents, and questions that few documents match.
pub(crate) const UNSELECTIVE: [&str; 2] = ["arithmetic over all", "regular expression over all"];
pub(crate) const SELECTIVE: [&str; 2] = ["arithmetic, few match", "regular expression, few match"];

/// The questions.
pub(crate) static EXPRESSIONS: [Question; 4] = [
    Question {
        name: UNSELECTIVE[0],
        answer: AnswerKind::Rows,
        rachis: "select sum(phase) as s, max(phase) as m from texts",
        duckdb: "select sum(p) as s, max(p) as m \
                 from (select (json->>'$.time_us')::bigint % 10007 as p from texts)",
        chdb: "select sum(p) as s, max(p) as m from (select JSONExtractInt(data, 'time_us') % 10007 as p from texts)",
        victoria_logs: LogsQl {
            query: "* | math time_us % 10007 as p | stats sum(p) s, max(p) m",
            columns: &["s", "m"],
        },
        open_search: None,
        tantivy: None,
    },
    Question {
        name: UNSELECTIVE[1],
        answer: AnswerKind::Rows,
        rachis: "select head, count(*) as n from texts group by head order by n desc, head limit 10",
        duckdb: "select regexp_extract(json->>'$.did', '^did:plc:(...)', 1) as head, count(*) as n from texts \
                 group by head order by n desc, head limit 10",
        chdb: "select extract(JSONExtractString(data, 'did'), '^did:plc:(...)') as head, count() as n from texts \
               group by head order by n desc, head limit 10",
        victoria_logs: LogsQl {
            query: r#"* | extract_regexp "^did:plc:(?P<head>...)" from did | stats by (head) count() n
                      | sort by (n desc, head) limit 10"#,
            columns: &["head", "n"],
        },
        open_search: None,
        tantivy: None,
    },
    Question {
        name: SELECTIVE[0],
        answer: AnswerKind::Rows,
        rachis: "select count(*) as n from texts where phase = 4242",
        duckdb: "select count(*) as n from texts where (json->>'$.time_us')::bigint % 10007 = 4242",
        chdb: "select count() as n from texts where JSONExtractInt(data, 'time_us') % 10007 = 4242",
        victoria_logs: LogsQl {
            query: "* | math time_us % 10007 as p | filter p:=4242 | stats count() n",
            columns: &["n"],
        },
        open_search: None,
        tantivy: None,
    },
    Question {
        name: SELECTIVE[1],
        answer: AnswerKind::Rows,
        rachis: "select count(*) as n from texts where head = 'abc'",
        duckdb: "select count(*) as n from texts where regexp_extract(json->>'$.did', '^did:plc:(...)', 1) = 'abc'",
        chdb: "select count() as n from texts \
               where extract(JSONExtractString(data, 'did'), '^did:plc:(...)') = 'abc'",
        victoria_logs: LogsQl {
            query: r#"* | extract_regexp "^did:plc:(?P<head>...)" from did | filter "head":="abc" | stats count() n"#,
            columns: &["n"],
        },
        open_search: None,
        tantivy: None,
    },
];
