//! The suites `load`, `jsonbench` and `gh`: each loads the same documents into every system, one after the other, in
//! a fresh folder, and waits until the system is idle before anything is asked.
//!
//! An answer is compared with that of the first system before it is timed. The first difference ends the suite, and
//! nothing is printed. A system that refuses documents is left out, and the report says so.

mod report;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use report::{AskFigures, LoadFigures, QuestionFigures, SuiteReport};
use tests::Kafka;

pub use crate::system::SystemName;
use crate::{
    answer::Answer,
    documents::{DocumentFile, DocumentSet},
    footprint::{reset_peaks, usage},
    question::{GITHUB, JSONBENCH, Question},
    rivals,
    system::{self, Loaded, RachisServer, System},
};

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

/// What `benches jsonbench` measures.
#[derive(Debug, Args)]
pub struct JsonbenchArgs {
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

/// What `benches gh` measures.
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
    /// The systems that take part. All of them can be started.
    fn chosen(&self) -> Result<Vec<SystemName>> {
        let mut chosen = SystemName::ALL.to_vec();
        chosen.retain(|system| !self.without.contains(system));
        chosen.iter().try_for_each(|system| rivals::check(*system))?;
        Ok(chosen)
    }
}

/// Loads both sets of documents into every system, and into Rachis from Kafka too.
pub async fn load(arguments: &LoadArgs) -> Result<()> {
    let chosen = arguments.systems.chosen()?;
    let from_kafka = !arguments.without_kafka && chosen.contains(&SystemName::Rachis);
    if from_kafka {
        tests::kafka::jars()?;
    }
    let mut report = SuiteReport::new("load", &arguments.systems.without)?;
    for set in [DocumentSet::Bluesky, DocumentSet::Gh] {
        let documents = match set {
            DocumentSet::Bluesky => DocumentFile::bluesky(arguments.documents, arguments.seed)?,
            DocumentSet::Gh => DocumentFile::gh(arguments.copies)?,
        };
        for system in &chosen {
            start_and_load(*system, &documents, &mut report).await?;
            if *system == SystemName::Rachis && from_kafka {
                load_from_kafka(&documents, &mut report).await?;
            }
        }
    }
    report.finish(arguments.systems.json.as_deref())
}

/// Asks JSONBench's five questions.
pub async fn jsonbench(arguments: &JsonbenchArgs) -> Result<()> {
    let chosen = arguments.systems.chosen()?;
    let mut report = SuiteReport::new("jsonbench", &arguments.systems.without)?;
    let documents = DocumentFile::bluesky(arguments.documents, arguments.seed)?;
    ask_all(&chosen, &JSONBENCH, &documents, &arguments.runs, &mut report).await?;
    report.finish(arguments.systems.json.as_deref())
}

/// Asks twelve questions about GitHub events.
pub async fn gh(arguments: &GhArgs) -> Result<()> {
    let chosen = arguments.systems.chosen()?;
    let mut report = SuiteReport::new("gh", &arguments.systems.without)?;
    let documents = DocumentFile::gh(arguments.copies)?;
    ask_all(&chosen, &GITHUB, &documents, &arguments.runs, &mut report).await?;
    report.finish(arguments.systems.json.as_deref())
}

/// Serves a raw tantivy index in this folder on standard input and output.
pub fn serve_tantivy(folder: &Path) -> Result<()> {
    system::serve_tantivy(folder)
}

/// Starts a system and loads the documents. `None` if it refused some of them.
async fn start_and_load(
    system: SystemName,
    documents: &DocumentFile,
    report: &mut SuiteReport,
) -> Result<Option<Box<dyn System>>> {
    let set = documents.set.name();
    eprintln!("{set}: {system}: loading");
    let what = || format!("{system} with {set}");
    let mut running = system.start().await.with_context(what)?;
    let cpu_before = usage(running.process_id())?.cpu;
    let loaded = running.load(documents).await.with_context(what)?;
    if loaded.refused > 0 {
        let reason = loaded.reason.unwrap_or_default();
        let text = format!(
            "refused {} of {} documents {reason}",
            loaded.refused, documents.documents
        );
        report.leave_out(system, &format!("{set}: {}", text.trim_end()));
        return Ok(None);
    }
    let figures = load_figures(system.as_str(), documents, running.as_ref(), &loaded, cpu_before).await;
    report.add_load(system, figures.with_context(what)?);
    Ok(Some(running))
}

