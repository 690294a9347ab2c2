//! DIFF: what changes between two versions of a field or a parser, over the documents as they are now.
//!
//! All its queries read the same read views: one counts rows by time, one returns examples.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _},
        compute::cast,
        datatypes::{Int64Type, TimestampMicrosecondType},
    },
    sql::sqlparser::ast::Expr,
};
use plan::Type;
use proto::{
    Catalog, Problem,
    catalog::{DefinitionId, Pinned, VersionRef},
};
use serde_json::{Value, json};

use super::{
    super::{Engine, condition::CONDITION, context::QueryContext, run::QueryOutput, system},
    documents::{Documents, failure_of, shown, spelled, text_rows},
    users::{unrecorded_users, users_of},
};
use crate::{answer::SqlQuery, failure, sql::DefinitionDiff};

/// Examples of rows that change.
const PAIRS_MAX: usize = 100;
/// Spans of time into which the changes are divided, at most.
const SPANS_MAX: i64 = 60;
/// Lengths of these spans in seconds.
const SPAN_SECONDS: [i64; 10] = [1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800, 2_592_000, 31_536_000];
/// Whether a value changes, of two versions with the same type.
const CHANGED: &str = "a IS DISTINCT FROM b";
/// The same of two versions with different types: as an answer shows the values.
const CHANGED_AS_SHOWN: &str = "to_json(a) IS DISTINCT FROM to_json(b)";
/// What is counted, in the order of the columns of the query that counts.
const COUNTED: [&str; 6] = [
    "compared",
    "changed",
    "new NULLs",
    "vanished NULLs",
    "new errors",
    "vanished errors",
];

/// Compares two versions.
pub(in crate::query) async fn diff(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
    wanted: &DefinitionDiff,
) -> Result<QueryOutput, Problem> {
    let catalog = engine.catalog();
    let id = &wanted.id;
    let before = catalog.definition_version(id, &wanted.from)?.number;
    let after = catalog.definition_version(id, &wanted.to)?.number;
    let mut comparison = Comparison {
        id,
        documents: Documents::open(engine, context, request, &catalog, id).await?,
        condition: wanted.condition.as_ref(),
        versions: [spelled(id, before)?, spelled(id, after)?],
        changed: CHANGED,
        sample: wanted.sample,
    };
    comparison.choose_how_to_compare().await?;
    let spans = comparison.count_by_time().await?;
    let total = |count: usize| spans.iter().map(|span| span.counts[count]).sum::<i64>();
    let totals: Vec<i64> = (0..COUNTED.len()).map(total).collect();
    let total_rows = COUNTED
        .iter()
        .zip(&totals)
        .map(|(name, count)| total_row(name, *count, wanted.sample));
    let mut rows: Vec<Value> = total_rows.collect();
    let changed_spans = spans
        .iter()
        .filter(|span| span.counts[1..].iter().any(|count| *count > 0));
    rows.extend(changed_spans.map(|span| {
        json!({ "part": "time", "name": span.from, "rows": span.counts[1], "note": format!("of {}", span.counts[0]) })
    }));
    if totals[1..].iter().any(|count| *count > 0) {
        rows.extend(comparison.pairs().await?);
    }
    rows.extend(followers(context, &catalog, id).await?);
    let columns = [
        ("part", Type::Text),
        ("name", Type::Text),
        ("rows", Type::Int),
        ("before", Type::Json),
        ("after", Type::Json),
        ("note", Type::Text),
        ("document", Type::Json),
    ];
    Ok(QueryOutput {
        read_views: Some(comparison.documents.into_read_views()),
        ..QueryOutput::of_batch(system::batch(&columns, &rows)?)
    })
}

/// Two versions, and the documents over which they are compared.
struct Comparison<'a> {
    id: &'a DefinitionId,
    documents: Documents<'a>,
    condition: Option<&'a Expr>,
    /// Before and after, as a statement names them.
    versions: [String; 2],
    /// The condition that a value changes.
    changed: &'static str,
    /// Percent of the documents.
    sample: Option<f64>,
}

/// The counts of one span of time.
struct Span {
    /// Its beginning; none for documents without a time.
    from: Option<String>,
    counts: Vec<i64>,
}

