//! Random documents and conditions.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::DataType,
    functions::expr_fn::{left, regexp_replace, split_part, substr},
    logical_expr::{Expr, Operator, and, binary_expr, lit, not, or},
    prelude::cast,
    scalar::ScalarValue,
};
use plan::{
    Column, Path,
    search::{Clause, Match},
};

use super::document;
use crate::document::Document;

/// Random numbers (splitmix64) from a seed that is printed if the test fails.
pub(super) struct SeededRng(pub(super) u64);

impl SeededRng {
    pub(super) fn new(test: &str) -> Self {
        let seed = std::env::var("RACHIS_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |now| now.as_nanos() as u64)
        });
        eprintln!("{test}: RACHIS_TEST_SEED={seed}");
        Self(seed)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    pub(super) fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const VALUES: [&str; 22] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "2",
    "-3",
    "7",
    "1.5",
    "-0.0",
    "2.0",
    "1e3",
    "9007199254740993",
    "1e999",
    "\"a\"",
    "\"ab\"",
    "\"abc d\"",
    "\"7\"",
    "\"2024-01-02T03:04:05Z\"",
    "[1,\"ab\",{\"x\":2}]",
    "{\"x\":1}",
    "\"Ä ö\"",
];

fn random_document(rng: &mut SeededRng) -> String {
    let mut entries = Vec::new();
    for key in ["a", "b", "s", "t"] {
        match (key, rng.below(6)) {
            (_, 0) => {}
            ("s", 1..=3) => entries.push(format!("\"s\":\"w{} {}\"", rng.below(5), rng.pick(&["ab", "x", "Ab"]))),
            ("t", 1..=3) => entries.push(format!("\"t\":\"2024-01-0{}T00:00:00Z\"", 1 + rng.below(9))),
            ("b", 1..=2) => entries.push(format!("\"b\":{}", rng.pick(&["true", "false"]))),
            ("a", 1..=2) => entries.push(format!("\"a\":{}", rng.below(10))),
            (key, _) => entries.push(format!("\"{key}\":{}", rng.pick(&VALUES))),
        }
    }
    entries.push(format!("\"o\":{{\"p q\":{}}}", rng.pick(&VALUES)));
    format!("{{{}}}", entries.join(","))
}

pub(super) fn random_documents(rng: &mut SeededRng, count: usize) -> Vec<Arc<Document>> {
    (0..count)
        .map(|number| document(number as i64, &random_document(rng)))
        .collect()
}

/// Documents whose values rise with their number, beside random ones.
pub(super) fn rising_documents(rng: &mut SeededRng, count: usize) -> Vec<Arc<Document>> {
    let rising = |number: usize| {
        let rest = random_document(rng);
        let long = "k".repeat(30);
        let (low, high) = (number / 3, number * 1_000);
        let texts = format!(r#""k":"k{number:04}","l":"{long}{number:04}""#);
        let numbers = format!(
            r#""n":{number},"f":{low}.25,"m":{}"#,
            if number.is_multiple_of(50) { "\"x\"" } else { "7" }
        );
        document(high as i64, &format!("{{{texts},{numbers},{}", &rest[1..]))
    };
    (0..count).map(rising).collect()
}

/// A random condition over the columns of rising documents.
pub(super) fn rising_condition(rng: &mut SeededRng, documents: usize, depth: usize) -> Expr {
    if depth > 0 && rng.below(3) > 0 {
        let left = rising_condition(rng, documents, depth - 1);
        let right = match rng.below(3) {
            0 => random_condition(rng, 1),
            _ => rising_condition(rng, documents, depth - 1),
        };
        return match rng.below(5) {
            0 => not(left),
            1 => or(left, right),
            _ => and(left, right),
        };
    }
    let number = rng.below(documents + 20) as i64 - 10;
    let text = |prefix: &str| lit(format!("{prefix}{number:04}"));
    let time = |ms: i64| lit(ScalarValue::TimestampMicrosecond(Some(ms * 1_000), Some("UTC".into())));
    let (subject, value) = match rng.below(9) {
        0 => (column("n:int"), lit(number)),
        1 => (column("n:double"), lit(number as f64 + 0.5)),
        2 => (column("f:double"), lit(number as f64 / 3.0)),
        3 => (column("k:text"), text("k")),
        4 => (column("l:text"), text(&"k".repeat(30))),
        5 => (column("_ingested"), time(1_700_000_000_000 + number * 1_000)),
        6 => (column("_time"), time(number * 1_000_000)),
        7 => (column("_offset"), lit(number * 1_000)),
        _ => (column("m:text"), lit("x")),
    };
    match rng.below(6) {
        0 => subject.eq(value),
        1 => subject.gt(value),
        2 => subject.lt_eq(value),
        3 => subject.in_list(vec![value], rng.below(4) == 0),
        4 => column("k:text").like(lit(format!("k{:03}%", number / 10))),
        _ => subject.lt(value),
    }
}

pub(super) fn column(name: &str) -> Expr {
    Expr::Column(datafusion::common::Column::new_unqualified(name))
}

const PATHS: [&str; 5] = ["a", "b", "s", "t", "o.\"p q\""];

pub(super) fn clause(path: Option<&str>, matches: Match) -> String {
    Column::search(Clause {
        path: path.map(|path| Path::parse(path).expect("a path")),
        matches,
    })
    .name()
}

fn time(day: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(
        Some((19_722 + day) * 86_400_000_000),
        Some("UTC".into()),
    ))
}

