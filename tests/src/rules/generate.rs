//! Random documents of mixed kinds, and random statements over them.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    expression::{BEGINS_WITH_X, ComparisonOp, DIGITS, EvalExpr, PATHS, Row},
    statement::EvalStatement,
    value::SqlValue,
};

/// Values by kind, as spelled in documents. Every fraction is exactly a double.
const KINDS: [&[&str]; 6] = [
    &["0", "1", "2", "7", "200", "-3", "9007199254740993", "9007199254740992"],
    &["1.0", "1.5", "200.0", "-0.5", "2.50", "7.25"],
    &[
        r#""x""#,
        r#""y""#,
        r#""a/b""#,
        r#""a\/b""#,
        r#""""#,
        r#""X""#,
        r#""zz""#,
        r#""none""#,
        r#""true""#,
        r#""é""#,
    ],
    &[r#""200""#, r#""1""#, r#""1.0""#, r#""1.5""#, r#""7""#],
    &["true", "false"],
    &["[1,2]", "[]", r#"["x"]"#, r#"{"a":1}"#, r#"{ "a": 1 }"#, r#"{"b":"x"}"#],
];
/// The kinds that a path may have before the stray documents: mostly one.
const FEW_KINDS: [&[usize]; 8] = [&[0], &[0, 1], &[2], &[2, 3], &[3], &[4], &[0, 2], &[5]];
/// Number literals.
const NUMBERS: [&str; 8] = ["0", "1", "1.5", "7", "200", "-3", "9007199254740993", "1.0"];
/// String literals.
const TEXTS: [&str; 12] = [
    "200",
    "1",
    "1.0",
    "1.5",
    "x",
    "a/b",
    "true",
    "",
    "zz",
    "none",
    "9007199254740993",
    "7",
];
/// Comparison operators; one that is listed twice comes twice as often.
const COMPARISONS: [ComparisonOp; 8] = [
    ComparisonOp::Equal,
    ComparisonOp::Equal,
    ComparisonOp::NotEqual,
    ComparisonOp::NotEqual,
    ComparisonOp::Less,
    ComparisonOp::LessOrEqual,
    ComparisonOp::Greater,
    ComparisonOp::GreaterOrEqual,
];

/// The percentage of values that are null or absent.
const ABSENT_PERCENT: u32 = 14;

/// Documents: the first have few kinds per path, the stray ones behind them any kind.
#[derive(Debug)]
pub struct Documents {
    /// Their JSON.
    pub texts: Vec<String>,
    /// Their values.
    pub rows: Vec<Row>,
    /// How many come before the stray ones.
    pub first: usize,
}

/// Generates documents and statements.
pub struct MixedGenerator {
    random: StdRng,
}

impl MixedGenerator {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.random.random_range(0..list.len())]
    }

    /// Generates documents, numbered by `k` from 0.
    pub fn documents(&mut self, first: usize, strays: usize) -> Documents {
        let few_kinds: BTreeMap<&str, &[usize]> = PATHS.iter().map(|path| (*path, self.pick(&FEW_KINDS))).collect();
        let mut documents = Documents {
            texts: Vec::new(),
            rows: Vec::new(),
            first,
        };
        for k in 0..first + strays {
            let mut row = Row::new();
            let mut members = vec![format!("\"k\":{k}")];
            for path in PATHS {
                let kind = if k < first {
                    self.pick(few_kinds[path])
                } else {
                    self.random.random_range(0..KINDS.len())
                };
                let spelled = match self.chance(ABSENT_PERCENT) {
                    true if self.chance(50) => continue,
                    true => "null",
                    false => self.pick(KINDS[kind]),
                };
                row.insert(path, SqlValue::parse(spelled));
                members.push(match path.split_once('.') {
                    Some((outer, inner)) => format!("\"{outer}\":{{\"{inner}\":{spelled}}}"),
                    None => format!("\"{path}\":{spelled}"),
                });
            }
            documents.texts.push(format!("{{{}}}", members.join(",")));
            documents.rows.push(row);
        }
        documents
    }

    fn path(&mut self) -> Box<EvalExpr> {
        Box::new(EvalExpr::Path(self.pick(&PATHS)))
    }

    fn literal(&mut self) -> EvalExpr {
        match self.random.random_range(0..20) {
            0..=8 => EvalExpr::Quoted(self.pick(&TEXTS)),
            9..=17 => EvalExpr::Literal(self.pick(&NUMBERS)),
            _ => EvalExpr::Literal(self.pick(&["true", "false"])),
        }
    }

    /// An operand to compare a path with. Booleans are only compared for equality.
    fn operand(&mut self, comparison: ComparisonOp) -> Box<EvalExpr> {
        let equality = matches!(comparison, ComparisonOp::Equal | ComparisonOp::NotEqual);
        if self.chance(25) {
            return self.path();
        }
        loop {
            let literal = self.literal();
            if equality || !matches!(literal, EvalExpr::Literal("true" | "false")) {
                return Box::new(literal);
            }
        }
    }

    fn predicate(&mut self, depth: usize) -> EvalExpr {
        if depth > 0 && self.chance(25) {
            let one = Box::new(self.predicate(depth - 1));
            return match self.random.random_range(0..3) {
                0 => EvalExpr::Not(one),
                choice => EvalExpr::AndOr(choice == 1, one, Box::new(self.predicate(depth - 1))),
            };
        }
        let (path, not) = (self.path(), self.chance(40));
        match self.random.random_range(0..16) {
            0..=5 => {
                let comparison = self.pick(&COMPARISONS);
                let other = self.operand(comparison);
                if self.chance(15) {
                    EvalExpr::Compare(comparison, other, path)
                } else {
                    EvalExpr::Compare(comparison, path, other)
                }
            }
            6..=8 => EvalExpr::In(not, path, self.list()),
            9 => {
                let (low, high) = if self.chance(50) {
                    (
                        EvalExpr::Literal(self.pick(&NUMBERS)),
                        EvalExpr::Literal(self.pick(&NUMBERS)),
                    )
                } else {
                    (EvalExpr::Quoted(self.pick(&TEXTS)), EvalExpr::Quoted(self.pick(&TEXTS)))
                };
                EvalExpr::Between(not, path, Box::new(low), Box::new(high))
            }
            10 | 11 => EvalExpr::Distinct(not, path, self.operand(ComparisonOp::Equal)),
            12 => EvalExpr::IsNull(not, path),
            13 | 14 => EvalExpr::Like(not, path, self.pick(&["%0%", "x%", "2__", "%", "1%", "a/_", "tr%"])),
            _ => EvalExpr::Regex(path, self.pick(&[DIGITS, BEGINS_WITH_X])),
        }
    }

    /// The list of an IN: mostly of one kind, as people write it.
    fn list(&mut self) -> Vec<EvalExpr> {
        let kind = self.random.random_range(0..10);
        let mut list: Vec<EvalExpr> = (0..self.random.random_range(1..4))
            .map(|_| match kind {
                0..=3 => EvalExpr::Literal(self.pick(&NUMBERS)),
                4..=7 => EvalExpr::Quoted(self.pick(&TEXTS)),
                _ => self.literal(),
            })
            .collect();
        if self.chance(10) {
            list.push(EvalExpr::Literal("NULL"));
        }
        list
    }

    fn item(&mut self) -> EvalExpr {
        let path = self.path();
        match self.random.random_range(0..22) {
            0 => *path,
            1..=4 => self.predicate(1),
            5 | 6 => EvalExpr::Case(
                path,
                self.list()
                    .into_iter()
                    .filter(|when| *when != EvalExpr::Literal("NULL"))
                    .collect(),
            ),
            7 => EvalExpr::CaseElse(Box::new(self.predicate(0)), path, "x"),
            8 | 9 => {
                let more = if self.chance(40) {
                    vec![*path, *self.path()]
                } else {
                    vec![*path]
                };
                EvalExpr::Coalesce(more, self.pick(&["none", "0", "x"]))
            }
            10 => EvalExpr::NullIf(path, Box::new(self.literal())),
            11 | 12 => self.concat(path),
            13 | 14 => EvalExpr::TextFunction(self.pick(&["upper", "lower", "length", "concat"]), path),
            15 | 16 => EvalExpr::Cast(path, self.pick(&["text", "bigint", "double", "boolean"])),
            17..=19 => self.arithmetic(path),
            20 => EvalExpr::NumberFunction(self.pick(&["abs", "floor"]), path),
            _ => EvalExpr::DocArrow(self.pick(&PATHS)),
        }
    }

    fn concat(&mut self, path: Box<EvalExpr>) -> EvalExpr {
        let other = if self.chance(40) {
            self.path()
        } else {
            Box::new(EvalExpr::Quoted("!"))
        };
        if self.chance(30) {
            EvalExpr::Concat(other, path)
        } else {
            EvalExpr::Concat(path, other)
        }
    }

    fn arithmetic(&mut self, path: Box<EvalExpr>) -> EvalExpr {
        let other = if self.chance(30) {
            self.path()
        } else {
            Box::new(EvalExpr::Literal(self.pick(&["0", "1", "2", "1.5", "7"])))
        };
        let arithmetic = EvalExpr::Arithmetic(self.pick(&['+', '-', '*', '/']), path, other);
        if self.chance(20) {
            EvalExpr::Compare(
                self.pick(&COMPARISONS),
                Box::new(arithmetic),
                Box::new(EvalExpr::Literal("2")),
            )
        } else {
            arithmetic
        }
    }

    /// A GROUP BY key: mostly a plain path.
    fn group_key(&mut self) -> EvalExpr {
        if self.chance(75) { *self.path() } else { self.item() }
    }

    /// Generates a statement.
    pub fn statement(&mut self) -> EvalStatement {
        let (a, b, not) = (self.pick(&PATHS), self.pick(&PATHS), self.chance(50));
        match self.random.random_range(0..100) {
            0..=29 => EvalStatement::Item(self.item()),
            30..=59 => EvalStatement::Filter(self.predicate(2)),
            60..=67 => EvalStatement::Groups(if self.chance(25) {
                vec![self.group_key(), self.group_key()]
            } else {
                vec![self.group_key()]
            }),
            68..=71 => EvalStatement::Distinct(self.group_key()),
            72..=78 => {
                let operator = self.pick(&[
                    "union",
                    "union all",
                    "except",
                    "except all",
                    "intersect",
                    "intersect all",
                ]);
                EvalStatement::SetOperation(operator, EvalExpr::Path(a), EvalExpr::Path(b))
            }
            79..=84 => EvalStatement::Join(not, a, b),
            85..=87 => EvalStatement::InSubquery(not, a, b),
            88 | 89 => EvalStatement::Exists(not, a, b),
            90..=93 => EvalStatement::OrderBy(a, not),
            94 | 95 => EvalStatement::Counts(a),
            96 | 97 => EvalStatement::MinMax(a),
            _ => EvalStatement::Window(a),
        }
    }
}
