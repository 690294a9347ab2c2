//! The least and the greatest of JSON values: that of the numbers or, where there are none, of the texts, else of the
//! booleans. So a stray text does not hide the greatest number of its group.

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
    sliding::Totals,
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

/// Over groups.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let function = |name| {
        Arc::new(AggregateUDF::from(OfGroup {
            name,
            signature: Signature::any(1, Volatility::Immutable),
        }))
    };
    [MIN, MAX].map(function).into()
}

/// Over rows.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    [LEAST, GREATEST]
        .map(|name| Function::new(name, None, Returns::Json, of_row).into())
        .into()
}

/// The best value so far.
#[derive(Debug)]
struct Best {
    greatest: bool,
    text: Option<String>,
}

impl Best {
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
    match best.and_then(|best| json::parse(best.as_bytes()).ok()) {
        None => precedence(&value) > 0,
        Some(best) => match compare(&value, &best) {
            Some(ordering) => ordering == if greatest { Ordering::Greater } else { Ordering::Less },
            None => precedence(&value) > precedence(&best),
        },
    }
}

/// The best value of a frame that slides. What has no order counts as NULL does, so that each that leaves has come.
#[derive(Debug)]
struct BestOfFrame {
    greatest: bool,
    values: Totals<Option<String>>,
    bytes: usize,
}

impl BestOfFrame {
    fn join(greatest: bool) -> impl Fn(&Option<String>, &Option<String>) -> Option<String> {
        move |a, b| match b {
            Some(text) if is_better(text, a.as_deref(), greatest) => b.clone(),
            _ => a.clone(),
        }
    }
}

impl Accumulator for BestOfFrame {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [values] = values else {
            return exec_err!("one column of JSON is wanted");
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
            return exec_err!("one column of JSON is wanted");
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
        exec_err!("a frame has no parts")
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        exec_err!("a frame has no parts")
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

/// Numbers go before texts, texts before booleans; what has no order is never the least or the greatest.
fn precedence(value: &Value<'_>) -> u8 {
    match value {
        Value::Bool(_) => 1,
        Value::Text(_) => 2,
        value if Kinds::of(value).any(Kinds::NUMBER) => 3,
        _ => 0,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfGroup {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for OfGroup {
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
        Ok(Box::new(Best {
            greatest: self.name == MAX,
            text: None,
        }))
    }

    fn create_sliding_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(BestOfFrame {
            greatest: self.name == MAX,
            values: Totals::default(),
            bytes: 0,
        }))
    }
}

impl Accumulator for Best {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        match values {
            [values] => values
                .as_string::<i64>()
                .iter()
                .flatten()
                .for_each(|text| self.offer(text)),
            _ => return exec_err!("one column of JSON is wanted"),
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

fn of_row(call: &Call) -> Result<ArrayRef> {
    let columns = call.columns(0)?;
    let columns: Vec<_> = columns.iter().map(|column| column.as_string::<i64>()).collect();
    let mut chosen = LargeStringBuilder::with_capacity(call.rows, 0);
    for row in 0..call.rows {
        let mut best = Best {
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
