//! Makes functions return NULL for inputs without a result (the root of -1, a day in a year that nanoseconds cannot
//! represent), so that one stray value does not fail a query over all the others.
//!
//! A batch is computed as usual; only if that fails is it computed again row by row.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray as _, Float64Array},
        datatypes::{DataType, FieldRef, Float64Type},
    },
    common::{DataFusionError, Result, ScalarValue},
    logical_expr::{
        ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        Volatility,
        interval_arithmetic::Interval,
        preimage::PreimageResult,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};

use super::{
    bounded,
    context::FunctionContext,
    formatted_times,
    function::{schema_name, unbounded_result},
    in_utc,
    registry::{self, Property},
};

/// Makes a function lenient: if it has no result for some values, the result is NULL and counted.
pub fn lenient(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match function.signature().volatility {
        Volatility::Immutable if !function.short_circuits() => Arc::new(ScalarUDF::from(Lenient { function })),
        _ => function,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Lenient {
    function: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for Lenient {
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
        self.function.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let field = self.function.inner().return_field_from_args(args)?;
        Ok(Arc::new(field.as_ref().clone().with_nullable(true)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.inner().coerce_types(types)
    }

    fn is_strict(&self) -> bool {
        self.function.is_strict()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        schema_name(self.name(), args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match registry::function(self.name()) {
            Some(entry) if entry.has(Property::IsNotSimplified) => Ok(ExprSimplifyResult::Original(args)),
            _ => self.function.inner().simplify(args, info),
        }
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        let bounds = self.function.inner().evaluate_bounds(inputs)?;
        if bounds.data_type() == DataType::Null {
            unbounded_result(self, inputs)
        } else {
            Ok(bounds)
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.inner().documentation()
    }

    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        self.function.inner().preimage(args, literal, info)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        bounded::invoke(self.name(), args, |args| self.compute(&args))
    }
}

/// Whether values caused an error, rather than a call that cannot be computed at all.
fn is_caused_by_values(error: &DataFusionError) -> bool {
    !matches!(
        error.find_root(),
        DataFusionError::Internal(_)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::Plan(_)
            | DataFusionError::External(_)
    )
}

impl Lenient {
    /// DataFusion's result, with NULL if it has none.
    fn compute(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let has_columns = args.args.iter().any(|arg| matches!(arg, ColumnarValue::Array(_)));
        let formatted = formatted_times::format(&self.function, args);
        match formatted.unwrap_or_else(|| in_utc::invoke(&self.function, args.clone())) {
            Err(_) if has_columns => self.compute_by_row(args),
            // Scalars are the values of subqueries, and literals only if the result is a text or a list.
            Err(error) if is_caused_by_values(&error) => self.null(args),
            Ok(ColumnarValue::Array(array)) if *array.data_type() == DataType::Float64 => {
                Ok(ColumnarValue::Array(self.nullify_non_finite(args, array)))
            }
            Ok(ColumnarValue::Scalar(ScalarValue::Float64(Some(double)))) if !double.is_finite() => self.null(args),
            computed => computed,
        }
    }

    /// NULL for all rows, counted once.
    fn null(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        if let Some(context) = FunctionContext::of(&args.config_options) {
            context.warnings.count(self.name(), 1, 1);
        }
        Ok(ColumnarValue::Scalar(ScalarValue::try_from(
            args.return_field.data_type(),
        )?))
    }

    /// Replaces results that are not finite (`ln(-1)`, `exp(1000)`) by NULL.
    fn nullify_non_finite(&self, args: &ScalarFunctionArgs, computed: ArrayRef) -> ArrayRef {
        let doubles = computed.as_primitive::<Float64Type>();
        let failed = doubles.iter().flatten().filter(|double| !double.is_finite()).count();
        if failed == 0 {
            return computed;
        }
        if let Some(context) = FunctionContext::of(&args.config_options) {
            context
                .warnings
                .count(self.name(), failed as u64, args.number_rows as u64);
        }
        Arc::new(
            doubles
                .iter()
                .map(|double| double.filter(|double| double.is_finite()))
                .collect::<Float64Array>(),
        )
    }

    fn compute_by_row(&self, args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
        let null = ScalarValue::try_from(args.return_field.data_type())?;
        let mut failed = 0;
        let mut values = Vec::with_capacity(args.number_rows);
        for row in 0..args.number_rows {
            let value = self.compute_row(args, row)?;
            failed += u64::from(value.is_none());
            values.push(value.unwrap_or_else(|| null.clone()));
        }
        if let Some(context) = FunctionContext::of(&args.config_options) {
            context.warnings.count(self.name(), failed, args.number_rows as u64);
        }
        match values.is_empty() {
            true => Ok(ColumnarValue::Array(datafusion::arrow::array::new_empty_array(
                args.return_field.data_type(),
            ))),
            false => Ok(ColumnarValue::Array(ScalarValue::iter_to_array(values)?)),
        }
    }

    /// The result of one row; None if it has none.
    fn compute_row(&self, args: &ScalarFunctionArgs, row: usize) -> Result<Option<ScalarValue>> {
        let one = |arg: &ColumnarValue| match arg {
            ColumnarValue::Array(array) => ScalarValue::try_from_array(array, row).map(ColumnarValue::Scalar),
            scalar => Ok(scalar.clone()),
        };
        let row_args = ScalarFunctionArgs {
            args: args.args.iter().map(one).collect::<Result<_>>()?,
            number_rows: 1,
            ..args.clone()
        };
        match in_utc::invoke(&self.function, row_args) {
            Ok(ColumnarValue::Scalar(value)) => Ok(Some(value)),
            Ok(ColumnarValue::Array(array)) => ScalarValue::try_from_array(&array, 0).map(Some),
            Err(_) => Ok(None),
        }
    }
}
