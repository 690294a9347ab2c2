//! Expressions with types open -> expressions in which every operand has the type that its use asks for.
//!
//! DataFusion plans a statement over JSON columns and the functions of [`super::open`], which take anything. Here, with
//! the types that DataFusion gives each operand, they become plain operators and functions over typed views. What is
//! decided depends on an operand's type and on the kinds that its path has had; these choose between ways that give
//! equal answers.

use std::{
    str::FromStr as _,
    sync::{Arc, LazyLock},
};

use datafusion::{
    arrow::{
        array::timezone::Tz,
        compute::can_cast_types,
        datatypes::{DECIMAL128_MAX_PRECISION, DataType, FieldRef, IntervalUnit, TimeUnit},
    },
    common::{Column, DFSchema, Result, ScalarValue, internal_err, tree_node::Transformed},
    logical_expr::{
        Between, BinaryExpr, Case, Expr, Like, LogicalPlanBuilder, Operator, ScalarUDF, Subquery,
        expr::{InSubquery, ScalarFunction},
        lit,
        type_coercion::functions::fields_with_udf,
    },
};
use plan::{
    Kinds, Type,
    functions::{self, checked, extreme, interval, json, text},
};
use proto::Code;

use super::{
    aggregates::{aggregate_of, window_of},
    compare::{compared, equal_pair, one_of},
    literals,
    open::Open,
    operand::{Class, Operand, bad, call, cast, counted_cast, described, literal, null_of, shown, time, try_cast},
    table::{PADDED_CHARS_MAX, Takes, takes},
};

/// One node, whose operands have their types.
pub fn lower(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let of = |expr: &Expr| Operand::of(expr.clone(), schema);
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) => match func.inner().downcast_ref::<Open>() {
            Some(open) => call_of(open, Operand::all(args, schema)?),
            None => Ok(Expr::ScalarFunction(ScalarFunction { func, args })),
        },
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::And,
            right,
        }) => Ok(condition(*left, schema)?.and(condition(*right, schema)?)),
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Or,
            right,
        }) => Ok(condition(*left, schema)?.or(condition(*right, schema)?)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => operator(op, &of(&left)?, &of(&right)?),
        Expr::Not(inner) => Ok(Expr::Not(Box::new(condition(*inner, schema)?))),
        Expr::Negative(inner) => negated(&of(&inner)?),
        Expr::IsNull(inner) => Ok(Expr::IsNull(Box::new(of(&inner)?.key()))),
        Expr::IsNotNull(inner) => Ok(Expr::IsNotNull(Box::new(of(&inner)?.key()))),
        Expr::IsTrue(inner) => Ok(Expr::IsTrue(Box::new(condition(*inner, schema)?))),
        Expr::IsNotTrue(inner) => Ok(Expr::IsNotTrue(Box::new(condition(*inner, schema)?))),
        Expr::IsFalse(inner) => Ok(Expr::IsFalse(Box::new(condition(*inner, schema)?))),
        Expr::IsNotFalse(inner) => Ok(Expr::IsNotFalse(Box::new(condition(*inner, schema)?))),
        Expr::IsUnknown(inner) => Ok(Expr::IsUnknown(Box::new(condition(*inner, schema)?))),
        Expr::IsNotUnknown(inner) => Ok(Expr::IsNotUnknown(Box::new(condition(*inner, schema)?))),
        Expr::Between(Between {
            expr,
            negated,
            low,
            high,
        }) => {
            let (value, low, high) = (of(&expr)?, of(&low)?, of(&high)?);
            let inside = compared(&value, Operator::GtEq, &low)?.and(compared(&value, Operator::LtEq, &high)?);
            Ok(if negated { Expr::Not(Box::new(inside)) } else { inside })
        }
        Expr::InList(list) => one_of(&of(&list.expr)?, &Operand::all(list.list, schema)?, list.negated),
        Expr::InSubquery(InSubquery {
            expr,
            subquery,
            negated,
        }) => {
            let (value, subquery) = alike_with_subquery(&of(&expr)?, subquery)?;
            Ok(Expr::InSubquery(InSubquery::new(Box::new(value), subquery, negated)))
        }
        Expr::Like(like) => like_of(like, schema, Expr::Like),
        Expr::SimilarTo(like) => like_of(like, schema, Expr::SimilarTo),
        Expr::Case(case) => case_of(case, schema),
        Expr::Cast(inner) => converted(&of(&inner.expr)?, inner.field.data_type(), false, schema),
        Expr::TryCast(inner) => converted(&of(&inner.expr)?, inner.field.data_type(), true, schema),
        Expr::AggregateFunction(function) => aggregate_of(function, schema),
        Expr::WindowFunction(function) => window_of(*function, schema),
        other => Ok(other),
    }
}

/// An expression as a condition. What can be nothing else is not asked for its type, which costs as much as the
/// expression is deep.
pub fn condition(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    use Operator::{And, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or};
    match expr {
        Expr::BinaryExpr(BinaryExpr {
            op: And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom,
            ..
        })
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_) => Ok(expr),
        other => Operand::of(other, schema)?.condition(),
    }
}

/// An operand and the column of a sub-query, so that they are equal where the values are.
fn alike_with_subquery(value: &Operand, subquery: Subquery) -> Result<(Expr, Subquery)> {
    let schema = subquery.subquery.schema();
    let column = Operand::of(Expr::Column(Column::from(schema.qualified_field(0))), schema)?;
    let (left, right) = equal_pair(value, &column)?;
    if right == column.expr {
        return Ok((left, subquery));
    }
    let plan = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone())
        .project([right.alias("in")])?
        .build()?;
    Ok((left, subquery.with_plan(Arc::new(plan))))
}

