//! Cut, one-way and slow links between processes, each in a network namespace of its own: deadlines hold, nothing
//! hangs, and an answer is complete or says that it is not.

use std::{
    collections::BTreeMap,
    net::UdpSocket,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Cluster, Network, PATIENCE, Settings, cluster::Size, eventually, kafka::Produce, network::TEST};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_util::sync::CancellationToken;

const SIZE: Size = Size {
    leaves: 2,
    tailers: 2,
    aggregators: 2,
};
const DOORS: [&str; 2] = ["aggregator-1", "aggregator-2"];
/// How long it takes at most until a silent peer is given up: two keepalives of 5 s and a connection attempt of 2 s.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);
/// How long it takes at most until all is as before, once a cut is healed.
const HEALED_WITHIN: Duration = Duration::from_secs(15);
/// How long a small answer takes at most that needs nothing of what is cut or slow.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How long after its deadline a question says so at most.
const DEADLINE_GRACE: Duration = Duration::from_secs(3);
/// How long after its deadline a leaf lets go of a question's view at most, if nobody tells it that the question is
/// over.
const LET_GO_WITHIN: Duration = Duration::from_secs(35);
/// How long a leaf holds the view of a question that ended unheard: an aggregator asks for five seconds, the leaf adds
/// ten and looks twice a second. The rest is for a slow machine.
const UNTOLD_VIEW_HELD_MAX: Duration = Duration::from_secs(17);
/// The leaves, and which collection is wholly on which.
const NEAR: &str = "leaf-1";
const FAR: &str = "leaf-2";

#[tokio::test]
async fn a_cut_of_one_way_drops_that_way_in_silence_and_no_other() {
    let network = Network::new(&["far".to_owned()]).expect("a network");
    let socket = UdpSocket::bind((network.host(TEST).address, 0)).expect("an address of ours");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a socket");
    // Nobody listens at the port of the other protocol: whoever gets through is told so by the host.
    socket.connect(network.host("far").at(9)).expect("a route");
    let arrives_and_comes_back = || {
        let before = network.received("far").expect("a counter");
        socket.send(b"anybody there?").expect("it is sent");
        let told = socket.recv(&mut [0; 64]).expect_err("nobody answers").kind();
        (
            network.received("far").expect("a counter") > before,
            told == std::io::ErrorKind::ConnectionRefused,
        )
    };
    assert_eq!(arrives_and_comes_back(), (true, true));
    network.cut_one_way(TEST, "far");
    assert_eq!(arrives_and_comes_back(), (false, false));
    network.heal();
    network.cut_one_way("far", TEST);
    assert_eq!(arrives_and_comes_back(), (true, false));
    network.heal();
    assert_eq!(arrives_and_comes_back(), (true, true));
}

