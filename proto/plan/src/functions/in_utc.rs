//! Functions of times, computed without a zone if the zone is UTC. The result is the same, and DataFusion computes it with
//! integers instead of a calendar and a table of zones for each value.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array as _, ArrayRef, AsArray as _, TimestampMicrosecondArray, TimestampMillisecondArray,
            TimestampNanosecondArray, TimestampSecondArray,
        },
        datatypes::{
            DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
            TimestampNanosecondType, TimestampSecondType,
        },
    },
    common::{Result, ScalarValue},
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF},
};

use super::registry::{self, Property};

/// The result of DataFusion's function.
pub(super) fn invoke(function: &ScalarUDF, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
    let is_utc = |field: &FieldRef| in_zone(field.data_type(), None).is_some();
    let ignores_name = || registry::function(function.name()).is_some_and(|entry| entry.has(Property::IgnoresZoneName));
    if !args.arg_fields.iter().any(is_utc) || !ignores_name() {
        return function.inner().invoke_with_args(args);
    }
    let returns_time = is_utc(&args.return_field);
    args.args = args.args.into_iter().map(|arg| value_in_zone(arg, None)).collect();
    args.arg_fields = args.arg_fields.iter().map(without_zone).collect();
    args.return_field = without_zone(&args.return_field);
    let computed = function.inner().invoke_with_args(args)?;
    Ok(match returns_time {
        true => value_in_zone(computed, Some(UTC)),
        false => computed,
    })
}

const UTC: &str = "UTC";

/// The same type of time with this zone instead of the other: UTC for none, none for UTC.
fn in_zone(data_type: &DataType, zone: Option<&str>) -> Option<DataType> {
    match (data_type, zone) {
        (DataType::Timestamp(unit, Some(utc)), None) if **utc == *UTC => Some(DataType::Timestamp(*unit, None)),
        (DataType::Timestamp(unit, None), Some(zone)) => Some(DataType::Timestamp(*unit, Some(zone.into()))),
        _ => None,
    }
}

fn without_zone(field: &FieldRef) -> FieldRef {
    match in_zone(field.data_type(), None) {
        Some(data_type) => Arc::new(Field::clone(field).with_data_type(data_type)),
        None => Arc::clone(field),
    }
}

/// The same times in the other zone; other values as they are.
fn value_in_zone(value: ColumnarValue, zone: Option<&str>) -> ColumnarValue {
    match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(array_in_zone(array, zone)),
        ColumnarValue::Scalar(scalar) => ColumnarValue::Scalar(scalar_in_zone(scalar, zone)),
    }
}

fn array_in_zone(array: ArrayRef, zone: Option<&str>) -> ArrayRef {
    let Some(DataType::Timestamp(unit, zone)) = in_zone(array.data_type(), zone) else {
        return array;
    };
    match unit {
        TimeUnit::Second => {
            let times: TimestampSecondArray = array.as_primitive::<TimestampSecondType>().clone();
            Arc::new(times.with_timezone_opt(zone))
        }
        TimeUnit::Millisecond => {
            let times: TimestampMillisecondArray = array.as_primitive::<TimestampMillisecondType>().clone();
            Arc::new(times.with_timezone_opt(zone))
        }
        TimeUnit::Microsecond => {
            let times: TimestampMicrosecondArray = array.as_primitive::<TimestampMicrosecondType>().clone();
            Arc::new(times.with_timezone_opt(zone))
        }
        TimeUnit::Nanosecond => {
            let times: TimestampNanosecondArray = array.as_primitive::<TimestampNanosecondType>().clone();
            Arc::new(times.with_timezone_opt(zone))
        }
    }
}

fn scalar_in_zone(scalar: ScalarValue, zone: Option<&str>) -> ScalarValue {
    let Some(DataType::Timestamp(_, zone)) = in_zone(&scalar.data_type(), zone) else {
        return scalar;
    };
    match scalar {
        ScalarValue::TimestampSecond(time, _) => ScalarValue::TimestampSecond(time, zone),
        ScalarValue::TimestampMillisecond(time, _) => ScalarValue::TimestampMillisecond(time, zone),
        ScalarValue::TimestampMicrosecond(time, _) => ScalarValue::TimestampMicrosecond(time, zone),
        ScalarValue::TimestampNanosecond(time, _) => ScalarValue::TimestampNanosecond(time, zone),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::array::ArrayRef, config::ConfigOptions, functions::datetime, logical_expr::ReturnFieldArgs,
        scalar::ScalarValue,
    };
    use proptest::prelude::*;

    use super::*;

    /// Computed with these arguments, through [`invoke`] or by DataFusion alone.
    fn compute(function: &ScalarUDF, first: &ScalarValue, times: &ArrayRef, through_invoke: bool) -> Result<ArrayRef> {
        let rows = times.len();
        let args = vec![
            ColumnarValue::Scalar(first.clone()),
            ColumnarValue::Array(Arc::clone(times)),
        ];
        let field = |arg: &ColumnarValue| Arc::new(Field::new("arg", arg.data_type(), true));
        let arg_fields: Vec<FieldRef> = args.iter().map(field).collect();
        let return_field = function.inner().return_field_from_args(ReturnFieldArgs {
            arg_fields: &arg_fields,
            scalar_arguments: &[Some(first), None],
        })?;
        let args = ScalarFunctionArgs {
            args,
            arg_fields,
            number_rows: rows,
            return_field,
            config_options: Arc::new(ConfigOptions::default()),
        };
        let computed = match through_invoke {
            true => invoke(function, args),
            false => function.inner().invoke_with_args(args),
        };
        computed?.into_array(rows)
    }

    #[test]
    fn an_hour_begins_at_a_multiple_of_its_length_in_every_year() {
        const HOUR: i64 = 3_600_000_000;
        let micros = [
            -62_135_596_800_000_001,
            -1,
            0,
            HOUR - 1,
            HOUR,
            9_223_372_036_854_776,
            253_402_300_799_999_999,
        ];
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(micros.to_vec()).with_timezone(UTC));
        let hours = compute(&datetime::date_trunc(), &ScalarValue::from("hour"), &times, true).expect("hours");
        let expected: Vec<i64> = micros.iter().map(|time| time.div_euclid(HOUR) * HOUR).collect();
        let expected: ArrayRef = Arc::new(TimestampMicrosecondArray::from(expected).with_timezone(UTC));
        assert_eq!(&hours, &expected);
    }

    proptest! {
        #[test]
        fn times_in_utc_have_the_same_parts_and_beginnings_without_a_zone(
            // Years 1 to 9999, and NULL.
            micros in prop::collection::vec(prop::option::of(-62_135_596_800_000_000i64..253_402_300_799_999_999), 1..20),
            unit in prop::sample::select(&[
                "microsecond", "millisecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year",
            ]),
        ) {
            let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(micros).with_timezone(UTC));
            let unit = ScalarValue::from(unit);
            let width = ScalarValue::new_interval_mdn(0, 0, 600_000_000_000);
            let calls = [(datetime::date_trunc(), &unit), (datetime::date_part(), &unit), (datetime::date_bin(), &width)];
            for (function, first) in calls {
                let compute = |through_invoke| compute(&function, first, &times, through_invoke);
                let ours = compute(true);
                // With a zone, DataFusion fails for times that nanoseconds cannot represent.
                let Ok(theirs) = compute(false) else { continue };
                let ours = ours.expect("a result, as with a zone");
                prop_assert_eq!(ours.data_type(), theirs.data_type());
                prop_assert_eq!(&ours, &theirs, "{} {}", function.name(), first);
            }
        }
    }
}
