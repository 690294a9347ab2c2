//! What can keep the tailer from starting.

use std::{io, path::PathBuf};

/// Why the change log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system said no.
    #[error("cannot {what} {}", file.display())]
    Io {
        /// What was tried: `open`, `read`.
        what: &'static str,
        /// On which file.
        file: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// Two processes on one data folder.
    #[error("{} is in use by another process (stop it, or give this one another data folder)", file.display())]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// The first line is not ours.
    #[error("{} is not a change log of a version that this program reads: it begins with {begin:?}", file.display())]
    NotALog {
        /// The file.
        file: PathBuf,
        /// How it begins.
        begin: String,
    },
    /// A line that was acknowledged cannot be what was written.
    #[error("{} line {line} is damaged: {reason} (what was agreed on is not guessed: bring back the file from a copy)", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The log is shorter than what was acknowledged.
    #[error(
        "{} holds {bytes} bytes of changes, and {acknowledged} were acknowledged: its end is lost, and with it collections, sources or their settings \
         (bring back the file from a copy; or delete {} to go on with what is there)",
        file.display(),
        end_file.display()
    )]
    Short {
        /// The file.
        file: PathBuf,
        /// Bytes of it that hold whole records.
        bytes: u64,
        /// Bytes that it had when a change was acknowledged last.
        acknowledged: u64,
        /// The file that says so.
        end_file: PathBuf,
    },
    /// The length of the log was noted, and cannot be read.
    #[error("{} does not say how long the change log is any more (if changes.log is known to be whole, delete this file)", file.display())]
    UnreadableEnd {
        /// The file.
        file: PathBuf,
    },
    /// A line was written by a newer program.
    #[error("{} line {line} is a change that this program does not know: {reason} (start the version that wrote it, or a newer one)", file.display())]
    Unknown {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is not known.
        reason: String,
    },
}
