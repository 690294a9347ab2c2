//! `count(DISTINCT …)` of texts for many groups. DataFusion uses a hash table per group, which takes 33 KiB before the
//! first value and is not counted as memory. Here all groups share one table of (group, value) pairs.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, BooleanArray, Int64Array, ListArray, UInt64Array},
        buffer::OffsetBuffer,
        compute::{and, filter, is_not_null, take},
        datatypes::{DataType, Field, FieldRef, Schema, UInt64Type},
    },
    common::{Result, ScalarValue, exec_err},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
        Signature, StatisticsArgs,
        function::{AccumulatorArgs, StateFieldsArgs},
    },
    physical_plan::aggregates::{
        group_values::{GroupValues, new_group_values},
        order::GroupOrdering,
    },
};

use super::constants;
use crate::arrays;

/// Replaces DataFusion's `count`; returns any other function unchanged.
pub(super) fn with_shared_table(function: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    match function.name() {
        "count" => Arc::new(AggregateUDF::from(CountUdaf { function })),
        _ => function,
    }
}

/// DataFusion's `count`, except that it counts the distinct texts of groups in [`DistinctCounts`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CountUdaf {
    function: Arc<AggregateUDF>,
}

fn counts_distinct_texts(args: &AccumulatorArgs) -> bool {
    let is_text = |data_type: &DataType| {
        constants::is_long(data_type) && !data_type.is_nested() && !matches!(data_type, DataType::Dictionary(..))
    };
    args.is_distinct && matches!(args.expr_fields, [field] if is_text(field.data_type()))
}

impl AggregateUDFImpl for CountUdaf {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.return_type(types)
    }

    fn is_nullable(&self) -> bool {
        self.function.is_nullable()
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.function.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.function.accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.function.create_sliding_accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        counts_distinct_texts(&args) || self.function.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        match counts_distinct_texts(&args) {
            true => Ok(Box::new(DistinctCounts::new(args.expr_fields[0].data_type())?)),
            false => self.function.create_groups_accumulator(args),
        }
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.function.reverse_udf()
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        self.function.value_from_stats(args)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.function.default_value(data_type)
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.function.inner().set_monotonicity(data_type)
    }
}

/// Counts the distinct values of each group.
struct DistinctCounts {
    /// The item field of the lists in a state.
    item: FieldRef,
    /// The distinct (group, value) pairs.
    pairs: Box<dyn GroupValues>,
    /// The number of distinct values of each group.
    counts: Vec<i64>,
    /// The pair index of each row of the last batch; a reused buffer.
    pair_indices: Vec<usize>,
    /// Replaces `pairs` once some groups are emitted: the values of the remaining groups, group by group.
    sorted: Option<ArrayRef>,
}

impl DistinctCounts {
    fn new(data_type: &DataType) -> Result<Self> {
        let schema = Schema::new(vec![
            Field::new("group", DataType::UInt64, false),
            Field::new("value", data_type.clone(), true),
        ]);
        let pairs = new_group_values(Arc::new(schema), &GroupOrdering::None)?;
        Ok(Self {
            item: Arc::new(Field::new_list_field(data_type.clone(), true)),
            pairs,
            counts: Vec::new(),
            pair_indices: Vec::new(),
            sorted: None,
        })
    }

    /// Adds pairs. NULL values do not count.
    fn add(&mut self, groups: &ArrayRef, values: &ArrayRef, selected: Option<&BooleanArray>) -> Result<()> {
        let pairs = match counted_rows(values, selected)? {
            Some(counted) => [filter(groups, &counted)?, filter(values, &counted)?],
            None => [Arc::clone(groups), Arc::clone(values)],
        };
        let before = self.pairs.len();
        self.pairs.intern(&pairs, &mut self.pair_indices)?;
        let mut counted = vec![false; self.pairs.len() - before];
        for (pair, group) in self
            .pair_indices
            .iter()
            .zip(pairs[0].as_primitive::<UInt64Type>().values())
        {
            if let Some(counted) = pair.checked_sub(before).and_then(|new| counted.get_mut(new))
                && !std::mem::replace(counted, true)
            {
                self.counts[*group as usize] += 1;
            }
        }
        Ok(())
    }

    /// Removes the first groups, or all: returns their counts, and their values group by group.
    fn take_groups(&mut self, emit_to: EmitTo) -> Result<(Vec<i64>, ArrayRef)> {
        let all = match self.sorted.take() {
            Some(sorted) => sorted,
            None => self.drain_sorted()?,
        };
        let counts = emit_to.take_needed(&mut self.counts);
        let taken = counts.iter().sum::<i64>() as usize;
        self.sorted = (taken < all.len()).then(|| all.slice(taken, all.len() - taken));
        Ok((counts, all.slice(0, taken)))
    }

