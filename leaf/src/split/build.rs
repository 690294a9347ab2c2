//! Build: documents -> the columns, postings and path tree of one part.
//!
//! One pass over the documents records everything (`recorder.rs`). Only if the documents have more paths than a part
//! tracks, a pass before that chooses the paths (`path_stats.rs`). The path tree lists the documents that are excluded
//! from the index; a query reads those from their bytes.

use std::sync::Arc;

use proto::json::Value;
use roaring::RoaringBitmap;

use super::{
    header::{self, PartitionRun},
    path_stats::PathStats,
    recorder::{RecordedPart, Recorder},
};
use crate::{document::Document, error::Error};

/// Builds a part. Of the `excluded` documents, only the headers are indexed.
pub(super) fn build(
    documents: &[Arc<Document>],
    excluded: &RoaringBitmap,
) -> Result<(RecordedPart, Vec<PartitionRun>), Error> {
    let values = || {
        (0..).zip(documents).map(|(number, document)| {
            let value = (!excluded.contains(number)).then(|| indexed_value(document));
            (document, value.flatten())
        })
    };
    let mut recorder = Recorder::new();
    let all_tracked = values().all(|(document, value)| recorder.document(document, value.as_ref()));
    if !all_tracked {
        let mut stats = PathStats::default();
        for ((_, value), number) in values().zip(0..) {
            value.iter().for_each(|value| stats.document(number, value));
        }
        recorder = Recorder::of_paths(stats.into_paths());
        values().for_each(|(document, value)| {
            recorder.document(document, value.as_ref());
        });
    }
    let runs = header::runs(documents.iter().map(|document| &**document));
    Ok((recorder.finish()?, runs))
}

/// The indexed value of a document: its JSON value, or its text if it is not JSON.
fn indexed_value(document: &Document) -> Option<Value<'_>> {
    if document.header.json {
        proto::json::parse(&document.bytes).ok()
    } else {
        Some(Value::Text(document.text().into()))
    }
}

#[cfg(test)]
mod tests;