/// A call with types open.
pub fn call_of(open: &Open, args: Vec<Operand>) -> Result<Expr> {
    let name = open.name();
    if let Some(op) = open.operator() {
        return match args.as_slice() {
            [left, right] => operator(op, left, right),
            _ => Err(bad(format!("{name} takes two operands"), "write a op b")),
        };
    }
    match (name, args.as_slice()) {
        ("is_distinct", [left, right]) => compared(left, Operator::IsDistinctFrom, right),
        ("is_not_distinct", [left, right]) => compared(left, Operator::IsNotDistinctFrom, right),
        ("cast", [value, _]) => Ok(value.expr.clone()),
        ("as_text", [value]) => Ok(value.text()),
        ("truth", [value]) => value.condition(),
        ("negative", [value]) => negated(value),
        ("positive", [value]) => value.number(),
        ("items", [list]) => Ok(match list.class() {
            Class::Json(_) | Class::Text => call(json::ITEMS, vec![list.expr.clone()]),
            _ => list.expr.clone(),
        }),
        ("inside", [value, path, kinds @ ..]) => inside(value, path, kinds.first()),
        ("json", [value]) => Ok(if value.kinds().is_some() {
            value.expr.clone()
        } else {
            call(json::TO_JSON, vec![value.expr.clone()])
        }),
        ("at_time_zone", [moment, zone]) => at_time_zone(moment, zone),
        ("nullif", [value, other]) => {
            let case = Case::new(
                None,
                vec![(
                    Box::new(compared(value, Operator::Eq, other)?),
                    Box::new(null_of(DataType::Null)),
                )],
                Some(Box::new(value.native())),
            );
            Ok(Expr::Case(case))
        }
        ("nvl2", [value, some, none]) => {
            let (results, _) = unified(&[some.clone(), none.clone()])?;
            let [some, none] = <[Expr; 2]>::try_from(results)
                .map_err(|_| bad("nvl2 takes three values".into(), "write nvl2(a, b, c)"))?;
            Ok(Expr::Case(Case::new(
                None,
                vec![(Box::new(value.key().is_not_null()), Box::new(some))],
                Some(Box::new(none)),
            )))
        }
        ("greatest" | "least", values) => {
            let (results, of) = unified(values)?;
            match of {
                Some(Class::Json(_)) => Ok(call(
                    if name == "greatest" {
                        extreme::GREATEST
                    } else {
                        extreme::LEAST
                    },
                    results,
                )),
                _ => applied(open.inner()?, results),
            }
        }
        ("now" | "current_timestamp", []) => Ok(cast(applied(open.inner()?, vec![])?, time())),
        ("to_timestamp" | "to_date", [value]) if !matches!(value.class(), Class::Null) => {
            let moment = match (value.class(), value.quoted()) {
                (Class::Text, Some(_)) | (Class::Time | Class::Date, _) => value.time()?,
                _ => value.converted(Type::Time),
            };
            Ok(if name == "to_date" {
                cast(moment, DataType::Date32)
            } else {
                moment
            })
        }
        ("to_timestamp_seconds" | "to_timestamp_millis" | "to_timestamp_micros" | "to_timestamp_nanos", [value])
            if value.class() == Class::Int || value.kinds().is_some_and(|kinds| kinds != Kinds::TEXT) =>
        {
            Ok(try_cast(applied(open.inner()?, vec![value.integer()?])?, time()))
        }
        ("round" | "trunc", [value, places]) => applied(open.inner()?, vec![value.number()?, places.integer()?]),
        (
            "array_length" | "list_length" | "cardinality" | "empty" | "array_empty" | "list_empty",
            [list, rest @ ..],
        ) if list.kinds().is_some() => {
            let items = call(json::ITEMS, vec![list.expr.clone()]);
            applied(
                open.inner()?,
                std::iter::once(Ok(items))
                    .chain(rest.iter().map(Operand::integer))
                    .collect::<Result<_>>()?,
            )
        }
        ("to_char" | "date_format", [moment, pattern]) => {
            let pattern = pattern
                .quoted()
                .map_or_else(|| pattern.text(), |pattern| lit(strftime(pattern)));
            applied(open.inner()?, vec![moment.time()?, pattern])
        }
        ("date_trunc" | "datetrunc", [unit, _]) => {
            const UNITS: [&str; 10] = [
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
            match unit.quoted() {
                Some(unit) if !UNITS.contains(&unit.to_lowercase().as_str()) => Err(bad(
                    format!("{unit} is no unit of time"),
                    &format!("there are {}", UNITS.join(", ")),
                )),
                _ => applied(open.inner()?, arguments(name, &args)?),
            }
        }
        ("lpad" | "rpad", [_, length, ..]) => {
            let small = matches!(literal(&length.expr), Some(ScalarValue::Int64(Some(n))) if u64::try_from(*n).is_ok_and(|n| n <= PADDED_CHARS_MAX));
            if !small {
                let detail = format!("{name} to a length that is not a number up to {PADDED_CHARS_MAX}");
                return Err(crate::query::failure::error(
                    proto::Problem::new(Code::NotSupported, detail).hint("write the length into the statement"),
                ));
            }
            applied(open.inner()?, arguments(name, &args)?)
        }
        _ => applied(open.inner()?, arguments(name, &args)?),
    }
}

/// What lies at a path inside of a value.
fn inside(value: &Operand, path: &Operand, kinds: Option<&Operand>) -> Result<Expr> {
    let spelled = path.quoted().unwrap_or_default();
    let steps = plan::Path::try_from(spelled.to_owned()).map_err(|e| bad(e.to_string(), "write x.key or x[0]"))?;
    match (value.class(), steps.steps()) {
        // Of a list that was computed, the first element is number 1, as in SQL.
        (Class::List, [plan::path::Step::Index(index), rest @ ..]) => {
            let element = datafusion::functions_nested::extract::array_element_udf();
            let element = Expr::ScalarFunction(ScalarFunction {
                func: element,
                args: vec![value.expr.clone(), lit(i64::from(*index))],
            });
            match rest {
                [] => Ok(element),
                rest => Ok(super::operand::view(
                    view_of_json(element, &plan::Path::new(rest.to_vec()), None),
                    plan::View {
                        to: Type::Json,
                        cast: false,
                    },
                )),
            }
        }
        (Class::Json(_) | Class::Text, _) => Ok(view_of_json(
            value.expr.clone(),
            &steps,
            kinds.and_then(Operand::quoted),
        )),
        (Class::Null, _) => Ok(null_of(DataType::LargeUtf8)),
        _ => Err(bad(
            format!(
                "{} is {}: there is no {spelled} inside of it",
                shown(value),
                described(value)
            ),
            "only JSON and lists are looked into",
        )),
    }
}

/// `json_get(expr, path, 'json', kinds)`; a path into a path is one path.
fn view_of_json(expr: Expr, path: &plan::Path, kinds: Option<&str>) -> Expr {
    let (root, whole) = match expr {
        Expr::ScalarFunction(mut inner)
            if inner.func.name() == json::GET
                && literal(&inner.args[2]).and_then(|word| word.try_as_str().flatten()) == Some("json") =>
        {
            let before = literal(&inner.args[1])
                .and_then(|path| path.try_as_str().flatten())
                .unwrap_or_default()
                .to_owned();
            let before = plan::Path::try_from(before).unwrap_or_default();
            (
                inner.args.swap_remove(0),
                plan::Path::new(before.steps().iter().chain(path.steps()).cloned().collect()),
            )
        }
        other => (other, path.clone()),
    };
    let mut args = vec![root, lit(whole.to_string()), lit("json")];
    args.extend(kinds.map(lit));
    call(json::GET, args)
}

/// Arguments as a function takes them.
pub fn arguments(name: &str, args: &[Operand]) -> Result<Vec<Expr>> {
    let text = |operand: &Operand| operand.text();
    Ok(match takes(name) {
        Takes::Numbers => args.iter().map(Operand::number).collect::<Result<_>>()?,
        Takes::Integers => args.iter().map(Operand::integer).collect::<Result<_>>()?,
        Takes::Doubles => args.iter().map(Operand::double).collect::<Result<_>>()?,
        Takes::Conditions => args.iter().map(Operand::condition).collect::<Result<_>>()?,
        Takes::Alike => unified(args)?.0,
        Takes::AsTheyAre => args.iter().map(Operand::native).collect(),
        Takes::Texts(numbers) => {
            let one = |(place, operand): (usize, &Operand)| {
                if numbers.contains(&place) {
                    operand.integer()
                } else {
                    Ok(text(operand))
                }
            };
            args.iter().enumerate().map(one).collect::<Result<_>>()?
        }
        Takes::Times(times) => {
            let one = |(place, operand): (usize, &Operand)| match operand.class() {
                Class::Interval => Ok(operand.expr.clone()),
                _ if times.contains(&place) => operand.time(),
                _ => Ok(text(operand)),
            };
            args.iter().enumerate().map(one).collect::<Result<_>>()?
        }
    })
}

/// A function of the library, lenient.
fn library(name: &str) -> Result<Arc<ScalarUDF>> {
    static ALL: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(plan::functions::scalar);
    ALL.iter().find(|function| function.name() == name).map_or_else(
        || internal_err!("there is no function {name}"),
        |found| Ok(Arc::clone(found)),
    )
}

/// A call of the library's function; what it cannot take is said in a user's words.
fn applied(function: Arc<ScalarUDF>, args: Vec<Expr>) -> Result<Expr> {
    Ok(Expr::ScalarFunction(ScalarFunction { func: function, args }))
}

/// A call with its arguments in the types that the function takes; a number that does not fit is NULL. An error where
/// it takes no such types.
pub fn with_types_taken(node: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let taken = |args: &[Operand], fields: Result<Vec<FieldRef>>, name: &str| match fields {
        Ok(fields) => Ok(fields),
        Err(_) if args.is_empty() => Ok(vec![]),
        Err(_) => Err(refusal(name, args)),
    };
    match node {
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let operands = Operand::all(args, schema)?;
            let fields = taken(
                &operands,
                fields_with_udf(&fields(&operands), func.as_ref()),
                func.name(),
            )?;
            let fitted = |(place, operand): (usize, Operand)| match fields.get(place).map(|field| field.data_type()) {
                Some(wanted)
                    if wanted != operand.data_type()
                        && !operand.is_literal()
                        && may_not_fit(operand.data_type(), wanted) =>
                {
                    try_cast(operand.expr, wanted.clone())
                }
                _ => operand.expr,
            };
            if let Some(computed) = literals::computed(&func, &operands, &fields)? {
                return Ok(Transformed::yes(Expr::Literal(computed, None)));
            }
            let args = operands.into_iter().enumerate().map(fitted).collect();
            Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args })))
        }
        Expr::AggregateFunction(call) => {
            let operands = Operand::all(call.params.args.clone(), schema)?;
            taken(
                &operands,
                fields_with_udf(&fields(&operands), call.func.as_ref()),
                call.func.name(),
            )?;
            Ok(Transformed::no(Expr::AggregateFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Whether a value of one type may be none of the other: of an integer, or of times that reach less far.
fn may_not_fit(from: &DataType, to: &DataType) -> bool {
    (from.is_numeric() && to.is_integer())
        || matches!(
            (from, to),
            (DataType::Timestamp(..), DataType::Timestamp(TimeUnit::Nanosecond, _))
        )
}

fn fields(args: &[Operand]) -> Vec<FieldRef> {
    args.iter().map(|arg| Arc::clone(&arg.field)).collect()
}

/// What a function cannot take, in a user's words.
pub fn refusal(name: &str, args: &[Operand]) -> datafusion::error::DataFusionError {
    let types: Vec<String> = args.iter().map(described).collect();
    match types.as_slice() {
        [] => bad(format!("{name} needs an argument"), "write it in the parentheses"),
        [_, _] if ["+", "-", "*", "/", "%"].contains(&name) && args.iter().any(|arg| arg.class() == Class::Decimal) => {
            bad(
                format!("the result of {name} would have more than 38 digits"),
                "use decimals of fewer digits, such as x::decimal(18, 4), or x::double",
            )
        }
        types => bad(
            format!("{name} does not take {}", types.join(", ")),
            "check how many arguments it takes, or convert them: x::text, x::double, …",
        ),
    }
}

/// `left op right`.
pub fn operator(op: Operator, left: &Operand, right: &Operand) -> Result<Expr> {
    use Operator::{
        BitwiseAnd, BitwiseOr, BitwiseShiftLeft, BitwiseShiftRight, BitwiseXor, Divide, Eq, Gt, GtEq, IsDistinctFrom,
        IsNotDistinctFrom, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus, RegexIMatch, RegexMatch, RegexNotIMatch,
        RegexNotMatch, StringConcat,
    };
    let plain = |left: Expr, right: Expr| Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)));
    match op {
        Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom => compared(left, op, right),
        Plus | Minus | Multiply | Divide | Modulo => arithmetic(op, left, right),
        BitwiseAnd | BitwiseOr | BitwiseXor | BitwiseShiftLeft | BitwiseShiftRight => {
            Ok(plain(left.integer()?, right.integer()?))
        }
        RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch
            if !right.is_literal() || right.quoted().is_some_and(takes_long) =>
        {
            let flags = matches!(op, RegexIMatch | RegexNotIMatch).then(|| lit("i"));
            let args = [left.text(), right.text()].into_iter().chain(flags).collect();
            // A pattern out of a document may be none.
            let matched = applied(library("regexp_like")?, args)?;
            Ok(if matches!(op, RegexNotMatch | RegexNotIMatch) {
                Expr::Not(Box::new(matched))
            } else {
                matched
            })
        }
        StringConcat if [left, right].iter().any(|operand| operand.class() == Class::List) => {
            Ok(plain(left.native(), right.native()))
        }
        StringConcat => Ok(joined(left.text(), right.text())),
        _ => Ok(plain(left.text(), right.text())),
    }
}

