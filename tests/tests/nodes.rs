//! What one node of a cluster knows of the others, and what it remembers: who is there, what runs, what was answered,
//! what went wrong.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Cluster, Settings, cluster::Size, eventually, kafka::Produce};

const SMALL: Size = Size {
    leaves: 1,
    tailers: 1,
    aggregators: 2,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_aggregator_shows_all_nodes_and_all_queries_and_cancels_any_of_them() {
    let mut cluster = Cluster::start(SMALL, Settings::default()).await;
    let lines: String = (0..400).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    cluster.push("events", lines).await.expect("a push");
    let (here, there) = (cluster.door("aggregator-1"), cluster.door("aggregator-2"));
    let nodes = "select name, role, state, error from rachis.nodes where version is not null and started is not null order by name";
    let up = |name: &str, role: &str| vec![json!(name), json!(role), json!("up"), json!(null)];
    let all = [
        up("aggregator-1", "aggregator"),
        up("aggregator-2", "aggregator"),
        up("leaf-1", "leaf"),
        up("tailer-1", "tailer"),
    ];
    assert_eq!(here.sql(nodes).await.rows, all);

    let long = "select count(*) from events a, events b, events c, events d where a.n + b.n + c.n + d.n < 0";
    let asked = tokio::spawn(async move { here.ask(long, json!({})).await.map(|answer| answer.rows) });
    let running = eventually("the other aggregator shows the query", || async {
        let listed = there.get("/v1/queries").await?;
        let found = listed["queries"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|query| query["text"] == long)
            .cloned();
        found.ok_or_else(|| anyhow::anyhow!("{listed}"))
    })
    .await;
    assert_eq!(running["node"], "aggregator-1");
    let in_sql = there.sql("select node, count(*) from rachis.queries where text like '%events d%' and text not like '%rachis%' group by 1").await;
    assert_eq!(in_sql.rows, [[json!("aggregator-1"), json!(1)]]);
    let id = running["id"].as_str().expect("an id");
    let cancelled = there
        .json(Method::DELETE, &format!("/v1/queries/{id}"), json!(null))
        .await
        .expect("it is stopped");
    assert_eq!(cancelled["cancelled"], id);
    let ended = asked.await.expect("a task").expect_err("it was stopped");
    assert!(format!("{ended:#}").contains("cancelled"), "{ended:#}");
    let again = there
        .json(Method::DELETE, &format!("/v1/queries/{id}"), json!(null))
        .await
        .expect_err("it has ended");
    assert!(format!("{again:#}").contains("404"), "{again:#}");

    cluster.kill("leaf-1");
    let away = there
        .sql("select state, error from rachis.nodes where name = 'leaf-1'")
        .await;
    assert!(
        away.rows[0][0] == "away"
            && away.rows[0][1]
                .as_str()
                .is_some_and(|why| why.contains("leaf-1 does not answer")),
        "{away:?}"
    );
}

#[tokio::test]
async fn a_leaf_that_comes_back_from_an_older_disk_gets_again_what_it_lacks_and_no_answer_is_behind_an_earlier_one() {
    let mut cluster = Cluster::start(SMALL, Settings::default()).await;
    cluster.kafka.create_topic("clicks", 2, &[]).await;
    cluster
        .source("clicks", "clicks", "clicks", &cluster.kafka.bootstrap(), json!({}))
        .await
        .expect("a source");
    let numbers = |range: std::ops::Range<i32>| {
        range
            .map(|n| Produce {
                partition: Some(n % 2),
                ..Produce::value(format!("{{\"n\":{n}}}"))
            })
            .collect()
    };
    cluster.kafka.produce("clicks", numbers(0..100)).await;
    let (here, there) = (cluster.door("aggregator-1"), cluster.door("aggregator-2"));
    here.push("events", "{\"n\":1}").await.expect("a push");
    here.eventually("select count(*) from clicks", json!(100)).await;
    let older = cluster.data("older");
    cluster.stop("leaf-1");
    copy(&cluster.data("leaf-1"), &older);
    cluster.start_again("leaf-1").await;
    cluster.kafka.produce("clicks", numbers(100..200)).await;
    here.eventually("select count(*) from clicks", json!(200)).await;
    here.push("events", "{\"n\":2}")
        .await
        .expect("a push that nobody asks after");

    // The tailer knows what was acknowledged, so an aggregator knows that was never asked.
    lose(&mut cluster, &older).await;
    for (door, question, all) in [
        (&there, "select count(*), sum(n)::bigint from events", json!([2, 3])),
        (
            &here,
            "select count(*), sum(n)::bigint from clicks",
            json!([200, 19_900]),
        ),
        (&here, "select count(*), sum(n)::bigint from events", json!([2, 3])),
    ] {
        let first = eventually("the leaf answers", || door.ask(question, json!({}))).await;
        assert_eq!(
            (json!(first.rows[0]), &first.stats["warnings"]),
            (all, &json!([])),
            "the first answer after it: {first:?}"
        );
    }
    let told = cluster
        .sql("select sum(documents)::bigint, sum(events)::bigint from rachis.sources where source = 'clicks'")
        .await;
    assert_eq!(told.rows, [[json!(200), json!(200)]], "nothing twice");

    // Without a tailer nobody brings it, and the aggregator that has acknowledged it says what is missing.
    let pushed = here.push("events", "{\"n\":3}").await.expect("a push");
    cluster.kill("tailer-1");
    lose(&mut cluster, &older).await;
    let behind = eventually("the leaf answers", || {
        here.ask("select count(*) from events", json!({}))
    })
    .await;
    let warnings = behind.stats["warnings"].to_string();
    let position = pushed["position"].as_str().expect("a position");
    assert!(
        behind.rows[0][0] == 1 && warnings.contains("answered or pushed before") && warnings.contains(position),
        "{behind:?}"
    );
    let again = here.sql("select count(*) from events").await;
    assert_eq!(
        (&again.rows[0][0], &again.stats["warnings"]),
        (&json!(1), &behind.stats["warnings"]),
        "and says it again"
    );
    cluster.start_again("tailer-1").await;
    eventually("all is there, and nothing is said", || async {
        let answer = here.ask("select count(*) from events", json!({})).await?;
        anyhow::ensure!(
            answer.rows[0][0] == 3 && answer.stats["warnings"] == json!([]),
            "{answer:?}"
        );
        Ok(())
    })
    .await;

    // Nobody remembers a push that came in past the second aggregator, but for the log: its answer waits until tailers
    // have read it.
    here.push("events", "{\"n\":4}").await.expect("a push");
    cluster.kill("tailer-1");
    cluster.start_unready("tailer-1");
    lose(&mut cluster, &older).await;
    let first = eventually("the leaf answers", || {
        there.ask("select count(*) from events", json!({}))
    })
    .await;
    assert!(
        first.rows[0][0] == 4 || first.stats["warnings"] != json!([]),
        "{first:?}"
    );
    there.eventually("select count(*) from events", json!(4)).await;
}

/// The leaf loses its disk and comes back with an older one.
async fn lose(cluster: &mut Cluster, older: &Path) {
    let place = cluster.data("leaf-1");
    cluster.kill("leaf-1");
    std::fs::remove_dir_all(&place).expect("the disk is lost");
    copy(older, &place);
    cluster.start_again("leaf-1").await;
}

// Far less than the minute that an outcome is waited for once something was sent.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_cannot_be_stored_is_refused_soon_with_the_reason_and_leaves_nothing() {
    let mut cluster = Cluster::start(
        Size {
            aggregators: 1,
            ..SMALL
        },
        Settings::default(),
    )
    .await;
    cluster.push("events", "{\"n\":0}").await.expect("a push");
    let url = cluster.url().to_owned();
    let push = || {
        reqwest::Client::new()
            .post(format!("{url}/v1/collections/events/documents"))
            .header("idempotency-key", "k")
            .body("{\"n\":1}")
    };
    let refused = async |away: &str| {
        let begun = Instant::now();
        let answer = push().send().await.expect("an answer");
        let (status, told) = (answer.status().as_u16(), answer.text().await.expect("a text"));
        assert!(
            status == 503 && told.contains(away) && told.contains("nothing of this request was stored"),
            "{away}: {status}: {told}"
        );
        assert!(begun.elapsed() < SOON, "{away}: {:?}", begun.elapsed());
    };
    cluster.kill("leaf-1");
    refused("leaf-1").await;
    cluster.start_again("leaf-1").await;
    cluster.kafka.pause();
    refused("Kafka").await;
    // The client says what it waits for, and goes on when it is there.
    let mut command = Command::new(tests::server::binary());
    command
        .args(["push", "events", "-", "--url", &url])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped());
    let (mut pushing, begun) = (command.spawn().expect("it starts"), Instant::now());
    pushing
        .stdin
        .take()
        .expect("a pipe")
        .write_all(b"{\"n\":2}\n")
        .expect("it reads");
    let mut said = BufReader::new(pushing.stderr.take().expect("a pipe"))
        .lines()
        .map(|line| line.expect("a line"));
    assert!(said.next().is_some_and(|line| line.starts_with("waiting: ")));
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "it says so before anybody wonders: {:?}",
        begun.elapsed()
    );
    assert!(said.any(|line| line.contains("Kafka does not answer")));
    cluster.kafka.resume();
    assert!(said.any(|line| line.contains("1 documents accepted")) && pushing.wait().expect("it ends").success());
    cluster.kill("tailer-1");
    refused("tailer-1").await;
    cluster.start_again("tailer-1").await;
    let pushed = push()
        .send()
        .await
        .expect("an answer")
        .json::<Value>()
        .await
        .expect("JSON");
    assert!(
        pushed["accepted"] == 1 && pushed["repeated"].is_null(),
        "nothing of what was refused is there: {pushed}"
    );
    assert_eq!(
        cluster.sql("select count(*), sum(n)::bigint from events").await.rows,
        [[json!(3), json!(3)]]
    );
}

