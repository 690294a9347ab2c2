//! Which documents a hash join can use, as a condition for the leaves.
//!
//! ```text
//!   HashJoinExec ── build side: read first ──> its keys
//!        │                                       │ DynamicFilterPhysicalExpr
//!        └───────── probe side: ShardScan <──────┘ ──> leaves: only documents that may have one of the keys
//! ```
//!
//! DataFusion's rule maps the columns of the condition by name from operator to operator. If the probe side of any join
//! has two columns of one name, no join of the plan gets a condition ([`JoinFilterPushdown`]).
//!
//! A scan asks for the condition when it is first polled. A hash join polls its probe side only when it knows all keys
//! of its build side. The join compares every row itself, so a scan uses the parts of the condition that an index can
//! look up and leaves out the others.

use std::{collections::HashSet, sync::Arc};

use datafusion::{
    arrow::datatypes::Schema,
    common::{Column as ColumnName, Result, ScalarValue, config::ConfigOptions},
    logical_expr::{Expr, Operator, expr::InList, lit, or},
    physical_expr::{
        PhysicalExpr,
        expressions::{
            BinaryExpr, CaseExpr, Column as ColumnExpr, DynamicFilterPhysicalExpr, InListExpr, IsNullExpr, Literal,
        },
    },
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        coalesce_partitions::CoalescePartitionsExec,
        joins::{HashJoinExec, PartitionMode},
        repartition::RepartitionExec,
    },
};
use plan::{Column, Type};

/// Most different keys of a build side (of each of its partitions) that are sent to the leaves. Of more keys, only the
/// least and the greatest are.
pub(super) const KEYS_MAX: usize = 1_000;

