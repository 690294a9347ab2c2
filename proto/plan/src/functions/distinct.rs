//! `count(DISTINCT …)` of texts for each of many groups. The library keeps a hash table of its own for each group
//! there, of 33 KiB before the first value, and counts none of it; here all groups share one table of pairs of group
//! and value.

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

/// The function in the place of the library's `count`; any other as it is.
pub fn shared(function: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    match function.name() {
        "count" => Arc::new(AggregateUDF::from(Count { function })),
        _ => function,
    }
}

/// The library's `count`, but for the distinct texts of groups.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Count {
    function: Arc<AggregateUDF>,
}

fn counts_distinct_texts(args: &AccumulatorArgs) -> bool {
    let texts = |of: &DataType| constants::is_long(of) && !of.is_nested() && !matches!(of, DataType::Dictionary(..));
    args.is_distinct && matches!(args.expr_fields, [field] if texts(field.data_type()))
}

impl AggregateUDFImpl for Count {
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

    fn default_value(&self, of: &DataType) -> Result<ScalarValue> {
        self.function.default_value(of)
    }

    fn set_monotonicity(&self, of: &DataType) -> SetMonotonicity {
        self.function.inner().set_monotonicity(of)
    }
}

/// Counts the distinct values of each group.
struct DistinctCounts {
    /// The type of the values, as a state has them.
    item: FieldRef,
    /// Each value of each group once.
    pairs: Box<dyn GroupValues>,
    /// How many values each group has.
    counts: Vec<i64>,
    /// The pair of each row that was taken in last.
    places: Vec<usize>,
    /// In the place of `pairs`, once some are taken out: the values of all groups that are left, group by group.
    sorted: Option<ArrayRef>,
}

impl DistinctCounts {
    fn new(of: &DataType) -> Result<Self> {
        let schema = Schema::new(vec![
            Field::new("group", DataType::UInt64, false),
            Field::new("value", of.clone(), true),
        ]);
        let pairs = new_group_values(Arc::new(schema), &GroupOrdering::None)?;
        Ok(Self {
            item: Arc::new(Field::new_list_field(of.clone(), true)),
            pairs,
            counts: Vec::new(),
            places: Vec::new(),
            sorted: None,
        })
    }

    /// Takes in pairs. Values that are NULL do not count.
    fn add(&mut self, groups: &ArrayRef, values: &ArrayRef, wanted: Option<&BooleanArray>) -> Result<()> {
        let pairs = match counted(values, wanted)? {
            Some(counted) => [filter(groups, &counted)?, filter(values, &counted)?],
            None => [Arc::clone(groups), Arc::clone(values)],
        };
        let before = self.pairs.len();
        self.pairs.intern(&pairs, &mut self.places)?;
        let mut counted = vec![false; self.pairs.len() - before];
        for (place, group) in self.places.iter().zip(pairs[0].as_primitive::<UInt64Type>().values()) {
            if let Some(counted) = place.checked_sub(before).and_then(|new| counted.get_mut(new))
                && !std::mem::replace(counted, true)
            {
                self.counts[*group as usize] += 1;
            }
        }
        Ok(())
    }

    /// Takes the first groups out, or all: their counts, and their values, group by group.
    fn take(&mut self, emit_to: EmitTo) -> Result<(Vec<i64>, ArrayRef)> {
        let all = match self.sorted.take() {
            Some(sorted) => sorted,
            None => self.sort()?,
        };
        let counts = emit_to.take_needed(&mut self.counts);
        let taken = counts.iter().sum::<i64>() as usize;
        self.sorted = (taken < all.len()).then(|| all.slice(taken, all.len() - taken));
        Ok((counts, all.slice(0, taken)))
    }