async fn load_from_kafka(documents: &DocumentFile, report: &mut SuiteReport) -> Result<()> {
    eprintln!("{}: rachis: loading from Kafka", documents.set.name());
    let kafka = Kafka::start().await;
    documents.produce(&kafka).await?;
    let server = RachisServer::start().await;
    let cpu_before = usage(server.process_id())?.cpu;
    let loaded = server.load_from_kafka(&kafka, documents).await?;
    let figures = load_figures("rachis, from Kafka", documents, &server, &loaded, cpu_before).await?;
    report.add_load(SystemName::Rachis, figures);
    Ok(())
}

/// Waits until the system is idle; the CPU time until then is part of the load.
async fn load_figures(
    system: &str,
    documents: &DocumentFile,
    running: &dyn System,
    loaded: &Loaded,
    cpu_before: Duration,
) -> Result<LoadFigures> {
    let disk_bytes = system::settle(running).await?;
    let used = usage(running.process_id())?;
    Ok(LoadFigures {
        set: documents.set,
        system: system.to_owned(),
        documents: documents.documents,
        raw_bytes: documents.bytes,
        seconds: loaded.time.as_secs_f64(),
        cpu_seconds: used.cpu.saturating_sub(cpu_before).as_secs_f64(),
        peak_bytes: used.peak_bytes,
        disk_bytes,
    })
}

/// Loads the documents into each system and asks all questions for which it has a text.
async fn ask_all(
    systems: &[SystemName],
    questions: &[Question],
    documents: &DocumentFile,
    runs: &RunArgs,
    report: &mut SuiteReport,
) -> Result<()> {
    report.runs = Some((runs.warmups, runs.repetitions));
    let mut expected: Vec<Option<(SystemName, Answer)>> = vec![None; questions.len()];
    for &system in systems {
        if !questions.iter().any(|question| question.is_for(system)) {
            report.leave_out(system, "no question has a text for it");
            continue;
        }
        let Some(mut running) = start_and_load(system, documents, report).await? else {
            continue;
        };
        eprintln!("{}: {system}: asking", documents.set.name());
        reset_peaks(running.process_id())?;
        let cpu_before = usage(running.process_id())?.cpu;
        for (question, expected) in questions.iter().zip(&mut expected) {
            if question.is_for(system) {
                let what = || format!("{system}: {}", question.name);
                check_answer(running.as_mut(), system, question, expected).await?;
                let times = time_question(running.as_mut(), question, runs).await;
                report.add_question(QuestionFigures::new(question, system, times.with_context(what)?));
            }
        }
        let used = usage(running.process_id())?;
        report.asked.push(AskFigures {
            system,
            cpu_seconds: used.cpu.saturating_sub(cpu_before).as_secs_f64(),
            peak_bytes: used.peak_bytes,
        });
    }
    Ok(())
}

/// Asks a question once. The answer must be the expected one; that of the first system is the expected one.
async fn check_answer(
    running: &mut dyn System,
    system: SystemName,
    question: &Question,
    expected: &mut Option<(SystemName, Answer)>,
) -> Result<()> {
    let what = || format!("{system}: {}", question.name);
    let rows = running.ask(question).await.with_context(what)?.rows;
    ensure!(!rows.is_empty(), "{system} has no answer to {:?}", question.name);
    let answer = Answer::new(question.answer, &rows).with_context(what)?;
    match expected {
        None => *expected = Some((system, answer)),
        Some((first, right)) => {
            let is_estimate = question.is_estimate(system) || question.is_estimate(*first);
            ensure!(
                right.matches(&answer, is_estimate),
                "{system} and {first} answer {:?} differently\n{first}: {right}\n{system}: {answer}",
                question.name
            );
        }
    }
    Ok(())
}

async fn time_question(running: &mut dyn System, question: &Question, runs: &RunArgs) -> Result<Vec<Duration>> {
    for _ in 0..runs.warmups {
        running.ask(question).await?;
    }
    let mut times = Vec::new();
    for _ in 0..runs.repetitions {
        times.push(running.ask(question).await?.time);
    }
    Ok(times)
}
