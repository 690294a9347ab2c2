//! What a search says about all its matches, beside a page of them: facets, a histogram, fields. Each is a statement
//! over the read views of the page, so that one answer describes one state of the data. They run one after another, each
//! within the memory of a query; leaves keep which documents the last conditions match in each part.

mod facets;
mod fields;
mod histogram;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use chrono::{DateTime, Utc};
use datafusion::{
    arrow::{
        array::{AsArray as _, RecordBatch},
        compute::{cast, concat_batches},
        datatypes::{DataType, Int64Type, SchemaRef},
    },
    error::DataFusionError,
    physical_plan::execute_stream,
};
use futures::TryStreamExt as _;
use plan::{Path, path::Step};
use proto::{Code, Problem};

use self::{facets::FacetRequest, fields::FieldsRequest, histogram::HistogramRequest};
use super::{
    SearchContext, Searched,
    statement::{self, KEPT_STATEMENT_BYTES_MAX},
};
use crate::{
    answer::{Facet, Histogram, SearchQuery, SearchedFields},
    failure,
    query::{planner, query_plan::ExecutablePlan, read_views::QueryViews, statement_shape::StatementValues},
    sql,
};

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
    pub(super) fn parse(request: &SearchQuery, now: DateTime<Utc>) -> Result<Self, Problem> {
        let histogram = request.histogram.as_deref().map(str::trim);
        let histogram = histogram.filter(|text| !text.is_empty());
        Ok(Self {
            facets: facets::parse(request.facets.as_deref().unwrap_or_default(), now)?,
            histogram: histogram.map(HistogramRequest::parse).transpose()?,
            fields: request.fields.map(FieldsRequest::of).transpose()?,
        })
    }

    /// Computes everything that was asked, one after another: each statement may take the memory of a query.
    pub(super) async fn compute(&self, matches: &Matches<'_>) -> Result<Summary, Problem> {
        let mut summary = Summary {
            facets: facets::compute(matches, &self.facets).await?,
            ..Summary::default()
        };
        if let Some(histogram) = &self.histogram {
            summary.histogram = Some(histogram.compute(matches).await?);
        }
        if let Some(fields) = &self.fields {
            summary.fields = Some(fields.compute(matches).await?);
        }
        Ok(summary)
    }
}

/// What a search matches, over the read views of its page.
pub(super) struct Matches<'a> {
    pub search: &'a SearchContext<'a>,
    pub searched: &'a Searched,
    pub read_views: &'a QueryViews,
    /// How many these are.
    pub total: u64,
    /// The fields and parsers of the collection.
    defined: Vec<Path>,
    /// What else the answer may hold, in bytes.
    free_bytes: AtomicUsize,
}

impl<'a> Matches<'a> {
    pub(super) fn new(
        search: &'a SearchContext<'a>,
        searched: &'a Searched,
        read_views: &'a QueryViews,
        total: u64,
    ) -> Self {
        let defined = match searched {
            Searched::Collection(name) => {
                let columns = search.catalog.columns(name);
                columns.filter_map(|(id, _)| Path::parse(&id.name).ok()).collect()
            }
            Searched::View(_) => Vec::new(),
        };
        Self {
            search,
            searched,
            read_views,
            total,
            defined,
            free_bytes: AtomicUsize::new(search.engine.options.query_bytes_max),
        }
    }

    /// How many steps of a path name a field or a parser, or a version of one, if it is one of these or lies below one.
    pub(super) fn defined_steps(&self, path: &Path) -> Option<usize> {
        let is_same = |(step, defined): (&Step, &Step)| match (step.key(), defined.key()) {
            (Some(key), Some(defined)) => {
                let unversioned = key.split_once('@').map_or(key, |(name, _)| name);
                key.eq_ignore_ascii_case(defined) || unversioned.eq_ignore_ascii_case(defined)
            }
            _ => false,
        };
        let is_prefix = |defined: &&Path| {
            let (steps, defined) = (path.steps(), defined.steps());
            defined.len() <= steps.len() && steps.iter().zip(defined).all(is_same)
        };
        self.defined
            .iter()
            .filter(is_prefix)
            .map(|defined| defined.steps().len())
            .max()
    }

    /// Takes some of the bytes that the answer may hold.
    pub(super) fn take_bytes(&self, bytes: usize) -> Result<(), Problem> {
        let take = |free: usize| free.checked_sub(bytes);
        match self.free_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(_) => Err(Problem::new(
                Code::LimitReached,
                "what is asked about the matches needs more memory than a query may use",
            )
            .hint("ask for fewer facets, fields or highlights, or set a smaller limit")),
        }
    }

    /// `FROM … WHERE …` of a statement that reads the matches under the alias [`statement::INPUT`].
    pub(super) fn input_sql(&self) -> String {
        statement::from_matches(self.search, self.searched)
    }

    /// The rows of a statement over the matches.
    pub(super) async fn rows(&self, sql: &str) -> Result<RecordBatch, Problem> {
        let plan = self.plan(sql).await?;
        let mut stream = execute_stream(plan.physical, plan.task).map_err(failure::problem)?;
        let (schema, mut batches) = (stream.schema(), Vec::new());
        while let Some(batch) = stream.try_next().await.map_err(failure::problem)? {
            self.take_bytes(batch.get_array_memory_size())?;
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
        // A search of another time would find no plan by this key.
        let range = self.search.time_range;
        let is_kept = range.from.is_none() && range.to.is_none() && sql.len() <= KEPT_STATEMENT_BYTES_MAX;
        let key = is_kept.then(|| sql.to_owned());
        statement::kept_plan(self.search, self.read_views, sql, key).await
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
