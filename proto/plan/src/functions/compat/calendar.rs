//! Times in buckets, differences and counts of units, by the rules of DuckDB and ClickHouse.

use std::sync::Arc;

use chrono::{DateTime, Datelike as _, Months, NaiveDate};
use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, Date32Array, Int64Array, TimestampMicrosecondArray},
        compute::cast,
        datatypes::{
            DataType, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
        },
    },
    common::Result,
    logical_expr::ScalarUDF,
};
use proto::{Code, Problem};

use super::{
    super::{
        function::{Call, Function, Returns},
        json::text_views,
    },
    each_row::each_row,
};
use crate::{Type, value::time_of_text};

/// `time_bucket(width, time[, origin or offset])` of DuckDB.
const BUCKET: &str = "time_bucket";
/// `start_of_interval(time, '2 week')` is ClickHouse's `toStartOfInterval(time, INTERVAL 2 WEEK)`.
const START_OF_INTERVAL: &str = "start_of_interval";
/// `date_diff('month', from, to)` counts the boundaries of the unit between two times.
pub const DIFF: &str = "date_diff";
/// `epoch_millis(time)`: milliseconds since 1970, rounded down, as DuckDB's `epoch_ms`.
pub const EPOCH_MILLIS: &str = "epoch_millis";
/// The same rounded towards 1970, as ClickHouse's `toUnixTimestamp64Milli`.
pub const EPOCH_MILLIS_TRUNCATED: &str = "epoch_millis_truncated";
/// `day_of(json)` is ClickHouse's `toDate`: a text is a date, a number up to 65535 counts days and a larger one seconds.
pub const DAY_OF: &str = "day_of";

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
const INTERVAL: DataType = DataType::Interval(IntervalUnit::MonthDayNano);

/// All these functions.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let time = || Returns::Type(Type::Time.arrow());
    let integer = || Returns::Type(DataType::Int64);
    let millis = |name, compute| Function::new(name, Some(1), integer(), compute).strict().into();
    vec![
        Function::new(BUCKET, None, time(), buckets).strict().into(),
        Function::new(START_OF_INTERVAL, Some(2), time(), starts)
            .strict()
            .into(),
        Function::new(DIFF, Some(3), integer(), differences).strict().into(),
        millis(EPOCH_MILLIS, |call| epochs(call, |micros| micros.div_euclid(1_000))),
        millis(EPOCH_MILLIS_TRUNCATED, |call| epochs(call, |micros| micros / 1_000)),
        Function::new(DAY_OF, Some(1), Returns::Type(DataType::Date32), days)
            .strict()
            .into(),
    ]
}

/// An argument as times.
fn times(call: &Call, index: usize) -> Result<ArrayRef> {
    Ok(cast(&call.column(index)?, &Type::Time.arrow())?)
}

fn micros(times: &ArrayRef, row: usize) -> i64 {
    times.as_primitive::<TimestampMicrosecondType>().value(row)
}

fn time_array(micros: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC"))
}

/// An argument as intervals: a duration, a text such as `1 day`, or an interval.
fn intervals(call: &Call, index: usize) -> Result<ArrayRef> {
    let column = call.column(index)?;
    let column = match column.data_type() {
        DataType::Duration(_) => cast(&column, &DataType::Duration(TimeUnit::Nanosecond))?,
        _ => column,
    };
    Ok(cast(&column, &INTERVAL)?)
}

fn interval(intervals: &ArrayRef, row: usize) -> IntervalMonthDayNano {
    intervals.as_primitive::<IntervalMonthDayNanoType>().value(row)
}

/// Months since the year 0 of the day on which a time lies.
fn month_of(micros: i64) -> Option<i64> {
    let day = DateTime::from_timestamp_micros(micros)?;
    Some(i64::from(day.year()) * 12 + i64::from(day.month0()))
}

/// The first moment of a month.
fn start_of_month(month: i64) -> Option<i64> {
    let year = i32::try_from(month.div_euclid(12)).ok()?;
    let day = NaiveDate::from_ymd_opt(year, u32::try_from(month.rem_euclid(12)).ok()? + 1, 1)?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_micros())
}

/// The greatest `origin + n * width` that is not after `value`.
fn floor(value: i64, width: i64, origin: i64) -> Option<i64> {
    let steps = value.checked_sub(origin)?.div_euclid(width);
    steps.checked_mul(width)?.checked_add(origin)
}

