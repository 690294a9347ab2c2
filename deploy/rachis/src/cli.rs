//! The command line: every command and its arguments. Each command runs in the module of the same name.

mod cluster;
mod dead_letters;
mod snapshot;
pub(crate) mod sql_output;

use std::{io::IsTerminal as _, path::PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};

pub(crate) use self::cluster::{
    ClusterAction, ClusterArgs, ClusterStatusArgs, DrainArgs, HoldArgs, InitArgs, RebalanceArgs, RemoveMemberArgs,
    RestoreChangesArgs,
};
pub(crate) use self::dead_letters::{DeadLetterAction, DeadLettersArgs, ListDeadLettersArgs, RedriveArgs};
pub(crate) use self::snapshot::{
    CheckArgs, ListSnapshotsArgs, RestoreArgs, SnapshotAction, SnapshotArgs, SnapshotIdArgs, TakeArgs,
};
use self::sql_output::SqlOutput;

/// Live analytics for event streams.
///
/// Without a command, at a terminal, `rachis` is the shell `rachis sql`.
#[derive(Debug, Parser)]
#[command(name = "rachis", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The command of the process; it ends if there is none.
    pub(crate) fn read() -> Command {
        let is_bare = std::env::args_os().len() == 1 && std::io::stdin().is_terminal();
        match is_bare {
            true => Self::parse_from(["rachis", "sql"]).command,
            false => Self::parse().command,
        }
    }

    /// Writes the completions of a shell.
    pub(crate) fn completions(shell: clap_complete::Shell) -> Vec<u8> {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Self::command(), "rachis", &mut script);
        script
    }
}

/// A command
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole service in one process, on one data folder
    Dev(DevArgs),
    /// Run a tailer, which reads Kafka for a cluster
    Tailer(NodeArgs),
    /// Run a leaf, which stores and scans shards of a cluster
    Leaf(NodeArgs),
    /// Run an aggregator, which answers queries of a cluster
    Aggregator(NodeArgs),
    /// Create a cluster, show its status, drain leaves, remove nodes, restore its change log
    Cluster(ClusterArgs),
    /// Move replicas so that each leaf of a cluster holds bytes in proportion to its capacity
    Rebalance(RebalanceArgs),
    /// Take, list, check, restore and remove snapshots
    Snapshot(SnapshotArgs),
    /// Run SQL statements, or a shell for them
    Sql(SqlArgs),
    /// Show nodes, collections, sources, and what needs attention
    Status(StatusArgs),
    /// Write the completions of a shell: bash, zsh, fish, elvish, powershell
    Completions(CompletionsArgs),
    /// Search a collection or a view
    Search(SearchArgs),
    /// Push files into a collection: JSON, CSV, TSV, Parquet
    Push(PushArgs),
    /// Manage sources (Kafka topics that are read into collections)
    Source(SourceArgs),
    /// Manage collections
    Collection(CollectionArgs),
    /// List, show, ingest again and clear dead letters (records that became no documents)
    #[command(name = "dead-letters")]
    DeadLetters(DeadLettersArgs),
    /// Export, apply and try definitions
    Definition(DefinitionArgs),
    /// List the defined fields and the paths of a collection
    Fields(FieldsArgs),
    /// Collect information for support
    Debug(DebugArgs),
}

/// `rachis dev`
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// The data folder; created if missing [default: $XDG_DATA_HOME/rachis or ~/.local/share/rachis]
    #[arg(long, env = "RACHIS_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The address to listen on; port 0 picks a free port, written to DIR/listening [default: 127.0.0.1:7700]
    #[arg(long, env = "RACHIS_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Push made-up shop events into the collection `shop`, and log lines into `logs`
    #[arg(long)]
    pub demo: bool,
    /// The settings file (TOML); RACHIS_SECTION__KEY in the environment overrides it
    #[arg(long, env = "RACHIS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Allow an address that other machines can reach, although there is neither TLS nor access control
    #[arg(long)]
    pub insecure: bool,
}

