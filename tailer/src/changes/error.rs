//! Why a change log in a file cannot be opened.

use std::{io, path::PathBuf};

use proto::{Problem, catalog::CATALOG_RULES_LEVEL};

/// Why the change log of a data folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogFileError {
    /// An operation of the file system failed.
    #[error("cannot {what} {}", file.display())]
    Io {
        /// The operation: `open`, `read`.
        what: &'static str,
        /// The file or folder.
        file: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// Another process uses the data folder.
    #[error("{} is in use by another process (stop it, or use another data folder)", file.display())]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// The first line does not name the format.
    #[error("{} is not a change log of a version that this release can read: it begins with {begin:?}", file.display())]
    NotALog {
        /// The file.
        file: PathBuf,
        /// The beginning of the file.
        begin: String,
    },
    /// An acknowledged line differs from what was written.
    #[error(
        "{} line {line} is damaged: {reason} (restore the file from a backup; the log is not repaired automatically)",
        file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with the line.
        reason: LogLineError,
    },
    /// The log is shorter than it was when a change was acknowledged.
    #[error(
        "{} has {bytes} bytes of changes, but {acknowledged} were acknowledged: its end is lost, and with it \
         collections, sources or their settings (restore the file from a backup, or delete {} to continue without the \
         lost changes)",
        file.display(),
        end_file.display()
    )]
    Short {
        /// The file.
        file: PathBuf,
        /// Bytes of the file that hold whole records.
        bytes: u64,
        /// The length of the log when a change was last acknowledged.
        acknowledged: u64,
        /// The file that states this length.
        end_file: PathBuf,
    },
    /// The file that states the length of the log cannot be read.
    #[error(
        "{} is damaged, so the length of the change log is unknown (if changes.log is complete, delete this file)",
        file.display()
    )]
    UnreadableEnd {
        /// The file.
        file: PathBuf,
    },
    /// A newer release wrote a line.
    #[error(
        "{} line {line} is a change that this release does not know: {reason} (start the release that wrote it, or a \
         newer one)",
        file.display()
    )]
    Unknown {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is unknown.
        reason: LogLineError,
    },
}

/// Why a line of the change log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogLineError {
    /// The newline is missing.
    #[error("it has no newline at its end")]
    Unterminated,
    /// There is no room for a checksum.
    #[error("it is too short")]
    TooShort,
    /// Checksum and JSON are not separated.
    #[error("there is no space after the checksum")]
    NoSpace,
    /// The checksum is not that of the JSON.
    #[error("its checksum is not {expected}")]
    Checksum {
        /// The checksum of the JSON, in hexadecimal digits.
        expected: String,
    },
    /// The JSON is not a record that this release knows.
    #[error("{0}")]
    Json(serde_json::Error),
    /// The record needs the rules of a newer release.
    #[error(
        "its level is {level}, but this release supports levels up to {}",
        CATALOG_RULES_LEVEL
    )]
    Level {
        /// The level of the record.
        level: u16,
    },
    /// The catalog refuses a change that it accepted when it was written.
    #[error("it was accepted when it was written, but is refused now: {0}")]
    Refused(Problem),
}
