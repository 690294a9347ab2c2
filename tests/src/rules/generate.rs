//! Documents of many kinds and statements over them, by chance.

use std::collections::BTreeMap;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    expression::{BEGINS, Compare, DIGITS, Expr, Row},
    statement::Statement,
    value::V,
};

/// The paths that documents have values at.
pub const PATHS: [&str; 6] = ["a", "b", "n", "t", "o.x", "l"];

/// Kinds of values and how they are spelled in documents. Fractions are those that a double holds exactly.
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
/// The kinds that a path may be made of before strays come, most often one.
const PURE: [&[usize]; 8] = [&[0], &[0, 1], &[2], &[2, 3], &[3], &[4], &[0, 2], &[5]];
/// Numbers as literals.
const NUMBERS: [&str; 8] = ["0", "1", "1.5", "7", "200", "-3", "9007199254740993", "1.0"];
/// Texts as quoted literals.
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
/// What is compared with.
const COMPARES: [Compare; 8] = [
    Compare::Equal,
    Compare::Equal,
    Compare::Unequal,
    Compare::Unequal,
    Compare::Less,
    Compare::LessOrEqual,
    Compare::Greater,
    Compare::GreaterOrEqual,
];

/// Of a hundred values, those that are null or not there.
const ABSENT_PERCENT: u32 = 14;

/// Documents of which the first have few kinds and all together have many.
#[derive(Debug)]
pub struct Documents {
    /// As they are pushed.
    pub texts: Vec<String>,
    /// As the rules see them.
    pub rows: Vec<Row>,
    /// How many of them are the first.
    pub first: usize,
}

/// Writes documents and statements.
pub struct Generator {
    random: StdRng,
}

impl Generator {
    /// Of a seed.
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

    /// Documents, numbered by `k` from 0.
    pub fn documents(&mut self, first: usize, strays: usize) -> Documents {
        let pure: BTreeMap<&str, &[usize]> = PATHS.iter().map(|path| (*path, self.pick(&PURE))).collect();
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
                    self.pick(pure[path])
                } else {
                    self.random.random_range(0..KINDS.len())
                };
                let spelled = match self.chance(ABSENT_PERCENT) {
                    true if self.chance(50) => continue,
                    true => "null",
                    false => self.pick(KINDS[kind]),
                };
                row.insert(path, V::parse(spelled));
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

    fn path(&mut self) -> Box<Expr> {
        Box::new(Expr::Path(self.pick(&PATHS)))
    }

    fn literal(&mut self) -> Expr {
        match self.random.random_range(0..20) {
            0..=8 => Expr::Quoted(self.pick(&TEXTS)),
            9..=17 => Expr::Literal(self.pick(&NUMBERS)),
            _ => Expr::Literal(self.pick(&["true", "false"])),
        }
    }

    /// Something to compare a path with. Nobody asks whether a path is less than true.
    fn other(&mut self, compare: Compare) -> Box<Expr> {
        let equality = matches!(compare, Compare::Equal | Compare::Unequal);
        if self.chance(25) {
            return self.path();
        }
        loop {
            let literal = self.literal();
            if equality || !matches!(literal, Expr::Literal("true" | "false")) {
                return Box::new(literal);
            }
        }
    }

    fn predicate(&mut self, depth: usize) -> Expr {
        if depth > 0 && self.chance(25) {
            let one = Box::new(self.predicate(depth - 1));
            return match self.random.random_range(0..3) {
                0 => Expr::Not(one),
                way => Expr::Both(way == 1, one, Box::new(self.predicate(depth - 1))),
            };
        }
        let (path, not) = (self.path(), self.chance(40));
        match self.random.random_range(0..16) {
            0..=5 => {
                let compare = self.pick(&COMPARES);
                let other = self.other(compare);
                if self.chance(15) {
                    Expr::Compare(compare, other, path)
                } else {
                    Expr::Compare(compare, path, other)
                }
            }
            6..=8 => Expr::In(not, path, self.list()),
            9 => {
                let (low, high) = if self.chance(50) {
                    (Expr::Literal(self.pick(&NUMBERS)), Expr::Literal(self.pick(&NUMBERS)))
                } else {
                    (Expr::Quoted(self.pick(&TEXTS)), Expr::Quoted(self.pick(&TEXTS)))
                };
                Expr::Between(not, path, Box::new(low), Box::new(high))
            }
            10 | 11 => Expr::Distinct(not, path, self.other(Compare::Equal)),
            12 => Expr::Null(not, path),
            13 | 14 => Expr::Like(not, path, self.pick(&["%0%", "x%", "2__", "%", "1%", "a/_", "tr%"])),
            _ => Expr::Pattern(path, self.pick(&[DIGITS, BEGINS])),
        }
    }

