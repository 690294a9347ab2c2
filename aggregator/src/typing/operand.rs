//! An operand: an expression with the type that DataFusion derives for it, and its conversions to other types.

mod describe;

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, FieldRef, TimeUnit},
    common::{DFSchema, DataFusionError, Result, ScalarValue},
    logical_expr::{Cast, Expr, ExprSchemable as _, TryCast, expr::ScalarFunction, lit},
};
use plan::{
    Kinds, PathType, Type,
    column::{is_json, kinds_of},
    functions::{convert, json, rachis_function},
    value::{bool_of_text, time_of_text},
};
use proto::{Code, Problem};

use crate::failure;

pub(super) use describe::{describe_type, display_name};

/// An expression and its type.
#[derive(Debug, Clone)]
pub(super) struct Operand {
    /// The expression.
    pub expr: Expr,
    /// The type that DataFusion derives.
    pub field: FieldRef,
    /// If the expression is the text of a JSON value, that value.
    json_source: Option<Box<Operand>>,
}

/// A group of types that typing treats alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TypeClass {
    /// NULL.
    Null,
    /// JSON, with the kinds its values have had; no kinds if they are unknown.
    Json(Kinds),
    /// BOOLEAN.
    Bool,
    /// Any integer.
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
    /// INTERVAL, and the duration between two times.
    Interval,
    /// Any list.
    List,
    /// Anything else.
    Other,
}

impl TypeClass {
    /// Whether the class is a number.
    pub(super) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Double | Self::Decimal)
    }
}

/// The type of all timestamps.
pub(super) fn time_type() -> DataType {
    Type::Time.arrow()
}

impl Operand {
    /// An expression over the columns of a schema.
    pub(super) fn of(expr: Expr, schema: &DFSchema) -> Result<Self> {
        let (_, field) = expr.to_field(schema)?;
        let json_source = json_behind_text(&expr)
            .map(|json| Ok::<_, DataFusionError>(Box::new(Self::of(json, schema)?)))
            .transpose()?;
        Ok(Self {
            expr,
            field,
            json_source,
        })
    }

    /// An expression whose type is known.
    pub(super) fn with_field(expr: Expr, field: FieldRef) -> Self {
        Self {
            expr,
            field,
            json_source: None,
        }
    }

    /// Several expressions over the columns of a schema.
    pub(super) fn all(exprs: Vec<Expr>, schema: &DFSchema) -> Result<Vec<Self>> {
        exprs.into_iter().map(|expr| Self::of(expr, schema)).collect()
    }

    /// The type of the expression.
    pub(super) fn data_type(&self) -> &DataType {
        self.field.data_type()
    }

    /// The class of the expression's type.
    pub(super) fn class(&self) -> TypeClass {
        match self.data_type() {
            DataType::Null => TypeClass::Null,
            json if is_json(json) => TypeClass::Json(kinds_of(&self.field).seen()),
            DataType::Boolean => TypeClass::Bool,
            integer if integer.is_integer() => TypeClass::Int,
            DataType::Float16 | DataType::Float32 | DataType::Float64 => TypeClass::Double,
            decimal if decimal.is_decimal() => TypeClass::Decimal,
            DataType::Utf8 | DataType::Utf8View => TypeClass::Text,
            DataType::Timestamp(..) => TypeClass::Time,
            DataType::Date32 | DataType::Date64 => TypeClass::Date,
            DataType::Interval(_) | DataType::Duration(_) => TypeClass::Interval,
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::ListView(_) => {
                TypeClass::List
            }
            _ => TypeClass::Other,
        }
    }

    /// The kinds of the JSON values; None if the operand is not JSON.
    pub(super) fn kinds(&self) -> Option<Kinds> {
        match self.class() {
            TypeClass::Json(kinds) => Some(kinds),
            _ => None,
        }
    }

    /// Whether the operand is JSON and all kinds seen so far are numbers.
    pub(super) fn only_numbers(&self) -> bool {
        self.kinds()
            .is_some_and(|kinds| kinds != Kinds::default() && kinds.only(Kinds::INT | Kinds::WIDE | Kinds::FLOAT))
    }

    /// The text of a quoted literal.
    pub(super) fn quoted(&self) -> Option<&str> {
        literal(&self.expr)
            .and_then(|value| value.try_as_str().flatten())
            .filter(|_| self.class() == TypeClass::Text)
    }

    /// Whether the operand is a literal.
    pub(super) fn is_literal(&self) -> bool {
        literal(&self.expr).is_some()
    }

    /// Reads the operand, which is JSON, as a type. With `cast`, values of other kinds are converted.
    pub(super) fn read_as(&self, to: Type, cast: bool) -> Expr {
        json_get(self.expr.clone(), PathType { to, cast })
    }

    /// The operand in its native type: JSON whose values have had a single kind is read as the type of that kind.
    pub(super) fn native(&self) -> Expr {
        match self.class() {
            TypeClass::Json(kinds) => match kinds.native() {
                Some(native) if native != Type::Json => self.read_as(native, false),
                _ => self.expr.clone(),
            },
            _ => self.expr.clone(),
        }
    }

