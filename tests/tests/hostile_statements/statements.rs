//! Statements that ask for far more memory or time than the server has.

use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

/// A comma-separated list of generated items.
fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(", ")
}

/// Statements that once ended a server, or used up the memory of its machine.
pub(crate) fn known() -> Vec<String> {
    let nested =
        |depth: usize, wrap: &dyn Fn(String) -> String| (0..depth).fold("w".to_owned(), |inner, _| wrap(inner));
    let doubled = (0..26).fold("(SELECT 'xxxxxxxxxxxxxxxx' AS x)".to_owned(), |inner, _| {
        format!("(SELECT x || x AS x FROM {inner} AS t)")
    });
    let letters: Vec<String> = (0..22).map(|n| format!("o.k + {n}")).collect();
    let plus = (0..24).fold("n".to_owned(), |inner, _| format!("({inner}{})", " + n".repeat(900)));
    vec![
        format!("SELECT {} FROM e", list(100, |n| format!("lpad(w, {}) AS c{n}", 10_000 - n))),
        format!("SELECT {} FROM e", list(100, |n| format!("max(lpad(w, {})) AS c{n}", 10_000 - n))),
        format!("SELECT count(*) FROM e WHERE {} > 'a'", list(100, |n| format!("lpad(w, {})", 10_000 - n)).replace("), ", ") || ")),
        format!("SELECT replace(t, 'a', '{}') FROM e", "x".repeat(2_000)),
        format!("SELECT sum(length(replace(t, '', '{}'))) FROM e", "x".repeat(2_000)),
        format!("SELECT sum(length(regexp_replace(t, '.', '{}', 'g'))) FROM e", "x".repeat(2_000)),
        r"SELECT sum(length(regexp_replace(t, '(.)', '\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1', 'g'))) FROM e".into(),
        "SELECT sum(length(translate(t, 'ab', 'ß€'))) FROM e".into(),
        format!("SELECT max(length({})) FROM e", nested(8, &|x| format!("replace({x}, 'a', 'aaaaaaaaaaaaaaaa')"))),
        format!("SELECT max(length({})) FROM e", nested(12, &|x| format!("({x} || {x})"))),
        "SELECT string_agg(t, ',') OVER (ORDER BY n) FROM e".into(),
        "SELECT array_agg(t) OVER (ORDER BY n) FROM e".into(),
        "SELECT array_agg(n) OVER () FROM e".into(),
        "SELECT string_agg(t, ',') OVER () FROM e".into(),
        "SELECT max(t) OVER (), min(t) OVER (), first_value(t) OVER (ORDER BY n) FROM e".into(),
        "SELECT count(*) FROM e WHERE array_has((SELECT array_agg(n) FROM e), n)".into(),
        "SELECT count(*) FROM e, (SELECT array_agg(t) AS all_of FROM e) AS x WHERE array_has(x.all_of, e.w)".into(),
        "SELECT max(length(array_to_string(x.all_of, ', '))) FROM e, (SELECT array_agg(n) AS all_of FROM e) AS x".into(),
        "SELECT array_join(x.all_of, '----------------------------') FROM e, (SELECT array_agg(n) AS all_of FROM e) AS x".into(),
        "SELECT e.n, x.s FROM e, (SELECT string_agg(t, '') AS s FROM e) AS x".into(),
        "SELECT e.n, (SELECT string_agg(t, '') FROM e) AS s FROM e".into(),
        "SELECT a.t, b.t, length(a.t || b.t) FROM e AS a, e AS b ORDER BY 3 DESC LIMIT 5".into(),
        "SELECT a.l, b.l FROM e AS a JOIN e AS b ON a.w = b.w ORDER BY a.n LIMIT 5".into(),
        "SELECT x.i, x.t FROM (SELECT unnest(a.all_of) AS i, e.t FROM e, (SELECT array_agg(n) AS all_of FROM e) AS a) AS x ORDER BY x.i LIMIT 5"
            .into(),
        format!("SELECT max(greatest({})) FROM e", list(900, |n| format!("t || '{n}'"))),
        format!("SELECT count(*) FROM e GROUP BY CUBE ({})", letters.join(", ")),
        "SELECT count(DISTINCT t) FROM e GROUP BY CUBE (n, w, p, o.k, l::text, length(t))".into(),
        "SELECT count(*), count(DISTINCT b.p), max(b.n) FROM e AS a JOIN e AS b ON a.w = b.w GROUP BY ROLLUP (a.n, b.n)".into(),
        "SELECT count(DISTINCT b.p) FROM e AS a JOIN e AS b ON a.w = b.w GROUP BY GROUPING SETS ((a.n, b.n), (a.n))".into(),
        "SELECT a.n, b.n, count(DISTINCT a.p), count(DISTINCT b.p) FROM e AS a JOIN e AS b ON a.w = b.w GROUP BY a.n, b.n".into(),
        "SELECT array_agg(DISTINCT t), string_agg(DISTINCT p, ','), nth_value(t, 2 ORDER BY n) FROM e GROUP BY CUBE (n, w, p, o.k, length(t))".into(),
        format!("SELECT {} FROM e", list(3_000, |n| format!("t AS c{n}"))),
        "SELECT count(*) FROM e WHERE regexp_like(t, p)".into(),
        "SELECT count(*) FROM e WHERE w ~ (p || p || p)".into(),
        format!("SELECT count(*) FROM e WHERE t LIKE '{}' || n", "a%_".repeat(5_000)),
        format!("SELECT count(*) FROM e WHERE t NOT ILIKE '%{}%' || n", "a%_é".repeat(1_000)),
        format!("SELECT count(*) FROM e WHERE t LIKE '%{}%'", "a%_".repeat(20_000)),
        format!("SELECT count(*) FROM e WHERE t LIKE '%{}z'", "a%_".repeat(2_000)),
        format!("SELECT count(*) FROM e WHERE t ~ '{}z'", "a.*_?".repeat(1_000)),
        format!("SELECT count(*) FROM e WHERE regexp_replace(t, '{}z', 'x', 'g') = w", "(a|b.*)".repeat(500)),
        "SELECT count(*) FROM e WHERE t ~ ('(a.*b.*c?){' || (n % 500) || '}z')".into(),
        "SELECT count(*) FROM e WHERE t LIKE substr(t, 1, 100000) || '%' || substr(t, 5, 100000) || '%'".into(),
        "SELECT count(*) FROM e AS a JOIN e AS b ON levenshtein(a.t, b.t) < 3".into(),
        "SELECT count(*) FROM e AS a JOIN e AS b ON a.t LIKE b.w || '%'".into(),
        format!("SELECT {} FROM e ORDER BY n LIMIT 9999", list(1_500, |n| format!("t AS c{n}"))),
        format!("SELECT sum({plus}) FROM e"),
        format!("SELECT length(x) FROM {doubled} AS t"),
        "SELECT levenshtein(a.t, b.t) FROM e AS a, e AS b WHERE a.n >= 20000 AND b.n >= 20000".into(),
        format!("SELECT n, '{}' AS c FROM e", "x".repeat(900_000)),
        format!("SELECT n, CASE WHEN n > 3 THEN '{}' ELSE w END AS c FROM e ORDER BY n DESC LIMIT 3", "x".repeat(900_000)),
        format!("SELECT count(*) FROM e WHERE CASE WHEN n > 3 THEN '{}' ELSE w END = 'a'", "x".repeat(900_000)),
        format!("SELECT strpos(w, '{}'), concat(w, '{}') FROM e", "x".repeat(400_000), "y".repeat(400_000)),
        "SELECT count(DISTINCT a.t || b.n::text) FROM e AS a JOIN e AS b ON a.w = b.w".into(),
        "SELECT count(lag(t, 3) OVER (ORDER BY n)) FROM e".into(),
        "SELECT ntile(4) OVER (ORDER BY t || w), percent_rank() OVER (ORDER BY t) FROM e".into(),
        "SELECT count(*) FROM e AS a, e AS b, e AS c WHERE a.n + b.n + c.n = -1".into(),
        "SELECT a.w, count(*) FROM e AS a JOIN e AS b ON a.w = b.w JOIN e AS c ON b.w = c.w GROUP BY a.w".into(),
        "SELECT * FROM e AS a JOIN e AS b ON a.w = b.w ORDER BY a.n + b.n, a.t LIMIT 100000".into(),
    ]
}