impl Comparison<'_> {
    /// A query whose rows are the documents, with both values and why there are none.
    fn source(&self) -> String {
        let [a, b] = &self.versions;
        let (failure_a, failure_b) = (failure_of(self.id, a), failure_of(self.id, b));
        let collection = self.documents.collection;
        // The same documents every time.
        let sampled = (self.sample).map_or(String::new(), |percent| format!(" TABLESAMPLE ({percent} PERCENT)"));
        format!(
            "SELECT _id, _time, _doc, {a} AS a, {b} AS b, {failure_a} AS fa, {failure_b} AS fb \
             FROM \"{collection}\"{sampled} WHERE {CONDITION}"
        )
    }

    async fn choose_how_to_compare(&mut self) -> Result<(), Problem> {
        let text = format!("SELECT a, b FROM ({}) AS documents", self.source());
        let types = self.documents.types(&text, self.condition).await?;
        if types.first() != types.get(1) {
            self.changed = CHANGED_AS_SHOWN;
        }
        Ok(())
    }

    /// The length of the spans of time, in seconds. A time that a clock cannot have had does not count.
    async fn span_seconds(&self) -> Result<i64, Problem> {
        let limits = format!(
            "SELECT min(_time) AS first, max(_time) AS last FROM \"{}\" WHERE {CONDITION} \
             AND _time BETWEEN TIMESTAMP '1990-01-01' AND now() + INTERVAL '1 day'",
            self.documents.collection
        );
        let limits = self.documents.query(&limits, self.condition).await?;
        let limit = |column: usize| {
            let batch = limits.first().filter(|batch| batch.num_rows() > 0)?;
            let times = micros(batch.column(column)).ok()?;
            let times = times.as_primitive_opt::<TimestampMicrosecondType>()?;
            times.is_valid(0).then(|| times.value(0))
        };
        let micros = limit(1)
            .zip(limit(0))
            .map_or(0, |(last, first)| last.saturating_sub(first));
        let longest = SPAN_SECONDS[SPAN_SECONDS.len() - 1];
        let fits = |seconds: &i64| micros / 1_000_000 / seconds < SPANS_MAX;
        Ok(SPAN_SECONDS.into_iter().find(fits).unwrap_or(longest))
    }

    async fn count_by_time(&self) -> Result<Vec<Span>, Problem> {
        let (seconds, source) = (self.span_seconds().await?, self.source());
        let text = format!(
            "SELECT span, count(*) AS n, count(*) FILTER (WHERE changed) AS c, \
             count(*) FILTER (WHERE new_null) AS nn, count(*) FILTER (WHERE old_null) AS vn, \
             count(*) FILTER (WHERE new_error) AS ne, count(*) FILTER (WHERE old_error) AS ve \
             FROM (SELECT date_bin(INTERVAL '{seconds} seconds', _time) AS span, {} AS changed, \
             a IS NOT NULL AND b IS NULL AS new_null, a IS NULL AND b IS NOT NULL AS old_null, \
             fa IS NULL AND fb IS NOT NULL AS new_error, fa IS NOT NULL AND fb IS NULL AS old_error \
             FROM ({source}) AS documents) AS compared GROUP BY span ORDER BY span",
            self.changed
        );
        let mut spans = Vec::new();
        for batch in self.documents.query(&text, self.condition).await? {
            let times = micros(batch.column(0))?;
            let times = times.as_primitive_opt::<TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                let time = times.filter(|times| times.is_valid(row)).map(|times| times.value(row));
                let time = time.and_then(DateTime::from_timestamp_micros);
                let count = |column: &ArrayRef| {
                    let counts = column.as_primitive_opt::<Int64Type>();
                    counts.map_or(0, |counts| counts.value(row))
                };
                spans.push(Span {
                    from: time.map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true)),
                    counts: batch.columns()[1..].iter().map(count).collect(),
                });
            }
        }
        Ok(spans)
    }

    /// Examples of documents whose value changes.
    async fn pairs(&self) -> Result<Vec<Value>, Problem> {
        let text = format!(
            "SELECT _id, {}, {}, fa, fb, {} FROM ({}) AS documents \
             WHERE {} OR (fa IS NULL) <> (fb IS NULL) LIMIT {PAIRS_MAX}",
            shown("to_json(a)", "a"),
            shown("to_json(b)", "b"),
            shown("_doc", "document"),
            self.source(),
            self.changed
        );
        let mut pairs = Vec::new();
        for batch in self.documents.query(&text, self.condition).await? {
            for row in text_rows(&batch)? {
                let [id, before, after, failed_before, failed_after, document] = row.as_slice() else {
                    continue;
                };
                let note = match (failed_before, failed_after) {
                    (None, Some(reason)) => Some(format!("new error: {reason}")),
                    (Some(reason), None) => Some(format!("vanished error: {reason}")),
                    _ => None,
                };
                pairs.push(json!({
                    "part": "pair", "name": id, "before": before, "after": after, "note": note, "document": document,
                }));
            }
        }
        Ok(pairs)
    }
}

/// A column of times in microseconds.
fn micros(times: &ArrayRef) -> Result<ArrayRef, Problem> {
    cast(times, &Type::Time.arrow()).map_err(|e| failure::problem(e.into()))
}

/// The row of a total. That of a sample says what it means for all documents.
fn total_row(name: &str, count: i64, sample: Option<f64>) -> Value {
    let note = sample.map(|percent| {
        // 95 % of the samples are within two standard deviations; without the part that was not read, there are none.
        let (scale, count) = (100.0 / percent, count as f64);
        let error = 1.96 * (count.max(1.0) * (1.0 - percent / 100.0)).sqrt();
        format!("in all documents about {:.0} ± {:.0}", count * scale, error * scale)
    });
    json!({ "part": "total", "name": name, "rows": count, "note": note })
}

/// What follows a tag of the definition, so that its meaning moves with it.
async fn followers(context: &QueryContext, catalog: &Arc<Catalog>, id: &DefinitionId) -> Result<Vec<Value>, Problem> {
    let mut followers = users_of(catalog, id);
    let unrecorded = unrecorded_users(context, catalog, id).await?.into_iter();
    let follow_tags = unrecorded.filter(|(_, used)| matches!(used.version, VersionRef::Tag(_)));
    followers.extend(follow_tags.map(|(user, _)| user));
    let row = |(user, version): Pinned<'_>| json!({ "part": "follows", "name": format!("{user}@{}", version.number) });
    Ok(followers.into_iter().map(row).collect())
}
