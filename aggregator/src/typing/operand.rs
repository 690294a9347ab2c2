//! Operand: an expression with the type that DataFusion gives it, and how it is seen as another one.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, FieldRef, TimeUnit},
    common::{DFSchema, DataFusionError, Result, ScalarValue},
    logical_expr::{Cast, Expr, ExprSchemable as _, TryCast, expr::ScalarFunction, lit},
};
use plan::{
    Kinds, Type, View,
    column::{is_json, kinds_of},
    functions::{convert, is_own, json, own_named},
    value::{bool_of_text, time_of_text},
};
use proto::{Code, Problem};

use super::literals::spelled;
use crate::query::failure;

/// An expression and its type.
#[derive(Debug, Clone)]
pub struct Operand {
    /// The expression.
    pub expr: Expr,
    /// Its type, as DataFusion says.
    pub field: FieldRef,
    /// If this is the text of a JSON value: that value.
    text_of: Option<Box<Operand>>,
}

/// Types that are treated alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// NULL.
    Null,
    /// JSON, with the kinds its values have had; no kinds if they are unknown.
    Json(Kinds),
    /// BOOLEAN.
    Bool,
    /// Integers.
    Int,
    /// REAL, DOUBLE.
    Double,
    /// DECIMAL.
    Decimal,
    /// TEXT.
    Text,
    /// TIMESTAMP.
    Time,
    /// DATE.
    Date,
    /// INTERVAL, and what lies between two times.
    Interval,
    /// Lists.
    List,
    /// Anything else.
    Other,
}

impl Class {
    /// Whether it is a number.
    pub fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Double | Self::Decimal)
    }
}

/// The one type of points in time.
pub fn time() -> DataType {
    Type::Time.arrow()
}

impl Operand {
    /// An expression over the columns of a schema.
    pub fn of(expr: Expr, schema: &DFSchema) -> Result<Self> {
        let (_, field) = expr.to_field(schema)?;
        let text_of = text_of_json(&expr)
            .map(|json| Ok::<_, DataFusionError>(Box::new(Self::of(json, schema)?)))
            .transpose()?;
        Ok(Self { expr, field, text_of })
    }

    /// An expression whose type is known.
    pub fn with_field(expr: Expr, field: FieldRef) -> Self {
        Self {
            expr,
            field,
            text_of: None,
        }
    }