    /// Removes all pairs; returns their values group by group.
    fn drain_sorted(&mut self) -> Result<ArrayRef> {
        let [groups, values] = <[ArrayRef; 2]>::try_from(self.pairs.emit(EmitTo::All)?)
            .or_else(|_| exec_err!("a pair has two columns"))?;
        self.pairs.clear_shrink(0);
        // The index of the first value of each group.
        let mut next: Vec<u64> = self
            .counts
            .iter()
            .scan(0, |end, count| Some(std::mem::replace(end, *end + *count as u64)))
            .collect();
        let mut rows = vec![0_u64; values.len()];
        for (row, group) in (0_u64..).zip(groups.as_primitive::<UInt64Type>().values()) {
            let next = &mut next[*group as usize];
            rows[*next as usize] = row;
            *next += 1;
        }
        Ok(take(&values, &UInt64Array::from(rows), None)?)
    }

    /// Turns the remaining values back into pairs, to add more.
    fn restore_pairs(&mut self) -> Result<()> {
        let Some(sorted) = self.sorted.take() else {
            return Ok(());
        };
        let groups = self
            .counts
            .iter()
            .enumerate()
            .flat_map(|(group, count)| std::iter::repeat_n(group, *count as usize));
        self.pairs
            .intern(&[group_array(groups), compacted(&sorted)?], &mut self.pair_indices)
    }
}

/// A copy of a slice, without the array it was sliced from.
fn compacted(values: &ArrayRef) -> Result<ArrayRef> {
    match values.as_string_view_opt() {
        Some(_) => Ok(arrays::compact(values)),
        None => Ok(take(
            values,
            &UInt64Array::from_iter_values(0..values.len() as u64),
            None,
        )?),
    }
}

/// The rows that are selected and not NULL; None if all are.
fn counted_rows(values: &ArrayRef, selected: Option<&BooleanArray>) -> Result<Option<BooleanArray>> {
    let not_null = (values.null_count() > 0).then(|| is_not_null(values)).transpose()?;
    Ok(match (not_null, selected) {
        (Some(not_null), Some(selected)) => Some(and(&not_null, selected)?),
        (not_null, selected) => not_null.or_else(|| selected.cloned()),
    })
}

fn group_array(indices: impl Iterator<Item = usize>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(indices.map(|group| group as u64)))
}

impl GroupsAccumulator for DistinctCounts {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        selected: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        let [values] = values else {
            return exec_err!("count(DISTINCT …) takes one column");
        };
        self.restore_pairs()?;
        self.counts.resize(group_count, 0);
        self.add(&group_array(groups.iter().copied()), values, selected)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], group_count: usize) -> Result<()> {
        let [lists] = states else {
            return exec_err!("the state of count(DISTINCT …) is one list");
        };
        let lists = lists.as_list::<i32>();
        self.restore_pairs()?;
        self.counts.resize(group_count, 0);
        let ends = lists.value_offsets();
        let (first, last) = (
            ends.first().copied().unwrap_or_default() as usize,
            ends.last().copied().unwrap_or_default() as usize,
        );
        let group_of_item = ends
            .windows(2)
            .zip(groups)
            .flat_map(|(ends, group)| std::iter::repeat_n(*group, (ends[1] - ends[0]) as usize));
        self.add(
            &group_array(group_of_item),
            &lists.values().slice(first, last - first),
            None,
        )
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (counts, values) = self.take_groups(emit_to)?;
        let offsets = OffsetBuffer::from_lengths(counts.iter().map(|count| *count as usize));
        Ok(vec![Arc::new(ListArray::try_new(
            Arc::clone(&self.item),
            offsets,
            compacted(&values)?,
            None,
        )?)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], selected: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let [values] = values else {
            return exec_err!("count(DISTINCT …) takes one column");
        };
        let (offsets, values) = match counted_rows(values, selected)? {
            // The mask may be NULL for rows that are not selected.
            Some(counted) => {
                let lengths = counted.iter().map(|counted| usize::from(counted == Some(true)));
                (OffsetBuffer::from_lengths(lengths), filter(values, &counted)?)
            }
            None => (
                OffsetBuffer::from_lengths(std::iter::repeat_n(1, values.len())),
                Arc::clone(values),
            ),
        };
        Ok(vec![Arc::new(ListArray::try_new(
            Arc::clone(&self.item),
            offsets,
            values,
            None,
        )?)])
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        if matches!(emit_to, EmitTo::All) {
            self.pairs.clear_shrink(0);
            self.sorted = None;
            return Ok(Arc::new(Int64Array::from(std::mem::take(&mut self.counts))));
        }
        let (counts, _) = self.take_groups(emit_to)?;
        Ok(Arc::new(Int64Array::from(counts)))
    }

    fn size(&self) -> usize {
        let sorted = self.sorted.as_ref().map_or(0, |sorted| sorted.get_array_memory_size());
        size_of_val(self)
            + sorted
            + self.pairs.size()
            + self.counts.capacity() * size_of::<i64>()
            + self.pair_indices.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests;
