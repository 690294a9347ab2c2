//! `benches expression`: an expression over all history, as a field that is created after the documents came.

use anyhow::Result;

use super::{GeneratedArgs, SuiteReport, SystemName, ask_all};
use crate::{
    documents::{DocumentFile, DocumentSet},
    question::EXPRESSIONS,
};

/// Asks for an expression over all documents.
pub async fn expression(arguments: &GeneratedArgs) -> Result<SuiteReport> {
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
