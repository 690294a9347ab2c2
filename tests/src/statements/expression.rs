//! Expressions, and their spelling for the server and for DuckDB.

use std::{fmt::Write as _, sync::Arc};

use serde_json::Value;

use super::{Column, Query, profile::Step};

/// The kind of an expression's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An integer.
    Integer,
    /// A number that may have a fraction.
    Fraction,
    /// A string.
    Text,
    /// A boolean.
    Boolean,
    /// A timestamp.
    Time,
}

/// How an expression is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// For the server.
    Server,
    /// For DuckDB.
    DuckDb,
    /// For grouping failures: kinds instead of paths and literals, to show what statements have in common.
    Shape,
}

/// How a path is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathSyntax {
    /// `user.name`
    Dots,
    /// `_doc->'user'->>'name'`, with a cast unless it is a string.
    Arrows,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A path of a collection.
    Path {
        /// The relation that has it.
        alias: Option<String>,
        /// The path.
        column: Arc<Column>,
        /// How it is written.
        syntax: PathSyntax,
    },
    /// A column of a subquery in FROM.
    Output {
        /// The relation that has it.
        alias: String,
        /// Its name.
        name: String,
        /// The kind of its values.
        kind: Kind,
        /// Whether both sides compute the same digits.
        exact: bool,
        /// Whether all its strings are ASCII.
        ascii: bool,
    },
    /// A literal; NULL has the requested kind.
    Literal {
        /// Its kind.
        kind: Kind,
        /// Its value.
        value: Value,
    },
    /// An operator or function: `{0}` stands for the first operand, `{q}` for the subquery.
    Call {
        /// The kind of its value.
        kind: Kind,
        /// The form for the server.
        server: String,
        /// The form for DuckDB, if it differs.
        duckdb: Option<String>,
        /// The operands.
        parts: Vec<Expr>,
        /// The subquery.
        query: Option<Box<Query>>,
        /// Whether both sides compute the same digits.
        exact: bool,
    },
}

impl Expr {
    /// A call with one form for both.
    pub fn call(kind: Kind, form: impl Into<String>, parts: Vec<Self>) -> Self {
        Self::Call {
            kind,
            server: form.into(),
            duckdb: None,
            parts,
            query: None,
            exact: true,
        }
    }

    /// A call with a form for each.
    pub fn call_two(kind: Kind, server: impl Into<String>, duckdb: impl Into<String>, parts: Vec<Self>) -> Self {
        Self::Call {
            kind,
            server: server.into(),
            duckdb: Some(duckdb.into()),
            parts,
            query: None,
            exact: true,
        }
    }

    /// A call with a subquery.
    pub fn with_subquery(kind: Kind, form: impl Into<String>, parts: Vec<Self>, query: Query) -> Self {
        Self::Call {
            kind,
            server: form.into(),
            duckdb: None,
            parts,
            query: Some(Box::new(query)),
            exact: true,
        }
    }

    /// Marks a call whose last digits may differ.
    pub fn approximate(mut self) -> Self {
        if let Self::Call { exact, .. } = &mut self {
            *exact = false;
        }
        self
    }

    /// A literal.
    pub fn literal(kind: Kind, value: impl Into<Value>) -> Self {
        Self::Literal {
            kind,
            value: value.into(),
        }
    }

    /// The kind of its value.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Path { column, .. } => column.kind,
            Self::Output { kind, .. } | Self::Literal { kind, .. } | Self::Call { kind, .. } => *kind,
        }
    }

    /// Whether both sides compute the same digits.
    pub fn exact(&self) -> bool {
        match self {
            Self::Output { exact, .. } => *exact,
            Self::Path { .. } | Self::Literal { .. } => true,
            // A condition over an inexact number counts as exact: it differs only if a value lies on the boundary.
            Self::Call { kind, exact, parts, .. } => {
                *exact && (*kind != Kind::Fraction || parts.iter().all(Self::exact))
            }
        }
    }

    /// Whether all its strings are ASCII.
    pub fn ascii(&self) -> bool {
        match self {
            Self::Path { column, .. } => column.ascii,
            Self::Output { ascii, .. } => *ascii,
            Self::Literal { value, .. } => value.as_str().is_none_or(str::is_ascii),
            Self::Call { parts, query, .. } => query.is_none() && parts.iter().all(Self::ascii),
        }
    }

    /// Its SQL.
    pub fn text(&self, dialect: Dialect) -> String {
        match self {
            Self::Path { column, .. } if dialect == Dialect::Shape => {
                let in_list = column.steps.iter().any(|step| matches!(step, Step::Index(_)));
                format!("{:?}{}", column.kind, if in_list { "[0]" } else { "" }).to_lowercase()
            }
            Self::Output { kind, .. } if dialect == Dialect::Shape => format!("{kind:?}").to_lowercase(),
            Self::Literal { .. } if dialect == Dialect::Shape => "?".to_owned(),
            Self::Path { alias, column, syntax } => path(alias.as_deref(), column, *syntax, dialect),
            Self::Output { alias, name, .. } => format!("{alias}.{name}"),
            Self::Literal { kind, value } => literal(*kind, value, dialect),
            Self::Call {
                server,
                duckdb,
                parts,
                query,
                ..
            } => {
                let form = match (dialect, duckdb) {
                    (Dialect::DuckDb, Some(duckdb)) => duckdb,
                    _ => server,
                };
                let parts: Vec<String> = parts.iter().map(|part| part.text(dialect)).collect();
                fill_form(form, &parts, query.as_ref().map(|query| query.text(dialect)).as_deref())
            }
        }
    }
}

