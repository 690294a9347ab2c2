//! Random joins.

use super::ROWS_MAX;
use crate::statements::{Expr, FromItem, Join, Kind, Query, Relation, StatementGenerator, generate::Scope};

/// How many rows a join may produce before aggregation or LIMIT.
const JOINED_MAX: u64 = 60_000;

impl StatementGenerator<'_> {
    /// Joins two collections on equal keys.
    pub(super) fn joins(&mut self) -> Query {
        let left = self.set();
        let right = if self.chance(60) { left } else { self.set() };
        let (a, b) = (self.alias(), self.alias());
        let (scope_a, scope_b) = (self.scope(left, Some(&a)), self.scope(right, Some(&b)));
        let mut query = Query::of(&left.name, Some(&a));
        let keys = (0..30).find_map(|_| {
            let (one, other) = self.join_keys(&scope_a, &scope_b)?;
            (joined_rows(&one, &other)? <= JOINED_MAX).then_some((one, other))
        });
        let (one, other) = keys.unwrap_or_else(|| (scope_a[0].clone(), scope_b[0].clone()));
        let rows = joined_rows(&one, &other).unwrap_or(JOINED_MAX) + left.rows.len() as u64 + right.rows.len() as u64;
        let on = self.join_condition(&one, &other, &scope_a, &scope_b);
        let join = self.pick(&[
            Join::Inner,
            Join::Inner,
            Join::Left,
            Join::Left,
            Join::Right,
            Join::Full,
        ]);
        query.from.push(FromItem {
            join,
            relation: Relation::Named(right.name.clone()),
            alias: Some(b),
            on: Some(on),
        });
        let mut both: Scope = scope_a;
        both.extend(scope_b);
        self.add_filter(&mut query, &both, 50);
        match self.below(3) {
            0 if rows <= ROWS_MAX => {
                query.items = (0..2 + self.below(3)).map(|_| self.item(&both)).collect();
                self.order_by(&mut query, 40);
            }
            1 => self.add_groups(&mut query, &both),
            2 => query.items = (0..1 + self.below(4)).map(|_| self.aggregate(&both)).collect(),
            _ => {
                query.items = (0..2)
                    .map(|_| self.item(&both))
                    .filter(Expr::exact)
                    .chain([one, other])
                    .collect();
                self.order_by(&mut query, 100);
                query.limit = query.limit.or(Some(50));
            }
        }
        query
    }

    /// The ON of a join: equal keys, sometimes with a further predicate on one side.
    fn join_condition(&mut self, one: &Expr, other: &Expr, scope_a: &[Expr], scope_b: &[Expr]) -> Expr {
        let equal = Expr::call(
            Kind::Boolean,
            self.pick(&["{0} = {1}", "{1} = {0}"]),
            vec![one.clone(), other.clone()],
        );
        if !self.chance(25) {
            return equal;
        }
        let scope = if self.chance(50) { scope_a } else { scope_b };
        let more = self.predicate(scope, 0);
        Expr::call(Kind::Boolean, "{0} and {1}", vec![equal, more])
    }

    /// Joins a query of WITH to itself.
    pub(super) fn self_join(&mut self, mut outer: Query, inner: &Query, alias: &str, name: String) -> Query {
        let other = self.alias();
        let (scope, second) = (Self::outputs(inner, alias), Self::outputs(inner, &other));
        let equal: Vec<String> = (0..scope.len())
            .map(|i| format!("{{{i}}} = {{{}}}", i + scope.len()))
            .collect();
        let parts = scope.iter().chain(&second).cloned().collect();
        let on = Expr::call(Kind::Boolean, equal.join(" and "), parts);
        outer.from.push(FromItem {
            join: self.pick(&[Join::Inner, Join::Left]),
            relation: Relation::Named(name),
            alias: Some(other),
            on: Some(on),
        });
        // Frequent rows would produce too many pairs to list.
        outer.items = vec![
            Expr::call(Kind::Integer, "count(*)", vec![]),
            Expr::call(Kind::Integer, "count({0})", vec![second[0].clone()]),
        ];
        outer
    }
}

/// The number of pairs of equal values of two paths.
fn joined_rows(one: &Expr, other: &Expr) -> Option<u64> {
    let (Expr::Path { column: one, .. }, Expr::Path { column: other, .. }) = (one, other) else {
        return None;
    };
    Some(
        one.counts
            .iter()
            .map(|(value, count)| count * other.counts.get(value).copied().unwrap_or_default())
            .sum(),
    )
}
