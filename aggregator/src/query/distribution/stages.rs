//! Cuts a plan into stages for several aggregators.
//!
//! ```text
//! coordinator      SortPreservingMergeExec
//!                    NetworkCoalesceExec            ── each aggregator sorts and joins the rows of its partitions
//! N aggregators        SortExec
//!                        HashJoinExec (partitioned)
//!                          NetworkShuffleExec       ── rows go where the hash of their key says
//! coordinator                RepartitionExec (hash)
//!                              ShardScan            ── leaves are asked as ever
//! ```
//!
//! Scans run on the coordinator, which has the read views of the query. The operators between a hash repartition and the
//! next operator that reads all partitions run on every aggregator. They compute nothing but what plain expressions can
//! say: functions find their query, and count what had no result, on the coordinator.
//!
//! Each aggregator merges its partitions into one before it sends them. Otherwise a merge that waits for one of them could
//! wait for ever: they share a connection, whose buffer may be full of rows of another one.
//!
//! A hash join filters the scan of its larger input by the keys of the smaller one. If several aggregators compute it, each
//! has only a share of the keys, so nothing is filtered. So a join whose smaller input is selected by conditions stays on the
//! coordinator: it often has few keys, and then the leaves find their documents faster than aggregators join all.

use std::sync::Arc;

use datafusion::{
    common::tree_node::{Transformed, TransformedResult as _, TreeNodeRecursion},
    error::Result,
    physical_expr::{
        Partitioning, PhysicalExpr,
        expressions::{
            BinaryExpr, CaseExpr, CastExpr, Column, DynamicFilterPhysicalExpr, InListExpr, IsNotNullExpr, IsNullExpr,
            LikeExpr, Literal, NegativeExpr, NotExpr, TryCastExpr,
        },
    },
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties as _,
        aggregates::{AggregateExec, AggregateMode},
        coalesce_partitions::CoalescePartitionsExec,
        coop::CooperativeExec,
        execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions},
        filter::FilterExec,
        joins::{HashJoinExec, PartitionMode, SortMergeJoinExec},
        projection::ProjectionExec,
        recursive_query::RecursiveQueryExec,
        repartition::RepartitionExec,
        sorts::{sort::SortExec, sort_preserving_merge::SortPreservingMergeExec},
    },
};
use datafusion_distributed::{NetworkBoundaryExt as _, NetworkCoalesceExec, NetworkShuffleExec};
use plan::walk::Walk as _;

use super::stage_exec::{StageEnd, StageExec};
use crate::query::{
    bound_functions::contains, forget_constants::is_forgetting, shard_scan::ShardScan, wide_rows::Watch,
};

/// The least rows of a top-k that are sorted on all aggregators.
const TOP_ROWS_MIN: usize = 100_000;
/// The rows of a batch until [`with_batch_rows`] knows them.
const BATCH_ROWS_UNKNOWN: usize = 1;

/// The plan in stages for so many aggregators, and the rows of their batches; `None` if none of its operators can run on
/// several.
pub(in crate::query) fn in_stages(
    plan: &Arc<dyn ExecutionPlan>,
    nodes: usize,
    batch_rows: usize,
) -> Result<Option<(Arc<dyn ExecutionPlan>, usize)>> {
    let merged: Arc<dyn ExecutionPlan> = match plan.output_partitioning().partition_count() {
        1 => Arc::clone(plan),
        // The library runs one partition of it.
        _ => Arc::new(CoalescePartitionsExec::new(Arc::clone(plan))),
    };
    let (staged, is_staged) = on_coordinator(&merged, nodes)?;
    if !is_staged {
        return Ok(None);
    }
    let mut fewest = batch_rows;
    let staged = with_batch_rows(&staged, batch_rows, &mut fewest)?;
    Ok(Some((staged, fewest)))
}

