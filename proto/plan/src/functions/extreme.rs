//! The least and the greatest of JSON values. Numbers take precedence over texts, and texts over booleans, so a stray
//! text does not hide the greatest number of its group.

use std::{cmp::Ordering, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, LargeStringBuilder},
        datatypes::{DataType, FieldRef},
    },
    common::{Result, ScalarValue, exec_err},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, ScalarUDF, Signature, Volatility, function::AccumulatorArgs,
    },
};
use proto::json::{self, Value};

use super::{
    function::{Call, Function, Returns},
    sliding::SlidingTotal,
};
use crate::{Kinds, column::json_field, value::compare};

/// The least value of a group.
pub const MIN: &str = "json_min";
/// The greatest value of a group.
pub const MAX: &str = "json_max";
/// The least value of a row.
pub const LEAST: &str = "json_least";
/// The greatest value of a row.
pub const GREATEST: &str = "json_greatest";

/// The aggregates over groups, for registration with a session.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let function = |name| {
        Arc::new(AggregateUDF::from(ExtremeUdaf {
            name,
            signature: Signature::any(1, Volatility::Immutable),
        }))
    };
    [MIN, MAX].map(function).into()
}

/// The functions over the values of a row, for registration with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    [LEAST, GREATEST]
        .map(|name| Function::new(name, None, Returns::Json, extreme_of_row).into())
        .into()
}

/// The least or greatest value so far.
#[derive(Debug)]
struct BestValue {
    greatest: bool,
    text: Option<String>,
}

impl BestValue {
    fn offer(&mut self, text: &str) {
        if is_better(text, self.text.as_deref(), self.greatest) {
            self.text = Some(text.to_owned());
        }
    }
}

fn is_better(text: &str, best: Option<&str>, greatest: bool) -> bool {
    let Ok(value) = json::parse(text.as_bytes()) else {
        return false;
    };
    let parsed = best.and_then(|best| Some((best, json::parse(best.as_bytes()).ok()?)));
    match parsed {
        None => precedence(&value) > 0,
        Some((spelling, best)) => match compare(&value, &best) {
            // 265 and 265.0 are equal. The answer must not depend on which of them comes first.
            Some(Ordering::Equal) => (text.len(), text) < (spelling.len(), spelling),
            Some(ordering) => ordering == if greatest { Ordering::Greater } else { Ordering::Less },
            None => precedence(&value) > precedence(&best),
        },
    }
}

/// The least or greatest value of a sliding frame. A value without an order is queued as None, like NULL, so that every
/// value that leaves the frame has an entry.
#[derive(Debug)]
struct SlidingBest {
    greatest: bool,
    values: SlidingTotal<Option<String>>,
    bytes: usize,
}

impl SlidingBest {
    fn join(greatest: bool) -> impl Fn(&Option<String>, &Option<String>) -> Option<String> {
        move |a, b| match b {
            Some(text) if is_better(text, a.as_deref(), greatest) => b.clone(),
            _ => a.clone(),
        }
    }
}

impl Accumulator for SlidingBest {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values] = values else {
            return exec_err!("expected one column of JSON");
        };
        for text in values.as_string::<i64>() {
            let value = text
                .filter(|text| is_better(text, None, self.greatest))
                .map(str::to_owned);
            self.bytes += value.as_ref().map_or(0, String::len);
            self.values.push(value, Self::join(self.greatest));
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values] = values else {
            return exec_err!("expected one column of JSON");
        };
        for text in values.as_string::<i64>() {
            self.bytes = self.bytes.saturating_sub(text.map_or(0, str::len));
            self.values.pop(Self::join(self.greatest));
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        exec_err!("a sliding frame has no partial state")
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        exec_err!("a sliding frame has no partial state")
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::LargeUtf8(
            self.values.total(Self::join(self.greatest)).flatten(),
        ))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.size() + self.bytes
    }
}

/// Numbers precede texts, texts precede booleans; a value without an order is never the least or the greatest.
fn precedence(value: &Value<'_>) -> u8 {
    match value {
        Value::Bool(_) => 1,
        Value::Text(_) => 2,
        value if Kinds::of(value).any(Kinds::NUMBER) => 3,
        _ => 0,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExtremeUdaf {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for ExtremeUdaf {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::LargeUtf8)
    }

    fn return_field(&self, _: &[FieldRef]) -> Result<FieldRef> {
        Ok(Arc::new(json_field(self.name, Kinds::default())))
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(BestValue {
            greatest: self.name == MAX,
            text: None,
        }))
    }

    fn create_sliding_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(SlidingBest {
            greatest: self.name == MAX,
            values: SlidingTotal::default(),
            bytes: 0,
        }))
    }
}

impl Accumulator for BestValue {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        match values {
            [values] => values
                .as_string::<i64>()
                .iter()
                .flatten()
                .for_each(|text| self.offer(text)),
            _ => return exec_err!("expected one column of JSON"),
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.update_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::LargeUtf8(self.text.clone()))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.text.as_ref().map_or(0, String::capacity)
    }
}

fn extreme_of_row(call: &Call) -> Result<ArrayRef> {
    let columns = call.columns(0)?;
    let columns: Vec<_> = columns.iter().map(|column| column.as_string::<i64>()).collect();
    let mut chosen = LargeStringBuilder::with_capacity(call.rows, 0);
    for row in 0..call.rows {
        let mut best = BestValue {
            greatest: call.name == GREATEST,
            text: None,
        };
        columns
            .iter()
            .filter(|column| column.is_valid(row))
            .for_each(|column| best.offer(column.value(row)));
        chosen.append_option(best.text);
    }
    Ok(Arc::new(chosen.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_numbers_the_shortest_spelling_is_chosen_in_any_order() {
        for greatest in [true, false] {
            for texts in [
                ["265.0", "265", "2.65e2"],
                ["265", "2.65e2", "265.0"],
                ["2.65e2", "265.0", "265"],
            ] {
                let mut best = BestValue { greatest, text: None };
                texts.iter().for_each(|text| best.offer(text));
                assert_eq!(best.text.as_deref(), Some("265"), "{texts:?}");
            }
        }
    }
}