#[tokio::test]
async fn a_lost_range_of_pushes_is_told_and_skipped_on_request() {
    let mut cluster = Cluster::start(SMALL, Settings::default()).await;
    cluster
        .json(Method::PUT, "/v1/collections/events", json!({ "shards": 2 }))
        .await
        .expect("a collection");
    for _ in 0..2 {
        cluster.push("events", "{\"n\":1}").await.expect("a push");
    }
    // The same key goes to the same partition.
    let url = cluster.url().to_owned();
    let keyed = |n: i32| {
        let url = format!("{url}/v1/collections/events/documents");
        reqwest::Client::new()
            .post(url)
            .header("idempotency-key", "k")
            .body(format!("{{\"n\":{n}}}"))
    };
    let pushed = keyed(2)
        .send()
        .await
        .expect("a push")
        .json::<Value>()
        .await
        .expect("JSON");
    let position = pushed["position"].as_str().expect("a position");
    let partition: i32 = position
        .split(['/', '@'])
        .nth(1)
        .and_then(|number| number.parse().ok())
        .expect("push/PARTITION@OFFSET");
    let topics = cluster.kafka.topics().expect("topics");
    let topic = topics
        .iter()
        .find(|topic| topic.contains("push"))
        .unwrap_or_else(|| panic!("a topic of pushes in {topics:?}"))
        .clone();
    cluster.kill("tailer-1");
    // In the log and nowhere else, until the log loses it.
    let lost = vec![
        Produce {
            partition: Some(partition),
            ..Produce::value("lost")
        },
        Produce {
            partition: Some(partition),
            ..Produce::value("lost")
        },
    ];
    let places = cluster.kafka.produce(&topic, lost).await;
    let end = places.last().expect("a place").1 + 1;
    cluster.kafka.delete_records_before(&topic, partition, end).await;
    cluster.start_again("tailer-1").await;
    let row = format!("select state, error from rachis.sources where source = 'push' and \"partition\" = {partition}");
    let error = eventually("the partition stops and says why", || async {
        let told = cluster.ask(&row, json!({})).await?;
        anyhow::ensure!(told.rows.len() == 1 && told.rows[0][0] == "stopped", "{told:?}");
        Ok(told.rows[0][1].as_str().unwrap_or_default().to_owned())
    })
    .await;
    assert!(
        error.contains("are gone at the broker")
            && error.contains(&format!("rachis collection skip events {partition}={end}")),
        "{error}"
    );
    let refused = cluster
        .json(Method::POST, "/v1/collections/nothing/skip", json!({ "to": {} }))
        .await
        .expect_err("there is none");
    assert!(format!("{refused:#}").contains("404"), "{refused:#}");
    // A push that has to go there is refused at once, and not put behind what stands still; one that may go anywhere
    // goes elsewhere.
    let told = eventually("a push with this key is refused", || async {
        let refused = keyed(3).send().await?;
        anyhow::ensure!(refused.status() == 503, "{}", refused.status());
        Ok(refused.text().await?)
    })
    .await;
    assert!(
        told.contains(&format!("the pushes of events, partition {partition}, are stopped"))
            && told.contains("are gone at the broker"),
        "{told}"
    );
    for _ in 0..4 {
        cluster.push("events", "{\"n\":1}").await.expect("a push");
    }

    let skip = |partition: i32, to: Value| {
        let to = json!({ "to": { partition.to_string(): to } });
        cluster.json(Method::POST, "/v1/collections/events/skip", to)
    };
    for (partition, to, said) in [
        (partition, json!(0), "is stored through"),
        (partition, json!(end + 1), "ends before offset"),
        (2, json!(end), "no partition 2"),
        (partition, json!("end"), "no place"),
    ] {
        let refused = format!("{:#}", skip(partition, to).await.expect_err(said));
        assert!(refused.contains("400") && refused.contains(said), "{refused}");
    }
    let skipped = skip(partition, json!(end)).await.expect("a skip");
    assert_eq!(skipped["skips"][partition.to_string()][0]["to"], end, "{skipped}");
    eventually(
        "the key is known with another body, which says that the partition is read again",
        || async {
            let status = keyed(3).send().await?.status();
            anyhow::ensure!(status == 409, "{status}");
            Ok(())
        },
    )
    .await;
    cluster.eventually("select count(*) from events", json!(7)).await;
    let losses =
        cluster.sql("select \"partition\", from_offset, through_offset, reason from rachis.losses where source = 'push' order by 2, 4").await;
    assert!(
        !losses.rows.is_empty() && losses.rows.iter().all(|row| row[0] == partition && row[2] == end - 1),
        "{losses:?}"
    );
}

