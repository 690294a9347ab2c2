//! Tests of `answer`.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    ipc::reader::StreamReader,
};
use http_body_util::BodyExt as _;

use super::*;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("t,x", DataType::Utf8, true),
    ]))
}

fn batch(from: i64, rows: i64) -> RecordBatch {
    let numbers = Int64Array::from_iter_values(from..from + rows);
    let texts = StringArray::from_iter((from..from + rows).map(|n| (n % 2 == 0).then(|| format!("row {n}"))));
    RecordBatch::try_new(schema(), vec![Arc::new(numbers), Arc::new(texts)]).expect("columns fit")
}

fn answer(chunks: Vec<Result<AnswerChunk, Problem>>) -> Answer {
    Answer {
        schema: schema(),
        chunks: stream::iter(chunks).boxed(),
    }
}

fn short() -> Answer {
    answer(vec![
        Ok(AnswerChunk::Rows(batch(0, 2))),
        Ok(AnswerChunk::Rows(batch(2, 1))),
        Ok(AnswerChunk::End(Box::default())),
    ])
}

async fn body(response: Response) -> Result<Vec<u8>, axum::Error> {
    axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .map(|bytes| bytes.to_vec())
}

async fn text(answer: Answer, format: AnswerFormat) -> String {
    String::from_utf8(
        body(respond(answer, format).await.expect("a response"))
            .await
            .expect("a body"),
    )
    .expect("UTF-8")
}

#[tokio::test]
async fn an_answer_can_be_written_in_each_format() {
    let json: serde_json::Value = serde_json::from_str(&text(short(), AnswerFormat::Json).await).expect("JSON");
    assert_eq!(
        json["columns"],
        serde_json::json!([{"name":"n","type":"BIGINT"},{"name":"t,x","type":"TEXT"}])
    );
    assert_eq!(
        json["rows"],
        serde_json::json!([{"n":0,"t,x":"row 0"},{"n":1,"t,x":null},{"n":2,"t,x":"row 2"}])
    );
    assert_eq!(json["stats"]["partial"], false);
    assert_eq!(
        text(short(), AnswerFormat::Csv).await,
        "n,\"t,x\"\n0,row 0\n1,\n2,row 2\n"
    );
    let lines = text(short(), AnswerFormat::Ndjson).await;
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(
        lines[..3],
        [
            "{\"n\":0,\"t,x\":\"row 0\"}",
            "{\"n\":1,\"t,x\":null}",
            "{\"n\":2,\"t,x\":\"row 2\"}"
        ]
    );
    assert!(lines.len() == 4 && lines[3].starts_with("{\"end\":{\"columns\":["));
    let arrow = body(respond(short(), AnswerFormat::Arrow).await.expect("a response"))
        .await
        .expect("a body");
    let batches: Vec<RecordBatch> = StreamReader::try_new(arrow.as_slice(), None)
        .expect("a stream")
        .map(|b| b.expect("a batch"))
        .collect();
    assert_eq!(batches, [batch(0, 2), batch(2, 1)]);
}

#[tokio::test]
async fn formats_without_statistics_have_them_in_a_header_or_trailer() {
    let stats = || {
        Box::new(Stats {
            truncated: true,
            warnings: vec!["é".into(), "w".repeat(STATS_HEADER_BYTES_MAX)],
            ..Stats::default()
        })
    };
    let read = |headers: &HeaderMap| -> serde_json::Value {
        serde_json::from_slice(headers.get(STATS_HEADER).expect("the statistics").as_bytes()).expect("JSON")
    };
    let long = || {
        (0..60)
            .map(|i| Ok(AnswerChunk::Rows(batch(i * 8_192, 8_192))))
            .chain([Ok(AnswerChunk::End(stats()))])
            .collect()
    };
    for format in [AnswerFormat::Csv, AnswerFormat::Arrow] {
        let short = respond(
            answer(vec![Ok(AnswerChunk::Rows(batch(0, 2))), Ok(AnswerChunk::End(stats()))]),
            format,
        )
        .await
        .expect("a response");
        let json = read(short.headers());
        assert_eq!(
            (&json["truncated"], &json["warnings"]),
            (&serde_json::json!(true), &serde_json::json!(["é"])),
            "{format:?}"
        );
        let long = respond(answer(long()), format).await.expect("a response");
        assert_eq!(
            long.headers().get("trailer").and_then(|value| value.to_str().ok()),
            Some(STATS_HEADER)
        );
        let long = long.into_body().collect().await.expect("a body");
        assert_eq!(
            read(long.trailers().expect("trailers"))["truncated"],
            true,
            "{format:?}"
        );
    }
    let lines = respond(answer(long()), AnswerFormat::Ndjson)
        .await
        .expect("a response")
        .into_body()
        .collect()
        .await
        .expect("a body");
    assert!(lines.trailers().is_none(), "NDJSON has them in its last line");
}

