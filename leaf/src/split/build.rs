//! Build: documents -> the columns, postings and shape of one part.
//!
//! Two passes: a survey of the paths, then the recording. A document that cannot be indexed is left out and noted in the shape; it is
//! answered from its bytes.

use std::{
    cell::Cell,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use proto::json::Value;
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
/// Documents that may be left out of a part before its build is given up.
const FAILED_DOCUMENTS_MAX: usize = 16;

/// A part that was built.
pub(super) struct Built {
    pub shape: Shape,
    pub runs: Vec<Run>,
    pub columns: ColumnarWriter,
    /// The files of the postings, if any path has some.
    pub text: Option<RamDirectory>,
}

/// Builds a part.
pub(super) fn build(documents: &[Arc<Document>]) -> Result<Built, Error> {
    let mut failed = BTreeSet::new();
    loop {
        let current = Cell::new(None);
        let attempt = catch_unwind(AssertUnwindSafe(|| attempt(documents, &failed, &current)));
        let reason = match attempt {
            Ok(Ok(built)) => return Ok(built),
            Ok(Err(error)) if current.get().is_none() => return Err(error),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic_text(&*panic),
        };
        let culprit = current.get().filter(|_| failed.len() < FAILED_DOCUMENTS_MAX);
        let Some(culprit) = culprit else {
            return Err(tantivy::TantivyError::InternalError(format!("an index could not be built: {reason}")).into());
        };
        tracing::warn!(address = %documents[culprit as usize].address, reason, "document left out of the index; it is answered from its bytes");
        failed.insert(culprit);
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".to_owned())
}

/// One attempt without the documents known to fail; `current` is the document at work.
fn attempt(documents: &[Arc<Document>], failed: &BTreeSet<u32>, current: &Cell<Option<u32>>) -> Result<Built, Error> {
    let bytes: usize = documents.iter().map(|document| document.bytes.len()).sum();
    let mut parsed = Vec::new();
    let mut survey = Survey::new();
    for (number, document) in (0..).zip(documents) {
        current.set(Some(number));
        let value = if failed.contains(&number) { None } else { parse(document) };
        if let Some(value) = &value {
            survey.document(number, value);
        }
        if bytes <= PARSED_BYTES_MAX {
            parsed.push(value);
        }
    }
    current.set(None);
    let mut recorder = Recorder::new(&survey, bytes)?;
    for (number, document) in (0..).zip(documents) {
        current.set(Some(number));
        let again = if bytes <= PARSED_BYTES_MAX || failed.contains(&number) { None } else { parse(document) };
        recorder.document(number, document, parsed.get(number as usize).unwrap_or(&again).as_ref())?;
    }
    current.set(None);
    let (shape, columns, text) = recorder.finish(documents.len() as u32)?;
    Ok(Built { shape, runs: header::runs(documents.iter().map(|document| &**document)), columns, text })
}

/// What is indexed of a document: its value or, of a text, the text itself.
fn parse(document: &Document) -> Option<Value<'_>> {
    if document.header.json { proto::json::parse(&document.bytes).ok() } else { Some(Value::Text(document.text().into())) }
}
