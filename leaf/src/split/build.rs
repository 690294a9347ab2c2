//! Build: documents -> the columns, postings and shape of one part.
//!
//! Two passes: a survey of the paths, then the recording. A document that is left out is noted in the shape; it is
//! answered from its bytes.

use std::sync::Arc;

use proto::json::Value;
use roaring::RoaringBitmap;
use tantivy::{columnar::ColumnarWriter, directory::RamDirectory};

use super::{
    header::{self, Run},
    record::Recorder,
    shape::Shape,
    survey::Survey,
};
use crate::{document::Document, error::Error};

/// Raw bytes up to which documents are kept parsed between the passes; above, they are parsed again.
const PARSED_BYTES_MAX: usize = 4 << 20;

/// A part that was built.
pub(super) struct Built {
    pub shape: Shape,
    pub runs: Vec<Run>,
    pub columns: ColumnarWriter,
    /// The files of the postings, if any path has some.
    pub text: Option<RamDirectory>,
}

/// Builds a part. Nothing is indexed of the documents that are left out; they stand in it with their headers.
pub(super) fn build(documents: &[Arc<Document>], left_out: &RoaringBitmap) -> Result<Built, Error> {
    let bytes: usize = documents.iter().map(|document| document.bytes.len()).sum();
    let read = |number: u32, document| {
        if left_out.contains(number) {
            None
        } else {
            parse(document)
        }
    };
    let mut parsed = Vec::new();
    let mut survey = Survey::new();
    for (number, document) in (0..).zip(documents) {
        let value = read(number, document);
        if let Some(value) = &value {
            survey.document(number, value);
        }
        if bytes <= PARSED_BYTES_MAX {
            parsed.push(value);
        }
    }
    let mut recorder = Recorder::new(&survey, bytes)?;
    for (number, document) in (0..).zip(documents) {
        let again = if bytes <= PARSED_BYTES_MAX {
            None
        } else {
            read(number, document)
        };
        recorder.document(number, document, parsed.get(number as usize).unwrap_or(&again).as_ref())?;
    }
    let (shape, columns, text) = recorder.finish(documents.len() as u32)?;
    Ok(Built {
        shape,
        runs: header::runs(documents.iter().map(|document| &**document)),
        columns,
        text,
    })
}

/// What is indexed of a document: its value or, of a text, the text itself.
fn parse(document: &Document) -> Option<Value<'_>> {
    if document.header.json {
        proto::json::parse(&document.bytes).ok()
    } else {
        Some(Value::Text(document.text().into()))
    }
}
