//! Every familiar name means what it means at home: calls over generated values, computed here and by the system that
//! defines the function (DuckDB, ClickHouse, PostgreSQL; plain Python for those that do not run here).
//!
//! `familiar_functions/calls.txt` lists the names and the calls, `familiar_functions/homes.py` asks the homes. To repeat
//! a run: `RACHIS_SEED=… ./tests/run --test familiar_functions`
//!
//! Two differences are allowed everywhere. Where a home reports an error or a number that is not finite, we have NULL,
//! or an error for literals. A date equals its midnight. Every other one is a condition in `calls.txt`, with its reason.

#[path = "familiar_functions/calls.rs"]
mod calls;
#[path = "familiar_functions/rows.rs"]
mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tests::{Client, Server, Settings, oracle, process::TestDir};

use calls::{Call, CallShape};
use rows::GeneratedRow;

/// Comparisons that a run makes at least.
const COMPARISONS_MIN: usize = 3_000;
/// Rows whose values are also written into calls as literals.
const LITERAL_ROWS: usize = 6;
/// Calls in one statement.
const CALLS_PER_STATEMENT: usize = 10;
/// Differences that are printed.
const PRINTED_MAX: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn every_familiar_name_means_what_it_means_at_home() {
    let mut random = StdRng::seed_from_u64(tests::seed());
    let rows = rows::generate(&mut random);
    let all = calls::read();
    let (compared, refused): (Vec<Call>, Vec<Call>) = all.into_iter().partition(|call| call.home != "refused");
    let folder = TestDir::new("familiar_functions").expect("a folder");
    let homes = ask_homes(&rows, &compared, &folder.path()).expect("answers of the homes");

    let server = Server::start(Settings::default()).await;
    let documents: Vec<String> = rows.iter().map(|row| Value::from(row.clone()).to_string()).collect();
    server.push("v", documents.join("\n")).await.expect("a push");

    let mut report = Report::default();
    let ours = ask_server(&server, &compared, |call| match call.shape {
        CallShape::Rows => (call.over_documents(), "k", ""),
        CallShape::Groups | CallShape::Sets => (call.over_documents(), "g", " GROUP BY g"),
    })
    .await;
    for ((call, answers), homes) in compared.iter().zip(&ours).zip(&homes) {
        report.compare(call, &call.over_documents(), answers, homes.iter());
    }
    for (index, row) in rows.iter().enumerate().take(LITERAL_ROWS) {
        let scalar: Vec<Call> = compared
            .iter()
            .filter(|call| call.shape == CallShape::Rows)
            .cloned()
            .collect();
        let ours = ask_server(&server, &scalar, |call| (call.over_literals(row), "1", "")).await;
        let homes = compared
            .iter()
            .zip(&homes)
            .filter(|(call, _)| call.shape == CallShape::Rows);
        for ((call, answers), (_, homes)) in scalar.iter().zip(&ours).zip(homes) {
            report.compare(
                call,
                &call.over_literals(row),
                answers,
                homes.iter().skip(index).take(1),
            );
        }
    }
    for call in &refused {
        let sql = format!("SELECT {} FROM v", call.over_documents());
        report.expect_hint(&call.name, &sql, &server).await;
    }
    println!("{}", report.summary());
    report.check();
}

/// Answers to a call: a value for each row, or the error of the statement.
type Answers = std::result::Result<Vec<Value>, String>;

/// Asks for calls, several in one statement; each on its own if the statement is refused.
async fn ask_server(
    server: &Client,
    calls: &[Call],
    spelled: impl Fn(&Call) -> (String, &'static str, &'static str),
) -> Vec<Answers> {
    let mut answers = Vec::new();
    let mut rest = calls;
    while let Some(first) = rest.first() {
        let (_, key, group) = spelled(first);
        let alike = rest.iter().take_while(|call| spelled(call).1 == key).count();
        let (part, after) = rest.split_at(alike.min(CALLS_PER_STATEMENT));
        let columns: Vec<String> = part.iter().map(|call| spelled(call).0).collect();
        let together = ask(server, &columns, key, group).await;
        match together {
            Ok(columns) => answers.extend(columns.into_iter().map(Ok)),
            Err(_) => {
                for column in columns {
                    let alone = ask(server, &[column], key, group).await;
                    answers.push(alone.map(|mut columns| columns.remove(0)));
                }
            }
        }
        rest = after;
    }
    answers
}

/// The columns of one statement.
async fn ask(
    server: &Client,
    columns: &[String],
    key: &str,
    group: &str,
) -> std::result::Result<Vec<Vec<Value>>, String> {
    // Literals need no collection.
    let from = if key == "1" {
        String::new()
    } else {
        format!(" FROM v{group} ORDER BY {key}")
    };
    let aliased: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(n, call)| format!("{call} AS c{n}"))
        .collect();
    let sql = format!("SELECT {}{from}", aliased.join(", "));
    let answer = server
        .query(&sql, json!({}))
        .await
        .map_err(|error| format!("{error:#}"))?;
    let column = |number: usize| answer.rows.iter().map(|row: &Vec<Value>| row[number].clone()).collect();
    Ok((0..columns.len()).map(column).collect())
}

