//! The size of Arrow arrays in bytes and items, and copies that drop unused buffers.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, AsArray as _, GenericListArray, ListArray, OffsetSizeTrait, RecordBatch,
            RecordBatchOptions,
        },
        buffer::Buffer,
        datatypes::DataType,
    },
    common::ScalarValue,
};

/// Bytes of an array's values. A slice counts only the values it shows, not the array it was sliced from; a view array
/// counts its own texts, not the buffers that it shares with others.
pub fn size(array: &ArrayRef) -> u64 {
    let rows = array.len() as u64;
    match array.data_type() {
        DataType::Utf8View => array.as_string_view().lengths().map(u64::from).sum::<u64>() + 16 * rows,
        DataType::List(_) => size(&shown_values(array.as_list::<i32>())) + 4 * rows,
        DataType::LargeList(_) => size(&shown_values(array.as_list::<i64>())) + 8 * rows,
        DataType::FixedSizeList(..) => size(array.as_fixed_size_list().values()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(size).sum(),
        _ => array
            .to_data()
            .get_slice_memory_size()
            .unwrap_or_else(|_| array.get_array_memory_size()) as u64,
    }
}

/// The values in the rows of a list array, which may be a slice of another one.
fn shown_values<O: OffsetSizeTrait>(lists: &GenericListArray<O>) -> ArrayRef {
    let ends = lists.value_offsets();
    let first = ends.first().map_or(0, |end| end.as_usize());
    let last = ends.last().map_or(0, |end| end.as_usize());
    lists.values().slice(first, last - first)
}

/// Bytes of one value.
pub fn value_size(value: &ScalarValue) -> u64 {
    match value {
        ScalarValue::List(list) => size(&(Arc::clone(list) as ArrayRef)),
        ScalarValue::LargeList(list) => size(&(Arc::clone(list) as ArrayRef)),
        other => other.size().saturating_sub(size_of::<ScalarValue>()) as u64,
    }
}

/// Items in all lists of an array, including nested lists.
pub fn count_items(array: &ArrayRef) -> u64 {
    let count = |values: &ArrayRef| (values.len() as u64).max(count_items(values));
    match array.data_type() {
        DataType::List(_) => count(&shown_values(array.as_list::<i32>())),
        DataType::LargeList(_) => count(array.as_list::<i64>().values()),
        DataType::FixedSizeList(..) => count(array.as_fixed_size_list().values()),
        _ => array.len() as u64,
    }
}

/// Copies the texts of a view array into a buffer of their own if most of the current buffers is unused. Views of a few
/// selected texts retain, and ship, the buffers of all texts they were selected from.
pub fn compact(array: &ArrayRef) -> ArrayRef {
    /// Below this the copy costs more than it saves.
    const UNUSED_BYTES_MIN: usize = 4 << 10;
    let Some(texts) = array.as_string_view_opt() else {
        return Arc::clone(array);
    };
    let buffered: usize = texts.data_buffers().iter().map(Buffer::len).sum();
    match buffered > 2 * texts.total_buffer_bytes_used() + UNUSED_BYTES_MIN {
        true => Arc::new(texts.gc()),
        false => Arc::clone(array),
    }
}

/// Copies the texts of a list into a buffer of their own. A list collected from many arrays retains, and lists, the
/// buffers of all of them.
pub fn compact_value(value: ScalarValue) -> ScalarValue {
    let ScalarValue::List(list) = &value else { return value };
    let (DataType::List(field), Some(texts)) = (list.data_type(), list.values().as_string_view_opt()) else {
        return value;
    };
    let compacted = ListArray::try_new(
        Arc::clone(field),
        list.offsets().clone(),
        Arc::new(texts.gc()),
        list.nulls().cloned(),
    );
    compacted.map_or(value.clone(), |list| ScalarValue::List(Arc::new(list)))
}

/// Splits a batch into parts of at most `bytes_max` bytes; a larger part has one row. The parts share the batch's
/// buffers: see [`compact_batch`].
pub fn split_batch(batch: RecordBatch, bytes_max: u64) -> impl Iterator<Item = RecordBatch> {
    let mut ranges = Vec::new();
    halve(&batch, 0, bytes_max, &mut ranges);
    ranges.into_iter().map(move |(from, rows)| batch.slice(from, rows))
}

/// Bytes of a batch's values.
pub fn batch_size(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(size).sum()
}

/// Appends the row ranges of the parts, each as its first row and its number of rows.
fn halve(batch: &RecordBatch, from: usize, bytes_max: u64, ranges: &mut Vec<(usize, usize)>) {
    let rows = batch.num_rows();
    if rows <= 1 || batch_size(batch) <= bytes_max {
        ranges.push((from, rows));
        return;
    }
    let half = rows / 2;
    halve(&batch.slice(0, half), from, bytes_max, ranges);
    halve(&batch.slice(half, rows - half), from + half, bytes_max, ranges);
}

/// Applies [`compact`] to each column of a batch that was sliced from another.
pub fn compact_batch(batch: &RecordBatch) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let columns = batch.columns().iter().map(compact).collect();
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).unwrap_or_else(|_| batch.clone())
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{
        array::{ListBuilder, StringViewArray, StringViewBuilder},
        compute::concat_batches,
        datatypes::{Field, Schema},
    };

    use super::*;

    #[test]
    fn the_size_of_a_slice_of_lists_counts_only_its_own_rows() {
        let mut lists = ListBuilder::new(StringViewBuilder::new());
        for n in 0..100 {
            lists.append_value((0..n).map(|_| Some("a text of more than twelve bytes")));
        }
        let lists: ArrayRef = Arc::new(lists.finish());
        let sizes: Vec<u64> = (0..100).map(|row| size(&lists.slice(row, 1))).collect();
        assert_eq!((sizes[0], sizes[1], sizes[50]), (4, 4 + 48, 4 + 50 * 48));
        assert_eq!(sizes.iter().sum::<u64>(), size(&lists));
    }

    #[test]
    fn the_parts_of_a_split_batch_are_small_and_concatenate_to_the_batch() {
        let texts = StringViewArray::from_iter_values((0..1_000).map(|n| "x".repeat(n)));
        let schema = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8View, true)]));
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(texts)]).expect("a batch");
        let parts: Vec<RecordBatch> = split_batch(batch.clone(), 50_000)
            .map(|part| compact_batch(&part))
            .collect();
        assert!(
            parts.iter().all(|part| size(part.column(0)) <= 50_000),
            "no part is large"
        );
        let buffered = |part: &RecordBatch| {
            part.column(0)
                .as_string_view()
                .data_buffers()
                .iter()
                .map(Buffer::len)
                .sum::<usize>()
        };
        assert!(
            parts.iter().all(|part| buffered(part) <= 150_000),
            "no part retains the texts of the others"
        );
        assert_eq!(concat_batches(&schema, &parts).expect("a batch"), batch);
    }
}
