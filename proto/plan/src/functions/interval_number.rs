//! `interval_number`: which interval of the calendar a time is in.

use std::sync::Arc;

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
    let times = times.as_primitive::<TimestampMicrosecondType>().iter();
    let numbers = times.map(|time| time.and_then(|time| interval.number(time)));
    Ok(Arc::new(numbers.collect::<Int64Array>()))
}
