//! Checks that gRPC keeps the contract of HTTP: the same answers and the same errors, plus reflection and health, for
//! clients in any language.

use std::process::Command;

use proto::{
    Code, Problem,
    wire::v1::{
        DocumentRequest, DropCollectionRequest, ListCollectionsRequest, ListSourcesRequest, PushRequest,
        PutCollectionRequest, PutSourceRequest, SqlRequest, SuspendSourceRequest, catalog_client::CatalogClient,
        ingest_client::IngestClient, query_client::QueryClient, sql_part::Part,
    },
};
use serde_json::json;
use tests::{Kafka, Service, server};
use tonic::transport::{Channel, Endpoint};

tests::for_single_process_and_cluster! {
    clients_in_rust_and_in_python_push_and_query: tests::Settings::default(),
    http_and_grpc_read_what_the_other_wrote: tests::Settings::default(),
    collections_and_sources_are_created_and_changed: tests::Settings::default(),
}

async fn channel(service: &Service) -> Channel {
    Endpoint::from_shared(service.url().to_owned())
        .expect("an address")
        .connect()
        .await
        .expect("a connection")
}

async fn clients_in_rust_and_in_python_push_and_query(service: Service) {
    let run = |mut command: Command| {
        let output = command.output().expect("the client runs");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{command:?}: {}\n{stdout}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(stdout.starts_with("pushed 1000 documents, read 20 rows"), "{stdout}");
    };
    let mut rust = Command::new(server::workspace_binary("examples/grpc_client"));
    rust.args([service.url(), "from_rust"]);
    run(rust);
    let mut python = Command::new(std::env::var_os("RACHIS_PYTHON").expect("RACHIS_PYTHON, which tests/run sets"));
    python
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/grpc_client.py"))
        .args([service.url().trim_start_matches("http://"), "from_python"]);
    run(python);
    for collection in ["from_rust", "from_python"] {
        assert_eq!(
            *service
                .sql(&format!("select count(*) from {collection}"))
                .await
                .single_value(),
            json!(1000)
        );
    }
}

async fn http_and_grpc_read_what_the_other_wrote(service: Service) {
    let channel = channel(&service).await;
    a_grpc_push_is_deduplicated_and_read_over_http(&service, channel.clone()).await;
    service.push("both", "{\"_id\":\"b\",\"n\":2}").await.expect("a push");
    let mut query = QueryClient::new(channel);
    an_http_push_is_read_over_grpc(&mut query).await;
    a_grpc_query_streams_columns_rows_and_stats(&mut query).await;
    errors_are_the_same_over_http_and_grpc(&service, &mut query).await;
}

