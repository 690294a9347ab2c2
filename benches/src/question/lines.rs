//! Questions about the parts of log lines. Nothing was parsed when the lines were loaded.
//!
//! Rachis has the parser [`PARSER`], created after loading. DuckDB and chdb match a regular expression with the same
//! groups; VictoriaLogs cuts the line at the literals between its parts.

use super::{LogsQl, Question};
use crate::answer::AnswerKind;

/// The definition of the parser.
pub(crate) const PARSER: &str = r#"create parser lines.access on line as grok
    '^%{IPV4:client} "%{WORD:method} %{NOTSPACE:target} [^"]*" %{INT:status:int} %{INT:bytes:int} %{INT:took:int}ms$'"#;

/// The questions.
pub(crate) static LINES: [Question; 3] = [
    Question {
        name: "one part",
        answer: AnswerKind::Rows,
        rachis: "select access.status as status, count(*) as n from lines group by status order by status",
        duckdb: r#"select regexp_extract(line, '^([0-9.]+) "(\w+) (\S+) [^"]*" (\d+) (\d+) (\d+)ms$', 4)::int as status,
                   count(*) as n from lines group by status order by status"#,
        chdb: r#"select toInt32(extractGroups(data.line::String, '^([0-9.]+) "(\\w+) (\\S+) [^"]*" (\\d+) (\\d+) (\\d+)ms$')[4])
                 as status, count() as n from lines group by status order by status"#,
        victoria_logs: LogsQl {
            query: r#"* | extract "<client> \"<method> <target> <_>\" <status> <bytes> <took>ms"
                      | stats by (status) count() n | sort by (status)"#,
            columns: &["status", "n"],
        },
        open_search: None,
        tantivy: None,
    },
    Question {
        name: "three parts",
        answer: AnswerKind::Rows,
        rachis: "select access.method as method, sum(access.bytes) as b, max(access.took) as m from lines \
                 group by method order by method",
        duckdb: r#"select p.method as method, sum(p.bytes::int)::bigint as b, max(p.took::int) as m
                   from (select regexp_extract(line, '^([0-9.]+) "(\w+) (\S+) [^"]*" (\d+) (\d+) (\d+)ms$',
                         ['client', 'method', 'target', 'status', 'bytes', 'took']) as p from lines)
                   group by method order by method"#,
        chdb: r#"select p[2] as method, sum(toInt64(p[5])) as b, max(toInt64(p[6])) as m
                 from (select extractGroups(data.line::String,
                       '^([0-9.]+) "(\\w+) (\\S+) [^"]*" (\\d+) (\\d+) (\\d+)ms$') as p from lines)
                 group by method order by method"#,
        victoria_logs: LogsQl {
            query: r#"* | extract "<client> \"<method> <target> <_>\" <status> <bytes> <took>ms"
                      | stats by (method) sum(bytes) b, max(took) m | sort by (method)"#,
            columns: &["method", "b", "m"],
        },
        open_search: None,
        tantivy: None,
    },
    Question {
        name: "few match",
        answer: AnswerKind::Rows,
        rachis: "select count(*) as n, max(access.bytes) as b from lines where access.status = 500 and access.took > 1990",
        duckdb: r#"select count(*) as n, max(p.bytes::int) as b
                   from (select regexp_extract(line, '^([0-9.]+) "(\w+) (\S+) [^"]*" (\d+) (\d+) (\d+)ms$',
                         ['client', 'method', 'target', 'status', 'bytes', 'took']) as p from lines)
                   where p.status = '500' and p.took::int > 1990"#,
        chdb: r#"select count() as n, max(toInt64(p[5])) as b
                 from (select extractGroups(data.line::String,
                       '^([0-9.]+) "(\\w+) (\\S+) [^"]*" (\\d+) (\\d+) (\\d+)ms$') as p from lines)
                 where p[4] = '500' and toInt64(p[6]) > 1990"#,
        victoria_logs: LogsQl {
            query: r#"* | extract "<client> \"<method> <target> <_>\" <status> <bytes> <took>ms"
                      | filter status:=500 took:>1990 | stats count() n, max(bytes) b"#,
            columns: &["n", "b"],
        },
        open_search: None,
        tantivy: None,
    },
];
