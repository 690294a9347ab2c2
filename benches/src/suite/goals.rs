//! The goals: seventeen rows, each with what was measured, what is aimed at and what must hold.

use std::io::Write as _;

use anyhow::Result;

use super::{IN_INDEX, LOAD, SuiteReport, SystemName, node, recovery};
use crate::{
    documents::DocumentSet,
    question::{Question, SEARCHES, SELECTIVE, UNSELECTIVE},
    report::{Figure, MEAN, P50_MS, P99_MS, QUESTIONS, digits, markdown},
};

/// The sets of documents of the suite `load`.
const LOADED_SETS: [DocumentSet; 2] = [DocumentSet::Bluesky, DocumentSet::Gh];

/// One figure that has a goal.
struct Goal {
    row: &'static str,
    what: &'static str,
    measured: Option<f64>,
    goal: f64,
    /// What must hold, if that is less than the goal.
    must: Option<f64>,
    /// Whether greater is better.
    at_least: bool,
}

impl Goal {
    fn verdict(&self) -> &'static str {
        let Some(measured) = self.measured else {
            return "not measured";
        };
        let holds = |limit: f64| match self.at_least {
            true => measured >= limit,
            false => measured <= limit,
        };
        match self.must {
            _ if holds(self.goal) => "pass",
            Some(must) if holds(must) => "must holds",
            _ => "MISS",
        }
    }
}

/// Prints all rows, from the figures of the suites that were run.
pub(super) fn print(reports: &[SuiteReport]) -> Result<()> {
    let header = ["row", "goal", "measured", "goal at", "must", ""];
    let mut table = markdown(header.map(str::to_owned).to_vec(), 2);
    for goal in goals(&Measured(reports)) {
        let sign = if goal.at_least { "≥" } else { "≤" };
        let limit = |limit: f64| format!("{sign} {}", digits(limit));
        table.add_row(vec![
            goal.row.to_owned(),
            goal.what.to_owned(),
            goal.measured.map_or("–".to_owned(), digits),
            limit(goal.goal),
            goal.must.map_or("–".to_owned(), limit),
            goal.verdict().to_owned(),
        ]);
    }
    writeln!(std::io::stdout().lock(), "## goals\n\n{table}")?;
    Ok(())
}

/// The figures of all suites that were run.
struct Measured<'a>(&'a [SuiteReport]);

