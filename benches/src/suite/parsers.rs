//! `benches parsers`: parts of log lines, by a parser that is created after the lines came.

use anyhow::Result;

use super::{GeneratedArgs, SuiteReport, SystemName, ask_all};
use crate::{documents::DocumentFile, question::LINES};

/// Asks for parts of log lines.
pub async fn parsers(arguments: &GeneratedArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("parsers")?;
    let systems = [
        SystemName::Rachis,
        SystemName::VictoriaLogs,
        SystemName::Duckdb,
        SystemName::Chdb,
    ];
    let chosen = arguments.systems.chosen(&systems, &mut report)?;
    let documents = DocumentFile::access_log(arguments.documents, arguments.seed)?;
    ask_all(&chosen, &LINES, &documents, &arguments.runs, &mut report).await;
    report.finish(arguments.systems.json())
}
