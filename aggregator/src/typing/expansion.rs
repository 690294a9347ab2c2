//! Estimates how large an expression becomes once DataFusion has rewritten it, and refuses those that become too large.
//!
//! `COALESCE(a, b)` becomes a CASE with two copies of `a`, a CASE of conditions becomes ANDs and ORs, and a short list
//! becomes equalities. Nested, each of these multiplies its contents: without a limit, planning a statement of one line
//! took minutes and gigabytes.

use datafusion::{
    common::{Result, tree_node::TreeNodeRecursion},
    logical_expr::Expr,
    optimizer::simplify_expressions::THRESHOLD_INLINE_INLIST,
};
use plan::walk::Walk as _;
use proto::{Code, Problem};

use crate::failure;

/// Nodes to which an expression may expand. The limit applies only if that is over four times the size of the
/// expression as written. DataFusion plans this many nodes within a second or two.
const EXPANDED_NODES_MAX: usize = 20_000;

/// The number of nodes of an expression as written.
pub(super) fn node_count(expr: &Expr) -> usize {
    let mut nodes = 0;
    let visited = expr.apply(|_| {
        nodes += 1;
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    nodes
}

/// Returns an error if the expression copies its operands too often, given the number of nodes as written.
pub(super) fn check_expansion(expr: &Expr, written_nodes: usize) -> Result<()> {
    let expanded = match expr {
        // If the items are not all literals, DataFusion compares each item with its own copy of the operand.
        Expr::InList(list) if expanded_nodes(&list.expr) > list.list.len() => {
            expanded_nodes(&list.expr).saturating_mul(list.list.len())
        }
        other => expanded_nodes(other),
    };
    if expanded <= EXPANDED_NODES_MAX || expanded / 4 <= written_nodes {
        return Ok(());
    }
    Err(failure::error(
        Problem::new(
            Code::TooComplex,
            format!(
                "an expression expands to over {EXPANDED_NODES_MAX} nodes, because COALESCE, CASE, IN and BETWEEN copy \
                 their operands"
            ),
        )
        .hint("compute the operand in a subquery or a WITH query, and use its column instead"),
    ))
}

/// The number of nodes of an expression once DataFusion has rewritten it.
fn expanded_nodes(expr: &Expr) -> usize {
    expanded_size(expr, &|_| None)
}

/// The number of nodes of an expression once DataFusion has rewritten it, where `size_of` gives the sizes of some parts.
pub(super) fn expanded_size(expr: &Expr, size_of: &dyn Fn(&Expr) -> Option<usize>) -> usize {
    if let Some(size) = size_of(expr) {
        return size;
    }
    let mut children: Vec<usize> = Vec::new();
    let visited = expr.apply_children(|child| {
        children.push(expanded_size(child, size_of));
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    let single = children.iter().fold(1_usize, |sum, child| sum.saturating_add(*child));
    let copies_of = |child: usize, times: usize| children.get(child).map_or(0, |child| child.saturating_mul(times));
    let copied = match expr {
        // All arguments but the last are tested for NULL and then returned; for booleans, simplification copies them
        // once more.
        Expr::ScalarFunction(call) if matches!(call.func.name(), "coalesce" | "nvl" | "ifnull") => {
            (0..children.len().saturating_sub(1)).fold(0, |sum: usize, child| sum.saturating_add(copies_of(child, 3)))
        }
        Expr::InList(list) if list.list.len() <= THRESHOLD_INLINE_INLIST => {
            copies_of(0, list.list.len().saturating_sub(1))
        }
        Expr::Between(_) => copies_of(0, 1),
        // With two or three results, DataFusion repeats the conditions in front of each result.
        Expr::Case(case) if case.expr.is_none() && case.when_then_expr.len() < 3 => {
            (0..case.when_then_expr.len()).fold(0, |sum: usize, branch| sum.saturating_add(copies_of(2 * branch, 2)))
        }
        _ => 0,
    };
    single.saturating_add(copied)
}
