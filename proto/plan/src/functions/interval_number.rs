//! `interval_number`: which interval of the calendar a time is in.

use std::{ops::Range, sync::Arc};

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray as _, Int64Array},
        compute::cast,
        datatypes::{DataType, TimestampMicrosecondType},
    },
    common::{Result, exec_err},
    logical_expr::ScalarUDF,
};

use super::function::{Call, Function, Returns};
use crate::{Type, calendar::Interval};

/// `interval_number(time, '1h')`: the number of the hour that contains a time, see [`Interval::number`].
pub const NUMBER: &str = "interval_number";

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new(NUMBER, Some(2), Returns::Type(DataType::Int64), numbers)
            .strict()
            .into(),
    ]
}

fn numbers(call: &Call) -> Result<ArrayRef> {
    let Some(interval) = Interval::parse(call.text(1)?) else {
        return exec_err!("{} takes an interval", call.name);
    };
    let times = cast(&call.column(0)?, &Type::Time.arrow())?;
    let mut numbers = IntervalNumbers::new(interval);
    let times = times.as_primitive::<TimestampMicrosecondType>().iter();
    let numbers = times.map(|time| numbers.number(time?));
    Ok(Arc::new(numbers.collect::<Int64Array>()))
}

/// The numbers of the intervals that contain times. Times often come in order: while they are in the interval of the last
/// one, it is not computed again.
struct IntervalNumbers {
    interval: Interval,
    /// The interval of the last time, from its begin to that of the next one, and its number.
    last: Option<(Range<i64>, i64)>,
}

impl IntervalNumbers {
    /// The numbers of these intervals.
    fn new(interval: Interval) -> Self {
        Self { interval, last: None }
    }

    /// [`Interval::number`] of a time.
    fn number(&mut self, time: i64) -> Option<i64> {
        if let Some((span, number)) = &self.last
            && span.contains(&time)
        {
            return Some(*number);
        }
        let number = self.interval.number(time)?;
        self.last = self.interval.span(time).map(|span| (span, number));
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_interval_of_the_last_time_changes_no_number(
            times in prop::collection::vec(prop_oneof![-5_000_000_000i64..5_000_000_000, any::<i64>()], 1..50),
            text in prop::sample::select(vec!["1s", "90m", "1h", "1d", "1w", "1M", "3M", "1y"]),
        ) {
            let interval = Interval::parse(text).expect("an interval");
            // Also where an interval begins, and the last microsecond before it.
            let begins = times.iter().filter_map(|time| interval.start(interval.number(*time)?));
            let ends = begins.clone().filter_map(|begin| begin.checked_sub(1));
            let times: Vec<i64> = times.iter().copied().chain(begins).chain(ends).collect();
            let mut sorted = times.clone();
            sorted.sort_unstable();
            for times in [times, sorted] {
                let mut numbers = IntervalNumbers::new(interval);
                for time in times {
                    prop_assert_eq!(numbers.number(time), interval.number(time));
                }
            }
        }
    }
}
