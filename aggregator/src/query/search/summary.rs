//! What a search says about all its matches, beside a page of them: facets, a histogram, fields. Each is a statement
//! over the read views of the page, so that one answer describes one state of the data. Leaves keep which documents a
//! condition matches in each part, so it is decided once.

mod facets;
mod fields;
mod histogram;
mod interval;

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{AsArray as _, RecordBatch},
        compute::{cast, concat_batches},
        datatypes::{DataType, Int64Type, SchemaRef},
    },
    error::DataFusionError,
    physical_plan::execute_stream,
};
use futures::{
    TryStreamExt as _,
    future::{OptionFuture, try_join3},
};
use proto::Problem;

pub(super) use self::facets::defined_steps;
use self::{facets::FacetRequest, fields::FieldsRequest, histogram::HistogramRequest};
use super::{SearchContext, Searched, statement};
use crate::{
    answer::{Facet, Histogram, SearchQuery, SearchedFields},
    failure,
    query::{
        planner, query_plan::ExecutablePlan, read_views::QueryViews, statement::plan_over,
        statement_shape::StatementValues,
    },
    sql,
};

/// The key of a summary's plan ends with this, which no parameters of a statement are.
const SUMMARY: &str = "summary";

/// What a search asks about its matches.
pub(super) struct SummaryRequest {
    facets: Vec<FacetRequest>,
    histogram: Option<HistogramRequest>,
    fields: Option<FieldsRequest>,
}

/// What an answer says about all matches.
#[derive(Default)]
pub(super) struct Summary {
    pub facets: Vec<Facet>,
    pub histogram: Option<Histogram>,
    pub fields: Option<SearchedFields>,
}

impl SummaryRequest {
    pub(super) fn parse(request: &SearchQuery) -> Result<Self, Problem> {
        let histogram = request.histogram.as_deref().map(str::trim);
        let histogram = histogram.filter(|text| !text.is_empty());
        Ok(Self {
            facets: facets::parse(request.facets.as_deref().unwrap_or_default())?,
            histogram: histogram.map(HistogramRequest::parse).transpose()?,
            fields: request.fields.map(FieldsRequest::of).transpose()?,
        })
    }

    /// Computes everything that was asked, at once.
    pub(super) async fn compute(&self, matches: &Matches<'_>) -> Result<Summary, Problem> {
        let histogram = self.histogram.as_ref().map(|request| request.compute(matches));
        let fields = self.fields.as_ref().map(|request| request.compute(matches));
        let (facets, histogram, fields) = try_join3(
            facets::compute(matches, &self.facets),
            async { OptionFuture::from(histogram).await.transpose() },
            async { OptionFuture::from(fields).await.transpose() },
        )
        .await?;
        Ok(Summary {
            facets,
            histogram,
            fields,
        })
    }
}

/// What a search matches, over the read views of its page.
pub(super) struct Matches<'a> {
    pub search: &'a SearchContext<'a>,
    pub searched: &'a Searched,
    pub read_views: &'a QueryViews,
}

impl Matches<'_> {
    /// `FROM … WHERE …` of a statement that reads the matches under the alias [`statement::INPUT`].
    pub(super) fn input_sql(&self) -> String {
        statement::from_matches(self.search, self.searched)
    }

    /// The rows of a statement over the matches.
    pub(super) async fn rows(&self, sql: &str) -> Result<RecordBatch, Problem> {
        let mut stream = self
            .plan(sql)
            .await
            .and_then(|plan| execute_stream(plan.physical, plan.task).map_err(failure::problem))?;
        let (schema, mut batches) = (stream.schema(), Vec::new());
        while let Some(batch) = stream.try_next().await.map_err(failure::problem)? {
            batches.push(batch);
        }
        concat_batches(&schema, &batches).map_err(|e| failure::problem(DataFusionError::from(e)))
    }

    /// The columns of a statement over the matches.
    async fn typed(&self, sql: &str) -> Result<SchemaRef, Problem> {
        let resolved = sql::resolve(&statement::parse_query(sql)?, self.read_views, &[], &[])?;
        let (engine, context, values) = (self.search.engine, self.search.context, StatementValues::default());
        let typed = planner::type_query(engine, context, self.read_views, resolved, values).await?;
        Ok(Arc::clone(typed.logical.schema().inner()))
    }

    /// The plan of a statement, which is kept for searches that come again.
    async fn plan(&self, sql: &str) -> Result<ExecutablePlan, Problem> {
        let SearchContext {
            engine,
            context,
            catalog,
            ..
        } = self.search;
        // A search of another time would find no plan by this key.
        let range = self.search.time_range;
        let key = (range.from.is_none() && range.to.is_none()).then(|| (sql.to_owned(), SUMMARY.to_owned()));
        if let Some(key) = &key
            && let Some(cached) = engine.plans.get(key, catalog).filter(|plan| plan.fits(self.read_views))
        {
            return plan_over(engine, context, &cached, self.read_views).await;
        }
        let resolved = sql::resolve(&statement::parse_query(sql)?, self.read_views, &[], &[])?;
        let values = StatementValues::default();
        let planned = planner::plan(engine, context, self.read_views, resolved, values, None).await?;
        let settings = engine.sessions.settings();
        (engine.plans).put(key, context, self.read_views, &planned, None, settings);
        Ok(planned.executable)
    }
}

/// A column of counts.
fn counts(rows: &RecordBatch, column: usize) -> Result<Vec<u64>, Problem> {
    let counts = cast(rows.column(column), &DataType::Int64).map_err(|e| failure::problem(DataFusionError::from(e)))?;
    let counts = counts.as_primitive::<Int64Type>().iter();
    Ok(counts
        .map(|count| count.and_then(|count| count.try_into().ok()).unwrap_or_default())
        .collect())
}
