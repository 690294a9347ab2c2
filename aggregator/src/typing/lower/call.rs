//! Lowers calls of untyped functions and operators.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, TimeUnit},
    common::{Result, ScalarValue},
    logical_expr::{Case, Expr, Operator, lit},
};
use plan::{
    Kinds, Type,
    column::{is_json, json_field},
    functions::{
        compat, extreme, json,
        registry::{self, Property},
    },
};
use proto::{Code, Problem};

use super::{
    access::lower_access,
    arguments::{coerce_arguments, function_call, library_function},
    operator::{lower_operator, negate},
    time_format::{at_time_zone, to_strftime},
    unify::unify,
};
use crate::{
    failure,
    typing::{
        compare::{is_equality_of_one_type, lower_comparison},
        operand::{
            Operand, TypeClass, bad_sql, call, cast, describe_type, display_name, literal, null_literal, time_type,
            try_cast,
        },
        untyped::UntypedFunction,
    },
};

/// The length in characters to which a padding function may extend a value.
const PADDED_CHARS_MAX: u64 = 10_000;

/// Lowers a call of an untyped function or operator.
pub(crate) fn lower_call(function: &UntypedFunction, args: &[Operand]) -> Result<Expr> {
    if let Some(op) = function.operator() {
        return match args {
            [left, right] => lower_operator(op, left, right),
            _ => Err(bad_sql(
                format!("{} takes two operands", function.name()),
                "write a op b",
            )),
        };
    }
    match lower_internal(function.name(), args)? {
        Some(lowered) => Ok(lowered),
        None => lower_library_call(function, args),
    }
}

/// Lowers a call of a function that the resolver wrote for an operator or other syntax; None for other functions.
fn lower_internal(name: &str, args: &[Operand]) -> Result<Option<Expr>> {
    Ok(Some(match (name, args) {
        ("is_distinct", [left, right]) => lower_comparison(left, Operator::IsDistinctFrom, right)?,
        ("is_not_distinct", [left, right]) => lower_comparison(left, Operator::IsNotDistinctFrom, right)?,
        ("cast", [value, _]) => value.expr.clone(),
        ("as_text", [value]) => value.text(),
        ("truth", [value]) => value.condition()?,
        ("negative", [value]) => negate(value)?,
        ("positive", [value]) => value.number()?,
        ("items", [list]) => match list.class() {
            TypeClass::Json(_) | TypeClass::Text => call(json::ITEMS, vec![list.expr.clone()]),
            _ => list.expr.clone(),
        },
        ("inside", [value, path, kinds @ ..]) => lower_access(value, path, kinds.first())?,
        ("at_time_zone", [time, zone]) => at_time_zone(time, zone)?,
        ("asof_value", [value, order]) => match order.quoted() {
            Some("time") => value.time()?,
            Some("number") if value.class() != TypeClass::Bool => value.number()?,
            _ => value.native(),
        },
        ("asof_kind", [value, order]) => match (order.quoted(), value.class()) {
            (Some("own"), TypeClass::Json(kinds)) if kinds.native().is_none_or(|native| native == Type::Json) => {
                call(json::TYPEOF, vec![value.canonical()])
            }
            // The windows of a query must differ: of a number, all values are the same.
            (order, _) => lit(order.unwrap_or_default()),
        },
        ("asof_key", [left, right]) => match is_equality_of_one_type(left, right) {
            true => lit(true),
            false => {
                let detail = format!(
                    "the keys of ASOF JOIN are of different types: {} ({}) and {} ({})",
                    display_name(left),
                    describe_type(left),
                    display_name(right),
                    describe_type(right)
                );
                return Err(bad_sql(
                    detail,
                    "convert the key on the right: p.day::date, p.number::int, …",
                ));
            }
        },
        ("asof_bound", [left, right, own, time, number]) => match (left.class(), right.class()) {
            (TypeClass::Time | TypeClass::Date, _) | (_, TypeClass::Time | TypeClass::Date) => time.expr.clone(),
            (left, TypeClass::Text) if left.is_number() => number.expr.clone(),
            _ => own.expr.clone(),
        },
        _ => return Ok(None),
    }))
}

/// Functions of lists that compare items.
const COMPARING: [&str; 8] = [
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_position",
    "list_contains",
    "array_to_string",
    "array_distinct",
    "array_sort",
];

/// A list of JSON values as one JSON value, whose items are compared by their texts.
fn as_json(list: &Operand) -> Operand {
    match list.data_type() {
        DataType::List(item) | DataType::LargeList(item) if is_json(item.data_type()) => Operand::with_field(
            call(json::TO_JSON, vec![list.expr.clone()]),
            Arc::new(json_field(list.field.name(), Kinds::default())),
        ),
        _ => list.clone(),
    }
}

