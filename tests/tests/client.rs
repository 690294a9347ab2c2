//! The client commands: what is typed is done, answers go to standard output, reasons to standard error, and the exit
//! code tells them apart.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tests::{Server, Settings, server};

struct Typed<'a> {
    server: &'a Server,
}

impl Typed<'_> {
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
        let mut child = command.spawn().expect("it starts");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(input.as_bytes())
            .expect("it reads");
        child.wait_with_output().expect("it ends")
    }
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", err(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_pushed_once_however_often_it_is_pushed() {
    let server = Server::start(Settings::default()).await;
    let typed = Typed { server: &server };
    let folder = tempfile::tempdir().expect("a folder");
    let plain = folder.path().join("a.json");
    // Over 8 MiB, so that there are several blocks.
    let lines: String = (0..120_000)
        .map(|i| format!("{{\"n\":{i},\"pad\":\"{}\"}}\n", "x".repeat(80)))
        .collect();
    std::fs::write(&plain, &lines).expect("it is written");
    let path = plain.to_str().expect("UTF-8");
    for again in [false, true] {
        let pushed = typed.run(&["push", "files", path]);
        assert!(
            pushed.status.success() && err(&pushed).contains("120000 documents accepted"),
            "{}",
            err(&pushed)
        );
        assert_eq!(
            err(&pushed).contains("120000 of them had been pushed before"),
            again,
            "{}",
            err(&pushed)
        );
        assert_eq!(
            server.sql("select count(*), count(distinct n) from files").await.rows,
            [[json!(120_000), json!(120_000)]]
        );
    }
    std::fs::write(&plain, lines.clone() + "{\"n\":-1}\n").expect("it is written");
    let changed = typed.run(&["push", "files", path]);
    assert!(
        changed.status.code() == Some(1) && err(&changed).contains("--again"),
        "{}",
        err(&changed)
    );

    let packed = folder.path().join("b.ndjson.zst");
    std::fs::write(&packed, zstd::encode_all(&b"{\"n\":1}\n[2]\n"[..], 3).expect("memory")).expect("it is written");
    out(&typed.run(&["push", "packed", packed.to_str().expect("UTF-8")]));
    let list = folder.path().join("c.json");
    std::fs::write(&list, "[\n {\"n\":1},\n {\"n\":2}\n]\n").expect("it is written");
    out(&typed.run(&["push", "packed", list.to_str().expect("UTF-8")]));
    out(&typed.with_input(&["push", "packed", "-"], "{\"n\":1}\n"));
    assert_eq!(
        server.sql("select count(*), sum(n) from packed").await.rows,
        [[json!(5), json!(5)]]
    );

    let pretty = folder.path().join("d.json");
    // Over 8 MiB, so that blocks are cut between documents.
    let document = |n: i32| format!("{{\n  \"n\": {n},\n  \"pad\": \"{}\"\n}}\n", "x".repeat(500));
    std::fs::write(&pretty, (0..20_000).map(document).collect::<String>()).expect("it is written");
    out(&typed.run(&["push", "pretty", pretty.to_str().expect("UTF-8")]));
    assert_eq!(
        server.sql("select count(*), sum(n)::bigint from pretty").await.rows,
        [[json!(20_000), json!(199_990_000)]]
    );
    for (name, bytes, named) in [
        ("e.xz", &b"\xfd7zXZ\0\0\x04"[..], "xz -dc"),
        ("e.csv", b"n,t\n1,a\n2,b\n", "CSV"),
        ("e.zip", b"PK\x03\x04", "unzip -p"),
    ] {
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).expect("it is written");
        let refused = typed.run(&["push", "foreign", file.to_str().expect("UTF-8")]);
        assert!(
            refused.status.code() == Some(1) && err(&refused).contains(named),
            "{}",
            err(&refused)
        );
    }
    assert_eq!(
        server.sql("select count(*) from rachis.dead_letters").await.one(),
        &json!(0)
    );

    let rejected = typed.with_input(&["push", "packed", "-"], "{\"n\":1}\n{oops\n");
    assert!(
        rejected.status.code() == Some(1) && err(&rejected).contains("item 1"),
        "{}",
        err(&rejected)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_written_in_each_form() {
    let server = Server::start(Settings::default()).await;
    let typed = Typed { server: &server };
    out(&typed.with_input(&["push", "c", "-"], "{\"n\":1,\"t\":\"a b\"}\n{\"n\":2}\n"));
    let sql = "select n, t from c order by n";
    let table = out(&typed.run(&["sql", sql]));
    assert!(
        table.lines().count() == 3 && table.contains("a b") && table.contains("NULL"),
        "{table}"
    );
    assert_eq!(out(&typed.run(&["sql", sql, "-o", "csv"])), "n,t\n1,a b\n2,\n");
    assert_eq!(
        out(&typed.run(&["sql", sql, "-o", "ndjson"])),
        "{\"n\":1,\"t\":\"a b\"}\n{\"n\":2,\"t\":null}\n"
    );
    let json: Value = serde_json::from_str(&out(&typed.run(&["sql", sql, "-o", "json"]))).expect("JSON");
    assert_eq!(json["rows"][1]["n"], 2);
    assert_eq!(
        out(&typed.with_input(&["sql", "-", "-o", "csv"], "select count(*) as n from c")),
        "n\n2\n"
    );
    assert_eq!(
        out(&typed.run(&["sql", "select $1 + 1 as n", "-p", "41", "-o", "csv"])),
        "n\n42\n"
    );
    assert!(out(&typed.run(&["search", "c", "t:a"])).contains("push/0@0"));
    assert!(
        out(&typed.run(&["search", "c", "-t:a"])).contains("push/0@0.1"),
        "a query may begin with a hyphen"
    );
    assert!(out(&typed.run(&["fields", "c"])).contains("BIGINT"));
    out(&typed.run(&["sql", "create field c.twice as (_doc->>'n')::bigint * 2"]));
    let fields = out(&typed.run(&["fields", "c"]));
    let twice = fields
        .lines()
        .find(|line| line.trim_start().starts_with("twice "))
        .unwrap_or_else(|| panic!("a defined field is among {fields}"));
    assert!(
        twice.contains(" field ") && twice.contains("(_doc->>'n')::bigint * 2"),
        "{fields}"
    );
    let plan = out(&typed.run(&["sql", "explain select twice from c where n > 1"]));
    assert!(
        plan.lines().count() > 5 && plan.lines().any(|line| line.trim_start().starts_with("ShardScan")),
        "{plan}"
    );
    assert!(out(&typed.run(&["collection", "list"])).contains('c'));
    out(&typed.run(&["collection", "put", "made", "--shards", "2"]));
    out(&typed.run(&["collection", "delete", "made"]));
    out(&typed.run(&["source", "list"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_cut_ends_with_an_exit_code_of_its_own_in_each_form() {
    let server = Server::start(Settings::default()).await;
    let typed = Typed { server: &server };
    // One row more than an answer without LIMIT may have; with the text, more than the server holds back before it
    // begins to answer.
    let lines: String = (0..10_001)
        .map(|n| format!("{{\"n\":{n},\"text\":\"{}\"}}\n", "x".repeat(500)))
        .collect();
    out(&typed.with_input(&["push", "c", "-"], &lines));
    for columns in ["n", "n, text"] {
        for form in ["table", "json", "ndjson", "csv"] {
            let cut = typed.run(&["sql", &format!("select {columns} from c"), "-o", form]);
            let noted = err(&cut);
            assert_eq!(cut.status.code(), Some(3), "{columns} as {form}: {noted}");
            assert!(
                noted.contains("error: the answer was cut") && noted.contains("10000 rows") && noted.contains("LIMIT"),
                "{form}: {noted}"
            );
            assert!(
                String::from_utf8_lossy(&cut.stdout).lines().count() >= if form == "json" { 1 } else { 10_000 },
                "{form}: the rows are written"
            );
            let whole = typed.run(&["sql", &format!("select {columns} from c limit 10001"), "-o", form]);
            assert!(whole.status.success(), "{columns} as {form}: {}", err(&whole));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_and_an_exit_code_are_given() {
    let server = Server::start(Settings::default()).await;
    let typed = Typed { server: &server };
    let failed = typed.run(&["sql", "selct 1"]);
    assert!(
        failed.status.code() == Some(1) && err(&failed).starts_with("error: ") && failed.stdout.is_empty(),
        "{}",
        err(&failed)
    );
    assert_eq!(typed.run(&["sql"]).status.code(), Some(2));
    out(&typed.with_input(&["push", "events", "-"], "{}\n"));
    for command in [
        ["search", "evnets", "x"].as_slice(),
        &["fields", "evnets"],
        &["collection", "get", "evnets"],
    ] {
        let unknown = typed.run(command);
        assert!(
            unknown.status.code() == Some(1) && err(&unknown).contains("perhaps events was meant"),
            "{command:?}: {}",
            err(&unknown)
        );
    }
    assert_eq!(
        typed.run(&["sql", "select 1", "--url", "nonsense"]).status.code(),
        Some(2)
    );
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port");
    let away = typed.run(&["sql", "select 1", "--url", &format!("http://{nobody}")]);
    assert!(
        away.status.code() == Some(1) && err(&away).contains("hint: "),
        "{}",
        err(&away)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_folder_is_refused() {
    let server = Server::start(Settings::default()).await;
    let second = Command::new(server::binary())
        .arg("dev")
        .arg("--data")
        .arg(server.data())
        .args(["--listen", "127.0.0.1:0"])
        .output()
        .expect("it ends");
    assert!(
        second.status.code() == Some(1) && err(&second).contains("in use"),
        "{}",
        err(&second)
    );
    let wide = Command::new(server::binary())
        .args(["dev", "--listen", "0.0.0.0:0"])
        .output()
        .expect("it ends");
    assert!(
        wide.status.code() == Some(2) && err(&wide).contains("--insecure"),
        "{}",
        err(&wide)
    );
    let unknown = Command::new(server::binary())
        .args(["dev"])
        .env("RACHIS_LEAF__SPLITS", "1")
        .output()
        .expect("it ends");
    assert!(
        unknown.status.code() == Some(2) && err(&unknown).contains("splits"),
        "{}",
        err(&unknown)
    );
}