fn buckets(call: &Call) -> Result<ArrayRef> {
    let (widths, values) = (intervals(call, 0)?, times(call, 1)?);
    if call.args().len() < 3 {
        let found = each_row(call, &[&widths, &values], |row| {
            bucket(interval(&widths, row), micros(&values, row), None)
        });
        return Ok(time_array(found));
    }
    let is_offset = matches!(
        call.column(2)?.data_type(),
        DataType::Interval(_) | DataType::Duration(_)
    );
    let third = if is_offset {
        intervals(call, 2)?
    } else {
        times(call, 2)?
    };
    let found = each_row(call, &[&widths, &values, &third], |row| {
        let (width, value) = (interval(&widths, row), micros(&values, row));
        if !is_offset {
            return bucket(width, value, Some(micros(&third, row)));
        }
        let offset = interval(&third, row);
        moved(bucket(width, moved(value, offset, false)?, None)?, offset, true)
    });
    Ok(time_array(found))
}

/// The beginning of the bucket of a time. Buckets of months begin with a month, others at a multiple of their width.
fn bucket(width: IntervalMonthDayNano, value: i64, origin: Option<i64>) -> Option<i64> {
    /// 2000-01-03, a Monday.
    const MONDAY: i64 = 10_959 * MICROS_PER_DAY;
    /// 2000-01.
    const JANUARY: i64 = 2_000 * 12;
    if width.months != 0 {
        let only_months = width.days == 0 && width.nanoseconds == 0 && width.months > 0;
        let origin = origin.map_or(Some(JANUARY), month_of)?;
        let month = only_months.then(|| month_of(value))??;
        return start_of_month(floor(month, i64::from(width.months), origin)?);
    }
    let length = i64::from(width.days)
        .checked_mul(MICROS_PER_DAY)?
        .checked_add(width.nanoseconds / 1_000)?;
    (length > 0).then(|| floor(value, length, origin.unwrap_or(MONDAY)))?
}

/// A time moved later or earlier by an interval.
fn moved(value: i64, by: IntervalMonthDayNano, later: bool) -> Option<i64> {
    let time = DateTime::from_timestamp_micros(value)?;
    let forward = (by.months >= 0) == later;
    let months = Months::new(by.months.unsigned_abs());
    let time = match forward {
        true => time.checked_add_months(months)?,
        false => time.checked_sub_months(months)?,
    };
    let rest = i64::from(by.days)
        .checked_mul(MICROS_PER_DAY)?
        .checked_add(by.nanoseconds / 1_000)?;
    let micros = time.timestamp_micros();
    if later {
        micros.checked_add(rest)
    } else {
        micros.checked_sub(rest)
    }
}

fn starts(call: &Call) -> Result<ArrayRef> {
    let values = times(call, 0)?;
    let width = call.text(1)?;
    let Some((number, unit)) = width.split_once(' ') else {
        return Ok(time_array(vec![None; call.rows]));
    };
    let number = number.parse::<i64>().ok().filter(|number| *number > 0);
    let found = each_row(call, &[&values], |row| start(micros(&values, row), number?, unit));
    Ok(time_array(found))
}

/// The beginning of the interval of a time, by ClickHouse's rules: seconds and minutes count from 1970, hours from
/// midnight, weeks from the first Monday of 1970, months from 1900 and years from 0.
fn start(value: i64, number: i64, unit: &str) -> Option<i64> {
    let fixed = |micros: i64, origin| floor(value, number.checked_mul(micros)?, origin);
    match unit {
        "microsecond" => fixed(1, 0),
        "millisecond" => fixed(1_000, 0),
        "second" => fixed(MICROS_PER_SECOND, 0),
        "minute" => fixed(60 * MICROS_PER_SECOND, 0),
        "hour" => fixed(3_600 * MICROS_PER_SECOND, floor(value, MICROS_PER_DAY, 0)?),
        "day" => fixed(MICROS_PER_DAY, 0),
        "week" => fixed(7 * MICROS_PER_DAY, 4 * MICROS_PER_DAY),
        "month" => start_of_month(floor(month_of(value)?, number, 1_900 * 12)?),
        "quarter" => start_of_month(floor(month_of(value)?, number.checked_mul(3)?, 1_900 * 12)?),
        "year" => start_of_month(floor(month_of(value)?, number.checked_mul(12)?, 0)?),
        _ => None,
    }
}