#[tokio::test]
async fn a_leaf_that_is_filled_again_leaves_out_what_was_skipped_and_nothing_else() {
    let mut cluster = Cluster::start(
        Size {
            aggregators: 1,
            ..SMALL
        },
        Settings::default(),
    )
    .await;
    cluster.kafka.create_topic("clicks", 1, &[]).await;
    cluster
        .source("clicks", "clicks", "clicks", &cluster.kafka.bootstrap(), json!({}))
        .await
        .expect("a source");
    let numbers = |range: std::ops::Range<i32>| range.map(|n| Produce::value(format!("{{\"n\":{n}}}"))).collect();
    let client = cluster.door("aggregator-1");
    let post = async |what: &str, body: Value| {
        client
            .json(Method::POST, &format!("/v1/sources/clicks/{what}"), body)
            .await
    };
    cluster.kafka.produce("clicks", numbers(0..20)).await;
    cluster.eventually("select count(*) from clicks", json!(20)).await;
    let moving = post("skip", json!({ "to": { "0": 20 } }))
        .await
        .expect_err("it is read");
    assert!(
        format!("{moving:#}").contains("409") && format!("{moving:#}").contains("suspend the source first"),
        "{moving:#}"
    );
    for (from, skip, to) in [(20, 30, 40), (40, 45, 50)] {
        post("suspend", json!({})).await.expect("it stands still");
        cluster.kafka.produce("clicks", numbers(from..to)).await;
        post("skip", json!({ "to": { "0": skip } })).await.expect("a skip");
        post("resume", json!({})).await.expect("it goes on");
        cluster.eventually("select max(n) from clicks", json!(to - 1)).await;
    }
    let all = [[json!(35), json!((0..20).chain(30..40).chain(45..50).sum::<i32>())]];
    let question = "select count(*), sum(n)::bigint from clicks";
    assert_eq!(cluster.sql(question).await.rows, all);
    cluster.stop("leaf-1");
    std::fs::remove_dir_all(cluster.data("leaf-1")).expect("the disk is lost");
    cluster.start_again("leaf-1").await;
    cluster.eventually("select max(n) from clicks", json!(49)).await;
    assert_eq!(cluster.sql(question).await.rows, all);
    let losses = cluster
        .sql("select from_offset, through_offset, reason from rachis.losses order by 1")
        .await;
    assert_eq!(
        losses.rows,
        [(20, 29), (40, 44)].map(|(from, through)| [json!(from), json!(through), json!("skipped on request")])
    );
}

