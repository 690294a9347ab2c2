//! Snapshots: what is written to a folder or to S3 comes back as it was, in the same cluster and in another one, whatever
//! happens to the store and to leaves meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{
    Client, Cluster, Server, Settings,
    cluster::ClusterSize,
    eventually,
    kafka::NewRecord,
    object_store::{Faults, FaultyProxy, S3Server},
    process::TestDir,
    server,
};

const TWO_LEAVES: ClusterSize = ClusterSize {
    leaves: 2,
    tailers: 1,
    aggregators: 1,
};

/// Runs `rachis snapshot …`, and returns what it says: its output, then its notes.
fn snapshot(client: &Client, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(server::binary())
        .arg("snapshot")
        .args(arguments)
        .args(["--url", client.url()])
        .output()
        .expect("the program exits");
    let texts = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    match output.status.success() {
        true => Ok(texts.concat()),
        false => Err(texts.concat()),
    }
}

/// Takes a snapshot, and returns its name.
fn take(client: &Client, collections: &[&str]) -> String {
    let said = snapshot(client, &[&["take"], collections].concat()).expect("a snapshot");
    said.lines().next().expect("its name").to_owned()
}

/// Pushes the documents `from..to`, each with an id of its own.
async fn push(client: &Client, collection: &str, numbers: std::ops::Range<u32>) {
    let line = |n: u32| {
        format!(
            "{{\"_id\":\"k{n}\",\"n\":{n},\"text\":\"{}\"}}\n",
            "x".repeat(n as usize % 300)
        )
    };
    let numbers: Vec<u32> = numbers.collect();
    for part in numbers.chunks(500) {
        let lines: String = part.iter().copied().map(line).collect();
        client.push(collection, lines).await.expect("a push");
    }
}

/// How many documents there are, and their sum.
async fn count(client: &Client, collection: &str) -> Vec<Value> {
    let sql = format!("select count(*), sum(n) from \"{collection}\"");
    client.sql(&sql).await.rows.swap_remove(0)
}

fn sum(numbers: impl Iterator<Item = u32>) -> Vec<Value> {
    let numbers: Vec<i64> = numbers.map(i64::from).collect();
    vec![json!(numbers.len()), json!(numbers.iter().sum::<i64>())]
}

async fn delete(client: &Client, collection: &str, condition: &str) {
    let path = format!("/v1/collections/{collection}/delete");
    let deleted = client.json(Method::POST, &path, json!({ "where": condition })).await;
    deleted.expect("a delete");
}

/// The digests of a collection, by shard, source, partition and block: of its shards, or as a snapshot has them.
type Digests = BTreeMap<(u64, String, i64, i64), String>;

async fn digests_of(client: &Client, collection: &str) -> anyhow::Result<Digests> {
    let sql = format!(
        "select distinct shard, source, partition, from_offset, digest from rachis.digests where collection = \
         '{collection}'"
    );
    let rows = client.query(&sql, json!({})).await?.rows;
    let row = |row: Vec<Value>| {
        let number = |at: usize| row[at].as_i64().context("a number");
        let text = |at: usize| Ok::<_, anyhow::Error>(row[at].as_str().context("a text")?.to_owned());
        Ok(((number(0)?.unsigned_abs(), text(1)?, number(2)?, number(3)?), text(4)?))
    };
    rows.into_iter().map(row).collect()
}

async fn digests_in(client: &Client, id: &str, collection: &str) -> Digests {
    let shown = client
        .get(&format!("/v1/snapshots/{id}?digests=true"))
        .await
        .expect("the snapshot");
    let shards = shown["collections"][collection]["shards"]
        .as_array()
        .expect("its shards");
    let of_shard = |shard: &Value| {
        let number = shard["shard"].as_u64().expect("a number");
        let digests = shard["digests"].as_array().expect("digests").clone();
        digests.into_iter().map(move |digest| {
            let at = |key: &str| digest[key].as_i64().expect("a number");
            let source = digest["source"].as_str().expect("a source").to_owned();
            let hash = digest["digest"].as_str().expect("a digest").to_owned();
            ((number, source, at("partition"), at("from")), hash)
        })
    };
    shards.iter().flat_map(of_shard).collect()
}

