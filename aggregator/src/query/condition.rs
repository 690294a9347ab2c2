//! Puts the condition of a statement into a query that this crate has written.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Expr};
use front::NodeMut;
use proto::{Code, Problem};

use crate::sql::{self, Statement};

/// Stands for the condition in the text of a query.
pub(super) const CONDITION: &str = "rachis_condition";

/// The query with a condition in the place of [`CONDITION`]; without a condition, with true.
pub(super) fn query_where(text: &str, condition: Option<&Expr>) -> Result<Box<ast::Query>, Problem> {
    let Statement::Query(mut query) = sql::parse(text, text.len())? else {
        return Err(Problem::new(Code::Internal, "an internal statement is not a query"));
    };
    let condition = condition.cloned().map_or_else(
        || Expr::value(ast::Value::Boolean(true)),
        |condition| Expr::Nested(Box::new(condition)),
    );
    let _ = front::revise_query(&mut query, &mut |node| {
        if let NodeMut::Expr(expr) = node
            && matches!(&*expr, Expr::Identifier(ident) if ident.value == CONDITION)
        {
            *expr = condition.clone();
        }
        ControlFlow::Continue(())
    });
    Ok(query)
}
