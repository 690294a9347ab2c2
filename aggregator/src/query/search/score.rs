//! Searches that are sorted by score. What the scores depend on is read first, of the whole collection or view, or comes
//! from the cursor of the page before.

use datafusion::arrow::{
    array::AsArray as _,
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use plan::{
    Column, ColumnSource,
    functions::score::SCORE,
    matcher::{DocumentScore, ScoreStatistics, ScoredSearch, scored_tokens},
    search::{self, SearchExpr},
};
use proto::{Code, Problem};

use super::{
    SearchContext, Searched,
    statement::{INPUT, KEPT_STATEMENT_BYTES_MAX, collect_rows, kept_plan, parse_query, quoted},
};
use crate::{
    failure,
    query::{cursor, read_views::QueryViews},
    sql::{
        self, Table,
        score::{LENGTHS, STATISTICS},
    },
};

/// The name of the sort key in cursors, if hits are sorted by their score. Other keys are SQL that begins with the input.
pub(super) const SORTED_BY_SCORE: &str = "_score";

/// The statistics of a search, and its score in SQL.
pub(super) struct ScoreKey {
    pub statistics: ScoreStatistics,
    pub sql: String,
    /// The name of what is searched.
    searched: String,
    /// The search as leaves evaluate it, if that is known.
    resolved: Option<ScoredSearch>,
}

impl ScoreKey {
    /// The column of the score, if leaves compute it.
    pub(super) fn column(&self, read_views: &QueryViews) -> Result<Option<Column>, Problem> {
        if let Some(search) = &self.resolved {
            let statistics = self.statistics.clone();
            let score = serde_json::to_string(&DocumentScore {
                search: search.clone(),
                statistics,
            });
            return Ok(Some(Column::score(score.map_err(not_json)?.into())));
        }
        let statement = format!("SELECT {} FROM {} AS {INPUT}", self.sql, quoted(&self.searched));
        let resolved = sql::resolve(&parse_query(&statement)?, read_views, &[], &[])?;
        let columns = resolved.tables.iter().flat_map(|of| match &of.table {
            Table::Collection { columns, .. } => columns.as_slice(),
            Table::System { .. } => &[],
        });
        let mut scores = columns.filter(|column| matches!(column.source, ColumnSource::Score(_)));
        Ok(scores.next().cloned())
    }
}

fn not_json(error: serde_json::Error) -> Problem {
    Problem::new(Code::Internal, error.to_string())
}

/// What the hits of a search are sorted by.
pub(super) async fn key(
    search: &SearchContext<'_>,
    searched: &Searched,
    read_views: &QueryViews,
) -> Result<ScoreKey, Problem> {
    let query = literal(&search.request.query);
    let after = search.request.after.as_deref();
    let known = after
        .map(|after| cursor::statistics(after, search.identity()))
        .transpose()?
        .flatten();
    let parsed = search::parse(&search.request.query, search.context.now)?;
    let (statistics, resolved) = match known {
        Some(known) => (known, None),
        None if has_words(&parsed.expr) => read(search, searched, read_views).await?,
        None => (ScoreStatistics::default(), None),
    };
    let json = serde_json::to_string(&statistics).map_err(not_json)?;
    Ok(ScoreKey {
        statistics,
        sql: format!("{SCORE}({INPUT}, {query}, '{json}')"),
        searched: searched.name().to_owned(),
        resolved,
    })
}

async fn read(
    search: &SearchContext<'_>,
    searched: &Searched,
    read_views: &QueryViews,
) -> Result<(ScoreStatistics, Option<ScoredSearch>), Problem> {
    let (query, name) = (literal(&search.request.query), quoted(searched.name()));
    let sql = format!("SELECT {STATISTICS}({INPUT}, {query}) FROM {name} AS {INPUT}");
    let key = Some(sql.clone()).filter(|key| key.len() <= KEPT_STATEMENT_BYTES_MAX);
    let plan = kept_plan(search, read_views, &sql, key).await?;
    let rows = collect_rows(search, plan).await?;
    let malformed = || Problem::new(Code::Internal, "the statistics of a search were not counted");
    let [resolved, numbers @ ..] = rows.columns() else {
        return Err(malformed());
    };
    if rows.num_rows() != 1 {
        return Err(malformed());
    }
    let mut statistics = ScoreStatistics::default();
    for (field, numbers) in rows.schema().fields().iter().skip(1).zip(numbers) {
        // A sum is a decimal, and NULL without rows.
        let numbers = cast(numbers, &DataType::Int64).map_err(|e| failure::problem(e.into()))?;
        let number = numbers.as_primitive::<Int64Type>().iter().next().flatten().unwrap_or(0);
        match field.name().starts_with(LENGTHS) {
            true => statistics.lengths.push(number),
            false => statistics.frequencies.push(number),
        }
    }
    let resolved = cast(resolved, &DataType::Utf8).map_err(|e| failure::problem(e.into()))?;
    let json = resolved.as_string::<i32>().iter().next().flatten();
    Ok((
        statistics,
        json.map(serde_json::from_str).transpose().map_err(not_json)?,
    ))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether the score depends on how often words occur.
fn has_words(search: &SearchExpr) -> bool {
    match search {
        SearchExpr::All => false,
        SearchExpr::And(parts) | SearchExpr::Or(parts) => parts.iter().any(has_words),
        SearchExpr::Not(part) | SearchExpr::Weighted(part, _) => has_words(part),
        SearchExpr::Clause { matches, .. } => scored_tokens(matches).is_some(),
    }
}