/// Files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder).into_iter().filter_map(Result::ok);
    entries
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.into_path())
        .collect()
}

fn in_folder(folder: &TestDir) -> Settings {
    let store = folder.path().join("store");
    std::fs::create_dir_all(&store).expect("a folder");
    Settings::default()
        .small_splits()
        .with("RACHIS_SNAPSHOTS__URL", store.display())
}

#[tokio::test]
async fn a_copy_is_as_it_was_and_goes_on_by_itself() {
    let folder = TestDir::new("snapshots").expect("a folder");
    let mut server = Server::start(in_folder(&folder)).await;
    push(&server, "events", 0..4_000).await;
    delete(&server, "events", "n < 100").await;
    server.wait_for_splits(3_000).await;
    let id = take(&server, &[]);
    let at_snapshot = digests_of(&server, "events").await.expect("digests");
    assert_eq!(digests_in(&server, &id, "events").await, at_snapshot);
    // What happens from now on is not in it.
    push(&server, "events", 4_000..5_000).await;
    delete(&server, "events", "n < 300").await;
    let said = snapshot(&server, &["restore", &id, "events", "--as", "before"]).expect("a copy");
    assert!(said.contains("before is there: 3900 documents"), "{said}");
    assert_eq!(count(&server, "before").await, sum(100..4_000));
    assert_eq!(count(&server, "events").await, sum(300..5_000));
    assert_eq!(digests_of(&server, "before").await.expect("digests"), at_snapshot);
    // Ids are known, positions go on, and what was deleted stays deleted after a restart.
    push(&server, "before", 3_990..4_010).await;
    delete(&server, "before", "n = 4009").await;
    assert_eq!(count(&server, "before").await, sum(100..4_009));
    server.kill();
    server.restart().await;
    assert_eq!(count(&server, "before").await, sum(100..4_009));
    let raw = server
        .query("select count(*) from before", json!({ "scan": "raw" }))
        .await;
    assert_eq!(raw.expect("an answer").single_value(), &json!(3_909));
}

#[tokio::test]
async fn a_second_snapshot_writes_little_and_damage_is_found() {
    let folder = TestDir::new("snapshots").expect("a folder");
    let server = Server::start(in_folder(&folder)).await;
    push(&server, "events", 0..6_000).await;
    push(&server, "others", 0..100).await;
    server.wait_for_splits(5_000).await;
    let first = take(&server, &["events"]);
    push(&server, "events", 6_000..6_010).await;
    let second = take(&server, &["events"]);
    let sql = "select bytes, bytes_written, state, collections from rachis.snapshots order by began";
    let rows = server.sql(sql).await.rows;
    assert_eq!(rows.len(), 2);
    let [whole, written] = [rows[0][1].as_i64(), rows[1][1].as_i64()].map(|bytes| bytes.expect("bytes"));
    assert!(written * 2 < whole, "{written} of {whole} bytes are written again");
    assert_eq!((&rows[1][2], &rows[1][3]), (&json!("complete"), &json!("events")));
    for id in [&first, &second] {
        let said = snapshot(&server, &["check", id, "--read"]).expect("nothing is damaged");
        assert!(said.contains("bytes were compared"), "{said}");
    }
    // What only the second one has goes away with it.
    let objects = folder.path().join("store/objects");
    let before = files(&objects).len();
    let said = snapshot(&server, &["remove", &second]).expect("it is removed");
    assert!(files(&objects).len() < before, "{said}");
    snapshot(&server, &["check", &first, "--read"]).expect("the first one has all its files");
    assert!(
        snapshot(&server, &["show", &second])
            .expect_err("it is gone")
            .contains("no complete snapshot")
    );
    // A byte that changes is found by its hash, a file that is missing without reading any.
    let largest = files(&objects)
        .into_iter()
        .max_by_key(|file| file.metadata().map_or(0, |meta| meta.len()));
    let largest = largest.expect("a file");
    let mut bytes = std::fs::read(&largest).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, bytes).expect("it can be written");
    snapshot(&server, &["check", &first]).expect("sizes are right");
    // It is not restored.
    let body = json!({ "collections": ["events"], "as": "damaged" });
    let restored = server
        .json(Method::POST, &format!("/v1/snapshots/{first}/restore"), body)
        .await;
    restored.expect("it begins");
    eventually("the damage is reported", || async {
        let sql = "select error from rachis.moves where collection = 'damaged' and error is not null";
        let rows = server.query(sql, json!({})).await?.rows;
        let error = rows.first().and_then(|row| row[0].as_str()).context("no error")?;
        ensure!(error.contains("has not the hash"), "{error}");
        Ok(())
    })
    .await;
    assert!(
        snapshot(&server, &["remove", &first])
            .expect_err("it is needed")
            .contains("are being restored from it")
    );
    let path = "/v1/collections/damaged";
    server
        .json(Method::DELETE, path, json!({}))
        .await
        .expect("it is given up");
    let said = snapshot(&server, &["check", &first, "--read"]).expect_err("one is damaged");
    assert!(said.contains("1 of") && said.contains("shard 0 of events"), "{said}");
    // It is of no use, so that no later snapshot relies on it.
    let said = snapshot(&server, &["check", &first]).expect_err("one is missing");
    assert!(said.contains("1 of"), "{said}");
    let third = take(&server, &["events"]);
    snapshot(&server, &["check", &third, "--read"]).expect("it is whole");
}

