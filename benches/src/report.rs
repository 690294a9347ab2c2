//! The figures of a suite: a flat list, printed as Markdown tables and written as JSON.
//!
//! A part that fails is noted with its reason; the figures of the other parts are still printed.

use std::{
    any::Any,
    fs,
    io::Write as _,
    panic::AssertUnwindSafe,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use comfy_table::{CellAlignment, Table, presets};
use futures::FutureExt as _;
use serde::{Deserialize, Serialize};

use crate::{
    footprint::{OtherLoad, Usage},
    measure::quantile,
    system::SystemName,
};

pub(crate) const MEBIBYTE: f64 = (1 << 20) as f64;
/// The greatest number of runs of which [`quantile`] takes the slowest as p99.
const RUNS_OF_P99: usize = 51;
/// The table that has a column for each system, with p50 and p99 in one cell.
pub(crate) const QUESTIONS: &str = "questions";
/// Its last row.
pub(crate) const MEAN: &str = "geometric mean of p50";
/// The names of figures that goals and tables refer to.
pub(crate) const P50_MS: &str = "p50 ms";
pub(crate) const P99_MS: &str = "p99 ms";
const OVER_RACHIS: &str = "over Rachis";

/// One figure: the value of `name` for `what` with `system`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) table: String,
    pub(crate) what: String,
    pub(crate) system: String,
    /// With its unit.
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// All figures of a suite.
#[derive(Debug, Serialize, Deserialize)]
pub struct SuiteReport {
    pub(crate) suite: String,
    pub(crate) figures: Vec<Figure>,
    /// Question and system of answers that are estimates.
    estimates: Vec<(String, String)>,
    /// What the reader must know.
    notes: Vec<String>,
    /// What failed, and why.
    pub(crate) failures: Vec<String>,
    machine: String,
    seconds: f64,
    /// How many cores other processes kept busy during the suite, on average: near 0 if the figures are to be trusted.
    other_cores: f64,
    #[serde(skip)]
    begun: Option<(Instant, OtherLoad)>,
}

/// Runs a part of a suite. A panic (helpers of tests panic where a test would fail) becomes an error.
pub(crate) async fn guarded<T>(part: impl Future<Output = Result<T>>) -> Result<T> {
    let result = AssertUnwindSafe(part).catch_unwind().await;
    result.unwrap_or_else(|panic| Err(anyhow!("{}", panic_text(panic.as_ref()))))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a text")
}

impl SuiteReport {
    /// A report without figures.
    pub(crate) fn new(suite: &str) -> Result<Self> {
        Ok(Self {
            suite: suite.to_owned(),
            figures: Vec::new(),
            estimates: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
            machine: machine(),
            seconds: 0.0,
            other_cores: 0.0,
            begun: Some((Instant::now(), OtherLoad::begin()?)),
        })
    }

    /// Adds a note, once.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Notes that a part of the suite failed.
    pub(crate) fn fail(&mut self, what: &str, error: &anyhow::Error) {
        let text = format!("{what}: {error:#}");
        eprintln!("FAILED: {text}");
        self.failures.push(text);
    }

    /// Adds figures of one thing with one system to a table.
    pub(crate) fn add(&mut self, table: &str, what: &str, system: impl ToString, figures: &[(&str, f64)]) {
        let system = system.to_string();
        self.figures.extend(figures.iter().map(|(name, value)| Figure {
            table: table.to_owned(),
            what: what.to_owned(),
            system: system.clone(),
            name: (*name).to_owned(),
            value: *value,
        }));
    }

    /// Adds the median and the 99th percentile; there must be at least one time.
    pub(crate) fn add_times(&mut self, table: &str, what: &str, system: impl ToString, times: Vec<Duration>) {
        let (p50, p99) = percentiles_ms(times);
        self.add(table, what, system, &[(P50_MS, p50), (P99_MS, p99)]);
    }

    /// Adds what a system used.
    pub(crate) fn add_usage(&mut self, table: &str, what: &str, system: impl ToString, before: Usage, after: Usage) {
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        let peak = after.peak_bytes as f64 / MEBIBYTE;
        self.add(table, what, system, &[("CPU s", cpu), ("peak MiB", peak)]);
    }

    /// Adds the times of a question; those of Rachis come first.
    pub(crate) fn add_question(&mut self, name: &str, system: SystemName, times: Vec<Duration>, is_estimate: bool) {
        self.add_times(QUESTIONS, name, system, times);
        if is_estimate {
            self.estimates.push((name.to_owned(), system.to_string()));
        }
        let p50 = |system: SystemName| self.value(QUESTIONS, name, system.as_str(), P50_MS);
        if let (Some(own), Some(rachis), false) = (p50(system), p50(SystemName::Rachis), system == SystemName::Rachis) {
            self.add(QUESTIONS, name, system, &[(OVER_RACHIS, own / rachis)]);
        }
    }

    /// Adds the geometric mean of the medians of each system that answered all questions.
    pub(crate) fn add_means(&mut self) {
        let questions = distinct(self.rows(QUESTIONS).map(|figure| figure.what.as_str()));
        let mut means = Vec::new();
        for system in distinct(self.rows(QUESTIONS).map(|figure| figure.system.as_str())) {
            let logarithm = |what: &String| Some(self.value(QUESTIONS, what, &system, P50_MS)?.ln());
            if let Some(sum) = questions.iter().map(logarithm).sum::<Option<f64>>() {
                means.push((system, (sum / questions.len() as f64).exp()));
            }
        }
        for (system, mean) in means {
            self.add(QUESTIONS, MEAN, system, &[(P50_MS, mean)]);
        }
    }

    /// A figure, if it was measured.
    pub(crate) fn value(&self, table: &str, what: &str, system: &str, name: &str) -> Option<f64> {
        let is_it = |figure: &&Figure| figure.what == what && figure.system == system && figure.name == name;
        self.rows(table).find(is_it).map(|figure| figure.value)
    }

    fn rows<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a Figure> {
        self.figures.iter().filter(move |figure| figure.table == table)
    }

    /// Prints the tables and writes the JSON file, if there is to be one. Returns the report.
    pub(crate) fn finish(mut self, json: Option<&Path>) -> Result<Self> {
        if let Some((begun, other)) = self.begun.take() {
            (self.seconds, self.other_cores) = (begun.elapsed().as_secs_f64(), other.cores()?);
        }
        self.print()?;
        if let Some(path) = json {
            let text = serde_json::to_string_pretty(&self)?;
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(self)
    }

    /// An error if a part failed, so that the exit status says so.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.failures.is_empty(),
            "{}: {} parts failed",
            self.suite,
            self.failures.len()
        );
        Ok(())
    }

    fn print(&self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "## {}\n", self.suite)?;
        for title in distinct(self.figures.iter().map(|figure| figure.table.as_str())) {
            let table = match title.as_str() {
                QUESTIONS => self.question_table(),
                _ => self.figure_table(&title),
            };
            writeln!(out, "{table}\n")?;
        }
        for note in &self.notes {
            writeln!(out, "- {note}")?;
        }
        for failure in &self.failures {
            writeln!(out, "- FAILED: {failure}")?;
        }
        writeln!(
            out,
            "- {}; {:.0} s; other processes kept {:.2} cores busy meanwhile\n",
            self.machine, self.seconds, self.other_cores
        )?;
        out.flush()?;
        Ok(())
    }

    /// A row for each thing and system, a column for each name.
    fn figure_table(&self, title: &str) -> Table {
        let names = distinct(self.rows(title).map(|figure| figure.name.as_str()));
        let mut header = vec![title.to_owned(), "system".to_owned()];
        header.extend(names.iter().cloned());
        let mut table = markdown(header, 2);
        let mut keys: Vec<(&str, &str)> = Vec::new();
        for figure in self.rows(title) {
            let key = (figure.what.as_str(), figure.system.as_str());
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        for (what, system) in keys {
            let cell = |name: &String| self.value(title, what, system, name).map_or("–".to_owned(), digits);
            let cells = names.iter().map(cell);
            table.add_row([what.to_owned(), system.to_owned()].into_iter().chain(cells));
        }
        table
    }

    /// A row for each question and a column for each system.
    fn question_table(&self) -> Table {
        let questions = distinct(self.rows(QUESTIONS).map(|figure| figure.what.as_str()));
        let systems = distinct(self.rows(QUESTIONS).map(|figure| figure.system.as_str()));
        let header = std::iter::once("ms, p50 / p99 (p50 over Rachis)".to_owned()).chain(systems.iter().cloned());
        let mut table = markdown(header.collect(), 1);
        for question in &questions {
            let cells = systems.iter().map(|system| self.question_cell(question, system));
            table.add_row(std::iter::once(question.clone()).chain(cells));
        }
        table
    }

    fn question_cell(&self, question: &str, system: &str) -> String {
        let value = |name| self.value(QUESTIONS, question, system, name);
        let Some(p50) = value(P50_MS) else {
            return "–".to_owned();
        };
        let is_estimate = |(what, who): &(String, String)| what == question && who == system;
        let mut text = digits(p50);
        if self.estimates.iter().any(is_estimate) {
            text.insert_str(0, "≈ ");
        }
        if let Some(p99) = value(P99_MS) {
            text.push_str(&format!(" / {}", digits(p99)));
        }
        if let Some(ratio) = value(OVER_RACHIS) {
            text.push_str(&format!(" ({})", digits(ratio)));
        }
        text
    }
}

/// What to say about repeated questions.
pub(crate) fn runs_note(warmups: usize, repetitions: u32) -> String {
    format!(
        "{repetitions} runs of each question after {warmups} warm-ups; ≈ an estimate; with {RUNS_OF_P99} runs or \
         fewer p99 is the slowest"
    )
}

/// p50 and p99 in milliseconds; there must be at least one time.
pub(crate) fn percentiles_ms(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort_unstable();
    let of = |share| quantile(&times, share).as_secs_f64() * 1e3;
    (of(0.5), of(0.99))
}

/// Each text once, in the order of first appearance.
fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for text in texts {
        if !found.iter().any(|other| other == text) {
            found.push(text.to_owned());
        }
    }
    found
}

/// An empty table whose first columns are texts; the others are figures, aligned to the right.
pub(crate) fn markdown(header: Vec<String>, texts: usize) -> Table {
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
pub(crate) fn digits(figure: f64) -> String {
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
