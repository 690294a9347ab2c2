//! Random statements: which clauses they combine.

mod composite;
mod joins;

use super::{
    Dialect, Expr, GroupingSets, Kind, Query, Relation, SetOperation, SortKey, StatementGenerator,
    generate::{DEPTH_MAX, Scope},
};

/// How many rows a statement may return; more would be truncated.
const ROWS_MAX: u64 = 9_000;
/// How many subqueries a statement may have.
const SUBQUERIES_MAX: usize = 2;

/// The kind of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Rows of one collection.
    Rows,
    /// Groups of one collection.
    Groups,
    /// Aggregates over all rows.
    Aggregates,
    /// Joins.
    Joins,
    /// UNION, EXCEPT, INTERSECT.
    SetOperations,
    /// Window functions.
    Windows,
    /// Subqueries in FROM and WITH.
    Subqueries,
    /// Expressions without type checks: DuckDB is not asked.
    Untyped,
    /// Ternary logic partitioning: a predicate splits all rows into three parts.
    Partitioned,
}

/// A random statement.
#[derive(Debug, Clone)]
pub struct GeneratedStatement {
    /// Its number among the statements of the seed.
    pub number: u64,
    /// Its kind.
    pub family: Family,
    /// Its clauses.
    pub query: Query,
}

impl GeneratedStatement {
    /// Its SQL.
    pub fn text(&self, dialect: Dialect) -> String {
        self.query.text(dialect)
    }

    /// The three queries of a [`Family::Partitioned`]: the predicate is true, false, and NULL.
    pub fn partitions(&self) -> [Query; 3] {
        let predicate = self
            .query
            .filter
            .clone()
            .expect("a partitioned statement has a predicate");
        ["{0}", "(not {0})", "({0} is null)"].map(|form| Query {
            filter: Some(Expr::call(Kind::Boolean, form, vec![predicate.clone()])),
            ..self.query.clone()
        })
    }
}

