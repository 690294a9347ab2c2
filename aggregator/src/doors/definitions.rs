//! Applies a file of definitions, for HTTP and gRPC.

use std::sync::Arc;

use futures::StreamExt as _;
use proto::{Code, Problem};

use crate::{
    answer::SqlQuery,
    definition_file::{DefinitionFile, Step},
    query::Engine,
};

/// Changes the definitions to what a file says, one after another. If a change is refused, those before it stay. With
/// `dry_run`, it only returns what would change.
pub(super) async fn apply(
    engine: &Arc<Engine>,
    file: String,
    author: Option<String>,
    dry_run: bool,
) -> Result<Vec<Step>, Problem> {
    let catalog = engine.catalog();
    // A large file takes a while.
    let planned = tokio::task::spawn_blocking(move || DefinitionFile::parse(&file)?.steps(&catalog));
    let steps = planned
        .await
        .map_err(|e| Problem::new(Code::Internal, e.to_string()))??;
    if dry_run {
        return Ok(steps);
    }
    for (done, step) in steps.iter().enumerate() {
        let query = SqlQuery {
            sql: step.statement.clone(),
            author: author.clone(),
            ..SqlQuery::default()
        };
        run(engine, query).await.map_err(|mut problem| {
            problem.at = None;
            problem.detail = format!(
                "{} ({}) was refused after {done} of {} changes: {}",
                step.definition,
                step.action,
                steps.len(),
                problem.detail
            );
            problem
        })?;
    }
    Ok(steps)
}

/// Runs a statement to its end.
async fn run(engine: &Arc<Engine>, query: SqlQuery) -> Result<(), Problem> {
    let mut answer = engine.query(query).await?;
    while let Some(chunk) = answer.chunks.next().await {
        chunk?;
    }
    Ok(())
}
