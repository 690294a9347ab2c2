//! Searches that are sorted by score. What the scores depend on is read first, of the whole collection or view, or comes
//! from the cursor of the page before.

use datafusion::arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use plan::{
    functions::score::SCORE,
    matcher::{ScoreStatistics, scored_tokens},
    search::{self, SearchExpr},
};
use proto::{Code, Problem};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    SearchContext, Searched,
    statement::{INPUT, collect_rows, parse_query, quoted},
};
use crate::{
    query::{cursor, planner, read_views::QueryViews, statement_shape::StatementValues},
    sql::{
        self,
        score::{FREQUENCIES, LENGTHS},
    },
};

/// Begins the names of what hits are sorted by if that is their score.
pub(in crate::query) const SCORE_OF: &str = "_score of ";

/// The statistics of a search, and its score in SQL.
pub(super) struct ScoreKey {
    pub statistics: ScoreStatistics,
    pub sql: String,
    /// What hits are sorted by: a cursor of another search, or of another collection, means nothing.
    pub name: String,
}

/// What the hits of a search are sorted by.
pub(super) async fn key(
    search: &SearchContext<'_>,
    searched: &Searched,
    read_views: &QueryViews,
) -> Result<ScoreKey, Problem> {
    let query = literal(&search.request.query);
    let hash = xxh3_64(format!("{} {query}", quoted(searched.name())).as_bytes());
    let name = format!("{SCORE_OF}{hash:016x}");
    let after = search.request.after.as_deref();
    let known = after
        .map(|after| cursor::statistics(after, &name))
        .transpose()?
        .flatten();
    let parsed = search::parse(&search.request.query, search.context.now)?;
    let statistics = match known {
        Some(known) => known,
        None if has_words(&parsed.expr) => read(search, searched, read_views).await?,
        None => ScoreStatistics::default(),
    };
    let json = serde_json::to_string(&statistics).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
    Ok(ScoreKey {
        statistics,
        sql: format!("{SCORE}({INPUT}, {query}, '{json}')"),
        name,
    })
}

async fn read(
    search: &SearchContext<'_>,
    searched: &Searched,
    read_views: &QueryViews,
) -> Result<ScoreStatistics, Problem> {
    let (query, name) = (literal(&search.request.query), quoted(searched.name()));
    let counted = async |counter: &str| {
        let sql = format!("SELECT {counter}({INPUT}, {query}) FROM {name} AS {INPUT}");
        let resolved = sql::resolve(&parse_query(&sql)?, read_views, &[], &[])?;
        let values = StatementValues::default();
        let typed = planner::type_query(search.engine, search.context, read_views, resolved, values).await?;
        let plan = typed.plan(search.engine, read_views, typed.logical.clone()).await?;
        let rows = collect_rows(search, plan.executable).await?;
        let missing = || Problem::new(Code::Internal, "the statistics of a search were not counted");
        numbers(&rows).ok_or_else(missing)
    };
    // Leaves cache the lengths of each split, because a statement with the same path asks for the same.
    let (lengths, frequencies) = tokio::try_join!(counted(LENGTHS), counted(FREQUENCIES))?;
    Ok(ScoreStatistics { lengths, frequencies })
}

/// The integers of a list, which is the only value of the only row.
fn numbers(rows: &RecordBatch) -> Option<Vec<i64>> {
    let lists = rows
        .columns()
        .first()?
        .as_list_opt::<i32>()
        .filter(|lists| lists.len() == 1)?;
    // A sum is a decimal.
    let integers = cast(&lists.value(0), &DataType::Int64).ok()?;
    Some(integers.as_primitive_opt::<Int64Type>()?.values().to_vec())
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether some clause counts its words.
fn has_words(search: &SearchExpr) -> bool {
    match search {
        SearchExpr::All => false,
        SearchExpr::And(parts) | SearchExpr::Or(parts) => parts.iter().any(has_words),
        SearchExpr::Not(part) | SearchExpr::Weighted(part, _) => has_words(part),
        SearchExpr::Clause { matches, .. } => scored_tokens(matches).is_some(),
    }
}