#[tokio::test]
async fn a_leaf_cut_off_from_the_aggregators_is_told_of_in_seconds_and_heals_by_itself() {
    let (network, cluster, layout) = start().await;
    let complete = cluster.sql("select count(*), sum(n)::bigint from events").await;
    assert_eq!(complete.rows, [[json!(200), json!(19_900)]]);

    // A question that waits for what the other leaf will never have: it holds a view here, of which nobody can let go
    // once the cut is there.
    let [first, second] = DOORS.map(|door| cluster.door(door));
    let waits = json!({ "at_least": format!("push/{}@1000000", layout.partition_near), "timeout_ms": 3_000 });
    let asker = cluster.door(DOORS[0]);
    let abandoned = tokio::spawn(async move { ask(&asker, &count("events"), waits).await });
    settles("a view is held", Duration::from_secs(3), || async {
        let held = cluster.metric(FAR, "rachis_leaf_views").await?;
        ensure!(held == 1.0, "views of {held} questions are held");
        Ok(())
    })
    .await;
    DOORS.iter().for_each(|door| network.cut(door, FAR));
    let (all, near) = (count("events"), count(&layout.near));
    let answers = tokio::join!(
        ask(&first, &all, json!({})),
        ask(&second, &all, json!({})),
        ask(&first, &near, json!({}))
    );
    for answer in [&answers.0, &answers.1] {
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (503, &json!("incomplete")),
            "{answer:?}"
        );
        assert!(answer.took < NOTICED_WITHIN, "{answer:?}");
    }
    assert!(
        answers.2.status == 200 && answers.2.took < AT_ONCE,
        "what does not need the leaf is as before: {:?}",
        answers.2
    );
    let abandoned = abandoned.await.expect("it ends");
    assert!(
        [422, 503].contains(&abandoned.status) && abandoned.took < Duration::from_secs(3) + DEADLINE_GRACE,
        "{abandoned:?}"
    );
    // From now on the leaf is known to be away.
    for door in [&first, &second] {
        let partial = ask(door, &all, json!({ "allow_partial": true })).await;
        assert_eq!(
            partial.body["rows"][0],
            json!({ "c": 200 - layout.documents_far }),
            "{partial:?}"
        );
        let stats = &partial.body["stats"];
        assert_eq!(
            (&stats["partial"], &stats["shards"]),
            (&json!(true), &json!({ "total": 2, "answered": 1 }))
        );
        assert!(partial.took < Duration::from_secs(5), "{partial:?}");
    }

    network.heal();
    for door in [&first, &second] {
        settles("answers are complete", HEALED_WITHIN, || async {
            let answer = ask(door, "select count(*) as c, sum(n)::bigint as s from events", json!({})).await;
            ensure!(
                answer.status == 200 && answer.body["stats"]["partial"] == false,
                "{answer:?}"
            );
            assert_eq!(answer.body["stats"]["shards"], json!({ "total": 2, "answered": 2 }));
            assert_eq!(answer.body["rows"][0], json!({ "c": 200, "s": 19_900 }));
            Ok(())
        })
        .await;
    }
    // The leaf has not heard that the question is over; it knows its deadline.
    nothing_is_held(&cluster, Duration::from_secs(3) + LET_GO_WITHIN).await;
}

