//! What can be typed. Each command's work is in the module of its name.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Live analytics for event streams.
#[derive(Debug, Parser)]
#[command(name = "rachis", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole service in one process on one data folder
    Dev(Dev),
    /// Run a tailer of a cluster: it reads Kafka
    Tailer(Node),
    /// Run a leaf of a cluster: it keeps and scans shards
    Leaf(Node),
    /// Run an aggregator of a cluster: it answers
    Aggregator(Node),
    /// Create a cluster, look at it, restore its change log
    Cluster(Cluster),
    /// Ask a question in SQL
    Sql(Sql),
    /// Search a collection or a view
    Search(Search),
    /// Push files of JSON into a collection
    Push(Push),
    /// Work with Kafka topics that are read
    Source(Source),
    /// Work with collections
    Collection(Collection),
    /// Show the defined fields and the paths of a collection
    Fields(Fields),
    /// Gather what helps to find out what is wrong
    Debug(Debug),
}

/// `rachis dev`
#[derive(Debug, Args)]
pub struct Dev {
    /// The folder of all data; made where it does not exist [default: $XDG_DATA_HOME/rachis or ~/.local/share/rachis]
    #[arg(long, env = "RACHIS_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one, which DIR/listening then names [default: 127.0.0.1:7700]
    #[arg(long, env = "RACHIS_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Push a live stream of made-up shop events into the collection `shop`
    #[arg(long)]
    pub demo: bool,
    /// A file of settings (TOML); RACHIS_SECTION__KEY in the environment overrides it
    #[arg(long, env = "RACHIS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen beyond this machine although there is neither TLS nor access control
    #[arg(long)]
    pub insecure: bool,
}

/// `rachis tailer`, `rachis leaf`, `rachis aggregator`
#[derive(Debug, Args)]
pub struct Node {
    /// The name of this node in [cluster], the same after a restart
    #[arg(long, env = "RACHIS_NAME", value_name = "NAME")]
    pub name: String,
    /// The folder of its data; made where it does not exist [default: $XDG_DATA_HOME/rachis/NAME or
    /// ~/.local/share/rachis/NAME]
    #[arg(long, env = "RACHIS_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where to listen [default: the address that [cluster] has for the name]
    #[arg(long, env = "RACHIS_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// A file of settings (TOML); RACHIS_SECTION__KEY in the environment overrides it
    #[arg(long, env = "RACHIS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Listen beyond this machine although there is neither TLS nor access control
    #[arg(long)]
    pub insecure: bool,
}

/// `rachis cluster`
#[derive(Debug, Args)]
pub struct Cluster {
    /// What to do.
    #[command(subcommand)]
    pub action: ClusterAction,
}

/// What to do with a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterAction {
    /// Create the change log of a new cluster, once
    Init(ClusterConfig),
    /// Show the members, the change log as each sees it, and where each shard is placed
    Status(ClusterStatus),
    /// Restore a lost change log from a node's copy
    RestoreChanges(RestoreChanges),
}

/// Which cluster.
#[derive(Debug, Args)]
pub struct ClusterConfig {
    /// The file of settings that the nodes have, or its keys in the environment
    #[arg(long, env = "RACHIS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `rachis cluster status`
#[derive(Debug, Args)]
pub struct ClusterStatus {
    /// Ask this aggregator for all, instead of each node that the settings name [default without such settings:
    /// $RACHIS_URL]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterConfig,
    /// How to write it
    #[arg(short, long, default_value = "table")]
    pub output: ListOutput,
}

/// `rachis cluster restore-changes`
#[derive(Debug, Args)]
pub struct RestoreChanges {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: ClusterConfig,
    /// The catalog.json in the data folder of the node that has read furthest (`rachis cluster status` shows it)
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
}

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub struct Server {
    /// The server
    #[arg(
        long,
        env = "RACHIS_URL",
        default_value = "http://127.0.0.1:7700",
        value_name = "URL"
    )]
    pub url: String,
}

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// The server's own answer
    Json,
    /// A row a line
    Ndjson,
    /// With a line of names
    Csv,
}

const EXIT_CODES: &str = "Exit code: 0, the answer is whole; 1, it failed; 2, the command was not understood; \
    3, the answer was cut at the rows that a statement without LIMIT may return";

