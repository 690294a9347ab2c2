//! Casts and points in time. A cast around a path becomes a converting view of it; values that cannot be converted are NULL, as everywhere.

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, TimeZone, Utc};
use datafusion::sql::sqlparser::ast::{CastKind, DataType, ExactNumberInfo, Expr, TypedString};
use plan::{Type, View};
use proto::Problem;

use super::{
    Resolver, at, bad, not_offered,
    value::{Ty, Value, Want, call, text, text_literal},
};

/// The one type of points in time, as the planner spells it.
const TIME: &str = "Timestamp(Microsecond, Some(\"UTC\"))";

/// What a cast goes to.
enum Target {
    /// A view of a path can do it.
    View(Type),
    /// A text first, and this from it.
    FromText(DataType, Ty),
    /// A point in time first, and this from it.
    FromTime(DataType, Ty),
}

impl Resolver<'_> {
    /// `CAST(x AS t)`, `x::t`, `TRY_CAST(x AS t)`.
    pub fn cast(&mut self, kind: &CastKind, expr: &Expr, to: &DataType) -> Result<Value, Problem> {
        let value = self.value(expr)?;
        let target = target(to)?;
        if let Value::Path(path) = &value
            && !path.is_document()
        {
            let path = path.clone();
            return Ok(match target {
                Target::View(Type::Json) => Value::new(self.emit(&path, View { to: Type::Json, cast: false }), Ty::Json),
                Target::View(to) => Value::new(self.emit(&path, View { to, cast: true }), Ty::from(to)),
                Target::FromText(to, ty) => Value::new(cast_as(CastKind::TryCast, self.emit(&path, View { to: Type::Text, cast: true }), to), ty),
                Target::FromTime(to, ty) => Value::new(cast_as(CastKind::TryCast, self.emit(&path, View { to: Type::Time, cast: true }), to), ty),
            });
        }
        // A literal that does not fit is the statement's mistake and an error; data that do not fit are NULL.
        let kind = if value.is_literal() && !matches!(kind, CastKind::TryCast | CastKind::SafeCast) { CastKind::Cast } else { CastKind::TryCast };
        match target {
            Target::View(Type::Time) => Ok(Value::new(self.time_operand(value)?, Ty::Time)),
            Target::View(Type::Json) => match value {
                Value::Expr { expr, ty: Ty::Json } => Ok(Value::new(expr, Ty::Json)),
                other => {
                    let (expr, ty) = self.native(other);
                    let expr = if ty == Ty::Text { expr } else { cast_as(CastKind::Cast, expr, DataType::Text) };
                    Ok(Value::new(super::value::as_json(expr), Ty::Json))
                }
            },
            Target::View(to) => self.cast_expression(kind, value, to),
            Target::FromText(to, ty) => {
                let (expr, from) = self.native(value);
                Ok(Value::new(if from == ty && ty != Ty::Decimal { expr } else { cast_as(kind, expr, to) }, ty))
            }
            Target::FromTime(to, ty) => {
                let (expr, _) = self.native(value);
                Ok(Value::new(cast_as(kind, expr, to), ty))
            }
        }
    }

    fn cast_expression(&mut self, kind: CastKind, value: Value, to: Type) -> Result<Value, Problem> {
        let ty = Ty::from(to);
        if value.ty() == Ty::Json {
            let (json, _) = self.native(value);
            let word = Type::TABLE.iter().find(|row| row.0 == to).map_or("text", |row| row.1);
            return Ok(Value::new(call("json_get", vec![json, text(""), text(&format!("{word}!"))]), ty));
        }
        let (expr, from) = self.native(value);
        if from == ty {
            return Ok(Value::new(expr, ty));
        }
        let data = match to {
            Type::Bool => DataType::Boolean,
            Type::Int => DataType::BigInt(None),
            Type::Double => DataType::Double(ExactNumberInfo::None),
            Type::Text | Type::Json | Type::Time => DataType::Text,
        };
        Ok(Value::new(cast_as(kind, expr, data), ty))
    }

    /// `TIMESTAMP '…'`, `DATE '…'`.
    pub fn typed_literal(&mut self, typed: &TypedString) -> Result<Value, Problem> {
        let value = Expr::Value(typed.value.clone());
        let Some(spelled) = text_literal(&value) else { return Err(bad(format!("{typed} is no literal"))) };
        match target(&typed.data_type)? {
            Target::View(Type::Time) => Ok(Value::new(time_literal(spelled).map_err(|p| at(p, typed.value.span))?, Ty::Time)),
            Target::FromTime(DataType::Date, _) => {
                let checked = NaiveDate::parse_from_str(spelled.trim(), "%Y-%m-%d");
                checked.map_err(|_| at(bad(format!("'{spelled}' is no date")).hint("write DATE '2026-01-31'"), typed.value.span))?;
                Ok(Value::new(Expr::TypedString(typed.clone()), Ty::Date))
            }
            _ => self.cast(&CastKind::Cast, &value, &typed.data_type),
        }
    }

    /// An operand that is a point in time: a literal is read, a path seen as one, a computed text converted.
    pub fn time_operand(&mut self, value: Value) -> Result<Expr, Problem> {
        if let Some(spelled) = value.text_literal() {
            return time_literal(spelled);
        }
        let (expr, ty) = self.fit(value, Want::Time);
        Ok(match ty {
            Ty::Text => in_utc(cast_as(CastKind::TryCast, expr, DataType::Timestamp(None, datafusion::sql::sqlparser::ast::TimezoneInfo::None))),
            Ty::Other | Ty::Date | Ty::Int | Ty::Double | Ty::Decimal => expr,
            _ => expr,
        })
    }
}