    /// The values of all groups, group by group; no pair is left.
    fn sort(&mut self) -> Result<ArrayRef> {
        let [groups, values] = <[ArrayRef; 2]>::try_from(self.pairs.emit(EmitTo::All)?)
            .or_else(|_| exec_err!("a pair has two columns"))?;
        self.pairs.clear_shrink(0);
        // Where the values of each group begin.
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

    /// Goes on with the values that are left.
    fn resume(&mut self) -> Result<()> {
        let Some(sorted) = self.sorted.take() else {
            return Ok(());
        };
        let groups = self
            .counts
            .iter()
            .enumerate()
            .flat_map(|(group, count)| std::iter::repeat_n(group, *count as usize));
        self.pairs.intern(&[groups_of(groups), own(&sorted)?], &mut self.places)
    }
}

/// Values without those that they were cut out of.
fn own(values: &ArrayRef) -> Result<ArrayRef> {
    match values.as_string_view_opt() {
        Some(_) => Ok(arrays::compact(values)),
        None => Ok(take(
            values,
            &UInt64Array::from_iter_values(0..values.len() as u64),
            None,
        )?),
    }
}

/// The rows whose value is wanted and not NULL; nothing where that are all.
fn counted(values: &ArrayRef, wanted: Option<&BooleanArray>) -> Result<Option<BooleanArray>> {
    let known = (values.null_count() > 0).then(|| is_not_null(values)).transpose()?;
    Ok(match (known, wanted) {
        (Some(known), Some(wanted)) => Some(and(&known, wanted)?),
        (known, wanted) => known.or_else(|| wanted.cloned()),
    })
}

fn groups_of(indices: impl Iterator<Item = usize>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(indices.map(|group| group as u64)))
}

