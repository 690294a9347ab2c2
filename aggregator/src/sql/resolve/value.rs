//! Value: what an expression is before its use is known. A path stays open until somebody asks for it as a number, a text, a time; then it
//! becomes one flat column.

use datafusion::sql::sqlparser::{
    ast::{self, Expr, Ident, ValueWithSpan},
    tokenizer::Span,
};
use plan::{Column, Kinds, Path, Type, View, What, path::Step};
use proto::{CollectionName, Problem};

use super::Resolver;

/// The type of an expression, as far as the choice of views needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ty {
    /// BOOLEAN.
    Bool,
    /// Integers.
    Int,
    /// DOUBLE and REAL.
    Double,
    /// DECIMAL.
    Decimal,
    /// TEXT.
    Text,
    /// TIMESTAMP.
    Time,
    /// DATE.
    Date,
    /// INTERVAL.
    Interval,
    /// JSON text.
    Json,
    /// NULL.
    Null,
    /// Anything else: the planner decides.
    Other,
}

impl Ty {
    /// Whether it is a number.
    pub fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Double | Self::Decimal)
    }
}

impl From<Type> for Ty {
    fn from(of: Type) -> Self {
        match of {
            Type::Bool => Self::Bool,
            Type::Int => Self::Int,
            Type::Double => Self::Double,
            Type::Text => Self::Text,
            Type::Time => Self::Time,
            Type::Json => Self::Json,
        }
    }
}

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
    /// JSON text.
    Json(Box<Expr>),
}

/// A path whose type is still open.
#[derive(Debug, Clone)]
pub struct PathRef {
    /// Where it starts.
    pub base: Base,
    /// The way; empty for the whole.
    pub path: Path,
    /// The kinds seen there; none where that is not known.
    pub kinds: Kinds,
    /// Whether it was written with `->>`: a text converted from whatever is there.
    pub text: bool,
}

impl PathRef {
    fn native(&self) -> Option<Type> {
        if self.text { Some(Type::Text) } else { self.kinds.native() }
    }

    /// Whether it is a path of stored documents, as they are.
    pub fn is_stored(&self) -> bool {
        matches!(self.base, Base::Table { .. }) && !self.path.steps().is_empty() && !self.text
    }

    /// Where the statement sees a document itself.
    pub fn is_document(&self) -> bool {
        matches!(self.base, Base::Table { .. }) && self.path.steps().is_empty()
    }
}

/// An expression on its way to its use.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "it lives for one step of the resolver")]
pub enum Value {
    /// Resolved and typed.
    Expr {
        /// Resolved.
        expr: Expr,
        /// Typed.
        ty: Ty,
    },
    /// A path: its use decides.
    Path(PathRef),
}

/// As what a use wants a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// As it is.
    Native,
    /// As a number.
    Number,
    /// As a text.
    Text,
    /// As a boolean.
    Bool,
    /// As a point in time.
    Time,
    /// As JSON text.
    Json,
}

impl Value {
    /// Typed.
    pub fn new(expr: Expr, ty: Ty) -> Self {
        Self::Expr { expr, ty }
    }

    /// The type it has if nobody asks for another; JSON where that is mixed or unknown.
    pub fn ty(&self) -> Ty {
        match self {
            Self::Expr { ty, .. } => *ty,
            Self::Path(path) if path.is_document() => Ty::Text,
            Self::Path(path) => path.native().map_or(Ty::Json, Ty::from),
        }
    }

    /// The kinds that were seen, if it is a path.
    pub fn kinds(&self) -> Kinds {
        match self {
            Self::Path(path) => path.kinds,
            Self::Expr { .. } => Kinds::default(),
        }
    }

    /// The text of a string literal.
    pub fn text_literal(&self) -> Option<&str> {
        match self {
            Self::Expr { expr, .. } => text_literal(expr),
            Self::Path(_) => None,
        }
    }

    /// Whether it is a literal.
    pub fn is_literal(&self) -> bool {
        matches!(self, Self::Expr { expr: Expr::Value(_), .. })
    }
}

/// The text of a string literal.
pub fn text_literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(ValueWithSpan { value, .. }) => match value {
            ast::Value::SingleQuotedString(text) | ast::Value::EscapedStringLiteral(text) | ast::Value::UnicodeStringLiteral(text) => Some(text),
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
    Expr::Value(ValueWithSpan { value, span: Span::empty() })
}

/// A string literal.
pub fn text(value: &str) -> Expr {
    literal(ast::Value::SingleQuotedString(value.to_owned()))
}

/// JSON text, said to be such.
pub fn as_json(expr: Expr) -> Expr {
    call("json_get", vec![expr, text(""), text("json")])
}

/// A number literal.
pub fn number(value: &str) -> Expr {
    literal(ast::Value::Number(value.to_owned(), false))
}

