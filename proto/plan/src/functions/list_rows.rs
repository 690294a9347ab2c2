//! Lists for `unnest` in FROM: positions of items, and a row where a list has none.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, Int64Array, ListArray, UInt32Array},
        buffer::OffsetBuffer,
        compute::take,
        datatypes::{DataType, Field},
    },
    common::{Result, exec_err, plan_err},
    logical_expr::{ReturnFieldArgs, ScalarUDF},
};

use super::function::{Call, Function, Returns};

/// `list_positions(list, …)`: 1, 2, … up to the length of the longest of these lists.
pub const POSITIONS: &str = "list_positions";
/// `list_or_null(list)`: the list, or one with a single NULL if it is empty or NULL.
pub const OR_NULL: &str = "list_or_null";

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let positions = Returns::Type(DataType::new_list(DataType::Int64, true));
    vec![
        Function::new(POSITIONS, None, positions, positions_of).into(),
        Function::new(OR_NULL, Some(1), Returns::Of(same_list), or_null).into(),
    ]
}

fn same_list(name: &'static str, args: &ReturnFieldArgs) -> Result<Field> {
    match args.arg_fields {
        [list] if matches!(list.data_type(), DataType::List(_)) => Ok(Field::new(name, list.data_type().clone(), true)),
        _ => plan_err!("{name} takes a list"),
    }
}

fn list_of(array: &ArrayRef) -> Result<&ListArray> {
    match array.as_list_opt::<i32>() {
        Some(list) => Ok(list),
        None => exec_err!("{} is not a list", array.data_type()),
    }
}

fn length(list: &ListArray, row: usize) -> usize {
    if list.is_valid(row) {
        list.value_length(row) as usize
    } else {
        0
    }
}

fn positions_of(call: &Call) -> Result<ArrayRef> {
    let columns = call.columns(0)?;
    let lists = columns.iter().map(list_of).collect::<Result<Vec<_>>>()?;
    let longest = |row| lists.iter().map(|list| length(list, row)).max().unwrap_or_default();
    let lengths: Vec<usize> = (0..call.rows).map(longest).collect();
    let positions = lengths.iter().flat_map(|length| 1..=*length as i64);
    Ok(Arc::new(ListArray::try_new(
        Arc::new(Field::new_list_field(DataType::Int64, true)),
        OffsetBuffer::from_lengths(lengths.iter().copied()),
        Arc::new(Int64Array::from_iter_values(positions)),
        None,
    )?))
}

fn or_null(call: &Call) -> Result<ArrayRef> {
    let column = call.column(0)?;
    let list = list_of(&column)?;
    let offsets = list.offsets();
    let mut items: Vec<Option<u32>> = Vec::with_capacity(list.values().len());
    let mut lengths = Vec::with_capacity(list.len());
    for row in 0..list.len() {
        match length(list, row) {
            0 => items.push(None),
            _ => items.extend((offsets[row] as u32..offsets[row + 1] as u32).map(Some)),
        }
        lengths.push(length(list, row).max(1));
    }
    let DataType::List(item) = list.data_type() else {
        return exec_err!("{OR_NULL} takes a list");
    };
    let item = Arc::new(item.as_ref().clone().with_nullable(true));
    let values = take(list.values(), &UInt32Array::from(items), None)?;
    Ok(Arc::new(ListArray::try_new(
        item,
        OffsetBuffer::from_lengths(lengths),
        values,
        None,
    )?))
}
