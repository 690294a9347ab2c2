//! The suites. `load`, `jsonbench`, `gh`, `expression` and `parsers` load the same documents into every system, one after the
//! other, in a fresh folder, and wait until the system is idle before anything is asked (here). Each of the others is
//! a file of its own.
//!
//! An answer is compared with that of the first system before it is timed. What differs, or fails, is reported with its
//! reason instead of a time; the other systems and questions go on.

mod all;
mod copies;
mod definitions;
mod deletes;
mod distribution;
mod expression;
mod fan_out;
mod files;
mod freshness;
mod giants;
mod goals;
mod interference;
mod node;
mod parsers;
mod rebalance;
mod recovery;
mod replicas;
mod searches;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use tests::Kafka;

pub use self::{
    all::{AllArgs, SuiteCommand, all},
    copies::{CopiesArgs, copies},
    definitions::{DefinitionsArgs, definitions},
    deletes::{DeletesArgs, deletes},
    distribution::{DistributionArgs, distribution},
    expression::expression,
    fan_out::{FanOutArgs, fan_out},
    files::{FilesArgs, files},
    freshness::{FreshnessArgs, freshness},
    giants::{GiantsArgs, giants},
    interference::{InterferenceArgs, interference},
    node::{FootprintArgs, footprint},
    parsers::parsers,
    rebalance::{RebalanceArgs, rebalance},
    recovery::{RecoveryArgs, recovery},
    replicas::{ReplicasArgs, replicas},
    searches::searches,
};
use crate::{
    answer::Answer,
    consumer,
    documents::{DocumentFile, DocumentSet},
    footprint::{Usage, reset_peaks, usage},
    question::{GITHUB, JSONBENCH, Question},
    report::{MEBIBYTE, guarded, runs_note},
    rivals,
    system::{self, Loaded, RachisServer, System},
};
pub use crate::{report::SuiteReport, system::SystemName};

/// Partitions of a topic.
const PARTITIONS: i32 = 2;
/// What it cost to load documents.
const LOAD: &str = "load";
/// What it cost to ask all questions, warm-ups included; the peak is since the system was idle after loading.
const ASKED: &str = "asked";
/// The time that threads spent looking up conditions in indexes.
pub(crate) const IN_INDEX: &str = "searches, within the index";

/// Which systems take part, and where the figures go.
#[derive(Debug, Args)]
pub struct SystemArgs {
    /// Systems to leave out, separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    without: Vec<SystemName>,
    /// Writes the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How often each question is asked.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Times that a question is asked before it is measured
    #[arg(long, default_value_t = 3)]
    warmups: usize,
    /// Times that a question is measured
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
}

/// What `benches load` measures.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Bluesky-like documents
    #[arg(long, default_value_t = 1_000_000)]
    documents: u64,
    /// Copies of the GitHub events
    #[arg(long, default_value_t = 20)]
    copies: u64,
    /// Seed of the Bluesky-like documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leaves out loading from Kafka
    #[arg(long)]
    without_kafka: bool,
    #[command(flatten)]
    systems: SystemArgs,
}

/// What `benches jsonbench`, `benches expression` and `benches parsers` measure.
#[derive(Debug, Args)]
pub struct GeneratedArgs {
    /// Bluesky-like documents
    #[arg(long, default_value_t = 1_000_000)]
    documents: u64,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    runs: RunArgs,
    #[command(flatten)]
    systems: SystemArgs,
}

/// What `benches gh` and `benches searches` measure.
#[derive(Debug, Args)]
pub struct GhArgs {
    /// Copies of the GitHub events
    #[arg(long, default_value_t = 20)]
    copies: u64,
    #[command(flatten)]
    runs: RunArgs,
    #[command(flatten)]
    systems: SystemArgs,
}

impl SystemArgs {
    /// Those of `systems` that take part. All of them can be started; those left out are noted.
    fn chosen(&self, systems: &[SystemName], report: &mut SuiteReport) -> Result<Vec<SystemName>> {
        let (out, chosen): (Vec<SystemName>, Vec<SystemName>) =
            systems.iter().partition(|system| self.without.contains(system));
        out.iter()
            .for_each(|system| report.note(format!("left out: {system} (--without)")));
        chosen.iter().try_for_each(|system| rivals::check(*system))?;
        Ok(chosen)
    }

    fn json(&self) -> Option<&Path> {
        self.json.as_deref()
    }
}

/// Loads both sets of documents into every system, and into Rachis from Kafka too.
pub async fn load(arguments: &LoadArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("load")?;
    let chosen = arguments.systems.chosen(&SystemName::ALL, &mut report)?;
    let from_kafka = !arguments.without_kafka && chosen.contains(&SystemName::Rachis);
    if from_kafka {
        tests::kafka::jars()?;
    }
    for set in [DocumentSet::Bluesky, DocumentSet::Gh] {
        let documents = match set {
            DocumentSet::Gh => DocumentFile::gh(arguments.copies)?,
            _ => DocumentFile::bluesky(arguments.documents, arguments.seed)?,
        };
        for system in &chosen {
            start_and_load(*system, &documents, &mut report).await;
            if *system == SystemName::Rachis && from_kafka {
                let loaded = guarded(load_from_kafka(&documents, &mut report)).await;
                loaded.unwrap_or_else(|error| report.fail(freshness::VIA_KAFKA, &error));
            }
        }
    }
    report.finish(arguments.systems.json())
}