/// Generates a statement of the same kinds: an expression that grows values, within a query that multiplies rows.
pub(crate) fn generated(rng: &mut StdRng) -> String {
    let text = growing_expression(rng, 3);
    let of = |rng: &mut StdRng, from: &str| growing_expression(rng, 2).replace("e.", from);
    match rng.random_range(0..10) {
        0 => format!(
            "SELECT {} FROM e",
            list(rng.random_range(1..80), |n| format!("{text} || '{n}' AS c{n}"))
        ),
        1 => format!(
            "SELECT max({text}), min({}), count(DISTINCT {}) FROM e",
            growing_expression(rng, 2),
            growing_expression(rng, 2)
        ),
        2 => format!("SELECT {text} AS g, count(*) FROM e GROUP BY {text}"),
        3 => format!("SELECT string_agg({text}, ', ') OVER (PARTITION BY e.w ORDER BY e.n) FROM e"),
        4 => format!(
            "SELECT array_agg({text}) OVER (ORDER BY e.n ROWS BETWEEN {} PRECEDING AND CURRENT ROW) FROM e",
            rng.random_range(1..5_000)
        ),
        5 => format!(
            "SELECT {}, {} FROM e AS a, e AS b WHERE a.n <> b.n",
            of(rng, "a."),
            of(rng, "b.")
        ),
        6 => format!("SELECT {}, b.l FROM e AS a JOIN e AS b ON a.w = b.w", of(rng, "a.")),
        7 => format!("SELECT * FROM (SELECT unnest(e.l) AS i, {text} AS x FROM e) AS u ORDER BY u.x DESC"),
        8 => format!("SELECT e.n, x.all_of FROM e, (SELECT array_agg({text}) AS all_of FROM e) AS x"),
        _ => format!(
            "SELECT e.n FROM e WHERE {text} > 'a' ORDER BY {} LIMIT 10",
            growing_expression(rng, 2)
        ),
    }
}

/// An expression whose value is longer than its operands.
fn growing_expression(rng: &mut StdRng, depth: usize) -> String {
    if depth == 0 {
        return (*["e.w", "e.t", "e.p", "(e.w || e.t)", "e.l::text"]
            .choose(rng)
            .expect("some"))
        .to_owned();
    }
    let inner = growing_expression(rng, depth - 1);
    let long = "xy".repeat(rng.random_range(1..1_000));
    match rng.random_range(0..9) {
        0 => format!("lpad({inner}, {})", rng.random_range(1..10_000)),
        1 => format!("replace({inner}, 'a', '{long}')"),
        2 => format!("regexp_replace({inner}, '[a-c]', '{long}', 'g')"),
        3 => format!("translate({inner}, 'abc', 'ß€x')"),
        4 => format!("({inner} || {})", growing_expression(rng, depth - 1)),
        5 => format!("concat({inner}, {inner}, '{long}')"),
        6 => format!("array_to_string(string_to_array({inner}, 'a'), '{long}')"),
        7 => format!("greatest({inner}, {})", growing_expression(rng, depth - 1)),
        _ => format!(
            "CASE WHEN e.n > {} THEN {inner} ELSE '{long}' END",
            rng.random_range(0..20_000)
        ),
    }
}