#[tokio::test]
async fn the_schedule_keeps_the_newest_and_what_somebody_has_asked_for() {
    let folder = TestDir::new("snapshots").expect("a folder");
    let settings = in_folder(&folder)
        .with("RACHIS_SNAPSHOTS__EVERY_MS", 300)
        .with("RACHIS_SNAPSHOTS__KEPT", 2);
    let server = Server::start(settings).await;
    push(&server, "events", 0..1_000).await;
    let asked = eventually("nothing else is being done", || async {
        Ok(server.json(Method::POST, "/v1/snapshots", json!({})).await?["id"].clone())
    })
    .await;
    let seen = std::cell::RefCell::new(BTreeSet::new());
    eventually(
        "five were taken by the schedule, and the older ones were removed",
        || async {
            let sql = "select id from rachis.snapshots where state = 'complete' and scheduled";
            let rows = server.query(sql, json!({})).await?.rows;
            assert!(rows.len() <= 3, "{rows:?}");
            seen.borrow_mut().extend(rows.into_iter().map(|row| row[0].to_string()));
            ensure!(seen.borrow().len() >= 5, "{seen:?}");
            Ok(())
        },
    )
    .await;
    eventually("two are kept, and the one that was asked for", || async {
        let sql = "select count(*) filter (where scheduled), max(id) filter (where not scheduled) from rachis.snapshots \
                   where state = 'complete'";
        let row = server.query(sql, json!({})).await?.rows.swap_remove(0);
        ensure!(row == [json!(2), asked.clone()], "{row:?}");
        Ok(())
    })
    .await;
    snapshot(&server, &["check", asked.as_str().expect("its name"), "--read"]).expect("all its files are there");
}

