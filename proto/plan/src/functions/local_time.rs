//! Points in time of local times in a zone. Where clocks are changed, a local time comes twice or never: then it is that of
//! standard time, as in PostgreSQL.

use std::{str::FromStr as _, sync::Arc};

use chrono::{DateTime, Duration, LocalResult, NaiveDateTime, Offset as _, TimeZone};
use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, TimestampMicrosecondArray, timezone::Tz},
        compute::cast,
        datatypes::{DataType, TimeUnit, TimestampMicrosecondType},
    },
    common::{Result, exec_err},
    logical_expr::ScalarUDF,
};

use super::function::{Call, Function, Returns};
use crate::Type;

/// `time_of_local(time, zone)`: the point in time of a time without zone.
pub const TIME_OF_LOCAL: &str = "time_of_local";

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let returns = Returns::Type(Type::Time.arrow());
    vec![Function::new(TIME_OF_LOCAL, Some(2), returns, times).strict().into()]
}

fn times(call: &Call) -> Result<ArrayRef> {
    let local = cast(&call.column(0)?, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let name = call.text(1)?;
    let Ok(zone) = Tz::from_str(name) else {
        return exec_err!("time zone {name} does not exist");
    };
    let local = local.as_primitive::<TimestampMicrosecondType>();
    let times = (0..local.len()).map(|row| {
        let naive = DateTime::from_timestamp_micros(local.is_valid(row).then(|| local.value(row))?)?;
        time(naive.naive_utc(), &zone)
    });
    let times: TimestampMicrosecondArray = times.collect();
    Ok(Arc::new(times.with_timezone("UTC")))
}

fn time(local: NaiveDateTime, zone: &Tz) -> Option<i64> {
    /// Longer than any change of clocks.
    const CHANGE: Duration = Duration::hours(26);
    let seconds = |offset: &<Tz as TimeZone>::Offset| i64::from(offset.fix().local_minus_utc());
    let found = match zone.offset_from_local_datetime(&local) {
        LocalResult::Single(offset) => seconds(&offset),
        LocalResult::Ambiguous(one, other) => seconds(&one).min(seconds(&other)),
        LocalResult::None => {
            let near = |local: Option<NaiveDateTime>| Some(seconds(&zone.offset_from_utc_datetime(&local?)));
            let (before, after) = (
                near(local.checked_sub_signed(CHANGE))?,
                near(local.checked_add_signed(CHANGE))?,
            );
            before.min(after)
        }
    };
    let time = local.checked_sub_signed(Duration::seconds(found))?;
    Some(time.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_time_that_comes_twice_or_never_is_that_of_standard_time() {
        let at = |text: &str, zone: &str| {
            let local: NaiveDateTime = text.parse().expect("a time");
            let time = time(local, &Tz::from_str(zone).expect("a zone")).and_then(DateTime::from_timestamp_micros);
            time.expect("a time").format("%FT%T").to_string()
        };
        // As PostgreSQL answers.
        for (zone, local, expected) in [
            ("Europe/Berlin", "2026-01-31T08:30:00", "2026-01-31T07:30:00"),
            ("Europe/Berlin", "2026-07-31T08:30:00", "2026-07-31T06:30:00"),
            ("Europe/Berlin", "2026-03-29T02:30:00", "2026-03-29T01:30:00"),
            ("Europe/Berlin", "2026-10-25T02:30:00", "2026-10-25T01:30:00"),
            ("America/New_York", "2026-03-08T02:30:00", "2026-03-08T07:30:00"),
            ("America/New_York", "2026-11-01T01:30:00", "2026-11-01T06:30:00"),
            ("+02:00", "2026-03-29T02:30:00", "2026-03-29T00:30:00"),
        ] {
            assert_eq!(at(local, zone), expected, "{local} in {zone}");
        }
    }
}