impl StatementGenerator<'_> {
    /// Generates a statement.
    pub fn statement(&mut self, number: u64) -> GeneratedStatement {
        self.aliases = 0;
        self.subqueries_left = if self.chance(40) { SUBQUERIES_MAX } else { 0 };
        let (family, query) = match self.below(100) {
            0..=19 => (Family::Rows, self.rows()),
            20..=37 => (Family::Groups, self.groups()),
            38..=44 => (Family::Aggregates, self.aggregates()),
            45..=57 => (Family::Joins, self.joins()),
            58..=67 => (Family::SetOperations, self.set_operations()),
            68..=76 => (Family::Windows, self.windows()),
            77..=86 => (Family::Subqueries, self.subqueries()),
            87..=93 => (Family::Untyped, self.untyped_rows()),
            _ => (Family::Partitioned, self.partitioned()),
        };
        GeneratedStatement { number, family, query }
    }

    /// A query of one collection, and its scope.
    fn single_source(&mut self) -> (Query, Scope) {
        let set = self.set();
        // A subquery refers to the outer row by its alias; without an alias, a path would be the inner row's.
        let alias = (self.subqueries_left > 0 || self.chance(20)).then(|| self.alias());
        let scope = self.scope(set, alias.as_deref());
        (Query::of(&set.name, alias.as_deref()), scope)
    }

    fn add_filter(&mut self, query: &mut Query, scope: &[Expr], percent: u32) {
        if self.chance(percent) {
            query.filter = Some(self.predicate(scope, DEPTH_MAX - 1));
        }
    }

    fn item(&mut self, scope: &[Expr]) -> Expr {
        let kind = self.kind(scope);
        let depth = self.pick(&[0, 0, 1, 2, DEPTH_MAX]);
        let kind = if self.chance(8) { Kind::Time } else { kind };
        self.expr(scope, kind, depth)
    }

    fn rows(&mut self) -> Query {
        let (mut query, scope) = self.single_source();
        query.items = (0..1 + self.below(4)).map(|_| self.item(&scope)).collect();
        if self.chance(70) {
            query.items.extend(Self::number_path(&scope));
        }
        if self.subqueries_left > 0 && self.chance(15) {
            query.items.push(self.scalar_subquery(&scope));
        }
        self.add_filter(&mut query, &scope, 75);
        query.distinct = query.items.iter().all(Expr::exact) && self.chance(20);
        self.order_by(&mut query, 45);
        query
    }

    /// A scalar subquery, correlated by equal keys if there are any.
    fn scalar_subquery(&mut self, scope: &[Expr]) -> Expr {
        let set = self.set();
        let alias = self.alias();
        let inner = self.scope(set, Some(&alias));
        let mut query = Query::of(&set.name, Some(&alias));
        let value = self.aggregate(&inner);
        let (kind, exact) = (value.kind(), value.exact());
        query.items = vec![value];
        if let Some((outer, key)) = self.join_keys(scope, &inner) {
            query.filter = Some(Expr::call(Kind::Boolean, "({0} = {1})", vec![key, outer]));
        }
        let call = Expr::with_subquery(kind, "({q})", vec![], query);
        if exact { call } else { call.approximate() }
    }

    /// Adds ORDER BY over all columns, so that the order is total, and perhaps a limit.
    fn order_by(&mut self, query: &mut Query, percent: u32) {
        if !query.items.iter().all(Expr::exact) || !self.chance(percent) {
            return;
        }
        let mut keys: Vec<usize> = (0..query.items.len()).collect();
        (1..keys.len()).for_each(|at| keys.swap(at, self.below(at + 1)));
        for item in keys {
            let descending = self.chance(35);
            let nulls_first = if self.chance(15) { Some(self.chance(50)) } else { None };
            query.order.push(SortKey {
                item,
                descending,
                nulls_first,
                by_name: self.chance(50),
            });
        }
        if self.chance(65) {
            query.limit = Some(1 + self.below(40) as u64);
            query.offset = if self.chance(20) {
                Some(self.below(30) as u64)
            } else {
                None
            };
        }
    }

    /// Adds GROUP BY with some keys, aggregates, and perhaps HAVING.
    fn add_groups(&mut self, query: &mut Query, scope: &[Expr]) {
        let mut keys: Vec<Expr> = (0..1 + self.below(2))
            .map(|_| self.item(scope))
            .filter(Expr::exact)
            .collect();
        keys.dedup();
        let as_expressions = self.chance(50);
        // A literal as a key would be a position.
        let as_expressions = as_expressions && !keys.iter().any(|key| matches!(key, Expr::Literal { .. }));
        query.group = (0..keys.len()).map(|item| (item, as_expressions)).collect();
        if as_expressions && self.chance(40) {
            query.grouping_sets = self.pick(&[GroupingSets::Rollup, GroupingSets::Cube, GroupingSets::EachKey]);
        }
        query.items = keys;
        let aggregates: Vec<Expr> = (0..1 + self.below(3)).map(|_| self.aggregate(scope)).collect();
        if self.chance(30) {
            let aggregate = self.aggregate(scope);
            let aggregate = if aggregate.exact() {
                aggregate
            } else {
                Expr::call(Kind::Integer, "count(*)", vec![])
            };
            let literal = self.plain_literal(aggregate.kind());
            let form = match aggregate.kind() {
                Kind::Boolean => "({0} is not null)",
                _ => self.pick(&["({0} > {1})", "({0} <= {1})", "({0} is not null)", "({0} <> {1})"]),
            };
            query.having = Some(Expr::call(Kind::Boolean, form, vec![aggregate, literal]));
        }
        query.items.extend(aggregates);
        if query.group.is_empty() && query.having.is_some() {
            query.having = None;
        }
    }

    fn groups(&mut self) -> Query {
        let (mut query, scope) = self.single_source();
        self.add_groups(&mut query, &scope);
        self.add_filter(&mut query, &scope, 60);
        self.order_by(&mut query, 60);
        query
    }

    fn aggregates(&mut self) -> Query {
        let (mut query, scope) = self.single_source();
        query.items = (0..1 + self.below(5)).map(|_| self.aggregate(&scope)).collect();
        self.add_filter(&mut query, &scope, 75);
        query
    }

    fn windows(&mut self) -> Query {
        let (mut query, scope) = self.single_source();
        let unique = Self::number_path(&scope).expect("every set has a document number");
        query.items = vec![unique.clone(), self.item(&scope)];
        query
            .items
            .extend((0..1 + self.below(2)).map(|_| self.window(&scope, &unique)));
        self.add_filter(&mut query, &scope, 50);
        if self.chance(30) {
            let alias = self.alias();
            let outputs = Self::outputs(&query, &alias);
            let mut outer = Query::of("", Some(&alias));
            outer.from[0].relation = Relation::Query(Box::new(query));
            outer.items = outputs.clone();
            self.add_filter(&mut outer, &outputs, 100);
            query = outer;
        }
        self.order_by(&mut query, 50);
        query
    }

    fn untyped_rows(&mut self) -> Query {
        let (mut query, scope) = self.single_source();
        let depth = 1 + self.below(2);
        query.items = (0..1 + self.below(2)).map(|_| self.untyped(&scope, depth)).collect();
        match self.below(5) {
            0 => query.filter = Some(self.untyped(&scope, depth)),
            1 => {
                query.group = vec![(0, self.chance(50))];
                query.items.truncate(1);
                let form = self.pick(&[
                    "sum({0})",
                    "min({0})",
                    "avg({0})",
                    "count(distinct {0})",
                    "max({0})",
                    "bool_and({0})",
                    "string_agg({0}, ',')",
                ]);
                query
                    .items
                    .push(Expr::call(Kind::Integer, form, vec![self.untyped(&scope, 1)]));
            }
            2 => {
                query.order = vec![SortKey {
                    item: 0,
                    descending: false,
                    nulls_first: None,
                    by_name: false,
                }]
            }
            3 => {
                let mut other = query.clone();
                other.items = query.items.iter().map(|_| self.untyped(&scope, depth)).collect();
                query.set_operations.push((SetOperation::Union, other));
            }
            _ => query.filter = Some(self.predicate(&scope, 1)),
        }
        query
    }

    fn partitioned(&mut self) -> Query {
        let (mut query, scope) = self.single_source();
        query.items = Self::number_path(&scope).into_iter().collect();
        query.filter = Some(self.predicate(&scope, DEPTH_MAX));
        query
    }
}