#[tokio::test]
async fn a_problem_before_anything_was_sent_has_its_own_status() {
    let timeout = || Problem::new(Code::Timeout, "too slow");
    let result = respond(
        answer(vec![Ok(AnswerChunk::Rows(batch(0, 2))), Err(timeout())]),
        AnswerFormat::Json,
    )
    .await;
    assert_eq!(result.err(), Some(timeout()));
    let stopped = respond(answer(vec![Ok(AnswerChunk::Rows(batch(0, 2)))]), AnswerFormat::Json).await;
    assert_eq!(
        stopped.err().map(|p| p.code),
        Some(Code::Internal),
        "an answer without an end is an error"
    );
}

#[tokio::test]
async fn rows_of_an_ndjson_answer_are_sent_while_others_are_computed() {
    let slow = || {
        let (parts, later) = tokio::sync::mpsc::channel(1);
        let first = stream::iter([Ok(AnswerChunk::Rows(batch(0, 2)))]);
        let later = stream::unfold(later, |mut later| async move { Some((later.recv().await?, later)) });
        let answer = Answer {
            schema: schema(),
            chunks: first.chain(later).boxed(),
        };
        (parts, answer)
    };
    let too_slow = Problem::new(Code::Timeout, "too slow");
    let (json_parts, json) = slow();
    let (ndjson_parts, ndjson) = slow();
    let ndjson = async {
        let response = respond(ndjson, AnswerFormat::Ndjson).await.expect("it begins");
        json_parts.send(Err(too_slow.clone())).await.expect("it is read");
        response
    };
    // The one in JSON is asked first, and could not report the problem if it had begun as well.
    let (json, ndjson) = futures::join!(respond(json, AnswerFormat::Json), ndjson);
    assert_eq!(json.err(), Some(too_slow.clone()), "with its own status");
    let mut body = ndjson.into_body().into_data_stream();
    let first = body.next().await.expect("rows").expect("rows");
    assert_eq!(first, "{\"n\":0,\"t,x\":\"row 0\"}\n{\"n\":1,\"t,x\":null}\n");
    ndjson_parts.send(Err(too_slow)).await.expect("it is read");
    let last = body.next().await.expect("a line").expect("a line");
    assert!(last.starts_with(b"{\"error\":"), "{last:?}");
}

#[tokio::test]
async fn half_an_answer_never_looks_complete() {
    let long = |last: Result<AnswerChunk, Problem>| {
        let parts = (0..60)
            .map(|i| Ok(AnswerChunk::Rows(batch(i * 8_192, 8_192))))
            .chain([last]);
        answer(parts.collect())
    };
    let failed = || Err(Problem::new(Code::Timeout, "too slow"));
    for format in [AnswerFormat::Json, AnswerFormat::Csv, AnswerFormat::Arrow] {
        let response = respond(long(failed()), format).await.expect("it begins");
        assert!(body(response).await.is_err(), "{format:?} breaks off");
    }
    let lines = text(long(failed()), AnswerFormat::Ndjson).await;
    assert!(lines.lines().last().is_some_and(|line| line.starts_with("{\"error\":")));
    let whole: serde_json::Value =
        serde_json::from_str(&text(long(Ok(AnswerChunk::End(Box::default()))), AnswerFormat::Json).await)
            .expect("JSON");
    assert_eq!(whole["rows"].as_array().map(Vec::len), Some(60 * 8_192));
}

#[test]
fn the_preferred_format_is_chosen() {
    let format = |accept: &str| {
        AnswerFormat::of(
            &[(header::ACCEPT, accept.parse().expect("a header"))]
                .into_iter()
                .collect(),
        )
        .ok()
    };
    assert_eq!(AnswerFormat::of(&HeaderMap::new()).ok(), Some(AnswerFormat::Json));
    assert_eq!(format("*/*"), Some(AnswerFormat::Json));
    assert_eq!(format("text/csv"), Some(AnswerFormat::Csv));
    assert_eq!(format("text/*"), Some(AnswerFormat::Csv));
    assert_eq!(
        format("text/html, application/x-ndjson;q=0.9, text/csv;q=0.8"),
        Some(AnswerFormat::Ndjson)
    );
    assert_eq!(
        format("application/vnd.apache.arrow.stream, */*;q=0.1"),
        Some(AnswerFormat::Arrow)
    );
    assert_eq!(format("text/html"), None);
    assert_eq!(format("text/csv;q=0"), None);
}