#[tokio::test]
async fn what_is_wrong_with_a_store_is_said() {
    let folder = TestDir::new("snapshots").expect("a folder");
    let server = Server::start(in_folder(&folder)).await;
    push(&server, "events", 0..10).await;
    let id = take(&server, &[]);
    for (arguments, said) in [
        (vec!["take", "nothing"], "collection nothing does not exist"),
        (vec!["restore", "20200101-000000-00000000"], "no complete snapshot"),
        (vec!["restore", "../secrets"], "is not the name of a snapshot"),
        (vec!["restore", &id], "collection events exists already"),
        (
            vec!["restore", &id, "nothing", "--as", "copy"],
            "has no collection nothing",
        ),
        (vec!["restore", &id, "--as", "copy"], "is for one collection"),
        (
            vec!["restore", &id, "events", "--as", "copy", "--continue"],
            "it is still there, as events",
        ),
        (vec!["remove", "20200101-000000-00000000"], "no complete snapshot"),
    ] {
        let output = snapshot(&server, &arguments).expect_err("it fails");
        assert!(output.contains(said), "{arguments:?}: {output}");
    }
    let none = Server::start(Settings::default()).await;
    assert!(
        snapshot(&none, &["list"])
            .expect_err("no store")
            .contains("set url in [snapshots]")
    );
    assert!(none.sql("select * from rachis.snapshots").await.rows.is_empty());
    let s3 = S3Server::start().await;
    let wrong_key = s3
        .settings(Settings::default())
        .with("RACHIS_SNAPSHOTS__OPTIONS__SECRET_ACCESS_KEY", "wrong");
    let refused = Server::start(wrong_key).await;
    let output = snapshot(&refused, &["list"]).expect_err("the key is wrong");
    assert!(
        output.contains("s3://snapshots/here") && output.contains("check"),
        "{output}"
    );
    assert!(!output.contains("wrong"), "{output}");
}

// The proxy runs on another thread than the commands.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_breaks_off_and_is_slow_gets_a_whole_snapshot() {
    let seed = tests::seed();
    let s3 = S3Server::start().await;
    let proxy = FaultyProxy::start(&s3, seed).await;
    let server = Server::start(proxy.settings(Settings::default().small_splits())).await;
    push(&server, "events", 0..10_000).await;
    // A file of several parts.
    let wide: String = (0..40)
        .map(|n| {
            let noise: String = (0..300_000_u64)
                .map(|at| char::from(b'a' + (at * at * (n + 3) % 23) as u8))
                .collect();
            format!("{{\"n\":{n},\"text\":\"{noise}\"}}\n")
        })
        .collect();
    server.push("wide", wide).await.expect("a push");
    proxy.set(Faults {
        refused: 10,
        broken: 10,
        slow: 10,
    });
    let mut id = take(&server, &[]);
    // Each fault has happened, also to an upload.
    let all_happened = |had: Faults| had.refused > 0 && had.broken > 0 && had.slow > 0;
    let mut pushed = 10_000;
    while !all_happened(proxy.had()) {
        assert!(pushed < 10_100, "{:?}", proxy.had());
        push(&server, "events", pushed..pushed + 1).await;
        pushed += 1;
        id = take(&server, &[]);
    }
    proxy.set(Faults::default());
    snapshot(&server, &["check", &id, "--read"]).expect("it is whole");
    assert!(!files(&s3.objects()).is_empty());
    proxy.set(Faults {
        refused: 10,
        broken: 10,
        slow: 10,
    });
    let body = json!({ "collections": ["events"], "as": "copy" });
    let begun = server
        .json(Method::POST, &format!("/v1/snapshots/{id}/restore"), body)
        .await;
    begun.expect("a copy is begun");
    server
        .eventually("select sum(n) from copy", sum(0..pushed)[1].clone())
        .await;
    assert_eq!(
        digests_of(&server, "copy").await.expect("digests"),
        digests_in(&server, &id, "events").await
    );
}

#[tokio::test]
async fn a_snapshot_is_taken_of_another_replica_if_a_leaf_dies() {
    let folder = TestDir::new("snapshots").expect("a folder");
    // So slow that it is still being taken when the leaf dies.
    let settings = in_folder(&folder).with("RACHIS_LEAF__COPY_BYTES_PER_SECOND", 100_000);
    let mut cluster = Cluster::start(TWO_LEAVES, settings).await;
    push(&cluster, "events", 0..4_000).await;
    let begun = cluster
        .json(Method::POST, "/v1/snapshots", json!({}))
        .await
        .expect("it begins");
    let path = format!("/v1/snapshots/{}", begun["id"].as_str().expect("its name"));
    cluster.kill("leaf-1");
    eventually("it is complete", || async {
        let shown = cluster.get(&path).await?;
        ensure!(shown["state"] == "complete", "{shown}");
        Ok(())
    })
    .await;
    let id = begun["id"].as_str().expect("its name");
    snapshot(&cluster, &["check", id, "--read"]).expect("it is whole");
}

