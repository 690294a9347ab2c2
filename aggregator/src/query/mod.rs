//! How a statement is computed from the leaves, within its limits.

use std::sync::Arc;

use proto::{Code, Problem};

use crate::{
    AggregatorOptions, Roles,
    answer::{Answer, Question, SearchAnswer, SearchQuestion},
};

/// The engine: admits, plans, runs.
pub struct Engine {
    /// Whom it asks.
    pub roles: Roles,
    /// Its limits.
    pub options: AggregatorOptions,
}

impl Engine {
    /// An engine with its own runtime for queries.
    pub fn new(roles: Roles, options: AggregatorOptions) -> Result<Arc<Self>, Problem> {
        Ok(Arc::new(Self { roles, options }))
    }

    /// Answers a SQL question.
    pub async fn ask(self: &Arc<Self>, question: Question) -> Result<Answer, Problem> {
        let _ = question;
        Err(Problem::new(Code::NotSupported, "SQL is not there yet"))
    }

    /// Answers a search.
    pub async fn search(self: &Arc<Self>, question: SearchQuestion) -> Result<SearchAnswer, Problem> {
        let _ = question;
        Err(Problem::new(Code::NotSupported, "search is not there yet"))
    }
}
