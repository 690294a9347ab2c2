//! `benches all`: every suite in order, then the rows of goals, each with what was measured.
//!
//! The figures of each suite are kept as a file in a folder, so that a run can be continued, and the rows printed again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Parser, Subcommand};

use super::{
    CopiesArgs, DefinitionsArgs, DeletesArgs, DistributionArgs, FanOutArgs, FilesArgs, FootprintArgs, FreshnessArgs,
    GeneratedArgs, GhArgs, GiantsArgs, InterferenceArgs, LoadArgs, RebalanceArgs, RecoveryArgs, ReplicasArgs,
    SuiteReport, copies, definitions, deletes, distribution, expression, fan_out, files, footprint, freshness, gh,
    giants, goals, interference, jsonbench, load, parsers, rebalance, recovery, replicas, searches,
};
use crate::report::guarded;

/// A suite, with its own arguments.
#[derive(Debug, Subcommand)]
pub enum SuiteCommand {
    /// Loads Bluesky-like documents and GitHub events into each system
    Load(LoadArgs),
    /// Asks JSONBench's five questions of Bluesky-like documents
    Jsonbench(GeneratedArgs),
    /// Asks thirteen questions of GitHub events
    Gh(GhArgs),
    /// Searches GitHub events: best hits, facets, a histogram
    Searches(GhArgs),
    /// Produces at a constant rate and asks until each marked record is found
    Freshness(FreshnessArgs),
    /// Asks questions while documents come in, and while none do
    Interference(InterferenceArgs),
    /// Asks for an expression over all documents
    Expression(GeneratedArgs),
    /// Asks for parts of log lines
    Parsers(GeneratedArgs),
    /// Asks for fields over paths, differences, and small questions beside many definitions
    Definitions(DefinitionsArgs),
    /// Deletes half of all documents, lets a day of thirty expire, and asks beside it
    Deletes(DeletesArgs),
    /// Brings a folder of Parquet files in, and takes whole answers out as files
    Files(FilesArgs),
    /// Loads documents with 100,000 keys among normal ones
    Giants(GiantsArgs),
    /// Asks clusters of one to eight leaves and of one to 64 shards
    FanOut(FanOutArgs),
    /// Starts on many documents after `kill -9`
    Recovery(RecoveryArgs),
    /// Measures a second replica of each shard, and the death of a leaf
    Replicas(ReplicasArgs),
    /// Measures copies of shards: snapshots, restores, second replicas
    Copies(CopiesArgs),
    /// Joins, sorts and groups many rows on one aggregator and on two
    Distribution(DistributionArgs),
    /// Asks while a leaf joins, takes its share, and is drained
    Rebalance(RebalanceArgs),
    /// Measures an empty node, many collections, and memory under load
    Footprint(FootprintArgs),
}

impl SuiteCommand {
    /// Runs the suite, which prints its tables.
    pub async fn run(&self) -> Result<SuiteReport> {
        match self {
            Self::Load(arguments) => load(arguments).await,
            Self::Jsonbench(arguments) => jsonbench(arguments).await,
            Self::Gh(arguments) => gh(arguments).await,
            Self::Searches(arguments) => searches(arguments).await,
            Self::Freshness(arguments) => freshness(arguments).await,
            Self::Interference(arguments) => interference(arguments).await,
            Self::Expression(arguments) => expression(arguments).await,
            Self::Parsers(arguments) => parsers(arguments).await,
            Self::Definitions(arguments) => definitions(arguments).await,
            Self::Deletes(arguments) => deletes(arguments).await,
            Self::Files(arguments) => files(arguments).await,
            Self::Giants(arguments) => giants(arguments).await,
            Self::FanOut(arguments) => fan_out(arguments).await,
            Self::Recovery(arguments) => recovery(arguments).await,
            Self::Replicas(arguments) => replicas(arguments).await,
            Self::Copies(arguments) => copies(arguments).await,
            Self::Distribution(arguments) => distribution(arguments).await,
            Self::Rebalance(arguments) => rebalance(arguments).await,
            Self::Footprint(arguments) => footprint(arguments).await,
        }
    }
}

/// A suite's own command line.
#[derive(Parser)]
struct SuiteLine {
    #[command(subcommand)]
    suite: SuiteCommand,
}

