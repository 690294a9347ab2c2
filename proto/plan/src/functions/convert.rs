//! `lenient_cast(value, NULL::type, 'TYPE')`: what cannot be converted is NULL, and counted under the name of the type.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::Array as _,
        compute::{CastOptions, cast_with_options},
        datatypes::{DataType, Field, FieldRef},
    },
    common::{Result, ScalarValue, exec_err},
    logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

use super::notices::Notices;

/// Its name.
pub const CAST: &str = "lenient_cast";

/// The function, to be registered with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ScalarUDF::from(LenientCast { signature: Signature::any(3, Volatility::Immutable) }))]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct LenientCast {
    signature: Signature,
}

impl ScalarUDFImpl for LenientCast {
    fn name(&self) -> &str {
        CAST
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        types.get(1).map_or_else(|| exec_err!("{CAST} takes a value and a type"), |to| Ok(to.clone()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(CAST, self.return_type(&types)?, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value, to, ColumnarValue::Scalar(name)] = args.args.as_slice() else { return exec_err!("{CAST} takes a value, a type and its name") };
        let scalar = matches!(value, ColumnarValue::Scalar(_));
        let rows = if scalar { 1 } else { args.number_rows };
        let values = value.to_array(rows)?;
        let cast = cast_with_options(&values, &to.data_type(), &CastOptions { safe: true, ..Default::default() })?;
        let asked = rows - values.logical_null_count();
        if let Some(notices) = Notices::of(&args.config_options) {
            let what = format!("as {}", name.try_as_str().flatten().unwrap_or_default());
            notices.count(&what, (cast.null_count() - values.logical_null_count()) as u64, asked as u64);
        }
        match scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&cast, 0)?)),
            false => Ok(ColumnarValue::Array(cast)),
        }
    }
}
