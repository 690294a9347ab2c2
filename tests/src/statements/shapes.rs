//! Whole statements by chance: which clauses go together.

use super::{
    Combine, Expr, Generator, Join, Kind, Order, Query, Relation, Sets, Source, Spelling,
    generate::{DEPTH_MAX, Scope},
};

/// Rows that a statement may answer with: more are cut off.
const ROWS_MAX: u64 = 9_000;
/// Rows that a join may make before they are counted or cut.
const JOINED_MAX: u64 = 60_000;
/// Sub-queries of one statement.
const QUERIES_MAX: usize = 2;

/// What a statement is mostly about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Rows of one collection.
    Rows,
    /// Groups of one collection.
    Groups,
    /// Aggregates of all rows.
    Whole,
    /// Joins.
    Joins,
    /// UNION, EXCEPT, INTERSECT.
    Combined,
    /// Window functions.
    Windows,
    /// Sub-queries in FROM and WITH.
    Views,
    /// Without regard for what fits: asked by columns and raw alone.
    Careless,
    /// A predicate, by which all rows are parted in three.
    Parted,
}

/// A statement that was written by chance.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Its number among those of the seed.
    pub number: u64,
    /// What it is about.
    pub family: Family,
    /// Its clauses.
    pub query: Query,
}

impl Statement {
    /// As one is asked.
    pub fn text(&self, spelling: Spelling) -> String {
        self.query.text(spelling)
    }

    /// The three parts of a [`Family::Parted`]: where the predicate holds, where it does not, and where it is NULL.
    pub fn parts(&self) -> [Query; 3] {
        let predicate = self.query.filter.clone().expect("a parted statement has a predicate");
        ["{0}", "(not {0})", "({0} is null)"].map(|form| Query {
            filter: Some(Expr::call(Kind::Boolean, form, vec![predicate.clone()])),
            ..self.query.clone()
        })
    }
}

