//! Random statements that consist of several queries: set operations and subqueries in FROM and WITH.

use crate::statements::{Kind, Query, Relation, SetOperation, StatementGenerator, generate::Scope};

impl StatementGenerator<'_> {
    /// Two or three queries combined by set operations.
    pub(super) fn set_operations(&mut self) -> Query {
        let kinds: Vec<Kind> = (0..1 + self.below(2))
            .map(|_| self.pick(&[Kind::Text, Kind::Text, Kind::Integer, Kind::Boolean]))
            .collect();
        let part = |generator: &mut Self| {
            let (mut query, scope) = generator.single_source();
            let depth = usize::from(generator.chance(25));
            query.items = kinds.iter().map(|kind| generator.expr(&scope, *kind, depth)).collect();
            generator.add_filter(&mut query, &scope, 70);
            query
        };
        let mut query = part(self);
        for _ in 0..1 + usize::from(self.chance(20)) {
            // Precedence is covered by another test, so INTERSECT is only used alone.
            let all = [
                SetOperation::Union,
                SetOperation::UnionAll,
                SetOperation::Except,
                SetOperation::ExceptAll,
                SetOperation::Intersect,
                SetOperation::IntersectAll,
            ];
            let operation = self.pick(if query.set_operations.is_empty() {
                &all
            } else {
                &all[..4]
            });
            let mut other = part(self);
            // Queries of the same paths are more likely to have rows in common.
            if self.chance(60) {
                let (mut same, scope) = (
                    Query {
                        filter: None,
                        ..query.clone()
                    },
                    self.scope_of(&query),
                );
                same.set_operations.clear();
                self.add_filter(&mut same, &scope, 90);
                other = same;
            }
            query.set_operations.push((operation, other));
            if matches!(operation, SetOperation::Intersect | SetOperation::IntersectAll) {
                break;
            }
        }
        self.order_by(&mut query, 40);
        query
    }

    /// The scope of a query of one collection.
    fn scope_of(&mut self, query: &Query) -> Scope {
        let Relation::Named(name) = &query.from[0].relation else {
            return Vec::new();
        };
        let set = self
            .sets
            .iter()
            .find(|set| set.name == *name)
            .expect("the query's collection is one of the sets");
        self.scope(set, query.from[0].alias.as_deref())
    }

    /// A query over a subquery in FROM, or over a query of WITH.
    pub(super) fn subqueries(&mut self) -> Query {
        let mut inner = match self.below(5) {
            0 => self.groups(),
            1 => self.set_operations(),
            2 => self.windows(),
            _ => self.rows(),
        };
        let alias = self.alias();
        let mut outer = Query::of("", Some(&alias));
        if self.chance(40) {
            let name = format!("q{}", self.aliases);
            // WITH is not nested: move the inner queries to the outer WITH.
            outer.with = std::mem::take(&mut inner.with);
            outer.with.push((name.clone(), inner.clone()));
            outer.from[0].relation = Relation::Named(name.clone());
            if self.chance(30) {
                return self.self_join(outer, &inner, &alias, name);
            }
        } else {
            outer.from[0].relation = Relation::Query(Box::new(inner.clone()));
        }
        let scope = Self::outputs(&inner, &alias);
        if self.chance(50) {
            self.add_groups(&mut outer, &scope);
        } else {
            outer.items = (0..1 + self.below(3)).map(|_| self.item(&scope)).collect();
        }
        self.add_filter(&mut outer, &scope, 60);
        self.order_by(&mut outer, 40);
        outer
    }
}
