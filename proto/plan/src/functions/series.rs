//! Lists of numbers or times at equal distances: `generate_series(start, stop[, step])` and `range`, which stops before its
//! end.

use std::sync::Arc;

use chrono::{DateTime, Months, TimeDelta, Utc};
use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, Int64Array, ListArray, TimestampMicrosecondArray},
        buffer::{NullBuffer, OffsetBuffer},
        compute::cast,
        datatypes::{
            DataType, Field, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
            TimestampMicrosecondType,
        },
    },
    common::{DataFusionError, Result},
    logical_expr::{ReturnFieldArgs, ScalarUDF},
};
use proto::{Code, Problem};

use super::function::{Call, Function, Returns};
use crate::Type;

/// From the start to the stop, both inclusive.
pub const SERIES: &str = "generate_series";
/// From the start until before the stop.
pub const RANGE: &str = "range";

/// Items of one list, at most.
const ITEMS_MAX: usize = 100_000;

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |name| {
        Function::new(name, None, Returns::Of(list_field), compute)
            .strict()
            .into()
    };
    [SERIES, RANGE].map(function).into()
}

/// Whether the items are times, by the type of the start.
fn has_times(start: &DataType) -> bool {
    matches!(start, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
}

fn list_field(name: &'static str, args: &ReturnFieldArgs) -> Result<Field> {
    let types: Vec<&DataType> = args.arg_fields.iter().map(|field| field.data_type()).collect();
    let is_number = |data_type: &&DataType| data_type.is_integer() || **data_type == DataType::Null;
    let item = match types.as_slice() {
        [start, stop, step] if has_times(start) && has_times(stop) && is_interval(step) => Type::Time.arrow(),
        [_] | [_, _] | [_, _, _] if types.iter().all(is_number) => DataType::Int64,
        _ => {
            let detail = format!("{name} takes two integers, or two times and an interval");
            let hint = format!(
                "write {name}(1, 10) or {name}(TIMESTAMP '2026-01-01', TIMESTAMP '2026-02-01', INTERVAL '1 day')"
            );
            return Err(DataFusionError::External(Box::new(
                Problem::new(Code::BadSql, detail).hint(hint),
            )));
        }
    };
    Ok(Field::new(name, DataType::new_list(item, true), true))
}

fn is_interval(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

fn refused(detail: String, hint: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Problem::new(Code::BadSql, detail).hint(hint)))
}

fn too_long(name: &str) -> DataFusionError {
    let detail = format!("a list of {name} has more than {ITEMS_MAX} items");
    DataFusionError::External(Box::new(
        Problem::new(Code::LimitReached, detail).hint("choose a longer step, or a shorter range"),
    ))
}

fn no_step(name: &str) -> DataFusionError {
    refused(
        format!("the step of {name} is zero"),
        "choose a step that leads from the start to the stop",
    )
}

fn compute(call: &Call) -> Result<ArrayRef> {
    let columns = call.columns(0)?;
    match columns.first().is_some_and(|start| has_times(start.data_type())) {
        true => times(call, &columns),
        false => numbers(call, &columns),
    }
}

fn numbers(call: &Call, columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (name, rows) = (call.name, call.rows);
    let columns = columns
        .iter()
        .map(|column| cast(column, &DataType::Int64))
        .collect::<Result<Vec<_>, _>>()?;
    let at = |column: usize, row: usize| {
        let column = columns.get(column)?.as_primitive::<Int64Type>();
        column.is_valid(row).then(|| column.value(row))
    };
    let mut lists = Lists::<i64>::new(name, rows);
    for row in 0..rows {
        call.check()?;
        // A single argument is the stop.
        let (start, stop) = match columns.len() {
            1 => (Some(0), at(0, row)),
            _ => (at(0, row), at(1, row)),
        };
        let step = if columns.len() > 2 { at(2, row) } else { Some(1) };
        let (Some(mut next), Some(stop), Some(step)) = (start, stop, step) else {
            lists.null();
            continue;
        };
        if step == 0 {
            return Err(no_step(name));
        }
        let is_before = |item: i64| match step > 0 {
            true => item < stop || (name == SERIES && item == stop),
            false => item > stop || (name == SERIES && item == stop),
        };
        while is_before(next) {
            lists.item(next)?;
            match next.checked_add(step) {
                Some(after) => next = after,
                None => break,
            }
        }
        lists.end();
    }
    let items = Arc::new(Int64Array::from(std::mem::take(&mut lists.items)));
    lists.finish(DataType::Int64, items)
}

