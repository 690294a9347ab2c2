//! A page of documents in one scan: leaves return the first documents of each shard and count all that match.
//!
//! The plan is the one of a statement with ORDER BY and LIMIT, whose top-k the rule `topk_pushdown` has pushed into the
//! scan, and it is kept like that of a statement. It is made from the template of the search and without its page, so
//! that it serves all searches with the same template: their scans get the rest as [`SearchPage`].

use std::{collections::BTreeSet, sync::Arc};

use datafusion::{
    logical_expr::{Expr, col, lit},
    physical_plan::ExecutionPlan,
    scalar::ScalarValue,
};
use plan::{
    Column,
    scan::{PageStart, SortKey, Stage},
};
use proto::{CollectionName, Problem};

use super::{
    HitKind, HitPage, KEPT_STATEMENT_BYTES_MAX, ScoreKey, SortKeyOf, SortedBy, collect_rows, hit_page,
    row_order::RowOrder, typed_rows,
};
use crate::query::{
    cursor::{self, RowsPageStart},
    plan_cache::ReusablePlan,
    plan_template::{PlanTemplate, only_scan, only_scan_node},
    planner::CopiedPlan,
    query_plan::ExecutablePlan,
    read_views::QueryViews,
    search::{HITS_MAX, SearchContext, TimeRange},
    shard_scan::{ScanValues, SearchPage},
    statement::reuse,
    topk_pushdown::ADDRESS_COLUMNS,
};

/// The key of a search's plan ends with this, which no parameters of a statement are.
const SEARCH: &str = "search";

/// A page that a plan can read.
struct TopPage {
    order: RowOrder,
    after: Option<RowsPageStart>,
    values: ScanValues,
}

/// Reads the page of a statement that selects all matches of the template. None if leaves cannot evaluate the condition
/// or sort by the key. Also returns the read views.
pub(super) async fn read(
    search: &SearchContext<'_>,
    collection: &CollectionName,
    sql: &str,
    key: SortKeyOf<'_>,
) -> Result<(QueryViews, Option<HitPage>), Problem> {
    let (engine, context, options) = (search.engine, search.context, &search.request.options);
    let direction = search.sort.direction();
    let plan_key = (format!("{sql} {direction}"), SEARCH.to_owned());
    let mut read_views = None;
    if let Some(cached) = engine.plans.get(&plan_key, search.catalog)
        && let ReusablePlan::Physical(template) = &cached.plan
        && let sorted_by = search.sorted_by(key, cached.definitions_hash)
        && let Ok(Some(page)) = TopPage::of(search, &template.root, &sorted_by, None)
    {
        let values = page.values.clone();
        let (opened, plan) = reuse(engine, context, search.catalog, &cached, values, options).await?;
        if let Some(plan) = plan {
            return Ok((opened, Some(page.read(search, plan).await?)));
        }
        read_views = Some(opened);
    }
    let read_views = match read_views {
        Some(read_views) => read_views,
        None => search.open(&BTreeSet::from([collection.clone()])).await?,
    };
    let page = plan_and_read(search, &read_views, sql, key, Some(plan_key), None).await?;
    Ok((read_views, page))
}

/// Reads the page of a statement that selects columns of all matches of the template, and sorts them by their score. None
/// if leaves cannot evaluate the condition or the score.
///
/// If leaves compute the score, the plan serves all searches with the same template: their scans get their score.
pub(super) async fn read_by_score(
    search: &SearchContext<'_>,
    read_views: &QueryViews,
    sql: &str,
    template: &str,
    key: &ScoreKey,
) -> Result<Option<HitPage>, Problem> {
    let (engine, context) = (search.engine, search.context);
    let direction = search.sort.direction();
    let (score, key) = (key.column(read_views)?, SortKeyOf::score(key));
    let plan_key = score
        .is_some()
        .then(|| (format!("{template} by score {direction}"), SEARCH.to_owned()));
    if let Some(plan_key) = &plan_key
        && let Some(cached) = (engine.plans.get(plan_key, search.catalog)).filter(|plan| plan.fits(read_views))
        && let ReusablePlan::Physical(template) = &cached.plan
        && let sorted_by = search.sorted_by(key, cached.definitions_hash)
        && let Some(page) = TopPage::of(search, &template.root, &sorted_by, score.clone())?
    {
        let plan = CopiedPlan::new(engine, context, template, page.values.clone())?;
        let plan = plan.over(engine, context, read_views, None);
        return page.read(search, plan).await.map(Some);
    }
    // The plan holds the score that it was made for.
    let is_short = |score: &Column| score.name().len() <= KEPT_STATEMENT_BYTES_MAX;
    let plan_key = plan_key.filter(|_| score.as_ref().is_some_and(is_short));
    plan_and_read(search, read_views, sql, key, plan_key, score).await
}