/// Whether matching a long text may take long: then a function does it in parts.
fn takes_long(pattern: &str) -> bool {
    pattern.len() > PATTERN_BYTES_MAX || pattern.contains('{')
}

fn arithmetic(op: Operator, left: &Operand, right: &Operand) -> Result<Expr> {
    let temporal = |class| matches!(class, Class::Time | Class::Date | Class::Interval);
    let (left_class, right_class) = (left.class(), right.class());
    if temporal(left_class) || temporal(right_class) {
        return of_times(op, left, right);
    }
    let integer = |operand: &Operand| match operand.class() {
        Class::Int | Class::Null => true,
        Class::Json(kinds) => kinds.any(Kinds::INT) && !kinds.any(Kinds::FLOAT | Kinds::BIG),
        Class::Text => operand.quoted().is_some_and(|text| text.trim().parse::<i64>().is_ok()),
        _ => false,
    };
    let double = |operand: &Operand| {
        !matches!(
            operand.class(),
            Class::Decimal | Class::Other | Class::Bool | Class::List
        )
    };
    let plain = |left: Expr, right: Expr| match [left_class, right_class].contains(&Class::Other) {
        true => Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))),
        false => counted_operator(op, left, right),
    };
    match op {
        Operator::Divide | Operator::Modulo if left.is_literal() && is_zero(right) => Err(by_zero()),
        Operator::Divide => Ok(call(checked::QUOTIENT, vec![left.double()?, right.double()?])),
        Operator::Modulo if integer(left) && integer(right) => {
            Ok(call(checked::REMAINDER, vec![left.number()?, right.number()?]))
        }
        Operator::Modulo => {
            let divisor = right.number()?;
            let zero = Operand::of(divisor.clone(), &DFSchema::empty()).is_ok_and(|d| d.is_literal());
            let divisor = if zero {
                divisor
            } else {
                datafusion::functions::core::expr_fn::nullif(divisor, lit(0_i64))
            };
            plain(left.number()?, divisor)
        }
        _ if integer(left) && integer(right) => Ok(chained(
            op,
            [checked::SUM, checked::PRODUCT],
            left.number()?,
            right.number()?,
        )),
        _ if double(left) && double(right) => Ok(chained(
            op,
            [checked::DOUBLE_SUM, checked::DOUBLE_PRODUCT],
            left.double()?,
            right.double()?,
        )),
        _ => plain(left.number()?, right.number()?),
    }
}

