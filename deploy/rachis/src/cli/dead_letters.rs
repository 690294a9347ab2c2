//! The command line of `rachis dead-letters`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ListOutput, ServerArgs};

/// `rachis dead-letters`
#[derive(Debug, Args)]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    pub action: DeadLetterAction,
}

/// Actions on dead letters
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetterAction {
    /// List the newest dead letters, one per line
    List(ListDeadLettersArgs),
    /// Show one dead letter with its record
    Show(ShowDeadLetterArgs),
    /// Ingest dead letters again, each once; one that still cannot become a document stays
    Redrive(RedriveArgs),
    /// Delete dead letters; a partition that stopped because of them continues
    Clear(ClearDeadLettersArgs),
}

/// `rachis dead-letters list`
#[derive(Debug, Args)]
pub(crate) struct ListDeadLettersArgs {
    /// The collection [default: all]
    pub collection: Option<String>,
    /// Only those of this source; pushes have the source `push`
    #[arg(long)]
    pub source: Option<String>,
    /// Only those with this code, for example `not_json`
    #[arg(long)]
    pub code: Option<String>,
    /// The number of dead letters to show
    #[arg(long, default_value_t = 20)]
    pub limit: usize,
    /// The output format
    #[arg(short, long, default_value = "table")]
    pub output: ListOutput,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis dead-letters show`
#[derive(Debug, Args)]
pub(crate) struct ShowDeadLetterArgs {
    /// The collection
    pub collection: String,
    /// The address, for example `orders/0@17`
    pub address: String,
    /// Write the value of the record and nothing else, to edit it
    #[arg(long)]
    pub value: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis dead-letters redrive`
#[derive(Debug, Args)]
pub(crate) struct RedriveArgs {
    /// The collection
    pub collection: String,
    /// Only those of this source; pushes have the source `push`
    #[arg(long)]
    pub source: Option<String>,
    /// Only those with this code, for example `not_json`
    #[arg(long)]
    pub code: Option<String>,
    /// Only this one; may be repeated
    #[arg(long = "address", value_name = "ADDRESS", conflicts_with_all = ["source", "code"])]
    pub addresses: Vec<String>,
    /// Take the value of the record from a file instead (`-` is standard input); for a single address
    #[arg(long, value_name = "FILE", requires = "addresses")]
    pub value: Option<PathBuf>,
    /// Take them as json or text, instead of the format of their source
    #[arg(long)]
    pub format: Option<String>,
    /// The document key: `record` (the record's key) or a path, instead of the key of their source
    #[arg(long)]
    pub key: Option<String>,
    /// Only count them
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis dead-letters clear`
#[derive(Debug, Args)]
pub(crate) struct ClearDeadLettersArgs {
    /// The collection
    pub collection: String,
    /// Only those of this source; pushes have the source `push`
    #[arg(long)]
    pub source: Option<String>,
    #[command(flatten)]
    pub server: ServerArgs,
}
