//! The broker's process: its jars, its storage and its configuration.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    network::Host,
    process::{Process, TestDir, kafka_command},
};

/// The folder of Kafka's jars: `RACHIS_KAFKA_JARS`, else where `tests/run` puts them.
pub fn jars() -> Result<PathBuf> {
    let folder = std::env::var_os("RACHIS_KAFKA_JARS").map(PathBuf::from);
    let folder = folder.or_else(|| Some(crate::cache_dir()?.join("kafka-4.1.1")));
    let folder = folder.context("there is no home folder; set RACHIS_KAFKA_JARS")?;
    ensure!(
        folder.is_dir(),
        "{} does not exist; ./tests/run --prepare fetches Apache Kafka",
        folder.display()
    );
    Ok(folder)
}

fn java(folder: &TestDir, host: &Host) -> Result<Command> {
    let mut command = kafka_command(host, &jars()?);
    command.current_dir(folder.path());
    Ok(command)
}

pub(super) fn format_storage(folder: &TestDir) -> Result<()> {
    // A cluster id is any 22 characters of URL-safe base64 that decode to 16 bytes.
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut id: String = (0..21)
        .map(|_| char::from(alphabet[rand::random_range(0..alphabet.len())]))
        .collect();
    id.push('A');
    let output = java(folder, &Host::local())?
        .args([
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "-t",
            &id,
            "-c",
            "server.properties",
        ])
        .output()?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

pub(super) fn spawn(folder: &TestDir, host: &Host) -> Result<Process> {
    Process::start(
        "kafka",
        java(folder, host)?.args(["kafka.Kafka", "server.properties"]),
        &folder.path().join("output"),
    )
}

/// The text of `server.properties`: a combined broker and controller, with additional lines.
pub(super) fn properties(log: &str, host: &Host, port: u16, controller: u16, extra: &[&str]) -> String {
    let (broker, controller) = (host.socket_addr(port), host.socket_addr(controller));
    let lines = [
        "process.roles=broker,controller".to_owned(),
        "node.id=1".into(),
        format!("controller.quorum.bootstrap.servers={controller}"),
        format!("listeners=PLAINTEXT://{broker},CONTROLLER://{controller}"),
        format!("advertised.listeners=PLAINTEXT://{broker}"),
        "controller.listener.names=CONTROLLER".into(),
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".into(),
        format!("log.dirs={log}"),
        "auto.create.topics.enable=false".into(),
        "offsets.topic.replication.factor=1".into(),
        "offsets.topic.num.partitions=1".into(),
        "transaction.state.log.replication.factor=1".into(),
        "transaction.state.log.min.isr=1".into(),
        "transaction.state.log.num.partitions=1".into(),
        "group.initial.rebalance.delay.ms=0".into(),
        "group.min.session.timeout.ms=1000".into(),
        "message.max.bytes=20000000".into(),
        // A restarted broker waits until its old session expires; a short timeout keeps tests fast.
        "broker.session.timeout.ms=1500".into(),
        "broker.heartbeat.interval.ms=300".into(),
        "controller.quorum.election.timeout.ms=300".into(),
        "controller.quorum.fetch.timeout.ms=600".into(),
    ];
    lines
        .into_iter()
        .chain(extra.iter().map(|line| (*line).to_owned()))
        .map(|line| line + "\n")
        .collect()
}
