//! What people type out of habit in other systems works: the questions of `habits.md`, counted.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Server, Settings, data};

/// The questions.
const HABITS: &str = include_str!("../habits.md");
/// Each collection and its file of real data.
const COLLECTIONS: [(&str, &str); 7] = [
    ("gh", "gharchive_2015.ndjson.gz"),
    ("wiki", "wikiticker_2015.ndjson.gz"),
    ("trail", "cloudtrail.ndjson.gz"),
    ("nginx", "nginxplus.ndjson.gz"),
    ("shop", "osd_ecommerce.ndjson.gz"),
    ("logs", "textlogs.ndjson.gz"),
    ("sky", "jetstream_real152.ndjson.gz"),
];
/// How a question that is a search begins: `search wiki: typo`.
const SEARCH: &str = "search ";
/// How an answer that is an error with a hint begins.
const REFUSED: &str = "refused: ";

/// A question of `habits.md`: a section's name, a line of words, an indented text and the lines of the answer.
struct Habit<'a> {
    section: &'a str,
    title: &'a str,
    question: String,
    answer: Vec<&'a str>,
}

fn habits() -> Vec<Habit<'static>> {
    let mut habits: Vec<Habit<'static>> = Vec::new();
    let mut section = "";
    for line in HABITS.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            section = name;
        } else if let Some(title) = line.strip_prefix("### ") {
            habits.push(Habit {
                section,
                title,
                question: String::new(),
                answer: Vec::new(),
            });
        } else if let Some(habit) = habits.last_mut() {
            if let Some(text) = line.strip_prefix("    ") {
                habit.question.push_str(text);
                habit.question.push('\n');
            } else if let Some(row) = line.strip_prefix("> ") {
                habit.answer.push(row);
            }
        }
    }
    habits
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_type_out_of_habit_has_its_answer() {
    if data::folder().is_none() {
        return;
    }
    let server = Server::start(Settings::default()).await;
    for (collection, file) in COLLECTIONS {
        let documents = data::documents(file).expect("documents").join("\n");
        server.push(collection, documents).await.expect("a push");
    }
    let habits = habits();
    let (mut counts, mut complaints) = (BTreeMap::<&str, (usize, usize)>::new(), Vec::new());
    for habit in &habits {
        let (answered, all) = counts.entry(habit.section).or_default();
        *all += 1;
        match check(&server, habit).await {
            Ok(()) => *answered += 1,
            Err(error) => complaints.push(format!(
                "{}: {}\n{}    {error:#}",
                habit.section, habit.title, habit.question
            )),
        }
    }
    for (section, (answered, all)) in &counts {
        println!("{section}: {answered} of {all} questions have their answer");
    }
    assert!(habits.len() >= 350, "habits.md has {} questions", habits.len());
    assert!(
        complaints.is_empty(),
        "{}\n{} questions",
        complaints.join("\n\n"),
        complaints.len()
    );
}

async fn check(server: &Client, habit: &Habit<'_>) -> Result<()> {
    ensure!(!habit.answer.is_empty(), "habits.md gives no answer");
    let asked = match habit.question.trim().strip_prefix(SEARCH) {
        Some(search) => search_lines(server, search).await,
        None => sql_lines(server, habit.question.trim()).await,
    };
    let expected: Vec<String> = habit.answer.iter().map(|line| (*line).to_owned()).collect();
    if let [refused] = habit.answer.as_slice()
        && let Some(hint) = refused.strip_prefix(REFUSED)
    {
        let error = asked.err().context("it was not refused")?;
        let text = format!("{error:#}");
        ensure!(text.contains(hint), "the error does not say {hint:?}: {text}");
        return Ok(());
    }
    let mut lines = asked?;
    let mut expected = expected;
    if !habit.question.to_lowercase().contains("order by") {
        lines.sort();
        expected.sort();
    }
    ensure!(
        lines.len() == expected.len()
            && lines
                .iter()
                .zip(&expected)
                .all(|(line, expected)| is_same(line, expected)),
        "answered\n> {}",
        lines.join("\n> ")
    );
    Ok(())
}

/// The rows of a statement, a line each.
async fn sql_lines(server: &Client, sql: &str) -> Result<Vec<String>> {
    let answer = server.query(sql, json!({})).await?;
    let line = |row: &Vec<Value>| row.iter().map(cell).collect::<Vec<_>>().join(" | ");
    Ok(answer.rows.iter().map(line).collect())
}

/// The number of hits of `collection: query`, as one line.
async fn search_lines(server: &Client, search: &str) -> Result<Vec<String>> {
    let (collection, query) = search
        .split_once(':')
        .context("a search is written collection: query")?;
    let query = query.trim();
    let path = format!("/v1/collections/{collection}/search");
    let request = server
        .request(Method::GET, &path)
        .query(&[("q", query), ("limit", "0")]);
    let response = request.send().await?;
    let (status, body) = (response.status(), response.text().await?);
    ensure!(status.is_success(), "{status}: {body}");
    let answer: Value = serde_json::from_str(&body)?;
    Ok(vec![format!("{} hits", answer["total"])])
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether two lines are equal; numbers may differ by a billionth.
fn is_same(line: &str, expected: &str) -> bool {
    let (cells, others): (Vec<&str>, Vec<&str>) = (line.split(" | ").collect(), expected.split(" | ").collect());
    let is_same_cell = |(one, other): (&&str, &&str)| {
        one == other
            || matches!((one.parse::<f64>(), other.parse::<f64>()), (Ok(one), Ok(other))
                if (one - other).abs() <= 1e-9 * other.abs().max(1.0))
    };
    cells.len() == others.len() && cells.iter().zip(&others).all(is_same_cell)
}