/// An operator as the function that gives NULL for a row whose result does not fit, and counts it.
fn counted_operator(op: Operator, left: Expr, right: Expr) -> Result<Expr> {
    match functions::arithmetic::name(op) {
        Some(name) => Ok(call(name, vec![left, right])),
        None => internal_err!("{op} is not an arithmetic operator"),
    }
}

fn by_zero() -> datafusion::error::DataFusionError {
    bad(
        "a division by zero".into(),
        "write NULLIF(divisor, 0) where data may be zero",
    )
}

fn is_zero(operand: &Operand) -> bool {
    literal(&operand.expr).is_some_and(|value| {
        !value.is_null()
            && value
                .cast_to(&DataType::Float64)
                .is_ok_and(|value| value == ScalarValue::Float64(Some(0.0)))
    })
}

/// Numbers added, subtracted or multiplied by the functions of their type; a chain becomes one call.
fn chained(op: Operator, [sum, product]: [&str; 2], left: Expr, right: Expr) -> Expr {
    let (name, sign) = match op {
        Operator::Multiply => (product, None),
        Operator::Minus => (sum, Some('-')),
        _ => (sum, Some('+')),
    };
    let mut args = match left {
        Expr::ScalarFunction(call) if call.func.name() == name => call.args,
        other if sign.is_some() => vec![lit("+"), other],
        other => vec![other],
    };
    if let (Some(sign), Some(first)) = (sign, args.first_mut()) {
        let signs = literal(first)
            .and_then(|signs| signs.try_as_str().flatten())
            .unwrap_or_default();
        *first = lit(format!("{signs}{sign}"));
    }
    args.push(right);
    call(name, args)
}