impl Generator<'_> {
    /// The next statement.
    pub fn statement(&mut self, number: u64) -> Statement {
        self.named = 0;
        self.queries_left = if self.chance(40) { QUERIES_MAX } else { 0 };
        let (family, query) = match self.below(100) {
            0..=19 => (Family::Rows, self.rows()),
            20..=37 => (Family::Groups, self.groups()),
            38..=44 => (Family::Whole, self.whole()),
            45..=57 => (Family::Joins, self.joins()),
            58..=67 => (Family::Combined, self.combined()),
            68..=76 => (Family::Windows, self.windows()),
            77..=86 => (Family::Views, self.views()),
            87..=93 => (Family::Careless, self.careless_rows()),
            _ => (Family::Parted, self.parted()),
        };
        Statement { number, family, query }
    }

    /// A query of one collection, and what it can name.
    fn one(&mut self) -> (Query, Scope) {
        let set = self.set();
        // A sub-query speaks of the outer row by its alias: without one a path would be the inner one's.
        let alias = (self.queries_left > 0 || self.chance(20)).then(|| self.alias());
        let scope = self.scope(set, alias.as_deref());
        (Query::of(&set.name, alias.as_deref()), scope)
    }

    fn filtered(&mut self, query: &mut Query, scope: &[Expr], percent: u32) {
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
        let (mut query, scope) = self.one();
        query.items = (0..1 + self.below(4)).map(|_| self.item(&scope)).collect();
        if self.chance(70) {
            query.items.extend(Self::number(&scope));
        }
        if self.queries_left > 0 && self.chance(15) {
            query.items.push(self.scalar(&scope));
        }
        self.filtered(&mut query, &scope, 75);
        query.distinct = query.items.iter().all(Expr::exact) && self.chance(20);
        self.ordered(&mut query, 45);
        query
    }

    /// A scalar sub-query over equal keys.
    fn scalar(&mut self, scope: &[Expr]) -> Expr {
        let set = self.set();
        let alias = self.alias();
        let inner = self.scope(set, Some(&alias));
        let mut query = Query::of(&set.name, Some(&alias));
        let value = self.aggregate(&inner);
        let (kind, exact) = (value.kind(), value.exact());
        query.items = vec![value];
        if let Some((outer, own)) = self.key_of_both(scope, &inner) {
            query.filter = Some(Expr::call(Kind::Boolean, "({0} = {1})", vec![own, outer]));
        }
        let call = Expr::with_query(kind, "({q})", vec![], query);
        if exact { call } else { call.about() }
    }

    /// Keys on all columns, so that the order is total, and perhaps a limit.
    fn ordered(&mut self, query: &mut Query, percent: u32) {
        if !query.items.iter().all(Expr::exact) || !self.chance(percent) {
            return;
        }
        let mut keys: Vec<usize> = (0..query.items.len()).collect();
        (1..keys.len()).for_each(|at| keys.swap(at, self.below(at + 1)));
        for item in keys {
            let descending = self.chance(35);
            let nulls_first = if self.chance(15) { Some(self.chance(50)) } else { None };
            query.order.push(Order {
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

    /// Groups a query by some expressions and counts in the groups.
    fn grouped(&mut self, query: &mut Query, scope: &[Expr]) {
        let mut keys: Vec<Expr> = (0..1 + self.below(2))
            .map(|_| self.item(scope))
            .filter(Expr::exact)
            .collect();
        keys.dedup();
        let written = self.chance(50);
        // A literal in GROUP BY would be a position, and one that is written out too.
        let written = written && !keys.iter().any(|key| matches!(key, Expr::Literal { .. }));
        query.group = (0..keys.len()).map(|item| (item, written)).collect();
        if written && self.chance(40) {
            query.sets = self.pick(&[Sets::Rollup, Sets::Cube, Sets::Each]);
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
        let (mut query, scope) = self.one();
        self.grouped(&mut query, &scope);
        self.filtered(&mut query, &scope, 60);
        self.ordered(&mut query, 60);
        query
    }

    fn whole(&mut self) -> Query {
        let (mut query, scope) = self.one();
        query.items = (0..1 + self.below(5)).map(|_| self.aggregate(&scope)).collect();
        self.filtered(&mut query, &scope, 75);
        query
    }

    fn joins(&mut self) -> Query {
        let left = self.set();
        let right = if self.chance(60) { left } else { self.set() };
        let (a, b) = (self.alias(), self.alias());
        let (scope_a, scope_b) = (self.scope(left, Some(&a)), self.scope(right, Some(&b)));
        let mut query = Query::of(&left.name, Some(&a));
        let keys = (0..30).find_map(|_| {
            let (one, other) = self.key_of_both(&scope_a, &scope_b)?;
            (joined(&one, &other)? <= JOINED_MAX).then_some((one, other))
        });
        let (one, other) = keys.unwrap_or_else(|| (scope_a[0].clone(), scope_b[0].clone()));
        let rows = joined(&one, &other).unwrap_or(JOINED_MAX) + left.rows.len() as u64 + right.rows.len() as u64;
        let mut on = Expr::call(
            Kind::Boolean,
            self.pick(&["{0} = {1}", "{1} = {0}"]),
            vec![one.clone(), other.clone()],
        );
        if self.chance(25) {
            let scope = if self.chance(50) { &scope_a } else { &scope_b };
            let more = self.predicate(scope, 0);
            on = Expr::call(Kind::Boolean, "{0} and {1}", vec![on, more]);
        }
        let join = self.pick(&[
            Join::Inner,
            Join::Inner,
            Join::Left,
            Join::Left,
            Join::Right,
            Join::Full,
        ]);
        query.from.push(Source {
            join,
            relation: Relation::Named(right.name.clone()),
            alias: Some(b),
            on: Some(on),
        });
        let mut both: Scope = scope_a;
        both.extend(scope_b);
        self.filtered(&mut query, &both, 50);
        match self.below(3) {
            0 if rows <= ROWS_MAX => {
                query.items = (0..2 + self.below(3)).map(|_| self.item(&both)).collect();
                self.ordered(&mut query, 40);
            }
            1 => self.grouped(&mut query, &both),
            2 => query.items = (0..1 + self.below(4)).map(|_| self.aggregate(&both)).collect(),
            _ => {
                query.items = (0..2)
                    .map(|_| self.item(&both))
                    .filter(Expr::exact)
                    .chain([one, other])
                    .collect();
                self.ordered(&mut query, 100);
                query.limit = query.limit.or(Some(50));
            }
        }
        query
    }

    fn combined(&mut self) -> Query {
        let kinds: Vec<Kind> = (0..1 + self.below(2))
            .map(|_| self.pick(&[Kind::Text, Kind::Text, Kind::Integer, Kind::Boolean]))
            .collect();
        let part = |generator: &mut Self| {
            let (mut query, scope) = generator.one();
            let depth = usize::from(generator.chance(25));
            query.items = kinds.iter().map(|kind| generator.expr(&scope, *kind, depth)).collect();
            generator.filtered(&mut query, &scope, 70);
            query
        };
        let mut query = part(self);
        // Two sets with the same paths are where something is in both.
        for _ in 0..1 + usize::from(self.chance(20)) {
            // What binds closer is another test's business: INTERSECT stands alone.
            let all = [
                Combine::Union,
                Combine::UnionAll,
                Combine::Except,
                Combine::ExceptAll,
                Combine::Intersect,
                Combine::IntersectAll,
            ];
            let combine = self.pick(if query.combined.is_empty() { &all } else { &all[..4] });
            let mut other = part(self);
            if self.chance(60) {
                let (mut same, scope) = (
                    Query {
                        filter: None,
                        ..query.clone()
                    },
                    self.scope_of(&query),
                );
                same.combined.clear();
                self.filtered(&mut same, &scope, 90);
                other = same;
            }
            query.combined.push((combine, other));
            if matches!(combine, Combine::Intersect | Combine::IntersectAll) {
                break;
            }
        }
        self.ordered(&mut query, 40);
        query
    }

    /// What a query of one collection can name.
    fn scope_of(&mut self, query: &Query) -> Scope {
        let Relation::Named(name) = &query.from[0].relation else {
            return Vec::new();
        };
        let set = self
            .sets
            .iter()
            .find(|set| set.name == *name)
            .expect("a query of one of the sets");
        self.scope(set, query.from[0].alias.as_deref())
    }

    fn windows(&mut self) -> Query {
        let (mut query, scope) = self.one();
        let unique = Self::number(&scope).expect("every set is numbered");
        query.items = vec![unique.clone(), self.item(&scope)];
        query
            .items
            .extend((0..1 + self.below(2)).map(|_| self.window(&scope, &unique)));
        self.filtered(&mut query, &scope, 50);
        if self.chance(30) {
            let alias = self.alias();
            let outputs = Self::outputs(&query, &alias);
            let mut outer = Query::of("", Some(&alias));
            outer.from[0].relation = Relation::Query(Box::new(query));
            outer.items = outputs.clone();
            self.filtered(&mut outer, &outputs, 100);
            query = outer;
        }
        self.ordered(&mut query, 50);
        query
    }

    fn views(&mut self) -> Query {
        let mut inner = match self.below(5) {
            0 => self.groups(),
            1 => self.combined(),
            2 => self.windows(),
            _ => self.rows(),
        };
        let alias = self.alias();
        let mut outer = Query::of("", Some(&alias));
        if self.chance(40) {
            let name = format!("q{}", self.named);
            // The queries of WITH stand side by side.
            outer.with = std::mem::take(&mut inner.with);
            outer.with.push((name.clone(), inner.clone()));
            outer.from[0].relation = Relation::Named(name.clone());
            if self.chance(30) {
                return self.joined_to_itself(outer, &inner, &alias, name);
            }
        } else {
            outer.from[0].relation = Relation::Query(Box::new(inner.clone()));
        }
        let scope = Self::outputs(&inner, &alias);
        if self.chance(50) {
            self.grouped(&mut outer, &scope);
        } else {
            outer.items = (0..1 + self.below(3)).map(|_| self.item(&scope)).collect();
        }
        self.filtered(&mut outer, &scope, 60);
        self.ordered(&mut outer, 40);
        outer
    }

    /// A query of WITH that is named twice.
    fn joined_to_itself(&mut self, mut outer: Query, inner: &Query, alias: &str, name: String) -> Query {
        let other = self.alias();
        let (scope, second) = (Self::outputs(inner, alias), Self::outputs(inner, &other));
        let equal: Vec<String> = (0..scope.len())
            .map(|i| format!("{{{i}}} = {{{}}}", i + scope.len()))
            .collect();
        let parts = scope.iter().chain(&second).cloned().collect();
        let on = Expr::call(Kind::Boolean, equal.join(" and "), parts);
        outer.from.push(Source {
            join: self.pick(&[Join::Inner, Join::Left]),
            relation: Relation::Named(name),
            alias: Some(other),
            on: Some(on),
        });
        // Rows that are there often would meet too often to be listed.
        outer.items = vec![
            Expr::call(Kind::Integer, "count(*)", vec![]),
            Expr::call(Kind::Integer, "count({0})", vec![second[0].clone()]),
        ];
        outer
    }

    fn careless_rows(&mut self) -> Query {
        let (mut query, scope) = self.one();
        let depth = 1 + self.below(2);
        query.items = (0..1 + self.below(2)).map(|_| self.careless(&scope, depth)).collect();
        match self.below(5) {
            0 => query.filter = Some(self.careless(&scope, depth)),
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
                    .push(Expr::call(Kind::Integer, form, vec![self.careless(&scope, 1)]));
            }
            2 => {
                query.order = vec![Order {
                    item: 0,
                    descending: false,
                    nulls_first: None,
                    by_name: false,
                }]
            }
            3 => {
                let mut other = query.clone();
                other.items = query.items.iter().map(|_| self.careless(&scope, depth)).collect();
                query.combined.push((Combine::Union, other));
            }
            _ => query.filter = Some(self.predicate(&scope, 1)),
        }
        query
    }

    fn parted(&mut self) -> Query {
        let (mut query, scope) = self.one();
        query.items = Self::number(&scope).into_iter().collect();
        query.filter = Some(self.predicate(&scope, DEPTH_MAX));
        query
    }
}

/// How many pairs of equal values two paths have.
fn joined(one: &Expr, other: &Expr) -> Option<u64> {
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