    /// All of them.
    pub fn all(exprs: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Self>> {
        exprs.into_iter().map(|expr| Self::of(expr, schema)).collect()
    }

    /// Its type.
    pub fn data_type(&self) -> &DataType {
        self.field.data_type()
    }

    /// What its type is treated as.
    pub fn class(&self) -> Class {
        match self.data_type() {
            DataType::Null => Class::Null,
            json if is_json(json) => Class::Json(kinds_of(&self.field).seen()),
            DataType::Boolean => Class::Bool,
            integer if integer.is_integer() => Class::Int,
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Class::Double,
            decimal if decimal.is_decimal() => Class::Decimal,
            DataType::Utf8 | DataType::Utf8View => Class::Text,
            DataType::Timestamp(..) => Class::Time,
            DataType::Date32 | DataType::Date64 => Class::Date,
            DataType::Interval(_) | DataType::Duration(_) => Class::Interval,
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::ListView(_) => {
                Class::List
            }
            _ => Class::Other,
        }
    }

    /// The kinds of its JSON values.
    pub fn kinds(&self) -> Option<Kinds> {
        match self.class() {
            Class::Json(kinds) => Some(kinds),
            _ => None,
        }
    }

    /// Whether all its values are JSON numbers, as far as anybody knows.
    pub fn only_numbers(&self) -> bool {
        self.kinds()
            .is_some_and(|kinds| kinds != Kinds::default() && kinds.only(Kinds::INT | Kinds::WIDE | Kinds::FLOAT))
    }

    /// The text of a quoted literal.
    pub fn quoted(&self) -> Option<&str> {
        literal(&self.expr)
            .and_then(|value| value.try_as_str().flatten())
            .filter(|_| self.class() == Class::Text)
    }

    /// Whether it is a literal.
    pub fn is_literal(&self) -> bool {
        literal(&self.expr).is_some()
    }

    /// A view of its JSON.
    pub fn view(&self, to: Type, cast: bool) -> Expr {
        view(self.expr.clone(), View { to, cast })
    }

    /// As it is: JSON whose values have had one kind has the type of that kind.
    pub fn native(&self) -> Expr {
        match self.class() {
            Class::Json(kinds) => match kinds.native() {
                Some(native) if native != Type::Json => self.view(native, false),
                _ => self.expr.clone(),
            },
            _ => self.expr.clone(),
        }
    }

    /// Typed JSON: equal exactly where `=` says so.
    pub fn canonical(&self) -> Expr {
        match self.class() {
            Class::Json(_) => self.view(Type::Canonical, false),
            Class::Null => null_of(DataType::LargeUtf8),
            _ => call(json::TO_JSON, vec![self.expr.clone()]),
        }
    }

    /// What groups, joins and DISTINCT compare.
    pub fn key(&self) -> Expr {
        match self.class() {
            Class::Json(kinds) if kinds.native().is_none_or(|native| native == Type::Json) => self.canonical(),
            _ => self.native(),
        }
    }

    /// What ORDER BY compares.
    pub fn sort_key(&self) -> Expr {
        match self.class() {
            Class::Json(kinds) if kinds.native().is_none_or(|native| native == Type::Json) => {
                self.view(Type::Rank, false)
            }
            Class::Interval => call(plan::functions::interval::MICROS, vec![self.expr.clone()]),
            _ => self.native(),
        }
    }

    /// As a number.
    pub fn number(&self) -> Result<Expr> {
        match self.class() {
            Class::Json(kinds) => {
                let integers = kinds.any(Kinds::INT) && !kinds.any(Kinds::FLOAT | Kinds::BIG);
                Ok(self.view(if integers { Type::Int } else { Type::Double }, false))
            }
            Class::Text => match self.quoted() {
                Some(text) => number_literal(text)
                    .ok_or_else(|| bad(format!("'{text}' is not a number"), "write the number without quotes")),
                None => Ok(self.converted(Type::Double)),
            },
            Class::Int if *self.data_type() != DataType::Int64 => Ok(cast(self.expr.clone(), DataType::Int64)),
            Class::Null => Ok(null_of(DataType::Int64)),
            Class::Bool => Err(bad(
                format!("{} is a boolean, not a number", shown(self)),
                "convert it: x::int",
            )),
            _ => Ok(self.expr.clone()),
        }
    }

    /// As an integer; a fraction is rounded.
    pub fn integer(&self) -> Result<Expr> {
        match self.class() {
            Class::Json(kinds) if !kinds.any(Kinds::FLOAT | Kinds::BIG) => Ok(self.view(Type::Int, false)),
            Class::Json(_) | Class::Double => Ok(self.converted(Type::Int)),
            _ => self.number(),
        }
    }

    /// As a double.
    pub fn double(&self) -> Result<Expr> {
        match self.class() {
            Class::Json(_) => Ok(self.view(Type::Double, false)),
            Class::Double if *self.data_type() == DataType::Float64 => Ok(self.expr.clone()),
            _ => Ok(cast(self.number()?, DataType::Float64)),
        }
    }

    /// As a text: of JSON each value's own text, as `->>` gives it.
    pub fn text(&self) -> Expr {
        match self.class() {
            Class::Json(kinds) => self.view(Type::Text, kinds != Kinds::TEXT),
            Class::Text => self.expr.clone(),
            Class::List | Class::Other => self.expr.clone(),
            // Without a fraction it is spelled as an integer is, which it may have been before another document had a
            // fraction.
            Class::Double => self.converted(Type::Text),
            _ => cast(self.expr.clone(), DataType::Utf8View),
        }
    }

    /// As a point in time.
    pub fn time(&self) -> Result<Expr> {
        match self.class() {
            Class::Json(_) => Ok(self.view(Type::Time, false)),
            Class::Text => match self.quoted() {
                Some(text) => time_literal(text),
                None => Ok(self.converted(Type::Time)),
            },
            Class::Date if !self.is_literal() => Ok(counted_cast(self.expr.clone(), &time())),
            Class::Date => Ok(cast(self.expr.clone(), time())),
            Class::Time if !matches!(self.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) => {
                Ok(cast(self.expr.clone(), time()))
            }
            Class::Null => Ok(null_of(time())),
            _ => Ok(self.expr.clone()),
        }
    }

    /// As a condition.
    pub fn condition(&self) -> Result<Expr> {
        match self.class() {
            Class::Json(_) => Ok(self.view(Type::Bool, false)),
            Class::Bool => Ok(self.expr.clone()),
            Class::Null => Ok(null_of(DataType::Boolean)),
            _ => match self.quoted().and_then(bool_of_text) {
                Some(value) => Ok(lit(value)),
                None => Err(bad(
                    format!("{} is {}, not a condition", shown(self), described(self)),
                    "compare it with something",
                )),
            },
        }
    }

    /// A computed value, converted as the same value in a document is; what cannot be converted is NULL.
    pub fn converted(&self, to: Type) -> Expr {
        match (self.class(), &self.text_of) {
            (Class::Json(_), _) => self.view(to, true),
            // The text of a path is converted as the path is, where its kinds leave no difference: an index and columns
            // know it.
            (_, Some(json)) if json.kinds().is_some_and(|kinds| converts_like_its_text(kinds, to)) => {
                json.view(to, true)
            }
            _ => view(call(json::TO_JSON, vec![self.expr.clone()]), View { to, cast: true }),
        }
    }
}

/// The value of a literal.
pub fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(alias) => literal(&alias.expr),
        _ => None,
    }
}