#[tokio::test]
async fn a_link_that_loses_what_goes_one_way_loses_no_write_doubles_none_and_leaves_nothing_hanging() {
    let (network, cluster, layout) = start().await;
    let stop = CancellationToken::new();
    // Half of them wait for as long as it takes, half give up soon: all repeat what was not acknowledged by its key.
    let patience = |writer: usize| {
        if writer.is_multiple_of(2) {
            Duration::from_secs(2)
        } else {
            PATIENCE
        }
    };
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            tokio::spawn(write(
                DOORS.map(|door| cluster.door(door)),
                writer,
                patience(writer),
                stop.clone(),
            ))
        })
        .collect();
    let written = async || {
        cluster
            .ask("select count(*) from written", json!({}))
            .await
            .map(|answer| answer.one().as_u64().unwrap_or_default())
    };
    let go_on = async |from: u64| {
        settles("writes go on", HEALED_WITHIN, || async {
            let now = written().await?;
            ensure!(now > from + 200, "{now} are there");
            Ok(())
        })
        .await;
    };
    settles("both tailers read", HEALED_WITHIN, || async {
        let uid = cluster
            .ask("select uid from rachis.collections where name = 'written'", json!({}))
            .await?;
        let uid = uid
            .rows
            .first()
            .and_then(|row| row[0].as_str())
            .context("the collection is not there yet")?
            .to_owned();
        ensure!(
            cluster.kafka.members(&format!("rachis-{uid}-push"))? == 2,
            "the group is not complete"
        );
        Ok(())
    })
    .await;
    go_on(0).await;

    // Each of both doors and tailers has lost a leaf, and each door a tailer; between them is one of each that is
    // sound.
    for (asker, asked) in [("aggregator-1", FAR), ("tailer-1", FAR), ("aggregator-1", "tailer-1")] {
        network.cut_one_way(asked, asker);
    }
    for (asker, asked) in [("aggregator-2", NEAR), ("tailer-2", NEAR), ("aggregator-2", "tailer-2")] {
        network.cut_one_way(asker, asked);
    }
    let begun = Instant::now();
    let [first, second] = DOORS.map(|door| cluster.door(door));
    let (all, near, far) = (count("events"), count(&layout.near), count(&layout.far));
    let answers = tokio::join!(
        ask(&first, &all, json!({})),
        ask(&second, &all, json!({})),
        ask(&first, &near, json!({})),
        ask(&second, &far, json!({}))
    );
    for lost in [&answers.0, &answers.1] {
        assert_eq!(
            (lost.status, &lost.body["code"]),
            (503, &json!("incomplete")),
            "{lost:?}"
        );
        assert!(lost.took < NOTICED_WITHIN, "{lost:?}");
    }
    for sound in [&answers.2, &answers.3] {
        assert!(sound.status == 200 && sound.took < AT_ONCE, "{sound:?}");
    }
    for tailer in ["tailer-1", "tailer-2"] {
        settles("the tailer notices that its leaf is silent", NOTICED_WITHIN, || async {
            let failed = cluster.metric(tailer, "rachis_tail_busy_total").await?;
            ensure!(failed > 0.0, "no write of {tailer} has failed");
            Ok(())
        })
        .await;
    }
    let cut = begun.elapsed();
    network.heal();
    for door in [&first, &second] {
        settles("questions are answered", HEALED_WITHIN, || async {
            let answer = ask(door, &all, json!({})).await;
            ensure!(answer.status == 200 && answer.body["rows"][0]["c"] == 200, "{answer:?}");
            Ok(())
        })
        .await;
    }
    go_on(written().await.expect("an answer")).await;

    stop.cancel();
    let mut all_books = Books::default();
    for writer in writers {
        all_books.add(writer.await.expect("every push ends"));
    }
    eprintln!("a cut of {cut:?}: {all_books:?}");
    let Books {
        acknowledged,
        slowest,
        outcomes,
    } = all_books;
    assert!(
        outcomes
            .keys()
            .all(|outcome| ["200", "429", "503", "504", GAVE_UP].contains(&outcome.as_str())),
        "{outcomes:?}"
    );
    assert!(outcomes.contains_key(GAVE_UP), "somebody repeated a push: {outcomes:?}");
    assert!(
        slowest > AT_ONCE && slowest < cut + HEALED_WITHIN,
        "pushes waited, and ended: {slowest:?}"
    );
    let there = cluster
        .sql("select count(*), count(distinct writer * 1000000 + n) from written")
        .await;
    assert_eq!(there.rows, [[json!(acknowledged), json!(acknowledged)]]);
    nothing_is_held(&cluster, HEALED_WITHIN).await;
}

/// What came of pushes.
#[derive(Debug, Default)]
struct Books {
    acknowledged: usize,
    slowest: Duration,
    outcomes: BTreeMap<String, usize>,
}

/// The outcome of a push whose client did not wait for an answer.
const GAVE_UP: &str = "the client gave up";

impl Books {
    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.slowest = self.slowest.max(other.slowest);
        other
            .outcomes
            .into_iter()
            .for_each(|(outcome, count)| *self.outcomes.entry(outcome).or_default() += count);
    }
}

/// Writes one push after another, and repeats each by its key, at the other door, until it is acknowledged.
async fn write(doors: [Client; 2], writer: usize, patience: Duration, stop: CancellationToken) -> Books {
    let mut books = Books::default();
    while !stop.is_cancelled() {
        let body = format!("{{\"writer\":{writer},\"n\":{}}}", books.acknowledged);
        for attempt in 0.. {
            let request = doors[(writer / 2 + books.acknowledged + attempt) % 2]
                .request(Method::POST, "/v1/collections/written/documents");
            let begun = Instant::now();
            let answer = request
                .header("idempotency-key", format!("{writer}-{}", books.acknowledged))
                .body(body.clone())
                .timeout(patience)
                .send()
                .await;
            let outcome = match answer {
                Ok(answer) => answer.status().as_str().to_owned(),
                Err(error) if error.is_timeout() => GAVE_UP.to_owned(),
                Err(error) => panic!("a door is gone: {error:?}"),
            };
            books.slowest = books.slowest.max(begun.elapsed());
            let acknowledged = outcome == "200";
            *books.outcomes.entry(outcome).or_default() += 1;
            if acknowledged {
                break;
            }
        }
        books.acknowledged += 1;
    }
    books
}

