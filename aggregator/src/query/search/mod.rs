//! A search: a condition and the first documents, or rows of a view, by an order; a page at a time.
//!
//! ```text
//!   a collection by a column ─ top ─ every shard's first documents, merged
//!   by a field, and a view ─── statement ─ SELECT … WHERE search('…') ORDER BY …, planned as any other
//! ```

mod hit;
mod statement;
mod top;

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use plan::{
    Path,
    value::{time_of_int, time_of_text},
};
use proto::{Code, CollectionName, Problem};

use super::{Engine, context::QueryContext, no_collection, pins::Pins, world::PinnedWorld};
use crate::answer::{Hit, SearchAnswer, SearchQuestion, Stats};

/// Hits of a page that names no limit.
const HITS: usize = 20;
/// Hits of a page at most.
const HITS_MAX: usize = 10_000;

/// A search that is being answered, and the view that it is answered from.
struct Asked<'a> {
    engine: &'a Engine,
    context: &'a Arc<QueryContext>,
    question: &'a SearchQuestion,
    pins: &'a Pins,
    world: &'a PinnedWorld,
    sort: Sort,
    bounds: Bounds,
    limit: usize,
}

/// A page.
struct Found {
    hits: Vec<Hit>,
    total: u64,
    after: Option<String>,
}

/// Answers a search.
pub(super) async fn run(
    engine: &Engine,
    context: &Arc<QueryContext>,
    question: &SearchQuestion,
    started: Instant,
) -> Result<SearchAnswer, Problem> {
    let limit = question.limit.unwrap_or(HITS);
    if limit > HITS_MAX {
        return Err(Problem::new(Code::BadRequest, format!("a page of {limit} hits"))
            .hint(format!("a page holds {HITS_MAX} at most; `after` gives the next one")));
    }
    let (sort, bounds) = (Sort::read(question.sort.as_deref())?, Bounds::read(question)?);
    let name: CollectionName = question
        .collection
        .parse()
        .map_err(|e: proto::address::Malformed| Problem::new(Code::BadRequest, e.to_string()))?;
    let catalog = engine.catalog();
    let is_view = catalog.view(name.as_str()).is_some();
    let reads = match is_view {
        true => statement::reads(&name, &catalog)?,
        false if catalog.collections.contains_key(&name) => BTreeSet::from([name.clone()]),
        false => return Err(no_collection(&name, &catalog)),
    };
    let pins = Pins::take(context, &catalog, &reads, &question.how.at_least).await?;
    pins.complete_or(question.how.allow_partial)?;
    let world = PinnedWorld::new(catalog, &pins);
    let asked = Asked {
        engine,
        context,
        question,
        pins: &pins,
        world: &world,
        sort,
        bounds,
        limit,
    };
    let found = match is_view {
        true => statement::of_view(&asked, &name).await?,
        false => match top::run(&asked, &name).await? {
            Some(found) => found,
            None => statement::of_collection(&asked, &name).await?,
        },
    };
    let mut stats = Stats {
        query_id: Some(context.id),
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        ..Stats::default()
    };
    pins.fill(&mut stats);
    context.report.fill(&mut stats);
    Ok(SearchAnswer {
        hits: found.hits,
        total: found.total,
        after: found.after,
        stats,
    })
}

/// What hits are sorted by.
struct Sort {
    /// `_time`, a path, a field, a column of a view; None where nothing is said.
    name: Option<String>,
    /// `_time` is newest first unless something else is said, all others begin with the smallest.
    descending: bool,
}

impl Sort {
    fn read(said: Option<&str>) -> Result<Self, Problem> {
        let said = said.map(str::trim).filter(|sort| !sort.is_empty());
        let (name, descending) = match said.map(|said| said.rsplit_once(':').unwrap_or((said, ""))) {
            Some((name, "desc")) => (Some(name), true),
            Some((name, "asc")) => (Some(name), false),
            _ => (said, said.is_none_or(|said| said == "_time")),
        };
        match name {
            Some("_score") => {
                Err(Problem::new(Code::NotSupported, "hits have no score yet").hint("sort by _time or by a path"))
            }
            name => Ok(Self {
                name: name.map(str::to_owned),
                descending,
            }),
        }
    }
}

/// A name of what is sorted by, as a path.
fn sort_path(name: &str) -> Result<Path, Problem> {
    Path::parse(name)
        .map_err(|e| Problem::new(Code::BadRequest, format!("sort: {e}")).hint("write sort=user.name:desc"))
}

fn page_too_large() -> Problem {
    Problem::new(
        Code::LimitReached,
        "the hits of this page need more memory than a query may have",
    )
    .hint("ask for smaller pages with limit")
}

/// The time that hits are of, in microseconds since 1970.
#[derive(Clone, Copy)]
struct Bounds {
    /// The first.
    from: Option<i64>,
    /// The one after the last.
    to: Option<i64>,
}

impl Bounds {
    fn read(question: &SearchQuestion) -> Result<Self, Problem> {
        Ok(Self {
            from: question.from.as_deref().map(instant).transpose()?,
            to: question.to.as_deref().map(instant).transpose()?,
        })
    }
}

/// Microseconds since 1970: a time as statements and documents spell it, or a number of seconds, milli-, micro- or
/// nanoseconds by its size.
fn instant(text: &str) -> Result<i64, Problem> {
    let text = text.trim();
    text.parse()
        .ok()
        .and_then(time_of_int)
        .or_else(|| time_of_text(text))
        .ok_or_else(|| {
            let shown: String = text.chars().take(100).collect();
            Problem::new(Code::BadRequest, format!("{shown:?} is not a time"))
                .hint("write 2026-01-31T10:00:00Z, 2026-01-31, or a number of seconds or milliseconds since 1970")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for text in [
            "2026-01-31T10:00:00Z",
            "2026-01-31T11:00:00+01:00",
            "2026-01-31 10:00:00",
            "2026-01-31T10:00:00.0",
            "1769853600",
            "1769853600000",
            "1769853600000000",
            "1769853600000000000",
        ] {
            assert_eq!(instant(text), Ok(1_769_853_600_000_000), "{text}");
        }
        assert_eq!(instant("2026-01-31"), Ok(1_769_817_600_000_000));
        for text in ["", "yesterday", "2026-13-01", "1e9"] {
            assert_eq!(instant(text).map_err(|p| p.code), Err(Code::BadRequest), "{text}");
        }
    }
}
