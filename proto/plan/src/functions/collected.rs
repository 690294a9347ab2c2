//! Aggregates that collect their values into one: `string_agg`, as a text (the library gives it the type that says JSON
//! here), `array_agg`, and `nth_value`, which collects them to count to the one that it gives. One value has a limit,
//! because it is copied whole wherever it goes.

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

use super::{constants, function::limit};
use crate::arrays;

/// Bytes that one value may be collected of.
const COLLECTED_BYTES_MAX: usize = 64 << 20;
const STRING_AGG: &str = "string_agg";
const NTH_VALUE: &str = "nth_value";
const COLLECTING: [&str; 3] = [STRING_AGG, "array_agg", NTH_VALUE];

/// The function in the place of the library's; any other as it is.
pub fn bounded(function: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    match COLLECTING.into_iter().find(|name| *name == function.name()) {
        Some(name) => Arc::new(AggregateUDF::from(Collected { name, function })),
        None => function,
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Collected {
    name: &'static str,
    function: Arc<AggregateUDF>,
}

impl Collected {
    fn is_text(&self) -> bool {
        self.name == STRING_AGG
    }

    fn one(&self, inner: Box<dyn Accumulator>, distinct: bool) -> Box<dyn Accumulator> {
        Box::new(One {
            name: self.name,
            inner,
            keeps_all: !distinct && self.name != NTH_VALUE,
            bytes: 0,
        })
    }
}

impl AggregateUDFImpl for Collected {
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
        Ok(self.one(self.function.accumulator(args)?, distinct))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let distinct = args.is_distinct;
        Ok(self.one(self.function.create_sliding_accumulator(args)?, distinct))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        // The library's counts the views of texts and not the texts.
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

/// What is collected into one value.
#[derive(Debug)]
struct One {
    name: &'static str,
    inner: Box<dyn Accumulator>,
    /// Otherwise equal values are kept once, or only some: what came in says little.
    keeps_all: bool,
    /// What came in.
    bytes: usize,
}

impl One {
    /// Counts what came in.
    fn came(&mut self, values: &[ArrayRef]) -> Result<()> {
        if self.keeps_all {
            self.bytes += values.first().map_or(0, arrays::size) as usize;
        }
        let bytes = self.inner.size().max(self.bytes);
        match bytes > COLLECTED_BYTES_MAX {
            true => Err(limit(
                format!(
                    "{} collects {bytes} bytes into one value; the limit is {COLLECTED_BYTES_MAX}",
                    self.name
                ),
                "collect less: group by more, or shorten the values, as left(x, 1000)",
            )),
            false => Ok(()),
        }
    }
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)?;
        self.came(values)
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
        self.came(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        // A list of texts is built in a buffer of 8 KiB.
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