#[tokio::test]
async fn a_tailer_cut_off_from_kafka_hands_over_and_one_cut_off_from_leaves_waits() {
    let (network, cluster, _) = start().await;
    cluster.kafka.create_topic("clicks", 4, &[]).await;
    cluster
        .source("clicks", "clicks", "clicks", &cluster.kafka.bootstrap(), json!({}))
        .await
        .expect("a source");
    let produce = async |from: usize| {
        let value = |n: usize| Produce {
            partition: Some((n % 4) as i32),
            ..Produce::value(format!("{{\"n\":{n}}}"))
        };
        cluster
            .kafka
            .produce("clicks", (from..from + 100).map(value).collect())
            .await;
    };
    let all_there = async |what: &str, count: usize, bound: Duration| {
        settles(what, bound, || async {
            let answer = cluster
                .ask("select count(*), count(distinct n) from clicks", json!({}))
                .await?;
            ensure!(answer.rows == [[json!(count), json!(count)]], "{:?}", answer.rows);
            Ok(())
        })
        .await;
    };
    produce(0).await;
    all_there("both tailers read", 100, HEALED_WITHIN).await;
    assert_eq!(push(&cluster.door(DOORS[0]), "pushed", "0", "{}").await.status, 200);

    network.cut("tailer-1", "kafka");
    produce(100).await;
    let pushed = push(&cluster.door(DOORS[0]), "pushed", "1", "{}").await;
    assert!(
        pushed.status == 200 && pushed.took < Duration::from_secs(30),
        "{pushed:?}"
    );
    eprintln!("a push while a tailer is cut off from Kafka: {:?}", pushed.took);
    // The group gives a silent member up after 10 s.
    all_there("the other tailer takes over", 200, Duration::from_secs(30)).await;

    network.cut("tailer-2", NEAR);
    network.cut("tailer-2", FAR);
    produce(200).await;
    settles(
        "the tailer says that the leaves do not answer",
        NOTICED_WITHIN,
        || async {
            let tried = cluster.metric("tailer-2", "rachis_tail_busy_total").await?;
            ensure!(tried > 0.0, "no write has failed");
            Ok(())
        },
    )
    .await;
    assert_eq!(
        *cluster.sql("select count(*) from clicks").await.one(),
        json!(200),
        "questions go on, nothing comes in"
    );

    network.heal();
    produce(300).await;
    all_there("everything arrives", 400, Duration::from_secs(30)).await;
    let again = push(&cluster.door(DOORS[1]), "pushed", "1", "{}").await;
    let same = |key: &str| again.body[key] == pushed.body[key];
    assert!(
        again.status == 200 && same("accepted") && same("position") && again.body["repeated"] == true,
        "a repeated push is the same: {again:?}"
    );
    assert_eq!(*cluster.sql("select count(*) from pushed").await.one(), json!(2));
    nothing_is_held(&cluster, HEALED_WITHIN).await;
}

