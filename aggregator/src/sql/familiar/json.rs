//! Familiar ways into JSON: `json_extract(doc, '$.user.name')`, `JSONExtractString(doc, 'user', 'name')`,
//! `doc @> '{"kind":"click"}'` and `doc ? 'user'` become paths and comparisons, which columns and indexes answer.

use datafusion::sql::sqlparser::ast::{BinaryOperator, CastKind, DataType, ExactNumberInfo, Expr};
use proto::Problem;
use serde_json::Value;

use crate::sql::copies::{Copies, expressions};
use crate::sql::resolve::value::{call, literal, number, text, text_literal};

/// Functions that read a path as JSON, as text and as another type, and that tell whether it exists.
const AS_JSON: &str = "json_extract jsonb_extract_path json_extract_path json_query jsonextractraw";
const AS_TEXT: &str = "json_extract_string json_value json_extract_scalar get_json_object jsonb_extract_path_text \
                       json_extract_path_text jsonextractstring visitparamextractstring simplejsonextractstring";
const AS_INTEGER: &str = "jsonextractint jsonextractuint simplejsonextractint";
const AS_DOUBLE: &str = "jsonextractfloat simplejsonextractfloat";
const AS_BOOLEAN: &str = "jsonextractbool simplejsonextractbool";
const EXISTS: &str = "jsonhas json_exists json_contains_path";

fn is_one_of(name: &str, names: &str) -> bool {
    names.split_whitespace().any(|one| one == name)
}

/// Whether a function of this name reads a path.
pub(super) fn is_path_function(name: &str) -> bool {
    [AS_JSON, AS_TEXT, AS_INTEGER, AS_DOUBLE, AS_BOOLEAN, EXISTS]
        .iter()
        .any(|names| is_one_of(name, names))
}

/// The path that a call reads. None if it is no such call.
pub(super) fn path_of_call(name: &str, arguments: Option<Vec<Expr>>) -> Option<Expr> {
    let (document, keys) = arguments.as_deref()?.split_first()?;
    if keys.is_empty() || keys.iter().any(|key| !matches!(key, Expr::Value(_))) {
        return None;
    }
    let json = || {
        keys.iter().fold(document.clone(), |path, key| {
            arrow(path, BinaryOperator::Arrow, key.clone())
        })
    };
    let as_text = || {
        let (last, before) = keys.split_last()?;
        let path = before.iter().fold(document.clone(), |path, key| {
            arrow(path, BinaryOperator::Arrow, key.clone())
        });
        Some(arrow(path, BinaryOperator::LongArrow, last.clone()))
    };
    let cast = |data_type| {
        Some(Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(as_text()?),
            data_type,
            array: false,
            format: None,
        })
    };
    match () {
        () if is_one_of(name, AS_JSON) => Some(json()),
        () if is_one_of(name, AS_TEXT) => as_text(),
        () if is_one_of(name, AS_INTEGER) => cast(DataType::BigInt(None)),
        () if is_one_of(name, AS_DOUBLE) => cast(DataType::Double(ExactNumberInfo::None)),
        () if is_one_of(name, AS_BOOLEAN) => cast(DataType::Boolean),
        () if is_one_of(name, EXISTS) => Some(Expr::IsNotNull(Box::new(json()))),
        () => None,
    }
}

fn arrow(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }
}

/// Rewrites `@>` with a literal object or list, `@> ARRAY[…]`, `&& ARRAY[…]` and `?`.
pub(super) fn rewrite_operator(expr: &mut Expr, copies: &mut Copies) -> Result<(), Problem> {
    let Expr::BinaryOp { left, op, right } = &*expr else {
        return Ok(());
    };
    let rewritten = match (op, &**right) {
        (BinaryOperator::AtArrow, Expr::Array(_)) => {
            Some(call("array_has_all", vec![(**left).clone(), (**right).clone()]))
        }
        (BinaryOperator::PGOverlap, Expr::Array(_)) => {
            Some(call("array_has_any", vec![(**left).clone(), (**right).clone()]))
        }
        (BinaryOperator::AtArrow, contained) => {
            let contained = text_literal(contained).and_then(|contained| serde_json::from_str(contained).ok());
            match contained {
                Some(contained) => {
                    copies.charge(1, added(&contained, expressions(left)))?;
                    contains(left, &contained)
                }
                None => None,
            }
        }
        (BinaryOperator::Question, key) if text_literal(key).is_some() => {
            let path = arrow((**left).clone(), BinaryOperator::Arrow, key.clone());
            Some(Expr::IsNotNull(Box::new(path)))
        }
        _ => None,
    };
    if let Some(rewritten) = rewritten {
        *expr = Expr::Nested(Box::new(rewritten));
    }
    Ok(())
}

/// The expressions of the condition that something contains a value, if it has so many itself.
fn added(contained: &Value, expressions: usize) -> usize {
    match contained {
        Value::Array(items) => items
            .iter()
            .map(|item| added(item, expressions))
            .fold(1, usize::saturating_add),
        Value::Object(members) => {
            let members = members
                .values()
                .map(|member| added(member, expressions.saturating_add(2)));
            members.fold(1, usize::saturating_add)
        }
        _ => expressions.saturating_add(2),
    }
}

/// The condition that a value contains another one. None if it cannot be said by comparisons.
fn contains(value: &Expr, contained: &Value) -> Option<Expr> {
    let equals = |right| Some(arrow(value.clone(), BinaryOperator::Eq, right));
    match contained {
        Value::Null => None,
        Value::Bool(bool) => equals(literal(datafusion::sql::sqlparser::ast::Value::Boolean(*bool))),
        Value::Number(number_) => equals(number(&number_.to_string())),
        Value::String(string) => equals(text(string)),
        Value::Array(items) => {
            let has = |item: &Value| match item {
                Value::String(string) => Some(call("array_has", vec![value.clone(), text(string)])),
                Value::Number(number_) => Some(call("array_has", vec![value.clone(), text(&number_.to_string())])),
                _ => None,
            };
            all_of(items.iter().map(has))
        }
        Value::Object(members) => all_of(
            members
                .iter()
                .map(|(key, member)| contains(&arrow(value.clone(), BinaryOperator::Arrow, text(key)), member)),
        ),
    }
}

fn all_of(conditions: impl Iterator<Item = Option<Expr>>) -> Option<Expr> {
    let conditions: Vec<Expr> = conditions.collect::<Option<_>>()?;
    conditions
        .into_iter()
        .reduce(|one, other| arrow(one, BinaryOperator::And, other))
}
