//! The client commands: answers go to standard output, errors to standard error, and the exit code tells them apart.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tests::{Server, Settings, server, unused_address};

/// Runs the program against a server.
struct Cli<'a> {
    server: &'a Server,
}

impl Cli<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        self.with_input(arguments, "")
    }

    fn with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(server::binary());
        command
            .args(arguments)
            .env("RACHIS_URL", self.server.url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(input.as_bytes())
            .expect("the program reads its input");
        child.wait_with_output().expect("the program exits")
    }
}

/// Standard output of a command, which must have succeeded.
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that a command failed with this exit code and a message that contains `text`.
fn assert_fails(output: &Output, code: i32, text: &str) {
    let message = stderr(output);
    assert!(
        output.status.code() == Some(code) && message.contains(text),
        "{:?}, not {code} with {text:?}: {message}",
        output.status
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_pushed_once_however_often_it_is_pushed() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli { server: &server };
    let folder = tempfile::tempdir().expect("a folder");
    let plain = folder.path().join("a.json");
    // Over 8 MiB, so that the client sends several blocks.
    let lines: String = (0..120_000)
        .map(|i| format!("{{\"n\":{i},\"pad\":\"{}\"}}\n", "x".repeat(80)))
        .collect();
    std::fs::write(&plain, &lines).expect("the file is written");
    let path = plain.to_str().expect("UTF-8");
    for again in [false, true] {
        let pushed = cli.run(&["push", "files", path]);
        assert!(
            pushed.status.success() && stderr(&pushed).contains("120000 documents accepted"),
            "{}",
            stderr(&pushed)
        );
        assert_eq!(
            stderr(&pushed).contains("120000 of them had been pushed before"),
            again,
            "{}",
            stderr(&pushed)
        );
        assert_eq!(
            server.sql("select count(*), count(distinct n) from files").await.rows,
            [[json!(120_000), json!(120_000)]]
        );
    }
    std::fs::write(&plain, lines.clone() + "{\"n\":-1}\n").expect("the file is written");
    let changed = cli.run(&["push", "files", path]);
    assert_fails(&changed, 1, "--again");
    assert_no_dead_letters(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_files_arrays_and_standard_input_are_pushed() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli { server: &server };
    let folder = tempfile::tempdir().expect("a folder");
    let packed = folder.path().join("b.ndjson.zst");
    std::fs::write(&packed, zstd::encode_all(&b"{\"n\":1}\n[2]\n"[..], 3).expect("memory"))
        .expect("the file is written");
    stdout(&cli.run(&["push", "packed", packed.to_str().expect("UTF-8")]));
    let list = folder.path().join("c.json");
    std::fs::write(&list, "[\n {\"n\":1},\n {\"n\":2}\n]\n").expect("the file is written");
    stdout(&cli.run(&["push", "packed", list.to_str().expect("UTF-8")]));
    stdout(&cli.with_input(&["push", "packed", "-"], "{\"n\":1}\n"));
    assert_eq!(
        server.sql("select count(*), sum(n) from packed").await.rows,
        [[json!(5), json!(5)]]
    );
    assert_no_dead_letters(&server).await;

    let rejected = cli.with_input(&["push", "packed", "-"], "{\"n\":1}\n{oops\n");
    assert_fails(&rejected, 1, "item 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn pretty_printed_documents_are_pushed_and_other_formats_are_refused() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli { server: &server };
    let folder = tempfile::tempdir().expect("a folder");
    let pretty = folder.path().join("d.json");
    // Over 8 MiB, so that the client has to cut blocks between documents.
    let document = |n: i32| format!("{{\n  \"n\": {n},\n  \"pad\": \"{}\"\n}}\n", "x".repeat(500));
    std::fs::write(&pretty, (0..20_000).map(document).collect::<String>()).expect("the file is written");
    stdout(&cli.run(&["push", "pretty", pretty.to_str().expect("UTF-8")]));
    assert_eq!(
        server.sql("select count(*), sum(n)::bigint from pretty").await.rows,
        [[json!(20_000), json!(199_990_000)]]
    );
    for (name, bytes, hint) in [
        ("e.xz", &b"\xfd7zXZ\0\0\x04"[..], "xz -dc"),
        ("e.csv", b"n,t\n1,a\n2,b\n", "CSV"),
        ("e.zip", b"PK\x03\x04", "unzip -p"),
    ] {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).expect("the file is written");
        let refused = cli.run(&["push", "foreign", file.to_str().expect("UTF-8")]);
        assert_fails(&refused, 1, hint);
    }
    assert_no_dead_letters(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_ingested_again_and_cleared() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli { server: &server };
    let lines = "{\"n\":1}\n{\"n\":2,\"text\":\"unfinished\nGET /index 200\n";
    assert_fails(
        &cli.with_input(&["push", "c", "--ndjson", "-"], lines),
        1,
        "rachis dead-letters list c",
    );
    let list = stdout(&cli.run(&["dead-letters", "list", "c"]));
    assert!(
        list.contains("push/0@0.1") && list.contains("not_json") && list.contains("GET /index 200"),
        "{list}"
    );
    let lines: Vec<String> = stdout(&cli.run(&["dead-letters", "list", "--limit", "1", "-o", "ndjson"]))
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(
        stdout(&cli.run(&["dead-letters", "list", "c", "--code", "too_deep", "-o", "ndjson"])),
        ""
    );

    let shown = stdout(&cli.run(&["dead-letters", "show", "c", "push/0@0.1"]));
    assert!(
        shown.contains("code      not_json") && shown.contains("{\"n\":2,\"text\":\"unfinished\n"),
        "{shown}"
    );
    let value = stdout(&cli.run(&["dead-letters", "show", "c", "push/0@0.1", "--value"]));
    assert_eq!(value, "{\"n\":2,\"text\":\"unfinished");
    assert_fails(
        &cli.run(&["dead-letters", "show", "c", "push/0@7"]),
        1,
        "no dead letter at push/0@7",
    );

    let dry = cli.run(&["dead-letters", "redrive", "c", "--dry-run"]);
    assert!(
        dry.status.success() && stderr(&dry).contains("2 dead letters of c would be tried"),
        "{dry:?}"
    );
    let in_vain = cli.run(&["dead-letters", "redrive", "c"]);
    assert_fails(&in_vain, 1, "2 dead letters became no documents again, and stay");
    assert!(
        String::from_utf8_lossy(&in_vain.stdout).contains("push/0@0.2"),
        "{in_vain:?}"
    );
    let fixed = format!("{value}\"}}");
    let edited = cli.with_input(
        &[
            "dead-letters",
            "redrive",
            "c",
            "--address",
            "push/0@0.1",
            "--value",
            "-",
        ],
        &fixed,
    );
    assert!(
        edited.status.success() && stderr(&edited).contains("ingested 1 dead letters of c again"),
        "{edited:?}"
    );
    assert_eq!(
        stdout(&cli.run(&["sql", "select text from c where n = 2", "-o", "csv"])),
        "text\nunfinished\n"
    );
    let as_text = cli.run(&["dead-letters", "redrive", "c", "--format", "text"]);
    assert!(as_text.status.success(), "{as_text:?}");
    assert_eq!(
        stdout(&cli.run(&["sql", "select count(*) as n from c", "-o", "csv"])),
        "n\n3\n"
    );

    let pushed = cli.with_input(&["push", "c", "--ndjson", "-"], "nonsense\n");
    assert_eq!(pushed.status.code(), Some(1));
    let cleared = cli.run(&["dead-letters", "clear", "c", "--source", "push"]);
    assert!(
        cleared.status.success() && stderr(&cleared).contains("cleared 1 dead letters of c"),
        "{cleared:?}"
    );
    assert_no_dead_letters(&server).await;
}

async fn assert_no_dead_letters(server: &Server) {
    assert_eq!(
        server
            .sql("select count(*) from rachis.dead_letters")
            .await
            .single_value(),
        &json!(0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_written_in_each_format() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli { server: &server };
    stdout(&cli.with_input(&["push", "c", "-"], "{\"n\":1,\"t\":\"a b\"}\n{\"n\":2}\n"));
    let sql = "select n, t from c order by n";
    let table = stdout(&cli.run(&["sql", sql]));
    assert!(
        table.lines().count() == 3 && table.contains("a b") && table.contains("NULL"),
        "{table}"
    );
    assert_eq!(stdout(&cli.run(&["sql", sql, "-o", "csv"])), "n,t\n1,a b\n2,\n");
    assert_eq!(
        stdout(&cli.run(&["sql", sql, "-o", "ndjson"])),
        "{\"n\":1,\"t\":\"a b\"}\n{\"n\":2,\"t\":null}\n"
    );
    let json: Value = serde_json::from_str(&stdout(&cli.run(&["sql", sql, "-o", "json"]))).expect("JSON");
    assert_eq!(json["rows"][1]["n"], 2);
    assert_eq!(
        stdout(&cli.with_input(&["sql", "-", "-o", "csv"], "select count(*) as n from c")),
        "n\n2\n"
    );
    assert_eq!(
        stdout(&cli.run(&["sql", "select $1 + 1 as n", "-p", "41", "-o", "csv"])),
        "n\n42\n"
    );
    assert!(stdout(&cli.run(&["search", "c", "t:a"])).contains("push/0@0"));
    assert!(
        stdout(&cli.run(&["search", "c", "-t:a"])).contains("push/0@0.1"),
        "a query may begin with a hyphen"
    );
    assert!(stdout(&cli.run(&["fields", "c"])).contains("BIGINT"));
    server
        .push("timed", r#"{"at":"2026-11-28T10:00:00Z","n":1}"#)
        .await
        .expect("a push");
    let timed = cli.run(&["fields", "timed"]);
    assert!(
        stderr(&timed).contains("look like times: at;") && stderr(&timed).contains("put timed --time-path 'at'"),
        "{timed:?}"
    );
    stdout(&cli.run(&[
        "collection",
        "put",
        "timed",
        "--time-path",
        "at",
        "--retention",
        "1000d by event",
    ]));
    assert_eq!(stderr(&cli.run(&["fields", "timed"])), "");
    stdout(&cli.run(&["sql", "create field c.twice as (_doc->>'n')::bigint * 2"]));
    let fields = stdout(&cli.run(&["fields", "c"]));
    let twice = fields
        .lines()
        .find(|line| line.trim_start().starts_with("twice "))
        .unwrap_or_else(|| panic!("the defined field is missing in {fields}"));
    assert!(
        twice.contains(" field ") && twice.contains("(_doc->>'n')::bigint * 2"),
        "{fields}"
    );
    let plan = stdout(&cli.run(&["sql", "explain select twice from c where n > 1"]));
    let has_line = |text: &str| plan.lines().any(|line| line.trim_start().starts_with(text));
    assert!(has_line("Scan c: 2 documents") && has_line("- where n > 1"), "{plan}");
    assert!(
        plan.contains("\n    Scan c"),
        "a step is below the one that reads it: {plan}"
    );
    assert!(stdout(&cli.run(&["collection", "list"])).contains('c'));
    stdout(&cli.run(&["collection", "put", "made", "--shards", "2"]));
    stdout(&cli.run(&["collection", "delete", "made"]));
    stdout(&cli.run(&["source", "list"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_answer_has_its_own_exit_code_in_each_format() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli { server: &server };
    // One row more than an answer without LIMIT may have. With the text column, the rows exceed what the server buffers
    // before it begins to respond.
    let lines: String = (0..10_001)
        .map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}\n", "x".repeat(500)))
        .collect();
    stdout(&cli.with_input(&["push", "c", "-"], &lines));
    for columns in ["n", "n, text"] {
        for format in ["table", "json", "ndjson", "csv"] {
            let truncated = cli.run(&["sql", &format!("select {columns} from c"), "-o", format]);
            let warning = stderr(&truncated);
            assert_eq!(truncated.status.code(), Some(3), "{columns} as {format}: {warning}");
            assert!(
                warning.contains("error: the answer was truncated")
                    && warning.contains("10000 rows")
                    && warning.contains("LIMIT"),
                "{format}: {warning}"
            );
            assert!(
                String::from_utf8_lossy(&truncated.stdout).lines().count() >= if format == "json" { 1 } else { 10_000 },
                "{format}: the rows are written"
            );
            let whole = cli.run(&["sql", &format!("select {columns} from c limit 10001"), "-o", format]);
            assert!(whole.status.success(), "{columns} as {format}: {}", stderr(&whole));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_a_reason_and_an_exit_code() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli { server: &server };
    let failed = cli.run(&["sql", "selct 1"]);
    assert!(
        failed.status.code() == Some(1) && stderr(&failed).starts_with("error: ") && failed.stdout.is_empty(),
        "{}",
        stderr(&failed)
    );
    assert_eq!(cli.run(&["sql"]).status.code(), Some(2));
    stdout(&cli.with_input(&["push", "events", "-"], "{}\n"));
    for command in [
        ["search", "evnets", "x"].as_slice(),
        &["fields", "evnets"],
        &["collection", "get", "evnets"],
    ] {
        let unknown = cli.run(command);
        eprintln!("{command:?}");
        assert_fails(&unknown, 1, "did you mean events?");
    }
    assert_eq!(
        cli.run(&["sql", "select 1", "--url", "nonsense"]).status.code(),
        Some(2)
    );
    let unreachable = cli.run(&["sql", "select 1", "--url", &format!("http://{}", unused_address())]);
    assert_fails(&unreachable, 1, "hint: ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_folder_is_refused() {
    let server = Server::start(Settings::default()).await;
    let second = Command::new(server::binary())
        .arg("dev")
        .arg("--data")
        .arg(server.data_dir())
        .args(["--listen", "127.0.0.1:0"])
        .output()
        .expect("the program exits");
    assert_fails(&second, 1, "in use");
}

#[test]
fn a_public_address_and_unknown_settings_are_refused() {
    let public = Command::new(server::binary())
        .args(["dev", "--listen", "0.0.0.0:0"])
        .output()
        .expect("the program exits");
    assert_fails(&public, 2, "--insecure");
    let unknown = Command::new(server::binary())
        .args(["dev"])
        .env("RACHIS_LEAF__SPLITS", "1")
        .output()
        .expect("the program exits");
    assert_fails(&unknown, 2, "splits");
}
