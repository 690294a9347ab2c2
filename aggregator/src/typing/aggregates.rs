//! Lowers aggregate and window functions: replaces untyped functions with typed ones, and converts each argument to the
//! type that the function takes.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef},
        datatypes::DataType,
    },
    common::{DFSchema, DataFusionError, Result, ScalarValue},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature, WindowFrame, WindowFrameBound, WindowFrameUnits,
        WindowFunctionDefinition,
        expr::{AggregateFunction, Sort, WindowFunction, WindowFunctionParams},
        function::AccumulatorArgs,
    },
};
use plan::{
    Type, arrays,
    functions::{
        constants, extreme,
        registry::{self, Property},
        value_counts,
    },
    scan::SUMMED_INTEGER,
};
use proto::{Code, Problem};

use super::{
    lower::{arguments::coerce_arguments, condition},
    operand::{Operand, TypeClass, cast, reads_as_integer},
    untyped::library_aggregate,
};

/// An ORDER BY key by which DataFusion sorts values of several kinds in our order.
pub(super) fn lower_sort(sort: Sort, schema: &DFSchema) -> Result<Sort> {
    Ok(Sort {
        expr: Operand::of(sort.expr, schema)?.sort_key(),
        ..sort
    })
}

pub(super) fn lower_aggregate_call(function: AggregateFunction, schema: &DFSchema) -> Result<Expr> {
    let AggregateFunction { func, params } = function;
    let Some(inner) = library_aggregate(&func) else {
        return Ok(Expr::AggregateFunction(AggregateFunction { func, params }));
    };
    let (func, args) = lower_aggregate(&inner, Operand::all(params.args, schema)?, params.distinct)?;
    // The results of these do not depend on the order of rows, and the planner would take the ORDER BY as another
    // argument.
    let uses_order = !registry::function(inner.name()).is_some_and(|function| function.has(Property::IgnoresOrder));
    let params = datafusion::logical_expr::expr::AggregateFunctionParams {
        order_by: if uses_order { params.order_by } else { vec![] },
        args: vec![],
        ..params
    };
    let mut order_by = params
        .order_by
        .into_iter()
        .map(|key| lower_sort(key, schema))
        .collect::<Result<Vec<_>>>()?;
    // WITHIN GROUP orders by the first argument.
    if func.supports_within_group_clause()
        && let ([key], Some(first)) = (order_by.as_mut_slice(), args.first())
    {
        key.expr = first.clone();
    }
    let filter = params
        .filter
        .map(|filter| condition(*filter, schema).map(Box::new))
        .transpose()?;
    Ok(Expr::AggregateFunction(AggregateFunction::new_udf(
        func,
        args,
        params.distinct,
        filter,
        order_by,
        params.null_treatment,
    )))
}

/// The aggregate function for arguments of these types, and the converted arguments.
pub(super) fn lower_aggregate(
    inner: &Arc<AggregateUDF>,
    args: Vec<Operand>,
    distinct: bool,
) -> Result<(Arc<AggregateUDF>, Vec<Expr>)> {
    let same_function = |args: Vec<Expr>| Ok((Arc::clone(inner), args));
    match (inner.name(), args.as_slice()) {
        ("sum", [value]) => {
            let number = value.number()?;
            let is_integer = match value.class() {
                TypeClass::Int => true,
                TypeClass::Json(kinds) => reads_as_integer(kinds),
                _ => false,
            };
            same_function(vec![match is_integer {
                true => cast(number, SUMMED_INTEGER),
                false => number,
            }])
        }
        ("min" | "max", [value]) => match value.class() {
            TypeClass::Json(kinds) if kinds.native().is_none_or(|native| native == Type::Json) => {
                let name = if inner.name() == "min" {
                    extreme::MIN
                } else {
                    extreme::MAX
                };
                let function = plan::functions::extreme::aggregates()
                    .into_iter()
                    .find(|function| function.name() == name);
                Ok((function.unwrap_or_else(|| Arc::clone(inner)), vec![value.expr.clone()]))
            }
            _ => same_function(vec![value.native()]),
        },
        ("approx_distinct", [value]) if !matches!(value.class(), TypeClass::Int | TypeClass::Text) => {
            same_function(vec![value.canonical()])
        }
        ("count" | "approx_distinct" | "array_agg" | "grouping", _) => {
            let argument = |value: &Operand| {
                if distinct || inner.name() != "array_agg" {
                    value.group_key()
                } else {
                    value.native()
                }
            };
            same_function(args.iter().map(argument).collect())
        }
        (value_counts::MODE | value_counts::HISTOGRAM, [value]) => same_function(vec![value.group_key()]),
        (value_counts::TOP_K, [value, size]) => same_function(vec![value.group_key(), size.native()]),
        (name, _) => same_function(coerce_arguments(name, &args)?),
    }
}

