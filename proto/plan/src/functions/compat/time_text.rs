//! Times in texts of a given pattern, as `strptime` reads them.

use std::sync::Arc;

use chrono::format::{Parsed, StrftimeItems, parse};
use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray as _, TimestampMicrosecondArray},
        compute::cast,
        datatypes::{DataType, Int64Type},
    },
    common::Result,
    logical_expr::ScalarUDF,
};

use super::{
    super::{
        function::{Call, Function, Returns},
        json::text_views,
    },
    each_row::each_row,
};
use crate::Type;

/// `parse_time(text, pattern, year)`: the time that a text spells in a pattern of `strftime`. What the pattern does not
/// name is the first of January of `year`, at midnight UTC.
const PARSE: &str = "parse_time";

/// All these functions.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let returns = Returns::Type(Type::Time.arrow());
    vec![Function::new(PARSE, Some(3), returns, times).strict().into()]
}

fn times(call: &Call) -> Result<ArrayRef> {
    let (texts, patterns) = (text_views(&call.column(0)?)?, text_views(&call.column(1)?)?);
    let years = cast(&call.column(2)?, &DataType::Int64)?;
    let found = each_row(call, &[&texts, &patterns, &years], |row| {
        let year = i32::try_from(years.as_primitive::<Int64Type>().value(row)).ok()?;
        time(
            texts.as_string_view().value(row).trim(),
            patterns.as_string_view().value(row),
            year,
        )
    });
    Ok(Arc::new(TimestampMicrosecondArray::from(found).with_timezone("UTC")))
}

fn time(text: &str, pattern: &str, year: i32) -> Option<i64> {
    let mut parsed = Parsed::new();
    parse(&mut parsed, text, StrftimeItems::new(pattern)).ok()?;
    let day = match parsed.to_naive_date() {
        Ok(day) => day,
        Err(_) => {
            let has_century_year = parsed.year().is_some() || parsed.year_mod_100().is_some();
            if !has_century_year {
                parsed.set_year(year.into()).ok()?;
            }
            if parsed.ordinal().is_none() {
                if parsed.month().is_none() {
                    parsed.set_month(1).ok()?;
                }
                if parsed.day().is_none() {
                    parsed.set_day(1).ok()?;
                }
            }
            parsed.to_naive_date().ok()?
        }
    };
    if parsed.hour_mod_12().is_none() {
        parsed.set_hour(0).ok()?;
    }
    if parsed.hour_div_12().is_none() {
        parsed.set_ampm(false).ok()?;
    }
    if parsed.minute().is_none() {
        parsed.set_minute(0).ok()?;
    }
    let time = day.and_time(parsed.to_naive_time().ok()?).and_utc().timestamp_micros();
    time.checked_sub(i64::from(parsed.offset().unwrap_or(0)) * 1_000_000)
}