fn lower_library_call(function: &UntypedFunction, args: &[Operand]) -> Result<Expr> {
    let name = function.name();
    let known = registry::function(name);
    let args: Vec<Operand> = match known.map_or(name, |known| known.name()) {
        comparing if COMPARING.contains(&comparing) => args.iter().map(as_json).collect(),
        _ => args.to_vec(),
    };
    let args = args.as_slice();
    let typed_call = |args: Vec<Expr>| -> Result<Expr> { Ok(function_call(function.library_function()?, args)) };
    match (known.map_or(name, |known| known.name()), args) {
        ("nullif", [value, other]) => nullif(value, other),
        ("nvl2", [value, some, none]) => nvl2(value, some, none),
        ("greatest" | "least", values) => {
            let (results, class) = unify(values)?;
            match (class, name) {
                (Some(TypeClass::Json(_)), "greatest") => Ok(call(extreme::GREATEST, results)),
                (Some(TypeClass::Json(_)), _) => Ok(call(extreme::LEAST, results)),
                _ => typed_call(results),
            }
        }
        ("now", []) => Ok(cast(typed_call(vec![])?, time_type())),
        ("to_timestamp", [value]) if value.class() != TypeClass::Null => to_time(value),
        ("to_date", [value]) if value.class() != TypeClass::Null => Ok(cast(to_time(value)?, DataType::Date32)),
        ("to_timestamp_seconds" | "to_timestamp_millis" | "to_timestamp_micros" | "to_timestamp_nanos", [value])
            if value.class() == TypeClass::Int || value.kinds().is_some_and(|kinds| kinds != Kinds::TEXT) =>
        {
            // The library's result has no zone, and to give it one costs a look into the zone's table for each value.
            let unit = match name {
                "to_timestamp_seconds" => TimeUnit::Second,
                "to_timestamp_millis" => TimeUnit::Millisecond,
                "to_timestamp_micros" => TimeUnit::Microsecond,
                _ => TimeUnit::Nanosecond,
            };
            let time = try_cast(value.integer()?, DataType::Timestamp(unit, Some("UTC".into())));
            Ok(match unit {
                TimeUnit::Microsecond => time,
                _ => try_cast(time, time_type()),
            })
        }
        ("round" | "trunc", [value, places]) => typed_call(vec![value.number()?, places.integer()?]),
        ("array_length" | "list_length" | "cardinality" | "empty", [list, rest @ ..]) if list.kinds().is_some() => {
            let items = call(json::ITEMS, vec![list.expr.clone()]);
            let rest = rest.iter().map(Operand::integer);
            typed_call(std::iter::once(Ok(items)).chain(rest).collect::<Result<_>>()?)
        }
        ("length", [list]) if matches!(list.data_type(), DataType::List(_) | DataType::LargeList(_)) => Ok(
            function_call(library_function("array_length")?, vec![list.expr.clone()]),
        ),
        // Each value decides whether items or characters are counted.
        ("length", [value])
            // Its other names only count characters.
            if matches!(name, "length" | "len")
                && value
                .kinds()
                .is_some_and(|kinds| kinds.any(Kinds::ARRAY) || kinds.seen() == Kinds::default()) =>
        {
            Ok(function_call(
                library_function(compat::VALUE_LENGTH)?,
                vec![value.expr.clone()],
            ))
        }
        ("array_has" | "list_contains" | "array_position" | "array_to_string", [list, rest @ ..])
            if list.kinds().is_some() =>
        {
            let texts = call(json::TEXTS, vec![list.expr.clone()]);
            typed_call(std::iter::once(texts).chain(rest.iter().map(Operand::text)).collect())
        }
        ("array_has_all" | "array_has_any", [list, other]) if list.kinds().is_some() && other.kinds().is_none() => {
            let texts = DataType::new_list(DataType::Utf8View, true);
            let other = cast(other.native(), texts);
            typed_call(vec![call(json::TEXTS, vec![list.expr.clone()]), other])
        }
        ("array_distinct" | "array_sort", [list]) if list.kinds().is_some() => {
            typed_call(vec![call(json::TEXTS, vec![list.expr.clone()])])
        }
        ("to_char", [time, pattern]) => {
            let pattern = pattern
                .quoted()
                .map_or_else(|| pattern.text(), |pattern| lit(to_strftime(pattern)));
            typed_call(vec![time.time()?, pattern])
        }
        (compat::DATE_DIFF, [unit, _, _]) if let Some(unit) = unit.quoted() => {
            compat::check_unit(unit).map_err(failure::error)?;
            typed_call(coerce_arguments(name, args)?)
        }
        (compat::DAY_OF, [time]) if matches!(time.class(), TypeClass::Time | TypeClass::Date) => {
            Ok(cast(time.time()?, DataType::Date32))
        }
        (compat::EPOCH_MILLIS | compat::EPOCH_MILLIS_TRUNCATED, [time]) if time.class().is_number() => Err(bad_sql(
            "the milliseconds of a number".into(),
            "make_timestamp_ms(x) is the time of so many milliseconds; epoch_ms(x::timestamp) takes a time",
        )),
        (compat::TEXT_HEX, [text]) => match text.class() {
            TypeClass::Text | TypeClass::Null => typed_call(vec![text.expr.clone()]),
            TypeClass::Json(_) => typed_call(vec![text.read_as(Type::Text, false)]),
            _ => Err(bad_sql(
                format!("hex takes a text, not {}", describe_type(text)),
                "to_hex(x) spells a number in base 16; hex(x::text) spells the bytes of its digits",
            )),
        },
        (compat::WRAPPED_INT, [value, kind]) if value.class() == TypeClass::Int && kind.quoted() == Some("int64") => {
            value.number()
        }
        (compat::JSON_DEFAULT, [value, kind])
            if value.kinds().is_some_and(|kinds| kinds == Kinds::TEXT) && kind.quoted() == Some("text") =>
        {
            // A column of texts.
            let coalesce = library_function("coalesce")?;
            Ok(function_call(
                coalesce,
                vec![
                    value.read_as(Type::Text, false),
                    lit(ScalarValue::Utf8View(Some(String::new()))),
                ],
            ))
        }
        ("date_trunc", [unit, _]) => {
            check_time_unit(unit)?;
            typed_call(coerce_arguments(name, args)?)
        }
        (_, [_, length, ..]) if known.is_some_and(|known| known.has(Property::PadsText)) => {
            check_padding(name, length)?;
            typed_call(coerce_arguments(name, args)?)
        }
        _ => typed_call(coerce_arguments(name, args)?),
    }
}

