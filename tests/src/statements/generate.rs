//! Random expressions of a given kind, over the paths and columns in scope.

mod aggregates;
mod functions;
mod untyped;

use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{Column, DocumentSet, Expr, Kind, Query, expression::PathSyntax, profile::NUMBER_PATH};

/// The maximum depth of an expression; a literal or a path has depth 0.
pub(super) const DEPTH_MAX: usize = 3;

/// Generates statements over document sets.
pub struct StatementGenerator<'a> {
    pub(super) sets: &'a [DocumentSet],
    pub(super) random: StdRng,
    /// How many aliases were used in this statement.
    pub(super) aliases: usize,
    /// How many more subqueries this statement may contain.
    pub(super) subqueries_left: usize,
}

/// The names in scope: paths of collections and columns of subqueries.
pub(super) type Scope = Vec<Expr>;

impl<'a> StatementGenerator<'a> {
    /// A generator with this seed.
    pub fn new(sets: &'a [DocumentSet], seed: u64) -> Self {
        assert!(!sets.is_empty(), "statements need at least one document set");
        Self {
            sets,
            random: StdRng::seed_from_u64(seed),
            aliases: 0,
            subqueries_left: 0,
        }
    }

    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    pub(super) fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        *list.choose(&mut self.random).expect("a non-empty list")
    }

    pub(super) fn set(&mut self) -> &'a DocumentSet {
        self.sets.choose(&mut self.random).expect("at least one set")
    }

    pub(super) fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("r{}", self.aliases)
    }

    /// The paths of a set under an alias.
    pub(super) fn scope(&mut self, set: &DocumentSet, alias: Option<&str>) -> Scope {
        let arrows = self.chance(10);
        let syntax = |random: &mut StdRng| {
            if arrows && random.random_range(0..3) == 0 {
                PathSyntax::Arrows
            } else {
                PathSyntax::Dots
            }
        };
        let path = |column: &Column| Expr::Path {
            alias: alias.map(str::to_owned),
            column: Arc::new(column.clone()),
            syntax: syntax(&mut self.random),
        };
        set.columns.iter().map(path).collect()
    }

    /// The columns of a subquery under an alias.
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

    /// The path that numbers the documents, if it is in scope.
    pub(super) fn number_path(scope: &[Expr]) -> Option<Expr> {
        scope
            .iter()
            .find(|leaf| matches!(leaf, Expr::Path { column, .. } if column.flat == NUMBER_PATH))
            .cloned()
    }

    /// A path or column of this kind.
    pub(super) fn leaf(&mut self, scope: &[Expr], kind: Kind) -> Option<Expr> {
        let of_kind: Vec<&Expr> = scope.iter().filter(|leaf| leaf.kind() == kind).collect();
        of_kind.choose(&mut self.random).map(|leaf| (*leaf).clone())
    }

    /// A path or column with a property.
    fn leaf_where(&mut self, scope: &[Expr], matches: impl Fn(&Expr) -> bool) -> Option<Expr> {
        let matching: Vec<&Expr> = scope.iter().filter(|leaf| matches(leaf)).collect();
        matching.choose(&mut self.random).map(|leaf| (*leaf).clone())
    }

    /// The kind of a random name in scope.
    pub(super) fn kind(&mut self, scope: &[Expr]) -> Kind {
        scope.choose(&mut self.random).map_or(Kind::Integer, Expr::kind)
    }

    /// A literal of a kind, independent of the documents.
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

    /// A literal to compare with an expression: mostly a sampled value of its path.
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
            return self.conditional(scope, kind, depth - 1);
        }
        match kind {
            Kind::Integer => self.integer(scope, depth - 1),
            Kind::Fraction => self.fraction(scope, depth - 1),
            Kind::Text => self.text(scope, depth - 1),
            Kind::Boolean => self.predicate(scope, depth - 1),
            Kind::Time => self.shifted_time(scope, depth - 1),
        }
    }
}