/// `rachis tailer`, `rachis leaf`, `rachis aggregator`
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The name of this node, unique in the cluster; it must not change between restarts [default: name in [node]]
    #[arg(long, env = "RACHIS_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// The data folder; created if missing [default: $XDG_DATA_HOME/rachis/NAME or ~/.local/share/rachis/NAME]
    #[arg(long, env = "RACHIS_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The address to listen on [default: 127.0.0.1:7700]
    #[arg(long, env = "RACHIS_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Where other nodes reach this one [default: address in [node], else the address to listen on]
    #[arg(long, env = "RACHIS_ADDRESS", value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// The settings file (TOML); RACHIS_SECTION__KEY in the environment overrides it
    #[arg(long, env = "RACHIS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Allow an address that other machines can reach, although there is neither TLS nor access control
    #[arg(long)]
    pub insecure: bool,
}

/// The address of the server
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// The server's URL
    #[arg(
        long,
        env = "RACHIS_URL",
        default_value = "http://127.0.0.1:7700",
        value_name = "URL"
    )]
    pub url: String,
}

/// Output formats of answers
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table for people
    Table,
    /// The server's JSON
    Json,
    /// One JSON object per row and line
    Ndjson,
    /// With a header line
    Csv,
    /// The same, separated by tabs; NULL is \N
    Tsv,
    /// An Arrow IPC stream
    Arrow,
}

/// Output formats of searches
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SearchOutput {
    /// Tables for people
    Table,
    /// The server's JSON
    Json,
    /// One document per line
    Ndjson,
    /// A line per hit: its id and its document
    Csv,
}

/// How statements and searches are run
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct QueryArgs {
    /// Wait for this position before answering, for example `push/0@12`
    #[arg(long, value_name = "POSITION")]
    pub at_least: Option<String>,
    /// Accept an answer without the shards that are unavailable
    #[arg(long)]
    pub allow_partial: bool,
    /// Cancel the query after this many milliseconds
    #[arg(long, value_name = "MS")]
    pub timeout_ms: Option<u64>,
    /// Read raw documents only; use no index and no columns
    #[arg(long)]
    pub raw: bool,
}

const EXIT_CODES: &str = "Exit codes: 0 complete answer; 1 failure; 2 invalid command line or settings; \
    3 answer truncated at the maximum number of rows for a statement without LIMIT";

