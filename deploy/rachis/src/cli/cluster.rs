//! The command lines of `rachis cluster` and `rachis rebalance`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ListOutput, ServerArgs};

/// `rachis cluster`
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    pub action: ClusterAction,
}

/// Actions on a cluster
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterAction {
    /// Create the change log of a new cluster (once)
    Init(InitArgs),
    /// Show the nodes, how far each has read the change log, the replicas of each shard, and what moves
    Status(ClusterStatusArgs),
    /// Move the shards of a leaf to others
    Drain(DrainArgs),
    /// Keep the cluster from replacing the replicas of leaves that are away
    Hold(HoldArgs),
    /// Remove a node that does not run any more
    Remove(RemoveMemberArgs),
    /// Recreate a lost change log from a node's copy
    RestoreChanges(RestoreChangesArgs),
}

/// The settings of the cluster
#[derive(Debug, Args)]
pub(crate) struct ClusterConfigArgs {
    /// The settings file of the nodes; RACHIS_CLUSTER__KEY in the environment overrides it
    #[arg(long, env = "RACHIS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `rachis cluster init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    pub cluster: ClusterConfigArgs,
    /// Also if this Kafka has topics of another cluster
    #[arg(long)]
    pub beside: bool,
}

/// `rachis cluster status`
#[derive(Debug, Args)]
pub(crate) struct ClusterStatusArgs {
    /// Ask this aggregator, instead of reading the change log and asking each member [default if the settings name no
    /// Kafka: $RACHIS_URL]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    #[command(flatten)]
    pub cluster: ClusterConfigArgs,
    /// The output format
    #[arg(short, long, default_value = "table")]
    pub output: ListOutput,
}

/// `rachis rebalance`
#[derive(Debug, Args)]
pub(crate) struct RebalanceArgs {
    /// Only show what would be moved
    #[arg(long)]
    pub dry_run: bool,
    /// Output format
    #[arg(short, long, default_value = "table")]
    pub output: ListOutput,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis cluster drain`
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The name of the leaf
    pub name: String,
    /// Only show what would be moved
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until the leaf has no shards left
    #[arg(long)]
    pub wait: bool,
    /// Do nothing unless the leaf is being drained already
    #[arg(long, requires = "wait", conflicts_with = "dry_run")]
    pub if_draining: bool,
    /// Let the leaf take shards again, and give up the moves away from it
    #[arg(long, conflicts_with_all = ["dry_run", "wait"])]
    pub undo: bool,
    /// Output format
    #[arg(short, long, default_value = "table")]
    pub output: ListOutput,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis cluster hold`
#[derive(Debug, Args)]
pub(crate) struct HoldArgs {
    /// Let the cluster replace them again
    #[arg(long)]
    pub release: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis cluster remove`
#[derive(Debug, Args)]
pub(crate) struct RemoveMemberArgs {
    /// The name of the node
    pub name: String,
    /// Also a leaf that holds shards: its disk is lost, and a new leaf of its name fills them again
    #[arg(long)]
    pub lost: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis cluster restore-changes`
#[derive(Debug, Args)]
pub(crate) struct RestoreChangesArgs {
    #[command(flatten)]
    pub cluster: ClusterConfigArgs,
    /// The catalog.json from the data folder of the node that has read furthest (see `rachis cluster status`)
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
}
