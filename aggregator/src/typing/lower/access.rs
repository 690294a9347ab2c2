//! Lowers access to keys and elements: `x.key`, `x[0]`.

use datafusion::{
    arrow::datatypes::DataType,
    common::Result,
    logical_expr::{Expr, lit},
};
use plan::{Type, functions::json};

use super::arguments::function_call;
use crate::typing::operand::{
    Operand, TypeClass, bad_sql, call, describe_type, display_name, has_path_type, json_get, literal, null_literal,
};

/// The value at a path inside another value. `kinds` are those that the values at the path have had, if known.
pub(super) fn lower_access(value: &Operand, path: &Operand, kinds: Option<&Operand>) -> Result<Expr> {
    let path_text = path.quoted().unwrap_or_default();
    let path = plan::Path::try_from(path_text.to_owned()).map_err(|e| bad_sql(e.to_string(), "write x.key or x[0]"))?;
    match (value.class(), path.steps()) {
        // A computed list is indexed as in SQL: its first element is number 1.
        (TypeClass::List, [plan::path::Step::Index(index), rest @ ..]) => {
            let element = function_call(
                datafusion::functions_nested::extract::array_element_udf(),
                vec![value.expr.clone(), lit(i64::from(*index))],
            );
            Ok(match rest {
                [] => element,
                rest => json_get(
                    json_at(element, &plan::Path::new(rest.to_vec()), None),
                    plan::PathType {
                        to: Type::Json,
                        cast: false,
                    },
                ),
            })
        }
        (TypeClass::Json(_) | TypeClass::Text, _) => {
            Ok(json_at(value.expr.clone(), &path, kinds.and_then(Operand::quoted)))
        }
        (TypeClass::Null, _) => Ok(null_literal(DataType::LargeUtf8)),
        _ => Err(bad_sql(
            format!(
                "{} is {} and has no {path_text}",
                display_name(value),
                describe_type(value)
            ),
            "only JSON values and lists have keys or elements",
        )),
    }
}

/// `json_get(expr, path, 'json', kinds)`. If the expression already reads a path, the two paths become one.
fn json_at(expr: Expr, path: &plan::Path, kinds: Option<&str>) -> Expr {
    let (root, whole) = match expr {
        Expr::ScalarFunction(mut inner) if inner.func.name() == json::GET && has_path_type(&inner.args, "json") => {
            let outer = literal(&inner.args[1])
                .and_then(|path| path.try_as_str().flatten())
                .unwrap_or_default()
                .to_owned();
            let outer = plan::Path::try_from(outer).unwrap_or_default();
            (
                inner.args.swap_remove(0),
                plan::Path::new(outer.steps().iter().chain(path.steps()).cloned().collect()),
            )
        }
        other => (other, path.clone()),
    };
    let mut args = vec![root, lit(whole.to_string()), lit("json")];
    args.extend(kinds.map(lit));
    call(json::GET, args)
}