/// DataFusion's rule that passes the conditions of joins down to the scans. It runs only on plans for which it finds the
/// right columns.
#[derive(Debug)]
pub(super) struct JoinFilterPushdown(pub Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for JoinFilterPushdown {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        match can_push_down(&plan) {
            true => self.0.optimize(plan, config),
            false => Ok(plan),
        }
    }

    fn name(&self) -> &str {
        "JoinFilterPushdown"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether, for every join, DataFusion's rule finds the right columns in the probe side, and no join in the probe side
/// waits for a partition that is never read.
fn can_push_down(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let is_safe = |join: &HashJoinExec| {
        let reads_all = *join.partition_mode() != PartitionMode::Partitioned || !waits_for_partitions(join.right());
        reads_all && !names_repeat(join.right())
    };
    plan.downcast_ref::<HashJoinExec>().is_none_or(is_safe) && plan.children().into_iter().all(can_push_down)
}

fn names_repeat(plan: &Arc<dyn ExecutionPlan>) -> bool {
    fn repeats(schema: &Schema) -> bool {
        let mut names = HashSet::new();
        !schema.fields().iter().all(|field| names.insert(field.name()))
    }
    repeats(&plan.schema()) || plan.children().into_iter().any(names_repeat)
}

/// Whether a join below waits until each of its partitions is read. A partitioned join above does not read those for
/// which its build side is empty, unless an operator in between reads all of them.
fn waits_for_partitions(plan: &Arc<dyn ExecutionPlan>) -> bool {
    if plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>() {
        return false;
    }
    let collects = |join: &HashJoinExec| *join.partition_mode() == PartitionMode::CollectLeft;
    plan.downcast_ref::<HashJoinExec>().is_some_and(collects) || plan.children().into_iter().any(waits_for_partitions)
}

/// Whether a pushed down condition changes while the plan runs. All others were pushed down as conditions of the
/// statement.
pub(super) fn is_dynamic(condition: &Arc<dyn PhysicalExpr>) -> bool {
    condition.is::<DynamicFilterPhysicalExpr>()
}

/// What is known now about the rows that can join: conditions over flat column names that all of them meet.
pub(super) fn known_conditions(filter: &Arc<dyn PhysicalExpr>, columns: &[Column]) -> Vec<Expr> {
    let mut known = Vec::new();
    collect(filter, columns, &mut known);
    // The values say more than their bounds.
    let listed: HashSet<ColumnName> = known.iter().filter_map(listed_column).cloned().collect();
    known.retain(|condition| match condition {
        Expr::BinaryExpr(comparison) if comparison.op != Operator::Or => {
            !matches!(comparison.left.as_ref(), Expr::Column(column) if listed.contains(column))
        }
        _ => true,
    });
    known
}

/// The column of a list of values.
fn listed_column(condition: &Expr) -> Option<&ColumnName> {
    match condition {
        Expr::InList(InList { expr, .. }) => expr.try_as_col(),
        _ => None,
    }
}

/// Adds the parts of a conjunction that can be looked up.
fn collect(condition: &Arc<dyn PhysicalExpr>, columns: &[Column], known: &mut Vec<Expr>) {
    if let Some(filter) = condition.downcast_ref::<DynamicFilterPhysicalExpr>() {
        if let Ok(current) = filter.current() {
            collect(&current, columns, known);
        }
        return;
    }
    match condition.downcast_ref::<BinaryExpr>() {
        Some(both) if *both.op() == Operator::And => {
            collect(both.left(), columns, known);
            collect(both.right(), columns, known);
        }
        _ => known.extend(implied(condition, columns)),
    }
}

/// A condition that is true wherever this one is, if it says anything.
fn implied(condition: &Arc<dyn PhysicalExpr>, columns: &[Column]) -> Option<Expr> {
    if let Some(list) = condition.downcast_ref::<InListExpr>() {
        let (column, _) = column(list.expr(), columns)?;
        let values: Option<Vec<ScalarValue>> = list.list().iter().map(constant).collect();
        // DataFusion lists the key of every row of the build side, with repetitions.
        let mut found = HashSet::new();
        let values = values?.into_iter().filter(|value| found.insert(value.clone()));
        return (!list.negated()).then(|| column.in_list(values.map(lit).collect(), false));
    }
    if let Some(case) = condition.downcast_ref::<CaseExpr>() {
        // One branch for each partition of the build side.
        let branches = case
            .when_then_expr()
            .iter()
            .map(|(_, then)| then)
            .chain(case.else_expr());
        return any_of(branches.map(|branch| conjunction(branch, columns)));
    }
    if let Some(is_null) = condition.downcast_ref::<IsNullExpr>() {
        return Some(column(is_null.arg(), columns)?.0.is_null());
    }
    if let Some(literal) = condition.downcast_ref::<Literal>() {
        // For example where the build side is empty.
        return matches!(literal.value(), ScalarValue::Boolean(Some(false))).then(|| lit(false));
    }
    let binary = condition.downcast_ref::<BinaryExpr>()?;
    match binary.op() {
        Operator::Or => any_of(
            [binary.left(), binary.right()]
                .map(|side| conjunction(side, columns))
                .into_iter(),
        ),
        op @ (Operator::Eq | Operator::GtEq | Operator::LtEq | Operator::Gt | Operator::Lt) => {
            let (left, to) = column(binary.left(), columns)?;
            // Between two texts there are too many others.
            let is_worth_it = *op == Operator::Eq || matches!(to, Type::Int | Type::Double | Type::Time);
            let right = constant(binary.right())?;
            is_worth_it.then(|| datafusion::logical_expr::binary_expr(left, *op, lit(right)))
        }
        _ => None,
    }
}

/// All that is known of a conjunction, if anything.
fn conjunction(condition: &Arc<dyn PhysicalExpr>, columns: &[Column]) -> Option<Expr> {
    known_conditions(condition, columns).into_iter().reduce(Expr::and)
}

/// Nothing is known of alternatives if nothing is known of one. Lists of the same column become one.
fn any_of(mut alternatives: impl Iterator<Item = Option<Expr>>) -> Option<Expr> {
    let first = alternatives.next()??;
    alternatives.try_fold(first, |found, other| {
        Some(match (found, other?) {
            (Expr::Literal(ScalarValue::Boolean(Some(false)), _), other) => other,
            (found, Expr::Literal(ScalarValue::Boolean(Some(false)), _)) => found,
            (Expr::InList(mut found), Expr::InList(mut other)) if found.expr == other.expr => {
                found.list.append(&mut other.list);
                Expr::InList(found)
            }
            (found, other) => or(found, other),
        })
    })
}

/// The column of the scan that this expression is, and its type.
fn column(expr: &Arc<dyn PhysicalExpr>, columns: &[Column]) -> Option<(Expr, Type)> {
    let column = columns.get(expr.downcast_ref::<ColumnExpr>()?.index())?;
    let name = ColumnName::new_unqualified(column.name());
    Some((Expr::Column(name), column.read_as.to))
}

fn constant(expr: &Arc<dyn PhysicalExpr>) -> Option<ScalarValue> {
    Some(expr.downcast_ref::<Literal>()?.value().clone())
}

#[cfg(test)]
mod tests {
    use datafusion::physical_expr::expressions::{case, in_list, is_null, lit as constant_of};
    use plan::{Path, column::schema};

    use super::*;

    fn columns() -> Vec<Column> {
        let path = |name: &str, to| Column::path(Path::parse(name).expect("a path"), to);
        vec![path("name", Type::Text), path("n", Type::Int)]
    }

    fn on(index: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(ColumnExpr::new("key", index))
    }

    fn one_of(names: &[&str]) -> Arc<dyn PhysicalExpr> {
        let schema: &Schema = &schema(&columns());
        let name = |name: &&str| constant_of(ScalarValue::Utf8View(Some((*name).to_owned())));
        in_list(on(0), names.iter().map(name).collect(), &false, schema).expect("a list")
    }

    fn binary(left: Arc<dyn PhysicalExpr>, op: Operator, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        Arc::new(BinaryExpr::new(left, op, right))
    }

    fn known(condition: Arc<dyn PhysicalExpr>) -> Vec<String> {
        let filter = Arc::new(DynamicFilterPhysicalExpr::new(vec![on(0), on(1)], constant_of(true)));
        filter.update(condition).expect("an update");
        let filter: Arc<dyn PhysicalExpr> = filter;
        let known = known_conditions(&filter, &columns());
        known.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn keys_are_known_by_their_values_or_else_by_their_bounds() {
        let between = |index, low: ScalarValue, high: ScalarValue| {
            binary(
                binary(on(index), Operator::GtEq, constant_of(low)),
                Operator::And,
                binary(on(index), Operator::LtEq, constant_of(high)),
            )
        };
        let texts = between(0, "a".into(), "c".into());
        let ints = between(1, 1i64.into(), 9i64.into());
        assert_eq!(
            known(binary(texts.clone(), Operator::And, ints)),
            ["n:int >= Int64(1)", "n:int <= Int64(9)"]
        );
        assert_eq!(
            known(binary(texts, Operator::And, one_of(&["a", "c", "a"]))),
            [r#"name:text IN ([Utf8View("a"), Utf8View("c")])"#]
        );
    }

    #[test]
    fn the_keys_of_all_partitions_can_join() {
        let routed = |other| {
            let remainder = binary(on(1), Operator::Modulo, constant_of(2i64));
            let branches = vec![(constant_of(0i64), one_of(&["a"])), (constant_of(1i64), other)];
            case(Some(remainder), branches, Some(constant_of(false))).expect("branches")
        };
        assert_eq!(
            known(routed(one_of(&["b"]))),
            [r#"name:text IN ([Utf8View("a"), Utf8View("b")])"#]
        );
        // Nothing is known about the keys of one partition.
        assert_eq!(known(routed(constant_of(true))), Vec::<String>::new());
        let null = is_null(on(0)).expect("a condition");
        assert_eq!(
            known(binary(null, Operator::Or, one_of(&["a"]))),
            [r#"name:text IS NULL OR name:text IN ([Utf8View("a")])"#]
        );
    }

    #[test]
    fn what_leaves_cannot_look_up_is_left_to_the_join() {
        let not_in = in_list(
            on(0),
            vec![constant_of(ScalarValue::Utf8View(Some("a".to_owned())))],
            &true,
            &schema(&columns()),
        );
        for condition in [
            constant_of(true),
            binary(on(0), Operator::NotEq, constant_of("a")),
            binary(
                one_of(&["a"]),
                Operator::Or,
                binary(on(0), Operator::LikeMatch, constant_of("a")),
            ),
            binary(on(7), Operator::Eq, constant_of(1i64)),
            not_in.expect("a list"),
        ] {
            assert_eq!(known(condition.clone()), Vec::<String>::new(), "{condition}");
        }
        assert_eq!(known(constant_of(false)), ["Boolean(false)"], "an empty build side");
    }
}