/// A cast.
pub fn cast_as(kind: CastKind, expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind, expr: Box::new(expr), data_type, array: false, format: None }
}

/// A point in time in the one type that all of them have.
pub fn in_utc(expr: Expr) -> Expr {
    call("arrow_cast", vec![expr, text(TIME)])
}

/// A point in time as a statement spells it; UTC where it says no zone.
pub fn time_literal(spelled: &str) -> Result<Expr, Problem> {
    let hint = "write a time as 2026-01-31, 2026-01-31 08:30 or 2026-01-31T08:30:00Z";
    let time = parse_time(spelled).ok_or_else(|| bad(format!("'{spelled}' is no point in time")).hint(hint))?;
    Ok(in_utc(text(&time.to_rfc3339_opts(SecondsFormat::Micros, true))))
}

/// Reads a point in time; UTC where it says no zone.
pub fn parse_time(spelled: &str) -> Option<DateTime<Utc>> {
    let spelled = spelled.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(spelled) {
        return Some(time.to_utc());
    }
    for format in ["%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M%#z", "%Y-%m-%dT%H:%M%#z"] {
        if let Ok(time) = DateTime::parse_from_str(spelled, format) {
            return Some(time.to_utc());
        }
    }
    let spelled = spelled.trim_end_matches(['Z', 'z']);
    for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(spelled, format) {
            return Some(Utc.from_utc_datetime(&time));
        }
    }
    let date = NaiveDate::parse_from_str(spelled, "%Y-%m-%d").ok()?;
    Some(Utc.from_utc_datetime(&date.and_hms_opt(0, 0, 0)?))
}

fn target(to: &DataType) -> Result<Target, Problem> {
    let word = to.to_string().to_uppercase();
    Ok(match to {
        DataType::Bool | DataType::Boolean => Target::View(Type::Bool),
        DataType::TinyInt(_)
        | DataType::SmallInt(_)
        | DataType::MediumInt(_)
        | DataType::Int(_)
        | DataType::Int2(_)
        | DataType::Int4(_)
        | DataType::Int8(_)
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Integer(_)
        | DataType::BigInt(_) => Target::View(Type::Int),
        DataType::Real
        | DataType::Float(_)
        | DataType::Float4
        | DataType::Float8
        | DataType::Float32
        | DataType::Float64
        | DataType::Double(_)
        | DataType::DoublePrecision => Target::View(Type::Double),
        DataType::Numeric(ExactNumberInfo::None) | DataType::Decimal(ExactNumberInfo::None) | DataType::Dec(ExactNumberInfo::None) => {
            Target::View(Type::Double)
        }
        DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => Target::FromText(DataType::Decimal(*info), Ty::Decimal),
        DataType::Text
        | DataType::Varchar(_)
        | DataType::CharacterVarying(_)
        | DataType::CharVarying(_)
        | DataType::Char(None)
        | DataType::Character(None)
        | DataType::Nvarchar(_)
        | DataType::String(_)
        | DataType::Uuid => Target::View(Type::Text),
        DataType::Timestamp(..) | DataType::Datetime(_) | DataType::TimestampNtz(_) => Target::View(Type::Time),
        DataType::Date | DataType::Date32 => Target::FromTime(DataType::Date, Ty::Date),
        DataType::Time(..) => Target::FromText(DataType::Time(None, datafusion::sql::sqlparser::ast::TimezoneInfo::None), Ty::Other),
        DataType::Interval { .. } => Target::FromText(to.clone(), Ty::Interval),
        DataType::JSON | DataType::JSONB => Target::View(Type::Json),
        DataType::Custom(..) if matches!(word.as_str(), "TIMESTAMPTZ") => Target::View(Type::Time),
        DataType::Custom(..) if matches!(word.as_str(), "STRING") => Target::View(Type::Text),
        _ => {
            return Err(not_offered(format!("the type {to}"))
                .hint("there are BOOLEAN, BIGINT, DOUBLE, DECIMAL(p,s), TEXT, TIMESTAMP, DATE, TIME, INTERVAL and JSON"));
        }
    })
}
