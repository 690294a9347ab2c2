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

use super::{
    SearchContext, Searched,
    statement::{INPUT, KEPT_STATEMENT_BYTES_MAX, collect_rows, kept_plan, quoted},
};
use crate::{
    query::{cursor, read_views::QueryViews},
    sql::score::{FREQUENCIES, LENGTHS},
};

/// The name of the sort key in cursors, if hits are sorted by their score. Other keys are SQL that begins with the input.
pub(super) const SORTED_BY_SCORE: &str = "_score";

/// The statistics of a search, and its score in SQL.
pub(super) struct ScoreKey {
    pub statistics: ScoreStatistics,
    pub sql: String,
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
    let statistics = match known {
        Some(known) => known,
        None => {
            let mut names = Vec::new();
            names_of_words(&parsed.expr, &mut names);
            match names.as_slice() {
                [] => ScoreStatistics::default(),
                names => read(search, searched, read_views, names).await?,
            }
        }
    };
    let json = serde_json::to_string(&statistics).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
    Ok(ScoreKey {
        statistics,
        sql: format!("{SCORE}({INPUT}, {query}, '{json}')"),
    })
}

async fn read(
    search: &SearchContext<'_>,
    searched: &Searched,
    read_views: &QueryViews,
    names: &[Option<&str>],
) -> Result<ScoreStatistics, Problem> {
    let (query, name) = (literal(&search.request.query), quoted(searched.name()));
    let counted = async |counter: &str, key: Option<String>| {
        let sql = format!("SELECT {counter}({INPUT}, {query}) FROM {name} AS {INPUT}");
        let key = key.unwrap_or_else(|| sql.clone());
        let key = Some(key).filter(|key| key.len() <= KEPT_STATEMENT_BYTES_MAX);
        let plan = kept_plan(search, read_views, &sql, key).await?;
        let rows = collect_rows(search, plan).await?;
        let missing = || Problem::new(Code::Internal, "the statistics of a search were not counted");
        numbers(&rows).ok_or_else(missing)
    };
    // Searches at the same places ask for the same lengths: their plan is kept, and leaves cache what a split answers.
    let of_names = format!("{LENGTHS} of {names:?} in {name}");
    let (lengths, frequencies) = tokio::try_join!(counted(LENGTHS, Some(of_names)), counted(FREQUENCIES, None))?;
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

/// The names of the clauses whose words are counted, in order.
fn names_of_words<'s>(search: &'s SearchExpr, names: &mut Vec<Option<&'s str>>) {
    match search {
        SearchExpr::All => {}
        SearchExpr::And(parts) | SearchExpr::Or(parts) => parts.iter().for_each(|part| names_of_words(part, names)),
        SearchExpr::Not(part) | SearchExpr::Weighted(part, _) => names_of_words(part, names),
        SearchExpr::Clause { name, matches } => {
            if scored_tokens(matches).is_some() && !names.contains(&name.as_deref()) {
                names.push(name.as_deref());
            }
        }
    }
}