/// Texts joined; a chain becomes one call.
fn joined(left: Expr, right: Expr) -> Expr {
    let mut args = match left {
        Expr::ScalarFunction(call) if call.func.name() == text::JOIN => call.args,
        other => vec![other],
    };
    args.push(right);
    call(text::JOIN, args)
}

fn of_times(op: Operator, left: &Operand, right: &Operand) -> Result<Expr> {
    use Class::{Date, Interval, Json, Text, Time};
    let plain = |left: Expr, right: Expr| counted_operator(op, left, right);
    let month_day_nano = || DataType::Interval(IntervalUnit::MonthDayNano);
    let sign = if op == Operator::Minus { "-" } else { "+" };
    let shifted = |moment: Expr, interval: Expr| Ok(call(interval::SHIFT, vec![lit(sign), moment, interval]));
    let days = right.class().is_number() || (op == Operator::Plus && right.kinds().is_some());
    match (left.class(), op, right.class()) {
        (Class::Null, ..) => Ok(null_of(right.data_type().clone())),
        (.., Class::Null) => Ok(null_of(left.data_type().clone())),
        (Date, Operator::Plus | Operator::Minus, _) if days => {
            let days = call(interval::SCALE, vec![one_day(), right.double()?]);
            Ok(cast(shifted(left.time()?, days)?, DataType::Date32))
        }
        (Interval, Operator::Multiply, other) if other != Interval => {
            Ok(call(interval::SCALE, vec![left.expr.clone(), right.double()?]))
        }
        (other, Operator::Multiply, Interval) if other != Interval => {
            Ok(call(interval::SCALE, vec![right.expr.clone(), left.double()?]))
        }
        (Interval, Operator::Divide, other) if other != Interval && is_zero(right) => Err(by_zero()),
        (Interval, Operator::Divide, other) if other != Interval => {
            let factor = call(checked::QUOTIENT, vec![lit(1.0), right.double()?]);
            Ok(call(interval::SCALE, vec![left.expr.clone(), factor]))
        }
        (Interval, _, Interval) => {
            let same = left.data_type() == right.data_type();
            let of = |operand: &Operand| {
                if same {
                    operand.expr.clone()
                } else {
                    call(interval::SCALE, vec![operand.expr.clone(), lit(1.0)])
                }
            };
            plain(of(left), of(right))
        }
        // A text beside an interval is a time, and beside a time it is one too.
        (Json(_) | Text, _, Interval) => shifted(left.time()?, right.expr.clone()),
        (Interval, Operator::Plus, Json(_) | Text) => shifted(right.time()?, left.expr.clone()),
        (Time, Operator::Plus | Operator::Minus, Text)
            if right
                .quoted()
                .is_some_and(|text| plan::value::time_of_text(text).is_none()) =>
        {
            plain(left.expr.clone(), cast(right.expr.clone(), month_day_nano()))
        }
        (Json(_) | Text | Time | Date, Operator::Minus, Json(_) | Text | Time | Date)
            if !(left.class() == Date && right.class() == Date) =>
        {
            plain(left.time()?, right.time()?)
        }
        (Json(_), Operator::Plus, Date) => of_times(op, right, left),
        (number, Operator::Plus, Date) if number.is_number() => of_times(op, right, left),
        (Date, Operator::Plus | Operator::Minus, Interval) => {
            Ok(cast(shifted(left.time()?, right.expr.clone())?, DataType::Date32))
        }
        (Interval, Operator::Plus, Date) => Ok(cast(shifted(right.time()?, left.expr.clone())?, DataType::Date32)),
        (Date, Operator::Minus, Date) => {
            let day = |operand: &Operand| cast(cast(operand.expr.clone(), DataType::Int32), DataType::Int64);
            Ok(call(checked::SUM, vec![lit("+-"), day(left), day(right)]))
        }
        (Time, Operator::Plus | Operator::Minus, Interval) if *left.data_type() == time() => {
            shifted(left.expr.clone(), right.expr.clone())
        }
        (Interval, Operator::Plus, Time) if *right.data_type() == time() => {
            shifted(right.expr.clone(), left.expr.clone())
        }
        (Time, Operator::Plus | Operator::Minus, Interval) | (Interval, Operator::Plus, Time) => {
            plain(left.expr.clone(), right.expr.clone())
        }
        _ => Err(bad(
            format!(
                "{} {op} {} is {} {op} {}",
                shown(left),
                shown(right),
                described(left),
                described(right)
            ),
            "times go with intervals: _time - interval '1 day'",
        )),
    }
}

