//! The command line of `rachis snapshot`.

use clap::{Args, Subcommand};

use super::{ListOutput, ServerArgs};

/// `rachis snapshot`
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    pub action: SnapshotAction,
}

/// Actions on snapshots
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotAction {
    /// Take a snapshot, and wait until it is complete
    Take(TakeArgs),
    /// List all snapshots
    List(ListSnapshotsArgs),
    /// Show what a snapshot consists of, as JSON
    Show(SnapshotIdArgs),
    /// Look whether all files of a snapshot are there
    Check(CheckArgs),
    /// Restore collections of a snapshot
    Restore(RestoreArgs),
    /// Remove a snapshot, and the files that no other one has
    Remove(SnapshotIdArgs),
}

/// `rachis snapshot take`
#[derive(Debug, Args)]
pub(crate) struct TakeArgs {
    /// The collections [default: all]
    #[arg(value_name = "COLLECTION")]
    pub collections: Vec<String>,
    /// Only begin it: it goes on in the background
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis snapshot list`
#[derive(Debug, Args)]
pub(crate) struct ListSnapshotsArgs {
    /// Output format
    #[arg(short, long, default_value = "table")]
    pub output: ListOutput,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// A snapshot
#[derive(Debug, Args)]
pub(crate) struct SnapshotIdArgs {
    /// The name of the snapshot
    pub id: String,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis snapshot check`
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The name of the snapshot
    pub id: String,
    /// Read every byte and compare hashes, instead of sizes
    #[arg(long)]
    pub read: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis snapshot restore`
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The name of the snapshot
    pub id: String,
    /// The collections [default: all, and the definitions]
    #[arg(value_name = "COLLECTION")]
    pub collections: Vec<String>,
    /// The name that the collection gets, if one is named
    #[arg(long = "as", value_name = "NAME")]
    pub rename: Option<String>,
    /// Go on with the topics for pushes and deletes that the collections had, in the same Kafka, instead of copies with
    /// topics of their own
    #[arg(long = "continue")]
    pub continued: bool,
    /// Do not wait until all shards are there
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}
