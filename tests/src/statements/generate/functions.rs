//! Random functions and operators, by the kind of their value.

use rand::RngExt as _;

use super::StatementGenerator;
use crate::statements::{Expr, Kind, expression::quoted};

impl StatementGenerator<'_> {
    /// CASE, nullif or coalesce around operands of one kind.
    pub(super) fn conditional(&mut self, scope: &[Expr], kind: Kind, depth: usize) -> Expr {
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

    /// A function or an operator of two operands of its own kind.
    fn call_of_two(&mut self, scope: &[Expr], kind: Kind, template: &str, depth: usize) -> Expr {
        let operands = vec![self.expr(scope, kind, depth), self.expr(scope, kind, depth)];
        Expr::call(kind, template, operands)
    }

    pub(super) fn integer(&mut self, scope: &[Expr], depth: usize) -> Expr {
        let kind = Kind::Integer;
        let small = Expr::literal(kind, self.random.random_range(1..10));
        match self.below(14) {
            0 => self.call_of_two(scope, kind, "({0} + {1})", depth),
            1 => self.call_of_two(scope, kind, "({0} - {1})", depth),
            2 => Expr::call(kind, "({0} * {1})", vec![self.expr(scope, kind, depth), small]),
            3 => {
                let parts = vec![self.expr(scope, kind, depth), self.expr(scope, kind, 0)];
                Expr::call_two(kind, "({0} % {1})", "({0} % nullif({1}, 0))", parts)
            }
            4 => Expr::call(kind, "(- {0})", vec![self.expr(scope, kind, depth)]),
            5 => Expr::call(kind, "abs({0})", vec![self.expr(scope, kind, depth)]),
            6 => self.call_of_two(scope, kind, "greatest({0}, {1})", depth),
            7 => self.call_of_two(scope, kind, "least({0}, {1})", depth),
            8 | 9 => Expr::call(kind, "length({0})", vec![self.expr(scope, Kind::Text, depth)]),
            10 => {
                let text = self.expr(scope, Kind::Text, depth);
                let part = self.pick(&["a", "/", ":", "er", "."]);
                Expr::call(kind, "strpos({0}, {1})", vec![text, Expr::literal(Kind::Text, part)])
            }
            11 => match self.leaf_where(scope, |leaf| matches!(leaf, Expr::Path { column, .. } if column.digits)) {
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

    pub(super) fn number(&mut self, scope: &[Expr], depth: usize) -> Expr {
        let kind = if self.chance(50) { Kind::Fraction } else { Kind::Integer };
        self.expr(scope, kind, depth)
    }

    pub(super) fn fraction(&mut self, scope: &[Expr], depth: usize) -> Expr {
        let kind = Kind::Fraction;
        let (one, two) = (self.number(scope, depth), self.expr(scope, kind, depth));
        let call = match self.below(12) {
            0 => Expr::call(kind, "({0} + {1})", vec![one, two]),
            1 => Expr::call(kind, "({0} - {1})", vec![one, two]),
            2 => Expr::call(kind, "({0} * {1})", vec![one, two]),
            3 | 4 => {
                let two = self.number(scope, 0);
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
        call.approximate()
    }

    pub(super) fn text(&mut self, scope: &[Expr], depth: usize) -> Expr {
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
            16 => match self.leaf_where(
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

    /// A path whose strings are timestamps, cast to a timestamp.
    pub(super) fn time(&mut self, scope: &[Expr]) -> Option<Expr> {
        let text = self.leaf_where(
            scope,
            |leaf| matches!(leaf, Expr::Path { column, .. } if column.timestamps),
        )?;
        Some(Expr::call_two(
            Kind::Time,
            "{0}::timestamp",
            "({0}::timestamptz at time zone 'UTC')",
            vec![text],
        ))
    }

    /// A timestamp computed from another one.
    pub(super) fn shifted_time(&mut self, scope: &[Expr], depth: usize) -> Expr {
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
}