/// The answers of the homes: for each call and row, `{"is": …}`, `{"error": …}` or `"skipped"`.
fn ask_homes(rows: &[GeneratedRow], calls: &[Call], folder: &Path) -> Result<Vec<Vec<Value>>> {
    let request = json!({
        "rows": rows,
        "folder": folder,
        "calls": calls.iter().map(Call::at_home).collect::<Vec<_>>(),
    });
    let python = oracle::python();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/familiar_functions/homes.py");
    let mut child = Command::new(&python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}; ./tests/run --prepare creates it", python.display()))?;
    let mut input = child.stdin.take().context("no standard input")?;
    input.write_all(request.to_string().as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "the homes failed; ./tests/run --prepare installs chdb and PostgreSQL"
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[derive(Default)]
struct Report {
    names: BTreeSet<String>,
    homes: BTreeMap<String, usize>,
    comparisons: usize,
    skipped: usize,
    differences: Vec<String>,
}

impl Report {
    fn compare<'a>(&mut self, call: &Call, sql: &str, ours: &Answers, homes: impl Iterator<Item = &'a Value>) {
        self.names.insert(call.name.to_lowercase());
        for (row, home) in homes.enumerate() {
            if home == "skipped" {
                self.skipped += 1;
                continue;
            }
            self.comparisons += 1;
            *self.homes.entry(call.home.clone()).or_default() += 1;
            let is_error = home.get("error").is_some();
            let same = match ours {
                Ok(values) => values.get(row).is_some_and(|value| match home.get("is") {
                    Some(home) => is_same(value, home, call.shape == CallShape::Sets),
                    None => value.is_null(),
                }),
                // Literals without a result are an error here.
                Err(error) => {
                    (is_error || home["is"].is_null())
                        && (error.contains("has no result")
                            || error.contains("cannot be read as")
                            || error.contains("is not a"))
                }
            };
            if !same {
                let ours = match ours {
                    Ok(values) => values.get(row).map_or("no row".to_owned(), Value::to_string),
                    Err(error) => error.clone(),
                };
                let line = format!(
                    "{} {}: {sql}, row {row}\n    ours: {ours}\n    home: {home}",
                    call.home, call.name
                );
                self.differences.push(line);
            }
        }
    }

    async fn expect_hint(&mut self, name: &str, sql: &str, server: &Client) {
        self.names.insert(name.to_lowercase());
        self.comparisons += 1;
        match server.query(sql, json!({})).await {
            Ok(_) => self.differences.push(format!("{sql} is not refused")),
            Err(error) => {
                let said = format!("{error:#}");
                if !said.contains("hint") {
                    self.differences
                        .push(format!("{sql} is refused without a hint: {said}"));
                }
            }
        }
    }

    fn summary(&self) -> String {
        format!(
            "{} names, {} comparisons ({:?}), {} left out with a reason, {} differences",
            self.names.len(),
            self.comparisons,
            self.homes,
            self.skipped,
            self.differences.len()
        )
    }

    fn check(self) {
        let printed: Vec<&str> = self.differences.iter().take(PRINTED_MAX).map(String::as_str).collect();
        assert!(
            printed.is_empty(),
            "{}\n{} differences",
            printed.join("\n"),
            self.differences.len()
        );
        assert!(
            self.comparisons >= COMPARISONS_MIN,
            "only {} comparisons",
            self.comparisons
        );
    }
}

/// Whether two values are the same. A home may have 1 for true, and a date for its midnight.
fn is_same(ours: &Value, home: &Value, is_set: bool) -> bool {
    match (ours, home) {
        (Value::Bool(ours), Value::Number(home)) => home.as_i64() == Some(i64::from(*ours)),
        (Value::Number(ours), Value::Bool(home)) => ours.as_i64() == Some(i64::from(*home)),
        (Value::Number(one), Value::Number(other)) => match (one.as_i64(), other.as_i64()) {
            (Some(one), Some(other)) => one == other,
            _ => {
                let (one, other) = (one.as_f64().unwrap_or(f64::NAN), other.as_f64().unwrap_or(f64::NAN));
                (one - other).abs() <= 1e-9 * other.abs().max(1.0)
            }
        },
        (Value::String(ours), Value::String(home)) => ours == home || whole_time(ours) == whole_time(home),
        (Value::Array(ours), Value::Array(home)) if is_set => {
            let spelled = |values: &[Value]| {
                let mut texts: Vec<String> = values.iter().map(Value::to_string).collect();
                texts.sort();
                texts
            };
            spelled(ours) == spelled(home)
        }
        (Value::Array(ours), Value::Array(home)) => {
            ours.len() == home.len() && ours.iter().zip(home).all(|(ours, home)| is_same(ours, home, false))
        }
        (ours, home) => ours == home,
    }
}

/// A time without zeros at the end of its fraction, and with its midnight if it is a date.
fn whole_time(text: &str) -> String {
    if let Some((seconds, fraction)) = text.strip_suffix('Z').and_then(|time| time.split_once('.')) {
        let digits = fraction.trim_end_matches('0');
        let point = if digits.is_empty() { "" } else { "." };
        return format!("{seconds}{point}{digits}Z");
    }
    let is_date = text.len() == 10 && text.is_ascii() && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
    if is_date {
        return format!("{text}T00:00:00Z");
    }
    text.to_owned()
}