/// Whether a cast gives the same result for values of these kinds and for their texts. It does not for fractions cast
/// to integers: the number `2.7` becomes 3, while the text `2.7` becomes NULL.
fn converts_like_its_text(kinds: Kinds, to: Type) -> bool {
    let besides = match to {
        Type::Int => Kinds::INT | Kinds::WIDE,
        Type::Double => Kinds::NUMBER,
        Type::Bool => Kinds::BOOL,
        Type::Time => Kinds::default(),
        _ => return true,
    };
    kinds != Kinds::default() && kinds.only(Kinds::TEXT | besides)
}

/// The JSON behind `json_get(json, path, 'text!')`, as JSON.
fn text_of_json(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Alias(alias) => text_of_json(&alias.expr),
        Expr::ScalarFunction(call)
            if call.func.name() == json::GET && (is_word(&call.args, "text!") || is_word(&call.args, "text")) =>
        {
            let mut args = call.args.clone();
            args[2] = lit("json");
            Some(Expr::ScalarFunction(ScalarFunction {
                func: Arc::clone(&call.func),
                args,
            }))
        }
        _ => None,
    }
}

fn is_word(args: &[Expr], word: &str) -> bool {
    args.get(2)
        .and_then(literal)
        .and_then(|value| value.try_as_str().flatten())
        == Some(word)
}

/// A call of one of our own functions.
pub fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction {
        func: own_named(name),
        args,
    })
}

/// A view of JSON; a view of a path is one call.
pub fn view(expr: Expr, view: View) -> Expr {
    let word = format!("{}{}", view.to.word(), if view.cast { "!" } else { "" });
    match expr {
        Expr::ScalarFunction(mut inner) if inner.func.name() == json::GET && is_word(&inner.args, "json") => {
            inner.args[2] = lit(word);
            if !matches!(view.to, Type::Json | Type::Canonical) {
                inner.args.truncate(3);
            }
            Expr::ScalarFunction(inner)
        }
        other => call(json::GET, vec![other, lit(""), lit(word)]),
    }
}