fn one_day() -> Expr {
    Expr::Literal(ScalarValue::new_interval_mdn(0, 1, 0), None)
}

fn negated(value: &Operand) -> Result<Expr> {
    let number = match value.class() {
        Class::Interval => return Ok(call(interval::SCALE, vec![value.expr.clone(), lit(-1.0)])),
        _ => value.number()?,
    };
    match value.class() {
        Class::Int if value.is_literal() => match literal(&number) {
            Some(ScalarValue::Int64(Some(int))) => match int.checked_neg() {
                Some(negative) => Ok(lit(negative)),
                None => Err(bad(
                    format!("-({int}) has no answer"),
                    "write it as a fraction, with a point",
                )),
            },
            _ => Ok(Expr::Negative(Box::new(number))),
        },
        Class::Int => Ok(call(checked::SUM, vec![lit("-"), number])),
        Class::Json(kinds) if kinds.any(Kinds::INT) && !kinds.any(Kinds::FLOAT | Kinds::BIG) => {
            Ok(call(checked::SUM, vec![lit("-"), number]))
        }
        _ => Ok(Expr::Negative(Box::new(number))),
    }
}

/// Values that become one result (CASE, COALESCE, an array), and what they then are: a text takes everything in, as it
/// is; values of documents of different kinds stay JSON.
pub fn unified(values: &[Operand]) -> Result<(Vec<Expr>, Option<Class>)> {
    let text = values.iter().any(|value| value.class() == Class::Text);
    if text
        && values.iter().all(|value| {
            !matches!(
                value.class(),
                Class::Time | Class::Date | Class::Interval | Class::List | Class::Other
            )
        })
    {
        return Ok((values.iter().map(Operand::text).collect(), Some(Class::Text)));
    }
    let temporal = |value: &Operand| matches!(value.class(), Class::Time | Class::Date);
    if values.iter().any(temporal)
        && values
            .iter()
            .all(|value| temporal(value) || matches!(value.class(), Class::Null | Class::Json(_) | Class::Text))
    {
        let date = values
            .iter()
            .all(|value| matches!(value.class(), Class::Date | Class::Null));
        let of = |value: &Operand| if date { Ok(value.expr.clone()) } else { value.time() };
        return Ok((
            values.iter().map(of).collect::<Result<_>>()?,
            Some(if date { Class::Date } else { Class::Time }),
        ));
    }
    let plain: Vec<Expr> = values.iter().map(Operand::native).collect();
    if values.iter().all(|value| value.kinds().is_none()) {
        let classes: Vec<Class> = values
            .iter()
            .map(Operand::class)
            .filter(|class| *class != Class::Null)
            .collect();
        if classes
            .windows(2)
            .all(|pair| pair[0] == pair[1] || (pair[0].is_number() && pair[1].is_number()))
        {
            return Ok((plain, classes.first().copied()));
        }
    }
    let native = |value: &Operand| match value.class() {
        Class::Json(kinds) => kinds.native().filter(|native| *native != Type::Json).map(Type::arrow),
        _ => Some(value.data_type().clone()),
    };
    let types: Option<Vec<DataType>> = values
        .iter()
        .filter(|value| value.class() != Class::Null)
        .map(native)
        .collect();
    let types = types.unwrap_or_default();
    let numbers = !types.is_empty() && types.iter().all(|of| matches!(of, DataType::Int64 | DataType::Float64));
    let exact = types.windows(2).all(|pair| pair[0] == pair[1]) || (numbers && !values.iter().any(may_be_wide));
    if !types.is_empty() && exact {
        return Ok((plain, Some(Class::Other)));
    }
    let json = |value: &Operand| match value.class() {
        Class::Json(_) => value.expr.clone(),
        _ => value.canonical(),
    };
    Ok((values.iter().map(json).collect(), Some(Class::Json(Kinds::default()))))
}

/// Whether an integer may be one that a double does not hold.
fn may_be_wide(value: &Operand) -> bool {
    match value.class() {
        Class::Json(kinds) => kinds.any(Kinds::WIDE),
        Class::Int => {
            !matches!(literal(&value.expr), Some(ScalarValue::Int64(Some(int))) if int.unsigned_abs() <= 1 << 53)
        }
        _ => false,
    }
}

