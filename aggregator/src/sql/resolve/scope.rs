//! Scopes of FROM clauses: the inputs, merged columns and aliases that names can refer to.

use std::rc::Rc;

use datafusion::sql::sqlparser::{
    ast::{Expr, Ident, TableFactor},
    tokenizer::Span,
};
use plan::{
    Path,
    path::Step,
    search::{Match, SearchExpr},
};

use super::value::{StoredPath, Value};
use crate::sql::names::CollectionNames;

/// A FROM clause, and the other names that can be used next to its inputs.
#[derive(Debug, Default, Clone)]
pub(crate) struct Scope<'c> {
    /// The inputs of the FROM clause.
    pub inputs: Vec<Input<'c>>,
    /// Columns merged by USING, with their values when unqualified.
    pub merged: Vec<MergedColumn>,
    /// Aliases of the select list; empty while they cannot be used.
    pub aliases: Vec<(String, Expr)>,
    /// Whether the scopes around this one are invisible.
    pub closed: bool,
    /// Lists that multiply the rows.
    pub unnested: Vec<UnnestedLists>,
    /// What `search` in WHERE looks for: the tests that a match passes, each with the alias of its input and its value;
    /// None means any value.
    pub searched: Vec<(String, Option<Value>, Match)>,
    /// The searches in WHERE, each with the alias of its input.
    pub scored: Vec<(String, SearchExpr)>,
    /// The scores that were resolved: each with the alias of its input, the search and the expression.
    pub scores: Vec<(String, SearchExpr, Expr)>,
}

/// `unnest(list, …)` in FROM: the input that has the lists gets columns of their items, and a row for each position.
#[derive(Debug, Clone)]
pub(crate) struct UnnestedLists {
    /// The alias of the input.
    pub input: String,
    /// What is unnested in step, each with the name of its column.
    pub lists: Vec<(Expr, String)>,
}

/// A WITH query in scope.
#[derive(Debug, Clone)]
pub(super) struct CteInScope {
    /// The name in the statement.
    pub name: String,
    /// The name in the resolved query, which no base table can have.
    pub internal: String,
    /// The columns that the WITH query returns.
    pub columns: Vec<OutputColumn>,
    /// The number of relations that it reads.
    pub relations: usize,
    /// The number of expressions in it, with those of the WITH queries that it reads.
    pub expressions: usize,
    /// Whether it has been read.
    pub used: bool,
}

/// A column named in USING.
#[derive(Debug, Clone)]
pub(crate) struct MergedColumn {
    /// The column's name.
    pub name: String,
    /// Aliases of the inputs that have the column.
    pub inputs: Vec<String>,
    /// The value of the unqualified name.
    pub value: Value,
}

/// An input of a FROM clause.
#[derive(Debug, Clone)]
pub(crate) struct Input<'c> {
    /// The input's alias in the statement.
    pub alias: String,
    /// Documents or fixed columns.
    pub kind: InputKind<'c>,
    /// The relation in the statement, if it can be read again on its own.
    pub relation: Option<Rc<TableFactor>>,
}

#[derive(Debug, Clone)]
pub(crate) enum InputKind<'c> {
    /// Documents of a collection.
    Documents {
        /// The index of the base table in `tables`.
        table: usize,
        /// The names that the documents have.
        names: Rc<CollectionNames<'c>>,
    },
    /// Rows of fixed columns.
    Columns(Rc<[OutputColumn]>),
}

/// A column of a query's result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OutputColumn {
    /// The column's name.
    pub name: String,
    /// The stored path that the column returns unchanged. It provides the kinds of the paths below it.
    pub origin: Option<StoredPath>,
    /// The expression for the column, if it is not a column of the input's alias.
    pub expr: Option<Expr>,
}

impl OutputColumn {
    /// A column without origin.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            origin: None,
            expr: None,
        }
    }
}

/// A name as it is written in the statement.
pub(crate) struct SpelledName {
    /// The steps of the name.
    pub steps: Vec<Step>,
    /// The position in the statement.
    pub span: Span,
}

impl SpelledName {
    /// The first step, if it is a key.
    pub(crate) fn first(&self) -> Option<&str> {
        match self.steps.first() {
            Some(Step::Key(key)) => Some(key),
            _ => None,
        }
    }

    /// All steps as a path.
    pub(crate) fn path(&self) -> Path {
        Path::new(self.steps.clone())
    }
}

/// The steps of identifiers.
pub(crate) fn steps(idents: &[Ident]) -> Vec<Step> {
    idents
        .iter()
        .map(|ident| Step::Key(ident.value.as_str().into()))
        .collect()
}