/// A cast that cannot fail.
pub fn cast(expr: Expr, to: DataType) -> Expr {
    match expr {
        Expr::Literal(value, metadata) => match value.cast_to(&to) {
            Ok(value) => Expr::Literal(value, metadata),
            Err(_) => Expr::Cast(Cast::new(Box::new(Expr::Literal(value, metadata)), to)),
        },
        other => Expr::Cast(Cast::new(Box::new(other), to)),
    }
}

/// A cast that gives NULL where it fails, which is counted.
pub fn counted_cast(expr: Expr, to: &DataType) -> Expr {
    call(
        convert::CAST,
        vec![expr, null_of(to.clone()), lit(crate::answer::type_name(to))],
    )
}

/// A cast that gives NULL where it fails.
pub fn try_cast(expr: Expr, to: DataType) -> Expr {
    Expr::TryCast(TryCast::new(Box::new(expr), to))
}

/// NULL of a type.
pub fn null_of(of: DataType) -> Expr {
    Expr::Literal(ScalarValue::try_from(&of).unwrap_or(ScalarValue::Null), None)
}

/// The number that a quoted literal spells.
pub fn number_literal(text: &str) -> Option<Expr> {
    match proto::json::parse(text.trim().trim_start_matches('+').as_bytes()).ok()? {
        proto::json::Value::Int(int) => Some(lit(int)),
        proto::json::Value::Float(double) => Some(lit(double)),
        _ => None,
    }
}

/// A point in time as a statement spells it; UTC where it says no zone.
pub fn time_literal(text: &str) -> Result<Expr> {
    match time_of_text(text) {
        Some(micros) => Ok(Expr::Literal(
            ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())),
            None,
        )),
        None => Err(bad(
            format!("'{text}' is not a point in time"),
            "write a time as 2026-01-31, 2026-01-31 08:30 or 2026-01-31T08:30:00Z",
        )),
    }
}

/// A statement's mistake.
pub fn bad(detail: String, hint: &str) -> datafusion::error::DataFusionError {
    failure::error(Problem::new(Code::BadSql, detail).hint(hint))
}

/// The type of an operand in a user's words.
pub fn described(operand: &Operand) -> String {
    let name = match operand.class() {
        Class::Null => "NULL",
        Class::Json(_) => "JSON",
        Class::Bool => "a boolean",
        Class::Int | Class::Double | Class::Decimal => "a number",
        Class::Text => "a text",
        Class::Time => "a timestamp",
        Class::Date => "a date",
        Class::Interval => "an interval",
        Class::List => "a list",
        Class::Other => return crate::answer::type_name(operand.data_type()),
    };
    name.to_owned()
}

/// An operand as a user knows it, cut where it is long.
pub fn shown(operand: &Operand) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    let name = match literal(&operand.expr) {
        Some(value) => spelled(value),
        None => named(&operand.expr).unwrap_or_else(|| "an expression".into()),
    };
    match name.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}

fn named(expr: &Expr) -> Option<String> {
    match expr {
        // While a statement is planned, operands are known by their places.
        Expr::Column(column) if column.name.parse::<usize>().is_ok() => None,
        Expr::Column(column) => Some(plan::Column::parse(&column.name).map_or_else(
            || column.name.clone(),
            |read| match read.what {
                plan::What::Path(path) => path.to_string(),
                _ => read.name(),
            },
        ))
        // A result that the planner has named.
        .filter(|name| !name.contains('(')),
        Expr::ScalarFunction(call) if call.func.name() == json::GET => named(call.args.first()?),
        Expr::ScalarFunction(call) if !is_own(call.func.name()) => Some(format!("{}(…)", call.func.name())),
        Expr::Alias(alias) => named(&alias.expr),
        _ => None,
    }
}
