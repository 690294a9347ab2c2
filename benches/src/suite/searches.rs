//! `benches searches`: searches with scores, facets and histograms.

use anyhow::Result;

use super::{GhArgs, SuiteReport, SystemName, ask_in_turns};
use crate::{documents::DocumentFile, question::SEARCHES};

/// Searches GitHub events as somebody who explores them.
pub async fn searches(arguments: &GhArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("searches")?;
    let systems = [SystemName::Rachis, SystemName::OpenSearch];
    let chosen = arguments.systems.chosen(&systems, &mut report)?;
    let documents = DocumentFile::gh(arguments.copies)?;
    ask_in_turns(&chosen, &SEARCHES, &documents, &arguments.runs, &mut report).await;
    report.finish(arguments.systems.json())
}