async fn plan_and_read(
    search: &SearchContext<'_>,
    read_views: &QueryViews,
    sql: &str,
    key: SortKeyOf<'_>,
    plan_key: Option<(String, String)>,
    score: Option<Column>,
) -> Result<Option<HitPage>, Problem> {
    let (engine, context) = (search.engine, search.context);
    let (typed, rows, order) = typed_rows(search, read_views, sql, key, HitKind::Document).await?;
    let planned = typed.plan(engine, read_views, order.first(rows, HITS_MAX)?).await?;
    let settings = engine.sessions.settings();
    let (Some(page), Some(template)) = (
        TopPage::of(
            search,
            &planned.executable.physical,
            &search.sorted_by(key, planned.definitions_hash),
            score,
        )?,
        PlanTemplate::of(&planned.executable.physical, settings),
    ) else {
        return Ok(None);
    };
    if plan_key.is_some() {
        (engine.plans).put(plan_key, context, read_views, &planned, None, settings);
    }
    let plan = CopiedPlan::new(engine, context, &template, page.values.clone())?;
    let plan = plan.over(engine, context, read_views, None);
    page.read(search, plan).await.map(Some)
}

impl TopPage {
    /// The requested page, if the plan has a single scan, which returns the first documents of each shard.
    fn of(
        search: &SearchContext<'_>,
        plan: &Arc<dyn ExecutionPlan>,
        sorted_by: &SortedBy<'_>,
        score: Option<Column>,
    ) -> Result<Option<Self>, Problem> {
        let Some(scan) = only_scan(plan) else { return Ok(None) };
        let Stage::Top { keys, .. } = &scan.stage else {
            return Ok(None);
        };
        let order = RowOrder::of(&plan.schema(), HitKind::Document, sorted_by);
        let after = order.page_start(search.request)?;
        let start = after
            .as_ref()
            .map(|after| page_start(keys, &after.values).ok_or_else(cursor::malformed));
        let page = SearchPage {
            tests: search.template.tests.clone(),
            time_range: conditions(search.time_range),
            after: start.transpose()?,
            limit: search.limit,
            score,
        };
        let values = ScanValues {
            page: Some(Arc::new(page)),
            ..ScanValues::default()
        };
        Ok(Some(Self { order, after, values }))
    }

    /// Runs the plan, which has got the values.
    async fn read(self, search: &SearchContext<'_>, plan: ExecutablePlan) -> Result<HitPage, Problem> {
        let scan = only_scan(&plan.physical).map(|scan| scan.number);
        let total = || scan.map_or(0, |scan| search.context.report.matched(scan));
        // The scan counts the matches. Without hits, nothing else is to be done.
        if let (0, Some(scan)) = (search.limit, only_scan_node(&plan.physical)) {
            let physical = Arc::clone(scan);
            collect_rows(search, ExecutablePlan { physical, ..plan }).await?;
            return Ok(HitPage {
                hits: Vec::new(),
                total: total(),
                after: None,
            });
        }
        let rows = collect_rows(search, plan).await?;
        let rows = rows.slice(0, rows.num_rows().min(search.limit));
        let total = total();
        hit_page(search, &self.order, &rows, self.after.as_ref(), total)
    }
}

fn conditions(time_range: TimeRange) -> Vec<Expr> {
    let time = |micros: i64| lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())));
    let from = time_range.from.map(|from| col("_time").gt_eq(time(from)));
    let to = time_range.to.map(|to| col("_time").lt(time(to)));
    from.into_iter().chain(to).collect()
}

/// Where a scan that sorts by these keys continues. `values` are the last document's sort key and its address.
fn page_start(keys: &[SortKey], values: &[ScalarValue]) -> Option<PageStart> {
    let [key, address @ ..] = values else { return None };
    let [source, partition, offset, item] = address else {
        return None;
    };
    // The scan does not sort by a key that is the same for all documents, but by the address.
    let value = |sorted_by: &SortKey| {
        let name = sorted_by.column.name();
        let part = ADDRESS_COLUMNS.iter().position(|column| *column == name);
        part.map_or(key, |part| &address[part]).clone()
    };
    Some(PageStart {
        values: keys.iter().map(value).collect(),
        address: format!("{source}/{partition}@{offset}.{item}").parse().ok()?,
    })
}
