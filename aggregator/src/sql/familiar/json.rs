//! Familiar ways into JSON: `json_extract(doc, '$.user.name')`, `JSONExtractString(doc, 'user', 'name')`,
//! become paths, which columns answer. `doc @> '{"kind":"click"}'` and `doc ? 'user'` become functions that mean what
//! they mean in PostgreSQL, beside comparisons that an index answers.

use datafusion::sql::sqlparser::ast::{BinaryOperator, CastKind, DataType, Expr};
use plan::path::Step;
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

/// Functions that read a path as JSON and as text.
const AS_JSON: &str = "json_extract jsonb_extract_path json_extract_path";
const AS_TEXT: &str = "json_extract_string get_json_object jsonb_extract_path_text json_extract_path_text";
/// Functions that read a number, a text or a boolean at a path as text.
const AS_SCALAR: &str = "json_value json_extract_scalar";
/// ClickHouse's JSONExtract functions and the type that each returns: an empty text, 0 or false where the path is missing.
const WITH_DEFAULT: [(&str, &str); 5] = [
    ("jsonextractstring", "text"),
    ("jsonextractint", "int"),
    ("jsonextractuint", "uint"),
    ("jsonextractfloat", "double"),
    ("jsonextractbool", "bool"),
];
/// Functions that tell whether something is at a path.
const EXISTS: &str = "jsonhas json_exists";

/// All functions that read a path.
pub(super) fn path_functions() -> impl Iterator<Item = &'static str> {
    let with_default = WITH_DEFAULT.iter().map(|(name, _)| *name);
    [AS_JSON, AS_TEXT, AS_SCALAR, EXISTS]
        .into_iter()
        .flat_map(str::split_whitespace)
        .chain(with_default)
}

fn is_one_of(name: &str, names: &str) -> bool {
    names.split_whitespace().any(|one| one == name)
}

/// Whether a call reads a path.
pub(super) fn reads_path(name: &str, arguments: Option<&[Expr]>) -> bool {
    path_functions().any(|function| function == name)
        && arguments
            .and_then(<[Expr]>::split_first)
            .is_some_and(|(_, keys)| !keys.is_empty() && keys.iter().all(|key| matches!(key, Expr::Value(_))))
}

/// The path that a call reads. None if it is no such call.
pub(super) fn path_of_call(name: &str, arguments: Option<Vec<Expr>>) -> Result<Option<Expr>, Problem> {
    let Some((document, keys)) = arguments.as_deref().and_then(<[Expr]>::split_first) else {
        return Ok(None);
    };
    if !reads_path(name, arguments.as_deref()) {
        return Ok(None);
    }
    let keys = keys
        .iter()
        .map(|key| key_of_call(name, key))
        .collect::<Result<Vec<_>, _>>()?;
    let json = || {
        keys.iter().fold(document.clone(), |path, key| {
            arrow(path, BinaryOperator::Arrow, key.clone())
        })
    };
    if let Some((_, kind)) = WITH_DEFAULT.iter().find(|(function, _)| *function == name) {
        return Ok(Some(call("json_default", vec![json(), text(kind)])));
    }
    Ok(match () {
        () if is_one_of(name, AS_JSON) => Some(json()),
        () if is_one_of(name, AS_SCALAR) => Some(call("json_scalar", vec![json()])),
        () if is_one_of(name, EXISTS) => Some(call("json_has", vec![json_of(document), text(&steps(&keys)?)])),
        () => keys.split_last().map(|(last, before)| {
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