impl GroupsAccumulator for DistinctCounts {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        wanted: Option<&BooleanArray>,
        groups_in_all: usize,
    ) -> Result<()> {
        let [values] = values else {
            return exec_err!("one column is counted");
        };
        self.resume()?;
        self.counts.resize(groups_in_all, 0);
        self.add(&groups_of(groups.iter().copied()), values, wanted)
    }

    fn merge_batch(&mut self, states: &[ArrayRef], groups: &[usize], groups_in_all: usize) -> Result<()> {
        let [lists] = states else {
            return exec_err!("the state is one list");
        };
        let lists = lists.as_list::<i32>();
        self.resume()?;
        self.counts.resize(groups_in_all, 0);
        let ends = lists.value_offsets();
        let (first, last) = (
            ends.first().copied().unwrap_or_default() as usize,
            ends.last().copied().unwrap_or_default() as usize,
        );
        let of_each = ends
            .windows(2)
            .zip(groups)
            .flat_map(|(ends, group)| std::iter::repeat_n(*group, (ends[1] - ends[0]) as usize));
        self.add(&groups_of(of_each), &lists.values().slice(first, last - first), None)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let (counts, values) = self.take(emit_to)?;
        let offsets = OffsetBuffer::from_lengths(counts.iter().map(|count| *count as usize));
        Ok(vec![Arc::new(ListArray::try_new(
            Arc::clone(&self.item),
            offsets,
            own(&values)?,
            None,
        )?)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], wanted: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let [values] = values else {
            return exec_err!("one column is counted");
        };
        let (offsets, values) = match counted(values, wanted)? {
            // A row that is not wanted is NULL.
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
        let (counts, _) = self.take(emit_to)?;
        Ok(Arc::new(Int64Array::from(counts)))
    }

    fn size(&self) -> usize {
        let sorted = self.sorted.as_ref().map_or(0, |sorted| sorted.get_array_memory_size());
        size_of_val(self)
            + sorted
            + self.pairs.size()
            + self.counts.capacity() * size_of::<i64>()
            + self.places.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use datafusion::arrow::{array::StringViewArray, datatypes::Int64Type};

    use super::*;

    /// A text of the value, or none; short ones and long ones.
    fn text(value: u64) -> Option<String> {
        (value > 0).then(|| {
            if value.is_multiple_of(2) {
                value.to_string()
            } else {
                format!("a text that is not kept inline: {value}")
            }
        })
    }

    #[test]
    fn each_group_counts_its_values_once_however_they_come_and_go() {
        let (mut counts, mut other) = (
            DistinctCounts::new(&DataType::Utf8View).expect("counts"),
            DistinctCounts::new(&DataType::Utf8View).expect("counts"),
        );
        let mut plain: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
        let (mut gone, mut groups_in_all) = (0, 0);
        for step in 0..300_usize {
            let rows: Vec<(usize, u64, Option<bool>)> = (0..20)
                .map(|row| {
                    let n = step * 20 + row;
                    (
                        gone + (n * 7919) % (step / 10 + 3),
                        (n as u64 * 104_729) % 23,
                        (step % 3 > 0).then_some(n % 5 > 0),
                    )
                })
                .collect();
            groups_in_all = groups_in_all.max(rows.iter().map(|row| row.0 + 1).max().expect("rows"));
            for (group, value, wanted) in &rows {
                let values = plain.entry(*group).or_default();
                if *value > 0 && wanted.unwrap_or(true) {
                    values.insert(*value);
                }
            }
            let values: ArrayRef = Arc::new(StringViewArray::from_iter(rows.iter().map(|row| text(row.1))));
            let groups: Vec<usize> = rows.iter().map(|row| row.0 - gone).collect();
            let wanted = rows[0]
                .2
                .is_some()
                .then(|| rows.iter().map(|row| row.2).collect::<BooleanArray>());
            // A batch comes as it is, as states of its rows, or as those of another accumulator.
            if step % 4 < 2 {
                counts
                    .update_batch(&[values], &groups, wanted.as_ref(), groups_in_all - gone)
                    .expect("taken in");
            } else if step % 4 == 2 {
                let states = counts.convert_to_state(&[values], wanted.as_ref()).expect("states");
                counts
                    .merge_batch(&states, &groups, groups_in_all - gone)
                    .expect("merged");
            } else {
                other
                    .update_batch(&[values], &groups, wanted.as_ref(), groups_in_all - gone)
                    .expect("taken in");
                let states = other.state(EmitTo::All).expect("states");
                let all: Vec<usize> = (0..groups_in_all - gone).collect();
                counts.merge_batch(&states, &all, groups_in_all - gone).expect("merged");
            }
            // From time to time all goes through states that are given in pieces, …
            if step % 23 == 22 {
                let mut pieces = DistinctCounts::new(&DataType::Utf8View).expect("counts");
                let all = groups_in_all - gone;
                for from in (0..all).step_by(5) {
                    let some = 5.min(all - from);
                    let states = counts.state(EmitTo::First(some)).expect("states");
                    let groups: Vec<usize> = (from..from + some).collect();
                    // Of a slice of a list, what it shows.
                    let states = [states[0].slice(0, 1), states[0].slice(1, some - 1)];
                    pieces.merge_batch(&states[..1], &groups[..1], all).expect("merged");
                    pieces.merge_batch(&states[1..], &groups[1..], all).expect("merged");
                }
                counts = pieces;
            }
            // … or the first groups go.
            if step % 17 == 16 {
                let some = (groups_in_all - gone) / 2;
                let given = counts.evaluate(EmitTo::First(some)).expect("counts");
                let expected: Vec<i64> = (gone..gone + some)
                    .map(|group| plain.get(&group).map_or(0, |values| values.len() as i64))
                    .collect();
                assert_eq!(
                    given.as_primitive::<Int64Type>().values().to_vec(),
                    expected,
                    "step {step}"
                );
                gone += some;
            }
        }
        let given = counts.evaluate(EmitTo::All).expect("counts");
        let expected: Vec<i64> = (gone..groups_in_all)
            .map(|group| plain.get(&group).map_or(0, |values| values.len() as i64))
            .collect();
        assert_eq!(given.as_primitive::<Int64Type>().values().to_vec(), expected);
        assert!(
            expected.len() > 10 && expected.iter().any(|count| *count > 5),
            "{expected:?}"
        );
    }

    #[test]
    fn a_group_takes_what_it_counts() {
        let mut counts = DistinctCounts::new(&DataType::Utf8View).expect("counts");
        let groups: Vec<usize> = (0..50_000).collect();
        let values: ArrayRef = Arc::new(StringViewArray::from_iter_values(
            groups.iter().map(|n| format!("a text of thirty bytes, {n:06}")),
        ));
        counts
            .update_batch(&[values], &groups, None, groups.len())
            .expect("taken in");
        let each = counts.size() / groups.len();
        assert!((60..200).contains(&each), "{each} bytes for a pair of 8 and 30 bytes");
    }
}
