//! How large an expression becomes once DataFusion has rewritten it. `COALESCE(a, b)` becomes a CASE that has `a`
//! twice, a CASE of conditions becomes ANDs and ORs, and a short list becomes equalities. Nested, each of these
//! multiplies what is inside of it: planning a statement of one line took minutes and gigabytes.

use datafusion::{
    common::{
        Result,
        tree_node::{TreeNode as _, TreeNodeRecursion},
    },
    logical_expr::Expr,
    optimizer::simplify_expressions::THRESHOLD_INLINE_INLIST,
};
use proto::{Code, Problem};

use crate::query::failure;

/// Parts that an expression may come to, if that is four times as much as the statement has. DataFusion plans so many
/// within a second or two.
const PARTS_MAX: usize = 20_000;

/// Parts of an expression as it is.
pub fn parts(expr: &Expr) -> usize {
    let mut parts = 0;
    let visited = expr.apply(|_| {
        parts += 1;
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "nothing above fails");
    parts
}

/// Refuses an expression that copies its operands too often, for a statement that has so many parts.
pub fn check(expr: &Expr, parts: usize) -> Result<()> {
    let written = match expr {
        // Where the list is no list of literals, each of its items is compared with a copy.
        Expr::InList(list) if written_out(&list.expr) > list.list.len() => {
            written_out(&list.expr).saturating_mul(list.list.len())
        }
        other => written_out(other),
    };
    match written > PARTS_MAX && written / 4 > parts {
        true => Err(failure::error(
            Problem::new(
                Code::TooComplex,
                format!("an expression comes to over {PARTS_MAX} parts when its COALESCE, CASE, IN and BETWEEN are written out"),
            )
            .hint("each repeats what is inside of it: compute that in a sub-query or a WITH query, and name its column"),
        )),
        false => Ok(()),
    }
}

/// Parts of an expression once DataFusion has rewritten it.
fn written_out(expr: &Expr) -> usize {
    let mut children: Vec<usize> = Vec::new();
    let visited = expr.apply_children(|child| {
        children.push(written_out(child));
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "nothing above fails");
    let written = children.iter().fold(1_usize, |sum, child| sum.saturating_add(*child));
    let copies_of = |child: usize, times: usize| children.get(child).map_or(0, |child| child.saturating_mul(times));
    let copied = match expr {
        // All but the last are asked for NULL and then taken; of booleans that is written out once more.
        Expr::ScalarFunction(call) if matches!(call.func.name(), "coalesce" | "nvl" | "ifnull") => {
            (0..children.len().saturating_sub(1)).fold(0, |sum: usize, child| sum.saturating_add(copies_of(child, 3)))
        }
        Expr::InList(list) if list.list.len() <= THRESHOLD_INLINE_INLIST => {
            copies_of(0, list.list.len().saturating_sub(1))
        }
        Expr::Between(_) => copies_of(0, 1),
        // What decides between two or three results stands once more in front of each of them.
        Expr::Case(case) if case.expr.is_none() && case.when_then_expr.len() < 3 => {
            (0..case.when_then_expr.len()).fold(0, |sum: usize, branch| sum.saturating_add(copies_of(2 * branch, 2)))
        }
        _ => 0,
    };
    written.saturating_add(copied)
}
