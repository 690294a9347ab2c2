//! The client commands: answers go to standard output, errors to standard error, and the exit code tells them apart.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tests::{
    Server, Settings,
    cli::{Cli, assert_fails, stderr, stdout},
    oracle, server, unused_address,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_pushed_once_however_often_it_is_pushed() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli::new(&server);
    let folder = tempfile::tempdir().expect("a folder");
    let plain = folder.path().join("a.json");
    // Over 8 MiB, so that the client sends several blocks.
    let lines: String = (0..120_000)
        .map(|i| format!("{{\"n\":{i},\"pad\":\"{}\"}}\n", "x".repeat(80)))
        .collect();
    std::fs::write(&plain, &lines).expect("the file is written");
    let path = plain.to_str().expect("UTF-8");
    let push_as = async |what: &str, arguments: &[&str], new: u64, repeated: u64, stored: u64| {
        let pushed = cli.run(&[&["push", "files", path], arguments].concat());
        let said = stderr(&pushed);
        assert!(
            pushed.status.success() && said.contains(&format!("{new} new documents accepted")),
            "{what}: {said}"
        );
        let before = format!("{repeated} items had been pushed before");
        assert_eq!(said.contains(&before), repeated > 0, "{what}: {said}");
        let counts = server.sql("select count(*), count(distinct n) from files").await.rows;
        assert_eq!(counts[0][0], json!(stored), "{what}");
    };
    push_as("the first push", &[], 120_000, 0, 120_000).await;
    push_as("the same file", &[], 0, 120_000, 120_000).await;
    let mut longer = lines.clone() + "{\"n\":-1}\n";
    std::fs::write(&plain, &longer).expect("the file is written");
    push_as("a line was appended", &[], 1, 120_000, 120_001).await;
    longer += "{\"n\":-2}\n{\"n\":-3}";
    std::fs::write(&plain, &longer).expect("the file is written");
    push_as("two more, the last without its end", &[], 2, 120_001, 120_003).await;
    std::fs::write(&plain, longer.clone() + "3\n").expect("the file is written");
    assert_fails(&cli.run(&["push", "files", path]), 1, "--again");
    std::fs::write(&plain, longer.clone() + "\n{\"n\":-4}\n").expect("the file is written");
    push_as("the end of the line, and one more", &[], 1, 120_003, 120_004).await;
    std::fs::write(&plain, lines.replacen("\"n\":7,", "\"n\":8,", 1)).expect("the file is written");
    assert_fails(&cli.run(&["push", "files", path]), 1, "--again");
    push_as("the changed file once more", &["--again"], 120_000, 0, 240_004).await;
    push_as("and again", &[], 0, 120_000, 240_004).await;

    // Without its memory, the program sends the same blocks, and the server knows them.
    std::fs::write(&plain, &lines).expect("the file is written");
    for new in [120_000, 0] {
        let pushed = cli.run(&["push", "others", path]);
        assert!(
            stderr(&pushed).contains(&format!("{new} new documents accepted")),
            "{}",
            stderr(&pushed)
        );
        std::fs::remove_dir_all(server.data_dir().join("state")).expect("the memory is lost");
    }
    // What was pushed into a dropped collection is pushed again.
    stdout(&cli.run(&["push", "others", path]));
    stdout(&cli.run(&["collection", "delete", "others"]));
    let pushed = cli.run(&["push", "others", path]);
    assert!(
        stderr(&pushed).contains("120000 new documents accepted"),
        "{}",
        stderr(&pushed)
    );
    assert_no_dead_letters(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_was_killed_goes_on_where_it_was() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli::new(&server);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.csv");
    let rows: String = (0..400_000)
        .map(|n| format!("{n},\"row\n{n}\",{}\n", "x".repeat(60)))
        .collect();
    std::fs::write(&file, format!("n,text,pad\n{rows}")).expect("the file is written");
    let path = file.to_str().expect("UTF-8");
    let mut killed = 0;
    for at_least in [1, 100_000, 250_000] {
        let mut child = Command::new(server::binary())
            .args(["push", "rows", path])
            .env("RACHIS_URL", server.url())
            .env("XDG_STATE_HOME", server.data_dir().join("state"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        tests::eventually("some rows are there", async || {
            let count = server.query("select count(*) from rows", json!({})).await?;
            anyhow::ensure!(count.single_value().as_u64() >= Some(at_least), "{count:?}");
            Ok(())
        })
        .await;
        killed += u32::from(child.try_wait().expect("its state").is_none());
        let _it_may_be_over = child.kill();
        child.wait().expect("it ends");
    }
    assert!(killed > 0, "every push was over before it could be killed");
    stdout(&cli.run(&["push", "rows", path]));
    let counts = server
        .sql("select count(*), count(distinct n), count(distinct text) from rows")
        .await
        .rows;
    assert_eq!(counts, [[json!(400_000), json!(400_000), json!(400_000)]]);
    assert_no_dead_letters(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parquet_file_of_another_program_is_pushed_with_the_values_that_it_has_there() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli::new(&server);
    let folder = tempfile::tempdir().expect("a folder");
    let (file, lines) = (folder.path().join("a.parquet"), folder.path().join("a.json"));
    // DuckDB writes the same rows as Parquet and as JSON.
    let script = format!(
        "import duckdb\n\
         rows = '''select i as n, i + 9007199254740993 as large, i / 4 as share, 'text ' || i as name, i % 2 = 0 as even,\n\
         case when i % 3 = 0 then null else i end as gap, [i, i + 1] as list, {{'a': i, 'b': ['x', null]}} as inside,\n\
         (i * 1.25)::decimal(9, 2) as price, date '2024-02-28' + i::int as day,\n\
         timestamp '2024-02-28 23:59:59.123456' + interval (i) minute as at\n\
         from range(5000) t(i)'''\n\
         duckdb.sql(f\"copy ({{rows}}) to '{}' (format parquet, compression zstd, row_group_size 2048)\")\n\
         duckdb.sql(f\"copy ({{rows}}) to '{}' (format json)\")\n",
        file.display(),
        lines.display()
    );
    let python = Command::new(oracle::python())
        .args(["-c", &script])
        .output()
        .expect("Python starts");
    assert!(python.status.success(), "{}", stderr(&python));
    let pushed = cli.run(&["push", "parquet", file.to_str().expect("UTF-8")]);
    let said = stderr(&pushed);
    assert!(
        pushed.status.success() && said.contains("Parquet, 5000 rows") && said.contains("5000 new documents accepted"),
        "{said}"
    );
    stdout(&cli.run(&["push", "lines", lines.to_str().expect("UTF-8")]));
    let values =
        "n, large, share, name, even, gap, list::text, inside.a, inside.b::text, price::double, day, at::timestamp";
    let rows = async |of: &str| {
        server
            .sql(&format!("select {values} from {of} order by n limit 5000"))
            .await
            .rows
    };
    assert_eq!(rows("parquet").await, rows("lines").await);
    let repeated = cli.run(&["push", "parquet", file.to_str().expect("UTF-8")]);
    assert!(
        stderr(&repeated).contains("5000 items had been pushed before"),
        "{}",
        stderr(&repeated)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_folders_and_patterns_are_pushed() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli::new(&server);
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("more")).expect("a folder");
    let xz = |text: &str| {
        let mut packed = liblzma::write::XzEncoder::new(Vec::new(), 6);
        packed.write_all(text.as_bytes()).expect("memory");
        packed.finish().expect("memory")
    };
    std::fs::write(at("a.csv"), "n,name\r\n1,\"a, b\"\r\n2,\r\n").expect("written");
    std::fs::write(at("b.tsv.xz"), xz("n\tname\n3\tc\n")).expect("written");
    std::fs::write(at("more/c.txt"), "\u{feff}n;name\n4;d\n5;e\n").expect("written");
    std::fs::write(at("more/d.json.xz"), xz("{\"n\":6}\n{\n\"n\":7\n}\n")).expect("written");
    let pushed = cli.run(&["push", "c", folder.path().to_str().expect("UTF-8")]);
    let said = stderr(&pushed);
    assert!(
        pushed.status.success() && said.contains("7 new documents accepted from 4 files"),
        "{said}"
    );
    assert!(
        said.contains("c.txt: rows with semicolons between 2 columns: n, name"),
        "{said}"
    );
    let rows = server.sql("select n, name from c order by n").await.rows;
    let expected = [
        json!([1, "a, b"]),
        json!([2, null]),
        json!([3, "c"]),
        json!([4, "d"]),
        json!([5, "e"]),
        json!([6, null]),
        json!([7, null]),
    ];
    assert_eq!(json!(rows), json!(expected));
    // A row is appended, and the header is not read as one.
    std::fs::write(at("a.csv"), "n,name\r\n1,\"a, b\"\r\n2,\r\n8,h\r\n9\r\n").expect("written");
    let pattern = at("*.csv");
    let pushed = cli.run(&["push", "c", pattern.to_str().expect("UTF-8")]);
    assert_fails(&pushed, 1, "item 3: ");
    let said = stderr(&pushed);
    assert!(
        said.contains("1 new documents accepted, 1 rejected") && said.contains("2 items had been pushed before"),
        "{said}"
    );

    let forced = cli.with_input(&["push", "forced", "--format", "csv", "-"], "one\n1\n2\n");
    assert!(forced.status.success(), "{}", stderr(&forced));
    assert_eq!(
        server.sql("select sum(one)::bigint from forced").await.rows,
        [[json!(3)]]
    );
    for (name, text, why) in [
        (
            "open.csv",
            "a,b\n1,\"x\n2,3\n4,5\n",
            "the quote that opens in line 2 never closes",
        ),
        ("twice.csv", "a,a\n1,2\n", "twice"),
    ] {
        std::fs::write(at(name), text).expect("written");
        assert_fails(&cli.run(&["push", "bad", at(name).to_str().expect("UTF-8")]), 1, why);
    }
    assert_fails(
        &cli.run(&["push", "bad", "nothing-*.json"]),
        1,
        "nothing-*.json has no files",
    );
    assert_eq!(server.sql("select count(*) from bad").await.rows, [[json!(0)]]);
    let some = cli.run(&["push", "some", folder.path().to_str().expect("UTF-8")]);
    assert_fails(&some, 1, "2 of 6 files could not be pushed");
    assert_fails(&some, 1, "8 new documents accepted from 6 files, 1 rejected");
    assert_fails(&some, 1, "open.csv: the quote that opens in line 2 never closes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_renamed_replaced_or_still_written_is_pushed_once() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli::new(&server);
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let push = async |what: &str, name: &str, new: u64, stored: u64| {
        let pushed = cli.run(&["push", "log", at(name).to_str().expect("UTF-8")]);
        let said = stderr(&pushed);
        assert!(
            said.contains(&format!("{new} new documents accepted")),
            "{what}: {said}"
        );
        assert_eq!(
            server.sql("select count(*) from log").await.rows,
            [[json!(stored)]],
            "{what}"
        );
        (pushed.status.success(), said)
    };
    let lines = |range: std::ops::Range<i32>| range.map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>();
    let append = |name: &str, text: &str| {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(at(name))
            .expect("the file");
        file.write_all(text.as_bytes()).expect("written");
    };
    std::fs::write(at("a.log"), lines(0..3)).expect("written");
    push("the first time", "a.log", 3, 3).await;
    std::fs::rename(at("a.log"), at("a.log.1")).expect("renamed");
    append("a.log.1", &lines(3..5));
    push("renamed and longer", "a.log.1", 2, 5).await;
    std::fs::write(at("a.log"), lines(100..101)).expect("written");
    push("another file at the first path", "a.log", 1, 6).await;
    std::fs::write(at("copy"), lines(0..7)).expect("written");
    std::fs::rename(at("copy"), at("a.log.1")).expect("replaced");
    let (succeeded, said) = push("replaced by a longer copy", "a.log.1", 0, 6).await;
    assert!(
        !succeeded && said.contains("begins with the same bytes") && said.contains("--resume"),
        "{said}"
    );
    stdout(&cli.run(&["push", "log", at("a.log.1").to_str().expect("UTF-8"), "--resume"]));
    push("the copy has been pushed", "a.log.1", 0, 8).await;
    push("once more", "a.log.1", 0, 8).await;
    push("the other once more", "a.log", 0, 8).await;
    std::fs::write(at("copy"), lines(200..203)).expect("written");
    std::fs::rename(at("copy"), at("a.log.1")).expect("replaced");
    push("replaced by another file", "a.log.1", 3, 11).await;
    for stored in 12..15 {
        std::fs::write(at("spool"), "{\"n\":0}\n").expect("written");
        let name = format!("spool-{stored}");
        std::fs::rename(at("spool"), at(&name)).expect("renamed");
        push("a new file, perhaps with the inode of the last one", &name, 1, stored).await;
        std::fs::remove_file(at(&name)).expect("removed");
    }

    append("a.log", "{\"n\":101}\n{\"n\":1");
    let (succeeded, said) = push("a line that is being written", "a.log", 1, 15).await;
    assert!(
        !succeeded && said.contains("a.log was not pushed: it has no line break"),
        "{said}"
    );
    append("a.log", "02}");
    assert!(push("the line is complete", "a.log", 1, 16).await.0);
    append("a.log", "\n{\"n\":103}\n");
    assert!(push("another line", "a.log", 1, 17).await.0);
    std::fs::write(at("rows.csv"), "n,b\n300,\"x\ny\"\n301").expect("written");
    assert!(!push("a row that is being written", "rows.csv", 1, 18).await.0);
    append("rows.csv", ",2\n");
    assert!(push("the row is complete", "rows.csv", 1, 19).await.0);
    let sum = (0..7).sum::<i64>() + (100..104).sum::<i64>() + 200 + 201 + 202 + 300 + 301;
    assert_eq!(server.sql("select sum(n)::bigint from log").await.rows, [[json!(sum)]]);
    std::fs::write(at("fixed.csv"), "a,a\n1,2\n").expect("written");
    assert_fails(
        &cli.run(&["push", "fixed", at("fixed.csv").to_str().expect("UTF-8")]),
        1,
        "twice",
    );
    std::fs::write(at("copy"), "a,b\n1,2\n").expect("written");
    std::fs::rename(at("copy"), at("fixed.csv")).expect("replaced");
    stdout(&cli.run(&["push", "fixed", at("fixed.csv").to_str().expect("UTF-8")]));
    std::fs::write(at("numbers.json"), "1\n2\n15").expect("written");
    let numbers = at("numbers.json");
    let push_numbers = || cli.run(&["push", "numbers", numbers.to_str().expect("UTF-8")]);
    assert_fails(&push_numbers(), 1, "2 new documents accepted");
    append("numbers.json", "02\n");
    stdout(&push_numbers());
    let stored = server.sql("select _doc from numbers order by _doc").await.rows;
    assert_eq!(stored, [["1"], ["1502"], ["2"]]);
    assert_no_dead_letters(&server).await;
    // The kernel's files have no length.
    let kernel = cli.run(&["push", "kernel", "/proc/version"]);
    assert_fails(&kernel, 1, "0 new documents accepted, 1 rejected");
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_create_a_collection_at_once_all_succeed() {
    const PUSHES: usize = 8;
    let server = Server::start(Settings::default()).await;
    let cli = Cli::new(&server);
    let results: Vec<std::process::Output> = std::thread::scope(|scope| {
        let push = |n| cli.with_input(&["push", "new", "-"], &format!("{{\"n\":{n}}}\n"));
        let running: Vec<_> = (0..PUSHES).map(|n| scope.spawn(move || push(n))).collect();
        running.into_iter().map(|push| push.join().expect("it runs")).collect()
    });
    results.iter().for_each(|pushed| drop(stdout(pushed)));
    assert_eq!(server.sql("select count(*) from new").await.rows, [[json!(PUSHES)]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_files_arrays_and_standard_input_are_pushed() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli::new(&server);
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
    let cli = Cli::new(&server);
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
        ("e.xz", &b"\xfd7zXZ\0\0\x04"[..], "cannot read"),
        ("e.bz2", b"BZh91AY&SY", "bzip2 -dc"),
        ("e.zip", b"PK\x03\x04", "unzip -p"),
        ("e.parquet", b"PAR1", "Parquet"),
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
    let cli = Cli::new(&server);
    let lines = "{\"n\":1}\n{\"n\":2,\"text\":\"unfinished\nGET /index 200\n";
    assert_fails(
        &cli.with_input(&["push", "c", "--format", "ndjson", "-"], lines),
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
        dry.status.success() && stderr(&dry).contains("0 dead letters of c would become documents, 2 would stay"),
        "{dry:?}"
    );
    let in_vain = cli.run(&["dead-letters", "redrive", "c"]);
    assert_fails(&in_vain, 1, "2 dead letters still cannot become documents, and stay");
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

    let pushed = cli.with_input(&["push", "c", "--format", "ndjson", "-"], "nonsense\n");
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
    let cli = Cli::new(&server);
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
    let cli = Cli::new(&server);
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
    let cli = Cli::new(&server);
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
