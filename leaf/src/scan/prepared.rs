//! Prepared scan: a request with its columns and its filter as conjuncts, prepared once for all shards of the leaf.

use std::{
    sync::{Arc, LazyLock, OnceLock},
    time::Instant,
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions},
        compute::{concat, prep_null_mask_filter},
        datatypes::{DataType, SchemaRef},
    },
    common::{DFSchema, config::ConfigOptions},
    logical_expr::{
        Expr, physical_planning_context::PhysicalPlanningContext, simplify::SimplifyContext,
        utils::split_conjunction_owned,
    },
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{PhysicalExpr, create_physical_expr, execution_props::ExecutionProps},
};
use plan::{
    Column,
    functions::{FunctionContext, constants},
    scan::{ScanRequest, Stage},
    walk::Walk as _,
};
use proto::{Code, Problem};

use super::filter::Needles;
use crate::{error::Error, raw::parts::ReadParts};

/// A scan request, ready to run over any view.
pub(super) struct PreparedScan {
    pub request: Arc<ScanRequest>,
    /// Every column that the request names: in its output, its filter, its sort keys.
    pub columns: Vec<Column>,
    /// The columns that are returned or aggregated, in order, as indexes into `columns`.
    pub output: Arc<[usize]>,
    /// The columns that blocks read of each document that passes: the output or, for a top-k, its keys.
    pub wanted: Arc<[usize]>,
    /// What is read of raw documents.
    pub parts: ReadParts,
    /// The filter, as a conjunction.
    conditions: Vec<Arc<Condition>>,
}

/// A request of one query, which several shards share.
pub(crate) struct SharedRequest {
    /// When the query must end.
    pub deadline: Instant,
    preparation: Arc<Preparation>,
}

/// What equal requests of all queries share. The first of them to need a part computes it.
pub(crate) struct Preparation {
    /// The first of the requests. Only this one has its query, shards and deadline.
    request: Arc<ScanRequest>,
    prepared: OnceLock<Result<Arc<PreparedScan>, Problem>>,
    encoded: OnceLock<Option<Arc<[u8]>>>,
}

/// One condition of a filter.
pub(super) struct Condition {
    /// The condition.
    pub expr: Expr,
    /// The columns it names.
    pub columns: Vec<usize>,
    /// Whether it counts values: those that it cannot convert, and those without a result of a function.
    pub warns: bool,
    /// What documents must contain for it to be true.
    pub needles: Option<Needles>,
    schema: SchemaRef,
    df_schema: Arc<DFSchema>,
    /// None if it calls functions: they need the context of one scan.
    evaluation: Option<Evaluation>,
}

/// How a condition is evaluated.
#[derive(Clone)]
struct Evaluation {
    physical: Arc<dyn PhysicalExpr>,
    /// Rows per evaluation.
    batch_rows: usize,
}

/// A condition of the filter of one scan.
pub(super) struct Conjunct {
    pub condition: Arc<Condition>,
    evaluation: Evaluation,
}

impl SharedRequest {
    /// A request for which nothing is prepared yet.
    pub(crate) fn new(request: ScanRequest) -> Self {
        Self {
            deadline: request.deadline,
            preparation: Arc::new(Preparation::of(request)),
        }
    }

    /// A request that equals an earlier one but for its query, shards and deadline.
    pub(crate) fn like(preparation: &Arc<Preparation>, deadline: Instant) -> Self {
        Self {
            deadline,
            preparation: preparation.clone(),
        }
    }

    /// The prepared request.
    pub(super) fn prepared(&self) -> Result<Arc<PreparedScan>, Problem> {
        let request = &self.preparation.request;
        let prepare = || {
            let prepared = PreparedScan::new(request.clone());
            prepared.map(Arc::new).map_err(Problem::from)
        };
        self.preparation.prepared.get_or_init(prepare).clone()
    }

    /// The bytes of the request, without its shards. They are made by the first caller.
    pub(super) fn encoded(&self, encode: impl FnOnce(&ScanRequest) -> Option<Arc<[u8]>>) -> Option<Arc<[u8]>> {
        let encode = || encode(&self.preparation.request);
        self.preparation.encoded.get_or_init(encode).clone()
    }
}

impl Preparation {
    /// Nothing is prepared yet.
    pub(crate) fn of(request: ScanRequest) -> Self {
        Self {
            request: Arc::new(request),
            prepared: OnceLock::new(),
            encoded: OnceLock::new(),
        }
    }

    /// The schema of the answers.
    pub(crate) fn schema(&self) -> SchemaRef {
        match &self.request.stage {
            Stage::Partial(aggregate) => aggregate.output.clone(),
            Stage::Rows { .. } | Stage::Top { .. } => plan::column::schema(&self.request.columns),
        }
    }
}

