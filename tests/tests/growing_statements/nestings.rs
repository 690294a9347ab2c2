//! Every construct that can contain another one of its kind.

/// A construct, with `{}` where the next one goes.
pub(crate) struct Nesting {
    /// The text around the outermost construct.
    pub statement: &'static str,
    pub construct: &'static str,
    /// What the innermost construct contains.
    pub innermost: &'static str,
}

impl Nesting {
    /// A statement with so many constructs in each other.
    pub(crate) fn write(&self, depth: usize) -> String {
        let nested = (0..depth).fold(self.innermost.to_owned(), |inner, _| {
            self.construct.replace("{}", &inner)
        });
        self.statement.replace("{}", &nested)
    }
}

/// All nestings.
pub(crate) fn nestings() -> impl Iterator<Item = Nesting> {
    let families: [(&[&str], &str, &str); 5] = [
        (&NUMBERS, "SELECT {} FROM e", "n"),
        (&TEXTS, "SELECT {} FROM e", "w"),
        (&CONDITIONS, "SELECT count(*) FROM e WHERE {}", "n > 1"),
        (&CONDITIONS, "SELECT {} FROM e", "n > 1"),
        (&QUERIES, "{}", "SELECT n FROM e"),
    ];
    families.into_iter().flat_map(|(constructs, statement, innermost)| {
        constructs.iter().map(move |construct| Nesting {
            statement,
            construct,
            innermost,
        })
    })
}

const NUMBERS: [&str; 38] = [
    "({})",
    "-({})",
    "abs({})",
    "round({}, 2)",
    "({}) + 1",
    "1 - ({})",
    "({}) % 7",
    "power({}, 2)",
    "coalesce({}, 1)",
    "coalesce(n, {})",
    "ifnull({}, 1)",
    "nullif({}, 1)",
    "greatest({}, 1)",
    "least(1, {})",
    "if(n > 1, {}, 2)",
    "if(({}) > 1, 1, 2)",
    "multiIf(n = 1, 1, n = 2, 2, {})",
    "CASE WHEN n > 1 THEN {} ELSE 2 END",
    "CASE WHEN ({}) > 1 THEN 1 ELSE 2 END",
    "CASE {} WHEN 1 THEN 2 ELSE 3 END",
    "CASE WHEN n = 1 THEN 1 ELSE {} END",
    "CAST({} AS BIGINT)",
    "TRY_CAST({} AS DOUBLE)",
    "({})::text::double",
    "intDiv({}, 2)",
    "toInt64({})",
    "length(({})::text)",
    "date_part('hour', to_timestamp({}))",
    "extract(epoch FROM to_timestamp({}))",
    "date_diff('second', to_timestamp({}), to_timestamp(n))",
    "date_diff('second', to_timestamp(n), to_timestamp({}))",
    "(SELECT {})",
    "(SELECT max({}) FROM e)",
    "(SELECT count(*) FROM e WHERE n > {})",
    "(SELECT max(n) FROM e AS x WHERE x.n = {})",
    "ARRAY[{}][1]",
    "array_length(ARRAY[{}])",
    "o.k + ({})",
];

const TEXTS: [&str; 18] = [
    "lower({})",
    "trim({})",
    "concat({}, 'a')",
    "({}) || 'a'",
    "replace({}, 'a', 'b')",
    "regexp_replace({}, 'a', 'b')",
    "regexp_extract({}, 'a')",
    "substr({}, 1)",
    "left({}, 3)",
    "split_part({}, 'a', 1)",
    "coalesce({}, w)",
    "coalesce(w, {})",
    "toString({})",
    "if(({}) = 'a', 'b', 'c')",
    "CASE {} WHEN 'a' THEN 'b' ELSE 'c' END",
    "({})->>'k'",
    "json_extract({}, '$.k')",
    "to_json({})",
];

