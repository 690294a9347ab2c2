//! Gives aggregates and windows their types: each argument is converted to the type that the function takes.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef},
        datatypes::{DECIMAL128_MAX_PRECISION, DataType},
    },
    common::{DFSchema, DataFusionError, Result, ScalarValue},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Expr, Signature,
        expr::{AggregateFunction, Sort, WindowFunction},
        function::AccumulatorArgs,
    },
};
use plan::{
    Kinds, Type, arrays,
    functions::{constants, extreme},
};
use proto::{Code, Problem};

use super::{
    lower::{arguments, condition},
    operand::{Class, Operand, cast},
};

/// An ORDER BY key by which DataFusion sorts as we say.
pub fn sort(sort: Sort, schema: &DFSchema) -> Result<Sort> {
    Ok(Sort {
        expr: Operand::of(sort.expr, schema)?.sort_key(),
        ..sort
    })
}

/// An aggregate with its types.
pub fn aggregate_of(function: AggregateFunction, schema: &DFSchema) -> Result<Expr> {
    let AggregateFunction { func, params } = function;
    let Some(inner) = super::open::aggregate(&func) else {
        return Ok(Expr::AggregateFunction(AggregateFunction { func, params }));
    };
    let (func, args) = aggregate(&inner, Operand::all(params.args, schema)?, params.distinct)?;
    // The order of rows does not change these, and the planner would take the ORDER BY for another argument.
    let ordered = !matches!(
        inner.name(),
        "min" | "max" | "sum" | "avg" | "count" | "approx_distinct" | "bool_and" | "bool_or"
    );
    let params = datafusion::logical_expr::expr::AggregateFunctionParams {
        order_by: if ordered { params.order_by } else { vec![] },
        args: vec![],
        ..params
    };
    let mut order_by = params
        .order_by
        .into_iter()
        .map(|key| sort(key, schema))
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

/// Digits of the integers that `sum` takes. DataFusion gives a sum ten digits more, so that it has the most that a
/// decimal may have.
const SUMMED_DIGITS: u8 = DECIMAL128_MAX_PRECISION - 10;

/// An aggregate and its arguments, as their types ask for it.
pub fn aggregate(
    inner: &Arc<AggregateUDF>,
    args: Vec<Operand>,
    distinct: bool,
) -> Result<(Arc<AggregateUDF>, Vec<Expr>)> {
    let same = |args: Vec<Expr>| Ok((Arc::clone(inner), args));
    match (inner.name(), args.as_slice()) {
        ("sum", [value]) => {
            let number = value.number()?;
            let integer = match value.class() {
                Class::Int => true,
                Class::Json(kinds) => kinds.any(Kinds::INT) && !kinds.any(Kinds::FLOAT | Kinds::BIG),
                _ => false,
            };
            // The sum of integers is a decimal: it cannot wrap.
            same(vec![if integer {
                cast(number, DataType::Decimal128(SUMMED_DIGITS, 0))
            } else {
                number
            }])
        }
        ("min" | "max", [value]) => match value.class() {
            Class::Json(kinds) if kinds.native().is_none_or(|native| native == Type::Json) => {
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
            _ => same(vec![value.native()]),
        },
        ("approx_distinct", [value]) if !matches!(value.class(), Class::Int | Class::Text) => {
            same(vec![value.canonical()])
        }
        ("count" | "approx_distinct" | "array_agg" | "grouping", _) => {
            let of = |value: &Operand| {
                if distinct || inner.name() != "array_agg" {
                    value.key()
                } else {
                    value.native()
                }
            };
            same(args.iter().map(of).collect())
        }
        (name, _) => same(arguments(name, &args)?),
    }
}

/// The variant of an aggregate for a window frame whose start moves, so that rows leave it.
fn sliding(
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
        Class::Double => {}
        Class::Int if name == sliding::AVG => *value = cast(value.clone(), DataType::Float64),
        // Decimals and intervals are exact.
        _ => return Ok((function, args)),
    }
    let named = sliding::aggregates().into_iter().find(|sliding| sliding.name() == name);
    Ok((named.unwrap_or(function), args))
}

/// An aggregate as a window function.
///
/// DataFusion takes the results of `min` and `max` over a growing frame for sorted and leaves out an ORDER BY; but the
/// frames of the first rows may have no value, and their NULLs belong to the other end. So this wrapper claims no
/// order. It also limits how many bytes of texts or lists the window produces, because DataFusion builds a value for
/// every row or copies one value to all rows.
#[derive(Debug, PartialEq, Eq, Hash)]
struct InWindow(Arc<AggregateUDF>);

impl AggregateUDFImpl for InWindow {
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
        let long = constants::is_long(args.return_field.data_type());
        let accumulator = self.0.accumulator(args)?;
        Ok(if long {
            Repeated::boxed(accumulator)
        } else {
            accumulator
        })
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let long = constants::is_long(args.return_field.data_type());
        let accumulator = self.0.create_sliding_accumulator(args)?;
        Ok(if long {
            Repeated::boxed(accumulator)
        } else {
            accumulator
        })
    }
}