impl PreparedScan {
    fn new(request: Arc<ScanRequest>) -> Result<Self, Error> {
        let mut columns: Vec<Column> = Vec::new();
        let output: Arc<[usize]> = request
            .columns
            .iter()
            .map(|column| column_index(&mut columns, column))
            .collect();
        let filters = request.filter.iter().cloned().flat_map(split_conjunction_owned);
        let conditions = filters
            .map(|filter| Condition::new(filter, &mut columns).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let wanted: Arc<[usize]> = match &request.stage {
            Stage::Rows { limit: Some(0) } | Stage::Top { limit: 0, .. } => Arc::default(),
            Stage::Top { keys, .. } => keys.iter().map(|key| column_index(&mut columns, &key.column)).collect(),
            _ => output.clone(),
        };
        Ok(Self {
            parts: ReadParts::of(&columns, request.time_path.as_ref()),
            request,
            columns,
            output,
            wanted,
            conditions,
        })
    }

    /// The filter for one scan, whose functions run in this context.
    pub(super) fn conjuncts(&self, context: FunctionContext) -> Result<Vec<Conjunct>, Error> {
        let calls_functions = |condition: &Arc<Condition>| condition.evaluation.is_none();
        let props = match self.conditions.iter().any(calls_functions) {
            true => execution_props(context),
            false => ExecutionProps::new(),
        };
        let conjunct = |condition| Conjunct::new(condition, &props);
        self.conditions.iter().map(conjunct).collect()
    }
}

/// The index of a column in the list; a new column is appended.
fn column_index(columns: &mut Vec<Column>, column: &Column) -> usize {
    columns.iter().position(|known| known == column).unwrap_or_else(|| {
        columns.push(column.clone());
        columns.len() - 1
    })
}

/// Properties for evaluating conditions: functions count warnings, and a long evaluation stops with its query.
fn execution_props(context: FunctionContext) -> ExecutionProps {
    static SETTINGS: LazyLock<ConfigOptions> = LazyLock::new(|| plan::functions::settings().options().as_ref().clone());
    let mut options = SETTINGS.clone();
    options.extensions.insert(context);
    let mut props = ExecutionProps::new();
    props.mark_start_execution(Arc::new(options));
    props
}

impl Condition {
    fn new(expr: Expr, columns: &mut Vec<Column>) -> Result<Self, Error> {
        let mut names: Vec<&str> = expr
            .column_refs()
            .into_iter()
            .map(|column| column.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        let unknown = |name: &str| {
            Problem::new(
                Code::BadRequest,
                format!("the filter names {name:?}, which is not a column of a scan"),
            )
        };
        let named = names
            .iter()
            .map(|name| Column::parse(name).ok_or_else(|| unknown(name)))
            .collect::<Result<Vec<_>, _>>()?;
        let schema = plan::column::schema(&named);
        let df_schema = Arc::new(DFSchema::try_from(schema.clone())?);
        let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(df_schema.clone()).build());
        // Folds casts of literals into literals, which an index can look up.
        let expr = plan::simplify::simplify(simplifier.coerce(expr, &df_schema)?, &simplifier)?;
        let calls = |part: &Expr| Ok(matches!(part, Expr::ScalarFunction(_) | Expr::HigherOrderFunction(_)));
        let calls_functions = expr.exists(calls)?;
        let evaluation = match calls_functions {
            true => None,
            false => Some(Evaluation::new(&expr, &df_schema, &ExecutionProps::new())?),
        };
        Ok(Self {
            needles: Needles::of(&expr),
            expr,
            columns: named.iter().map(|column| column_index(columns, column)).collect(),
            warns: calls_functions || named.iter().any(|column| column.read_as.cast),
            schema,
            df_schema,
            evaluation,
        })
    }
}

impl Evaluation {
    fn new(expr: &Expr, schema: &DFSchema, props: &ExecutionProps) -> Result<Self, Error> {
        let physical = create_physical_expr(expr, schema, props, &PhysicalPlanningContext::default())?;
        let batch_rows = constants::rows(constants::bytes(&physical)?);
        Ok(Self { physical, batch_rows })
    }
}

impl Conjunct {
    fn new(condition: &Arc<Condition>, props: &ExecutionProps) -> Result<Self, Error> {
        let evaluation = match &condition.evaluation {
            Some(evaluation) => evaluation.clone(),
            None => Evaluation::new(&condition.expr, &condition.df_schema, props)?,
        };
        Ok(Self {
            condition: condition.clone(),
            evaluation,
        })
    }

    /// The same condition, whose functions run in this context.
    pub(super) fn in_context(&self, context: FunctionContext) -> Result<Self, Error> {
        match self.condition.evaluation {
            Some(_) => Self::new(&self.condition, &ExecutionProps::new()),
            None => Self::new(&self.condition, &execution_props(context)),
        }
    }

    /// Which rows pass, given the values of the condition's columns.
    pub(super) fn passes(&self, values: Vec<ArrayRef>, rows: usize) -> Result<BooleanArray, Error> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.condition.schema.clone(), values, &options)?;
        let batch_rows = self.evaluation.batch_rows;
        if rows <= batch_rows {
            return self.passes_batch(&batch);
        }
        let parts = (0..rows)
            .step_by(batch_rows)
            .map(|from| self.passes_batch(&batch.slice(from, batch_rows.min(rows - from))));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let passes = concat(&parts.iter().map(|part| part as &dyn Array).collect::<Vec<_>>())?;
        Ok(passes.as_boolean().clone())
    }

    fn passes_batch(&self, batch: &RecordBatch) -> Result<BooleanArray, Error> {
        let rows = batch.num_rows();
        let passes = self.evaluation.physical.evaluate(batch)?.into_array(rows)?;
        match passes.data_type() {
            DataType::Boolean if passes.null_count() == 0 => Ok(passes.as_boolean().clone()),
            DataType::Boolean => Ok(prep_null_mask_filter(passes.as_boolean())),
            DataType::Null => Ok(BooleanArray::from(vec![false; rows])),
            other => Err(Problem::new(Code::BadRequest, format!("a condition must be boolean, not {other}")).into()),
        }
    }
}