#[tokio::test]
async fn an_answer_on_a_slow_link_and_one_that_nobody_reads_hold_up_nobody_else() {
    let (network, cluster, layout) = start().await;
    let door = cluster.door(DOORS[0]);
    for number in 0..4 {
        let pushed = push(&door, &layout.near, &format!("near {number}"), documents(500, 16 << 10)).await;
        assert_eq!(pushed.status, 200, "{pushed:?}");
    }
    assert_eq!(
        push(&door, &layout.far, "far", documents(350, 1 << 10)).await.status,
        200
    );
    let (near, far) = (count(&layout.near), format!("select n, pad from {}", layout.far));

    // 32 MB that nobody reads fill every buffer on the way.
    let unread = ask_and_do_not_read(&cluster, DOORS[0], &format!("select pad from {}", layout.near), 5_000).await;
    settles("it runs", AT_ONCE, || async {
        let running = door.get("/v1/queries").await?;
        ensure!(
            running["queries"].as_array().is_some_and(|queries| queries.len() == 1),
            "{running}"
        );
        Ok(())
    })
    .await;
    network.slow(FAR, 1_000);
    let cut_short = ask(&door, &far, json!({ "timeout_ms": 1_500 })).await;
    assert_eq!(
        (cut_short.status, &cut_short.body["code"]),
        (422, &json!("timeout")),
        "{cut_short:?}"
    );
    assert!(
        cut_short.took < Duration::from_millis(1_500) + DEADLINE_GRACE,
        "{cut_short:?}"
    );
    let large = async {
        tokio::join!(
            ask(&door, &far, json!({})),
            push(&door, &layout.far, "more", documents(250, 1 << 10))
        )
    };
    let mut large = std::pin::pin!(large);
    let mut slowest = Duration::ZERO;
    let (answer, pushed) = loop {
        tokio::select! {
            ended = &mut large => break ended,
            other = ask(&door, &near, json!({})) => {
                assert_eq!((other.status, &other.body["rows"][0]["c"]), (200, &json!(2_000)), "{other:?}");
                slowest = slowest.max(other.took);
            }
        }
    };
    eprintln!(
        "an answer of 0.35 MB: {:?}, a push of 0.25 MB: {:?}, others: {slowest:?} at most",
        answer.took, pushed.took
    );
    assert_eq!(
        (answer.status, answer.body["rows"].as_array().map(Vec::len)),
        (200, Some(350)),
        "a slow answer is a whole one"
    );
    assert_eq!(
        (pushed.status, &pushed.body["accepted"]),
        (200, &json!(250)),
        "{pushed:?}"
    );
    assert!(
        answer.took > AT_ONCE && answer.took < Duration::from_secs(30) && pushed.took < Duration::from_secs(30),
        "it was slow, and it ended"
    );
    assert!(
        slowest > Duration::ZERO && slowest < AT_ONCE,
        "others were answered meanwhile, at once: {slowest:?}"
    );
    network.quicken();
    assert_eq!(
        ask(&door, &far, json!({})).await.body["rows"].as_array().map(Vec::len),
        Some(600)
    );
    // The client that does not read is still there, its question is not.
    nothing_is_held(&cluster, HEALED_WITHIN).await;
    drop(unread);
}

// --- what the promises share

/// Where things are.
struct Layout {
    /// A collection that is wholly on the near leaf.
    near: String,
    /// A collection that is wholly on the far leaf.
    far: String,
    /// The partition of the pushes of `events` that the near leaf holds.
    partition_near: u64,
    /// The documents of `events` on the far leaf.
    documents_far: u64,
}

/// A cluster on a network, with 200 documents in `events`, a shard on each leaf, and a collection on each leaf alone.
async fn start() -> (Network, Cluster, Layout) {
    let network = SIZE.network();
    let begun = Instant::now();
    let cluster = Cluster::start_within(&network, SIZE, Settings::default()).await;
    make(&cluster, "events", 2).await;
    let lines: String = (0..200).map(|n| format!("{{\"_id\":\"k{n}\",\"n\":{n}}}\n")).collect();
    cluster.push("events", lines).await.expect("a push");
    let mut alone = BTreeMap::new();
    // Placement is by hash: a collection of one shard is on either leaf.
    for attempt in 0..64 {
        let name = format!("alone{attempt}");
        make(&cluster, &name, 1).await;
        alone.insert(leaf_of(&cluster, &name, 0), name);
        if alone.len() == 2 {
            break;
        }
    }
    let held = "select s.shard, s.partition, count(*) from events e join rachis.sources s on e._partition = s.partition and s.collection = 'events' group by 1, 2";
    let held = cluster.sql(held).await;
    let number = |value: &Value| value.as_u64().expect("a number");
    let on = |leaf: &str| {
        held.rows
            .iter()
            .find(|row| leaf_of(&cluster, "events", number(&row[0])) == leaf)
            .expect("a shard on each leaf")
    };
    let layout = Layout {
        near: alone[NEAR].clone(),
        far: alone[FAR].clone(),
        partition_near: number(&on(NEAR)[1]),
        documents_far: number(&on(FAR)[2]),
    };
    eprintln!("started within {:?}", begun.elapsed());
    (network, cluster, layout)
}

