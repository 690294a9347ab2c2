//! Raw tantivy: an index within a process of this binary (`tantivy_worker.rs`), the limit for searches.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use tempfile::TempDir;
use tokio::process::Command;

use super::{Loaded, System, TimedRows, line_child::LineChild, tantivy_worker::WorkerRequest};
use crate::{documents::DocumentFile, question::Question};

/// A running worker. It is dropped before its folder.
pub(crate) struct RawTantivy {
    child: LineChild,
    folder: TempDir,
}

impl RawTantivy {
    /// Starts a worker with an empty index.
    pub(crate) fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("benches-tantivy-").tempdir()?;
        let index = folder.path().join("index");
        std::fs::create_dir(&index)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("tantivy-worker").arg(index);
        Ok(Self {
            child: LineChild::start("tantivy", &mut command, &folder.path().join("log"))?,
            folder,
        })
    }
}

#[async_trait(?Send)]
impl System for RawTantivy {
    fn process_id(&self) -> u32 {
        self.child.process_id()
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    async fn load(&mut self, documents: &DocumentFile) -> Result<Loaded> {
        let file = documents.path().to_owned();
        self.child.load(&WorkerRequest::Load { file }, documents).await
    }

    async fn ask(&self, question: &Question) -> Result<TimedRows> {
        let search = question.tantivy.as_ref().context("no text for tantivy")?;
        let request = WorkerRequest::Search {
            query: search.query.to_owned(),
            documents_max: search.documents_max,
        };
        let rows = self.child.ask(&request).await?;
        Ok(TimedRows {
            index_time: Some(rows.time),
            ..rows
        })
    }
}