/// A random condition over the columns of random documents.
pub(super) fn random_condition(rng: &mut SeededRng, depth: usize) -> Expr {
    if depth > 0 && rng.below(3) > 0 {
        let (left, right) = (random_condition(rng, depth - 1), random_condition(rng, depth - 1));
        return match rng.below(6) {
            0 | 1 => and(left, right),
            2 | 3 => or(left, right),
            4 => not(left),
            _ => match rng.below(4) {
                0 => left.is_true(),
                1 => left.is_not_true(),
                2 => left.is_unknown(),
                _ => left.is_not_false(),
            },
        };
    }
    random_predicate(rng)
}

fn regexp_match(text: Expr, pattern: &str) -> Expr {
    binary_expr(text, Operator::RegexMatch, lit(pattern))
}

fn random_predicate(rng: &mut SeededRng) -> Expr {
    let path = rng.pick(&PATHS);
    let cast_mark = rng.pick(&["", "", "!"]);
    let int = lit(rng.below(8) as i64);
    let typed = |to: &str| column(&format!("{path}:{to}{cast_mark}"));
    let canonical = column(&format!("{path}:canonical"));
    let json = |rng: &mut SeededRng| {
        lit(ScalarValue::LargeUtf8(Some(
            (*rng.pick(&["0", "1", "1.5", "\"ab\"", "\"7\"", "true", "9007199254740993", "[]"])).into(),
        )))
    };
    match rng.below(24) {
        15 => canonical.eq(json(rng)),
        16 => canonical.not_eq(json(rng)),
        17 => {
            let list = vec![json(rng), json(rng)];
            canonical.in_list(list, rng.below(2) == 0)
        }
        18 => regexp_match(typed("text"), rng.pick(&["^w1", "^(?i)W[1-3] a", "^(ab|7)", "b$", "^"])),
        19 | 20 => {
            let (pattern, replacement) = [
                ("^w(.) (.*)$", r"\2"),
                ("^w(.)", "$1"),
                ("^(.*) (ab|x)$", "${2}"),
                (" ", ""),
                ("^([a-z])?", r"\1"),
            ][rng.below(5)];
            let replaced = regexp_replace(typed("text"), lit(pattern), lit(replacement), None);
            replaced.eq(lit(rng.pick(&["ab", "x", "1 ab", "w1ab", "7", ""])))
        }
        21 => left(typed("text"), lit([1i64, 2, -1][rng.below(3)])).eq(lit(rng.pick(&["w", "w1", "a", "7", "1"]))),
        22 => split_part(typed("text"), lit(rng.pick(&[" ", "b"])), lit(1i64))
            .in_list(vec![lit(rng.pick(&["w2", "a", "7"])), lit("w1")], rng.below(4) == 0),
        23 => substr(typed("text"), lit(rng.below(3) as i64)).not_eq(lit(rng.pick(&["ab", "7", "w1 ab"]))),
        0 => typed("int").gt(int),
        1 => typed("int").in_list(vec![int, lit(1i64), lit(ScalarValue::Int64(None))], rng.below(2) == 0),
        2 => typed("double").lt_eq(lit([0.0, 1.5, -0.0, 7.0][rng.below(4)])),
        3 => typed("double").eq(lit([0.0, 1.5, 2.0][rng.below(3)])),
        4 => typed("text").eq(lit(rng.pick(&["ab", "7", "w1 ab"]))),
        5 => typed("text").like(lit(rng.pick(&["a%", "w1%", "%", "ab", "%b%"]))),
        6 => typed("text").not_like(lit("w%")),
        7 => typed(rng.pick(&["int", "text", "json", "canonical", "bool", "time"])).is_null(),
        8 => typed("bool"),
        9 => typed("time").gt_eq(time(rng.below(9) as i64)),
        10 => typed("int").between(int, lit(6i64)),
        11 => column("_offset").gt_eq(lit(rng.below(2_000) as i64)),
        12 => column("_id").in_list(vec![lit("push/0@3"), lit("push/0@40"), lit("x")], rng.below(3) == 0),
        13 => column(&clause(
            // In the objects of an array, too.
            Some(rng.pick(&[path, "a.x", "o.\"p q\".x"])),
            Match::Words(rng.pick(&["ab", "7", "true", "w1 ab", "1", "2"]).into()),
        )),
        _ => match rng.below(3) {
            0 => cast(typed("int"), DataType::Float64).gt(lit([1.5, 2.0, -0.5][rng.below(3)])),
            1 => column(&clause(None, Match::Prefix(rng.pick(&["a", "w", "2024"]).into()))),
            _ => column("_ingested").lt(lit(ScalarValue::TimestampMicrosecond(
                Some((1_700_000_000_000 + 500) * 1_000),
                Some("UTC".into()),
            ))),
        },
    }
}
