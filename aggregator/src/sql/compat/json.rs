//! Ways of other systems into JSON: `json_extract(doc, '$.user.name')`, `JSONExtractString(doc, 'user', 'name')`,
//! become paths, which columns answer. `doc @> '{"kind":"click"}'` and `doc ? 'user'` become functions that mean what
//! they mean in PostgreSQL, beside comparisons that an index answers.

use datafusion::sql::sqlparser::ast::{BinaryOperator, CastKind, DataType, Expr};
use plan::{functions::registry::PathResult, path::Step};
use proto::{Code, Problem};
use serde_json::Value;

use crate::sql::{
    copies::{Copies, expressions},
    resolve::{
        json_path,
        value::{call, literal, number, text, text_literal},
    },
};

/// At most so many comparisons are added to a containment, for the index. Each copies the operand.
const CONDITIONS_MAX: usize = 8;

/// Whether the arguments of a call are a document and a path in literals.
pub(super) fn reads_path(arguments: &[Expr]) -> bool {
    arguments
        .split_first()
        .is_some_and(|(_, keys)| !keys.is_empty() && keys.iter().all(|key| matches!(key, Expr::Value(_))))
}

/// The path that a call reads. None if its arguments are no path.
pub(super) fn path_of_call(name: &str, result: PathResult, arguments: &[Expr]) -> Result<Option<Expr>, Problem> {
    let Some((document, keys)) = arguments.split_first().filter(|_| reads_path(arguments)) else {
        return Ok(None);
    };
    let keys = keys
        .iter()
        .map(|key| key_of_call(name, key))
        .collect::<Result<Vec<_>, _>>()?;
    let json = || {
        keys.iter().fold(document.clone(), |path, key| {
            arrow(path, BinaryOperator::Arrow, key.clone())
        })
    };
    Ok(match result {
        PathResult::Json => Some(json()),
        PathResult::Scalar => Some(call("json_scalar", vec![json()])),
        PathResult::OrDefault(kind) => Some(call("json_default", vec![json(), text(kind)])),
        PathResult::Exists => Some(call("json_has", vec![json_of(document), text(&steps(&keys)?)])),
        PathResult::Text => keys.split_last().map(|(last, before)| {
            let path = before.iter().fold(document.clone(), |path, key| {
                arrow(path, BinaryOperator::Arrow, key.clone())
            });
            arrow(path, BinaryOperator::LongArrow, last.clone())
        }),
    })
}

/// A key of a call as an operand of `->`.
fn key_of_call(name: &str, key: &Expr) -> Result<Expr, Problem> {
    let refused = |detail: &str, hint: &str| {
        let detail = format!("{detail} of {name} is not supported");
        Err(Problem::new(Code::NotSupported, detail).hint(hint))
    };
    match text_literal(key) {
        Some(pointer) if pointer.starts_with('/') => refused("a JSON pointer", "write '$.user.name'"),
        Some(index) if name.contains("extract_path") && index.parse::<i64>().is_ok() => {
            refused("an index in quotes", "write document->'items'->0")
        }
        // ClickHouse counts from 1, and from the end.
        None if name.starts_with("json") && !name.contains('_') => {
            match key.to_string().parse::<u32>().ok().and_then(|n| n.checked_sub(1)) {
                Some(index) => Ok(number(&index.to_string())),
                None => refused("this index", "the first item is 1"),
            }
        }
        _ => Ok(key.clone()),
    }
}

/// Keys as a list in JSON.
fn steps(keys: &[Expr]) -> Result<String, Problem> {
    let mut steps = Vec::new();
    for key in keys {
        match text_literal(key) {
            Some(path) if path.starts_with('$') => {
                let found = json_path(path).ok_or_else(|| {
                    let detail = format!("the JSON path {path} is not supported");
                    Problem::new(Code::NotSupported, detail).hint("write '$.user.name' or '$.items[0].sku'")
                })?;
                steps.extend(found.iter().map(|step| match step {
                    Step::Key(key) => Value::from(&**key),
                    Step::Index(index) => Value::from(*index),
                }));
            }
            Some(key) => steps.push(Value::from(key)),
            None => steps.push(key.to_string().parse::<u32>().map_or(Value::Null, Value::from)),
        }
    }
    Ok(Value::from(steps).to_string())
}

fn arrow(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }
}

/// Rewrites `@>`, `@> ARRAY[…]`, `&& ARRAY[…]` and `?`.
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
            let value: Option<Value> =
                text_literal(contained).and_then(|contained| serde_json::from_str(contained).ok());
            let exact = call("jsonb_contains", vec![json_of(left), json_of(contained)]);
            match value {
                Some(value) => {
                    let mut conditions = Vec::new();
                    // At the top, a list also contains a scalar.
                    if value.is_object() {
                        necessary(left, &value, &mut conditions);
                    }
                    copies.charge(conditions.len(), expressions(left).saturating_add(2))?;
                    conditions.push(exact);
                    all_of(conditions)
                }
                None => Some(exact),
            }
        }
        (BinaryOperator::Question, key) => Some(call("jsonb_exists", vec![json_of(left), key.clone()])),
        _ => None,
    };
    if let Some(rewritten) = rewritten {
        *expr = Expr::Nested(Box::new(rewritten));
    }
    Ok(())
}

/// The JSON of an operand: a document, and a quoted literal, is the text of it.
fn json_of(operand: &Expr) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(operand.clone()),
        data_type: DataType::JSONB,
        array: false,
        format: None,
    }
}

/// Comparisons that hold wherever a value contains another one, for columns and indexes. They alone are not enough:
/// a quoted text also equals the number that it spells.
fn necessary(value: &Expr, contained: &Value, conditions: &mut Vec<Expr>) {
    if conditions.len() >= CONDITIONS_MAX {
        return;
    }
    let equals = |right| arrow(value.clone(), BinaryOperator::Eq, right);
    match contained {
        Value::Bool(bool) => conditions.push(equals(literal(datafusion::sql::sqlparser::ast::Value::Boolean(*bool)))),
        Value::Number(integer) if integer.is_i64() => conditions.push(equals(number(&integer.to_string()))),
        Value::String(string) => conditions.push(equals(text(string))),
        Value::Object(members) => members.iter().for_each(|(key, member)| {
            necessary(
                &arrow(value.clone(), BinaryOperator::Arrow, text(key)),
                member,
                conditions,
            );
        }),
        Value::Null | Value::Number(_) | Value::Array(_) => {}
    }
}

fn all_of(conditions: Vec<Expr>) -> Option<Expr> {
    conditions
        .into_iter()
        .reduce(|one, other| arrow(one, BinaryOperator::And, other))
}
