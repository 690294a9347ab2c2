//! Build: documents -> the columns, postings and path tree of one part.
//!
//! The first pass counts the paths (`path_stats.rs`), the second records the values (`recorder.rs`). The path tree
//! lists the documents that are excluded from the index; a query reads those from their bytes.

use std::sync::Arc;

use proto::json::Value;
use roaring::RoaringBitmap;
use tantivy::{columnar::ColumnarWriter, directory::RamDirectory};

use super::{
    header::{self, PartitionRun},
    path_stats::PathStats,
    path_tree::PathTree,
    recorder::Recorder,
};
use crate::{document::Document, error::Error};

/// Raw bytes up to which the parsed documents stay in memory between the passes. Above, the second pass parses them
/// again.
const PARSED_BYTES_MAX: usize = 4 << 20;

/// The contents of a part before they are serialized.
pub(super) struct PartData {
    pub paths: PathTree,
    pub runs: Vec<PartitionRun>,
    pub columns: ColumnarWriter,
    /// The files of the postings, if any path has postings.
    pub text: Option<RamDirectory>,
}

/// Builds a part. Of the `excluded` documents, only the headers are indexed.
pub(super) fn build(documents: &[Arc<Document>], excluded: &RoaringBitmap) -> Result<PartData, Error> {
    let bytes: usize = documents.iter().map(|document| document.bytes.len()).sum();
    let parse = |number: u32, document| {
        if excluded.contains(number) {
            None
        } else {
            indexed_value(document)
        }
    };
    let mut parsed = Vec::new();
    let mut stats = PathStats::default();
    for (number, document) in (0..).zip(documents) {
        let value = parse(number, document);
        if let Some(value) = &value {
            stats.document(number, value);
        }
        if bytes <= PARSED_BYTES_MAX {
            parsed.push(value);
        }
    }
    let mut recorder = Recorder::new(stats.nodes(), bytes)?;
    for (number, document) in (0..).zip(documents) {
        let parsed_again = if bytes <= PARSED_BYTES_MAX {
            None
        } else {
            parse(number, document)
        };
        recorder.document(
            number,
            document,
            parsed.get(number as usize).unwrap_or(&parsed_again).as_ref(),
        )?;
    }
    let (paths, columns, text) = recorder.finish(documents.len() as u32)?;
    Ok(PartData {
        paths,
        runs: header::runs(documents.iter().map(|document| &**document)),
        columns,
        text,
    })
}

/// The indexed value of a document: its JSON value, or its text if it is not JSON.
fn indexed_value(document: &Document) -> Option<Value<'_>> {
    if document.header.json {
        proto::json::parse(&document.bytes).ok()
    } else {
        Some(Value::Text(document.text().into()))
    }
}