async fn a_grpc_push_is_deduplicated_and_read_over_http(service: &Service, channel: Channel) {
    let mut ingest = IngestClient::new(channel);
    let push = |key: &str, documents: &[&'static str]| PushRequest {
        collection: "both".to_owned(),
        documents: documents
            .iter()
            .map(|document| bytes::Bytes::from_static(document.as_bytes()))
            .collect(),
        idempotency_key: key.to_owned(),
    };
    let first = ingest
        .push(push("k", &[r#"{"_id":"a", "n" : 1.50}"#, "{oops", "[1]"]))
        .await
        .expect("some are accepted")
        .into_inner();
    assert_eq!(
        (
            first.accepted,
            first.rejected,
            first.errors[0].index,
            first.errors[0].code.as_str()
        ),
        (2, 1, 1, "not_json")
    );
    assert!(first.position.starts_with("push/"), "{}", first.position);
    let again = ingest
        .push(push("k", &[r#"{"_id":"a", "n" : 1.50}"#, "{oops", "[1]"]))
        .await
        .expect("the same answer")
        .into_inner();
    assert_eq!(again, first);
    let other = Problem::from(ingest.push(push("k", &["{}"])).await.expect_err("another body"));
    assert_eq!((other.code, other.hint.is_some()), (Code::Conflict, true), "{other}");
    assert_eq!(
        service.document("both", "a").await.expect("an answer"),
        Some(br#"{"_id":"a", "n" : 1.50}"#.to_vec())
    );
}

async fn an_http_push_is_read_over_grpc(query: &mut QueryClient<Channel>) {
    let request = |id: &str| DocumentRequest {
        collection: "both".into(),
        id: id.into(),
    };
    let found = query.document(request("b")).await.expect("the document").into_inner();
    assert_eq!(&found.document[..], b"{\"_id\":\"b\",\"n\":2}");
    let missing = query.document(request("c")).await.expect_err("no such document");
    assert_eq!(Problem::from(missing).code, Code::NotFound);
}

async fn a_grpc_query_streams_columns_rows_and_stats(query: &mut QueryClient<Channel>) {
    let request = SqlRequest {
        sql: "select _id, n from both where n > 1 order by n".into(),
        ..SqlRequest::default()
    };
    let mut parts = query.sql(request).await.expect("an answer").into_inner();
    let (mut bytes, mut columns, mut end) = (Vec::new(), Vec::new(), None);
    while let Some(part) = parts.message().await.expect("the stream continues") {
        match part.part.expect("a part") {
            Part::Columns(header) => {
                columns = header
                    .columns
                    .into_iter()
                    .map(|column| (column.name, column.r#type))
                    .collect()
            }
            Part::Rows(more) => bytes.extend_from_slice(&more),
            Part::End(stats) => end = Some(stats),
        }
    }
    assert_eq!(
        columns,
        [
            ("_id".to_owned(), "TEXT".to_owned()),
            ("n".to_owned(), "DOUBLE".to_owned())
        ]
    );
    assert!(bytes.starts_with(&[0xff; 4]), "an Arrow IPC stream begins");
    assert_eq!(end.expect("an end").documents_scanned, 3);
    let tables: Vec<String> = (0..9).map(|number| format!("both t{number}")).collect();
    for all_rows in [false, true] {
        let request = SqlRequest {
            sql: format!("select t0.n from {}", tables.join(", ")),
            all_rows,
            ..SqlRequest::default()
        };
        let mut parts = query.sql(request).await.expect("an answer").into_inner();
        let mut truncated = None;
        while let Some(part) = parts.message().await.expect("the stream continues") {
            if let Some(Part::End(stats)) = part.part {
                truncated = Some(stats.truncated);
            }
        }
        assert_eq!(truncated, Some(!all_rows), "of 19,683 rows");
    }
}

async fn errors_are_the_same_over_http_and_grpc(service: &Service, query: &mut QueryClient<Channel>) {
    let request = SqlRequest {
        sql: "select * from nowhere".into(),
        ..SqlRequest::default()
    };
    let over_grpc = Problem::from(query.sql(request).await.expect_err("no such collection"));
    let over_http = service
        .query("select * from nowhere", json!({}))
        .await
        .expect_err("no such collection");
    assert!(
        format!("{over_http:#}").contains(&over_grpc.detail),
        "{over_grpc} and {over_http:#}"
    );
}

async fn collections_and_sources_are_created_and_changed(service: Service) {
    let kafka = Kafka::start().await;
    kafka.create_topic("t", 2, &[]).await;
    let mut catalog = CatalogClient::new(channel(&service).await);
    a_collection_is_created_and_changed(&mut catalog).await;
    a_source_is_created_and_suspended(&service, &kafka, &mut catalog).await;
    let in_use = catalog
        .drop_collection(DropCollectionRequest { name: "c".into() })
        .await
        .expect_err("a source feeds it");
    assert_eq!(Problem::from(in_use).code, Code::InUse);
    let names: Vec<String> = catalog
        .list_collections(ListCollectionsRequest {})
        .await
        .expect("a list")
        .into_inner()
        .collections
        .into_iter()
        .map(|c| c.name)
        .collect();
    assert_eq!(names, ["c"]);
}

async fn a_collection_is_created_and_changed(catalog: &mut CatalogClient<Channel>) {
    let put = |shards, time_path: Option<&str>| PutCollectionRequest {
        name: "c".into(),
        replicas: 0,
        shards,
        time_path: time_path.map(Into::into),
        retention: Some("40y by event".into()),
    };
    let created = catalog
        .put_collection(put(2, Some("at")))
        .await
        .expect("created")
        .into_inner();
    assert_eq!((created.shards, created.time_path.as_str()), (2, "at"));
    assert_eq!(created.retention, "40y by event");
    let unchanged = catalog
        .put_collection(put(0, None))
        .await
        .expect("unchanged")
        .into_inner();
    assert_eq!((unchanged.shards, unchanged.time_path.as_str()), (2, "at"));
    let changed = catalog
        .put_collection(put(0, Some("")))
        .await
        .expect("changed")
        .into_inner();
    assert_eq!(changed.time_path, "");
    let refused = catalog
        .put_collection(put(3, None))
        .await
        .expect_err("the number of shards is fixed");
    assert_eq!(Problem::from(refused).code, Code::Conflict);
}

async fn a_source_is_created_and_suspended(service: &Service, kafka: &Kafka, catalog: &mut CatalogClient<Channel>) {
    let config = [
        ("bootstrap.servers".to_owned(), kafka.bootstrap()),
        ("sasl.password".to_owned(), "secret".to_owned()),
    ];
    let request = PutSourceRequest {
        name: "s".into(),
        collection: "c".into(),
        topic: "t".into(),
        config: config.into(),
        ..PutSourceRequest::default()
    };
    let source = catalog.put_source(request).await.expect("a source").into_inner();
    assert_eq!(
        (source.topic.as_str(), source.config["sasl.password"].as_str()),
        ("t", "***")
    );
    kafka
        .produce(
            "t",
            (0..10)
                .map(|n| tests::kafka::NewRecord::value(format!("{{\"n\":{n}}}")))
                .collect(),
        )
        .await;
    service.eventually("select count(*) from c", json!(10)).await;
    let suspended = catalog
        .suspend_source(SuspendSourceRequest {
            name: "s".into(),
            suspended: true,
        })
        .await
        .expect("suspended")
        .into_inner();
    assert!(suspended.suspended);
    assert_eq!(
        catalog
            .list_sources(ListSourcesRequest {})
            .await
            .expect("a list")
            .into_inner()
            .sources,
        [suspended]
    );
}
