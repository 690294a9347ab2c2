//! `failure_of(value)`: why the computation of a value failed in a row, NULL where it did not.
//!
//! Functions count rows without a result, but not which rows these are. So the value is computed apart, with counts of
//! its own, and a batch with failures is halved until each row that failed stands alone, or all of its rows have failed.

use std::{hash::Hash, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, RecordBatch, RecordBatchOptions, StringViewArray, UInt64Array},
        compute::take_record_batch,
        datatypes::{DataType, Field},
    },
    common::{
        Column, DFSchema, DFSchemaRef, Result,
        tree_node::{Transformed, TransformedResult as _},
    },
    config::ConfigOptions,
    execution::context::ExecutionProps,
    logical_expr::{
        ColumnarValue, Expr, ExprSchemable as _, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        TypeSignature, Volatility,
        expr::ScalarFunction,
        expr_rewriter::NamePreserver,
        physical_planning_context::PhysicalPlanningContext,
        simplify::{ExprSimplifyResult, SimplifyContext},
        utils::merge_schema,
    },
    optimizer::{AnalyzerRule, simplify_expressions::ExprSimplifier},
    physical_expr::{PhysicalExpr, create_physical_expr},
};
use plan::functions::{FAILURE_OF, FunctionContext, parsed::PARSED_JSON};
use plan::walk::{Walk as _, map_expressions, transform_up_with_subqueries};

/// The rule that sets the values of `failure_of` apart, so that no other rule computes them elsewhere.
#[derive(Debug)]
pub(super) struct SetFailuresApart;

impl AnalyzerRule for SetFailuresApart {
    fn name(&self) -> &str {
        "SetFailuresApart"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        transform_up_with_subqueries(plan, &mut set_apart_in).data()
    }
}

fn set_apart_in(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&node.inputs());
    let names = NamePreserver::new(&node);
    map_expressions(node, &mut |expr| {
        let name = names.save(&expr);
        let apart = expr.transform_up(|part| match part {
            Expr::ScalarFunction(call) if call.func.name() == FAILURE_OF => {
                let value = call.args.into_iter().next().unwrap_or_default();
                set_apart(value, &schema).map(Transformed::yes)
            }
            part => Ok(Transformed::no(part)),
        })?;
        Ok(apart.update_data(|expr| name.restore(expr)))
    })
}

/// A call whose arguments are the columns that a value needs.
fn set_apart(value: Expr, schema: &DFSchema) -> Result<Expr> {
    let mut columns: Vec<Column> = value.column_refs().into_iter().cloned().collect();
    columns.sort();
    let args: Vec<Expr> = columns.iter().cloned().map(Expr::Column).collect();
    let fields = args.iter().enumerate().map(|(position, column)| {
        let field = column.to_field(schema)?.1;
        Ok(field
            .as_ref()
            .clone()
            .with_name(position.to_string())
            .with_nullable(true))
    });
    let fields = fields.collect::<Result<Vec<Field>>>()?;
    let by_position = value.transform_up(|part| match &part {
        Expr::Column(column) => match columns.iter().position(|known| known == column) {
            Some(position) => Ok(Transformed::yes(Expr::Column(Column::from_name(position.to_string())))),
            None => Ok(Transformed::no(part)),
        },
        _ => Ok(Transformed::no(part)),
    })?;
    let function = FailureOf {
        value: by_position.data,
        schema: Arc::new(DFSchema::from_unqualified_fields(fields.into(), Default::default())?),
        is_simplified: false,
        // Volatile, so that it is computed here, once, and only for the rows that need it.
        signature: Signature::one_of(
            vec![TypeSignature::Nullary, TypeSignature::VariadicAny],
            Volatility::Volatile,
        ),
    };
    Ok(Expr::ScalarFunction(ScalarFunction {
        func: Arc::new(ScalarUDF::from(function)),
        args,
    }))
}

/// Computes a value over its columns, which are named by their position.
#[derive(Debug)]
struct FailureOf {
    value: Expr,
    schema: DFSchemaRef,
    is_simplified: bool,
    signature: Signature,
}

impl PartialEq for FailureOf {
    fn eq(&self, other: &Self) -> bool {
        (self.is_simplified, &self.value) == (other.is_simplified, &other.value)
    }
}

impl Eq for FailureOf {}

