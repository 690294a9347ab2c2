//! An expression and its two spellings.

use std::{fmt::Write as _, sync::Arc};

use serde_json::Value;

use super::{Column, Query, profile::Step};

/// What an expression gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An integer.
    Integer,
    /// A number that may have a fraction.
    Fraction,
    /// A text.
    Text,
    /// True or false.
    Boolean,
    /// A moment.
    Time,
}

/// Whose spelling is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// The server's.
    Ours,
    /// DuckDB's.
    Theirs,
    /// Nobody's: kinds in place of paths and literals, to tell what statements have in common.
    Shape,
}

/// How a path is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `user.name`
    Dots,
    /// `_doc->'user'->>'name'`, cast where it is no text.
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
        way: Way,
    },
    /// A column of a sub-query in FROM.
    Output {
        /// The relation that has it.
        alias: String,
        /// Its name.
        name: String,
        /// What it holds.
        kind: Kind,
        /// Whether both sides hold the same digits.
        exact: bool,
        /// All of its texts are ASCII.
        ascii: bool,
    },
    /// A literal; NULL has the kind that is wanted.
    Literal {
        /// Its kind.
        kind: Kind,
        /// Its value.
        value: Value,
    },
    /// Anything with parts: `{0}` stands for the first of them, `{q}` for the query.
    Call {
        /// What it gives.
        kind: Kind,
        /// The server's spelling.
        ours: String,
        /// DuckDB's, where it is another one.
        theirs: Option<String>,
        /// The parts.
        parts: Vec<Expr>,
        /// The sub-query inside.
        query: Option<Box<Query>>,
        /// Whether both sides compute the same digits.
        exact: bool,
    },
}

impl Expr {
    /// With one spelling for both.
    pub fn call(kind: Kind, form: impl Into<String>, parts: Vec<Self>) -> Self {
        Self::Call {
            kind,
            ours: form.into(),
            theirs: None,
            parts,
            query: None,
            exact: true,
        }
    }

    /// With two spellings.
    pub fn call_two(kind: Kind, ours: impl Into<String>, theirs: impl Into<String>, parts: Vec<Self>) -> Self {
        Self::Call {
            kind,
            ours: ours.into(),
            theirs: Some(theirs.into()),
            parts,
            query: None,
            exact: true,
        }
    }

    /// With a sub-query.
    pub fn with_query(kind: Kind, form: impl Into<String>, parts: Vec<Self>, query: Query) -> Self {
        Self::Call {
            kind,
            ours: form.into(),
            theirs: None,
            parts,
            query: Some(Box::new(query)),
            exact: true,
        }
    }

    /// Whose last digits may differ.
    pub fn about(mut self) -> Self {
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

    /// What it gives.
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
            // What is decided by a number that is not exact is taken for exact: it differs only where a value lies on
            // the border.
            Self::Call { kind, exact, parts, .. } => {
                *exact && (*kind != Kind::Fraction || parts.iter().all(Self::exact))
            }
        }
    }

    /// Whether all of its texts are ASCII.
    pub fn ascii(&self) -> bool {
        match self {
            Self::Path { column, .. } => column.ascii,
            Self::Output { ascii, .. } => *ascii,
            Self::Literal { value, .. } => value.as_str().is_none_or(str::is_ascii),
            Self::Call { parts, query, .. } => query.is_none() && parts.iter().all(Self::ascii),
        }
    }

    /// As it is written.
    pub fn text(&self, spelling: Spelling) -> String {
        match self {
            Self::Path { column, .. } if spelling == Spelling::Shape => {
                let listed = column.steps.iter().any(|step| matches!(step, Step::Index(_)));
                format!("{:?}{}", column.kind, if listed { "[0]" } else { "" }).to_lowercase()
            }
            Self::Output { kind, .. } if spelling == Spelling::Shape => format!("{kind:?}").to_lowercase(),
            Self::Literal { .. } if spelling == Spelling::Shape => "?".to_owned(),
            Self::Path { alias, column, way } => path(alias.as_deref(), column, *way, spelling),
            Self::Output { alias, name, .. } => format!("{alias}.{name}"),
            Self::Literal { kind, value } => literal(*kind, value, spelling),
            Self::Call {
                ours,
                theirs,
                parts,
                query,
                ..
            } => {
                let form = match (spelling, theirs) {
                    (Spelling::Theirs, Some(theirs)) => theirs,
                    _ => ours,
                };
                let parts: Vec<String> = parts.iter().map(|part| part.text(spelling)).collect();
                filled(
                    form,
                    &parts,
                    query.as_ref().map(|query| query.text(spelling)).as_deref(),
                )
            }
        }
    }
}

/// A form with its parts put in.
fn filled(form: &str, parts: &[String], query: Option<&str>) -> String {
    let mut out = String::new();
    let mut rest = form;
    while let Some(at) = rest.find('{') {
        let end = at + rest[at..].find('}').expect("a form closes what it opens");
        out.push_str(&rest[..at]);
        match &rest[at + 1..end] {
            "q" => out.push_str(query.expect("a form with {q} has a query")),
            number => out.push_str(&parts[number.parse::<usize>().expect("a form names its parts by number")]),
        }
        rest = &rest[end + 1..];
    }
    out + rest
}

/// A text in single quotes.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name in double quotes.
fn named(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Keys that are plain words and none of SQL's own stand as they are, all others in quotes.
fn key(key: &str) -> String {
    const WORDS: [&str; 24] = [
        "all", "any", "as", "by", "case", "default", "desc", "end", "from", "group", "in", "is", "like", "limit",
        "not", "null", "on", "or", "order", "select", "table", "then", "to", "where",
    ];
    let plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && key.starts_with(|c: char| c.is_ascii_alphabetic());
    if plain && !WORDS.contains(&key.to_lowercase().as_str()) {
        key.to_owned()
    } else {
        named(key)
    }
}

fn path(alias: Option<&str>, column: &Column, way: Way, spelling: Spelling) -> String {
    let mut out = alias.map(|alias| format!("{alias}.")).unwrap_or_default();
    if spelling == Spelling::Theirs {
        return out + &named(&column.flat);
    }
    match way {
        Way::Dots => {
            for (at, step) in column.steps.iter().enumerate() {
                match step {
                    Step::Key(name) if at == 0 => out.push_str(&key(name)),
                    Step::Key(name) => out.push_str(&format!(".{}", key(name))),
                    Step::Index(index) => out.push_str(&format!("[{index}]")),
                }
            }
            out
        }
        Way::Arrows => {
            out.push_str("_doc");
            for (at, step) in column.steps.iter().enumerate() {
                let arrow = if at + 1 == column.steps.len() { "->>" } else { "->" };
                let written = match step {
                    Step::Key(name) => write!(out, "{arrow}{}", quoted(name)),
                    Step::Index(index) => write!(out, "{arrow}{index}"),
                };
                written.expect("a string takes everything");
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

fn literal(kind: Kind, value: &Value, spelling: Spelling) -> String {
    match (kind, value) {
        (_, Value::Null) => "NULL".to_owned(),
        (Kind::Time, Value::String(text)) => format!("timestamp {}", quoted(text)),
        (_, Value::String(text)) => quoted(text),
        // DuckDB takes 1.5 for a decimal; with an exponent it is a double.
        (Kind::Fraction, Value::Number(number)) => {
            let number = number.as_f64().expect("a number");
            let digits = if number.fract() == 0.0 {
                format!("{number:.1}")
            } else {
                number.to_string()
            };
            let digits = if spelling == Spelling::Theirs {
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