    /// The canonical JSON text: two texts are equal exactly when `=` holds for the values.
    pub(super) fn canonical(&self) -> Expr {
        match self.class() {
            TypeClass::Json(_) => self.read_as(Type::Canonical, false),
            TypeClass::Null => null_literal(DataType::LargeUtf8),
            _ => call(json::TO_JSON, vec![self.expr.clone()]),
        }
    }

    /// The expression that groups, joins and DISTINCT compare.
    pub(super) fn group_key(&self) -> Expr {
        match self.class() {
            TypeClass::Json(kinds) if kinds.native().is_none_or(|native| native == Type::Json) => self.canonical(),
            _ => self.native(),
        }
    }

    /// The expression that ORDER BY compares.
    pub(super) fn sort_key(&self) -> Expr {
        match self.class() {
            TypeClass::Json(kinds) if kinds.native().is_none_or(|native| native == Type::Json) => {
                self.read_as(Type::Rank, false)
            }
            TypeClass::Interval => call(plan::functions::interval::MICROS, vec![self.expr.clone()]),
            _ => self.native(),
        }
    }

    /// The operand as a number.
    pub(super) fn number(&self) -> Result<Expr> {
        match self.class() {
            TypeClass::Json(kinds) => Ok(self.read_as(kinds.numeric(), false)),
            TypeClass::Text => match self.quoted() {
                Some(text) => number_literal(text)
                    .ok_or_else(|| bad_sql(format!("'{text}' is not a number"), "write the number without quotes")),
                None => Ok(self.cast_like_json(Type::Double)),
            },
            TypeClass::Int if *self.data_type() != DataType::Int64 => Ok(cast(self.expr.clone(), DataType::Int64)),
            TypeClass::Null => Ok(null_literal(DataType::Int64)),
            TypeClass::Bool => Err(bad_sql(
                format!("{} is a boolean, not a number", display_name(self)),
                "convert it: x::int",
            )),
            _ => Ok(self.expr.clone()),
        }
    }

    /// The operand as an integer; fractions are rounded.
    pub(super) fn integer(&self) -> Result<Expr> {
        match self.class() {
            TypeClass::Json(kinds) if !kinds.any(Kinds::FLOAT | Kinds::BIG) => Ok(self.read_as(Type::Int, false)),
            TypeClass::Json(_) | TypeClass::Double => Ok(self.cast_like_json(Type::Int)),
            _ => self.number(),
        }
    }

    /// The operand as a double.
    pub(super) fn double(&self) -> Result<Expr> {
        match self.class() {
            TypeClass::Json(_) => Ok(self.read_as(Type::Double, false)),
            TypeClass::Double if *self.data_type() == DataType::Float64 => Ok(self.expr.clone()),
            _ => Ok(cast(self.number()?, DataType::Float64)),
        }
    }

    /// The operand as a text. For JSON, that is the text of each value, as `->>` returns it.
    pub(super) fn text(&self) -> Expr {
        match self.class() {
            TypeClass::Json(kinds) => self.read_as(Type::Text, kinds != Kinds::TEXT),
            TypeClass::Text => self.expr.clone(),
            TypeClass::List | TypeClass::Other => self.expr.clone(),
            // A double without a fraction is written like an integer: the path may have been read as an integer until
            // another document had a fraction.
            TypeClass::Double => self.cast_like_json(Type::Text),
            _ => cast(self.expr.clone(), DataType::Utf8View),
        }
    }

    /// The operand as a timestamp.
    pub(super) fn time(&self) -> Result<Expr> {
        match self.class() {
            TypeClass::Json(_) => Ok(self.read_as(Type::Time, false)),
            TypeClass::Text => match self.quoted() {
                Some(text) => time_literal(text),
                None => Ok(self.cast_like_json(Type::Time)),
            },
            TypeClass::Date if !self.is_literal() => Ok(counted_cast(self.expr.clone(), &time_type())),
            TypeClass::Date => Ok(cast(self.expr.clone(), time_type())),
            TypeClass::Time if !matches!(self.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) => {
                Ok(cast(self.expr.clone(), time_type()))
            }
            TypeClass::Null => Ok(null_literal(time_type())),
            _ => Ok(self.expr.clone()),
        }
    }

    /// The operand as a condition.
    pub(super) fn condition(&self) -> Result<Expr> {
        match self.class() {
            TypeClass::Json(_) => Ok(self.read_as(Type::Bool, false)),
            TypeClass::Bool => Ok(self.expr.clone()),
            TypeClass::Null => Ok(null_literal(DataType::Boolean)),
            _ => match self.quoted().and_then(bool_of_text) {
                Some(value) => Ok(lit(value)),
                None => Err(bad_sql(
                    format!("{} is {}, not a condition", display_name(self), describe_type(self)),
                    "compare it with a value, for example x > 0",
                )),
            },
        }
    }