/// Asks JSONBench's five questions.
pub async fn jsonbench(arguments: &GeneratedArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("jsonbench")?;
    let systems = [SystemName::ALL.as_slice(), &[SystemName::RachisWithCache]].concat();
    let chosen = arguments.systems.chosen(&systems, &mut report)?;
    let documents = DocumentFile::bluesky(arguments.documents, arguments.seed)?;
    ask_all(&chosen, &JSONBENCH, &documents, &arguments.runs, &mut report).await;
    report.finish(arguments.systems.json())
}

/// Asks questions about GitHub events.
pub async fn gh(arguments: &GhArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("gh")?;
    let chosen = arguments.systems.chosen(&SystemName::ALL, &mut report)?;
    let documents = DocumentFile::gh(arguments.copies)?;
    ask_all(&chosen, &GITHUB, &documents, &arguments.runs, &mut report).await;
    report.finish(arguments.systems.json())
}

/// Serves a raw tantivy index in this folder on standard input and output.
pub fn serve_tantivy(folder: &Path) -> Result<()> {
    system::serve_tantivy(folder)
}

/// Starts a system and loads the documents. `None` if it failed or refused some of them, which the report then says.
async fn start_and_load(
    system: SystemName,
    documents: &DocumentFile,
    report: &mut SuiteReport,
) -> Option<Box<dyn System>> {
    let set = documents.set.name();
    eprintln!("{set}: {system}: loading");
    let load = async {
        let mut running = system.start().await?;
        let before = usage(running.process_id())?;
        let loaded = running.load(documents).await?;
        if loaded.refused == 0 {
            add_load(system.as_str(), documents, running.as_ref(), &loaded, before, report).await?;
            running.define(documents.set).await?;
        }
        Ok((running, loaded))
    };
    match guarded(load).await {
        Ok((running, loaded)) if loaded.refused == 0 => {
            if let Some(handicap) = system.handicap(documents.set) {
                report.note(format!("{system} has {handicap}"));
            }
            Some(running)
        }
        Ok((_, loaded)) => {
            let (refused, all) = (loaded.refused, documents.documents);
            let reason = loaded.reason.unwrap_or_default();
            report.note(format!(
                "left out: {system} with {set}: refused {refused} of {all} documents {reason}"
            ));
            None
        }
        Err(error) => {
            report.fail(&format!("{system} with {set}"), &error);
            None
        }
    }
}

/// Loads a topic, and reads it with a consumer that discards everything: the limit.
async fn load_from_kafka(documents: &DocumentFile, report: &mut SuiteReport) -> Result<()> {
    eprintln!("{}: rachis: loading from Kafka", documents.set.name());
    let kafka = Kafka::start().await;
    documents.produce(&kafka, PARTITIONS).await?;
    let consumed = consumer::consume(&kafka, documents, PARTITIONS).await?;
    let rate = documents.bytes as f64 / 1e6 / consumed.as_secs_f64();
    report.add(LOAD, &what(documents), "a consumer that discards", &[("MB/s", rate)]);
    let server = RachisServer::start().await;
    let before = usage(server.process_id())?;
    let loaded = server.load_from_kafka(&kafka, documents).await?;
    add_load(freshness::VIA_KAFKA, documents, &server, &loaded, before, report).await
}

/// A set of documents in a table.
fn what(documents: &DocumentFile) -> String {
    format!("{}, {:.0} MB", documents.set.name(), documents.bytes as f64 / 1e6)
}

/// Waits until the system is idle; the CPU time until then is part of the load.
async fn add_load(
    system: &str,
    documents: &DocumentFile,
    running: &dyn System,
    loaded: &Loaded,
    before: Usage,
    report: &mut SuiteReport,
) -> Result<()> {
    let disk_bytes = system::settle(running).await?;
    let used = usage(running.process_id())?;
    let (what, bytes) = (what(documents), documents.bytes as f64);
    let rate = bytes / 1e6 / loaded.time.as_secs_f64();
    let rachis = report
        .value(LOAD, &what, SystemName::Rachis.as_str(), "MB/s")
        .unwrap_or(rate);
    let figures = [
        ("MB/s", rate),
        ("over Rachis", rate / rachis),
        (
            "CPU s / GB",
            used.cpu.saturating_sub(before.cpu).as_secs_f64() / (bytes / 1e9),
        ),
        ("peak MiB", used.peak_bytes as f64 / MEBIBYTE),
        ("disk / raw", disk_bytes as f64 / bytes),
    ];
    report.add(LOAD, &what, system, &figures);
    Ok(())
}