/// Tells each stage how many rows the plan wants in a batch at its place. What is between stages gets the fewest.
fn with_batch_rows(
    plan: &Arc<dyn ExecutionPlan>,
    batch_rows: usize,
    fewest: &mut usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    let below = Watch::of(plan.as_ref()).map_or(batch_rows, |watch| watch.input_batch_rows);
    *fewest = below.min(*fewest);
    let inputs: Result<Vec<_>> = (plan.children().into_iter())
        .map(|input| with_batch_rows(input, below, fewest))
        .collect();
    let inputs = inputs?;
    let stage = plan.downcast_ref::<StageExec>().map(|stage| stage.end);
    if let (Some(StageEnd::Sends { .. }), [input]) = (stage, inputs.as_slice()) {
        return Ok(sending(Arc::clone(input), below));
    }
    match inputs.is_empty() {
        true => Ok(Arc::clone(plan)),
        false => with_inputs(plan, inputs),
    }
}

/// The upper end of a stage.
fn sending(input: Arc<dyn ExecutionPlan>, batch_rows: usize) -> Arc<dyn ExecutionPlan> {
    let end = StageEnd::Sends { batch_rows };
    Arc::new(StageExec { input, end })
}

/// What receives the rows of the stage below a network boundary.
fn receiving(boundary: impl ExecutionPlan) -> Arc<dyn ExecutionPlan> {
    Arc::new(StageExec {
        input: Arc::new(boundary),
        end: StageEnd::Receives,
    })
}

/// A plan that runs on the coordinator, and whether parts of it run elsewhere now.
fn on_coordinator(plan: &Arc<dyn ExecutionPlan>, nodes: usize) -> Result<(Arc<dyn ExecutionPlan>, bool)> {
    if reads_all_partitions(plan.as_ref())
        && let Some(input) = plan.children().first()
        && let Some(staged) = below_merge(input, plan.fetch(), nodes)?
    {
        return Ok((with_inputs(plan, vec![staged])?, true));
    }
    // It runs its input again and again.
    if plan.is::<RecursiveQueryExec>() {
        return Ok((Arc::clone(plan), false));
    }
    let (mut inputs, mut is_staged) = (Vec::new(), false);
    for input in plan.children() {
        let (input, is_input_staged) = on_coordinator(input, nodes)?;
        inputs.push(input);
        is_staged |= is_input_staged;
    }
    match is_staged {
        true => Ok((with_inputs(plan, inputs)?, true)),
        false => Ok((Arc::clone(plan), false)),
    }
}

