//! A question of a suite: its text for every system, in one place.

mod expression;
mod github;
mod jsonbench;
mod lines;
mod searches;

pub(crate) use expression::{EXPRESSIONS, FIELDS, SELECTIVE, UNSELECTIVE};
pub(crate) use github::GITHUB;
pub(crate) use jsonbench::JSONBENCH;
pub(crate) use lines::{LINES, PARSER};
pub(crate) use searches::SEARCHES;

use crate::{answer::AnswerKind, system::SystemName};

/// A question. The collection, table or index is called like the set of documents. A system without a text is not
/// asked.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) name: &'static str,
    pub(crate) answer: AnswerKind,
    /// SQL; for a search, the JSON body.
    pub(crate) rachis: &'static str,
    /// SQL over typed columns and the column `json`, the whole document.
    pub(crate) duckdb: &'static str,
    /// SQL over the column `data` of type JSON.
    pub(crate) chdb: &'static str,
    pub(crate) victoria_logs: LogsQl,
    pub(crate) open_search: Option<QueryDsl>,
    pub(crate) tantivy: Option<TantivySearch>,
}

impl Question {
    /// Whether there is a text for this system.
    pub(crate) fn is_for(&self, system: SystemName) -> bool {
        match system {
            SystemName::OpenSearch => self.open_search.is_some(),
            SystemName::Tantivy => self.tantivy.is_some(),
            SystemName::Rachis
            | SystemName::RachisWithCache
            | SystemName::Duckdb
            | SystemName::Chdb
            | SystemName::VictoriaLogs => true,
        }
    }

    /// Whether this system answers with an estimate.
    pub(crate) fn is_estimate(&self, system: SystemName) -> bool {
        system == SystemName::OpenSearch && self.open_search.as_ref().is_some_and(|dsl| dsl.estimate)
    }
}

/// A query of VictoriaLogs.
#[derive(Debug)]
pub(crate) struct LogsQl {
    pub(crate) query: &'static str,
    /// The fields of a row, in order; not used for documents.
    pub(crate) columns: &'static [&'static str],
}

/// A search of OpenSearch.
#[derive(Debug)]
pub(crate) struct QueryDsl {
    /// The JSON body.
    pub(crate) body: &'static str,
    /// Whether the answer is an estimate.
    pub(crate) estimate: bool,
}

/// A search of the raw tantivy index, in the language of tantivy's query parser; paths begin with `d.`.
#[derive(Debug)]
pub(crate) struct TantivySearch {
    pub(crate) query: &'static str,
    /// The newest so many documents are returned; if 0, the number of matches.
    pub(crate) documents_max: usize,
}
