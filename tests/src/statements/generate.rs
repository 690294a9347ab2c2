//! Expressions by chance: of a wanted kind, over what is in scope.

use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::json;

use super::{
    Expr, Kind, Query, Set,
    expression::{Way, quoted},
    profile::NUMBER,
};

/// Depth of an expression; a literal or a path has none.
pub(super) const DEPTH_MAX: usize = 3;

/// Writes statements over some sets.
pub struct Generator<'a> {
    pub(super) sets: &'a [Set],
    pub(super) random: StdRng,
    /// Names of relations that were given out.
    pub(super) named: usize,
    /// Sub-queries that may still stand in this statement.
    pub(super) queries_left: usize,
}

/// What can be named: paths of collections and columns of sub-queries.
pub(super) type Scope = Vec<Expr>;

impl<'a> Generator<'a> {
    /// Of a seed.
    pub fn new(sets: &'a [Set], seed: u64) -> Self {
        assert!(!sets.is_empty(), "statements are about something");
        Self {
            sets,
            random: StdRng::seed_from_u64(seed),
            named: 0,
            queries_left: 0,
        }
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    pub(super) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        *list.choose(&mut self.random).expect("a choice of something")
    }

    pub(super) fn set(&mut self) -> &'a Set {
        self.sets.choose(&mut self.random).expect("a set")
    }

    pub(super) fn alias(&mut self) -> String {
        self.named += 1;
        format!("r{}", self.named)
    }

    /// The paths of a set under an alias.
    pub(super) fn scope(&mut self, set: &Set, alias: Option<&str>) -> Scope {
        let arrows = self.chance(10);
        let way = |random: &mut StdRng| {
            if arrows && random.random_range(0..3) == 0 {
                Way::Arrows
            } else {
                Way::Dots
            }
        };
        let path = |column: &super::Column| Expr::Path {
            alias: alias.map(str::to_owned),
            column: Arc::new(column.clone()),
            way: way(&mut self.random),
        };
        set.columns.iter().map(path).collect()
    }

    /// The columns of a sub-query under an alias.
    pub(super) fn outputs(query: &Query, alias: &str) -> Scope {
        let output = |(i, item): (usize, &Expr)| Expr::Output {
            alias: alias.to_owned(),
            name: format!("c{i}"),
            kind: item.kind(),
            exact: item.exact(),
            ascii: item.ascii(),
        };
        query.items.iter().enumerate().map(output).collect()
    }

    /// The path that numbers documents, of a scope of paths.
    pub(super) fn number(scope: &[Expr]) -> Option<Expr> {
        scope
            .iter()
            .find(|leaf| matches!(leaf, Expr::Path { column, .. } if column.flat == NUMBER))
            .cloned()
    }

    /// Something of the scope, of a kind.
    pub(super) fn leaf(&mut self, scope: &[Expr], kind: Kind) -> Option<Expr> {
        let of_kind: Vec<&Expr> = scope.iter().filter(|leaf| leaf.kind() == kind).collect();
        of_kind.choose(&mut self.random).map(|leaf| (*leaf).clone())
    }

    fn leaf_that(&mut self, scope: &[Expr], is: impl Fn(&Expr) -> bool) -> Option<Expr> {
        let such: Vec<&Expr> = scope.iter().filter(|leaf| is(leaf)).collect();
        such.choose(&mut self.random).map(|leaf| (*leaf).clone())
    }

    /// A kind that the scope has.
    pub(super) fn kind(&mut self, scope: &[Expr]) -> Kind {
        scope.choose(&mut self.random).map_or(Kind::Integer, Expr::kind)
    }

    /// A literal of a kind that no document suggests.
    pub(super) fn plain_literal(&mut self, kind: Kind) -> Expr {
        match kind {
            Kind::Integer => Expr::literal(kind, self.random.random_range(-20..200)),
            Kind::Fraction => Expr::literal(kind, f64::from(self.random.random_range(-200..2000)) / 8.0),
            Kind::Text => Expr::literal(kind, self.pick(&["", "a", "x", "none", "O'Neil", "100%", "ß", "a b"])),
            Kind::Boolean => Expr::literal(kind, self.chance(50)),
            Kind::Time => Expr::literal(
                kind,
                self.pick(&[
                    "2015-01-01 00:10:00",
                    "2015-09-12 06:00:00",
                    "2023-07-10 12:00:00",
                    "2016-12-20 00:00:00",
                ]),
            ),
        }
    }

    /// A literal that is met at this expression, or nearly.
    pub(super) fn literal_like(&mut self, expr: &Expr) -> Expr {
        let sample = match expr {
            Expr::Path { column, .. } if self.random.random_range(0..10) < 9 => column.samples.choose(&mut self.random),
            _ => None,
        };
        match sample {
            Some(sample) => Expr::literal(expr.kind(), sample.clone()),
            None => self.plain_literal(expr.kind()),
        }
    }

    /// An expression of a kind.
    pub(super) fn expr(&mut self, scope: &[Expr], kind: Kind, depth: usize) -> Expr {
        let simple = depth == 0 || self.chance(35);
        if simple {
            let leaf = if kind == Kind::Time {
                self.time(scope)
            } else {
                self.leaf(scope, kind)
            };
            return match leaf {
                Some(leaf) if self.random.random_range(0..10) < 9 => leaf,
                _ => self.plain_literal(kind),
            };
        }
        if self.chance(25) {
            return self.of_any_kind(scope, kind, depth - 1);
        }
        match kind {
            Kind::Integer => self.integer(scope, depth - 1),
            Kind::Fraction => self.fraction(scope, depth - 1),
            Kind::Text => self.text(scope, depth - 1),
            Kind::Boolean => self.predicate(scope, depth - 1),
            Kind::Time => self.later(scope, depth - 1),
        }
    }

    fn of_any_kind(&mut self, scope: &[Expr], kind: Kind, depth: usize) -> Expr {
        let first = self.expr(scope, kind, depth);
        match self.below(6) {
            0 => {
                let (when, other) = (self.predicate(scope, depth), self.expr(scope, kind, depth));
                Expr::call(kind, "case when {0} then {1} else {2} end", vec![when, first, other])
            }
            1 => {
                let when = self.predicate(scope, depth);
                Expr::call(kind, "case when {0} then {1} end", vec![when, first])
            }
            2 => {
                let of = self.kind(scope);
                let operand = self.leaf(scope, of).unwrap_or_else(|| self.plain_literal(of));
                let (one, two, other) = (
                    self.literal_like(&operand),
                    self.literal_like(&operand),
                    self.plain_literal(kind),
                );
                Expr::call(
                    kind,
                    "case {0} when {1} then {3} when {2} then {4} end",
                    vec![operand, one, two, first, other],
                )
            }
            3 => {
                let other = self.literal_like(&first);
                Expr::call(kind, "nullif({0}, {1})", vec![first, other])
            }
            4 => {
                let (second, last) = (self.expr(scope, kind, depth), self.plain_literal(kind));
                Expr::call(kind, "coalesce({0}, {1}, {2})", vec![first, second, last])
            }
            _ => {
                let last = self.plain_literal(kind);
                Expr::call(kind, "coalesce({0}, {1})", vec![first, last])
            }
        }
    }

    fn integer(&mut self, scope: &[Expr], depth: usize) -> Expr {
        let kind = Kind::Integer;
        let small = Expr::literal(kind, self.random.random_range(1..10));
        match self.below(14) {
            0 => Expr::call(
                kind,
                "({0} + {1})",
                vec![self.expr(scope, kind, depth), self.expr(scope, kind, depth)],
            ),
            1 => Expr::call(
                kind,
                "({0} - {1})",
                vec![self.expr(scope, kind, depth), self.expr(scope, kind, depth)],
            ),
            2 => Expr::call(kind, "({0} * {1})", vec![self.expr(scope, kind, depth), small]),
            3 => {
                let parts = vec![self.expr(scope, kind, depth), self.expr(scope, kind, 0)];
                Expr::call_two(kind, "({0} % {1})", "({0} % nullif({1}, 0))", parts)
            }
            4 => Expr::call(kind, "(- {0})", vec![self.expr(scope, kind, depth)]),
            5 => Expr::call(kind, "abs({0})", vec![self.expr(scope, kind, depth)]),
            6 => Expr::call(
                kind,
                "greatest({0}, {1})",
                vec![self.expr(scope, kind, depth), self.expr(scope, kind, depth)],
            ),
            7 => Expr::call(
                kind,
                "least({0}, {1})",
                vec![self.expr(scope, kind, depth), self.expr(scope, kind, depth)],
            ),
            8 | 9 => Expr::call(kind, "length({0})", vec![self.expr(scope, Kind::Text, depth)]),
            10 => {
                let text = self.expr(scope, Kind::Text, depth);
                let part = self.pick(&["a", "/", ":", "er", "."]);
                Expr::call(kind, "strpos({0}, {1})", vec![text, Expr::literal(Kind::Text, part)])
            }
            11 => match self.leaf_that(scope, |leaf| matches!(leaf, Expr::Path { column, .. } if column.digits)) {
                Some(text) => Expr::call(kind, "{0}::bigint", vec![text]),
                None => Expr::call(kind, "abs({0})", vec![self.expr(scope, kind, depth)]),
            },
            _ => {
                let field = self.pick(&[
                    "year", "month", "day", "hour", "minute", "dow", "doy", "quarter", "week",
                ]);
                match self.time(scope) {
                    Some(time) => Expr::call(kind, format!("extract({field} from {{0}})"), vec![time]),
                    None => Expr::call(kind, "ascii({0})", vec![Expr::literal(Kind::Text, "q")]),
                }
            }
        }
    }

    fn number_of_any_kind(&mut self, scope: &[Expr], depth: usize) -> Expr {
        let kind = if self.chance(50) { Kind::Fraction } else { Kind::Integer };
        self.expr(scope, kind, depth)
    }

    fn fraction(&mut self, scope: &[Expr], depth: usize) -> Expr {
        let kind = Kind::Fraction;
        let (one, two) = (self.number_of_any_kind(scope, depth), self.expr(scope, kind, depth));
        let call = match self.below(12) {
            0 => Expr::call(kind, "({0} + {1})", vec![one, two]),
            1 => Expr::call(kind, "({0} - {1})", vec![one, two]),
            2 => Expr::call(kind, "({0} * {1})", vec![one, two]),
            3 | 4 => {
                let two = self.number_of_any_kind(scope, 0);
                Expr::call_two(kind, "({0} / {1})", "({0} / nullif({1}, 0))", vec![one, two])
            }
            5 => Expr::call(kind, "round({0}, 1)", vec![two]),
            6 => Expr::call(kind, "floor({0})", vec![two]),
            7 => Expr::call(kind, "ceil({0})", vec![two]),
            8 => Expr::call(kind, "sqrt(abs({0}))", vec![one]),
            9 => Expr::call(kind, "ln(abs({0}) + 1)", vec![one]),
            10 => Expr::call(kind, "abs({0})", vec![two]),
            _ => Expr::call(kind, "{0}::double", vec![self.expr(scope, Kind::Integer, depth)]),
        };
        call.about()
    }

    fn text(&mut self, scope: &[Expr], depth: usize) -> Expr {
        let kind = Kind::Text;
        let one = self.expr(scope, kind, depth);
        let (from, count) = (1 + self.below(6), 1 + self.below(8));
        let ascii = one.ascii();
        match self.below(20) {
            0 | 1 if ascii => Expr::call(kind, "upper({0})", vec![one]),
            2 | 3 if ascii => Expr::call(kind, "lower({0})", vec![one]),
            4 if ascii => Expr::call(kind, "reverse({0})", vec![one]),
            5 | 6 => Expr::call(kind, "({0} || {1})", vec![one, self.expr(scope, kind, depth)]),
            7 => {
                let parts = vec![one, self.expr(scope, kind, depth), Expr::literal(kind, "-")];
                Expr::call(kind, "concat({0}, {2}, {1})", parts)
            }
            8 => Expr::call(kind, format!("substr({{0}}, {from}, {count})"), vec![one]),
            9 => Expr::call(kind, format!("left({{0}}, {count})"), vec![one]),
            10 => Expr::call(kind, format!("right({{0}}, {count})"), vec![one]),
            11 => Expr::call(
                kind,
                format!(
                    "replace({{0}}, {}, {})",
                    quoted(self.pick(&["a", "/", "er"])),
                    quoted(self.pick(&["", "X"]))
                ),
                vec![one],
            ),
            12 => Expr::call(kind, "trim({0})", vec![one]),
            13 => Expr::call(
                kind,
                format!(
                    "split_part({{0}}, {}, {from})",
                    quoted(self.pick(&[".", "/", " ", ":"]))
                ),
                vec![one],
            ),
            14 => Expr::call(kind, format!("lpad({{0}}, {count}, '*')"), vec![one]),
            15 => Expr::call(kind, "md5({0})", vec![one]),
            16 => match self.leaf_that(
                scope,
                |leaf| matches!(leaf, Expr::Path { column, .. } if column.kind == Kind::Integer),
            ) {
                Some(number) => Expr::call(kind, "{0}::text", vec![number]),
                None => one,
            },
            17 => Expr::call(kind, "{0}::text", vec![self.expr(scope, Kind::Boolean, depth)]),
            18 => Expr::call(
                kind,
                "concat_ws('/', {0}, {1})",
                vec![one, self.expr(scope, kind, depth)],
            ),
            _ => Expr::call(kind, format!("substr({{0}}, {from})"), vec![one]),
        }
    }

    /// A path of texts that are times, as a time.
    pub(super) fn time(&mut self, scope: &[Expr]) -> Option<Expr> {
        let text = self.leaf_that(scope, |leaf| matches!(leaf, Expr::Path { column, .. } if column.times))?;
        Some(Expr::call_two(
            Kind::Time,
            "{0}::timestamp",
            "({0}::timestamptz at time zone 'UTC')",
            vec![text],
        ))
    }

    fn later(&mut self, scope: &[Expr], depth: usize) -> Expr {
        let time = self.expr(scope, Kind::Time, depth);
        match self.below(3) {
            0 => Expr::call(
                Kind::Time,
                format!("({{0}} + interval '{} hours')", 1 + self.below(30)),
                vec![time],
            ),
            _ => Expr::call(
                Kind::Time,
                format!(
                    "date_trunc('{}', {{0}})",
                    self.pick(&["minute", "hour", "day", "week", "month", "year"])
                ),
                vec![time],
            ),
        }
    }

    /// An aggregate over a scope.
    pub(super) fn aggregate(&mut self, scope: &[Expr]) -> Expr {
        let kind = self.kind(scope);
        let depth = usize::from(self.chance(25));
        let any = self.expr(scope, kind, depth);
        let integer = self.expr(scope, Kind::Integer, depth);
        match self.below(16) {
            0 | 1 => Expr::call(Kind::Integer, "count(*)", vec![]),
            2 => Expr::call(Kind::Integer, "count({0})", vec![any]),
            3 | 4 if any.exact() => Expr::call(Kind::Integer, "count(distinct {0})", vec![any]),
            5 | 6 => Expr::call(Kind::Integer, "sum({0})", vec![integer]),
            7 => Expr::call(
                Kind::Fraction,
                "sum({0})",
                vec![self.expr(scope, Kind::Fraction, depth)],
            )
            .about(),
            8 => Expr::call(Kind::Fraction, "avg({0})", vec![self.number_of_any_kind(scope, depth)]).about(),
            9 | 10 if kind != Kind::Boolean => Expr::call(kind, "min({0})", vec![any]),
            11 | 12 if kind != Kind::Boolean => Expr::call(kind, "max({0})", vec![any]),
            13 => Expr::call(
                Kind::Integer,
                "count(*) filter (where {0})",
                vec![self.predicate(scope, 1)],
            ),
            14 => Expr::call(
                Kind::Integer,
                "sum({0}) filter (where {1})",
                vec![integer, self.predicate(scope, 1)],
            ),
            15 => {
                let form = self.pick(&["bool_and({0})", "bool_or({0})", "sum(case when {0} then 1 else 0 end)"]);
                let kind = if form.starts_with("sum") {
                    Kind::Integer
                } else {
                    Kind::Boolean
                };
                Expr::call(kind, form, vec![self.predicate(scope, 1)])
            }
            _ => Expr::call(Kind::Integer, "sum(distinct {0})", vec![integer]),
        }
    }

    /// A window function over a scope; ties are broken by `unique`.
    pub(super) fn window(&mut self, scope: &[Expr], unique: &Expr) -> Expr {
        let (part_kind, kind) = (self.kind(scope), self.kind(scope));
        let (part_depth, depth) = (usize::from(self.chance(20)), usize::from(self.chance(20)));
        let part = self.expr(scope, part_kind, part_depth);
        let value = self.expr(scope, kind, depth);
        let (integer, unique) = (self.expr(scope, Kind::Integer, 0), unique.clone());
        let ahead = 1 + self.below(3);
        let by = if self.chance(70) { "partition by {0} " } else { "" };
        let way = if self.chance(30) { " desc" } else { "" };
        // A key of ORDER BY that is a literal would be a position.
        let value = if matches!(value, Expr::Literal { .. }) {
            unique.clone()
        } else {
            value
        };
        let (kind, value) = if value.exact() {
            (value.kind(), value)
        } else {
            (unique.kind(), unique.clone())
        };
        let parts = vec![part, value, unique, integer];
        let (gives, form) = match self.below(12) {
            0 | 1 => (
                Kind::Integer,
                format!("row_number() over ({by}order by {{1}}{way}, {{2}})"),
            ),
            2 => (Kind::Integer, format!("rank() over ({by}order by {{1}}{way})")),
            3 => (Kind::Integer, format!("dense_rank() over ({by}order by {{1}}{way})")),
            4 => (kind, format!("lag({{1}}, {ahead}) over ({by}order by {{2}})")),
            5 => (kind, format!("lead({{1}}) over ({by}order by {{2}}{way})")),
            6 => (kind, format!("first_value({{1}}) over ({by}order by {{2}}{way})")),
            7 => (
                Kind::Integer,
                format!("sum({{3}}) over ({by}order by {{2}} rows between {ahead} preceding and current row)"),
            ),
            8 => (Kind::Integer, format!("sum({{3}}) over ({by}order by {{1}}{way})")),
            9 => (
                Kind::Integer,
                format!("sum({{3}}) over ({by}order by {{2}} rows between current row and {ahead} following)"),
            ),
            10 => (Kind::Integer, format!("count({{1}}) over ({})", by.trim_end())),
            _ => (
                Kind::Integer,
                format!("max({{3}}) over ({by}order by {{2}} rows between unbounded preceding and {ahead} preceding)"),
            ),
        };
        Expr::call(gives, form, parts)
    }

    /// An expression without regard for what fits: it must be answered, or refused in words that a user understands.
    pub(super) fn careless(&mut self, scope: &[Expr], depth: usize) -> Expr {
        const FORMS: [&str; 34] = [
            "upper({0})",
            "length({0})",
            "({0} + {1})",
            "({0} - {1})",
            "({0} * {1})",
            "({0} / {1})",
            "({0} % {1})",
            "(- {0})",
            "abs({0})",
            "round({0})",
            "sqrt({0})",
            "({0} || {1})",
            "coalesce({0}, {1})",
            "nullif({0}, {1})",
            "greatest({0}, {1})",
            "case when {0} = {1} then {0} else {1} end",
            "case {0} when {1} then 1 end",
            "substr({0}, {1})",
            "strpos({0}, {1})",
            "{0}::bigint",
            "{0}::double",
            "{0}::boolean",
            "{0}::timestamp",
            "{0}::text",
            "{0}::date",
            "extract(hour from {0})",
            "date_trunc('day', {0})",
            "date_trunc({0}, {1})",
            "({0} = {1})",
            "({0} < {1})",
            "({0} in ({1}, 'x', 1))",
            "({0} between {1} and 5)",
            "({0} like {1})",
            "({0} is distinct from {1})",
        ];
        let kind = self.kind(scope);
        if depth == 0 || self.chance(20) {
            let other = self.pick(&[Kind::Integer, Kind::Fraction, Kind::Text, Kind::Boolean, Kind::Time]);
            return match self.below(8) {
                0 => Expr::Literal {
                    kind,
                    value: json!(null),
                },
                1 | 2 => self.plain_literal(other),
                _ => self.expr(scope, kind, 0),
            };
        }
        let parts = vec![self.careless(scope, depth - 1), self.careless(scope, depth - 1)];
        let form = self.pick(&FORMS);
        let gives = if form.contains('=') || form.contains('<') || form.contains(" in ") || form.contains("like") {
            Kind::Boolean
        } else {
            kind
        };
        Expr::call(gives, form, parts)
    }
}