/// Writes keyed records with these numbers, and returns where they are.
async fn produce(cluster: &Cluster, numbers: std::ops::Range<u32>) -> Vec<(i32, i64)> {
    let records = numbers.map(|n| NewRecord::keyed(format!("c{n}"), Some(format!("{{\"n\":{n}}}").into_bytes())));
    cluster.kafka.produce("clicks", records.collect()).await
}

// The proxy runs on another thread than the commands.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_lost_is_restored_and_goes_on_with_its_log() {
    let seed = tests::seed();
    let s3 = S3Server::start().await;
    let proxy = FaultyProxy::start(&s3, seed).await;
    let settings = || proxy.settings(Settings::default().small_splits());
    let lost = Cluster::start(TWO_LEAVES, settings()).await;
    lost.kafka.create_topic("clicks", 3, &[]).await;
    produce(&lost, 0..2_000).await;
    lost.source_of_topic("clicks", &lost.kafka).await;
    lost.eventually("select count(*) from clicks", json!(2_000)).await;
    push(&lost, "events", 0..3_000).await;
    push(&lost, "late", 0..100).await;
    delete(&lost, "events", "n < 100").await;
    delete(&lost, "clicks", "n < 10").await;
    lost.sql("create field events.double as n * 2").await;
    let id = take(&lost, &[]);
    let at_snapshot = [
        digests_in(&lost, &id, "events").await,
        digests_in(&lost, &id, "clicks").await,
    ];
    // All this is in the log only.
    produce(&lost, 2_000..2_500).await;
    push(&lost, "events", 3_000..3_300).await;
    delete(&lost, "events", "n between 200 and 299").await;
    delete(&lost, "clicks", "n between 20 and 29").await;
    // The first delete of all in this collection.
    delete(&lost, "late", "n < 10").await;
    lost.eventually("select count(*) from clicks", json!(2_480)).await;
    lost.wait_until_replicas_are_equal(2).await;
    let at_end = [
        digests_of(&lost, "events").await.expect("digests"),
        digests_of(&lost, "clicks").await.expect("digests"),
    ];
    let kafka = lost.into_kafka();

    let settings = settings().with("RACHIS_CLUSTER__CHANGES_TOPIC", "changes-of-the-second");
    let mut cluster = Cluster::start_on(kafka, TWO_LEAVES, settings).await;
    proxy.set(Faults {
        refused: 3,
        broken: 3,
        slow: 3,
    });
    // A copy has what the snapshot has, and nothing of the log.
    let said = snapshot(&cluster, &["restore", &id, "events", "--as", "before"]).expect("a copy");
    assert!(said.contains("before is there: 2900 documents"), "{said}");
    assert_eq!(digests_of(&cluster, "before").await.expect("digests"), at_snapshot[0]);
    let said = snapshot(&cluster, &["restore", &id, "--continue"]).expect("all is restored");
    assert!(said.contains("sources go on: clicks"), "{said}");
    // What was deleted shows in no answer, not even before the rest of the log is read.
    assert!(said.contains("late is there: 90 documents"), "{said}");
    assert_ne!(at_snapshot, at_end);
    for (collection, digests) in ["events", "clicks"].into_iter().zip(&at_end) {
        eventually("the log is caught up with", || async {
            let found = digests_of(&cluster, collection).await?;
            ensure!(found == *digests, "{collection} has {found:?}");
            Ok(())
        })
        .await;
    }
    let events: Vec<u32> = (100..200).chain(300..3_300).collect();
    assert_eq!(count(&cluster, "events").await, sum(events.iter().copied()));
    assert_eq!(count(&cluster, "clicks").await, sum((10..20).chain(30..2_500)));
    let double = cluster.sql("select max(double) from events").await;
    assert_eq!(double.single_value(), &json!(6_598));
    // It goes on: pushes, deletes, records; also if a leaf dies, and with two equal replicas.
    for collection in ["events", "before"] {
        push(&cluster, collection, 5_000..5_100).await;
        delete(&cluster, collection, "n = 5000").await;
    }
    produce(&cluster, 2_500..2_600).await;
    cluster.kill("leaf-2");
    cluster.restart("leaf-2").await;
    cluster.eventually("select count(*) from clicks", json!(2_580)).await;
    assert_eq!(
        count(&cluster, "events").await,
        sum(events.iter().copied().chain(5_001..5_100))
    );
    assert_eq!(count(&cluster, "before").await, sum((100..3_000).chain(5_001..5_100)));
    cluster.wait_until_replicas_are_equal(2).await;
    // Every shard is on a leaf, and the catalog knows it: nothing needs the snapshot any more.
    eventually("the snapshot is removed", || async {
        snapshot(&cluster, &["remove", &id]).map_err(anyhow::Error::msg)
    })
    .await;
}