/// A unit in which two times are subtracted.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Months(i64),
    Micros(i64),
}

/// A unit by the names that DuckDB and ClickHouse have for it, if they do not contradict each other.
fn unit_of(name: &str) -> Option<Unit> {
    Some(match name.to_lowercase().as_str() {
        "year" | "years" | "y" | "yr" | "yrs" | "yy" | "yyyy" => Unit::Months(12),
        "quarter" | "quarters" | "q" | "qq" => Unit::Months(3),
        "month" | "months" | "mon" | "mons" | "mm" => Unit::Months(1),
        "day" | "days" | "d" | "dd" => Unit::Micros(MICROS_PER_DAY),
        "hour" | "hours" | "h" | "hr" | "hrs" | "hh" => Unit::Micros(3_600 * MICROS_PER_SECOND),
        "minute" | "minutes" | "min" | "mins" | "mi" | "n" => Unit::Micros(60 * MICROS_PER_SECOND),
        "second" | "seconds" | "s" | "sec" | "secs" | "ss" => Unit::Micros(MICROS_PER_SECOND),
        "millisecond" | "milliseconds" | "ms" | "msec" => Unit::Micros(1_000),
        "microsecond" | "microseconds" | "us" | "usec" => Unit::Micros(1),
        _ => return None,
    })
}

/// Returns an error unless this is a unit in which two times are subtracted.
pub fn check_unit(unit: &str) -> std::result::Result<(), Problem> {
    if unit_of(unit).is_some() {
        return Ok(());
    }
    let (detail, hint) = match unit.to_lowercase().as_str() {
        "week" | "weeks" | "w" | "wk" | "ww" => (
            "date_diff does not count weeks, which DuckDB and ClickHouse count differently".to_owned(),
            "date_diff('day', a, b) / 7 are weeks of seven days; \
             date_diff('day', date_trunc('week', a), date_trunc('week', b)) / 7 are Mondays",
        ),
        "m" => (
            "the unit m is a minute in DuckDB and a month in ClickHouse".to_owned(),
            "write 'minute' or 'month'",
        ),
        _ => (
            format!("{unit} is not a unit of date_diff"),
            "use one of year, quarter, month, day, hour, minute, second, millisecond, microsecond",
        ),
    };
    Err(Problem::new(Code::BadSql, detail).hint(hint))
}

fn differences(call: &Call) -> Result<ArrayRef> {
    let units = text_views(&call.column(0)?)?;
    let (from, to) = (times(call, 1)?, times(call, 2)?);
    let found = each_row(call, &[&units, &from, &to], |row| {
        let (from, to) = (micros(&from, row), micros(&to, row));
        Some(match unit_of(units.as_string_view().value(row))? {
            Unit::Months(months) => month_of(to)?.div_euclid(months) - month_of(from)?.div_euclid(months),
            Unit::Micros(micros) => to.div_euclid(micros) - from.div_euclid(micros),
        })
    });
    Ok(Arc::new(Int64Array::from(found)))
}

fn epochs(call: &Call, millis: impl Fn(i64) -> i64) -> Result<ArrayRef> {
    let values = times(call, 0)?;
    let found = each_row(call, &[&values], |row| Some(millis(micros(&values, row))));
    Ok(Arc::new(Int64Array::from(found)))
}

fn days(call: &Call) -> Result<ArrayRef> {
    const DAYS_MAX: i64 = 65_535;
    let values = text_views(&call.column(0)?)?;
    let found = each_row(call, &[&values], |row| {
        let days = match proto::json::parse(values.as_string_view().value(row).as_bytes()).ok()? {
            proto::json::Value::Text(text) => time_of_text(&text)?.div_euclid(MICROS_PER_DAY),
            proto::json::Value::Int(days) if (0..=DAYS_MAX).contains(&days) => days,
            proto::json::Value::Int(seconds) if seconds > DAYS_MAX => seconds / 86_400,
            _ => return None,
        };
        i32::try_from(days).ok()
    });
    Ok(Arc::new(Date32Array::from(found)))
}
