//! Tests of `distinct_count`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use datafusion::arrow::{array::StringViewArray, datatypes::Int64Type};

use super::*;

/// The text for a number, short or long; None for 0.
fn text(value: u64) -> Option<String> {
    (value > 0).then(|| {
        if value.is_multiple_of(2) {
            value.to_string()
        } else {
            format!("a text that is too long to be inline: {value}")
        }
    })
}

fn distinct_counts() -> DistinctCounts {
    DistinctCounts::new(&DataType::Utf8View).expect("counts")
}

fn emitted_counts(array: &ArrayRef) -> Vec<i64> {
    array.as_primitive::<Int64Type>().values().to_vec()
}

/// A row of a batch: its group, its value, and whether it is selected, if the batch has a filter.
type TestRow = (usize, u64, Option<bool>);

/// [`DistinctCounts`] next to a plain set of values for each group.
struct Model {
    counts: DistinctCounts,
    sets: BTreeMap<usize, BTreeSet<u64>>,
    /// Groups emitted so far. `counts` numbers the remaining groups from 0.
    emitted: usize,
    /// All groups, including those emitted.
    group_count: usize,
}

impl Model {
    fn remaining(&self) -> usize {
        self.group_count - self.emitted
    }

    /// The rows of a step, which are also added to the sets.
    fn next_rows(&mut self, step: usize) -> Vec<TestRow> {
        let rows: Vec<TestRow> = (0..20)
            .map(|row| {
                let n = step * 20 + row;
                (
                    self.emitted + (n * 7919) % (step / 10 + 3),
                    (n as u64 * 104_729) % 23,
                    (!step.is_multiple_of(3)).then_some(!n.is_multiple_of(5)),
                )
            })
            .collect();
        let last_group = rows.iter().map(|row| row.0 + 1).max().expect("rows");
        self.group_count = self.group_count.max(last_group);
        for (group, value, selected) in &rows {
            let values = self.sets.entry(*group).or_default();
            if *value > 0 && selected.unwrap_or(true) {
                values.insert(*value);
            }
        }
        rows
    }

    /// Adds a batch in one of three forms: as it is, as states of its rows, or as states of another accumulator.
    fn add(&mut self, step: usize, rows: &[TestRow], other: &mut DistinctCounts) {
        let values: ArrayRef = Arc::new(StringViewArray::from_iter(rows.iter().map(|row| text(row.1))));
        let groups: Vec<usize> = rows.iter().map(|row| row.0 - self.emitted).collect();
        let selected = rows[0]
            .2
            .is_some()
            .then(|| rows.iter().map(|row| row.2).collect::<BooleanArray>());
        let remaining = self.remaining();
        if step % 4 < 2 {
            self.counts
                .update_batch(&[values], &groups, selected.as_ref(), remaining)
                .expect("updated");
        } else if step % 4 == 2 {
            let states = self
                .counts
                .convert_to_state(&[values], selected.as_ref())
                .expect("states");
            self.counts.merge_batch(&states, &groups, remaining).expect("merged");
        } else {
            other
                .update_batch(&[values], &groups, selected.as_ref(), remaining)
                .expect("updated");
            let states = other.state(EmitTo::All).expect("states");
            let all: Vec<usize> = (0..remaining).collect();
            self.counts.merge_batch(&states, &all, remaining).expect("merged");
        }
    }

    /// Replaces the counts by new ones, which merge the states of the old ones in pieces.
    fn rebuild_from_states(&mut self) {
        let mut rebuilt = distinct_counts();
        let all = self.remaining();
        for from in (0..all).step_by(5) {
            let some = 5.min(all - from);
            let states = self.counts.state(EmitTo::First(some)).expect("states");
            let groups: Vec<usize> = (from..from + some).collect();
            // A slice of a list must count only the items that it shows.
            let states = [states[0].slice(0, 1), states[0].slice(1, some - 1)];
            rebuilt.merge_batch(&states[..1], &groups[..1], all).expect("merged");
            rebuilt.merge_batch(&states[1..], &groups[1..], all).expect("merged");
        }
        self.counts = rebuilt;
    }

    fn expected(&self, groups: Range<usize>) -> Vec<i64> {
        groups
            .map(|group| self.sets.get(&group).map_or(0, |values| values.len() as i64))
            .collect()
    }

    /// Emits the first half of the groups, and compares them.
    fn emit_half(&mut self, step: usize) {
        let some = self.remaining() / 2;
        let actual = self.counts.evaluate(EmitTo::First(some)).expect("counts");
        let expected = self.expected(self.emitted..self.emitted + some);
        assert_eq!(emitted_counts(&actual), expected, "step {step}");
        self.emitted += some;
    }
}

#[test]
fn each_group_counts_its_values_once_across_updates_merges_and_emits() {
    let mut model = Model {
        counts: distinct_counts(),
        sets: BTreeMap::new(),
        emitted: 0,
        group_count: 0,
    };
    let mut other = distinct_counts();
    for step in 0..300_usize {
        let rows = model.next_rows(step);
        model.add(step, &rows, &mut other);
        if step % 23 == 22 {
            model.rebuild_from_states();
        }
        if step % 17 == 16 {
            model.emit_half(step);
        }
    }
    let actual = model.counts.evaluate(EmitTo::All).expect("counts");
    let expected = model.expected(model.emitted..model.group_count);
    assert_eq!(emitted_counts(&actual), expected);
    assert!(
        expected.len() > 10 && expected.iter().any(|count| *count > 5),
        "{expected:?}"
    );
}

#[test]
fn memory_is_proportional_to_the_number_of_pairs() {
    let mut counts = distinct_counts();
    let groups: Vec<usize> = (0..50_000).collect();
    let values: ArrayRef = Arc::new(StringViewArray::from_iter_values(
        groups.iter().map(|n| format!("a text of thirty bytes, {n:06}")),
    ));
    counts
        .update_batch(&[values], &groups, None, groups.len())
        .expect("updated");
    let each = counts.size() / groups.len();
    assert!((60..200).contains(&each), "{each} bytes for a pair of 8 and 30 bytes");
}