/// The variant of an aggregate for a window frame whose start moves, so that rows leave the frame.
fn sliding_variant(
    function: Arc<AggregateUDF>,
    mut args: Vec<Expr>,
    schema: &DFSchema,
) -> Result<(Arc<AggregateUDF>, Vec<Expr>)> {
    use plan::functions::sliding;
    let name = match function.name() {
        "sum" => sliding::SUM,
        "avg" => sliding::AVG,
        _ => return Ok((function, args)),
    };
    let [value] = args.as_mut_slice() else {
        return Ok((function, args));
    };
    match Operand::of(value.clone(), schema)?.class() {
        TypeClass::Double => {}
        TypeClass::Int if name == sliding::AVG => *value = cast(value.clone(), DataType::Float64),
        // Decimals and intervals are exact and need no variant.
        _ => return Ok((function, args)),
    }
    let named = sliding::aggregates().into_iter().find(|sliding| sliding.name() == name);
    Ok((named.unwrap_or(function), args))
}

/// An aggregate as a window function.
///
/// DataFusion assumes that the results of `min` and `max` over a growing frame are sorted, and omits an ORDER BY. But
/// the frames of the first rows may have no value, and their NULLs belong at the other end. This wrapper therefore
/// declares no order. It also limits how many bytes of texts or lists the window produces, because DataFusion builds a
/// value for every row or copies one value to all rows.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowAggregate(Arc<AggregateUDF>);

impl AggregateUDFImpl for WindowAggregate {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.0.return_type(types)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.0.coerce_types(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let is_long = constants::is_long(args.return_field.data_type());
        Ok(limit_size(is_long, self.0.accumulator(args)?))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let is_long = constants::is_long(args.return_field.data_type());
        Ok(limit_size(is_long, self.0.create_sliding_accumulator(args)?))
    }
}

/// Limits the bytes of an accumulator's results if they may be long.
fn limit_size(is_long: bool, inner: Box<dyn Accumulator>) -> Box<dyn Accumulator> {
    match is_long {
        true => Box::new(SizeLimitedAccumulator {
            inner,
            rows: 0,
            bytes: 0,
        }),
        false => inner,
    }
}

/// Bytes of results that a window function may produce for the rows of one partition.
const WINDOW_BYTES_MAX: usize = 256 << 20;

/// Limits the bytes of the results of an accumulator. Each result is counted once for every row since the previous one.
#[derive(Debug)]
struct SizeLimitedAccumulator {
    inner: Box<dyn Accumulator>,
    /// Rows since the previous result.
    rows: usize,
    /// Bytes of all results so far.
    bytes: usize,
}

impl SizeLimitedAccumulator {
    fn count_rows(&mut self, values: &[ArrayRef]) {
        self.rows += values.first().map_or(0, |values| values.len());
    }
}

impl Accumulator for SizeLimitedAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.count_rows(values);
        self.inner.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = arrays::compact_value(self.inner.evaluate()?);
        self.bytes = self
            .bytes
            .saturating_add((arrays::value_size(&value) as usize).saturating_mul(self.rows.max(1)));
        self.rows = 0;
        if self.bytes > WINDOW_BYTES_MAX {
            let detail =
                format!("a window function produces over {WINDOW_BYTES_MAX} bytes of texts or lists for one partition");
            let problem =
                Problem::new(Code::LimitReached, detail).hint("use GROUP BY, or a window frame with fewer rows");
            return Err(DataFusionError::External(Box::new(problem)));
        }
        Ok(value)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}