/// `rachis sql`
#[derive(Debug, Clone, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct SqlArgs {
    /// The statements, separated by `;`; `-` reads standard input. Without any: those of standard input, or a shell at
    /// a terminal
    pub statement: Option<String>,
    /// Run the statements of a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "statement")]
    pub file: Option<PathBuf>,
    /// A value for $1, $2, …; parsed as JSON, or else taken as text
    #[arg(short, long = "parameter", value_name = "VALUE")]
    pub parameters: Vec<String>,
    /// Who makes a change of a definition, for its history
    #[arg(long, env = "RACHIS_AUTHOR", value_name = "NAME")]
    pub author: Option<String>,
    /// A format (table, json, ndjson, csv, tsv, arrow), or a file for the whole answer, whose ending says its format:
    /// .parquet, .arrow, .ndjson, .json, .csv or .tsv, a text also with .gz, .zst or .xz behind it
    #[arg(short, long, default_value = "table", value_name = "FORMAT|FILE", value_parser = sql_output::parse)]
    pub output: SqlOutput,
    /// Return all rows of a statement without LIMIT. A file (-o FILE) always gets them
    #[arg(long)]
    pub all_rows: bool,
    #[command(flatten)]
    pub options: QueryArgs,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis status`
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The output format
    #[arg(short, long, default_value = "table")]
    pub output: ListOutput,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `rachis definition`
#[derive(Debug, Args)]
pub(crate) struct DefinitionArgs {
    #[command(subcommand)]
    pub action: DefinitionAction,
}

/// Actions on definitions
#[derive(Debug, Subcommand)]
pub(crate) enum DefinitionAction {
    /// List the current versions
    List(ListArgs),
    /// Write all definitions as a file of statements
    Export(DefinitionExportArgs),
    /// Change the definitions to what a file says; what it does not name stays
    Apply(DefinitionApplyArgs),
    /// Show what a definition would find in some documents, without storing it
    Try(DefinitionTryArgs),
}

/// `rachis definition export`
#[derive(Debug, Args)]
pub(crate) struct DefinitionExportArgs {
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis definition apply`
#[derive(Debug, Args)]
pub(crate) struct DefinitionApplyArgs {
    /// The file; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Only show what would change
    #[arg(long)]
    pub dry_run: bool,
    /// Who makes the changes, for their history
    #[arg(long, env = "RACHIS_AUTHOR", value_name = "NAME")]
    pub author: Option<String>,
    /// The output format
    #[arg(short, long, default_value = "table")]
    pub output: ListOutput,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis definition try`
#[derive(Debug, Args)]
pub(crate) struct DefinitionTryArgs {
    /// A CREATE statement, the text of a parser (`ON message AS LOGFMT`), an expression, or a file with one of them
    #[arg(value_name = "FILE|TEXT")]
    pub definition: String,
    /// The collection, unless the statement names it
    #[arg(long, value_name = "NAME")]
    pub collection: Option<String>,
    /// The number of documents
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub limit: usize,
    /// The output format
    #[arg(short, long, default_value = "table")]
    pub output: Output,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis search`
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// The collection
    pub collection: String,
    /// The search query, for example `level:error AND "disk full"` or `-level:debug`; without one, all documents
    #[arg(default_value = "", allow_hyphen_values = true, value_parser = search_query)]
    pub query: String,
    /// Only documents from this time on
    #[arg(long)]
    pub from: Option<String>,
    /// Only documents before this time
    #[arg(long)]
    pub to: Option<String>,
    /// The sort key: a path with `:asc` or `:desc`, or `_score` [default: _time:desc]
    #[arg(long)]
    pub sort: Option<String>,
    /// Hits per page
    #[arg(long)]
    pub limit: Option<usize>,
    /// The cursor of the next page, from the end of the previous one
    #[arg(long)]
    pub after: Option<String>,
    /// Mark what was found, at or below these paths or everywhere
    #[arg(long, value_name = "PATHS", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
    pub highlight: Option<String>,
    /// The most frequent values among all matches: `kind,user.country:20`, or ranges: `ms(10,100)`
    #[arg(long, value_name = "PATHS")]
    pub facets: Option<String>,
    /// How many matches fall into each interval of time: `1h`, `auto`, or `order.paid_at:1d`
    #[arg(long, value_name = "INTERVAL")]
    pub histogram: Option<String>,
    /// Describe the paths of the matches, of the newest 1,000 or of so many
    #[arg(long, value_name = "DOCUMENTS", num_args = 0..=1, require_equals = true, default_missing_value = "1000")]
    pub fields: Option<usize>,
    /// The output format
    #[arg(short, long, default_value = "table")]
    pub output: SearchOutput,
    #[command(flatten)]
    pub options: QueryArgs,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// Formats of files to push
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PushFormat {
    /// One document per line, a JSON array, or documents that span several lines
    Json,
    /// One document per line, even if the file starts with `[`
    Ndjson,
    /// Rows after a line that names the columns, with commas or semicolons between the fields
    Csv,
    /// The same, with tabs
    Tsv,
    /// Apache Parquet
    Parquet,
    /// An Apache Arrow IPC file
    Arrow,
}

/// `rachis push`
#[derive(Debug, Args)]
#[command(after_help = "When the command returns, every query sees the documents.")]
pub(crate) struct PushArgs {
    /// The collection; created if missing
    pub collection: String,
    /// Files, folders, or patterns such as 'logs/*.gz'; `-` is standard input. gzip, zstd and xz are decompressed
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The format of the files [default: by their names and first bytes]
    #[arg(long)]
    pub format: Option<PushFormat>,
    /// Store the documents again even if the file was pushed before (otherwise only lines that were appended since are
    /// stored)
    #[arg(long)]
    pub again: bool,
    /// If another file is at the path of one that was pushed, and begins with the same bytes, store only what is new
    #[arg(long, conflicts_with = "again")]
    pub resume: bool,
    /// Store the values of this column, or of this field of each document, as the documents: `--column _doc` brings in
    /// what `rachis sql 'SELECT _doc FROM …' -o FILE` took out, byte for byte
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub column: Option<String>,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis source`
#[derive(Debug, Args)]
pub(crate) struct SourceArgs {
    #[command(subcommand)]
    pub action: SourceAction,
}

/// Actions on sources
#[derive(Debug, Subcommand)]
pub(crate) enum SourceAction {
    /// Create a source or change its settings
    Put(SourceSettingsArgs),
    /// Show one source
    Get(SourceNameArgs),
    /// List all sources
    List(ListArgs),
    /// Delete a source; its documents stay
    Delete(SourceNameArgs),
    /// Show the documents that a topic would produce; stores nothing
    Preview(PreviewArgs),
    /// Stop reading until resumed
    Suspend(SourceNameArgs),
    /// Continue reading
    Resume(SourceNameArgs),
    /// Continue after a loss of records
    Skip(SkipArgs),
    /// Spread what a hot partition gets from now on over several shards
    Spread(SpreadArgs),
}

/// Output formats of lists; for CSV, query the system tables with `rachis sql`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListOutput {
    /// A table for people
    Table,
    /// The server's JSON
    Json,
    /// One JSON object per line
    Ndjson,
}

/// Arguments of list commands
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The output format
    #[arg(short, long, default_value = "table")]
    pub output: ListOutput,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// The name of a source
#[derive(Debug, Args)]
pub(crate) struct SourceNameArgs {
    /// The source
    pub name: String,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// The settings of a source
#[derive(Debug, Args)]
pub(crate) struct SourceSettingsArgs {
    /// The source
    pub name: String,
    /// The collection for its documents; created if missing [default: the source's name]
    #[arg(short, long)]
    pub collection: Option<String>,
    /// The topic [default: the source's name]
    #[arg(short, long)]
    pub topic: Option<String>,
    /// The Kafka brokers; the same as -X bootstrap.servers=…
    #[arg(short, long, value_name = "HOST:PORT,…")]
    pub brokers: Option<String>,
    /// Any librdkafka setting
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = key_value)]
    pub config: Vec<(String, String)>,
    /// The format of record values: json or text
    #[arg(long)]
    pub format: Option<String>,
    /// The document key: `record` (the record's key) or a path
    #[arg(long)]
    pub key: Option<String>,
    /// The offset to start at: earliest or latest
    #[arg(long)]
    pub start: Option<String>,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis source preview`
#[derive(Debug, Args)]
pub(crate) struct PreviewArgs {
    /// The number of records to show
    #[arg(long, default_value_t = 10)]
    pub limit: usize,
    /// The source; it need not exist if a topic or brokers are given
    #[command(flatten)]
    pub settings: SourceSettingsArgs,
}

/// `rachis source skip`, `rachis collection skip`
#[derive(Debug, Args)]
pub(crate) struct SkipArgs {
    /// The source or the collection
    pub name: String,
    /// The partition and the offset to continue at, for example `0=1234` or `0=latest`
    #[arg(required = true, value_name = "PARTITION=OFFSET", value_parser = key_value)]
    pub to: Vec<(String, String)>,
    #[command(flatten)]
    pub server: ServerArgs,
}

fn shard_number(text: &str) -> Result<u32, String> {
    let number = text.trim().parse();
    number.map_err(|_| "shards are numbered from 0: `--shards 0,2` names two".to_owned())
}

/// `rachis source spread`
#[derive(Debug, Args)]
pub(crate) struct SpreadArgs {
    /// The source
    pub name: String,
    /// The partition
    pub partition: i32,
    /// The shards that its records belong to by turns, for example `0,2`; all if left out
    #[arg(long, value_name = "SHARDS", value_delimiter = ',', value_parser = shard_number, conflicts_with = "withdraw")]
    pub shards: Option<Vec<u32>>,
    /// Give up a spread that not all leaves have confirmed
    #[arg(long)]
    pub withdraw: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis collection`
#[derive(Debug, Args)]
pub(crate) struct CollectionArgs {
    #[command(subcommand)]
    pub action: CollectionAction,
}

/// Actions on collections
#[derive(Debug, Subcommand)]
pub(crate) enum CollectionAction {
    /// List all collections
    List(ListArgs),
    /// Show one collection
    Get(CollectionNameArgs),
    /// Create a collection or change its settings
    Put(CollectionSettingsArgs),
    /// Delete a collection and its documents
    Delete(CollectionNameArgs),
    /// Continue after a loss of pushes (in a cluster, pushes are read from Kafka)
    Skip(SkipArgs),
}

/// The name of a collection
#[derive(Debug, Args)]
pub(crate) struct CollectionNameArgs {
    /// The collection
    pub name: String,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// The settings of a collection
#[derive(Debug, Args)]
pub(crate) struct CollectionSettingsArgs {
    /// The collection
    pub name: String,
    /// The number of shards; cannot be changed later
    #[arg(long)]
    pub shards: Option<u32>,
    /// The number of replicas of each shard, on different leaves; after a change, `rachis rebalance` adds or removes some
    #[arg(long)]
    pub replicas: Option<u32>,
    /// The path of the event time in each document, for example `created_at`
    #[arg(long)]
    pub time_path: Option<String>,
    /// How long documents are kept: `30d` by when they were ingested, `30d by event` by their event time. What is older is
    /// deleted at once. '' keeps all
    #[arg(long)]
    pub retention: Option<String>,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis fields`
#[derive(Debug, Args)]
pub(crate) struct FieldsArgs {
    /// The collection
    pub collection: String,
    /// The output format
    #[arg(short, long, default_value = "table")]
    pub output: ListOutput,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// `rachis debug`
#[derive(Debug, Args)]
pub(crate) struct DebugArgs {
    #[command(subcommand)]
    pub action: DebugAction,
}

/// Kinds of support information
#[derive(Debug, Subcommand)]
pub(crate) enum DebugAction {
    /// Write the health and metrics of each node and the system tables to one file, without documents and secrets
    Bundle(BundleArgs),
}

/// `rachis debug bundle`
#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    /// The file to write [default: rachis-debug-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The settings of a cluster; its nodes are then queried even if no aggregator responds
    #[arg(long, env = "RACHIS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// A query may start with one hyphen, which negates a term. Two hyphens are a misspelt option.
fn search_query(text: &str) -> Result<String, String> {
    match text.starts_with("--") {
        true => Err("unknown option; `rachis search --help` lists all options".into()),
        false => Ok(text.to_owned()),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("missing =")?;
    match key.trim() {
        "" => Err("missing key before the =".into()),
        key => Ok((key.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_query_may_start_with_a_hyphen_and_options_are_still_recognised() {
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
            Ok(("-response:200".into(), SearchOutput::Table, None))
        );
        assert_eq!(
            parsed(&["-o", "json", "-a AND -b:c", "--limit", "3"]),
            Ok(("-a AND -b:c".into(), SearchOutput::Json, Some(3)))
        );
        assert_eq!(
            parsed(&["-o", "json", "--limit=3"]),
            Ok((String::new(), SearchOutput::Json, Some(3)))
        );
        assert!(parsed(&["--limt=3"]).is_err_and(|error| error.contains("unknown option")));
    }

    #[test]
    fn a_search_is_offered_the_formats_that_it_has() {
        let error = Cli::try_parse_from(["rachis", "search", "logs", "-o", "arrow"]).expect_err("no such format");
        let text = error.to_string();
        assert!(text.contains("[possible values: table, json, ndjson, csv]"), "{text}");
    }

    #[test]
    fn statements_and_searches_have_the_same_options() {
        let options = [
            "--at-least",
            "push/0@12",
            "--allow-partial",
            "--timeout-ms=500",
            "--raw",
        ];
        let parsed = |command: &[&str]| {
            let words = ["rachis"].iter().chain(command).chain(&options);
            match Cli::try_parse_from(words).expect("valid options").command {
                Command::Sql(sql) => sql.options,
                Command::Search(search) => search.options,
                other => panic!("{other:?}"),
            }
        };
        let expected = QueryArgs {
            at_least: Some("push/0@12".into()),
            allow_partial: true,
            timeout_ms: Some(500),
            raw: true,
        };
        assert_eq!(parsed(&["sql", "SELECT 1"]), expected);
        assert_eq!(parsed(&["search", "logs", "-level:debug"]), expected);
    }

    #[test]
    fn a_value_may_contain_an_equals_sign() {
        assert_eq!(
            key_value("sasl.password=a=b"),
            Ok(("sasl.password".into(), "a=b".into()))
        );
        assert!(key_value("=x").is_err() && key_value("x").is_err());
    }
}
