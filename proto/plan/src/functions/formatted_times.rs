//! Times as texts: times that a pattern does not tell apart are formatted once, because DataFusion reads the pattern anew
//! for each.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{AsArray as _, TimestampNanosecondArray, UInt32Array},
        compute::take,
        datatypes::TimestampNanosecondType,
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF},
};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;

/// DataFusion's result of a call that formats times in UTC by a constant pattern: it wants nanoseconds. None if it is another
/// call.
pub(super) fn format(function: &ScalarUDF, args: &ScalarFunctionArgs) -> Option<Result<ColumnarValue>> {
    let [ColumnarValue::Array(times), ColumnarValue::Scalar(pattern)] = args.args.as_slice() else {
        return None;
    };
    let times = times.as_primitive_opt::<TimestampNanosecondType>()?;
    if function.name() != "to_char" || times.timezone().is_some_and(|zone| zone != "UTC") {
        return None;
    }
    let unit = unit(pattern.try_as_str()??)?;
    let (mut units, mut numbers, mut last) = (Vec::new(), HashMap::new(), None);
    let mut number = |time: i64| {
        let start = time.checked_sub(time.rem_euclid(unit)).unwrap_or(time);
        // Times next to each other are often of one unit.
        let number = last.filter(|(of, _)| *of == start).map_or_else(
            || {
                *numbers.entry(start).or_insert_with(|| {
                    units.push(start);
                    units.len() as u32 - 1
                })
            },
            |(_, number)| number,
        );
        last = Some((start, number));
        number
    };
    let numbers: UInt32Array = times.iter().map(|time| time.map(&mut number)).collect();
    let number_rows = units.len();
    let units = TimestampNanosecondArray::from(units).with_timezone_opt(times.timezone());
    let of_units = ScalarFunctionArgs {
        args: vec![
            ColumnarValue::Array(Arc::new(units)),
            ColumnarValue::Scalar(pattern.clone()),
        ],
        number_rows,
        ..args.clone()
    };
    let formatted = || {
        let texts = function.inner().invoke_with_args(of_units)?.into_array(number_rows)?;
        Ok(ColumnarValue::Array(take(&texts, &numbers, None)?))
    };
    Some(formatted())
}

/// The longest unit, in nanoseconds, of whose times a pattern tells none apart. None if it tells all.
fn unit(pattern: &str) -> Option<i64> {
    let (mut unit, mut rest) = (DAY, pattern.chars());
    while rest.any(|char| char == '%') {
        let specifier = rest.find(|char| !matches!(char, '-' | '_' | '0'))?;
        unit = unit.min(match specifier {
            'Y' | 'C' | 'y' | 'm' | 'b' | 'B' | 'h' | 'd' | 'e' | 'a' | 'A' | 'w' | 'u' | 'U' | 'W' | 'G' | 'g'
            | 'V' | 'j' | 'D' | 'x' | 'F' | 'v' | '%' | 't' | 'n' => DAY,
            'H' | 'k' | 'I' | 'l' | 'P' | 'p' => 60 * MINUTE,
            'M' | 'R' => MINUTE,
            'S' | 'T' | 'X' | 'r' | 's' | 'c' => SECOND,
            _ => return None,
        });
    }
    Some(unit)
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::{array::ArrayRef, datatypes::Field},
        config::ConfigOptions,
        functions::datetime::to_char,
        scalar::ScalarValue,
    };
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_are_formatted_as_datafusion_does(
            times in prop::collection::vec(prop::option::of(any::<i64>()), 0..10),
            near in prop::collection::vec(0i64..3 * DAY, 0..10),
            specifiers in prop::collection::vec(
                prop::sample::select(&[
                    "%Y", "%C", "%y", "%m", "%-m", "%b", "%B", "%h", "%d", "%e", "%a", "%A", "%w", "%u", "%U", "%W",
                    "%G", "%g", "%V", "%j", "%D", "%x", "%F", "%v", "%%", "%t", "%n", "%H", "%k", "%I", "%l", "%P",
                    "%p", "%M", "%_M", "%R", "%S", "%T", "%X", "%r", "%s", "%c", "%f", "%3f", "%.3f", "%+", "Y-", "é",
                ]),
                0..4,
            ),
        ) {
            let pattern: String = specifiers.concat();
            let times: Vec<Option<i64>> = times.into_iter().chain(near.into_iter().map(Some)).collect();
            let rows = times.len();
            let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC"));
            let args = ScalarFunctionArgs {
                arg_fields: vec![],
                number_rows: rows,
                return_field: Arc::new(Field::new("text", datafusion::arrow::datatypes::DataType::Utf8, true)),
                config_options: Arc::new(ConfigOptions::default()),
                args: vec![
                    ColumnarValue::Array(times),
                    ColumnarValue::Scalar(ScalarValue::from(pattern.as_str())),
                ],
            };
            let tells_all = specifiers.iter().any(|of| of.ends_with('f') || *of == "%+");
            let ours = format(&to_char(), &args);
            prop_assert_eq!(ours.is_none(), tells_all, "{}", pattern);
            if let Some(ours) = ours {
                let ours = ours.and_then(|texts| texts.into_array(rows)).expect("texts");
                let theirs = to_char().inner().invoke_with_args(args).and_then(|texts| texts.into_array(rows));
                prop_assert_eq!(&ours, &theirs.expect("texts"), "{}", pattern);
            }
        }
    }
}
