//! Bounds what rewriting adds to a statement. Some rewritings use a part of the statement several times: `x IN (query)`
//! as a value asks the query three times, an alias in GROUP BY stands for its expression. Nested, each level
//! multiplies what is inside. Every such copy is charged here before it is made, so no statement grows to more than a
//! fixed multiple of its text.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query};
use front::{Node, Root};
use proto::{Code, Problem};

/// Expressions that copies may add to any statement.
const COPIED_EXPRESSIONS_MAX: usize = 20_000;
/// Expressions that copies may add for each expression of the statement, if that is more.
const COPIED_FOR_EACH_MAX: usize = 4;

/// What copies may still add to a statement.
#[derive(Debug)]
pub(super) struct Copies {
    expressions_left: usize,
}

impl Default for Copies {
    fn default() -> Self {
        Self::of_expressions(0)
    }
}

impl Copies {
    /// For a statement of so many expressions.
    fn of_expressions(written: usize) -> Self {
        Self {
            expressions_left: written.saturating_mul(COPIED_FOR_EACH_MAX).max(COPIED_EXPRESSIONS_MAX),
        }
    }

    /// For a query.
    pub(super) fn of_query(query: &Query) -> Self {
        Self::of_expressions(count(Root::Query(query)))
    }

    /// For an expression that is a statement of its own, such as a field.
    pub(super) fn of_expression(expr: &Expr) -> Self {
        Self::of_expressions(expressions(expr))
    }

    /// Charges copies of a part of so many expressions.
    pub(super) fn charge(&mut self, copies: usize, expressions: usize) -> Result<(), Problem> {
        let added = copies.saturating_mul(expressions);
        self.expressions_left = self.expressions_left.checked_sub(added).ok_or_else(|| {
            Problem::new(
                Code::TooComplex,
                "planning copies parts of the statement too often: IN with a subquery, aliases, WITH queries, grouping \
                 sets and some functions use their operands several times",
            )
            .hint("compute a part of it in a subquery or a WITH query, and use its column instead")
        })?;
        Ok(())
    }
}

/// The number of expressions and queries in an expression.
pub(super) fn expressions(expr: &Expr) -> usize {
    count(Root::Expr(expr))
}

fn count(root: Root<'_>) -> usize {
    let mut count = 0;
    front::walk(root, &mut |node| {
        count += usize::from(!matches!(node, Node::Relation(_)));
        ControlFlow::Continue(())
    });
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_charged_until_a_multiple_of_the_statement_is_reached() {
        for (written, most) in [(1, COPIED_EXPRESSIONS_MAX), (10_000, 40_000)] {
            let mut copies = Copies::of_expressions(written);
            assert!(copies.charge(most / 100, 100).is_ok());
            let refused = copies.charge(1, 1).expect_err("nothing is left");
            assert_eq!(refused.code, Code::TooComplex);
        }
    }
}
