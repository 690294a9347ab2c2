//! Aggregates that collect their input into one value: `string_agg`, `array_agg`, and `nth_value`, which collects
//! values to count to the one it returns. The size of that value is limited, because it is copied whole wherever it
//! goes. Here `string_agg` returns a text: DataFusion gives it the type that marks JSON.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::ArrayRef,
        datatypes::{DataType, FieldRef},
    },
    common::{Result, ScalarValue},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
};

use super::{constants, context::limit_reached};
use crate::arrays;

/// Bytes that may be collected into one value.
const COLLECTED_BYTES_MAX: usize = 64 << 20;
const STRING_AGG: &str = "string_agg";
const NTH_VALUE: &str = "nth_value";
const COLLECTING: [&str; 3] = [STRING_AGG, "array_agg", NTH_VALUE];

/// Bounds a collecting function of DataFusion; returns any other unchanged.
pub(super) fn bounded(function: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    match COLLECTING.into_iter().find(|name| *name == function.name()) {
        Some(name) => Arc::new(AggregateUDF::from(BoundedCollect { name, function })),
        None => function,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct BoundedCollect {
    name: &'static str,
    function: Arc<AggregateUDF>,
}

impl BoundedCollect {
    fn is_text(&self) -> bool {
        self.name == STRING_AGG
    }

    fn accumulate(&self, inner: Box<dyn Accumulator>, distinct: bool) -> Box<dyn Accumulator> {
        Box::new(CollectAccumulator {
            name: self.name,
            inner,
            retains_all: !distinct && self.name != NTH_VALUE,
            bytes: 0,
        })
    }
}

impl AggregateUDFImpl for BoundedCollect {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        if self.is_text() {
            Ok(DataType::Utf8View)
        } else {
            self.function.inner().return_type(types)
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.function.state_fields(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.function.order_sensitivity()
    }

    fn with_beneficial_ordering(self: Arc<Self>, is_ordered: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        let ordered = self.function.as_ref().clone().with_beneficial_ordering(is_ordered)?;
        Ok(ordered.map(|function| {
            Arc::new(Self {
                name: self.name,
                function: Arc::new(function),
            }) as Arc<dyn AggregateUDFImpl>
        }))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.function.reverse_udf() {
            _ if self.is_text() => ReversedUDAF::NotSupported,
            ReversedUDAF::Reversed(function) => ReversedUDAF::Reversed(bounded(function)),
            other => other,
        }
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.function.supports_null_handling_clause()
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let distinct = args.is_distinct;
        Ok(self.accumulate(self.function.accumulator(args)?, distinct))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let distinct = args.is_distinct;
        Ok(self.accumulate(self.function.create_sliding_accumulator(args)?, distinct))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        // DataFusion's groups accumulator counts the views of texts but not the texts.
        let counted = args
            .expr_fields
            .iter()
            .all(|field| !constants::is_long(field.data_type()));
        counted && !self.is_text() && self.function.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        self.function.create_groups_accumulator(args)
    }
}

/// Collects one value, up to the limit.
#[derive(Debug)]
struct CollectAccumulator {
    name: &'static str,
    inner: Box<dyn Accumulator>,
    /// Whether every input value is retained. If not, the size of the input says little about that of the result.
    retains_all: bool,
    /// Bytes of the input so far, if all of it is retained.
    bytes: usize,
}

impl CollectAccumulator {
    /// Counts the input; fails at the limit.
    fn count_input(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.retains_all {
            self.bytes += values.first().map_or(0, arrays::size) as usize;
        }
        let bytes = self.inner.size().max(self.bytes);
        match bytes > COLLECTED_BYTES_MAX {
            true => Err(limit_reached(
                format!(
                    "{} collects {bytes} bytes into one value; the limit is {COLLECTED_BYTES_MAX}",
                    self.name
                ),
                "collect less: group by more columns, or shorten the values, for example left(x, 1000)",
            )),
            false => Ok(()),
        }
    }
}

impl Accumulator for CollectAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        // A window adds one row at a time, and each result lists the buffers of all its rows. Short texts that were cut
        // out of long ones would bring along, and list, the buffers of a whole batch each.
        let own: Vec<ArrayRef> = values.iter().map(arrays::compact).collect();
        self.inner.update_batch(&own)?;
        self.count_input(&own)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.bytes = self
            .bytes
            .saturating_sub(values.first().map_or(0, arrays::size) as usize);
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)?;
        self.count_input(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        // DataFusion builds a list of texts in a buffer of 8 KiB.
        Ok(self.inner.state()?.into_iter().map(arrays::compact_value).collect())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = arrays::compact_value(self.inner.evaluate()?);
        if self.name == STRING_AGG {
            value.cast_to(&DataType::Utf8View)
        } else {
            Ok(value)
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size().max(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::{
        array::{Array as _, AsArray as _, StringViewArray, UInt32Array},
        compute::take,
    };

    use super::*;

    /// Fails if it gets texts with the buffers of others.
    #[derive(Debug)]
    struct WithoutForeignBuffers;

    impl Accumulator for WithoutForeignBuffers {
        fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
            let buffers = values[0].as_string_view().data_buffers().len();
            assert_eq!(buffers, 0, "a short text has a buffer");
            Ok(())
        }

        fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
            Ok(())
        }

        fn state(&mut self) -> Result<Vec<ScalarValue>> {
            Ok(Vec::new())
        }

        fn evaluate(&mut self) -> Result<ScalarValue> {
            Ok(ScalarValue::Null)
        }

        fn size(&self) -> usize {
            0
        }
    }

    #[test]
    fn a_short_text_is_collected_without_the_long_ones_beside_which_it_was_computed() {
        let long = "x".repeat(10_000);
        let texts = (0..100).flat_map(|_| [long.as_str(), "short"]);
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        let short = take(&texts, &UInt32Array::from(vec![1, 3, 5]), None).expect("three rows");
        assert!(
            !short.as_string_view().data_buffers().is_empty(),
            "they have the buffers of the long ones"
        );
        let mut collected = CollectAccumulator {
            name: "array_agg",
            inner: Box::new(WithoutForeignBuffers),
            retains_all: true,
            bytes: 0,
        };
        for row in 0..short.len() {
            collected.update_batch(&[short.slice(row, 1)]).expect("a short text");
        }
    }
}