const CONDITIONS: [&str; 31] = [
    "({})",
    "NOT ({})",
    "({}) AND n > 0",
    "n > 0 OR ({})",
    "({}) IS NULL",
    "({}) IS NOT TRUE",
    "({}) = true",
    "true <> ({})",
    "({}) IN (true, false)",
    "({}) IS DISTINCT FROM true",
    "({})::int BETWEEN 0 AND 1",
    "({})::text = 5",
    "({})::text = timestamp '2026-01-01'",
    "date_diff(({})::text, now(), now()) = 1",
    "_doc @> (({})::text)",
    "({})::text LIKE 't%'",
    "(({}) = true) = (n > 1)",
    "CASE WHEN {} THEN true ELSE false END",
    "coalesce({}, false)",
    "EXISTS (SELECT 1 FROM e WHERE {})",
    "NOT EXISTS (SELECT 1 FROM e WHERE {})",
    "n IN (SELECT n FROM e WHERE {})",
    "n NOT IN (SELECT n FROM e WHERE {})",
    "n = ANY (SELECT n FROM e WHERE {})",
    "n > ALL (SELECT n FROM e WHERE {})",
    "n < ANY (SELECT n FROM e WHERE {})",
    "(n IN (SELECT n FROM e WHERE {})) = true",
    "(n NOT IN (SELECT n FROM e WHERE {})) IS TRUE",
    "(n > ANY (SELECT n FROM e WHERE {})) IS NOT NULL",
    "(EXISTS (SELECT 1 FROM e WHERE {})) = true",
    "(SELECT countIf({}) FROM e) > 0",
];

const QUERIES: [&str; 37] = [
    "({})",
    "SELECT n FROM ({}) AS t",
    "SELECT n + 1 AS n FROM ({}) AS t",
    "SELECT n + n AS n FROM ({}) AS t",
    "SELECT n + n AS n FROM ({}) AS t WHERE n > 0",
    "SELECT CASE WHEN n > 1 THEN n ELSE -n END AS n FROM ({}) AS t WHERE n > 0",
    "SELECT coalesce(n, 1 - n) AS n FROM ({}) AS t",
    "SELECT coalesce(n, 1 - n) AS n FROM ({}) AS t WHERE n > 0",
    "SELECT CASE n WHEN 1 THEN 2 WHEN 3 THEN 4 ELSE n END AS n FROM ({}) AS t",
    "SELECT nullif(n, 7) AS n FROM ({}) AS t WHERE n < 100",
    "SELECT (n IN (1, n, 3))::int AS n FROM ({}) AS t WHERE n >= 0",
    "SELECT a.n + a.n AS n FROM ({}) AS a LEFT SEMI JOIN e AS b ON a.n > b.n",
    "SELECT a.n + a.n AS n FROM ({}) AS a LEFT ANTI JOIN e AS b ON a.n > b.n",
    "SELECT n + n AS n FROM ({}) AS t WHERE EXISTS (SELECT 1 FROM e AS x WHERE x.n = t.n AND t.n > 5)",
    "SELECT t.n + t.n AS n FROM ({}) AS t, unnest(ARRAY[t.n]) AS u (m) WHERE t.n > 0",
    "SELECT n FROM ({}) AS t ORDER BY n LIMIT 5",
    "SELECT n * n AS n FROM ({}) AS t ORDER BY n LIMIT 5",
    "SELECT DISTINCT n FROM ({}) AS t",
    "SELECT n FROM ({}) AS t GROUP BY n",
    "SELECT n % 7 AS n FROM ({}) AS t GROUP BY 1",
    "SELECT max(n) AS n FROM ({}) AS t",
    "SELECT count(*) FILTER (WHERE n > 1) AS n FROM ({}) AS t",
    "SELECT sum(n) OVER (ORDER BY n) AS n FROM ({}) AS t",
    "SELECT n FROM ({}) AS t QUALIFY row_number() OVER (ORDER BY n) > 0",
    "SELECT n FROM ({}) AS t UNION ALL SELECT 1",
    "SELECT n FROM e UNION ALL ({})",
    "SELECT n FROM e UNION ({})",
    "SELECT n FROM e EXCEPT ({})",
    "SELECT n FROM e INTERSECT ({})",
    "WITH c AS ({}) SELECT n FROM c",
    "WITH c AS ({}) SELECT a.n FROM c AS a, c AS b WHERE a.n = b.n",
    "SELECT a.n FROM ({}) AS a JOIN e AS b ON a.n = b.n",
    "SELECT a.n FROM e AS a LEFT JOIN ({}) AS b ON a.n = b.n",
    "SELECT n FROM e AS a FULL JOIN ({}) AS b USING (n)",
    "SELECT n FROM e WHERE n IN ({})",
    "SELECT n IN ({}) AS n FROM e",
    "SELECT (SELECT max(x) FROM ({}) AS t (x)) AS n FROM e",
];