/// Replaces the placeholders of a form.
fn fill_form(form: &str, parts: &[String], query: Option<&str>) -> String {
    let mut out = String::new();
    let mut rest = form;
    while let Some(at) = rest.find('{') {
        let end = at + rest[at..].find('}').expect("a form closes its braces");
        out.push_str(&rest[..at]);
        match &rest[at + 1..end] {
            "q" => out.push_str(query.expect("a form with {q} has a query")),
            number => out.push_str(&parts[number.parse::<usize>().expect("a placeholder is a number")]),
        }
        rest = &rest[end + 1..];
    }
    out + rest
}

/// A string in single quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name in double quotes.
fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A key of a path: quoted unless it is a plain word and not a keyword.
fn key(key: &str) -> String {
    const KEYWORDS: [&str; 24] = [
        "all", "any", "as", "by", "case", "default", "desc", "end", "from", "group", "in", "is", "like", "limit",
        "not", "null", "on", "or", "order", "select", "table", "then", "to", "where",
    ];
    let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && key.starts_with(|c: char| c.is_ascii_alphabetic());
    if plain && !KEYWORDS.contains(&key.to_lowercase().as_str()) {
        key.to_owned()
    } else {
        quoted_name(key)
    }
}

fn path(alias: Option<&str>, column: &Column, syntax: PathSyntax, dialect: Dialect) -> String {
    let mut out = alias.map(|alias| format!("{alias}.")).unwrap_or_default();
    if dialect == Dialect::DuckDb {
        return out + &quoted_name(&column.flat);
    }
    match syntax {
        PathSyntax::Dots => {
            for (at, step) in column.steps.iter().enumerate() {
                match step {
                    Step::Key(name) if at == 0 => out.push_str(&key(name)),
                    Step::Key(name) => out.push_str(&format!(".{}", key(name))),
                    Step::Index(index) => out.push_str(&format!("[{index}]")),
                }
            }
            out
        }
        PathSyntax::Arrows => {
            out.push_str("_doc");
            for (at, step) in column.steps.iter().enumerate() {
                let arrow = if at + 1 == column.steps.len() { "->>" } else { "->" };
                let written = match step {
                    Step::Key(name) => write!(out, "{arrow}{}", quoted(name)),
                    Step::Index(index) => write!(out, "{arrow}{index}"),
                };
                written.expect("writing to a string cannot fail");
            }
            let cast = match column.kind {
                Kind::Integer => "::bigint",
                Kind::Fraction => "::double",
                Kind::Boolean => "::boolean",
                Kind::Text | Kind::Time => "",
            };
            format!("({out}){cast}")
        }
    }
}

fn literal(kind: Kind, value: &Value, dialect: Dialect) -> String {
    match (kind, value) {
        (_, Value::Null) => "NULL".to_owned(),
        (Kind::Time, Value::String(text)) => format!("timestamp {}", quoted(text)),
        (_, Value::String(text)) => quoted(text),
        // DuckDB parses 1.5 as a decimal; with an exponent it is a double.
        (Kind::Fraction, Value::Number(number)) => {
            let number = number.as_f64().expect("a number");
            let digits = if number.fract() == 0.0 {
                format!("{number:.1}")
            } else {
                number.to_string()
            };
            let digits = if dialect == Dialect::DuckDb {
                format!("{digits}e0")
            } else {
                digits
            };
            if number < 0.0 { format!("({digits})") } else { digits }
        }
        (_, Value::Number(number)) if number.as_f64() < Some(0.0) => format!("({number})"),
        (_, value) => value.to_string(),
    }
}
