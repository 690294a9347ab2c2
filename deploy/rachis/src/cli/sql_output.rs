//! The value of `rachis sql -o`: a format for standard output, or a file whose ending says its format.

use std::path::{Path, PathBuf};

use clap::ValueEnum as _;

use super::Output;

/// Where an answer goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SqlOutput {
    /// To standard output.
    Shown(Output),
    /// The whole answer into a file.
    File(ExportFile),
}

/// A file for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExportFile {
    pub path: PathBuf,
    pub format: FileFormat,
}

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileFormat {
    Text(Output, Compression),
    Parquet,
    /// The Arrow IPC file format.
    Arrow,
}

/// How a text is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
}

const COMPRESSIONS: [(&str, Compression); 3] = [
    (".gz", Compression::Gzip),
    (".zst", Compression::Zstd),
    (".xz", Compression::Xz),
];

/// Reads the value of `-o`.
pub(super) fn parse(text: &str) -> Result<SqlOutput, String> {
    if let Ok(format) = Output::from_str(text, true) {
        return Ok(SqlOutput::Shown(format));
    }
    let path = Path::new(text);
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    let compressed = COMPRESSIONS
        .iter()
        .find_map(|(ending, compression)| Some((name.strip_suffix(ending)?, *compression)));
    let (name, compression) = compressed.unwrap_or((&name, Compression::None));
    let format = match (name.rsplit_once('.').map(|(_, ending)| ending), compression) {
        (Some("parquet"), Compression::None) => FileFormat::Parquet,
        (Some("arrow" | "feather"), Compression::None) => FileFormat::Arrow,
        (Some("parquet" | "arrow" | "feather"), _) => {
            return Err("Parquet and Arrow files are not compressed as a whole: leave out the last ending".into());
        }
        (Some("ndjson" | "jsonl"), _) => FileFormat::Text(Output::Ndjson, compression),
        (Some("json"), _) => FileFormat::Text(Output::Json, compression),
        (Some("csv"), _) => FileFormat::Text(Output::Csv, compression),
        (Some("tsv" | "tab"), _) => FileFormat::Text(Output::Tsv, compression),
        _ => {
            return Err(
                "it is no format (table, json, ndjson, csv, tsv, arrow), and as a file it needs an ending that says its \
                 format: .parquet, .arrow, .ndjson, .json, .csv or .tsv; a text also with .gz, .zst or .xz behind it"
                    .into(),
            );
        }
    };
    let path = path.to_owned();
    Ok(SqlOutput::File(ExportFile { path, format }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_of_a_file_says_its_format() {
        for (text, format) in [
            ("a/b.parquet", FileFormat::Parquet),
            ("x.ARROW", FileFormat::Arrow),
            ("csv.csv", FileFormat::Text(Output::Csv, Compression::None)),
            ("x.csv.gz", FileFormat::Text(Output::Csv, Compression::Gzip)),
            ("x.ndjson.zst", FileFormat::Text(Output::Ndjson, Compression::Zstd)),
            ("x.y.jsonl.xz", FileFormat::Text(Output::Ndjson, Compression::Xz)),
            ("./x.tsv", FileFormat::Text(Output::Tsv, Compression::None)),
        ] {
            let path = PathBuf::from(text);
            assert_eq!(parse(text), Ok(SqlOutput::File(ExportFile { path, format })), "{text}");
        }
    }

    #[test]
    fn a_format_alone_is_for_standard_output() {
        assert_eq!(parse("csv"), Ok(SqlOutput::Shown(Output::Csv)));
        assert_eq!(parse("Table"), Ok(SqlOutput::Shown(Output::Table)));
    }

    #[test]
    fn what_is_neither_is_an_error_that_lists_both() {
        for text in ["xml", "a.xlsx", "a.table", "a.gz", "./csv", "", "a.d/csv"] {
            assert!(parse(text).is_err_and(|error| error.contains(".parquet")), "{text}");
        }
        assert!(parse("a.parquet.gz").is_err_and(|error| error.contains("leave out the last ending")));
    }
}