/// `rachis sql`
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Sql {
    /// The statement; `-` reads it from standard input
    pub statement: String,
    /// A value for $1, $2, …: JSON where it is JSON, else a text
    #[arg(short, long = "parameter", value_name = "VALUE")]
    pub parameters: Vec<String>,
    /// How to write the answer
    #[arg(short, long, default_value = "table")]
    pub output: Output,
    /// The answer holds at least this position, such as `push/0@12`
    #[arg(long, value_name = "POSITION")]
    pub at_least: Option<String>,
    /// Accept an answer that lacks the shards that are away
    #[arg(long)]
    pub allow_partial: bool,
    /// Give up after so many milliseconds
    #[arg(long, value_name = "MS")]
    pub timeout_ms: Option<u64>,
    /// Read raw documents only, no index and no columns
    #[arg(long)]
    pub raw: bool,
    /// Where the server is.
    #[command(flatten)]
    pub server: Server,
}

/// `rachis search`
#[derive(Debug, Args)]
pub struct Search {
    /// The collection
    pub collection: String,
    /// What to look for, such as `level:error AND "disk full"` or `-level:debug`; everything, if left out
    #[arg(default_value = "", allow_hyphen_values = true, value_parser = search_query)]
    pub query: String,
    /// Only documents of this time and later
    #[arg(long)]
    pub from: Option<String>,
    /// Only documents before this time
    #[arg(long)]
    pub to: Option<String>,
    /// A path, with `:asc` or `:desc` [default: _time:desc]
    #[arg(long)]
    pub sort: Option<String>,
    /// Hits of a page
    #[arg(long)]
    pub limit: Option<usize>,
    /// The cursor that the page before ended with
    #[arg(long)]
    pub after: Option<String>,
    /// How to write the answer
    #[arg(short, long, default_value = "table")]
    pub output: Output,
    /// Where the server is.
    #[command(flatten)]
    pub server: Server,
}

/// `rachis push`
#[derive(Debug, Args)]
pub struct Push {
    /// The collection; made where it does not exist
    pub collection: String,
    /// Files of JSON documents, one a line, a list, or each over several lines; gzip and zstd are unpacked; `-` is
    /// standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Each line is a document, whatever it begins with
    #[arg(long)]
    pub ndjson: bool,
    /// Push once more what was pushed before (else a file pushed again within a day changes nothing)
    #[arg(long)]
    pub again: bool,
    /// Where the server is.
    #[command(flatten)]
    pub server: Server,
}

/// `rachis source`
#[derive(Debug, Args)]
pub struct Source {
    /// What to do.
    #[command(subcommand)]
    pub action: SourceAction,
}

/// What to do with sources.
#[derive(Debug, Subcommand)]
pub enum SourceAction {
    /// Read a topic, or change how it is read
    Put(SourceSettings),
    /// Show one source
    Get(SourceName),
    /// List all sources
    List(List),
    /// Stop reading a topic for good; its documents stay
    Delete(SourceName),
    /// Show what a topic would give; nothing is stored
    Preview(Preview),
    /// Stop reading until it is resumed
    Suspend(SourceName),
    /// Read on
    Resume(SourceName),
    /// Go on after a loss
    Skip(Skip),
}

/// How lists are written; a list as CSV is a question to `rachis sql`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListOutput {
    /// For people
    Table,
    /// The server's own answer
    Json,
    /// An object a line
    Ndjson,
}

/// A list.
#[derive(Debug, Args)]
pub struct List {
    /// How to write it
    #[arg(short, long, default_value = "table")]
    pub output: ListOutput,
    /// Where the server is.
    #[command(flatten)]
    pub server: Server,
}

/// One source.
#[derive(Debug, Args)]
pub struct SourceName {
    /// The source
    pub name: String,
    /// Where the server is.
    #[command(flatten)]
    pub server: Server,
}

/// What is said about a source.
#[derive(Debug, Args)]
pub struct SourceSettings {
    /// The source
    pub name: String,
    /// Where its documents go; made where it does not exist [default: the source's name]
    #[arg(short, long)]
    pub collection: Option<String>,
    /// The topic [default: the source's name]
    #[arg(short, long)]
    pub topic: Option<String>,
    /// Where Kafka is: the same as -X bootstrap.servers=…
    #[arg(short, long, value_name = "HOST:PORT,…")]
    pub brokers: Option<String>,
    /// Any key of librdkafka
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = key_value)]
    pub config: Vec<(String, String)>,
    /// What a record's value is: json or text
    #[arg(long)]
    pub format: Option<String>,
    /// What names a document: `record` (the record's key) or a path
    #[arg(long)]
    pub key: Option<String>,
    /// Where to begin: earliest or latest
    #[arg(long)]
    pub start: Option<String>,
    /// Where the server is.
    #[command(flatten)]
    pub server: Server,
}