/// Loads the documents into each system and asks all questions for which it has a text.
async fn ask_all(
    systems: &[SystemName],
    questions: &[Question],
    documents: &DocumentFile,
    runs: &RunArgs,
    report: &mut SuiteReport,
) {
    report.note(runs_note(runs.warmups, runs.repetitions));
    let mut expected: Vec<Option<(SystemName, Answer)>> = vec![None; questions.len()];
    for &system in systems {
        if !questions.iter().any(|question| question.is_for(system)) {
            report.note(format!("left out: {system} (no question has a text for it)"));
            continue;
        }
        if let Some(running) = start_and_load(system, documents, report).await {
            let asked = ask_systems(&[(system, running)], questions, &mut expected, runs, report).await;
            asked.unwrap_or_else(|error| report.fail(system.as_str(), &error));
        }
    }
    report.add_means();
}

/// Loads the documents into all systems, and asks them in turns: a machine that is faster at one time than at another
/// is so for all of them.
async fn ask_in_turns(
    systems: &[SystemName],
    questions: &[Question],
    documents: &DocumentFile,
    runs: &RunArgs,
    report: &mut SuiteReport,
) {
    report.note(format!(
        "{}, the systems in turns",
        runs_note(runs.warmups, runs.repetitions)
    ));
    let mut loaded = Vec::new();
    for &system in systems {
        let running = start_and_load(system, documents, report).await;
        loaded.extend(running.map(|running| (system, running)));
    }
    let mut expected = vec![None; questions.len()];
    let asked = ask_systems(&loaded, questions, &mut expected, runs, report).await;
    asked.unwrap_or_else(|error| report.fail(ASKED, &error));
    report.add_means();
}

/// Asks systems that have all documents, in turns.
async fn ask_systems(
    systems: &[(SystemName, Box<dyn System>)],
    questions: &[Question],
    expected: &mut [Option<(SystemName, Answer)>],
    runs: &RunArgs,
    report: &mut SuiteReport,
) -> Result<()> {
    let mut before = Vec::new();
    for (system, running) in systems {
        eprintln!("{system}: asking");
        reset_peaks(running.process_id())?;
        before.push(usage(running.process_id())?);
    }
    for (question, expected) in questions.iter().zip(expected) {
        let mut right = Vec::new();
        for (system, running) in systems.iter().filter(|(system, _)| question.is_for(*system)) {
            match guarded(check_answer(running.as_ref(), *system, question, expected)).await {
                Ok(()) => right.push((*system, running.as_ref())),
                Err(error) => report.fail(&format!("{system}: {}", question.name), &error),
            }
        }
        match guarded(time_question(&right, question, runs)).await {
            Ok(times) => right.iter().zip(times).for_each(|((system, _), times)| {
                report.add_question(question.name, *system, times.whole, question.is_estimate(*system));
                if question.is_for(SystemName::Tantivy) && !times.in_index.is_empty() {
                    report.add_times(IN_INDEX, question.name, *system, times.in_index);
                }
            }),
            Err(error) => report.fail(question.name, &error),
        }
    }
    for ((system, running), before) in systems.iter().zip(before) {
        report.add_usage(ASKED, "all runs", *system, before, usage(running.process_id())?);
    }
    Ok(())
}

/// Asks a question once. The answer must be the expected one; that of the first system is the expected one.
async fn check_answer(
    running: &dyn System,
    system: SystemName,
    question: &Question,
    expected: &mut Option<(SystemName, Answer)>,
) -> Result<()> {
    let rows = running.ask(question).await?.rows;
    ensure!(!rows.is_empty(), "no answer");
    let answer = Answer::new(question.answer, &rows)?;
    match expected {
        None => *expected = Some((system, answer)),
        Some((first, right)) => {
            let is_estimate = question.is_estimate(system) || question.is_estimate(*first);
            ensure!(
                right.matches(&answer, is_estimate),
                "the answer differs from that of {first}\n{first}: {right}\n{system}: {answer}"
            );
        }
    }
    Ok(())
}

/// The times of all repetitions of a question to a system.
#[derive(Clone, Default)]
struct QuestionTimes {
    whole: Vec<Duration>,
    /// Of systems that say it.
    in_index: Vec<Duration>,
}

/// The times of each of the systems, which are asked in turns.
async fn time_question(
    systems: &[(SystemName, &dyn System)],
    question: &Question,
    runs: &RunArgs,
) -> Result<Vec<QuestionTimes>> {
    let mut times = vec![QuestionTimes::default(); systems.len()];
    for run in 0..runs.warmups + runs.repetitions as usize {
        for ((system, running), times) in systems.iter().zip(&mut times) {
            let asked = running.ask(question).await;
            let asked = asked.with_context(|| format!("{system}: run {run}"))?;
            if run >= runs.warmups {
                times.whole.push(asked.time);
                times.in_index.extend(asked.index_time);
            }
        }
    }
    Ok(times)
}
