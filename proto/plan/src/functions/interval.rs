//! Intervals as quantities. DataFusion compares months, then days, then nanoseconds. Here a month has 30 days and a day
//! has 24 hours, as in PostgreSQL, so that 25 hours are more than a day.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Int64Array, IntervalMonthDayNanoArray},
        compute::{cast, kernels::numeric},
        datatypes::{
            DataType, DurationMicrosecondType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
            IntervalUnit, TimeUnit,
        },
    },
    common::Result,
    logical_expr::ScalarUDF,
};

use super::{
    function::{Call, Function, Returns},
    lenient::lenient,
};
use crate::Type;

/// The length of an interval in microseconds.
pub const MICROS: &str = "interval_micros";
/// Multiplies an interval by a factor.
pub const SCALE: &str = "interval_scale";
/// Moves a point in time by an interval, later (`+`) or earlier (`-`).
pub const SHIFT: &str = "time_shift";

const DAYS_PER_MONTH: i64 = 30;
const MICROS_PER_DAY: i64 = 86_400_000_000;
const NANOS_PER_DAY: f64 = 86_400e9;
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// All these functions, for registration with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let shift = Function::new(SHIFT, Some(3), Returns::Type(Type::Time.arrow()), shift);
    vec![
        Function::new(MICROS, Some(1), Returns::Type(DataType::Int64), |call| {
            Ok(Arc::new(micros(&call.column(0)?)?))
        })
        .into(),
        Function::new(SCALE, Some(2), Returns::Type(INTERVAL), scale).into(),
        // A time outside the range of its type is NULL.
        lenient(shift.into()),
    ]
}

fn shift(call: &Call) -> Result<ArrayRef> {
    let (time, interval) = (call.column(1)?, call.column(2)?);
    let shifted = match call.text(0)? {
        "-" => numeric::sub(&time, &interval)?,
        _ => numeric::add(&time, &interval)?,
    };
    Ok(cast(&shifted, &Type::Time.arrow())?)
}

fn scale(call: &Call) -> Result<ArrayRef> {
    let (interval, factor) = (call.column(0)?, call.column(1)?);
    let scaled = scaled(&interval, &factor)?;
    let complete_rows = (0..call.rows)
        .filter(|row| interval.is_valid(*row) && factor.is_valid(*row))
        .count();
    call.count(
        "interval arithmetic",
        (complete_rows + scaled.null_count()).saturating_sub(call.rows),
        complete_rows,
    );
    Ok(Arc::new(scaled))
}

fn micros(intervals: &ArrayRef) -> Result<Int64Array> {
    if matches!(intervals.data_type(), DataType::Duration(_)) {
        let durations = cast(intervals, &DataType::Duration(TimeUnit::Microsecond))?;
        return Ok(durations.as_primitive::<DurationMicrosecondType>().reinterpret_cast());
    }
    let intervals = cast(intervals, &INTERVAL)?;
    let length = |interval: IntervalMonthDayNano| {
        let days = i64::from(interval.months)
            .checked_mul(DAYS_PER_MONTH)?
            .checked_add(i64::from(interval.days))?;
        days.checked_mul(MICROS_PER_DAY)?
            .checked_add(interval.nanoseconds.div_euclid(1_000))
    };
    Ok(intervals
        .as_primitive::<IntervalMonthDayNanoType>()
        .iter()
        .map(|interval| interval.and_then(length))
        .collect())
}

fn scaled(intervals: &ArrayRef, factors: &ArrayRef) -> Result<IntervalMonthDayNanoArray> {
    let intervals = match intervals.data_type() {
        DataType::Duration(_) => cast(&cast(intervals, &DataType::Duration(TimeUnit::Nanosecond))?, &INTERVAL)?,
        _ => cast(intervals, &INTERVAL)?,
    };
    let factors = cast(factors, &DataType::Float64)?;
    let times = |interval: IntervalMonthDayNano, factor: f64| {
        let months = f64::from(interval.months) * factor;
        let days = f64::from(interval.days) * factor + months.fract() * DAYS_PER_MONTH as f64;
        let nanos = (interval.nanoseconds as f64 * factor + days.fract() * NANOS_PER_DAY).round();
        let fits =
            months.abs() < f64::from(i32::MAX) && days.abs() < f64::from(i32::MAX) && nanos.abs() < i64::MAX as f64;
        fits.then(|| IntervalMonthDayNano::new(months.trunc() as i32, days.trunc() as i32, nanos as i64))
    };
    let pairs = intervals
        .as_primitive::<IntervalMonthDayNanoType>()
        .iter()
        .zip(factors.as_primitive::<Float64Type>());
    Ok(pairs
        .map(|(interval, factor)| {
            interval
                .zip(factor)
                .and_then(|(interval, factor)| times(interval, factor))
        })
        .collect())
}
