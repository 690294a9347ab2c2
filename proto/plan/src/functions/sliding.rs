//! Aggregates over a sliding frame, computed only from the values in the frame: nothing is subtracted from a total. A
//! double that is added and later subtracted leaves its rounding error behind, and when the least value leaves the
//! frame, it does not determine the next one.

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

/// All these aggregates, for registration with a session.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let function = |name| {
        Arc::new(AggregateUDF::from(SlidingDoublesUdaf {
            name,
            signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable),
        }))
    };
    [SUM, AVG].map(function).into()
}

/// A queue that knows the total of its values. For each value of the older half it stores the total of that value and
/// all newer ones in that half; for the newer half it stores the values and their total. Each value is added at most
/// twice.
#[derive(Debug)]
pub struct SlidingTotal<T> {
    older: Vec<T>,
    newer: VecDeque<T>,
    newer_total: Option<T>,
}

impl<T> Default for SlidingTotal<T> {
    fn default() -> Self {
        Self {
            older: Vec::new(),
            newer: VecDeque::new(),
            newer_total: None,
        }
    }
}

impl<T: Clone> SlidingTotal<T> {
    /// Appends a value.
    pub fn push(&mut self, value: T, join: impl Fn(&T, &T) -> T) {
        self.newer_total = Some(
            self.newer_total
                .as_ref()
                .map_or_else(|| value.clone(), |total| join(total, &value)),
        );
        self.newer.push_back(value);
    }

    /// Removes the oldest value.
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

    /// The total of all values; None if there are none.
    pub fn total(&self, join: impl Fn(&T, &T) -> T) -> Option<T> {
        match (self.older.last(), &self.newer_total) {
            (Some(older), Some(newer)) => Some(join(older, newer)),
            (older, newer) => older.or(newer.as_ref()).cloned(),
        }
    }

    /// The number of values.
    pub fn count(&self) -> usize {
        self.older.len() + self.newer.len()
    }

    /// Bytes of memory, without what the values point to.
    pub fn size(&self) -> usize {
        size_of_val(self) + (self.older.capacity() + self.newer.capacity()) * size_of::<T>()
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SlidingDoublesUdaf {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for SlidingDoublesUdaf {
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
        Ok(Box::new(SlidingDoublesAccumulator {
            average: self.name == AVG,
            values: SlidingTotal::default(),
        }))
    }
}

#[derive(Debug)]
struct SlidingDoublesAccumulator {
    average: bool,
    values: SlidingTotal<f64>,
}

fn add(a: &f64, b: &f64) -> f64 {
    a + b
}

impl SlidingDoublesAccumulator {
    fn each(&mut self, values: &[ArrayRef], mut change: impl FnMut(&mut SlidingTotal<f64>, f64)) -> Result<()> {
        let [values] = values else {
            return exec_err!("expected one column of doubles");
        };
        values
            .as_primitive::<Float64Type>()
            .iter()
            .flatten()
            .for_each(|value| change(&mut self.values, value));
        Ok(())
    }
}

impl Accumulator for SlidingDoublesAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(values, |queue, value| queue.push(value, add))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.each(values, |queue, _| queue.pop(add))
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
    use super::SlidingTotal;

    #[test]
    fn the_total_covers_exactly_the_values_in_the_queue() {
        let (mut queue, mut plain) = (SlidingTotal::default(), Vec::new());
        let join = |a: &String, b: &String| format!("{a}{b}");
        for step in 0..200_u32 {
            // Three in, two out; later fewer in than out. The concatenated text reveals any value out of order.
            if step % 5 < 3 || (step > 100 && step % 7 == 0) {
                queue.push(step.to_string(), join);
                plain.push(step.to_string());
            } else if !plain.is_empty() {
                queue.pop(join);
                plain.remove(0);
            }
            assert_eq!(queue.total(join).unwrap_or_default(), plain.concat(), "step {step}");
            assert_eq!(queue.count(), plain.len());
        }
    }
}
