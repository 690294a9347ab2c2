//! `benches expression`: an expression over all history, as a field that is created after the documents came.

use anyhow::Result;
use clap::Args;

use super::{RunArgs, SuiteReport, SystemArgs, SystemName, ask_all};
use crate::{
    documents::{DocumentFile, DocumentSet},
    question::EXPRESSIONS,
};

/// What `benches expression` measures.
#[derive(Debug, Args)]
pub struct ExpressionArgs {
    /// Bluesky-like documents
    #[arg(long, default_value_t = 1_000_000)]
    documents: u64,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    runs: RunArgs,
    #[command(flatten)]
    systems: SystemArgs,
}

/// Asks for an expression over all documents.
pub async fn expression(arguments: &ExpressionArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("expression")?;
    let systems = [
        SystemName::Rachis,
        SystemName::VictoriaLogs,
        SystemName::Duckdb,
        SystemName::Chdb,
    ];
    let chosen = arguments.systems.chosen(&systems, &mut report)?;
    let documents = DocumentFile::generate(DocumentSet::Texts, arguments.documents, arguments.seed)?;
    ask_all(&chosen, &EXPRESSIONS, &documents, &arguments.runs, &mut report).await;
    report.finish(arguments.systems.json())
}
