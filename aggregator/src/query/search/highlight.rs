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
    Searched,
    path_list::split_outside,
    statement::{INPUT, input_path},
    summary::{Matches, defined_steps},
};
use crate::answer::{Highlight, Hit};

/// The paths that a request may name, at most.
const PATHS_MAX: usize = 100;
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
        let is_defined = |path: &Path| match matches.searched {
            Searched::Collection(name) => defined_steps(matches, name, path).is_some(),
            Searched::View(_) => false,
        };
        let mut defined: Vec<&Path> = tests
            .iter()
            .filter_map(|(path, _)| path.as_ref())
            .filter(|path| is_defined(path))
            .collect();
        defined.sort_unstable();
        defined.dedup();
        if let Some(paths) = &self.paths {
            defined.retain(|path| paths.iter().any(|wanted| path.steps().starts_with(wanted.steps())));
        }
        let stored = tests.iter().filter(|(path, _)| !path.as_ref().is_some_and(is_defined));
        let highlighter = Highlighter::new(stored.map(|(path, test)| (path.clone(), *test)));
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
            hit.highlights = found.into_iter().flatten().map(highlight).collect();
        }
        if !(defined.is_empty() || hits.is_empty()) {
            add_defined(matches, &defined, hits).await?;
        }
        Ok(())
    }
}

fn highlight(found: HighlightedPath) -> Highlight {
    let is_document = found.path.steps().is_empty();
    Highlight {
        path: if is_document {
            "_doc".to_owned()
        } else {
            found.path.to_string()
        },
        fragments: found.fragments,
    }
}

/// Adds marks to the values of fields and parsers.
async fn add_defined(matches: &Matches<'_>, paths: &[&Path], hits: &mut [Hit]) -> Result<(), Problem> {
    let mut by_address: HashMap<Address, &mut Hit> = hits
        .iter_mut()
        .filter_map(|hit| Some((comparable(hit.address.parse().ok()?), hit)))
        .collect();
    let ids: Vec<String> = by_address
        .values()
        .map(|hit| format!("'{}'", hit.id.replace('\'', "''")))
        .collect();
    let marked: Vec<String> = paths
        .iter()
        .map(|path| format!("highlight({})", input_path(path)))
        .collect();
    let rows = matches
        .rows(&format!(
            "SELECT {INPUT}._source, {INPUT}._partition, {INPUT}._offset, {INPUT}._item, {} {} AND {INPUT}._id IN ({})",
            marked.join(", "),
            matches.input_sql(),
            ids.join(", ")
        ))
        .await?;
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
        for (number, path) in paths.iter().enumerate() {
            let texts = rows.column(4 + number).as_string_view();
            if texts.is_valid(row) && texts.value(row).contains("<em>") {
                let fragments = vec![texts.value(row).to_owned()];
                hit.highlights.push(Highlight {
                    path: path.to_string(),
                    fragments,
                });
            }
        }
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