/// `rachis source preview`
#[derive(Debug, Args)]
pub struct Preview {
    /// Records to show
    #[arg(long, default_value_t = 10)]
    pub limit: usize,
    /// The source; with a topic or brokers it need not exist
    #[command(flatten)]
    pub settings: SourceSettings,
}

/// `rachis source skip`, `rachis collection skip`
#[derive(Debug, Args)]
pub struct Skip {
    /// The source, or the collection
    pub name: String,
    /// The partition and the offset to go on with, such as `0=1234` or `0=latest`
    #[arg(required = true, value_name = "PARTITION=OFFSET", value_parser = key_value)]
    pub to: Vec<(String, String)>,
    /// Where the server is.
    #[command(flatten)]
    pub server: Server,
}

/// `rachis collection`
#[derive(Debug, Args)]
pub struct Collection {
    /// What to do.
    #[command(subcommand)]
    pub action: CollectionAction,
}

/// What to do with collections.
#[derive(Debug, Subcommand)]
pub enum CollectionAction {
    /// List all collections
    List(List),
    /// Show one collection
    Get(CollectionName),
    /// Create a collection, or change it
    Put(CollectionSettings),
    /// Drop a collection with its documents
    Delete(CollectionName),
    /// Go on after a loss among the pushes of a collection (in a cluster they are read from Kafka)
    Skip(Skip),
}

/// One collection.
#[derive(Debug, Args)]
pub struct CollectionName {
    /// The collection
    pub name: String,
    /// Where the server is.
    #[command(flatten)]
    pub server: Server,
}

/// What is said about a collection.
#[derive(Debug, Args)]
pub struct CollectionSettings {
    /// The collection
    pub name: String,
    /// Shards; cannot be changed later
    #[arg(long)]
    pub shards: Option<u32>,
    /// Where a document says when its event happened, such as `created_at`
    #[arg(long)]
    pub time_path: Option<String>,
    /// Where the server is.
    #[command(flatten)]
    pub server: Server,
}

/// `rachis fields`
#[derive(Debug, Args)]
pub struct Fields {
    /// The collection
    pub collection: String,
    /// How to write it
    #[arg(short, long, default_value = "table")]
    pub output: ListOutput,
    /// Where the server is.
    #[command(flatten)]
    pub server: Server,
}

/// `rachis debug`
#[derive(Debug, Args)]
pub struct Debug {
    /// What to gather.
    #[command(subcommand)]
    pub action: DebugAction,
}

/// What to gather.
#[derive(Debug, Subcommand)]
pub enum DebugAction {
    /// Write how each node is, its metrics and the system tables into one file; it holds no documents and no secrets
    Bundle(Bundle),
}

/// `rachis debug bundle`
#[derive(Debug, Args)]
pub struct Bundle {
    /// Where to write it [default: rachis-debug-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The settings of a cluster: its nodes are asked even where no aggregator answers
    #[arg(long, env = "RACHIS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the server is.
    #[command(flatten)]
    pub server: Server,
}

/// A search may begin with one hyphen, which excludes; two are an option that does not exist.
fn search_query(text: &str) -> Result<String, String> {
    match text.starts_with("--") {
        true => Err("no option has this name; `rachis search --help` lists them".into()),
        false => Ok(text.to_owned()),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("there is no = in it")?;
    match key.trim() {
        "" => Err("there is nothing before the =".into()),
        key => Ok((key.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn what_can_be_typed_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_search_may_begin_with_a_hyphen_and_an_option_stays_an_option() {
        let parsed =
            |arguments: &[&str]| match Cli::try_parse_from(["rachis", "search", "logs"].iter().chain(arguments))
                .map(|cli| cli.command)
            {
                Ok(Command::Search(search)) => Ok((search.query, search.output, search.limit)),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.to_string()),
            };
        assert_eq!(
            parsed(&["-response:200"]),
            Ok(("-response:200".into(), Output::Table, None))
        );
        assert_eq!(
            parsed(&["-o", "json", "-a AND -b:c", "--limit", "3"]),
            Ok(("-a AND -b:c".into(), Output::Json, Some(3)))
        );
        assert_eq!(
            parsed(&["-o", "json", "--limit=3"]),
            Ok((String::new(), Output::Json, Some(3)))
        );
        assert!(parsed(&["--limt=3"]).is_err_and(|error| error.contains("no option has this name")));
    }

    #[test]
    fn a_value_may_hold_an_equals_sign() {
        assert_eq!(
            key_value("sasl.password=a=b"),
            Ok(("sasl.password".into(), "a=b".into()))
        );
        assert!(key_value("=x").is_err() && key_value("x").is_err());
    }
}