/// The input of an operator that reads all partitions, or so many rows of them, computed on all aggregators as far as they
/// can.
fn below_merge(
    plan: &Arc<dyn ExecutionPlan>,
    fetch: Option<usize>,
    nodes: usize,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let spread = match on_all(plan, nodes)?.filter(computes_much) {
        Some(spread) => Some(spread),
        None => sorted(plan, nodes)?,
    };
    if let Some(spread) = spread {
        // What a shuffle gives has no order, so it is that of a sort here.
        let merged: Arc<dyn ExecutionPlan> = match spread.output_ordering().cloned() {
            Some(order) => Arc::new(SortPreservingMergeExec::new(order, spread).with_fetch(fetch)),
            None => Arc::new(CoalescePartitionsExec::new(spread).with_fetch(fetch)),
        };
        let coalesced = NetworkCoalesceExec::try_new(sending(merged, BATCH_ROWS_UNKNOWN), nodes, 1)?;
        return Ok(Some(receiving(coalesced)));
    }
    // Functions of the last projections stay on the coordinator.
    match (is_partitionwise(plan.as_ref()), plan.children().as_slice()) {
        (true, [input]) => match below_merge(input, None, nodes)? {
            Some(staged) => with_inputs(plan, vec![staged]).map(Some),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// A plan that runs on every aggregator, each with some of the partitions; `None` if it cannot.
fn on_all(plan: &Arc<dyn ExecutionPlan>, nodes: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(repartition) = plan.downcast_ref::<RepartitionExec>() {
        return match repartition.partitioning() {
            // The network keeps no order.
            Partitioning::Hash(keys, _) if keys.iter().all(is_plain) && plan.output_ordering().is_none() => {
                shuffled(plan, repartition.input(), nodes)
            }
            _ => Ok(None),
        };
    }
    if !is_partitionwise(plan.as_ref()) || !computes_plainly(plan)? || narrows_scan(plan)? {
        return Ok(None);
    }
    let mut inputs = Vec::new();
    for input in plan.children() {
        match on_all(input, nodes)? {
            Some(input) => inputs.push(input),
            None => return Ok(None),
        }
    }
    match inputs.is_empty() {
        true => Ok(None),
        false => with_inputs(plan, inputs).map(Some),
    }
}

/// A hash repartition over the network, of an input on the coordinator or on all aggregators.
fn shuffled(
    repartition: &Arc<dyn ExecutionPlan>,
    input: &Arc<dyn ExecutionPlan>,
    nodes: usize,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let (input, producers) = match on_all(input, nodes)? {
        Some(spread) => (spread, nodes),
        None => (scanned(input, nodes)?, 1),
    };
    let input = sending(input, BATCH_ROWS_UNKNOWN);
    let shuffle = NetworkShuffleExec::try_new(with_inputs(repartition, vec![input])?, producers)?;
    Ok(Some(receiving(shuffle)))
}

/// What the coordinator sends to all aggregators. Its scans keep the filters of joins that run on the coordinator too; other
/// joins know only a share of the keys.
fn scanned(plan: &Arc<dyn ExecutionPlan>, nodes: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let (plan, _) = on_coordinator(plan, nodes)?;
    let mut below = Vec::new();
    plan.apply(|node| {
        if node.as_network_boundary().is_some() {
            return Ok(TreeNodeRecursion::Jump);
        }
        below.extend(filters_of(node));
        Ok(TreeNodeRecursion::Continue)
    })?;
    let filtered = |node: Arc<dyn ExecutionPlan>| {
        if node.as_network_boundary().is_some() {
            return Ok(Transformed::new(node, false, TreeNodeRecursion::Jump));
        }
        let scan = node.downcast_ref::<ShardScan>();
        Ok(match scan.and_then(|scan| scan.with_join_filters_of(&below)) {
            Some(scan) => Transformed::yes(Arc::new(scan) as Arc<dyn ExecutionPlan>),
            None => Transformed::no(node),
        })
    };
    plan.transform_down(filtered).data()
}

/// The ids of the dynamic filters of an operator.
fn filters_of(plan: &Arc<dyn ExecutionPlan>) -> impl Iterator<Item = u64> {
    let filters = plan.dynamic_expressions_produced().into_iter();
    filters.filter_map(|filter| filter.expression_id())
}

/// Whether this is a join that filters a scan of its larger input, and conditions select its smaller input.
fn narrows_scan(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let Some(join) = plan.downcast_ref::<HashJoinExec>() else {
        return Ok(false);
    };
    let known: Vec<u64> = filters_of(plan).collect();
    let has_filter = |node: &Arc<dyn ExecutionPlan>| {
        let scan = node.downcast_ref::<ShardScan>();
        Ok(scan.is_some_and(|scan| scan.has_join_filter_of(&known)))
    };
    let is_selected = |node: &Arc<dyn ExecutionPlan>| {
        let scan = node.downcast_ref::<ShardScan>();
        Ok(node.is::<FilterExec>() || scan.is_some_and(|scan| !scan.reads_all_documents()))
    };
    Ok(join.right().exists(has_filter)? && join.left().exists(is_selected)?)
}

/// Whether what would run on all aggregators does more than to pass rows on.
fn computes_much(spread: &Arc<dyn ExecutionPlan>) -> bool {
    let mut much = false;
    let _never_fails = spread.apply(|node| {
        let boundary = node.as_network_boundary();
        much |= boundary.is_some_and(|boundary| boundary.input_stage().task_count() > 1)
            || node.is::<HashJoinExec>()
            || node.is::<SortMergeJoinExec>()
            || node.is::<AggregateExec>()
            || node.is::<SortExec>();
        Ok(match boundary {
            Some(_) => TreeNodeRecursion::Jump,
            None => TreeNodeRecursion::Continue,
        })
    });
    much
}

/// A sort of rows that no repartition has spread. Where a row is sorted does not matter: the merge needs no groups.
fn sorted(plan: &Arc<dyn ExecutionPlan>, nodes: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let sort = plan.downcast_ref::<SortExec>();
    let Some(sort) = sort.filter(|sort| sort.preserve_partitioning()) else {
        return Ok(None);
    };
    if !computes_plainly(plan)? {
        return Ok(None);
    }
    // A small top-k is small wherever it is computed.
    if sort.fetch().is_some_and(|fetch| fetch < TOP_ROWS_MIN) {
        return Ok(None);
    }
    let partitions = sort.input().output_partitioning().partition_count();
    let schema = sort.input().schema();
    let simple = schema
        .fields()
        .iter()
        .enumerate()
        .filter(|(_, field)| !field.data_type().is_nested());
    let keys = simple.map(|(number, field)| Arc::new(Column::new(field.name(), number)) as Arc<dyn PhysicalExpr>);
    let keys: Vec<_> = keys.collect();
    if keys.is_empty() {
        return Ok(None);
    }
    let input = sending(scanned(sort.input(), nodes)?, BATCH_ROWS_UNKNOWN);
    let repartition = RepartitionExec::try_new(input, Partitioning::Hash(keys, partitions))?;
    let shuffle = NetworkShuffleExec::try_new(Arc::new(repartition), 1)?;
    with_inputs(plan, vec![receiving(shuffle)]).map(Some)
}

/// Whether an operator reads all partitions of its input, and has one itself.
fn reads_all_partitions(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<CoalescePartitionsExec>() || plan.is::<SortPreservingMergeExec>()
}

/// Whether each partition of an operator depends only on the same partition of its inputs.
fn is_partitionwise(plan: &dyn ExecutionPlan) -> bool {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        return join.mode == PartitionMode::Partitioned && !join.null_aware;
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        use AggregateMode::{FinalPartitioned, Partial, PartialReduce, SinglePartitioned};
        let mode = aggregate.mode();
        return matches!(mode, Partial | PartialReduce | FinalPartitioned | SinglePartitioned);
    }
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        return sort.preserve_partitioning();
    }
    plan.is::<SortMergeJoinExec>()
        || plan.is::<FilterExec>()
        || plan.is::<ProjectionExec>()
        || plan.is::<CooperativeExec>()
        || Watch::of(plan).is_some()
        || is_forgetting(plan)
}

/// Whether an operator may be sent to another aggregator.
pub(super) fn is_sent(operator: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let plan = operator.as_ref();
    let is_known = is_partitionwise(plan)
        || reads_all_partitions(plan)
        || plan.is::<StageExec>()
        || plan.is::<RepartitionExec>()
        || plan.is::<NetworkShuffleExec>()
        || plan.is::<NetworkCoalesceExec>();
    Ok(is_known && computes_plainly(operator)?)
}

/// Whether the expressions of an operator are plain.
fn computes_plainly(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    let mut plainly = true;
    plan.apply_expressions(&mut |expr| {
        plainly &= is_plain(expr);
        Ok(match plainly {
            true => TreeNodeRecursion::Continue,
            false => TreeNodeRecursion::Stop,
        })
    })?;
    Ok(plainly)
}

/// Whether an expression means the same wherever it is computed, and reports nothing.
fn is_plain(expr: &Arc<dyn PhysicalExpr>) -> bool {
    !contains(expr, |part| {
        !(part.is::<Column>()
            || part.is::<Literal>()
            || part.is::<BinaryExpr>()
            || part.is::<NotExpr>()
            || part.is::<IsNullExpr>()
            || part.is::<IsNotNullExpr>()
            || part.is::<NegativeExpr>()
            || part.is::<CaseExpr>()
            || part.is::<InListExpr>()
            || part.is::<LikeExpr>()
            || part.is::<CastExpr>()
            || part.is::<TryCastExpr>()
            || part.is::<DynamicFilterPhysicalExpr>())
    })
}

fn with_inputs(plan: &Arc<dyn ExecutionPlan>, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
    Arc::clone(plan).replace_children(inputs, options)
}

#[cfg(test)]
mod tests;