    /// Casts the operand as the same value in a document would be cast; a value that cannot be cast becomes NULL.
    pub(super) fn cast_like_json(&self, to: Type) -> Expr {
        match (self.class(), &self.json_source) {
            (TypeClass::Json(_), _) => self.read_as(to, true),
            // Where a cast of the path has the same result as a cast of its text, cast the path: columns and the index
            // can evaluate that.
            (_, Some(json)) if json.kinds().is_some_and(|kinds| casts_like_its_text(kinds, to)) => {
                json.read_as(to, true)
            }
            _ => cast_by(convert::JSON_CAST, self.expr.clone(), &to.arrow()),
        }
    }
}

/// Whether a path with values of these kinds is read as an integer where a number is required. Otherwise it is read as
/// a double.
pub(super) fn reads_as_integer(kinds: Kinds) -> bool {
    kinds.numeric() == Type::Int
}

pub(super) fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(alias) => literal(&alias.expr),
        _ => None,
    }
}

/// Whether a cast has the same result for values of these kinds and for their texts. It does not for fractions cast to
/// integers: the number `2.7` becomes 3, while the text `2.7` becomes NULL.
fn casts_like_its_text(kinds: Kinds, to: Type) -> bool {
    let same_as_text = match to {
        Type::Int => Kinds::INT | Kinds::WIDE,
        Type::Double => Kinds::NUMBER,
        Type::Bool => Kinds::BOOL,
        Type::Time => Kinds::default(),
        _ => return true,
    };
    kinds != Kinds::default() && kinds.only(Kinds::TEXT | same_as_text)
}

/// For `json_get(json, path, 'text!')` or `'text'`, the same call with type `json`.
fn json_behind_text(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Alias(alias) => json_behind_text(&alias.expr),
        Expr::ScalarFunction(call)
            if call.func.name() == json::GET
                && (has_path_type(&call.args, "text!") || has_path_type(&call.args, "text")) =>
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

/// Whether these arguments of `json_get` read the path as the given type.
pub(super) fn has_path_type(args: &[Expr], path_type: &str) -> bool {
    args.get(2)
        .and_then(literal)
        .and_then(|value| value.try_as_str().flatten())
        == Some(path_type)
}

/// A call of one of the functions of Rachis.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::ScalarFunction(ScalarFunction {
        func: rachis_function(name),
        args,
    })
}

/// Reads JSON as a type. A typed read of a path is a single call of `json_get`.
pub(super) fn json_get(expr: Expr, path_type: PathType) -> Expr {
    let name = format!("{}{}", path_type.to.as_str(), if path_type.cast { "!" } else { "" });
    match expr {
        Expr::ScalarFunction(mut inner) if inner.func.name() == json::GET && has_path_type(&inner.args, "json") => {
            inner.args[2] = lit(name);
            if !matches!(path_type.to, Type::Json | Type::Canonical) {
                inner.args.truncate(3);
            }
            Expr::ScalarFunction(inner)
        }
        other => call(json::GET, vec![other, lit(""), lit(name)]),
    }
}

/// A cast that cannot fail.
pub(super) fn cast(expr: Expr, to: DataType) -> Expr {
    match expr {
        Expr::Literal(value, metadata) => match value.cast_to(&to) {
            Ok(value) => Expr::Literal(value, metadata),
            Err(_) => Expr::Cast(Cast::new(Box::new(Expr::Literal(value, metadata)), to)),
        },
        other => Expr::Cast(Cast::new(Box::new(other), to)),
    }
}

/// A cast that returns NULL where it fails; failures are counted in a warning.
pub(super) fn counted_cast(expr: Expr, to: &DataType) -> Expr {
    cast_by(convert::CAST, expr, to)
}

/// A call of one of the functions of [`convert`].
fn cast_by(function: &str, expr: Expr, to: &DataType) -> Expr {
    let name = lit(crate::answer::type_name(to));
    call(function, vec![expr, null_literal(to.clone()), name])
}

/// A cast that returns NULL where it fails.
pub(super) fn try_cast(expr: Expr, to: DataType) -> Expr {
    Expr::TryCast(TryCast::new(Box::new(expr), to))
}

/// The NULL of a type.
pub(super) fn null_literal(of: DataType) -> Expr {
    Expr::Literal(ScalarValue::try_from(&of).unwrap_or(ScalarValue::Null), None)
}

/// The number that a text represents, if it represents one.
pub(super) fn number_literal(text: &str) -> Option<Expr> {
    match proto::json::parse(text.trim().trim_start_matches('+').as_bytes()).ok()? {
        proto::json::Value::Int(int) => Some(lit(int)),
        proto::json::Value::Float(double) => Some(lit(double)),
        _ => None,
    }
}

/// Parses a timestamp literal. Without a zone it is in UTC.
pub(super) fn time_literal(text: &str) -> Result<Expr> {
    match time_of_text(text) {
        Some(micros) => Ok(Expr::Literal(
            ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())),
            None,
        )),
        None => Err(bad_sql(
            format!("'{text}' is not a point in time"),
            "write a time as 2026-01-31, 2026-01-31 08:30 or 2026-01-31T08:30:00Z",
        )),
    }
}

/// An error that the statement caused.
pub(super) fn bad_sql(detail: String, hint: &str) -> datafusion::error::DataFusionError {
    failure::error(Problem::new(Code::BadSql, detail).hint(hint))
}