/// Lowers a call of a window function.
pub(super) fn lower_window(function: WindowFunction, schema: &DFSchema) -> Result<Expr> {
    let WindowFunction { fun, mut params } = function;
    let args = Operand::all(std::mem::take(&mut params.args), schema)?;
    let (fun, args) = match fun {
        WindowFunctionDefinition::AggregateUDF(func) => {
            let (func, args) = lower_windowed_aggregate(func, args, &params, schema)?;
            (WindowFunctionDefinition::AggregateUDF(func), args)
        }
        other => {
            let args = coerce_arguments(other.name(), &args)?;
            (other, args)
        }
    };
    params.args = args;
    params.partition_by = Operand::all(params.partition_by, schema)?
        .iter()
        .map(Operand::group_key)
        .collect();
    params.order_by = match is_range_by_distance(&params.window_frame) {
        true => {
            let is_time = is_time_distance(&params.window_frame);
            let order_by = params.order_by.into_iter();
            order_by
                .map(|key| range_key(key, is_time, schema))
                .collect::<Result<_>>()?
        }
        false => {
            let order_by = params.order_by.into_iter();
            order_by.map(|key| lower_sort(key, schema)).collect::<Result<_>>()?
        }
    };
    params.filter = params
        .filter
        .map(|filter| condition(*filter, schema).map(Box::new))
        .transpose()?;
    Ok(Expr::WindowFunction(Box::new(WindowFunction { fun, params })))
}

/// An aggregate that is called as a window function, and its converted arguments.
fn lower_windowed_aggregate(
    func: Arc<AggregateUDF>,
    args: Vec<Operand>,
    params: &WindowFunctionParams,
    schema: &DFSchema,
) -> Result<(Arc<AggregateUDF>, Vec<Expr>)> {
    let Some(inner) = library_aggregate(&func) else {
        return Ok((func, args.into_iter().map(|arg| arg.expr).collect()));
    };
    let (func, args) = lower_aggregate(&inner, args, params.distinct)?;
    let needs_wrapper = matches!(
        func.name(),
        "min"
            | "max"
            | "array_agg"
            | "string_agg"
            | extreme::MIN
            | extreme::MAX
            | value_counts::MODE
            | value_counts::TOP_K
            | value_counts::HISTOGRAM
    );
    let func = if needs_wrapper {
        Arc::new(AggregateUDF::from(WindowAggregate(func)))
    } else {
        func
    };
    if params.window_frame.is_ever_expanding() || params.distinct {
        Ok((func, args))
    } else {
        sliding_variant(func, args, schema)
    }
}

/// Whether a frame is a RANGE with a distance, which is measured on the ORDER BY key.
fn is_range_by_distance(frame: &WindowFrame) -> bool {
    let has_distance = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => false,
        WindowFrameBound::Preceding(distance) | WindowFrameBound::Following(distance) => !distance.is_null(),
    };
    frame.units == WindowFrameUnits::Range && (has_distance(&frame.start_bound) || has_distance(&frame.end_bound))
}

/// Whether a distance of a frame is an interval between times. The planner has the distance as a text: one that is not
/// a number is an interval.
fn is_time_distance(frame: &WindowFrame) -> bool {
    let is_interval = |distance: &ScalarValue| {
        matches!(distance.data_type(), DataType::Interval(_))
            || distance
                .try_as_str()
                .flatten()
                .is_some_and(|text| text.trim().parse::<f64>().is_err())
    };
    [&frame.start_bound, &frame.end_bound]
        .into_iter()
        .any(|bound| match bound {
            WindowFrameBound::Preceding(distance) | WindowFrameBound::Following(distance) => is_interval(distance),
            WindowFrameBound::CurrentRow => false,
        })
}

/// The ORDER BY key of a RANGE with a distance: a time or a number, because the distance is measured on it.
fn range_key(key: Sort, is_time: bool, schema: &DFSchema) -> Result<Sort> {
    let operand = Operand::of(key.expr, schema)?;
    let is_native_number = operand.kinds().is_none_or(|kinds| {
        kinds
            .native()
            .is_some_and(|native| matches!(native, Type::Int | Type::Double))
    });
    let expr = if is_time {
        operand.time()?
    } else if is_native_number {
        operand.native()
    } else {
        operand.double()?
    };
    Ok(Sort { expr, ..key })
}