/// Bytes that one window may make of the rows of one partition.
const WINDOW_BYTES_MAX: usize = 256 << 20;

/// Counts the values that it gives: each is for the rows that came since the last one.
#[derive(Debug)]
struct Repeated {
    inner: Box<dyn Accumulator>,
    rows: usize,
    bytes: usize,
}

impl Repeated {
    fn boxed(inner: Box<dyn Accumulator>) -> Box<dyn Accumulator> {
        Box::new(Self {
            inner,
            rows: 0,
            bytes: 0,
        })
    }

    fn came(&mut self, values: &[ArrayRef]) {
        self.rows += values.first().map_or(0, |values| values.len());
    }
}

impl Accumulator for Repeated {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.came(values);
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
            let detail = format!("a window makes over {WINDOW_BYTES_MAX} bytes of texts or lists for one partition");
            let problem =
                Problem::new(Code::LimitReached, detail).hint("aggregate by GROUP BY, or over a frame of fewer rows");
            return Err(DataFusionError::External(Box::new(problem)));
        }
        Ok(value)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.inner.size()
    }
}

/// A window function with its types.
pub fn window_of(function: WindowFunction, schema: &DFSchema) -> Result<Expr> {
    use datafusion::logical_expr::WindowFunctionDefinition as Definition;
    let WindowFunction { fun, mut params } = function;
    let args = Operand::all(std::mem::take(&mut params.args), schema)?;
    let (fun, args) = match fun {
        Definition::AggregateUDF(func) => match super::open::aggregate(&func) {
            Some(inner) => {
                let (func, args) = aggregate(&inner, args, params.distinct)?;
                let grows = matches!(
                    func.name(),
                    "min" | "max" | "array_agg" | "string_agg" | extreme::MIN | extreme::MAX
                );
                let func = if grows {
                    Arc::new(AggregateUDF::from(InWindow(func)))
                } else {
                    func
                };
                let (func, args) = if params.window_frame.is_ever_expanding() || params.distinct {
                    (func, args)
                } else {
                    sliding(func, args, schema)?
                };
                (Definition::AggregateUDF(func), args)
            }
            None => (
                Definition::AggregateUDF(func),
                args.into_iter().map(|arg| arg.expr).collect(),
            ),
        },
        other => {
            let name = other.name().to_owned();
            (other, arguments(&name, &args)?)
        }
    };
    params.args = args;
    params.partition_by = Operand::all(params.partition_by, schema)?
        .iter()
        .map(Operand::key)
        .collect();
    let ranged = params.window_frame.units == datafusion::logical_expr::WindowFrameUnits::Range && {
        use datafusion::logical_expr::WindowFrameBound::{CurrentRow, Following, Preceding};
        let free = |bound: &datafusion::logical_expr::WindowFrameBound| match bound {
            CurrentRow => true,
            Preceding(distance) | Following(distance) => distance.is_null(),
        };
        !(free(&params.window_frame.start_bound) && free(&params.window_frame.end_bound))
    };
    // The planner has the distance as a text: of a number, or of an interval between times.
    let timed = [&params.window_frame.start_bound, &params.window_frame.end_bound].into_iter().any(|bound| {
        use datafusion::logical_expr::WindowFrameBound::{Following, Preceding};
        matches!(bound, Preceding(distance) | Following(distance)
            if matches!(distance.data_type(), DataType::Interval(_)) || distance.try_as_str().flatten().is_some_and(|text| text.trim().parse::<f64>().is_err()))
    });
    let key = |key: Sort| match ranged {
        // A frame by distance measures it in numbers or times.
        true => {
            let operand = Operand::of(key.expr, schema)?;
            let expr = if timed {
                operand.time()?
            } else if operand.kinds().is_some_and(|kinds| {
                kinds
                    .native()
                    .is_none_or(|native| !matches!(native, Type::Int | Type::Double))
            }) {
                operand.double()?
            } else {
                operand.native()
            };
            Ok(Sort { expr, ..key })
        }
        false => sort(key, schema),
    };
    params.order_by = params.order_by.into_iter().map(key).collect::<Result<_>>()?;
    params.filter = params
        .filter
        .map(|filter| condition(*filter, schema).map(Box::new))
        .transpose()?;
    Ok(Expr::WindowFunction(Box::new(WindowFunction { fun, params })))
}
