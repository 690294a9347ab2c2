//! Defines `Value`, the result of resolving a name or an expression. A path remains a path until it is lowered to an
//! expression, so that further steps can be added to it.

use datafusion::sql::sqlparser::{
    ast::{self, Expr, Ident, ValueWithSpan},
    tokenizer::Span,
};
use plan::{Column, Kinds, Path, Type, path::Step};
use proto::{Code, CollectionName, Problem};

use super::resolver::Resolver;

/// The start of a path.
#[derive(Debug, Clone)]
pub(crate) enum Base {
    /// The documents of a table.
    Table {
        /// The table's alias in the statement.
        alias: String,
        /// The table's index in `tables`.
        table: usize,
        /// The collection that the documents belong to.
        collection: CollectionName,
    },
    /// A computed value.
    Computed {
        /// The expression that computes it.
        expr: Box<Expr>,
        /// The path of stored documents that the expression returns unchanged.
        origin: Option<StoredPath>,
    },
}

/// A collection and a path of its stored documents.
pub(crate) type StoredPath = (CollectionName, Path);

/// A path into documents or into a computed value.
#[derive(Debug, Clone)]
pub(crate) struct PathRef {
    /// The start of the path.
    pub base: Base,
    /// The steps from there; empty for the whole value.
    pub path: Path,
    /// The kinds of the values at the path; none if unknown.
    pub kinds: Kinds,
}

impl PathRef {
    /// Whether it is a path inside stored documents.
    pub(crate) fn is_stored(&self) -> bool {
        matches!(self.base, Base::Table { .. }) && !self.path.steps().is_empty()
    }

    /// The path of stored documents that it returns unchanged.
    pub(crate) fn stored(&self) -> Option<StoredPath> {
        match &self.base {
            Base::Table { collection, .. } => Some((collection.clone(), self.path.clone())),
            Base::Computed { origin, .. } => {
                let (collection, start) = origin.as_ref()?;
                Some((
                    collection.clone(),
                    Path::new(start.steps().iter().chain(self.path.steps()).cloned().collect()),
                ))
            }
        }
    }

    /// Whether it is a whole document.
    pub(crate) fn is_document(&self) -> bool {
        matches!(self.base, Base::Table { .. }) && self.path.steps().is_empty()
    }
}

/// The result of resolving a name or an expression.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a value lives for one step of the resolver")]
pub(crate) enum Value {
    /// A resolved expression.
    Expr(Expr),
    /// A path, to which steps can be added.
    Path(PathRef),
}

pub(crate) fn text_literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(ValueWithSpan { value, .. }) => match value {
            ast::Value::SingleQuotedString(text)
            | ast::Value::EscapedStringLiteral(text)
            | ast::Value::UnicodeStringLiteral(text) => Some(text),
            ast::Value::DollarQuotedString(text) => Some(&text.value),
            _ => None,
        },
        Expr::Nested(inner) => text_literal(inner),
        _ => None,
    }
}

pub(crate) fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

/// A column of an input, qualified with its alias.
pub(crate) fn column(alias: &str, name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![quoted(alias), quoted(name)])
}

/// A literal without a position.
pub(crate) fn literal(value: ast::Value) -> Expr {
    Expr::Value(ValueWithSpan {
        value,
        span: Span::empty(),
    })
}

/// A string literal.
pub(crate) fn text(value: &str) -> Expr {
    literal(ast::Value::SingleQuotedString(value.to_owned()))
}

/// A number literal.
pub(crate) fn number(value: &str) -> Expr {
    literal(ast::Value::Number(value.to_owned(), false))
}

/// A function call.
pub(crate) fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments
        .into_iter()
        .map(|e| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e)))
        .collect();
    Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

impl Resolver<'_> {
    /// Lowers a value to an expression. A path of documents becomes a JSON column of its table.
    pub(crate) fn lower(&mut self, value: Value) -> Expr {
        match value {
            Value::Expr(expr) => expr,
            Value::Path(PathRef {
                base: Base::Table { alias, table, .. },
                path,
                ..
            }) => {
                let source = match path.steps() {
                    [] => Column::system("_doc").unwrap_or_else(|| Column::path(path, Type::Json)),
                    _ => Column::path(path, Type::Json),
                };
                let name = source.name();
                self.add_column(table, source);
                column(&alias, &name)
            }
            Value::Path(PathRef {
                base: Base::Computed { expr, .. },
                path,
                kinds,
            }) => match path.steps() {
                [] => *expr,
                _ => call(
                    "inside",
                    vec![*expr, text(&path.to_string()), text(&kinds.0.to_string())],
                ),
            },
        }
    }

    /// Extends a value by some steps.
    pub(crate) fn descend(&mut self, value: Value, steps: Vec<Step>) -> Result<Value, Problem> {
        check_steps(steps.len())?;
        Ok(match value {
            Value::Path(mut path) => {
                path.path = Path::new(path.path.steps().iter().cloned().chain(steps).collect());
                check_steps(path.path.steps().len())?;
                path.kinds = self.kinds_of(&path);
                Value::Path(path)
            }
            Value::Expr(expr) => Value::Path(PathRef {
                base: Base::Computed {
                    expr: Box::new(expr),
                    origin: None,
                },
                path: Path::new(steps),
                kinds: Kinds::default(),
            }),
        })
    }
}

/// Rejects a path that is longer than any document is deep.
pub(super) fn check_steps(count: usize) -> Result<(), Problem> {
    plan::path::check_steps(count)
        .map_err(|detail| Problem::new(Code::TooComplex, detail).hint("no document has more than 100 levels"))
}