impl Measured<'_> {
    fn find(&self, suite: &str, is_it: impl Fn(&Figure) -> bool) -> Option<f64> {
        let report = self.0.iter().find(|report| report.suite == suite)?;
        report
            .figures
            .iter()
            .find(|figure| is_it(figure))
            .map(|figure| figure.value)
    }

    fn value(&self, suite: &str, table: &str, what: &str, system: &str, name: &str) -> Option<f64> {
        self.find(suite, |figure| {
            figure.table == table && figure.what == what && figure.system == system && figure.name == name
        })
    }

    /// Of loading a set of documents.
    fn load(&self, set: DocumentSet, system: &str, name: &str) -> Option<f64> {
        self.find("load", |figure| {
            let is_set = figure.table == LOAD && figure.what.split(',').next() == Some(set.name());
            is_set && figure.system == system && figure.name == name
        })
    }

    /// The rate of loading over that of another system, for the set of documents where it is lower. A system that
    /// refuses a set has no rate for it.
    fn load_over(&self, own: &str, other: SystemName) -> Option<f64> {
        let rate = |set, system| self.load(set, system, "MB/s");
        let own: Option<Vec<f64>> = LOADED_SETS.iter().map(|set| rate(*set, own)).collect();
        let others = LOADED_SETS.map(|set| rate(set, other.as_str()));
        let ratios = own?
            .into_iter()
            .zip(others)
            .filter_map(|(own, other)| over(Some(own), other));
        ratios.reduce(f64::min)
    }

    /// Of the set of documents that takes more.
    fn disk(&self) -> Option<f64> {
        let disk = |set: &DocumentSet| self.load(*set, SystemName::Rachis.as_str(), "disk / raw");
        let disks: Option<Vec<f64>> = LOADED_SETS.iter().map(disk).collect();
        disks?.into_iter().reduce(f64::max)
    }

    /// The worst p50 of a search within Rachis' index, over that of raw tantivy.
    fn in_index_over_tantivy(&self, questions: &[&str]) -> Option<f64> {
        let p50 = |question: &str, system: SystemName| self.value("gh", IN_INDEX, question, system.as_str(), P50_MS);
        let ratio = |question: &&str| over(p50(question, SystemName::Rachis), p50(question, SystemName::Tantivy));
        let ratios: Option<Vec<f64>> = questions.iter().map(ratio).collect();
        ratios?.into_iter().reduce(f64::max)
    }

    fn question(&self, suite: &str, question: &str, system: SystemName, name: &str) -> Option<f64> {
        self.value(suite, QUESTIONS, question, system.as_str(), name)
    }

    /// The worst p50 of some questions of `gh`, over the best of some systems; over nothing if there are none.
    fn worst(&self, questions: &[&str], over: &[SystemName]) -> Option<f64> {
        let ratio = |question: &&str| {
            let own = self.question("gh", question, SystemName::Rachis, P50_MS)?;
            let others: Option<Vec<f64>> = over
                .iter()
                .map(|system| self.question("gh", question, *system, P50_MS))
                .collect();
            Some(others?.into_iter().reduce(f64::min).map_or(own, |best| own / best))
        };
        let ratios: Option<Vec<f64>> = questions.iter().map(ratio).collect();
        ratios?.into_iter().reduce(f64::max)
    }

    /// The worst p50 of a search, over that of OpenSearch.
    fn searches(&self) -> Option<f64> {
        let p50 = |name, system| self.question("searches", name, system, P50_MS);
        let ratio = |search: &Question| {
            over(
                p50(search.name, SystemName::Rachis),
                p50(search.name, SystemName::OpenSearch),
            )
        };
        let ratios: Option<Vec<f64>> = SEARCHES.iter().map(ratio).collect();
        ratios?.into_iter().reduce(f64::max)
    }

    /// The worst p50 of chdb over that of Rachis, or the reverse.
    fn expression(&self, questions: &[&str], speed: bool) -> Option<f64> {
        let ratio = |question: &&str| {
            let own = self.question("expression", question, SystemName::Rachis, P50_MS)?;
            let chdb = self.question("expression", question, SystemName::Chdb, P50_MS)?;
            Some(if speed { chdb / own } else { own / chdb })
        };
        let ratios: Option<Vec<f64>> = questions.iter().map(ratio).collect();
        ratios?.into_iter().reduce(if speed { f64::min } else { f64::max })
    }

    fn small_question(&self, table: &str, number: &str, name: &str) -> Option<f64> {
        let table = super::fan_out::table_name(table, super::fan_out::SMALL);
        self.value("fan-out", &table, number, "rachis", name)
    }

    /// The time of the first right answer after `kill -9` with the fewest and with the most documents.
    fn recovered_ms(&self) -> Option<(f64, f64)> {
        let report = self.0.iter().find(|report| report.suite == "recovery")?;
        let killed = |figure: &&Figure| {
            let is_first_answer = figure.name == recovery::FIRST_ANSWER_MS && figure.table == recovery::RECOVERY;
            is_first_answer && figure.system == SystemName::Rachis.as_str() && figure.what.ends_with("kill -9")
        };
        let documents = |figure: &Figure| figure.what.split(',').next()?.parse::<u64>().ok();
        let mut figures: Vec<&Figure> = report.figures.iter().filter(killed).collect();
        figures.sort_by_key(|figure| documents(figure));
        let (first, last) = (figures.first()?, figures.last()?);
        (figures.len() > 1).then_some((first.value, last.value))
    }
}

fn at_most(
    row: &'static str,
    what: &'static str,
    measured: Option<f64>,
    goal: f64,
    must: impl Into<Option<f64>>,
) -> Goal {
    Goal {
        row,
        what,
        measured,
        goal,
        must: must.into(),
        at_least: false,
    }
}

fn at_least(
    row: &'static str,
    what: &'static str,
    measured: Option<f64>,
    goal: f64,
    must: impl Into<Option<f64>>,
) -> Goal {
    Goal {
        at_least: true,
        ..at_most(row, what, measured, goal, must)
    }
}

fn over(own: Option<f64>, other: Option<f64>) -> Option<f64> {
    Some(own? / other?)
}

/// All rows.
fn goals(measured: &Measured<'_>) -> Vec<Goal> {
    let mut goals = ingest_goals(measured);
    goals.extend(question_goals(measured));
    goals.extend(service_goals(measured));
    let number = |goal: &Goal| goal.row.trim_end_matches('a').parse::<u32>().unwrap_or_default();
    goals.sort_by_key(number);
    goals
}

