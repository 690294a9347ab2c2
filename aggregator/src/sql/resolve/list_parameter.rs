//! Parameters that are lists: `x = ANY($1)`, `x IN ($1)`, `unnest($1)`. Their items become literals.

use datafusion::sql::sqlparser::ast::{Expr, UnaryOperator, Value as Literal};
use proto::Problem;
use serde_json::Value;

use super::{
    problem::bad,
    resolver::Resolver,
    value::{literal, text},
};

impl Resolver<'_> {
    /// The items of a parameter that is a list; None for anything else.
    pub(super) fn list_parameter(&mut self, expr: &Expr) -> Result<Option<Vec<Expr>>, Problem> {
        let name = match expr {
            Expr::Value(value) => match &value.value {
                Literal::Placeholder(name) => name,
                _ => return Ok(None),
            },
            Expr::Nested(inner) => return self.list_parameter(inner),
            _ => return Ok(None),
        };
        let index = name.strip_prefix('$').and_then(|index| index.parse().ok());
        let Some(Value::Array(items)) = index.and_then(|index| self.parameter(index)).cloned() else {
            return Ok(None);
        };
        let items = items.iter().map(|item| {
            self.count_expression()?;
            scalar(item).ok_or_else(|| {
                bad(format!("the list {name} contains a list or an object"))
                    .hint("a list may contain texts, numbers, booleans and null")
            })
        });
        items.collect::<Result<_, _>>().map(Some)
    }

    /// A list of expressions, with the items of parameters that are lists in their place.
    pub(super) fn with_list_parameters(&mut self, list: Vec<Expr>) -> Result<Vec<Expr>, Problem> {
        let mut spliced = Vec::with_capacity(list.len());
        for item in list {
            match self.list_parameter(&item)? {
                Some(items) => spliced.extend(items),
                None => spliced.push(item),
            }
        }
        Ok(spliced)
    }
}

fn scalar(value: &Value) -> Option<Expr> {
    Some(match value {
        Value::Null => literal(Literal::Null),
        Value::Bool(value) => literal(Literal::Boolean(*value)),
        Value::Number(number) => {
            let spelled = number.to_string();
            let number = |digits: &str| literal(Literal::Number(digits.to_owned(), false));
            match spelled.strip_prefix('-') {
                Some(digits) => Expr::UnaryOp {
                    op: UnaryOperator::Minus,
                    expr: Box::new(number(digits)),
                },
                None => number(&spelled),
            }
        }
        Value::String(value) => text(value),
        Value::Array(_) | Value::Object(_) => return None,
    })
}
