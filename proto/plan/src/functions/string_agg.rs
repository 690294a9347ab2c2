//! `string_agg` as a text. The library gives it the type that says JSON here.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::ArrayRef,
        datatypes::{DataType, FieldRef},
    },
    common::{Result, ScalarValue},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Signature,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::AggregateOrderSensitivity,
    },
};

/// The function in the place of the library's; any other as it is.
pub fn as_text(function: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    match function.name() {
        "string_agg" => Arc::new(AggregateUDF::from(StringAgg { function })),
        _ => function,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct StringAgg {
    function: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for StringAgg {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.function.state_fields(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.function.order_sensitivity()
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Text(self.function.accumulator(args)?)))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Text(self.function.create_sliding_accumulator(args)?)))
    }
}

#[derive(Debug)]
struct Text(Box<dyn Accumulator>);

impl Accumulator for Text {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.0.supports_retract_batch()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.evaluate()?.cast_to(&DataType::Utf8View)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.size()
    }
}
