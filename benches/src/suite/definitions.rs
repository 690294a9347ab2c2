//! `benches definitions`: what definitions cost. A field over a path beside the path itself, DIFF beside a query that
//! computes both versions, and a small question in a catalog of many definitions beside one of none.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::{Value, json};
use tests::Client;

use super::{RunArgs, SuiteReport};
use crate::{
    documents::{DocumentFile, DocumentSet},
    report::{P50_MS, guarded, runs_note},
    system::{
        self, PushServer as _, RachisServer,
        rachis::{ask_sql, count_documents},
    },
};

const FIELD: &str = "a field over a path, beside the path";
const DIFF: &str = "DIFF, beside a query that computes both versions";
const CATALOG: &str = "a small question, by definitions in the catalog";
const OVER: &str = "over the first";
const MORE_MS: &str = "more ms";
const MANY: &str = "many definitions";
const NONE: &str = "no definitions";
/// Fields whose definition is a path.
const FIELDS: [(&str, &str); 3] = [("who", "did"), ("event", "commit.collection"), ("at", "time_us")];
/// Questions about a path; `{}` is the path, or a field over it.
const QUESTIONS: [(&str, &str, &str); 4] = [
    (
        "group by",
        "event",
        "select {} as x, count(*) as n from bluesky group by 1 order by n desc, x limit 10",
    ),
    (
        "by a value",
        "who",
        "select count(*) as n from bluesky where {} = 'did:plc:unknown'",
    ),
    (
        "range",
        "at",
        "select count(*) as n, max({}) as x from bluesky where {} > 1700000000000000",
    ),
    (
        "newest",
        "at",
        "select _id, {} as x from bluesky order by {} desc, _id limit 10",
    ),
];
/// Two versions of a field: they differ for one document of ten.
const VERSIONS: [&str; 2] = [
    "create field bluesky.parity as time_us % 2",
    "create or replace field bluesky.parity as (time_us + CASE WHEN time_us % 10 = 0 THEN 1 ELSE 0 END) % 2",
];
/// How much is compared: the rows of a sample are read as well, because a sample is chosen by the id.
const DIFFS: [(&str, &str); 2] = [("all", ""), ("1 percent", " sample 1 percent")];