/// A call of a function.
pub fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|e| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e))).collect();
    Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(ast::FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// Of which kinds every value fits a type as it is, so that converting changes nothing.
fn exact_kinds(to: Type) -> Kinds {
    match to {
        Type::Bool => Kinds::BOOL,
        Type::Int => Kinds::INT,
        Type::Double => Kinds::INT | Kinds::FLOAT,
        Type::Text => Kinds::TEXT,
        Type::Time | Type::Json => Kinds::default(),
    }
}

impl Resolver<'_> {
    /// The value as its use wants it: resolved, with the type it has then.
    pub fn fit(&mut self, value: Value, want: Want) -> (Expr, Ty) {
        let path = match value {
            Value::Expr { expr, ty: Ty::Json } if !matches!(want, Want::Native | Want::Json) => {
                PathRef { base: Base::Json(Box::new(expr)), path: Path::default(), kinds: Kinds::default(), text: false }
            }
            Value::Expr { expr, ty } => return (expr, ty),
            Value::Path(path) => path,
        };
        if path.is_document() {
            return (self.always_column(&path), Ty::Text);
        }
        let view = self.view(&path, want);
        let ty = Ty::from(view.to);
        (self.emit(&path, view), ty)
    }

    /// The value as it is.
    pub fn native(&mut self, value: Value) -> (Expr, Ty) {
        self.fit(value, Want::Native)
    }

    /// The view of a path that a use picks; what will be NULL everywhere is worth a warning.
    fn view(&mut self, path: &PathRef, want: Want) -> View {
        let native = path.native();
        let number = |kinds: Kinds| if kinds.any(Kinds::INT | Kinds::FLOAT | Kinds::BIG) { kinds.numeric() } else { Type::Double };
        let (to, fits, cast_word) = match want {
            Want::Native => (native.unwrap_or(Type::Json), true, ""),
            Want::Json => (Type::Json, true, ""),
            Want::Number => (number(path.kinds), path.kinds.any(Kinds::INT | Kinds::FLOAT | Kinds::BIG), "double"),
            Want::Text => (Type::Text, path.kinds.any(Kinds::TEXT), "text"),
            Want::Bool => (Type::Bool, path.kinds.any(Kinds::BOOL), "boolean"),
            Want::Time => (Type::Time, path.kinds.any(Kinds::TEXT), "timestamp"),
        };
        let known = path.kinds.without(Kinds::NULL | Kinds::ELEMENT) != Kinds::default();
        if known && !fits && !path.text {
            let as_what = match want {
                Want::Number => "a number",
                Want::Text => "a text",
                Want::Bool => "a boolean",
                _ => "a timestamp",
            };
            let (path, kinds) = (&path.path, path.kinds.without(Kinds::ELEMENT));
            self.warn(format!("{path} is used as {as_what} but holds {kinds}, so it is NULL there; {path}::{cast_word} converts it"));
        }
        View { to, cast: path.text && to != Type::Json }
    }

    /// The flat column, or the call, that is this view of a path.
    pub fn emit(&mut self, path: &PathRef, view: View) -> Expr {
        let seen = path.kinds.without(Kinds::NULL | Kinds::ELEMENT);
        let indexed = path.path.steps().iter().any(|step| matches!(step, Step::Index(_)));
        let exact = !indexed && seen != Kinds::default() && seen.only(exact_kinds(view.to));
        let view = View { to: view.to, cast: view.cast && !exact && view.to != Type::Json };
        match &path.base {
            Base::Json(expr) if path.path.steps().is_empty() && view.to == Type::Json => (**expr).clone(),
            Base::Json(expr) => call("json_get", vec![(**expr).clone(), text(&path.path.to_string()), text(&view_word(view))]),
            Base::Table { alias, table, .. } => {
                if let Some(key) = self.group_key(alias, &path.path, view) {
                    return key;
                }
                let wanted = Column { what: What::Path(path.path.clone()), view };
                self.read(*table, wanted.clone());
                column(alias, &wanted.name())
            }
        }
    }

    fn always_column(&mut self, path: &PathRef) -> Expr {
        match &path.base {
            Base::Table { alias, table, .. } => {
                if let Some(doc) = Column::always("_doc") {
                    self.read(*table, doc);
                }
                column(alias, "_doc")
            }
            Base::Json(expr) => (**expr).clone(),
        }
    }

    /// One step further. A text is not looked into; a resolved JSON text is.
    pub fn step(&mut self, value: Value, steps: Vec<Step>) -> Result<Value, Problem> {
        match value {
            Value::Path(mut path) => {
                for step in steps {
                    path.path = path.path.with(step);
                }
                path.kinds = self.kinds_of(&path);
                path.text = false;
                Ok(Value::Path(path))
            }
            Value::Expr { expr, ty: Ty::Json | Ty::Other | Ty::Text | Ty::Null } => {
                let path = Path::new(steps);
                Ok(Value::Path(PathRef { base: Base::Json(Box::new(expr)), path, kinds: Kinds::default(), text: false }))
            }
            Value::Expr { expr, .. } => {
                self.warn(format!("there is nothing inside of {expr}, so {} is NULL", Path::new(steps)));
                Ok(Value::new(literal(ast::Value::Null), Ty::Null))
            }
        }
    }
}

/// A view as `json_get` takes it.
pub fn view_word(view: View) -> String {
    let word = Type::TABLE.iter().find(|row| row.0 == view.to).map_or("json", |row| row.1);
    format!("{word}{}", if view.cast { "!" } else { "" })
}