/// All suites in order: name, arguments, and arguments of a short run that only shows that everything works.
const SUITES: [(&str, &str, &str); 19] = [
    ("load", "", "--documents 20000 --copies 1"),
    ("jsonbench", "", "--documents 20000 --repetitions 3"),
    ("gh", "", "--copies 1 --repetitions 3"),
    ("searches", "", "--copies 1 --repetitions 3"),
    ("freshness", "", "--seconds 3 --rates 10,20 --pushes 20"),
    ("interference", "", "--documents 20000 --seconds 3"),
    ("expression", "", "--documents 20000 --repetitions 3"),
    ("parsers", "", "--documents 20000 --repetitions 3"),
    ("definitions", "", "--documents 20000 --definitions 100 --repetitions 3"),
    ("deletes", "", "--documents 20000"),
    ("files", "", "--documents 20000"),
    ("giants", "", "--documents 10000"),
    (
        "fan-out",
        "--repetitions 200",
        "--documents 20000 --repetitions 20 --leaves 1,8 --shards 4,64",
    ),
    ("recovery", "", "--documents 20000,200000 --runs 1"),
    ("replicas", "", "--documents 20000 --pushes 20 --deaths 2"),
    ("copies", "", "--documents 20000"),
    ("distribution", "--repetitions 3", "--rows 100000 --repetitions 1"),
    ("rebalance", "", "--documents 20000 --seconds 5"),
    (
        "footprint",
        "",
        "--collections 100 --documents 200000 --shard-documents 100000 --seconds 3",
    ),
];

/// Runs every suite and prints the rows of goals.
#[derive(Debug, Args)]
pub struct AllArgs {
    /// Where the figures of each suite are kept; a suite whose file is there is not run again
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
    /// Suites to run, separated by commas; all if there are none
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Runs no suite: prints the rows from the files in the folder
    #[arg(long)]
    goals: bool,
    /// Small sizes, which show that everything works; their figures say nothing
    #[arg(long)]
    short: bool,
}

/// Runs what is missing in the folder; a suite that fails does not end the others.
pub async fn all(arguments: &AllArgs) -> Result<()> {
    fs::create_dir_all(&arguments.folder)?;
    for name in &arguments.only {
        ensure!(
            SUITES.iter().any(|(suite, ..)| suite == name),
            "there is no suite {name}"
        );
    }
    let (mut reports, mut failed) = (Vec::new(), Vec::new());
    for (suite, full, short) in SUITES {
        let file = arguments.folder.join(format!("{suite}.json"));
        let is_chosen = arguments.only.is_empty() || arguments.only.iter().any(|only| only == suite);
        if !file.exists() && is_chosen && !arguments.goals {
            eprintln!("==> {suite}");
            let options = if arguments.short { short } else { full };
            let result = guarded(run_suite(suite, options, &file)).await;
            if let Err(error) = result {
                failed.push(format!("{suite}: {error:#}"));
            }
        }
        if file.exists() {
            reports.push(read(&file)?);
        }
    }
    goals::print(&reports)?;
    failed.extend(reports.iter().flat_map(|report| {
        let failures = report.failures.iter();
        failures
            .map(|failure| format!("{}: {failure}", report.suite))
            .collect::<Vec<_>>()
    }));
    ensure!(failed.is_empty(), "failed:\n{}", failed.join("\n"));
    Ok(())
}

async fn run_suite(suite: &str, options: &str, file: &Path) -> Result<()> {
    let line = ["benches", suite].into_iter().chain(options.split_whitespace());
    let mut line: Vec<String> = line.map(str::to_owned).collect();
    line.extend(["--json".to_owned(), file.display().to_string()]);
    SuiteLine::try_parse_from(line)?.suite.run().await.map(drop)
}

fn read(file: &Path) -> Result<SuiteReport> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    serde_json::from_str(&text).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_and_its_short_form_parses() {
        for (suite, full, short) in SUITES {
            for options in [full, short] {
                let line = ["benches", suite].into_iter().chain(options.split_whitespace());
                assert!(SuiteLine::try_parse_from(line).is_ok(), "{suite} {options}");
            }
        }
    }
}