#[tokio::test]
async fn shards_whose_only_leaf_has_lost_its_disk_come_from_the_newest_snapshot_and_then_from_the_log() {
    let folder = TestDir::new("snapshots").expect("a folder");
    lose_all_disks(&folder, Settings::one_replica).await;
}

#[tokio::test]
async fn shards_whose_leaves_have_all_lost_their_disks_come_from_the_newest_snapshot_and_then_from_the_log() {
    let folder = TestDir::new("snapshots").expect("a folder");
    lose_all_disks(&folder, |settings| settings).await;
}

async fn lose_all_disks(folder: &TestDir, replicas: fn(Settings) -> Settings) {
    const COLLECTIONS: [&str; 3] = ["clicks", "events", "late"];
    let mut cluster = Cluster::start(TWO_LEAVES, replicas(in_folder(folder))).await;
    cluster.kafka.create_topic("clicks", 2, &[]).await;
    produce(&cluster, 0..1_000).await;
    cluster.source_of_topic("clicks", &cluster.kafka).await;
    cluster.eventually("select count(*) from clicks", json!(1_000)).await;
    push(&cluster, "events", 0..1_000).await;
    take(&cluster, &[]);
    produce(&cluster, 1_000..2_000).await;
    cluster.eventually("select count(*) from clicks", json!(2_000)).await;
    delete(&cluster, "clicks", "n < 10").await;
    let newest = take(&cluster, &[]);
    // Kafka keeps only the records that came after the newest snapshot.
    for (partition, offset) in first_offsets(&produce(&cluster, 2_000..2_500).await) {
        cluster.kafka.delete_records_before("clicks", partition, offset).await;
    }
    push(&cluster, "events", 1_000..1_300).await;
    push(&cluster, "late", 0..100).await;
    delete(&cluster, "clicks", "n between 20 and 29").await;
    cluster.eventually("select count(*) from clicks", json!(2_480)).await;
    let mut before = Vec::new();
    for collection in COLLECTIONS {
        before.push(digests_of(&cluster, collection).await.expect("digests"));
    }
    for leaf in ["leaf-1", "leaf-2"] {
        cluster.kill(leaf);
        std::fs::remove_dir_all(cluster.data_dir(leaf)).expect("its disk is lost");
    }
    cluster.restart_all(&["leaf-1".to_owned(), "leaf-2".to_owned()]).await;
    for (collection, before) in COLLECTIONS.into_iter().zip(&before) {
        eventually("all shards have what they had", || async {
            let found = digests_of(&cluster, collection).await?;
            ensure!(found == *before, "{collection} has {found:?}");
            Ok(())
        })
        .await;
    }
    assert_eq!(count(&cluster, "clicks").await, sum((10..20).chain(30..2_500)));
    assert_eq!(count(&cluster, "events").await, sum(0..1_300));
    assert_eq!(count(&cluster, "late").await, sum(0..100));
    // It goes on, and the catalog knows that every shard is on a leaf.
    push(&cluster, "events", 1_300..1_400).await;
    produce(&cluster, 2_500..2_600).await;
    cluster.eventually("select count(*) from clicks", json!(2_580)).await;
    cluster.eventually("select count(*) from rachis.moves", json!(0)).await;
    snapshot(&cluster, &["check", &newest, "--read"]).expect("it is whole");
}