/// Rows 1 to 3 and 9.
fn ingest_goals(measured: &Measured<'_>) -> Vec<Goal> {
    use super::freshness::{FRESHNESS, PUSH_100, VIA_KAFKA};
    let by_push = |system| measured.load_over(SystemName::Rachis.as_str(), system);
    let from_kafka = |system| measured.load_over(VIA_KAFKA, system);
    let fresh = |rate, name| measured.value("freshness", FRESHNESS, rate, VIA_KAFKA, name);
    let push = |name| measured.value("freshness", PUSH_100, "acknowledged and found", "rachis", name);
    vec![
        at_least(
            "1",
            "load by push, over VictoriaLogs",
            by_push(SystemName::VictoriaLogs),
            1.0,
            0.6,
        ),
        at_least(
            "1",
            "load from Kafka, over VictoriaLogs",
            from_kafka(SystemName::VictoriaLogs),
            1.0,
            0.6,
        ),
        at_least(
            "1",
            "load by push, over stock tantivy",
            by_push(SystemName::Tantivy),
            1.8,
            1.2,
        ),
        at_least(
            "1",
            "load from Kafka, over stock tantivy",
            from_kafka(SystemName::Tantivy),
            1.8,
            1.2,
        ),
        at_least(
            "1",
            "load by push, over OpenSearch",
            by_push(SystemName::OpenSearch),
            8.0,
            5.0,
        ),
        at_least(
            "1",
            "load from Kafka, over OpenSearch",
            from_kafka(SystemName::OpenSearch),
            8.0,
            5.0,
        ),
        at_least(
            "2",
            "20 MB/s: MB/s reached",
            fresh("20 MB/s", "MB/s reached"),
            19.5,
            None,
        ),
        at_most(
            "2",
            "20 MB/s: produce to visible, p50 ms",
            fresh("20 MB/s", P50_MS),
            20.0,
            None,
        ),
        at_most(
            "2",
            "20 MB/s: produce to visible, p99 ms",
            fresh("20 MB/s", P99_MS),
            70.0,
            None,
        ),
        at_most(
            "2",
            "10 MB/s: produce to visible, p99 ms",
            fresh("10 MB/s", P99_MS),
            70.0,
            250.0,
        ),
        at_most("3", "push of 100, found, p50 ms", push(P50_MS), 6.0, None),
        at_most("3", "push of 100, found, p99 ms", push(P99_MS), 15.0, None),
        at_most("9", "disk / raw", measured.disk(), 0.45, 0.6),
    ]
}

/// Rows 4 to 8.
fn question_goals(measured: &Measured<'_>) -> Vec<Goal> {
    const GROUPS: [&str; 6] = [
        "count",
        "by type",
        "top repositories",
        "distinct actors",
        "by 10 minutes and type",
        "average and maximum",
    ];
    const NEWEST: [&str; 2] = ["newest 20 of an actor", "newest 20 with a word"];
    const FIELD: &str = "document by a field";
    const WORDS: [&str; 3] = ["word", "two words", "phrase"];
    let (rachis, open_search) = (SystemName::Rachis, [SystemName::OpenSearch]);
    let mean = |system| measured.question("jsonbench", MEAN, system, P50_MS);
    let mean_over = |system| over(mean(rachis), mean(system));
    let field = |name| measured.question("gh", FIELD, rachis, name);
    let best = [SystemName::Duckdb, SystemName::VictoriaLogs];
    let words = measured.worst(&WORDS, &[]);
    let in_index = measured.in_index_over_tantivy(&WORDS);
    let unselective = measured.expression(&UNSELECTIVE, false);
    let selective = measured.expression(&SELECTIVE, true);
    vec![
        at_most(
            "4",
            "JSONBench mean, over VictoriaLogs",
            mean_over(SystemName::VictoriaLogs),
            0.8,
            None,
        ),
        at_most(
            "4",
            "JSONBench mean, over chdb without hints",
            mean_over(SystemName::Chdb),
            1.0,
            None,
        ),
        at_most(
            "4",
            "JSONBench mean with cache, over VictoriaLogs",
            over(mean(SystemName::RachisWithCache), mean(SystemName::VictoriaLogs)),
            0.1,
            None,
        ),
        at_most("5", "by any field's value, p50 ms", field(P50_MS), 0.5, None),
        at_most("5", "by any field's value, p99 ms", field(P99_MS), 2.0, None),
        at_most(
            "5",
            "by any field's value, over OpenSearch",
            measured.worst(&[FIELD], &open_search),
            0.3,
            1.0,
        ),
        at_most("6", "word, two words, phrase: worst p50 ms", words, 0.3, 0.8),
        at_most("6", "the same within the index, over tantivy", in_index, 1.2, 2.0),
        at_most(
            "7",
            "newest 20 with a filter: worst p50 ms",
            measured.worst(&NEWEST, &[]),
            1.5,
            3.0,
        ),
        at_most(
            "7",
            "newest 20, over OpenSearch",
            measured.worst(&NEWEST, &open_search),
            0.2,
            None,
        ),
        at_most(
            "7a",
            "six groupings: worst, over the best",
            measured.worst(&GROUPS, &best),
            1.0,
            2.0,
        ),
        at_most("8", "expression over all, over chdb", unselective, 1.0, 2.0),
        at_least(
            "8",
            "expression, few match: times faster than chdb",
            selective,
            20.0,
            5.0,
        ),
    ]
}

