//! The figures of a suite: printed as Markdown tables, and written as JSON.

use std::{fs, io::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::{documents::DocumentSet, footprint::OtherLoad, measure::quantile, question::Question, system::SystemName};

const MEBIBYTE: f64 = (1 << 20) as f64;
/// The greatest number of runs of which [`quantile`] takes the slowest as p99.
const RUNS_OF_P99: usize = 51;

/// All figures of a suite.
#[derive(Debug, Serialize)]
pub(super) struct SuiteReport {
    suite: &'static str,
    /// Warm-ups and measured repetitions of each question.
    pub(super) runs: Option<(usize, u32)>,
    loads: Vec<LoadFigures>,
    questions: Vec<QuestionFigures>,
    pub(super) asked: Vec<AskFigures>,
    left_out: Vec<(SystemName, String)>,
    handicaps: Vec<(SystemName, &'static str)>,
    machine: String,
    /// How many cores other processes kept busy during the suite, on average: near 0 if the figures are to be trusted.
    other_cores: f64,
    #[serde(skip)]
    other_load: OtherLoad,
}

/// What it cost to load a set of documents.
#[derive(Debug, Serialize)]
pub(super) struct LoadFigures {
    pub(super) set: DocumentSet,
    pub(super) system: String,
    pub(super) documents: u64,
    /// Without line breaks.
    pub(super) raw_bytes: u64,
    /// Until all documents were acknowledged and visible.
    pub(super) seconds: f64,
    /// Until the system was idle.
    pub(super) cpu_seconds: f64,
    /// Of resident memory.
    pub(super) peak_bytes: u64,
    /// When the system was idle.
    pub(super) disk_bytes: u64,
}

/// How long a question took.
#[derive(Debug, Serialize)]
pub(super) struct QuestionFigures {
    question: &'static str,
    system: SystemName,
    p50_ms: f64,
    p99_ms: f64,
    /// Its median divided by Rachis's.
    over_rachis: Option<f64>,
    is_estimate: bool,
}

/// What it cost to ask all questions, warm-ups included.
#[derive(Debug, Serialize)]
pub(super) struct AskFigures {
    pub(super) system: SystemName,
    pub(super) cpu_seconds: f64,
    /// Of resident memory, since it was idle after loading.
    pub(super) peak_bytes: u64,
}

impl LoadFigures {
    fn megabytes_per_second(&self) -> f64 {
        self.raw_bytes as f64 / 1e6 / self.seconds
    }
}

impl QuestionFigures {
    /// The figures of these times, of which there must be at least one.
    pub(super) fn new(question: &Question, system: SystemName, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self {
            question: question.name,
            system,
            p50_ms: quantile(&times, 0.5).as_secs_f64() * 1e3,
            p99_ms: quantile(&times, 0.99).as_secs_f64() * 1e3,
            over_rachis: None,
            is_estimate: question.is_estimate(system),
        }
    }

    fn text(&self) -> String {
        let estimate = if self.is_estimate { "≈ " } else { "" };
        let ratio = self
            .over_rachis
            .map_or(String::new(), |ratio| format!(" ({})", digits(ratio)));
        format!("{estimate}{} / {}{ratio}", digits(self.p50_ms), digits(self.p99_ms))
    }
}

impl SuiteReport {
    /// A report without figures.
    pub(super) fn new(suite: &'static str, without: &[SystemName]) -> Result<Self> {
        let left_out = without.iter().map(|system| (*system, "--without".to_owned()));
        Ok(Self {
            suite,
            runs: None,
            loads: Vec::new(),
            questions: Vec::new(),
            asked: Vec::new(),
            left_out: left_out.collect(),
            handicaps: Vec::new(),
            machine: machine(),
            other_cores: 0.0,
            other_load: OtherLoad::begin()?,
        })
    }

    /// Notes that a system was left out.
    pub(super) fn leave_out(&mut self, system: SystemName, reason: &str) {
        eprintln!("{system} is left out: {reason}");
        self.left_out.push((system, reason.to_owned()));
    }

    /// Notes that a system has loaded a set of documents, with the handicap that it has for it, if any.
    pub(super) fn add_load(&mut self, system: SystemName, figures: LoadFigures) {
        self.handicaps
            .extend(system.handicap(figures.set).map(|handicap| (system, handicap)));
        self.loads.push(figures);
    }

    /// Adds the figures of a question; those of Rachis come first.
    pub(super) fn add_question(&mut self, mut figures: QuestionFigures) {
        if figures.system != SystemName::Rachis {
            let rachis = self.figures(figures.question, SystemName::Rachis);
            figures.over_rachis = rachis.map(|rachis| figures.p50_ms / rachis.p50_ms);
        }
        self.questions.push(figures);
    }

    fn figures(&self, question: &str, system: SystemName) -> Option<&QuestionFigures> {
        let mut all = self.questions.iter();
        all.find(|figures| figures.question == question && figures.system == system)
    }

    /// Prints the tables and writes the JSON file, if there is to be one.
    pub(super) fn finish(mut self, json: Option<&Path>) -> Result<()> {
        self.other_cores = self.other_load.cores()?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}\n", self.load_table())?;
        if let Some((warmups, repetitions)) = self.runs {
            writeln!(out, "{}\n", self.question_table())?;
            writeln!(
                out,
                "p50 / p99 in ms of {repetitions} runs after {warmups} warm-ups; in brackets p50 over Rachis's; \
                 ≈ an estimate; with {RUNS_OF_P99} runs or fewer p99 is the slowest"
            )?;
        }
        for (system, handicap) in &self.handicaps {
            writeln!(out, "{system} has {handicap}")?;
        }
        for (system, reason) in &self.left_out {
            writeln!(out, "left out: {system} ({reason})")?;
        }
        writeln!(
            out,
            "{}; other processes kept {:.2} cores busy meanwhile",
            self.machine, self.other_cores
        )?;
        out.flush()?;
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(&self)?;
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn load_table(&self) -> Table {
        let header = [
            "documents",
            "system",
            "MB/s",
            "over Rachis",
            "CPU s / GB",
            "peak MiB",
            "disk / raw",
        ];
        let mut table = markdown(header.map(str::to_owned).to_vec(), 2);
        for load in &self.loads {
            let of_rachis = |other: &&LoadFigures| other.set == load.set && other.system == SystemName::Rachis.as_str();
            let rachis = self.loads.iter().find(of_rachis);
            let ratio = rachis.map(|rachis| load.megabytes_per_second() / rachis.megabytes_per_second());
            table.add_row(vec![
                format!("{}, {:.0} MB", load.set.name(), load.raw_bytes as f64 / 1e6),
                load.system.clone(),
                digits(load.megabytes_per_second()),
                ratio.map_or("–".to_owned(), digits),
                digits(load.cpu_seconds / (load.raw_bytes as f64 / 1e9)),
                digits(load.peak_bytes as f64 / MEBIBYTE),
                digits(load.disk_bytes as f64 / load.raw_bytes as f64),
            ]);
        }
        table
    }

    /// A row for each question and a column for each system.
    fn question_table(&self) -> Table {
        let mut questions: Vec<&str> = Vec::new();
        for figures in &self.questions {
            if !questions.contains(&figures.question) {
                questions.push(figures.question);
            }
        }
        let systems = self.asked.iter().map(|asked| asked.system);
        let header = std::iter::once("question".to_owned()).chain(systems.clone().map(|system| system.to_string()));
        let mut table = markdown(header.collect(), 1);
        let row = |title: &str, cells: Vec<String>| [vec![title.to_owned()], cells].concat();
        for question in &questions {
            let cell = |system| {
                self.figures(question, system)
                    .map_or("–".to_owned(), QuestionFigures::text)
            };
            table.add_row(row(question, systems.clone().map(cell).collect()));
        }
        let mean = |system| {
            self.geometric_mean_ms(&questions, system)
                .map_or("–".to_owned(), digits)
        };
        table.add_row(row("geometric mean of p50, ms", systems.map(mean).collect()));
        let costs = |cost: fn(&AskFigures) -> f64| self.asked.iter().map(|asked| digits(cost(asked))).collect();
        table.add_row(row("CPU seconds of all runs", costs(|asked| asked.cpu_seconds)));
        table.add_row(row(
            "peak memory while asked, MiB",
            costs(|asked| asked.peak_bytes as f64 / MEBIBYTE),
        ));
        table
    }

    /// Of the medians of a system that answered all questions.
    fn geometric_mean_ms(&self, questions: &[&str], system: SystemName) -> Option<f64> {
        let logarithm = |question: &&str| Some(self.figures(question, system)?.p50_ms.ln());
        let sum = questions.iter().map(logarithm).sum::<Option<f64>>()?;
        Some((sum / questions.len() as f64).exp())
    }
}

/// An empty table whose first columns are texts; the others are figures, aligned to the right.
fn markdown(header: Vec<String>, texts: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(texts) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The processor of this machine, and how many cores of it there are.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find(|line| line.starts_with("model name"));
    let model = model
        .and_then(|line| line.split_once(": "))
        .map_or("an unknown processor", |(_, model)| model);
    format!("{cores} cores of {model}")
}

/// A figure with about three digits, or two if it is small.
fn digits(figure: f64) -> String {
    let decimals = match figure.abs() {
        zero if zero < 0.000_1 => 0,
        small if small < 0.001 => 5,
        small if small < 0.01 => 4,
        small if small < 1.0 => 3,
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    format!("{figure:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_two_or_three_digits() {
        let figures = [0.0, 0.000_43, 0.0043, 0.043, 0.43, 4.3, 43.0, 4_300.0];
        let texts = ["0", "0.00043", "0.0043", "0.043", "0.430", "4.30", "43.0", "4300"];
        assert_eq!(figures.map(digits), texts.map(str::to_owned));
    }

    #[test]
    fn p99_of_few_runs_is_the_slowest() {
        let times = |count| (0..count as u64).map(Duration::from_millis).collect::<Vec<_>>();
        let slowest = |count| Duration::from_millis(count as u64 - 1);
        assert_eq!(quantile(&times(RUNS_OF_P99), 0.99), slowest(RUNS_OF_P99));
        assert!(quantile(&times(RUNS_OF_P99 + 1), 0.99) < slowest(RUNS_OF_P99 + 1));
    }
}