#[tokio::test]
async fn a_bundle_for_those_who_help_holds_every_node_and_no_secret_and_no_document() {
    let mut cluster = Cluster::start(SMALL, Settings::default()).await;
    cluster
        .push("events", "{\"text\":\"a-private-word\"}\nnot JSON a-private-word")
        .await
        .expect("a push");
    cluster.kafka.create_topic("clicks", 1, &[]).await;
    let config = json!({ "bootstrap.servers": cluster.kafka.bootstrap(), "sasl.password": "a-secret-word" });
    cluster
        .source(
            "clicks",
            "clicks",
            "clicks",
            &cluster.kafka.bootstrap(),
            json!({ "config": config }),
        )
        .await
        .expect("a source");
    let urls: Vec<(String, String)> = cluster
        .nodes()
        .map(|node| (node.name.clone(), node.url.clone()))
        .collect();
    let aggregator = &urls
        .iter()
        .find(|(name, _)| name == "aggregator-2")
        .expect("an aggregator")
        .1
        .clone();
    cluster.kill("tailer-1");
    for (name, by_config) in [("by-url", false), ("by-config", true)] {
        let folder = cluster.data(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("bundle.tar.gz");
        let mut command = Command::new(tests::server::binary());
        command
            .args(["debug", "bundle", "--output"])
            .arg(&file)
            .env_remove("RACHIS_CONFIG")
            .env_remove("RACHIS_URL");
        match by_config {
            true => command.arg("--config").arg(cluster.config()).args([
                "--url",
                &cluster
                    .nodes()
                    .find(|node| node.name == "tailer-1")
                    .expect("the dead one")
                    .url,
            ]),
            false => command.args(["--url", aggregator]),
        };
        let made = command.output().expect("the command runs");
        let noted = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(made.status.success(), "{noted}");
        assert!(noted.contains("tailer-1"), "what is missing is said: {noted}");
        assert!(
            Command::new("tar")
                .arg("-xzf")
                .arg(&file)
                .arg("-C")
                .arg(&folder)
                .status()
                .expect("tar runs")
                .success()
        );
        let files = files_below(&folder);
        let text = |end: &str| {
            let (_, bytes) = files
                .iter()
                .find(|(path, _)| path.ends_with(end))
                .unwrap_or_else(|| panic!("{end} is in {:?}", files.iter().map(|f| &f.0).collect::<Vec<_>>()));
            String::from_utf8_lossy(bytes).into_owned()
        };
        for (node, _) in urls.iter().filter(|(node, _)| node != "tailer-1") {
            assert!(
                text(&format!("nodes/{node}/metrics")).contains("process_resident_memory_bytes"),
                "{node}"
            );
            assert!(text(&format!("nodes/{node}/readyz")).contains("status"), "{node}");
        }
        assert!(
            text("tables/nodes.json").contains("leaf-1")
                && text("tables/shards.json").contains("events")
                && text("settings/sources.json").contains("***")
        );
        assert!(text("about.json").contains("tailer-1"), "{}", text("about.json"));
        for (path, bytes) in files.iter().filter(|(path, _)| !path.ends_with(".gz")) {
            let text = String::from_utf8_lossy(bytes);
            assert!(
                !text.contains("a-secret-word") && !text.contains("a-private-word"),
                "{path}: {text}"
            );
        }
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(
        Command::new("cp")
            .arg("-a")
            .arg(from)
            .arg(to)
            .status()
            .expect("cp runs")
            .success()
    );
}

fn files_below(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push((path.display().to_string(), std::fs::read(&path).expect("a file"))),
        }
    }
    found
}
