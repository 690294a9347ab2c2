//! Lowers `value IN (…)`.

use datafusion::{
    arrow::datatypes::DataType,
    common::{Result, ScalarValue},
    logical_expr::{Expr, Operator, expr::InList},
};
use plan::{Kinds, functions::json, value::canonical};
use proto::json::Value;

use super::{Exactness, as_integer_literal, binary, exactness, is_small_literal, lower_comparison};
use crate::typing::operand::{Operand, TypeClass, bad_sql, cast, literal, number_literal};

/// `value [NOT] IN (…)`. Every item is compared as by `=`.
pub(crate) fn lower_in_list(value: &Operand, list: &[Operand], negated: bool) -> Result<Expr> {
    let in_list = |expr: Expr, list: Vec<Expr>| Expr::InList(InList::new(Box::new(expr), list, negated));
    let is_numeric = value.only_numbers() || value.class().is_number();
    // A plain list in which every item is a literal of one type can be evaluated by an index.
    if is_numeric
        && value.class() != TypeClass::Decimal
        && let Some(numbers) = number_items(value, list)
    {
        return Ok(in_list(value.number()?, numbers));
    }
    let is_text = value.kinds() == Some(Kinds::TEXT) || value.class() == TypeClass::Text;
    if is_text
        && list
            .iter()
            .all(|item| item.quoted().is_some() || item.class() == TypeClass::Null)
    {
        return Ok(in_list(
            value.native(),
            list.iter().map(|item| item.expr.clone()).collect(),
        ));
    }
    let has_json = value.kinds().is_some() || list.iter().any(|item| item.kinds().is_some());
    let has_quoted_number = is_numeric && list.iter().any(|item| item.quoted().is_some());
    let needs_json = has_json || has_quoted_number || value.class() == TypeClass::Interval;
    let is_temporal = |operand: &Operand| matches!(operand.class(), TypeClass::Time | TypeClass::Date);
    if is_temporal(value) || list.iter().any(is_temporal) || !needs_json {
        return any_equal(value, list, negated);
    }
    Ok(in_list(value.canonical(), canonical_items(list)?))
}

/// The items as literals of the value's number type; None if one of them is not such a literal.
fn number_items(value: &Operand, list: &[Operand]) -> Option<Vec<Expr>> {
    let literal_number = |item: &Operand| match item.quoted() {
        Some(text) => number_literal(text),
        None if item.class().is_number() && item.is_literal() => Some(item.expr.clone()),
        None => None,
    };
    let is_integer = matches!(exactness(value), Exactness::Integer);
    let typed = |number: Expr| match as_integer_literal(&number) {
        Some(int) if is_integer => Some(int),
        // A fraction cannot be an item of a list of integers.
        _ if is_integer => matches!(literal(&number), Some(ScalarValue::Int64(_))).then_some(number),
        _ => is_small_literal(&number).then(|| cast(number, DataType::Float64)),
    };
    list.iter().map(|item| literal_number(item).and_then(typed)).collect()
}

/// `value = item OR value = item …`.
fn any_equal(value: &Operand, list: &[Operand], negated: bool) -> Result<Expr> {
    let equal = list
        .iter()
        .map(|item| lower_comparison(value, Operator::Eq, item))
        .collect::<Result<Vec<_>>>()?;
    let any = balanced(equal, Operator::Or)
        .ok_or_else(|| bad_sql("the list of IN () is empty".into(), "write at least one value: IN (…)"))?;
    Ok(if negated { Expr::Not(Box::new(any)) } else { any })
}

/// The items as canonical JSON texts.
fn canonical_items(list: &[Operand]) -> Result<Vec<Expr>> {
    let mut items = Vec::new();
    for item in list {
        let Some(text) = item.quoted() else {
            items.push(canonical_item(item)?);
            continue;
        };
        items.push(json_literal(canonical(&Value::Text(text.into()))));
        // A quoted literal that is written like a number or a boolean also equals that value.
        if let Ok(value @ (Value::Bool(_) | Value::Int(_) | Value::Float(_))) = proto::json::parse(text.as_bytes()) {
            items.push(json_literal(canonical(&value)));
        }
    }
    Ok(items)
}

/// The canonical JSON text of an item; for a literal it is computed here and is a literal, too.
pub(super) fn canonical_item(item: &Operand) -> Result<Expr> {
    match literal(&item.expr) {
        Some(value) if item.kinds().is_none() && !value.is_null() => {
            let texts = json::to_json(&value.to_array()?)?;
            Ok(Expr::Literal(ScalarValue::try_from_array(&texts, 0)?, None))
        }
        _ => Ok(item.canonical()),
    }
}

pub(super) fn json_literal(text: String) -> Expr {
    Expr::Literal(ScalarValue::LargeUtf8(Some(text)), None)
}

/// Joins conditions into a balanced tree, so that a thousand of them are only ten levels deep.
fn balanced(mut conditions: Vec<Expr>, op: Operator) -> Option<Expr> {
    while conditions.len() > 1 {
        let mut next = Vec::with_capacity(conditions.len().div_ceil(2));
        let mut pairs = conditions.into_iter();
        while let Some(left) = pairs.next() {
            next.push(match pairs.next() {
                Some(right) => binary(left, op, right),
                None => left,
            });
        }
        conditions = next;
    }
    conditions.pop()
}
