//! The gRPC door keeps the contract of the HTTP door: the same answers, the same problems, reflection and health, for
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

tests::of_one_process_and_of_a_cluster! {
    clients_in_rust_and_in_python_push_and_ask: tests::Settings::default(),
    what_goes_in_by_one_door_comes_out_by_the_other: tests::Settings::default(),
    collections_and_sources_are_made_and_changed: tests::Settings::default(),
}

async fn channel(service: &Service) -> Channel {
    Endpoint::from_shared(service.url().to_owned())
        .expect("an address")
        .connect()
        .await
        .expect("a connection")
}

async fn clients_in_rust_and_in_python_push_and_ask(service: Service) {
    let run = |mut command: Command| {
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{command:?}: {}\n{said}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(said.starts_with("pushed 1000 documents, read 20 rows"), "{said}");
    };
    let mut rust = Command::new(server::built("examples/grpc_client"));
    rust.args([service.url(), "from_rust"]);
    run(rust);
    let mut python = Command::new(std::env::var_os("RACHIS_PYTHON").expect("RACHIS_PYTHON, which tests/run makes"));
    python
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/clients/grpc_client.py"))
        .args([service.url().trim_start_matches("http://"), "from_python"]);
    run(python);
    for collection in ["from_rust", "from_python"] {
        assert_eq!(
            *service.sql(&format!("select count(*) from {collection}")).await.one(),
            json!(1000)
        );
    }
}

async fn what_goes_in_by_one_door_comes_out_by_the_other(service: Service) {
    let channel = channel(&service).await;
    let mut ingest = IngestClient::new(channel.clone());
    let push = |key: &str, documents: &[&'static str]| PushRequest {
        collection: "both".to_owned(),
        documents: documents
            .iter()
            .map(|document| bytes::Bytes::from_static(document.as_bytes()))
            .collect(),
        idempotency_key: key.to_owned(),
    };
    let told = ingest
        .push(push("k", &[r#"{"_id":"a", "n" : 1.50}"#, "{oops", "[1]"]))
        .await
        .expect("some are accepted")
        .into_inner();
    assert_eq!(
        (
            told.accepted,
            told.rejected,
            told.errors[0].index,
            told.errors[0].code.as_str()
        ),
        (2, 1, 1, "not_json")
    );
    assert!(told.position.starts_with("push/"), "{}", told.position);
    let again = ingest
        .push(push("k", &[r#"{"_id":"a", "n" : 1.50}"#, "{oops", "[1]"]))
        .await
        .expect("the same answer")
        .into_inner();
    assert_eq!(again, told);
    let other = Problem::from(ingest.push(push("k", &["{}"])).await.expect_err("another body"));
    assert_eq!((other.code, other.hint.is_some()), (Code::Conflict, true), "{other}");
    assert_eq!(
        service.document("both", "a").await.expect("an answer"),
        Some(br#"{"_id":"a", "n" : 1.50}"#.to_vec())
    );

    service.push("both", "{\"_id\":\"b\",\"n\":2}").await.expect("a push");
    let mut query = QueryClient::new(channel);
    let found = query
        .document(DocumentRequest {
            collection: "both".into(),
            id: "b".into(),
        })
        .await
        .expect("it is there")
        .into_inner();
    assert_eq!(&found.document[..], b"{\"_id\":\"b\",\"n\":2}");
    let missing = query
        .document(DocumentRequest {
            collection: "both".into(),
            id: "c".into(),
        })
        .await
        .expect_err("it is not there");
    assert_eq!(Problem::from(missing).code, Code::NotFound);

    let mut parts = query
        .sql(SqlRequest {
            sql: "select _id, n from both where n > 1 order by n".into(),
            ..SqlRequest::default()
        })
        .await
        .expect("an answer")
        .into_inner();
    let (mut bytes, mut columns, mut end) = (Vec::new(), Vec::new(), None);
    while let Some(part) = parts.message().await.expect("it goes on") {
        match part.part.expect("a part") {
            Part::Columns(told) => {
                columns = told
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
    let refused = Problem::from(
        query
            .sql(SqlRequest {
                sql: "select * from nowhere".into(),
                ..SqlRequest::default()
            })
            .await
            .expect_err("it is refused"),
    );
    let by_http = service
        .ask("select * from nowhere", json!({}))
        .await
        .expect_err("it is refused");
    assert!(
        format!("{by_http:#}").contains(&refused.detail),
        "{refused} and {by_http:#}"
    );
}

async fn collections_and_sources_are_made_and_changed(service: Service) {
    let kafka = Kafka::start().await;
    kafka.create_topic("t", 2, &[]).await;
    let mut catalog = CatalogClient::new(channel(&service).await);
    let put = |shards, time_path: Option<&str>| PutCollectionRequest {
        name: "c".into(),
        shards,
        time_path: time_path.map(Into::into),
    };
    let made = catalog
        .put_collection(put(2, Some("at")))
        .await
        .expect("it is made")
        .into_inner();
    assert_eq!((made.shards, made.time_path.as_str()), (2, "at"));
    let kept = catalog
        .put_collection(put(0, None))
        .await
        .expect("it stays")
        .into_inner();
    assert_eq!((kept.shards, kept.time_path.as_str()), (2, "at"));
    let changed = catalog
        .put_collection(put(0, Some("")))
        .await
        .expect("it is changed")
        .into_inner();
    assert_eq!(changed.time_path, "");
    let refused = catalog.put_collection(put(3, None)).await.expect_err("shards stay");
    assert_eq!(Problem::from(refused).code, Code::Conflict);

    let config = [
        ("bootstrap.servers".to_owned(), kafka.bootstrap()),
        ("sasl.password".to_owned(), "secret".to_owned()),
    ];
    let source = PutSourceRequest {
        name: "s".into(),
        collection: "c".into(),
        topic: "t".into(),
        config: config.into(),
        ..PutSourceRequest::default()
    };
    let told = catalog.put_source(source).await.expect("a source").into_inner();
    assert_eq!(
        (told.topic.as_str(), told.config["sasl.password"].as_str()),
        ("t", "***")
    );
    kafka
        .produce(
            "t",
            (0..10)
                .map(|n| tests::kafka::Produce::value(format!("{{\"n\":{n}}}")))
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
        .expect("it is suspended")
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
