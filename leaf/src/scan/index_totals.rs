//! Results of an aggregate without groups that the index knows of many documents at once:
//!
//! ```text
//! count(*)                       the number of documents
//! count(*) FILTER (WHERE x)      the sum of x: true is 1
//! count(x)                       how many have x
//! sum(x) of integers             the sum of x
//! ```
//!
//! They are added to the states that the operator computes of all other documents.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray as _, Decimal128Array, Int64Array, RecordBatch, new_null_array},
        datatypes::{DataType, Decimal128Type, Int64Type, Schema, SchemaRef},
    },
    physical_expr::{
        PhysicalExpr,
        aggregate::AggregateFunctionExpr,
        expressions::{CastExpr, Column as PhysicalColumn},
    },
};
use plan::{
    Column, ColumnSource,
    scan::{PartialAggregate, SUMMED_INTEGER},
};

use super::weighted::counted_arguments;
use crate::{error::Error, split::Totals};

/// The results of an aggregate, as far as the index knows them.
pub(super) struct IndexTotals {
    results: Vec<(Known, u64)>,
    /// Whether anything was added.
    is_empty: bool,
}

/// What the index must know for one result. A column is an index into those that the aggregate reads.
enum Known {
    Documents,
    /// How many documents have a value in this column.
    Present(usize),
    /// How many documents have true in this column.
    True(usize),
    /// The sum of a column, as a decimal.
    Sum(usize),
}

impl IndexTotals {
    /// For an aggregate over these columns, if an index may know all its results.
    pub(super) fn of(aggregate: &PartialAggregate, columns: &[Column]) -> Option<Self> {
        let may_be_known = |column: &Column| matches!(column.source, ColumnSource::Search(_) | ColumnSource::Tokens(_));
        if !aggregate.group_by.is_true_no_grouping() || !columns.iter().all(may_be_known) {
            return None;
        }
        let calls = aggregate.aggregates.iter().zip(&aggregate.filters);
        let results = calls.map(|(call, filter)| Some((known(call, filter.as_ref(), &aggregate.input)?, 0)));
        Some(Self {
            results: results.collect::<Option<_>>()?,
            is_empty: true,
        })
    }

    /// Adds the totals of some documents.
    pub(super) fn add(&mut self, totals: &Totals) {
        self.is_empty &= totals.documents == 0;
        for (known, result) in &mut self.results {
            *result += match known {
                Known::Documents => totals.documents,
                Known::Present(column) => totals.columns[*column].present,
                Known::True(column) | Known::Sum(column) => totals.columns[*column].sum,
            };
        }
    }

    /// The columns of a row of states, of nothing else than these results.
    pub(super) fn states(&self, output: &SchemaRef) -> Result<Vec<ArrayRef>, Error> {
        let of_nothing = self.results.iter().zip(output.fields());
        let of_nothing = of_nothing.map(|((known, _), field)| match known {
            Known::Sum(_) => new_null_array(field.data_type(), 1),
            _ => Arc::new(Int64Array::from(vec![0])) as ArrayRef,
        });
        let of_nothing = RecordBatch::try_new(output.clone(), of_nothing.collect())?;
        self.add_to(&of_nothing)
    }

    /// The columns of the operator's only row of states, with these results added.
    pub(super) fn add_to(&self, states: &RecordBatch) -> Result<Vec<ArrayRef>, Error> {
        if self.is_empty || states.num_rows() != 1 {
            return Ok(states.columns().to_vec());
        }
        let results = self.results.iter().zip(states.columns());
        let sums = results.map(|((known, result), state)| {
            Ok(match known {
                // Without any value, a sum is NULL.
                Known::Sum(_) if *result == 0 => state.clone(),
                Known::Sum(_) => {
                    let sums = state.as_primitive::<Decimal128Type>();
                    let sum = sums.iter().flatten().sum::<i128>() + i128::from(*result);
                    Arc::new(Decimal128Array::from(vec![sum]).with_data_type(state.data_type().clone()))
                }
                _ => {
                    let counts = state.as_primitive::<Int64Type>();
                    Arc::new(Int64Array::from(vec![counts.value(0) + *result as i64])) as ArrayRef
                }
            })
        });
        sums.collect()
    }
}

/// What must be known for a result. None if no index knows it.
fn known(call: &AggregateFunctionExpr, filter: Option<&Arc<dyn PhysicalExpr>>, input: &Schema) -> Option<Known> {
    let column_of = |expression: &Arc<dyn PhysicalExpr>, data_type: DataType| {
        let column = expression.downcast_ref::<PhysicalColumn>()?.index();
        (*input.field(column).data_type() == data_type).then_some(column)
    };
    if call.is_distinct() {
        return None;
    }
    match (call.fun().name(), counted_arguments(call).as_slice(), filter) {
        ("count", [], None) => Some(Known::Documents),
        ("count", [], Some(filter)) => column_of(filter, DataType::Boolean).map(Known::True),
        ("count", [argument], None) => Some(Known::Present(argument.downcast_ref::<PhysicalColumn>()?.index())),
        ("sum", [argument], None) => {
            let cast = argument.downcast_ref::<CastExpr>()?;
            let is_summed = *cast.cast_type() == SUMMED_INTEGER;
            column_of(cast.expr(), DataType::Int64)
                .filter(|_| is_summed)
                .map(Known::Sum)
        }
        _ => None,
    }
}
