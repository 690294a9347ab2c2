//! A client in Rust, over gRPC: pushes a stream of documents, asks for them by SQL and by search, and says what it
//! found.
//!
//!     grpc_client http://HOST:PORT COLLECTION
//!
//! The messages are generated from `proto/wire/public.proto`; any other language does the same.

#![allow(clippy::print_stdout, reason = "a client prints its answers")]

use anyhow::{Context as _, Result, ensure};
use proto::wire::v1::{
    Form, How, PushRequest, SearchRequest, SqlRequest, ingest_client::IngestClient, query_client::QueryClient,
    sql_part::Part,
};
use tonic::transport::Endpoint;

/// Pushes that the stream holds, and documents in each.
const PUSHES: usize = 20;
const DOCUMENTS: usize = 50;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("say where the server is: http://HOST:PORT")?;
    let collection = arguments.next().context("name a collection")?;
    let channel = Endpoint::from_shared(url)?.connect().await?;

    let named = collection.clone();
    let push = move |number: usize| PushRequest {
        collection: named.clone(),
        documents: (0..DOCUMENTS)
            .map(|n| format!("{{\"push\":{number},\"n\":{n},\"word\":\"hello gRPC\"}}").into())
            .collect(),
        idempotency_key: format!("example {number}"),
    };
    let mut answers = IngestClient::new(channel.clone())
        .push_many(futures::stream::iter((0..PUSHES).map(push)))
        .await?
        .into_inner();
    let (mut accepted, mut position) = (0, String::new());
    while let Some(answer) = answers.message().await? {
        accepted += answer.accepted;
        position = answer.position;
    }
    ensure!(
        accepted == (PUSHES * DOCUMENTS) as u64,
        "{accepted} documents were accepted"
    );

    let mut query = QueryClient::new(channel);
    let sql = format!("SELECT push, count(*) AS documents FROM {collection} WHERE n >= $1 GROUP BY push ORDER BY push");
    let how = How {
        at_least: position,
        ..How::default()
    };
    let request = SqlRequest {
        sql,
        parameters: vec!["10".to_owned()],
        how: Some(how),
        form: Form::Ndjson.into(),
    };
    let mut parts = query.sql(request).await?.into_inner();
    let (mut lines, mut end) = (Vec::new(), None);
    while let Some(part) = parts.message().await? {
        match part.part {
            Some(Part::Rows(bytes)) => lines.extend_from_slice(&bytes),
            Some(Part::End(stats)) => end = Some(stats),
            Some(Part::Columns(_)) | None => {}
        }
    }
    let end = end.context("the answer has no end")?;
    let rows = String::from_utf8(lines)?;
    ensure!(
        rows.lines().count() == PUSHES && rows.starts_with("{\"push\":0,\"documents\":40}"),
        "{rows}"
    );
    ensure!(!end.partial && end.shards_answered == end.shards_total, "{end:?}");

    let request = SearchRequest {
        collection,
        query: "\"hello gRPC\" AND push:7".to_owned(),
        limit: 3,
        ..SearchRequest::default()
    };
    let found = query.search(request).await?.into_inner();
    ensure!(found.total == DOCUMENTS as u64 && found.hits.len() == 3, "{found:?}");
    println!(
        "pushed {accepted} documents, read {} rows, found {}",
        PUSHES, found.total
    );
    Ok(())
}
