//! Our writers against tantivy's own: the same values give the same columns and the same bytes of postings.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use proto::Address;
use tantivy::{
    Index, IndexSettings, SingleSegmentIndexWriter, TantivyDocument,
    columnar::{Cardinality, ColumnType, ColumnarReader, ColumnarWriter, DynamicColumn},
    directory::RamDirectory,
    index::SegmentComponent,
    schema::OwnedValue,
    tokenizer::{Token, TokenStream, Tokenizer, TokenizerManager},
};
use xxhash_rust::xxh3::Xxh3;

use super::*;
use crate::{
    document::Header,
    key_tree::ROOT,
    split::{
        column_name::{ColumnKind, ColumnName},
        path_tree::PathTree,
        text::schema,
    },
    tests::made_up,
};

/// Tokens as tantivy takes them.
#[derive(Clone, Default)]
struct Words;

impl Tokenizer for Words {
    type TokenStream<'a> = WordsStream;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordsStream {
        let token = |(position, text): (usize, _)| Token {
            position,
            text,
            ..Token::default()
        };
        let texts = plan::token::tokens(text).map(std::borrow::Cow::into_owned);
        WordsStream {
            tokens: texts.enumerate().map(token).collect(),
            next: 0,
        }
    }
}

struct WordsStream {
    tokens: Vec<Token>,
    next: usize,
}

impl TokenStream for WordsStream {
    fn advance(&mut self) -> bool {
        self.next += 1;
        self.next <= self.tokens.len()
    }

    fn token(&self) -> &Token {
        &self.tokens[self.next - 1]
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.tokens[self.next - 1]
    }
}

/// A part as tantivy's writers write it.
struct Oracle<'a> {
    paths: &'a PathTree,
    columns: ColumnarWriter,
    writer: SingleSegmentIndexWriter,
    directory: RamDirectory,
    strings: Vec<(String, OwnedValue)>,
}

impl<'a> Oracle<'a> {
    fn new(paths: &'a PathTree) -> Self {
        let tokenizers = TokenizerManager::new();
        tokenizers.register("words", Words);
        let directory = RamDirectory::create();
        let writer = Index::builder()
            .schema(schema().0)
            .settings(IndexSettings::default())
            .tokenizers(tokenizers)
            .single_segment_index_writer(directory.clone(), 64 << 20)
            .expect("a writer");
        let mut columns = ColumnarWriter::default();
        for name in ["_offset", "_item", "_ingested", "_time"] {
            columns.record_column_type(name, ColumnType::I64, false);
        }
        columns.record_column_type("_id", ColumnType::Str, false);
        Self {
            paths,
            columns,
            writer,
            directory,
            strings: Vec::new(),
        }
    }

    fn document(&mut self, number: u32, document: &Document) {
        let Document { address, header, .. } = document;
        self.columns.record_numerical(number, "_offset", address.offset);
        if let Some(item) = address.item {
            self.columns.record_numerical(number, "_item", i64::from(item));
        }
        self.columns.record_numerical(number, "_ingested", header.ingested_ms);
        if header.time_kind != proto::record::TimeKind::None {
            self.columns.record_numerical(number, "_time", header.time_ms);
        }
        if let Some(id) = &header.id {
            self.columns.record_str(number, "_id", id);
        }
        if let Some(value) = indexed_value(document) {
            self.value(number, ROOT, &value, false);
        }
        let mut texts = TantivyDocument::default();
        if !self.strings.is_empty() {
            let strings = std::mem::take(&mut self.strings);
            texts.add_field_value(schema().1, &OwnedValue::Object(strings));
        }
        self.writer.add_document(texts).expect("a document");
    }

