//! Searches: a condition and a sort order in, one page of documents or of rows of a view out, with what was asked about
//! all matches. A search is planned as the SQL statement `SELECT … WHERE search('…') ORDER BY …`.

mod highlight;
mod hit;
mod path_list;
mod score;
mod statement;
mod summary;
mod time_range;

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use plan::{Path, search::SearchTemplate};
use proto::{Catalog, Code, CollectionName, Problem};

use self::{
    highlight::HighlightRequest,
    summary::{Matches, SummaryRequest},
    time_range::TimeRange,
};
use super::{Engine, context::QueryContext, no_collection, read_views::QueryViews, run};
use crate::{
    answer::{Hit, SearchAnswer, SearchQuery},
    sql,
};

/// The name that sorts hits by how well they fit.
const SCORE: &str = "_score";
/// Hits of a page if the request sets no limit.
const HITS_DEFAULT: usize = 20;
/// Limit on the hits of a page.
const HITS_MAX: usize = 10_000;

/// What is searched.
enum Searched {
    Collection(CollectionName),
    /// The name of a view or, as `slow@1`, of a version of one.
    View(String),
}

impl Searched {
    fn name(&self) -> &str {
        match self {
            Self::Collection(name) => name.as_str(),
            Self::View(name) => name,
        }
    }
}

/// A running search.
struct SearchContext<'a> {
    engine: &'a Engine,
    context: &'a Arc<QueryContext>,
    catalog: &'a Arc<Catalog>,
    request: &'a SearchQuery,
    template: SearchTemplate,
    sort: Sort,
    time_range: TimeRange,
    limit: usize,
}

impl SearchContext<'_> {
    async fn open(&self, collections: &BTreeSet<CollectionName>) -> Result<QueryViews, Problem> {
        let options = &self.request.options;
        let read_views = QueryViews::open(self.context, self.catalog, collections, &options.at_least).await?;
        read_views.require_complete(options.allow_partial)?;
        Ok(read_views)
    }
}

struct HitPage {
    hits: Vec<Hit>,
    /// Matches on all pages.
    total: u64,
    /// The cursor of the next page.
    after: Option<String>,
}

pub(super) async fn run(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &SearchQuery,
    started: Instant,
) -> Result<SearchAnswer, Problem> {
    let now = context.now;
    let (limit, summary) = (page_limit(request)?, SummaryRequest::parse(request, now)?);
    let highlight = request.highlight.as_deref().map(HighlightRequest::parse).transpose()?;
    let (sort, time_range) = (Sort::parse(request.sort.as_deref()), TimeRange::parse(request, now)?);
    let catalog = engine.catalog();
    let searched = match sql::view_version(&request.collection, &catalog)? {
        Some(_) => Searched::View(request.collection.clone()),
        None => Searched::Collection(collection_of(request, &catalog)?),
    };
    let search = SearchContext {
        engine,
        context,
        catalog: &catalog,
        request,
        template: SearchTemplate::of(&request.query, now)?,
        sort,
        time_range,
        limit,
    };
    // Its author has not seen the statement of the search.
    let unplaced = |problem| Problem { at: None, ..problem };
    let page = match &searched {
        Searched::Collection(name) => statement::search_collection(&search, &searched, name).await,
        Searched::View(_) => statement::search_view(&search, &searched).await,
    };
    let (read_views, mut page) = page.map_err(unplaced)?;
    let matches = Matches::new(&search, &searched, &read_views, page.total);
    if let Some(highlight) = highlight {
        highlight.add_to(&matches, &mut page.hits).await.map_err(unplaced)?;
    }
    let summary = summary.compute(&matches).await.map_err(unplaced)?;
    search.template.notes.iter().for_each(|note| context.report.warn(note));
    Ok(SearchAnswer {
        hits: page.hits,
        total: page.total,
        after: page.after,
        facets: summary.facets,
        histogram: summary.histogram,
        fields: summary.fields,
        stats: run::statistics(context, Some(&read_views), started),
    })
}

fn collection_of(request: &SearchQuery, catalog: &Catalog) -> Result<CollectionName, Problem> {
    let malformed = |e: proto::address::Malformed| Problem::new(Code::BadRequest, e.to_string());
    let name: CollectionName = request.collection.parse().map_err(malformed)?;
    match catalog.collections.contains_key(&name) {
        true => Ok(name),
        false => Err(no_collection(&name, catalog)),
    }
}

fn page_limit(request: &SearchQuery) -> Result<usize, Problem> {
    let limit = request.limit.unwrap_or(HITS_DEFAULT);
    if limit > HITS_MAX {
        let detail = format!("a limit of {limit} hits is too large");
        let hint = format!("set limit to at most {HITS_MAX}; `after` continues with the next page");
        return Err(Problem::new(Code::BadRequest, detail).hint(hint));
    }
    Ok(limit)
}

/// The sort order of the hits.
struct Sort {
    /// `_time`, `_score`, a path, a field or a column of a view; None for the default.
    name: Option<String>,
    /// Without a direction, `_time` is sorted newest first, `_score` best first, and everything else ascending.
    descending: bool,
}

impl Sort {
    fn parse(text: Option<&str>) -> Self {
        let text = text.map(str::trim).filter(|text| !text.is_empty());
        let (name, descending) = match text.map(|text| text.rsplit_once(':').unwrap_or((text, ""))) {
            Some((name, "desc")) => (Some(name), true),
            Some((name, "asc")) => (Some(name), false),
            _ => (text, text.is_none_or(|text| text == "_time" || text == SCORE)),
        };
        Self {
            name: name.map(str::to_owned),
            descending,
        }
    }

    /// In SQL.
    fn direction(&self) -> &'static str {
        if self.descending { "desc" } else { "asc" }
    }

    fn is_by_score(&self) -> bool {
        self.name.as_deref() == Some(SCORE)
    }

    /// What the hits are sorted by, in SQL, unless it is the default or the score.
    fn key(&self) -> Result<Option<String>, Problem> {
        match self.name.as_deref() {
            Some(path) => Ok(Some(statement::input_path(&sort_path(path)?))),
            None => Ok(None),
        }
    }
}

/// Parses the name that hits are sorted by as a path.
fn sort_path(name: &str) -> Result<Path, Problem> {
    Path::parse(name)
        .map_err(|e| Problem::new(Code::BadRequest, format!("sort: {e}")).hint("write sort=user.name:desc"))
}

fn page_too_large() -> Problem {
    Problem::new(
        Code::LimitReached,
        "the hits of this page need more memory than a query may use",
    )
    .hint("set a smaller limit")
}
