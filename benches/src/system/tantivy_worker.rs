//! The worker behind `tantivy.rs`: builds one tantivy index and searches it, one line of JSON after the other.
//!
//! The index is what tantivy offers without further work: one JSON field in which every path is indexed with positions
//! and has a column, the document's text in the document store, and a column to sort by time.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tantivy::{
    Index, IndexWriter, Order, Searcher, TantivyDocument,
    collector::{Count, TopDocs},
    merge_policy::NoMergePolicy,
    query::QueryParser,
    schema::{
        FAST, Field, IndexRecordOption, JsonObjectOptions, OwnedValue, Schema, TextFieldIndexing, TextOptions,
        Value as _,
    },
};

use super::line_child::LineResponse;

/// Threads that index, and the memory of all of them in bytes.
const INDEX_THREADS: usize = 2;
const INDEX_BYTES_MAX: usize = 1 << 30;
/// The name of the column to sort by.
const NEWEST: &str = "newest";

/// What the worker can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WorkerRequest {
    /// Index all documents of a file.
    Load { file: PathBuf },
    /// Count the matches, or return the newest so many documents if `documents_max` is not 0.
    Search { query: String, documents_max: usize },
}

struct TantivyIndex {
    index: Index,
    data: Field,
    newest: Field,
    text: Field,
    searcher: Searcher,
}

/// Answers requests on standard input until it ends, with an index in this empty folder.
pub(crate) fn serve(folder: &Path) -> Result<()> {
    let mut index = TantivyIndex::create(folder)?;
    for line in io::stdin().lock().lines() {
        let response = index.respond(&line?).unwrap_or_else(|error| LineResponse::Failed {
            error: format!("{error:#}"),
        });
        let mut out = io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&response)?)?;
        out.flush()?;
    }
    Ok(())
}

impl TantivyIndex {
    fn create(folder: &Path) -> Result<Self> {
        let indexing = TextFieldIndexing::default()
            .set_tokenizer("default")
            .set_index_option(IndexRecordOption::WithFreqsAndPositions);
        let options = JsonObjectOptions::default()
            .set_indexing_options(indexing)
            .set_fast("raw");
        let mut schema = Schema::builder();
        let data = schema.add_json_field("d", options);
        let newest = schema.add_u64_field(NEWEST, FAST);
        let text = schema.add_text_field("text", TextOptions::default().set_stored());
        let index = Index::create_in_dir(folder, schema.build())?;
        let searcher = index.reader()?.searcher();
        Ok(Self {
            index,
            data,
            newest,
            text,
            searcher,
        })
    }

    fn respond(&mut self, line: &str) -> Result<LineResponse> {
        match serde_json::from_str(line)? {
            WorkerRequest::Load { file } => self.load(&file),
            WorkerRequest::Search { query, documents_max } => self.search(&query, documents_max),
        }
    }

    /// Indexes the documents; the time ends with the commit. Then all segments are merged into one.
    fn load(&mut self, file: &Path) -> Result<LineResponse> {
        let started = Instant::now();
        let mut writer: IndexWriter = self.index.writer_with_num_threads(INDEX_THREADS, INDEX_BYTES_MAX)?;
        for line in BufReader::new(File::open(file)?).lines() {
            writer.add_document(self.document(&line?)?)?;
        }
        writer.commit()?;
        let seconds = started.elapsed().as_secs_f64();
        writer.wait_merging_threads()?;
        self.merge()?;
        self.searcher = self.index.reader()?.searcher();
        Ok(LineResponse::Loaded {
            seconds,
            documents: self.searcher.num_docs(),
        })
    }

    fn merge(&self) -> Result<()> {
        let segments = self.index.searchable_segment_ids()?;
        if segments.len() > 1 {
            let mut writer: IndexWriter = self.index.writer_with_num_threads(1, INDEX_BYTES_MAX)?;
            writer.set_merge_policy(Box::new(NoMergePolicy));
            writer.merge(&segments).wait()?;
            writer.wait_merging_threads()?;
        }
        Ok(())
    }

    fn document(&self, line: &str) -> Result<TantivyDocument> {
        let value: Value = serde_json::from_str(line).context("a document is not JSON")?;
        let mut document = TantivyDocument::default();
        document.add_u64(self.newest, sort_key(&value).context("a document has no time")?);
        document.add_field_value(self.data, &OwnedValue::from(value));
        document.add_text(self.text, line);
        Ok(document)
    }

    fn search(&self, query: &str, documents_max: usize) -> Result<LineResponse> {
        let started = Instant::now();
        let query = QueryParser::for_index(&self.index, vec![self.data]).parse_query(query)?;
        let mut rows = Vec::new();
        if documents_max == 0 {
            rows.push(vec![Value::from(self.searcher.search(&query, &Count)?)]);
        } else {
            let newest = TopDocs::with_limit(documents_max).order_by_u64_field(NEWEST, Order::Desc);
            for (_, address) in self.searcher.search(&query, &newest)? {
                let document: TantivyDocument = self.searcher.doc(address)?;
                let text = document.get_first(self.text).and_then(|value| value.as_str());
                rows.push(vec![Value::from(text.context("a document has no text")?)]);
            }
        }
        Ok(LineResponse::Rows {
            seconds: started.elapsed().as_secs_f64(),
            rows,
        })
    }
}

/// Orders documents by time: the microseconds of a Bluesky event, or the second and the id of a GitHub event.
fn sort_key(document: &Value) -> Option<u64> {
    if let Some(time_us) = document["time_us"].as_u64() {
        return Some(time_us);
    }
    let created = DateTime::parse_from_rfc3339(document["created_at"].as_str()?).ok()?;
    let id: u32 = document["id"].as_str()?.parse().ok()?;
    Some((u64::try_from(created.timestamp()).ok()? << 32) | u64::from(id))
}