    /// What IN looks for: mostly of one kind, as people write it.
    fn list(&mut self) -> Vec<Expr> {
        let way = self.random.random_range(0..10);
        let mut list: Vec<Expr> = (0..self.random.random_range(1..4))
            .map(|_| match way {
                0..=3 => Expr::Literal(self.pick(&NUMBERS)),
                4..=7 => Expr::Quoted(self.pick(&TEXTS)),
                _ => self.literal(),
            })
            .collect();
        if self.chance(10) {
            list.push(Expr::Literal("NULL"));
        }
        list
    }

    fn item(&mut self) -> Expr {
        let path = self.path();
        match self.random.random_range(0..22) {
            0 => *path,
            1..=4 => self.predicate(1),
            5 | 6 => Expr::Case(
                path,
                self.list()
                    .into_iter()
                    .filter(|when| *when != Expr::Literal("NULL"))
                    .collect(),
            ),
            7 => Expr::Else(Box::new(self.predicate(0)), path, "x"),
            8 | 9 => {
                let more = if self.chance(40) {
                    vec![*path, *self.path()]
                } else {
                    vec![*path]
                };
                Expr::Coalesce(more, self.pick(&["none", "0", "x"]))
            }
            10 => Expr::NullIf(path, Box::new(self.literal())),
            11 | 12 => {
                let other = if self.chance(40) {
                    self.path()
                } else {
                    Box::new(Expr::Quoted("!"))
                };
                if self.chance(30) {
                    Expr::Joined(other, path)
                } else {
                    Expr::Joined(path, other)
                }
            }
            13 | 14 => Expr::OfText(self.pick(&["upper", "lower", "length", "concat"]), path),
            15 | 16 => Expr::Cast(path, self.pick(&["text", "bigint", "double", "boolean"])),
            17..=19 => {
                let other = if self.chance(30) {
                    self.path()
                } else {
                    Box::new(Expr::Literal(self.pick(&["0", "1", "2", "1.5", "7"])))
                };
                let arithmetic = Expr::Arithmetic(self.pick(&['+', '-', '*', '/']), path, other);
                if self.chance(20) {
                    Expr::Compare(self.pick(&COMPARES), Box::new(arithmetic), Box::new(Expr::Literal("2")))
                } else {
                    arithmetic
                }
            }
            20 => Expr::OfNumber(self.pick(&["abs", "floor"]), path),
            _ => Expr::Arrow(self.pick(&PATHS)),
        }
    }

    /// What values are grouped by: mostly as they are.
    fn key(&mut self) -> Expr {
        if self.chance(75) { *self.path() } else { self.item() }
    }

    /// A statement.
    pub fn statement(&mut self) -> Statement {
        let (a, b, not) = (self.pick(&PATHS), self.pick(&PATHS), self.chance(50));
        match self.random.random_range(0..100) {
            0..=29 => Statement::Item(self.item()),
            30..=59 => Statement::Filter(self.predicate(2)),
            60..=67 => Statement::Groups(if self.chance(25) {
                vec![self.key(), self.key()]
            } else {
                vec![self.key()]
            }),
            68..=71 => Statement::Distinct(self.key()),
            72..=78 => {
                let word = self.pick(&[
                    "union",
                    "union all",
                    "except",
                    "except all",
                    "intersect",
                    "intersect all",
                ]);
                Statement::Combined(word, Expr::Path(a), Expr::Path(b))
            }
            79..=84 => Statement::Join(not, a, b),
            85..=87 => Statement::Member(not, a, b),
            88 | 89 => Statement::Exists(not, a, b),
            90..=93 => Statement::Ordered(a, not),
            94 | 95 => Statement::Counted(a),
            96 | 97 => Statement::Extremes(a),
            _ => Statement::Window(a),
        }
    }
}