fn case_of(case: Case, schema: &DFSchema) -> Result<Expr> {
    let operand = case.expr.map(|operand| Operand::of(*operand, schema)).transpose()?;
    let (mut conditions, mut results) = (Vec::new(), Vec::new());
    for (when, then) in case.when_then_expr {
        conditions.push(match &operand {
            Some(operand) => compared(operand, Operator::Eq, &Operand::of(*when, schema)?)?,
            None => condition(*when, schema)?,
        });
        results.push(Operand::of(*then, schema)?);
    }
    let otherwise = case.else_expr.is_some();
    if let Some(other) = case.else_expr {
        results.push(Operand::of(*other, schema)?);
    }
    let (mut results, _) = unified(&results)?;
    let otherwise = if otherwise { results.pop().map(Box::new) } else { None };
    let when_then = conditions
        .into_iter()
        .map(Box::new)
        .zip(results.into_iter().map(Box::new))
        .collect();
    Ok(Expr::Case(Case::new(None, when_then, otherwise)))
}

/// Bytes of a regular expression with which a text of any length is compared quickly.
const PATTERN_BYTES_MAX: usize = 64;

fn like_of(like: Like, schema: &DFSchema, wrap: fn(Like) -> Expr) -> Result<Expr> {
    let (value, pattern) = (Operand::of(*like.expr, schema)?, Operand::of(*like.pattern, schema)?);
    let (pattern, escape) = match (like.escape_char, pattern.quoted()) {
        // The library knows the backslash only.
        (Some(escape), Some(text)) if escape != '\\' => (lit(with_backslashes(text, escape)), None),
        (escape, _) => (pattern.text(), escape.filter(|escape| *escape != '\\')),
    };
    // A pattern of each row's own is compiled for each row, and a long one takes long over long texts: a function does
    // it in parts.
    let constant = literal(&pattern).map(|pattern| pattern.try_as_str().flatten().unwrap_or_default());
    if constant.is_none_or(text::is_compiled_long) && escape.is_none() {
        let matched = call(
            if like.case_insensitive { text::ILIKE } else { text::LIKE },
            vec![value.text(), pattern],
        );
        return Ok(if like.negated { !matched } else { matched });
    }
    Ok(wrap(Like {
        negated: like.negated,
        expr: Box::new(value.text()),
        pattern: Box::new(pattern),
        escape_char: escape,
        case_insensitive: like.case_insensitive,
    }))
}

