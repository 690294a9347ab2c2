//! DuckDB and chdb, each within a Python process (`rivals/databases.py`), questions in SQL.

use std::path::{Path, PathBuf};

use anyhow::Result;
use async_trait::async_trait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::{Loaded, System, SystemName, TimedRows, line_child::LineChild};
use crate::{
    documents::{DocumentFile, DocumentSet},
    question::Question,
    rivals,
};

/// A running process. It is dropped before its folder.
pub(crate) struct PythonDatabase {
    child: LineChild,
    folder: TempDir,
    system: SystemName,
}

impl PythonDatabase {
    /// Starts DuckDB or chdb.
    pub(crate) fn start(system: SystemName) -> Result<Self> {
        let name = system.as_str();
        let folder = tempfile::Builder::new().prefix(&format!("benches-{name}-")).tempdir()?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        let mut command = Command::new(rivals::python(system)?);
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("rivals/databases.py"))
            .arg(name)
            .arg(data);
        Ok(Self {
            child: LineChild::start(name, &mut command, &folder.path().join("log"))?,
            folder,
            system,
        })
    }
}

/// The types of columns that DuckDB would not infer from JSON, or not so that its functions take them.
fn duckdb_types(set: DocumentSet) -> Value {
    match set {
        DocumentSet::Bluesky | DocumentSet::Texts | DocumentSet::Giant => json!({ "time_us": "BIGINT" }),
        DocumentSet::Gh => json!({ "created_at": "TIMESTAMP" }),
        DocumentSet::Lines => json!({ "time": "TIMESTAMP" }),
    }
}

/// Settings of chdb's table that are not the default.
fn chdb_settings(set: DocumentSet) -> &'static str {
    match set {
        DocumentSet::Bluesky | DocumentSet::Texts | DocumentSet::Giant | DocumentSet::Lines => "",
        // A part that is not compact has about 7,500 files for 654 paths. While several are written or merged, they are
        // more than a process may have open on many machines.
        DocumentSet::Gh => "settings min_bytes_for_wide_part = '100G'",
    }
}

#[async_trait(?Send)]
impl System for PythonDatabase {
    fn process_id(&self) -> u32 {
        self.child.process_id()
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    async fn load(&mut self, documents: &DocumentFile) -> Result<Loaded> {
        let request = json!({ "load": {
            "file": documents.path(),
            "table": documents.set.name(),
            "types": duckdb_types(documents.set),
            "settings": chdb_settings(documents.set),
            "text": documents.set == DocumentSet::Texts,
        }});
        self.child.load(&request, documents).await
    }

    async fn ask(&self, question: &Question) -> Result<TimedRows> {
        let sql = match self.system {
            SystemName::Duckdb => question.duckdb,
            _ => question.chdb,
        };
        self.child.ask(&json!({ "sql": sql })).await
    }
}