/// `CASE WHEN value = other THEN NULL ELSE value END`.
fn nullif(value: &Operand, other: &Operand) -> Result<Expr> {
    let equal = lower_comparison(value, Operator::Eq, other)?;
    Ok(case_when(equal, null_literal(DataType::Null), value.native()))
}

/// `CASE WHEN value IS NOT NULL THEN some ELSE none END`.
fn nvl2(value: &Operand, some: &Operand, none: &Operand) -> Result<Expr> {
    let (results, _) = unify(&[some.clone(), none.clone()])?;
    let [some, none] =
        <[Expr; 2]>::try_from(results).map_err(|_| bad_sql("nvl2 takes three values".into(), "write nvl2(a, b, c)"))?;
    Ok(case_when(value.group_key().is_not_null(), some, none))
}

/// `CASE WHEN condition THEN result ELSE otherwise END`.
fn case_when(condition: Expr, result: Expr, otherwise: Expr) -> Expr {
    Expr::Case(Case::new(
        None,
        vec![(Box::new(condition), Box::new(result))],
        Some(Box::new(otherwise)),
    ))
}

/// The timestamp that `to_timestamp` and `to_date` read from a value.
fn to_time(value: &Operand) -> Result<Expr> {
    match (value.class(), value.quoted()) {
        (TypeClass::Text, Some(_)) | (TypeClass::Time | TypeClass::Date, _) => value.time(),
        _ => Ok(value.cast_like_json(Type::Time)),
    }
}

/// Units of time that statements can name.
pub(crate) const TIME_UNITS: [&str; 10] = [
    "microsecond",
    "millisecond",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "quarter",
    "year",
];

/// Returns an error if the unit is a literal that `date_trunc` does not support.
fn check_time_unit(unit: &Operand) -> Result<()> {
    match unit.quoted() {
        Some(unit) if !TIME_UNITS.contains(&unit.to_lowercase().as_str()) => Err(bad_sql(
            format!("{unit} is not a unit of time"),
            &format!("use one of {}", TIME_UNITS.join(", ")),
        )),
        _ => Ok(()),
    }
}

/// Returns an error unless the length of a padding function is a literal within the limit.
fn check_padding(name: &str, length: &Operand) -> Result<()> {
    let length = match literal(&length.expr) {
        Some(ScalarValue::Int64(Some(length))) => u64::try_from(*length).ok(),
        _ => None,
    };
    if length.is_some_and(|length| length <= PADDED_CHARS_MAX) {
        return Ok(());
    }
    let detail = format!("{name}: the length must be a literal number up to {PADDED_CHARS_MAX}");
    Err(failure::error(
        Problem::new(Code::NotSupported, detail).hint("write the length into the statement"),
    ))
}