/// What `benches definitions` measures.
#[derive(Debug, Args)]
pub struct DefinitionsArgs {
    /// Bluesky-like documents
    #[arg(long, default_value_t = 1_000_000)]
    documents: u64,
    /// Definitions of the catalog that has many
    #[arg(long, default_value_t = 1_000)]
    definitions: u64,
    /// Seed of the documents
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    runs: RunArgs,
    /// Writes the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures Rachis alone; what is compared is asked in turns.
pub async fn definitions(arguments: &DefinitionsArgs) -> Result<SuiteReport> {
    let mut report = SuiteReport::new("definitions")?;
    report.note(runs_note(arguments.runs.warmups, arguments.runs.repetitions));
    let result = guarded(many_documents(arguments, &mut report)).await;
    result.unwrap_or_else(|error| report.fail("many documents", &error));
    let result = guarded(many_definitions(arguments, &mut report)).await;
    result.unwrap_or_else(|error| report.fail(MANY, &error));
    report.finish(arguments.json.as_deref())
}

/// A server with generated documents.
async fn loaded(documents: &DocumentFile) -> Result<RachisServer> {
    let mut server = RachisServer::start().await;
    server.create(documents.set).await?;
    server.push_all(documents).await?;
    let count = count_documents(server.client(), documents.set.name()).await?;
    ensure!(
        count == documents.documents,
        "{count} documents of {}",
        documents.documents
    );
    system::settle(&server).await?;
    Ok(server)
}

async fn run(client: &Client, sql: &str) -> Result<Vec<Vec<Value>>> {
    client.query(sql, json!({})).await.map(|answer| answer.rows)
}

async fn many_documents(arguments: &DefinitionsArgs, report: &mut SuiteReport) -> Result<()> {
    eprintln!("definitions: loading");
    let documents = DocumentFile::generate(DocumentSet::Bluesky, arguments.documents, arguments.seed)?;
    let server = loaded(&documents).await?;
    let client = server.client();
    for (field, path) in FIELDS {
        run(client, &format!("create field bluesky.{field} as {path}")).await?;
    }
    for (name, field, question) in QUESTIONS {
        let (_, path) = FIELDS
            .into_iter()
            .find(|(known, _)| *known == field)
            .context("a field")?;
        let asked = [("path", path), ("field", field)].map(|(kind, of)| (kind, question.replace("{}", of)));
        let plans = [plan(client, &asked[0].1).await?, plan(client, &asked[1].1).await?];
        ensure!(
            plans[0] == plans[1],
            "{name}: the plans differ\n{}\n{}",
            plans[0],
            plans[1]
        );
        in_turns(
            FIELD,
            name,
            [(client, &asked[0]), (client, &asked[1])],
            &arguments.runs,
            report,
        )
        .await?;
    }
    for version in VERSIONS {
        run(client, version).await?;
    }
    let both =
        "select count(*) as n, count(*) filter (where parity@1 is distinct from parity@2) as changed from bluesky";
    for (name, sample) in DIFFS {
        let diff = format!("diff field bluesky.parity@1 to bluesky.parity@2{sample}");
        let asked = [("query", both.to_owned()), ("DIFF", diff)];
        if sample.is_empty() {
            let expected = ask_sql(client, both).await?.rows;
            let rows = ask_sql(client, &asked[1].1).await?.rows;
            let count = |name: &str| rows.iter().find(|row| row[1] == name).map(|row| row[2].clone());
            let found = [count("compared"), count("changed")].map(Option::unwrap_or_default);
            ensure!(expected[0] == found, "DIFF counts {found:?}, a query {:?}", expected[0]);
        }
        in_turns(
            DIFF,
            name,
            [(client, &asked[0]), (client, &asked[1])],
            &arguments.runs,
            report,
        )
        .await?;
    }
    Ok(())
}

/// How a query is executed: nothing in it names a field.
async fn plan(client: &Client, sql: &str) -> Result<String> {
    let rows = run(client, &format!("explain {sql}")).await?;
    Ok(json!(rows).to_string())
}

/// Asks two servers or two questions in turns, so that both have the same disturbances.
async fn in_turns(
    table: &str,
    what: &str,
    asked: [(&Client, &(&str, String)); 2],
    runs: &RunArgs,
    report: &mut SuiteReport,
) -> Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..runs.warmups + runs.repetitions as usize {
        for ((client, (_, sql)), times) in asked.iter().zip(&mut times) {
            // `{}` is a name that no question had before, so that no plan is ready for it.
            let time = ask_sql(client, &sql.replace("{}", &format!("n{round}"))).await?.time;
            if round >= runs.warmups {
                times.push(time);
            }
        }
    }
    let [first, second] = asked.map(|(_, (kind, _))| *kind);
    let [of_first, of_second] = times;
    report.add_times(table, what, first, of_first);
    report.add_times(table, what, second, of_second);
    let p50 = |kind| report.value(table, what, kind, P50_MS);
    if let (Some(first), Some(of_second)) = (p50(first), p50(second)) {
        let figures = [(OVER, of_second / first), (MORE_MS, of_second - first)];
        report.add(table, what, second, &figures);
    }
    Ok(())
}

async fn many_definitions(arguments: &DefinitionsArgs, report: &mut SuiteReport) -> Result<()> {
    const DOCUMENTS: u64 = 10_000;
    eprintln!("definitions: creating {}", arguments.definitions);
    let documents = DocumentFile::generate(DocumentSet::Bluesky, DOCUMENTS, arguments.seed)?;
    let (none, many) = (loaded(&documents).await?, loaded(&documents).await?);
    for number in 0..arguments.definitions {
        let sql = match number % 10 {
            0 => format!("create function f{number}(x bigint) returns bigint as x + {number}"),
            1 => format!("create view v{number} as select did, kind from bluesky where time_us > {number}"),
            2 => format!("create query q{number}(k int default {number}) as select did from bluesky limit $k"),
            3 => format!("create parser bluesky.p{number} on did as regex '(?<n{number}>[a-z]+)'"),
            _ => format!("create field bluesky.d{number} as time_us + {number}"),
        };
        run(many.client(), &sql).await?;
    }
    // Each has the same definition under a name that the many do not have.
    for server in [&none, &many] {
        run(server.client(), "create field bluesky.who as did").await?;
    }
    for (name, sql) in [
        (
            "a path, planned before",
            "select count(*) as n from bluesky where did = 'x'",
        ),
        (
            "a path, planned anew",
            "select count(*) as {} from bluesky where did = 'x'",
        ),
        (
            "a field, planned anew",
            "select count(*) as {} from bluesky where who = 'x'",
        ),
        (
            "a name in other letters, planned anew",
            "select count(*) as {} from bluesky where Did = 'x'",
        ),
        (
            "a name that nothing has, planned anew",
            "select count(*) as {} from bluesky where missing = 'x'",
        ),
    ] {
        let asked = [NONE, MANY].map(|kind| (kind, sql.to_owned()));
        let servers = [(none.client(), &asked[0]), (many.client(), &asked[1])];
        in_turns(CATALOG, name, servers, &arguments.runs, report).await?;
    }
    Ok(())
}