impl Hash for FailureOf {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

impl ScalarUDFImpl for FailureOf {
    fn name(&self) -> &str {
        FAILURE_OF
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    /// Coerces the types of operators, replaces `now()` by its time, and folds constants. No other rule sees the value.
    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        if self.is_simplified {
            return Ok(ExprSimplifyResult::Original(args));
        }
        let inside = SimplifyContext::builder()
            .with_schema(Arc::clone(&self.schema))
            .with_query_execution_start_time(context.query_execution_start_time())
            .with_config_options(Arc::clone(context.config_options()))
            .build();
        let simplifier = ExprSimplifier::new(inside);
        let value = simplifier.coerce(self.value.clone(), &self.schema)?;
        let function = Self {
            value: plan::simplify::simplify(value, &simplifier)?,
            schema: Arc::clone(&self.schema),
            is_simplified: true,
            signature: self.signature.clone(),
        };
        Ok(ExprSimplifyResult::Simplified(Expr::ScalarFunction(ScalarFunction {
            func: Arc::new(ScalarUDF::from(function)),
            args,
        })))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let context = FunctionContext::of(&args.config_options).cloned().unwrap_or_default();
        let context = context.with_own_counts();
        let mut options = args.config_options.as_ref().clone();
        options.extensions.insert(context.clone());
        let props = ExecutionProps {
            config_options: Some(Arc::new(options)),
            ..ExecutionProps::new()
        };
        let value = create_physical_expr(&self.value, &self.schema, &props, &PhysicalPlanningContext::default())?;
        let rows = args.number_rows;
        let columns = args
            .args
            .iter()
            .map(|arg| arg.to_array(rows))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let batch = RecordBatch::try_new_with_options(
            Arc::clone(self.schema.inner()),
            columns,
            &RecordBatchOptions::new().with_row_count(Some(rows)),
        )?;
        let mut search = FailureSearch {
            value: value.as_ref(),
            context: &context,
            parser: parser_of(&self.value),
            reasons: vec![None; rows],
        };
        search.run(&batch)?;
        Ok(ColumnarValue::Array(Arc::new(StringViewArray::from_iter(
            search.reasons,
        ))))
    }
}

/// The name of the parser that returns a value. It counts a text that it cannot parse once for each row.
fn parser_of(value: &Expr) -> Option<&str> {
    match value {
        Expr::ScalarFunction(call) if call.func.name() == PARSED_JSON => {
            call.args.last()?.as_literal()?.try_as_str()?
        }
        _ => None,
    }
}

/// Operations that had no result, and for how many rows.
type Failed = Vec<(String, u64)>;

/// Looks for the rows that failed.
struct FailureSearch<'a> {
    value: &'a dyn PhysicalExpr,
    /// Has the counts of the last computation.
    context: &'a FunctionContext,
    /// The parser that returns the value, if one does.
    parser: Option<&'a str>,
    /// Why each row failed.
    reasons: Vec<Option<String>>,
}

impl FailureSearch<'_> {
    fn run(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows: Vec<usize> = (0..batch.num_rows()).collect();
        // Without a column, all rows are the same.
        if self.parser.is_none() || batch.num_columns() == 0 {
            return self.find(batch, &rows);
        }
        // A text that is not parsed is NULL afterwards. Apart from the others, such rows are found at once.
        let values = self.compute(batch)?.0.into_array(rows.len())?;
        let has_input = |row: &usize| batch.columns().iter().all(|column| column.is_valid(*row));
        let (failed, others): (Vec<usize>, Vec<usize>) =
            rows.iter().partition(|row| values.is_null(**row) && has_input(row));
        for some in [failed, others] {
            let indexes = UInt64Array::from_iter_values(some.iter().map(|row| *row as u64));
            self.find(&take_record_batch(batch, &indexes)?, &some)?;
        }
        Ok(())
    }

    /// The value, and which operations had no result for how many rows.
    fn compute(&self, batch: &RecordBatch) -> Result<(ColumnarValue, Failed)> {
        self.context.check()?;
        let value = self.value.evaluate(batch)?;
        let counts = self.context.warnings.take().counts().into_iter();
        let failed = counts.filter(|(_, failed, _)| *failed > 0);
        Ok((
            value,
            failed.map(|(operation, failed, _)| (operation, failed)).collect(),
        ))
    }

    /// What an operation without a result says about a row.
    fn reason(&self, operation: &str) -> String {
        let of_parser = self.parser.and_then(|parser| operation.strip_prefix(parser));
        match (of_parser, operation.strip_prefix("as ")) {
            (Some(""), _) => format!("the text does not match {operation}"),
            (Some(part), _) if part.starts_with('.') => format!("{operation} is not of its type"),
            (None, Some(data_type)) => format!("cannot be read as {data_type}"),
            _ => format!("no result of {operation}"),
        }
    }

    /// Notes the reason for each row of a batch that failed. `rows` are their numbers.
    fn find(&mut self, batch: &RecordBatch, rows: &[usize]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let failed = self.compute(batch)?.1;
        let have_all_failed = match failed.as_slice() {
            [] => return Ok(()),
            [(operation, count)] => self.parser == Some(operation) && *count == rows.len() as u64,
            _ => false,
        };
        if rows.len() == 1 || have_all_failed {
            let reasons: Vec<String> = failed.iter().map(|(operation, _)| self.reason(operation)).collect();
            let reason = reasons.join(", ");
            for row in rows {
                self.reasons[*row] = Some(reason.clone());
            }
            return Ok(());
        }
        let half = rows.len() / 2;
        self.find(&batch.slice(0, half), &rows[..half])?;
        self.find(&batch.slice(half, rows.len() - half), &rows[half..])
    }
}
