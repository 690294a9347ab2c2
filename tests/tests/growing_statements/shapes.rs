//! Statements of any length, one shape for each thing that a statement may have many of.

use rand::{RngExt as _, rngs::StdRng};

/// A way to write a statement of about so many bytes.
pub(crate) struct Shape {
    pub name: &'static str,
    pub write: fn(usize, &mut StdRng) -> String,
}

/// A comma-separated list of generated items.
pub(crate) fn list(count: usize, item: impl FnMut(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(", ")
}

/// Items, joined, up to so many bytes.
fn fill(bytes: usize, separator: &str, mut item: impl FnMut(usize) -> String) -> String {
    let (mut text, mut number) = (String::with_capacity(bytes), 0);
    loop {
        let next = item(number);
        if text.len() + separator.len() + next.len() > bytes {
            return text;
        }
        if number > 0 {
            text.push_str(separator);
        }
        text.push_str(&next);
        number += 1;
    }
}

/// Letters and digits.
fn word(length: usize, rng: &mut StdRng) -> String {
    (0..length)
        .map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[rng.random_range(0..36)]))
        .collect()
}

macro_rules! shapes {
    ($($name:literal: |$bytes:ident, $rng:ident| $write:expr,)*) => {
        &[$(Shape { name: $name, write: |$bytes, $rng| $write }),*]
    };
}

