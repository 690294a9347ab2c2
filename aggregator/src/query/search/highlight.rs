//! Marks what a search found in its hits.
//!
//! What a document has is marked in the document, what a field or a parser computes by a statement over the page.

use std::collections::HashMap;

use datafusion::arrow::{
    array::{Array as _, AsArray as _},
    datatypes::Int64Type,
};
use plan::{
    Path,
    matcher::{HighlightedPath, Highlighter, positive_clauses},
    search,
};
use proto::{
    Address, Code, Problem,
    json::{self, Value},
};

use super::{
    path_list::split_outside,
    statement::{INPUT, input_path},
    summary::Matches,
};
use crate::answer::{Highlight, Hit};

/// The paths that a request may name, at most.
const PATHS_MAX: usize = 100;
/// Hits whose fields one statement reads.
const IDS_AT_ONCE: usize = 500;
/// What a highlight takes beside its texts.
const HIGHLIGHT_BYTES: usize = 100;
/// After so many hits, other tasks may run.
const HITS_AT_ONCE: usize = 100;

/// Where to mark what was found.
pub(super) struct HighlightRequest {
    /// At or below these paths; None means everywhere.
    paths: Option<Vec<Path>>,
}

impl HighlightRequest {
    /// Parses `*`, which means everywhere, or a list of paths: `msg,user.name`.
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let bad = |detail: String| {
            Problem::new(Code::BadRequest, detail).hint("write highlight=true, or the paths: highlight=msg,user.name")
        };
        if text.trim() == "*" {
            return Ok(Self { paths: None });
        }
        let paths = split_outside(text, ',');
        let path = |text: &&str| match Path::parse(text.trim()) {
            Ok(path) if !path.steps().is_empty() => Ok(path),
            Ok(_) => Err(bad("highlight: a path is empty".to_owned())),
            Err(e) => Err(bad(format!("highlight: {e}"))),
        };
        if paths.len() > PATHS_MAX {
            return Err(bad(format!(
                "highlight: {} paths are too many: the limit is {PATHS_MAX}",
                paths.len()
            )));
        }
        let paths = paths.iter().map(path).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { paths: Some(paths) })
    }

    /// Adds marks to hits.
    pub(super) async fn add_to(&self, matches: &Matches<'_>, hits: &mut [Hit]) -> Result<(), Problem> {
        let (request, context) = (matches.search.request, matches.search.context);
        let search = search::parse(&request.query, context.now)?.expr;
        // A name that is no path was refused when the search was resolved.
        let tests = positive_clauses(&search).into_iter();
        let tests: Vec<_> = tests
            .map(|(name, test)| (name.and_then(|name| Path::parse(name).ok()), test))
            .collect();
        let is_defined = |path: &Path| matches.defined_steps(path).is_some();
        let (defined, stored): (Vec<_>, Vec<_>) = tests
            .into_iter()
            .partition(|(path, _)| path.as_ref().is_some_and(is_defined));
        let mut columns: Vec<Path> = defined.iter().filter_map(|(path, _)| path.clone()).collect();
        columns.sort_unstable();
        columns.dedup();
        if columns.len() > PATHS_MAX {
            let detail = format!(
                "highlight: the search names {} fields; the limit is {PATHS_MAX}",
                columns.len()
            );
            return Err(Problem::new(Code::LimitReached, detail).hint("name the paths to highlight"));
        }
        let highlighter = Highlighter::new(stored);
        for (number, hit) in hits.iter_mut().enumerate() {
            if number % HITS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            if let Some(why) = context.interrupted() {
                return Err(why);
            }
            let document = match hit.json {
                true => json::parse(hit.document.as_bytes()).ok(),
                false => Some(Value::Text(hit.document.as_str().into())),
            };
            let found = document.map(|document| highlighter.document(&document, self.paths.as_deref()));
            // A field hides what the document has there.
            let found = found.into_iter().flatten().filter(|found| !is_defined(&found.path));
            add(matches, hit, found)?;
        }
        if !(columns.is_empty() || hits.is_empty()) {
            self.add_defined(matches, &columns, &Highlighter::new(defined), hits)
                .await?;
        }
        Ok(())
    }

    /// Adds marks to the values of fields and parsers.
    async fn add_defined(
        &self,
        matches: &Matches<'_>,
        columns: &[Path],
        highlighter: &Highlighter,
        hits: &mut [Hit],
    ) -> Result<(), Problem> {
        let mut by_address: HashMap<Address, &mut Hit> = hits
            .iter_mut()
            .filter_map(|hit| Some((comparable(hit.address.parse().ok()?), hit)))
            .collect();
        let ids = by_address
            .values()
            .map(|hit| format!("'{}'", hit.id.replace('\'', "''")));
        let ids: Vec<String> = ids.collect();
        let values: Vec<String> = columns
            .iter()
            .map(|path| format!("to_jsonb({})", input_path(path)))
            .collect();
        let input = matches.input_sql();
        for ids in ids.chunks(IDS_AT_ONCE) {
            let sql = format!(
                "SELECT {INPUT}._source, {INPUT}._partition, {INPUT}._offset, {INPUT}._item, {} {input} AND {INPUT}._id IN ({})",
                values.join(", "),
                ids.join(", ")
            );
            let rows = matches.rows(&sql).await?;
            for row in 0..rows.num_rows() {
                let int = |column: usize| rows.column(column).as_primitive::<Int64Type>().value(row);
                let Ok(source) = rows.column(0).as_string_view().value(row).parse() else {
                    continue;
                };
                let address = Address {
                    source,
                    partition: int(1).try_into().unwrap_or_default(),
                    offset: int(2),
                    item: Some(int(3).try_into().unwrap_or_default()),
                };
                let Some(hit) = by_address.get_mut(&address) else {
                    continue;
                };
                for (number, path) in columns.iter().enumerate() {
                    let Some(texts) = rows.column(4 + number).as_string_opt::<i64>() else {
                        continue;
                    };
                    let value = texts
                        .is_valid(row)
                        .then(|| json::parse(texts.value(row).as_bytes()).ok())
                        .flatten();
                    let found = value.map(|value| highlighter.below(&value, path, self.paths.as_deref()));
                    add(matches, hit, found.into_iter().flatten())?;
                }
            }
        }
        Ok(())
    }
}

/// Adds what was found to a hit.
fn add(matches: &Matches<'_>, hit: &mut Hit, found: impl Iterator<Item = HighlightedPath>) -> Result<(), Problem> {
    for found in found {
        let path = match found.path.steps().is_empty() {
            true => "_doc".to_owned(),
            false => found.path.to_string(),
        };
        matches.take_bytes(HIGHLIGHT_BYTES + path.len() + found.fragments.iter().map(String::len).sum::<usize>())?;
        let fragments = found.fragments;
        hit.highlights.push(Highlight { path, fragments });
    }
    Ok(())
}

/// An address with its item number, which may be left out if it is 0.
fn comparable(address: Address) -> Address {
    Address {
        item: Some(address.item.unwrap_or_default()),
        ..address
    }
}