fn times(call: &Call, columns: &[ArrayRef]) -> Result<ArrayRef> {
    let (name, rows) = (call.name, call.rows);
    let [start, stop, step] = columns else {
        return Err(no_step(name));
    };
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    let (start, stop, step) = (
        cast(start, &Type::Time.arrow())?,
        cast(stop, &Type::Time.arrow())?,
        cast(step, &interval)?,
    );
    let time = |column: &ArrayRef, row: usize| {
        let column = column.as_primitive::<TimestampMicrosecondType>();
        DateTime::from_timestamp_micros(column.value(row)).filter(|_| column.is_valid(row))
    };
    let mut lists = Lists::<i64>::new(name, rows);
    for row in 0..rows {
        call.check()?;
        let step = step.as_primitive::<IntervalMonthDayNanoType>();
        let (Some(mut next), Some(stop), true) = (time(&start, row), time(&stop, row), step.is_valid(row)) else {
            lists.null();
            continue;
        };
        let step = step.value(row);
        let forward = match moved(next, step) {
            Some(after) if after > next => true,
            Some(after) if after < next => false,
            _ => return Err(no_step(name)),
        };
        let is_before = |item: DateTime<Utc>| match forward {
            true => item < stop || (name == SERIES && item == stop),
            false => item > stop || (name == SERIES && item == stop),
        };
        while is_before(next) {
            lists.item(next.timestamp_micros())?;
            match moved(next, step) {
                Some(after) if after != next => next = after,
                _ => break,
            }
        }
        lists.end();
    }
    let items = TimestampMicrosecondArray::from(std::mem::take(&mut lists.items)).with_timezone("UTC");
    lists.finish(Type::Time.arrow(), Arc::new(items))
}

/// A time moved by an interval: first by its months, then by its days and its time.
fn moved(time: DateTime<Utc>, step: IntervalMonthDayNano) -> Option<DateTime<Utc>> {
    let months = Months::new(step.months.unsigned_abs());
    let moved = match step.months >= 0 {
        true => time.checked_add_months(months)?,
        false => time.checked_sub_months(months)?,
    };
    moved
        .checked_add_signed(TimeDelta::try_days(step.days.into())?)?
        .checked_add_signed(TimeDelta::nanoseconds(step.nanoseconds))
}

/// Lists under construction.
struct Lists<'a, T> {
    name: &'a str,
    items: Vec<T>,
    lengths: Vec<usize>,
    valid: Vec<bool>,
    /// Where the current list begins.
    begun: usize,
}

impl<'a, T> Lists<'a, T> {
    fn new(name: &'a str, rows: usize) -> Self {
        Self {
            name,
            items: Vec::new(),
            lengths: Vec::with_capacity(rows),
            valid: Vec::with_capacity(rows),
            begun: 0,
        }
    }

    fn item(&mut self, item: T) -> Result<()> {
        if self.items.len() - self.begun >= ITEMS_MAX {
            return Err(too_long(self.name));
        }
        self.items.push(item);
        Ok(())
    }

    fn end(&mut self) {
        self.lengths.push(self.items.len() - self.begun);
        self.valid.push(true);
        self.begun = self.items.len();
    }

    fn null(&mut self) {
        self.lengths.push(0);
        self.valid.push(false);
    }

    fn finish(self, of: DataType, items: ArrayRef) -> Result<ArrayRef> {
        Ok(Arc::new(ListArray::try_new(
            Arc::new(Field::new_list_field(of, true)),
            OffsetBuffer::from_lengths(self.lengths),
            items,
            Some(NullBuffer::from(self.valid)),
        )?))
    }
}