pub(crate) const SHAPES: &[Shape] = shapes![
    "texts in IN": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE w IN ({})", fill(bytes, ", ", |_| format!("'{}'", word(30, rng))))
    },
    "short texts in IN": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE w IN ({})", fill(bytes, ",", |_| format!("'{}'", word(7, rng))))
    },
    "numbers in NOT IN": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE n NOT IN ({})", fill(bytes, ",", |_| rng.random::<u32>().to_string()))
    },
    "texts of an expression in IN": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE lower(w) || 'x' IN ({})", fill(bytes, ",", |_| format!("'{}'", word(7, rng))))
    },
    "expressions in IN": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE n IN ({})", fill(bytes, ",", |_| format!("n + {}", rng.random::<u16>())))
    },
    "a text": |bytes, rng| format!("SELECT count(*) FROM e WHERE w = '{}'", word(bytes, rng)),
    "quotes in a text": |bytes, _rng| format!("SELECT count(*) FROM e WHERE w = '{}'", "''".repeat(bytes / 2)),
    "compared texts": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE {}", fill(bytes, " OR ", |_| format!("w = '{}'", word(7, rng))))
    },
    "comments": |bytes, rng| {
        format!("SELECT {} count(*) FROM e", fill(bytes, "\n", |_| format!("-- {}\n/* {} */", word(9, rng), word(9, rng))))
    },
    "a comment": |bytes, rng| format!("SELECT /* {} */ count(*) FROM e", word(bytes, rng)),
    "nested comments": |bytes, _rng| {
        format!("SELECT {}{} count(*) FROM e", "/*".repeat(bytes / 4), "*/".repeat(bytes / 4))
    },
    "white space": |bytes, _rng| format!("SELECT {} count(*) FROM e", " \n\t".repeat(bytes / 3)),
    "plus": |bytes, rng| format!("SELECT n{} FROM e", fill(bytes, "", |_| format!(" + {}", rng.random::<u8>()))),
    "AND": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE {}", fill(bytes, " AND ", |_| format!("n <> {}", rng.random::<u32>())))
    },
    "NOT": |bytes, _rng| format!("SELECT count(*) FROM e WHERE {} w = 'a'", "NOT ".repeat(bytes / 4)),
    "sums": |bytes, rng| {
        format!("SELECT {} FROM e", fill(bytes, ", ", |_| format!("n{}", " + 1".repeat(rng.random_range(1..900)))))
    },
    "columns": |bytes, _rng| format!("SELECT {} FROM e", fill(bytes, ", ", |i| format!("n AS c{i}"))),
    "the same column": |bytes, _rng| format!("SELECT {} FROM e", fill(bytes, ",", |_| "n".into())),
    "paths": |bytes, rng| format!("SELECT {} FROM e", fill(bytes, ",", |_| format!("o.{}", word(9, rng)))),
    "a path": |bytes, _rng| format!("SELECT o{} FROM e", ".k".repeat(bytes / 2)),
    "a name": |bytes, rng| format!("SELECT n AS a{} FROM e", word(bytes, rng)),
    "aggregates": |bytes, _rng| format!("SELECT {} FROM e", fill(bytes, ", ", |i| format!("sum(n + {i}) AS c{i}"))),
    "GROUP BY": |bytes, _rng| format!("SELECT count(*) FROM e GROUP BY {}", fill(bytes, ", ", |i| format!("n + {i}"))),
    "ORDER BY": |bytes, _rng| format!("SELECT n FROM e ORDER BY {}", fill(bytes, ", ", |i| format!("n % {}", i + 1))),
    "GROUPING SETS": |bytes, _rng| {
        format!("SELECT count(*) FROM e GROUP BY GROUPING SETS ({})", fill(bytes, ", ", |i| format!("(n, w, o.k{i})")))
    },
    "WITH": |bytes, _rng| {
        format!("WITH {} SELECT * FROM c0", fill(bytes, ", ", |i| format!("c{i} AS (SELECT n + {i} AS n FROM e)")))
    },
    "UNION": |bytes, _rng| fill(bytes, " UNION ALL ", |i| format!("SELECT n + {i} FROM e")),
    "wide UNION": |bytes, _rng| {
        let columns = list(200, |i| format!("n + {i} AS c{i}"));
        fill(bytes, " UNION ALL ", |_| format!("SELECT {columns} FROM e"))
    },
    "joins": |bytes, _rng| {
        let joins = fill(bytes, " ", |i| format!("JOIN e AS e{} ON e{i}.n = e{}.n", i + 1, i + 1));
        format!("SELECT count(*) FROM e AS e0 {joins}")
    },
    "inputs": |bytes, _rng| format!("SELECT count(*) FROM {}", fill(bytes, ", ", |i| format!("e AS e{i}"))),
    "conditions of a join": |bytes, rng| {
        let conditions = fill(bytes, " OR ", |_| format!("a.n + b.n = {}", rng.random::<u32>()));
        format!("SELECT count(*) FROM e AS a JOIN e AS b ON {conditions}")
    },
    "USING": |bytes, rng| {
        format!("SELECT count(*) FROM e AS a JOIN e AS b USING ({})", fill(bytes, ",", |_| word(8, rng)))
    },
    "VALUES": |bytes, rng| {
        format!("SELECT count(*) FROM (VALUES {}) AS v (a, b)", fill(bytes, ",", |i| format!("({i},'{}')", word(5, rng))))
    },
    "a row of VALUES": |bytes, _rng| format!("VALUES ({})", fill(bytes, ",", |i| i.to_string())),
    "CASE": |bytes, rng| {
        let branches = fill(bytes, " ", |i| format!("WHEN n = {i} THEN '{}'", word(5, rng)));
        format!("SELECT CASE {branches} END FROM e")
    },
    "arguments": |bytes, _rng| format!("SELECT concat({}) FROM e", fill(bytes, ",", |i| format!("w,{i}"))),
    "a list": |bytes, _rng| format!("SELECT ARRAY[{}] FROM e", fill(bytes, ",", |i| i.to_string())),
    "parentheses": |bytes, _rng| format!("SELECT {}n{} FROM e", "(".repeat(bytes / 2), ")".repeat(bytes / 2)),
    "calls": |bytes, _rng| format!("SELECT {}w{} FROM e", "lower(".repeat(bytes / 7), ")".repeat(bytes / 7)),
    "casts": |bytes, _rng| format!("SELECT n{} FROM e", "::text::int".repeat(bytes / 11)),
    "commas": |bytes, _rng| format!("SELECT {}", ",".repeat(bytes)),
    "semicolons": |bytes, _rng| format!("SELECT 1{}", ";".repeat(bytes)),
    "at signs": |bytes, _rng| format!("SELECT {} FROM e", "@a".repeat(bytes / 2)),
    "LIKE": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE w LIKE '{}'", fill(bytes, "%", |_| word(5, rng)))
    },
    "alternatives of a pattern": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE w ~ '{}'", fill(bytes, "|", |_| word(7, rng)))
    },
    "classes of a pattern": |bytes, _rng| format!("SELECT count(*) FROM e WHERE w ~ '{}'", "[a-z]?".repeat(bytes / 6)),
    "SIMILAR TO": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE w SIMILAR TO '{}'", fill(bytes, "|", |_| word(7, rng)))
    },
    "unclosed parentheses": |bytes, _rng| format!("SELECT {}", "(".repeat(bytes)),
    "unclosed brackets": |bytes, _rng| format!("SELECT n{}", "[".repeat(bytes)),
    "windows": |bytes, _rng| {
        format!("SELECT {} FROM e", fill(bytes, ", ", |i| format!("sum(n) OVER (ORDER BY n + {i}) AS c{i}")))
    },
    "functions of one window": |bytes, _rng| {
        format!("SELECT {} FROM e", fill(bytes, ", ", |i| format!("sum(n + {i}) OVER (ORDER BY n) AS c{i}")))
    },
    "partitions of a window": |bytes, _rng| {
        format!("SELECT sum(n) OVER (PARTITION BY {}) FROM e", fill(bytes, ", ", |i| format!("n + {i}")))
    },
    "coalesce": |bytes, _rng| format!("SELECT coalesce({}) FROM e", fill(bytes, ",", |i| format!("o.a{i}"))),
    "coalesce of an expression": |bytes, _rng| {
        format!("SELECT coalesce({}) FROM e", fill(bytes, ",", |i| format!("n + {i}")))
    },
    "greatest": |bytes, _rng| format!("SELECT greatest({}) FROM e", fill(bytes, ",", |i| format!("n + {i}"))),
    "multiIf": |bytes, _rng| format!("SELECT multiIf({}, 0) FROM e", fill(bytes, ", ", |i| format!("n = {i}, {i}"))),
    "WITH, each of the one before": |bytes, _rng| {
        let queries = fill(bytes, ", ", |i| format!("c{} AS (SELECT n + 1 AS n FROM c{i})", i + 1));
        format!("WITH c0 AS (SELECT n FROM e), {queries} SELECT n FROM c1")
    },
    "WITH, the last of all before": |bytes, _rng| {
        let (mut last, queries) = (0, &mut String::from("c0 AS (SELECT n FROM e)"));
        while queries.len() < bytes {
            last += 1;
            queries.push_str(&format!(", c{last} AS (SELECT n + 1 AS n FROM c{})", last - 1));
        }
        format!("WITH {queries} SELECT n FROM c{last}")
    },
    "EXISTS": |bytes, _rng| {
        let conditions = fill(bytes, " AND ", |i| format!("EXISTS (SELECT 1 FROM e AS x WHERE x.n = e.n + {i})"));
        format!("SELECT count(*) FROM e WHERE {conditions}")
    },
    "EXISTS in a select list": |bytes, _rng| {
        let items = fill(bytes, ", ", |i| format!("EXISTS (SELECT 1 FROM e AS x WHERE x.n = e.n AND x.n > {i}) AS c{i}"));
        format!("SELECT {items} FROM e")
    },
    "IN subqueries": |bytes, _rng| {
        let conditions = fill(bytes, " AND ", |i| format!("n IN (SELECT n + {i} FROM e)"));
        format!("SELECT count(*) FROM e WHERE {conditions}")
    },
    "scalar subqueries": |bytes, _rng| {
        format!("SELECT {}", fill(bytes, ", ", |i| format!("(SELECT max(n + {i}) FROM e) AS c{i}")))
    },
    "subqueries in FROM": |bytes, _rng| {
        format!("SELECT count(*) FROM {}", fill(bytes, ", ", |i| format!("(SELECT n FROM e WHERE n = {i}) AS e{i}")))
    },
    "FILTER": |bytes, _rng| {
        format!("SELECT {} FROM e", fill(bytes, ", ", |i| format!("count(*) FILTER (WHERE n > {i}) AS c{i}")))
    },
    "countIf": |bytes, _rng| format!("SELECT {} FROM e", fill(bytes, ", ", |i| format!("countIf(n > {i}) AS c{i}"))),
    "date_diff": |bytes, _rng| {
        format!("SELECT {} FROM e", fill(bytes, ", ", |i| format!("date_diff('day', _time, _ingested) AS c{i}")))
    },
    "EXCLUDE": |bytes, rng| {
        format!("SELECT * EXCLUDE ({}) FROM e", fill(bytes, ",", |i| format!("x{}{i}", word(4, rng))))
    },
    "REPLACE": |bytes, _rng| {
        format!("SELECT * REPLACE ({}) FROM e", fill(bytes, ", ", |i| format!("n + {i} AS n")))
    },
    "QUALIFY": |bytes, _rng| {
        let conditions = fill(bytes, " AND ", |i| format!("row_number() OVER (ORDER BY n) > {i}"));
        format!("SELECT n FROM e QUALIFY {conditions}")
    },
    "sorted QUALIFY": |bytes, _rng| {
        let columns = fill(bytes / 2, ", ", |i| format!("n AS c{i}"));
        let keys = fill(bytes / 2, ", ", |i| format!("n + k{i}"));
        format!("SELECT {columns} FROM e QUALIFY n > 0 ORDER BY {keys}")
    },
    "members of an object": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE _doc @> '{{{}}}'", fill(bytes, ",", |i| format!("\"{}{i}\":1", word(4, rng))))
    },
    "items of a list": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE o @> '[{}]'", fill(bytes, ",", |_| format!("\"{}\"", word(6, rng))))
    },
    "arrows": |bytes, _rng| format!("SELECT _doc{} FROM e", "->'k'".repeat(bytes / 5)),
    "steps of a JSON path": |bytes, _rng| format!("SELECT _doc->>'$.o{}' FROM e", ".k".repeat(bytes / 2)),
    "steps of a JSON function": |bytes, _rng| format!("SELECT json_exists(_doc, '$.o{}') FROM e", ".k".repeat(bytes / 2)),
    "a contained document": |bytes, _rng| {
        format!("SELECT count(*) FROM e WHERE _doc @> '{}{}'", "[".repeat(bytes / 2), "]".repeat(bytes / 2))
    },
    "parameters of aggregates": |bytes, _rng| {
        format!("SELECT {} FROM e", fill(bytes, ", ", |i| format!("quantile(0.5)(n + {i}) AS c{i}")))
    },
    "parameters in each other": |bytes, _rng| format!("SELECT {}n", "quantile(0.5)(".repeat(bytes / 14)),
    "keys of a JSON function": |bytes, rng| {
        format!("SELECT JSONExtractString(_doc, {}) FROM e", fill(bytes, ", ", |_| format!("'{}'", word(4, rng))))
    },
    "words of a search": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE search('{}')", fill(bytes, " ", |_| word(7, rng)))
    },
    "alternatives of a search": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE search('{}')", fill(bytes, " OR ", |_| format!("w:{}", word(7, rng))))
    },
    "a phrase of a search": |bytes, rng| {
        format!("SELECT count(*) FROM e WHERE search('\"{}\"')", fill(bytes, " ", |_| word(7, rng)))
    },
    "groups of a search": |bytes, _rng| {
        format!("SELECT count(*) FROM e WHERE search('{}a{}')", "(".repeat(bytes / 2), ")".repeat(bytes / 2))
    },
    "searches": |bytes, rng| {
        let conditions = fill(bytes, " OR ", |_| format!("search('{}')", word(7, rng)));
        format!("SELECT count(*) FROM e WHERE {conditions}")
    },
    "EXPLAIN": |bytes, _rng| format!("EXPLAIN SELECT {} FROM e", fill(bytes, ", ", |i| format!("n + {i} AS c{i}"))),
    "a field": |bytes, _rng| {
        format!("CREATE OR REPLACE FIELD e.f AS n{}", fill(bytes, "", |i| format!(" + {i}")))
    },
    "a view": |bytes, _rng| {
        format!("CREATE OR REPLACE VIEW v AS SELECT {} FROM e", fill(bytes, ", ", |i| format!("n + {i} AS c{i}")))
    },
];
