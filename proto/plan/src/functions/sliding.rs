//! Aggregates over a frame that slides, of what is in the frame alone: nothing is taken back from a total. A double
//! that was added and subtracted again leaves its rounding behind, and a least value that leaves says nothing of the
//! next one.

use std::{collections::VecDeque, sync::Arc};

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray as _},
        datatypes::{DataType, Float64Type},
    },
    common::{Result, ScalarValue, exec_err},
    logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility, function::AccumulatorArgs},
};

/// The sum of doubles.
pub const SUM: &str = "sliding_sum";
/// The average of doubles.
pub const AVG: &str = "sliding_avg";

/// Over frames of doubles.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let function = |name| {
        Arc::new(AggregateUDF::from(OfDoubles {
            name,
            signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable),
        }))
    };
    [SUM, AVG].map(function).into()
}

/// A queue that knows the total of its values: of the older half what each comes to with all that are newer in that
/// half, of the newer half the values and their total. Each value is added twice at most.
#[derive(Debug)]
pub struct Totals<T> {
    older: Vec<T>,
    newer: VecDeque<T>,
    newer_total: Option<T>,
}

impl<T> Default for Totals<T> {
    fn default() -> Self {
        Self {
            older: Vec::new(),
            newer: VecDeque::new(),
            newer_total: None,
        }
    }
}

impl<T: Clone> Totals<T> {
    /// Takes in a value at the end.
    pub fn push(&mut self, value: T, join: impl Fn(&T, &T) -> T) {
        self.newer_total = Some(
            self.newer_total
                .as_ref()
                .map_or_else(|| value.clone(), |total| join(total, &value)),
        );
        self.newer.push_back(value);
    }

    /// Lets go of the oldest value.
    pub fn pop(&mut self, join: impl Fn(&T, &T) -> T) {
        if self.older.is_empty() {
            self.newer_total = None;
            while let Some(value) = self.newer.pop_back() {
                let total = self
                    .older
                    .last()
                    .map_or_else(|| value.clone(), |total| join(&value, total));
                self.older.push(total);
            }
        }
        self.older.pop();
    }

    /// What all values come to.
    pub fn total(&self, join: impl Fn(&T, &T) -> T) -> Option<T> {
        match (self.older.last(), &self.newer_total) {
            (Some(older), Some(newer)) => Some(join(older, newer)),
            (older, newer) => older.or(newer.as_ref()).cloned(),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.older.len() + self.newer.len()
    }

    /// Bytes of memory, besides what values point to.
    pub fn size(&self) -> usize {
        size_of_val(self) + (self.older.capacity() + self.newer.capacity()) * size_of::<T>()
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfDoubles {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for OfDoubles {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Doubles {
            average: self.name == AVG,
            values: Totals::default(),
        }))
    }
}

#[derive(Debug)]
struct Doubles {
    average: bool,
    values: Totals<f64>,
}

fn add(a: &f64, b: &f64) -> f64 {
    a + b
}

impl Doubles {
    fn each(&mut self, values: &[ArrayRef], mut change: impl FnMut(&mut Totals<f64>, f64)) -> Result<()> {
        let [values] = values else {
            return exec_err!("one column of doubles is wanted");
        };
        values
            .as_primitive::<Float64Type>()
            .iter()
            .flatten()
            .for_each(|value| change(&mut self.values, value));
        Ok(())
    }
}

impl Accumulator for Doubles {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(values, |totals, value| totals.push(value, add))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(values, |totals, _| totals.pop(add))
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
        let divisor = if self.average { self.values.count() as f64 } else { 1.0 };
        Ok(ScalarValue::Float64(
            self.values.total(add).map(|total| total / divisor),
        ))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.size()
    }
}

#[cfg(test)]
mod tests {
    use super::Totals;

    #[test]
    fn a_total_is_that_of_the_values_that_are_there() {
        let (mut totals, mut plain) = (Totals::default(), Vec::new());
        let join = |a: &String, b: &String| format!("{a}{b}");
        for step in 0..200_u32 {
            // Three in, two out, then fewer in than out: the order of a text shows every place.
            if step % 5 < 3 || (step > 100 && step % 7 == 0) {
                totals.push(step.to_string(), join);
                plain.push(step.to_string());
            } else if !plain.is_empty() {
                totals.pop(join);
                plain.remove(0);
            }
            assert_eq!(totals.total(join).unwrap_or_default(), plain.concat(), "step {step}");
            assert_eq!(totals.count(), plain.len());
        }
    }
}