/// Rows 10 to 17.
fn service_goals(measured: &Measured<'_>) -> Vec<Goal> {
    use super::{
        fan_out::{LEAVES, SHARDS},
        giants::{GIANTS, OVER_NORMAL, REFUSED},
        interference::{ALL_QUESTIONS, BESIDE, BY_FIELD, BY_ID, OVER_IDLE, PER_SECOND, POINT},
    };
    let beside = measured.value("interference", BESIDE, ALL_QUESTIONS, "rachis", OVER_IDLE);
    let point = |what, name| measured.value("interference", POINT, what, "rachis", name);
    let leaves = |name| {
        let eight = measured.small_question(LEAVES, "8", name)?;
        Some(eight - measured.small_question(LEAVES, "1", name)?)
    };
    let shards = |number| measured.small_question(SHARDS, number, P50_MS);
    let recovered = measured.recovered_ms();
    let node = |table, what, name| measured.value("footprint", table, what, "rachis", name);
    let giants = |name| measured.value("giants", GIANTS, "giants among them", "rachis", name);
    let sixteen = node::catch_up_name(16);
    let catch_up = measured.value("footprint", node::PEAKS, &sixteen, "rachis", "peak MiB");
    // Fewer documents or collections say nothing about these goals.
    let is_full = |table, what, name, least| node(table, what, name).is_some_and(|measured| measured >= least);
    let has_documents = is_full(node::PEAKS, node::MANY_DOCUMENTS, node::DOCUMENTS, 10e6);
    let has_collections = is_full(node::MANY, node::IDLE, node::COLLECTIONS, 1e3);
    let many_documents = node(node::PEAKS, node::MANY_DOCUMENTS, "peak MiB").filter(|_| has_documents);
    let idle = |name| node(node::MANY, node::IDLE, name).filter(|_| has_collections);
    vec![
        at_most("10", "p99 beside 20 MB/s, over idle", beside, 1.5, 3.0),
        at_least(
            "11",
            "by id beside 5 MB/s, a second",
            point(BY_ID, PER_SECOND),
            10_000.0,
            None,
        ),
        at_most("11", "by id beside 5 MB/s, p99 ms", point(BY_ID, P99_MS), 5.0, None),
        at_least(
            "11",
            "by a field beside 5 MB/s, a second",
            point(BY_FIELD, PER_SECOND),
            10_000.0,
            None,
        ),
        at_most(
            "11",
            "by a field beside 5 MB/s, p99 ms",
            point(BY_FIELD, P99_MS),
            5.0,
            None,
        ),
        at_most("12", "8 leaves over one, p50 ms more", leaves(P50_MS), 1.0, 3.0),
        at_most("12", "8 leaves over one, p99 ms more", leaves(P99_MS), 3.0, None),
        at_most(
            "12",
            "64 shards over 4, p50",
            over(shards("64"), shards("4")),
            2.0,
            None,
        ),
        at_most(
            "13",
            "kill -9 to the first answer, most documents, ms",
            recovered.map(|(_, most)| most),
            1e3,
            5e3,
        ),
        at_most(
            "13",
            "the same, most documents over fewest",
            recovered.map(|(few, most)| most / few),
            1.5,
            None,
        ),
        at_most(
            "14",
            "empty node: first answer, ms",
            node(node::EMPTY, "start", node::FIRST_ANSWER_MS),
            30.0,
            None,
        ),
        at_most(
            "14",
            "empty node: resident MiB",
            node(node::EMPTY, "start", node::RESIDENT),
            47.7,
            None,
        ),
        at_most(
            "14",
            "1,000 collections, idle: resident MiB",
            idle(node::RESIDENT),
            143.0,
            None,
        ),
        at_most(
            "14",
            "1,000 collections, idle: threads",
            idle(node::THREADS),
            100.0,
            None,
        ),
        at_most("15", "giants refused", giants(REFUSED), 0.0, None),
        at_least("15", "giants: rate over normal", giants(OVER_NORMAL), 0.5, None),
        at_most(
            "16",
            "10 M documents, ingest, dashboards: peak MiB",
            many_documents,
            1024.0,
            2048.0,
        ),
        at_most("16", "16 shards catch up: peak MiB", catch_up, 1024.0, 2048.0),
        at_most(
            "17",
            "six searches: worst, over OpenSearch",
            measured.searches(),
            0.5,
            None,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_passes_holds_or_is_missed() {
        let verdict = |measured| at_most("1", "", measured, 1.0, 2.0).verdict();
        assert_eq!(verdict(Some(1.0)), "pass");
        assert_eq!(verdict(Some(1.5)), "must holds");
        assert_eq!(verdict(Some(2.1)), "MISS");
        assert_eq!(verdict(None), "not measured");
        assert_eq!(at_least("1", "", Some(0.9), 1.0, None).verdict(), "MISS");
    }
}