    fn value(&mut self, number: u32, at: u32, value: &Value, inside: bool) {
        let node = &self.paths.nodes[at];
        let name = |kind| ColumnName::new(at, kind, inside);
        let mut declare = |kind, column_type| {
            self.columns.record_column_type(name(kind).as_str(), column_type, false);
            name(kind)
        };
        match value {
            Value::Bool(value) if node.column => {
                let name = declare(ColumnKind::Bool, ColumnType::Bool);
                self.columns.record_bool(number, name.as_str(), *value);
            }
            Value::Int(value) if node.column => {
                let name = declare(ColumnKind::Int, ColumnType::I64);
                self.columns.record_numerical(number, name.as_str(), *value);
            }
            Value::Float(value) if node.column => {
                let name = declare(ColumnKind::Float, ColumnType::F64);
                self.columns.record_numerical(number, name.as_str(), *value);
            }
            Value::Text(text) if node.column => {
                if text.len() <= 256 {
                    self.columns.record_str(number, name(ColumnKind::Text).as_str(), text);
                }
                if node.postings {
                    self.strings.push((at.to_string(), OwnedValue::Str(text.to_string())));
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.value(number, at, item, true)),
            Value::Object(entries) => {
                for (key, value) in entries {
                    if let Some(child) = self.paths.nodes.child(at, key, &mut 0) {
                        self.value(number, child, value, inside);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The postings of the only segment: terms, documents and positions, without the footers, which hold checksums.
fn posting_files(directory: &RamDirectory) -> Vec<Vec<u8>> {
    let index = Index::open(directory.clone()).expect("an index");
    let segments = index.searchable_segments().expect("segments");
    assert_eq!(segments.len(), 1);
    let components = [
        SegmentComponent::Terms,
        SegmentComponent::Postings,
        SegmentComponent::Positions,
    ];
    components
        .map(|component| {
            let file = segments[0].open_read(component).expect("a file");
            file.read_bytes().expect("bytes").to_vec()
        })
        .to_vec()
}

/// The columns of a file: name, type and cardinality; a hash of the values of every document, and of the dictionary.
fn columns_of(file: Vec<u8>) -> Vec<(String, ColumnType, Cardinality, u64, u64)> {
    let columns = ColumnarReader::open(file).expect("a file of columns");
    let documents = columns.num_docs();
    let all = columns.list_columns().expect("columns").into_iter();
    all.map(|(name, handle)| {
        let (mut hash, mut dictionary) = (Xxh3::new(), Xxh3::new());
        if let DynamicColumn::Str(texts) = handle.open().expect("a column") {
            let mut stream = texts.dictionary().stream().expect("a dictionary");
            while stream.advance() {
                dictionary.update(stream.key());
                dictionary.update(&stream.term_ord().to_le_bytes());
            }
        }
        let values = handle
            .open_u64_lenient()
            .expect("a column")
            .expect("numbers or ordinals");
        for document in 0..documents {
            hash.update(&document.to_le_bytes());
            values
                .values_for_doc(document)
                .for_each(|value| hash.update(&value.to_le_bytes()));
        }
        let cardinality = values.get_cardinality();
        (
            name,
            handle.column_type(),
            cardinality,
            hash.digest(),
            dictionary.digest(),
        )
    })
    .collect()
}

/// Builds a part and compares it with tantivy's. Returns its paths.
fn check(documents: &[Arc<Document>], what: &str) -> PathTree {
    let (part, _) = build(documents, &RoaringBitmap::new()).expect("a part");
    let mut oracle = Oracle::new(&part.paths);
    for (number, document) in (0..).zip(documents) {
        oracle.document(number, document);
    }
    let mut expected = Vec::new();
    oracle
        .columns
        .serialize(documents.len() as u32, None, &mut expected)
        .expect("columns");
    assert_eq!(columns_of(part.columns), columns_of(expected), "{what}");
    oracle.writer.finalize().expect("postings");
    assert_eq!(
        part.text.is_some(),
        part.paths.nodes.iter().any(|(_, node)| node.postings)
    );
    if let Some(text) = &part.text {
        assert!(
            posting_files(text) == posting_files(&oracle.directory),
            "{what}: the postings differ"
        );
    }
    part.paths
}

fn documents_of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Arc<Document>> {
    let document = |(offset, line): (i64, &str)| {
        Arc::new(Document {
            address: Address {
                source: "push".parse().expect("a name"),
                partition: 0,
                offset,
                item: None,
            },
            header: Header {
                json: true,
                ..Header::default()
            },
            bytes: Bytes::copy_from_slice(line.as_bytes()),
        })
    };
    (0..).zip(lines).map(document).collect()
}

#[test]
fn random_documents_are_written_as_by_tantivys_writers() {
    let first = made_up::seed();
    for (seed, count) in (first..).zip([0, 1, 2, 30, 200, 2_000, 1_000]) {
        check(&made_up::documents(seed, count), &format!("seed {seed}"));
    }
}

/// Needs the folder of real event data, `RACHIS_TEST_DATA`; without it, nothing is tested.
#[test]
fn real_documents_are_written_as_by_tantivys_writers() {
    let Some(folder) = std::env::var_os("RACHIS_TEST_DATA").map(PathBuf::from) else {
        eprintln!("SKIPPED: set RACHIS_TEST_DATA to the folder of real event data");
        return;
    };
    let files = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("a file").path());
    let files: Vec<PathBuf> = files
        .filter(|file| file.extension().is_some_and(|end| end == "gz"))
        .collect();
    assert!(!files.is_empty(), "{} has no data", folder.display());
    for file in files {
        let lines = lines_of(&file);
        check(
            &documents_of(lines.iter().map(String::as_str)),
            &file.display().to_string(),
        );
    }
}

/// The first megabytes of a file, by line.
fn lines_of(file: &Path) -> Vec<String> {
    const BYTES_MAX: u64 = 20 << 20;
    let gz = flate2::read::MultiGzDecoder::new(std::fs::File::open(file).expect("a file"));
    let mut lines: Vec<String> = BufReader::new(gz.take(BYTES_MAX))
        .split(b'\n')
        .map(|line| String::from_utf8_lossy(&line.expect("a line")).into_owned())
        .collect();
    lines.pop();
    lines
}

#[test]
fn documents_with_too_many_paths_keep_their_frequent_ones() {
    let junk = |document: usize| {
        let entries = (0..10_000).map(|key| format!("\"j{document}_{key}\":{key}"));
        format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
    };
    let junk: Vec<String> = (0..10).map(junk).collect();
    let good = r#"{"level":"disk full","ms":12}"#;
    let lines = junk.iter().map(String::as_str).chain(std::iter::repeat_n(good, 50));
    let paths = check(&documents_of(lines), "junk");
    for key in ["level", "ms"] {
        let node = paths.find([key]).map(|id| &paths.nodes[id]);
        assert!(node.is_some_and(|node| node.column), "{key} has a column");
    }
    let with_column = paths.nodes.iter().filter(|(_, node)| node.column).count();
    assert!(with_column <= 2_001, "{with_column} paths have columns");
    assert!(
        paths.untracked.len() + paths.partly_indexed.len() >= 10,
        "junk is not indexed"
    );
}

#[test]
fn rare_paths_have_no_columns_but_are_in_the_tree() {
    let rare =
        |number: usize| format!(r#"{{"often":"a b","rare{number}":{number},"r{number}":"x y","o{number}":{{}}}}"#);
    let lines: Vec<String> = (0..1_500).map(rare).collect();
    let paths = check(&documents_of(lines.iter().map(String::as_str)), "rare paths");
    assert!(paths.untracked.is_empty());
    let with_column = paths
        .nodes
        .iter()
        .filter(|(_, node)| node.column && node.outside.objects.is_empty());
    assert_eq!(with_column.count(), 2_000);
    // Half of the paths came too late for a column.
    assert_eq!(paths.partly_indexed.len(), 501);
    let node = |key: &str| &paths.nodes[paths.find([key]).expect("a path")];
    assert!(node("often").postings && node("o1499").column && !node("rare1499").column);
}

#[test]
fn an_oversized_token_keeps_its_position_and_has_no_postings() {
    let long = "x".repeat(70_000);
    let lines = [
        format!(r#"{{"a":"one {long} two"}}"#),
        r#"{"a":["one two","two",""]}"#.to_owned(),
    ];
    let (part, _) = build(&documents_of(lines.iter().map(String::as_str)), &RoaringBitmap::new()).expect("a part");
    assert!(part.paths.oversized_tokens.iter().eq([0]));
    let text = crate::split::text::TextIndex::open(part.text.expect("postings")).expect("an index");
    let at = part.paths.find(["a"]).expect("a path");
    let found = |tokens: &[&str]| {
        let mut found = RoaringBitmap::new();
        let tokens: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
        text.phrase(at, &tokens, &mut found).expect("postings");
        found.into_iter().collect::<Vec<u32>>()
    };
    assert_eq!(found(&["one"]), [0, 1]);
    assert_eq!(found(&["one", "two"]), [1], "the long token stands between them");
    assert!(found(&["two", "two"]).is_empty(), "strings of an array do not adjoin");
    assert!(found(&[&long]).is_empty());
}

#[test]
fn fuzzed_paths_are_read_or_refused() {
    let (part, _) = build(&made_up::documents(1, 20), &RoaringBitmap::new()).expect("a part");
    fuzz::fuzz("paths", [part.paths.encode()], |input| drop(PathTree::decode(input)));
}
