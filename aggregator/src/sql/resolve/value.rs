//! Value: what a name or an expression resolves to. A path stays one until it is written down, so that steps further
//! can be taken.

use datafusion::sql::sqlparser::{
    ast::{self, Expr, Ident, ValueWithSpan},
    tokenizer::Span,
};
use plan::{Column, Kinds, Path, Type, path::Step};
use proto::CollectionName;

use super::Resolver;

/// What a path starts at.
#[derive(Debug, Clone)]
pub enum Base {
    /// The documents of a table.
    Table {
        /// What the statement calls it.
        alias: String,
        /// Its index in `tables`.
        table: usize,
        /// Whose documents.
        collection: CollectionName,
    },
    /// Something computed.
    Computed {
        /// What.
        expr: Box<Expr>,
        /// The path of stored documents that it shows as it is.
        shows: Option<Stored>,
    },
}

/// A path of stored documents, and whose.
pub type Stored = (CollectionName, Path);

/// A path into documents, or into something computed.
#[derive(Debug, Clone)]
pub struct PathRef {
    /// Where it starts.
    pub base: Base,
    /// The way; empty for the whole.
    pub path: Path,
    /// The kinds seen there; none where that is not known.
    pub kinds: Kinds,
}

impl PathRef {
    /// Whether it is a path of stored documents, as they are.
    pub fn is_stored(&self) -> bool {
        matches!(self.base, Base::Table { .. }) && !self.path.steps().is_empty()
    }

    /// The path of stored documents that it shows as it is.
    pub fn stored(&self) -> Option<Stored> {
        match &self.base {
            Base::Table { collection, .. } => Some((collection.clone(), self.path.clone())),
            Base::Computed { shows, .. } => {
                let (collection, start) = shows.as_ref()?;
                Some((
                    collection.clone(),
                    Path::new(start.steps().iter().chain(self.path.steps()).cloned().collect()),
                ))
            }
        }
    }

    /// Where the statement sees a document itself.
    pub fn is_document(&self) -> bool {
        matches!(self.base, Base::Table { .. }) && self.path.steps().is_empty()
    }
}

/// What a name or an expression resolves to.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "it lives for one step of the resolver")]
pub enum Value {
    /// Resolved.
    Expr(Expr),
    /// A path: it may be looked into.
    Path(PathRef),
}

/// The text of a string literal.
pub fn text_literal(expr: &Expr) -> Option<&str> {
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

/// A quoted name.
pub fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

/// A column of an input.
pub fn column(alias: &str, name: &str) -> Expr {
    Expr::CompoundIdentifier(vec![quoted(alias), quoted(name)])
}

/// A literal.
pub fn literal(value: ast::Value) -> Expr {
    Expr::Value(ValueWithSpan {
        value,
        span: Span::empty(),
    })
}

/// A string literal.
pub fn text(value: &str) -> Expr {
    literal(ast::Value::SingleQuotedString(value.to_owned()))
}

/// A number literal.
pub fn number(value: &str) -> Expr {
    literal(ast::Value::Number(value.to_owned(), false))
}

/// A call of a function.
pub fn call(name: &str, arguments: Vec<Expr>) -> Expr {
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
    /// The expression that a value is: a path of documents is a JSON column.
    pub fn written(&mut self, value: Value) -> Expr {
        match value {
            Value::Expr(expr) => expr,
            Value::Path(PathRef {
                base: Base::Table { alias, table, .. },
                path,
                ..
            }) => {
                let wanted = match path.steps() {
                    [] => Column::always("_doc").unwrap_or_else(|| Column::path(path, Type::Json)),
                    _ => Column::path(path, Type::Json),
                };
                let name = wanted.name();
                self.read(table, wanted);
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

    /// Some steps further.
    pub fn step(&mut self, value: Value, steps: Vec<Step>) -> Value {
        match value {
            Value::Path(mut path) => {
                for step in steps {
                    path.path = path.path.with(step);
                }
                path.kinds = self.kinds_of(&path);
                Value::Path(path)
            }
            Value::Expr(expr) => Value::Path(PathRef {
                base: Base::Computed {
                    expr: Box::new(expr),
                    shows: None,
                },
                path: Path::new(steps),
                kinds: Kinds::default(),
            }),
        }
    }
}
