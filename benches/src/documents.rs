//! The documents of the suites: files of JSON lines, the same bytes for every system.

use std::{
    fmt::Write as _,
    fs::File,
    future::Future,
    io::{self, BufRead as _, BufReader, BufWriter, Lines, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use tempfile::NamedTempFile;
use tests::{Kafka, kafka::NewRecord};

use crate::{access_log::AccessLog, bluesky::Bluesky, github};

/// Lines are collected until a body has at least this many bytes.
const BODY_BYTES: usize = 4 << 20;
/// Bodies that are sent at once.
const BODIES_MAX: usize = 4;
/// Records that are produced at once.
const PRODUCED_RECORDS: usize = 50_000;

/// Keys of a giant document.
const GIANT_KEYS: u64 = 100_000;

/// The sets of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DocumentSet {
    /// Generated events like those of JSONBench.
    Bluesky,
    /// Real GitHub events, copied.
    Gh,
    /// Bluesky-like events of which chdb keeps nothing but the text.
    Texts,
    /// Bluesky-like events among which are documents with 100,000 keys.
    Giant,
    /// Generated lines of an access log.
    Lines,
}

impl DocumentSet {
    /// Its name, which is also that of the collection, table or index.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bluesky => "bluesky",
            Self::Gh => "gh",
            Self::Texts => "texts",
            Self::Giant => "giant",
            Self::Lines => "lines",
        }
    }
}

/// A temporary file with one document a line.
pub(crate) struct DocumentFile {
    pub(crate) set: DocumentSet,
    /// The number of documents.
    pub(crate) documents: u64,
    /// The bytes of all documents, without line breaks.
    pub(crate) bytes: u64,
    file: NamedTempFile,
}

impl DocumentFile {
    /// Generates Bluesky-like documents.
    pub(crate) fn bluesky(documents: u64, seed: u64) -> Result<Self> {
        Self::generate(DocumentSet::Bluesky, documents, seed)
    }

    /// Generates Bluesky-like documents as a set.
    pub(crate) fn generate(set: DocumentSet, documents: u64, seed: u64) -> Result<Self> {
        let bluesky = Bluesky::new(seed);
        Self::write(set, documents, |i, out| {
            bluesky.document(i, out);
            Ok(())
        })
    }

    /// Generates Bluesky-like documents; each `every`th is a giant instead.
    pub(crate) fn giants(documents: u64, every: u64, seed: u64) -> Result<Self> {
        let bluesky = Bluesky::new(seed);
        Self::write(DocumentSet::Giant, documents, |i, out| {
            if i % every == every / 2 {
                write_giant(i, out)?;
            } else {
                bluesky.document(i, out);
            }
            Ok(())
        })
    }

    /// Generates lines of an access log.
    pub(crate) fn access_log(documents: u64, seed: u64) -> Result<Self> {
        let log = AccessLog::new(seed);
        Self::write(DocumentSet::Lines, documents, |i, out| {
            log.document(i, out);
            Ok(())
        })
    }

    /// Copies the GitHub events so many times.
    pub(crate) fn gh(copies: u64) -> Result<Self> {
        let events = tests::data::documents(github::FILE)?;
        let count = events.len() as u64;
        Self::write(DocumentSet::Gh, count * copies, |i, out| {
            github::write_copy(&events[(i % count) as usize], i / count, out)
        })
    }

    fn write(set: DocumentSet, documents: u64, append: impl Fn(u64, &mut String) -> Result<()>) -> Result<Self> {
        eprintln!("{}: writing {documents} documents", set.name());
        let file = NamedTempFile::new().context("cannot create a file for the documents")?;
        let (mut lines, mut line, mut bytes) = (BufWriter::new(file.as_file()), String::new(), 0);
        for i in 0..documents {
            line.clear();
            append(i, &mut line)?;
            bytes += line.len() as u64;
            line.push('\n');
            lines.write_all(line.as_bytes())?;
        }
        lines.flush()?;
        drop(lines);
        Ok(Self {
            set,
            documents,
            bytes,
            file,
        })
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Its lines.
    pub(crate) fn lines(&self) -> Result<Lines<BufReader<File>>> {
        Ok(BufReader::new(File::open(self.path())?).lines())
    }

    fn bodies(&self) -> Result<Bodies> {
        Ok(Bodies(BufReader::new(File::open(self.path())?)))
    }

    /// Sends all documents in bodies of whole lines, several at once, and waits until all are acknowledged.
    pub(crate) async fn send<F>(&self, send: impl Fn(Vec<u8>) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let sent = |body: io::Result<Vec<u8>>| {
            let acknowledged = body.map(&send);
            async move {
                acknowledged?.await?;
                anyhow::Ok(())
            }
        };
        stream::iter(self.bodies()?)
            .map(sent)
            .buffer_unordered(BODIES_MAX)
            .try_collect()
            .await
    }

    /// Produces all documents to a new topic of the set's name.
    pub(crate) async fn produce(&self, kafka: &Kafka, partitions: i32) -> Result<()> {
        let topic = self.set.name();
        kafka.create_topic(topic, partitions, &[]).await;
        let mut lines = self.lines()?;
        let mut next_partition = (0..partitions).cycle();
        loop {
            let mut records = Vec::with_capacity(PRODUCED_RECORDS);
            for line in lines.by_ref().take(PRODUCED_RECORDS) {
                records.push(NewRecord {
                    partition: next_partition.next(),
                    ..NewRecord::value(line?)
                });
            }
            if records.is_empty() {
                return Ok(());
            }
            kafka.produce(topic, records).await;
        }
    }
}

/// Appends a document with many keys and numbers, texts and booleans as values.
fn write_giant(number: u64, out: &mut String) -> Result<()> {
    write!(
        out,
        "{{\"kind\":\"giant\",\"time_us\":1732206349000000,\"number\":{number}"
    )?;
    for key in 3..GIANT_KEYS {
        match key % 3 {
            0 => write!(out, ",\"key{key}\":{}", key + number)?,
            1 => write!(out, ",\"key{key}\":\"v{number}\"")?,
            _ => write!(out, ",\"key{key}\":true")?,
        }
    }
    out.push('}');
    Ok(())
}

/// Whole lines of a file, in bodies of [`BODY_BYTES`] and a little more.
struct Bodies(BufReader<File>);

impl Iterator for Bodies {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut body = Vec::with_capacity(BODY_BYTES + BODY_BYTES / 8);
        while body.len() < BODY_BYTES {
            match self.0.read_until(b'\n', &mut body) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        (!body.is_empty()).then_some(Ok(body))
    }
}
