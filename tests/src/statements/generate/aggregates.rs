//! Random aggregates and window functions.

use super::StatementGenerator;
use crate::statements::{Expr, Kind};

impl StatementGenerator<'_> {
    /// An aggregate over a scope.
    pub(in crate::statements) fn aggregate(&mut self, scope: &[Expr]) -> Expr {
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
            .approximate(),
            8 => Expr::call(Kind::Fraction, "avg({0})", vec![self.number(scope, depth)]).approximate(),
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

    /// A window function over a scope; `unique` breaks ties.
    pub(in crate::statements) fn window(&mut self, scope: &[Expr], unique: &Expr) -> Expr {
        let (part_kind, kind) = (self.kind(scope), self.kind(scope));
        let (part_depth, depth) = (usize::from(self.chance(20)), usize::from(self.chance(20)));
        let part = self.expr(scope, part_kind, part_depth);
        let value = self.expr(scope, kind, depth);
        let (integer, unique) = (self.expr(scope, Kind::Integer, 0), unique.clone());
        let distance = 1 + self.below(3);
        let by = if self.chance(70) { "partition by {0} " } else { "" };
        let direction = if self.chance(30) { " desc" } else { "" };
        // A literal as a key of ORDER BY would be a position.
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
        let (result, form) = match self.below(12) {
            0 | 1 => (
                Kind::Integer,
                format!("row_number() over ({by}order by {{1}}{direction}, {{2}})"),
            ),
            2 => (Kind::Integer, format!("rank() over ({by}order by {{1}}{direction})")),
            3 => (
                Kind::Integer,
                format!("dense_rank() over ({by}order by {{1}}{direction})"),
            ),
            4 => (kind, format!("lag({{1}}, {distance}) over ({by}order by {{2}})")),
            5 => (kind, format!("lead({{1}}) over ({by}order by {{2}}{direction})")),
            6 => (kind, format!("first_value({{1}}) over ({by}order by {{2}}{direction})")),
            7 => (
                Kind::Integer,
                format!("sum({{3}}) over ({by}order by {{2}} rows between {distance} preceding and current row)"),
            ),
            8 => (
                Kind::Integer,
                format!("sum({{3}}) over ({by}order by {{1}}{direction})"),
            ),
            9 => (
                Kind::Integer,
                format!("sum({{3}}) over ({by}order by {{2}} rows between current row and {distance} following)"),
            ),
            10 => (Kind::Integer, format!("count({{1}}) over ({})", by.trim_end())),
            _ => (
                Kind::Integer,
                format!(
                    "max({{3}}) over ({by}order by {{2}} rows between unbounded preceding and {distance} preceding)"
                ),
            ),
        };
        Expr::call(result, form, parts)
    }
}