async fn make(cluster: &Cluster, collection: &str, shards: u32) {
    cluster
        .json(
            Method::PUT,
            &format!("/v1/collections/{collection}"),
            json!({ "shards": shards }),
        )
        .await
        .expect("a collection");
}

fn leaf_of(cluster: &Cluster, collection: &str, shard: u64) -> String {
    let told: Value = serde_json::from_str(
        &cluster
            .command(&["cluster", "status", "-o", "json"])
            .expect("the status"),
    )
    .expect("JSON");
    let row = told["shards"].as_array().and_then(|rows| {
        rows.iter()
            .find(|row| row["collection"] == collection && row["shard"] == shard)
    });
    row.and_then(|row| row["leaf"].as_str())
        .unwrap_or_else(|| panic!("no shard {shard} of {collection}: {told}"))
        .to_owned()
}

/// What a door said, and after how long.
#[derive(Debug)]
struct Answered {
    status: u16,
    body: Value,
    took: Duration,
}

async fn send(request: reqwest::RequestBuilder) -> Answered {
    let begun = Instant::now();
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let body = answer.json().await.expect("a whole body of JSON");
    Answered {
        status,
        body,
        took: begun.elapsed(),
    }
}

async fn ask(door: &Client, sql: &str, further: Value) -> Answered {
    let mut question = further;
    question["sql"] = json!(sql);
    send(door.request(Method::POST, "/v1/sql").json(&question)).await
}

/// Asks for a stream of rows, and does not read what comes.
async fn ask_and_do_not_read(cluster: &Cluster, door: &str, sql: &str, timeout_ms: u64) -> TcpStream {
    let url = &cluster.nodes().find(|node| node.name == door).expect("a node").url;
    let address = url.trim_start_matches("http://");
    let question = json!({ "sql": sql, "timeout_ms": timeout_ms }).to_string();
    let head = format!(
        "POST /v1/sql HTTP/1.1\r\nhost: {address}\r\naccept: application/x-ndjson\r\ncontent-type: application/json\r\n"
    );
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream
        .write_all(format!("{head}content-length: {}\r\n\r\n{question}", question.len()).as_bytes())
        .await
        .expect("it is sent");
    stream
}

/// So many documents, each with so many bytes of text.
fn documents(count: usize, bytes: usize) -> String {
    (0..count)
        .map(|n| format!("{{\"n\":{n},\"pad\":\"{}\"}}\n", "x".repeat(bytes)))
        .collect()
}

fn count(collection: &str) -> String {
    format!("select count(*) as c from {collection}")
}

async fn push(door: &Client, collection: &str, key: &str, body: impl Into<reqwest::Body>) -> Answered {
    send(
        door.request(Method::POST, &format!("/v1/collections/{collection}/documents"))
            .header("idempotency-key", key)
            .body(body),
    )
    .await
}

/// Waits until a condition holds, which must be within the bound.
async fn settles<F: Future<Output = Result<()>>>(what: &str, bound: Duration, check: impl FnMut() -> F) {
    let begun = Instant::now();
    eventually(what, check).await;
    eprintln!("{what}: {:?}", begun.elapsed());
    assert!(
        begun.elapsed() < bound,
        "{what}: {:?}, not within {bound:?}",
        begun.elapsed()
    );
}

/// No question runs at any aggregator, and no leaf holds a view for one.
async fn nothing_is_held(cluster: &Cluster, bound: Duration) {
    for door in DOORS {
        let door = cluster.door(door);
        settles("no question runs any more", bound, || async {
            let running = door.get("/v1/queries").await?;
            ensure!(running["queries"] == json!([]), "{running}");
            Ok(())
        })
        .await;
    }
    let bound = bound.max(UNTOLD_VIEW_HELD_MAX);
    for leaf in [NEAR, FAR] {
        settles("no view is held any more", bound, || async {
            let held = cluster.metric(leaf, "rachis_leaf_views").await?;
            ensure!(held == 0.0, "{leaf} holds views of {held} questions");
            Ok(())
        })
        .await;
    }
}
