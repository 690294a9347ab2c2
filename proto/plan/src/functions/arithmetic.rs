//! DataFusion's arithmetic as functions, so that it is lenient as they are: a row whose result does not fit is NULL and counted.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::AsArray as _,
        compute::kernels::numeric,
        datatypes::{DataType, Decimal128Type},
    },
    common::{Result, exec_err, internal_err},
    logical_expr::{ColumnarValue, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, binary::BinaryTypeCoercer},
    physical_expr_common::datum::apply,
};

use super::lenient::lenient;

const NAMES: [(Operator, &str); 5] = [
    (Operator::Plus, "add"),
    (Operator::Minus, "subtract"),
    (Operator::Multiply, "multiply"),
    (Operator::Divide, "divide"),
    (Operator::Modulo, "modulo"),
];

/// All of them, to be registered with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |(operator, name)| Arc::new(ScalarUDF::from(Arithmetic { operator, name, signature: Signature::any(2, Volatility::Immutable) }));
    NAMES.map(function).map(lenient).into()
}

/// The function of an operator, if it is one of arithmetic.
pub fn name(operator: Operator) -> Option<&'static str> {
    NAMES.iter().find(|(named, _)| *named == operator).map(|(_, name)| *name)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Arithmetic {
    operator: Operator,
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Arithmetic {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let [left, right] = types else { return exec_err!("{} takes two numbers", self.name) };
        BinaryTypeCoercer::new(left, &self.operator, right).get_result_type()
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else { return exec_err!("{} takes two numbers", self.name) };
        let (left_type, right_type) = BinaryTypeCoercer::new(&left.data_type(), &self.operator, &right.data_type()).get_input_types()?;
        let (left, right) = (left.cast_to(&left_type, None)?, right.cast_to(&right_type, None)?);
        let computed = match self.operator {
            Operator::Plus => apply(&left, &right, numeric::add),
            Operator::Minus => apply(&left, &right, numeric::sub),
            Operator::Multiply => apply(&left, &right, numeric::mul),
            Operator::Divide => apply(&left, &right, numeric::div),
            Operator::Modulo => apply(&left, &right, numeric::rem),
            other => internal_err!("{other} is no arithmetic"),
        }?;
        // The kernels look at 128 bits, which hold more digits than a decimal has.
        if let DataType::Decimal128(digits, _) = computed.data_type() {
            computed.to_array(1)?.as_primitive::<Decimal128Type>().validate_decimal_precision(digits)?;
        }
        Ok(computed)
    }
}
