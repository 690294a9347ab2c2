//! Random expressions whose operands need not fit together.

use serde_json::json;

use super::StatementGenerator;
use crate::statements::{Expr, Kind};

/// Operators and functions that are applied to operands of any kind.
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

impl StatementGenerator<'_> {
    /// An expression without type checks: the server must answer it, or reject it with an error for users.
    pub(in crate::statements) fn untyped(&mut self, scope: &[Expr], depth: usize) -> Expr {
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
        let parts = vec![self.untyped(scope, depth - 1), self.untyped(scope, depth - 1)];
        let form = self.pick(&FORMS);
        let result = if form.contains('=') || form.contains('<') || form.contains(" in ") || form.contains("like") {
            Kind::Boolean
        } else {
            kind
        };
        Expr::call(result, form, parts)
    }
}