/// The first offset of each partition among those of some records.
fn first_offsets(records: &[(i32, i64)]) -> BTreeMap<i32, i64> {
    let mut first = BTreeMap::new();
    for (partition, offset) in records {
        let known = first.entry(*partition).or_insert(*offset);
        *known = offset.min(known).to_owned();
    }
    first
}

/// Overwrites objects with as many other bytes.
fn damage(objects: impl IntoIterator<Item = PathBuf>) {
    for file in objects {
        let bytes = std::fs::metadata(&file).expect("a file").len();
        std::fs::write(&file, vec![b'x'; usize::try_from(bytes).expect("a size")]).expect("damaged");
    }
}

#[tokio::test]
async fn a_lost_shard_comes_from_the_newest_snapshot_that_is_whole_or_if_the_operator_says_so_from_kafka() {
    let folder = TestDir::new("snapshots").expect("a folder");
    let size = ClusterSize {
        leaves: 1,
        ..TWO_LEAVES
    };
    let mut cluster = Cluster::start(size, in_folder(&folder).one_replica()).await;
    push(&cluster, "events", 0..1_000).await;
    let older = take(&cluster, &[]);
    let objects = folder.path().join("store/objects");
    let of_older: BTreeSet<PathBuf> = files(&objects).into_iter().collect();
    push(&cluster, "events", 1_000..2_000).await;
    let newest = take(&cluster, &[]);
    damage(files(&objects).into_iter().filter(|file| !of_older.contains(file)));
    let before = digests_of(&cluster, "events").await.expect("digests");
    cluster.kill("leaf-1");
    std::fs::remove_dir_all(cluster.data_dir("leaf-1")).expect("its disk is lost");
    cluster.restart("leaf-1").await;
    let is_whole = async |cluster: &Cluster| {
        eventually("the shard has what it had", || async {
            let found = digests_of(cluster, "events").await?;
            ensure!(found == before, "{found:?}");
            Ok(())
        })
        .await;
        assert_eq!(count(cluster, "events").await, sum(0..2_000));
    };
    is_whole(&cluster).await;
    let log = cluster.log("leaf-1");
    let is_passed_over = |line: &str| line.contains("damaged") && line.contains(&newest);
    assert!(log.lines().any(is_passed_over), "{}", cluster.log_tail("leaf-1"));
    assert!(log.contains("a shard was copied"), "{}", cluster.log_tail("leaf-1"));

    damage(of_older);
    cluster.kill("leaf-1");
    std::fs::remove_dir_all(cluster.data_dir("leaf-1")).expect("its disk is lost again");
    cluster.restart("leaf-1").await;
    eventually("it is said why the shard does not answer", || async {
        let errors = cluster.query("select error from rachis.moves", json!({})).await?.rows;
        let text = json!(errors).to_string();
        ensure!(text.contains("are damaged") && text.contains("without url"), "{text}");
        Ok(())
    })
    .await;
    // The push is refused before it is written to Kafka.
    let refused = cluster
        .push("events", "{\"n\":0}")
        .await
        .expect_err("no shard is there");
    let refused = format!("{refused:#}");
    assert!(
        refused.contains("503") && refused.contains("being copied or restored"),
        "{refused}"
    );
    let refused = snapshot(&cluster, &["remove", &older]).expect_err("a leaf may need it");
    assert!(refused.contains("shards are being restored from it"), "{refused}");
    cluster.kill("leaf-1");
    cluster.restart_with("leaf-1", &[("RACHIS_SNAPSHOTS__URL", "")]).await;
    is_whole(&cluster).await;
    eventually("the snapshot is not needed any more", || async {
        snapshot(&cluster, &["remove", &older]).map_err(anyhow::Error::msg)
    })
    .await;
}