fn with_backslashes(pattern: &str, escape: char) -> String {
    let mut escaped = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c == escape => escaped.extend(chars.next().into_iter().flat_map(|next| ['\\', next])),
            '\\' => escaped.push_str("\\\\"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `value::type`: data that cannot be converted are NULL; of a literal that is an error.
fn converted(value: &Operand, to: &DataType, lenient: bool, schema: &DFSchema) -> Result<Expr> {
    if value.class() == Class::Null {
        return Ok(null_of(to.clone()));
    }
    let view = match to {
        DataType::Boolean => Some(Type::Bool),
        DataType::Int64 => Some(Type::Int),
        DataType::Float64 => Some(Type::Double),
        DataType::Utf8View => Some(Type::Text),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Some(Type::Time),
        _ => None,
    };
    if let Some(text) = value.quoted() {
        return of_literal(text, value, to, view, lenient);
    }
    if value.data_type() == to {
        return Ok(value.expr.clone());
    }
    if !matches!(value.class(), Class::Json(_) | Class::Text)
        && !plan::column::is_json(to)
        && !can_cast_types(value.data_type(), to)
    {
        let hint = match value.class() {
            Class::Time | Class::Date | Class::Interval => {
                "extract(epoch FROM x) gives the seconds of a time or an interval"
            }
            _ => "x::text gives the text of any value",
        };
        let name = crate::answer::type_name(to);
        return Err(bad(
            format!(
                "{} is {}, which is not converted to {name}",
                shown(value),
                described(value)
            ),
            hint,
        ));
    }
    Ok(match (value.class(), view, to) {
        (Class::Json(_), None, json) if plan::column::is_json(json) => value.expr.clone(),
        (Class::Text, None, json) if plan::column::is_json(json) => {
            call(json::GET, vec![value.expr.clone(), lit(""), lit("json")])
        }
        (_, None, json) if plan::column::is_json(json) => call(json::TO_JSON, vec![value.expr.clone()]),
        (Class::Json(kinds), Some(view), _) => value.view(view, !(view == Type::Text && kinds == Kinds::TEXT)),
        (Class::Double, Some(Type::Text), _) => value.text(),
        (Class::Text, Some(Type::Text), _) => cast(value.expr.clone(), DataType::Utf8View),
        (Class::Text, Some(view), _) => value.converted(view),
        (Class::Double, Some(view @ Type::Int), _) | (Class::Int | Class::Double, Some(view @ Type::Time), _) => {
            match literal(&value.expr).map(|number| (number, literals::converted(number, view))) {
                Some((_, Some(converted))) => Expr::Literal(converted, None),
                Some(_) if lenient => null_of(to.clone()),
                Some((number, None)) => return Err(unreadable(&literals::spelled(number), to)),
                None => value.converted(view),
            }
        }
        // As a number at a path: in seconds since 1970.
        (Class::Int | Class::Double, None, DataType::Date32) => try_cast(value.converted(Type::Time), DataType::Date32),
        (Class::Decimal, Some(Type::Time), _) | (Class::Decimal, None, DataType::Date32) => {
            let double = Operand::of(value.double()?, schema)?;
            return converted(&double, to, lenient, schema);
        }
        // Rounded, as the cast between decimals does it.
        (Class::Decimal, Some(Type::Int), _) if !matches!(value.data_type(), DataType::Decimal128(_, 0)) => {
            let whole = Operand::of(
                cast(value.expr.clone(), DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)),
                schema,
            )?;
            return converted(&whole, to, lenient, schema);
        }
        (Class::Json(_) | Class::Text, None, DataType::Date32) => {
            try_cast(value.converted(Type::Time), DataType::Date32)
        }
        (Class::Json(_) | Class::Text, None, _) => counted_cast(value.converted(Type::Text), to),
        (Class::Time | Class::Date, Some(Type::Time), _) => value.time()?,
        _ => match literal(&value.expr).map(|constant| (constant, constant.cast_to(to))) {
            Some((constant, Ok(converted))) if constant.is_null() || !converted.is_null() => {
                Expr::Literal(converted, None)
            }
            Some(_) if lenient => null_of(to.clone()),
            Some((constant, _)) => return Err(unreadable(&literals::spelled(constant), to)),
            None => counted_cast(value.expr.clone(), to),
        },
    })
}

fn of_literal(text: &str, value: &Operand, to: &DataType, view: Option<Type>, lenient: bool) -> Result<Expr> {
    use plan::value::{bool_of_text, double_of_text, int_of_text};
    let typed = match view {
        Some(Type::Bool) => bool_of_text(text).map(lit),
        Some(Type::Int) => int_of_text(text).map(lit),
        Some(Type::Double) => double_of_text(text).map(lit),
        Some(Type::Text) => Some(cast(value.expr.clone(), DataType::Utf8View)),
        Some(Type::Time) => time_or_error(value, lenient)?,
        _ if plan::column::is_json(to) => {
            let json = proto::json::parse(text.as_bytes()).is_ok();
            json.then(|| Expr::Literal(ScalarValue::LargeUtf8(Some(text.to_owned())), None))
        }
        _ if *to == DataType::Date32 => time_or_error(value, lenient)?.map(|moment| cast(moment, DataType::Date32)),
        _ => ScalarValue::from(text.trim())
            .cast_to(to)
            .ok()
            .filter(|value| !value.is_null())
            .map(|value| Expr::Literal(value, None)),
    };
    match typed {
        Some(typed) => Ok(typed),
        None if lenient => Ok(null_of(to.clone())),
        None => Err(unreadable(&format!("'{text}'"), to)),
    }
}

fn unreadable(constant: &str, to: &DataType) -> datafusion::error::DataFusionError {
    let name = crate::answer::type_name(to);
    bad(
        format!("{constant} cannot be read as {name}"),
        "write a value of that type, or TRY_CAST to have NULL",
    )
}

fn time_or_error(value: &Operand, lenient: bool) -> Result<Option<Expr>> {
    match value.time() {
        Ok(moment) => Ok(Some(moment)),
        Err(_) if lenient => Ok(None),
        Err(error) => Err(error),
    }
}

/// `moment AT TIME ZONE zone`: the clock on the wall there; of a clock on the wall, the moment.
fn at_time_zone(moment: &Operand, zone: &Operand) -> Result<Expr> {
    let Some(name) = zone.quoted() else {
        return Err(bad(
            "a time zone that is computed".into(),
            "write AT TIME ZONE 'Europe/Berlin'",
        ));
    };
    if Tz::from_str(name).is_err() {
        return Err(bad(
            format!("there is no time zone {name}"),
            "write a name as 'Europe/Berlin', or '+02:00'",
        ));
    }
    let there = DataType::Timestamp(TimeUnit::Microsecond, Some(name.into()));
    let moment = moment.time()?;
    let naive = matches!(Operand::of(moment.clone(), &DFSchema::empty()), Ok(ref literal) if matches!(literal.data_type(), DataType::Timestamp(_, None)));
    if naive {
        return Ok(cast(cast(moment, there), time()));
    }
    Ok(Expr::ScalarFunction(ScalarFunction {
        func: datafusion::functions::datetime::to_local_time(),
        args: vec![cast(moment, there)],
    }))
}

/// A pattern as PostgreSQL and others write it, as `strftime` does; one with a `%` is taken as it is.
fn strftime(pattern: &str) -> String {
    const WORDS: [(&str, &str); 29] = [
        ("YYYY", "%Y"),
        ("yyyy", "%Y"),
        ("YY", "%y"),
        ("HH24", "%H"),
        ("hh24", "%H"),
        ("HH12", "%I"),
        ("hh12", "%I"),
        ("HH", "%I"),
        ("hh", "%I"),
        ("MI", "%M"),
        ("mi", "%M"),
        ("SS", "%S"),
        ("ss", "%S"),
        ("MS", "%3f"),
        ("ms", "%3f"),
        ("US", "%6f"),
        ("us", "%6f"),
        ("AM", "%p"),
        ("PM", "%p"),
        ("Month", "%B"),
        ("Mon", "%b"),
        ("MM", "%m"),
        ("mm", "%m"),
        ("DDD", "%j"),
        ("DD", "%d"),
        ("dd", "%d"),
        ("Day", "%A"),
        ("Dy", "%a"),
        ("TZ", "%Z"),
    ];
    if pattern.contains('%') {
        return pattern.to_owned();
    }
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            out.push_str(&quoted[..end]);
            rest = quoted.get(end + 1..).unwrap_or_default();
            continue;
        }
        match WORDS.iter().find(|(word, _)| rest.starts_with(word)) {
            Some((word, format)) => {
                out.push_str(format);
                rest = &rest[word.len()..];
            }
            None => {
                out.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    out
}
