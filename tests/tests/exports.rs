//! `rachis sql -o FILE` writes whole answers, which other programs read as they are and a push brings in again.

use std::{
    fs::Permissions,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tests::{
    Server, Settings,
    cli::{Cli, assert_fails, stderr, stdout},
    data, oracle,
};

/// More than the server returns of a statement without LIMIT.
const DOCUMENTS: usize = 12_000;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn named_pipe(folder: &Path) -> PathBuf {
    let pipe = folder.join("pipe.csv.gz");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    pipe
}

/// Asserts that some bytes were written, but not the end of a complete file.
fn assert_no_whole_gzip(packed: &[u8]) {
    let unpacked = flate2::read::GzDecoder::new(packed).read_to_end(&mut Vec::new());
    assert!(!packed.is_empty() && unpacked.is_err());
}

/// Runs a script of Python, which has DuckDB, and returns what it prints.
fn python(script: &str) -> String {
    let output = Command::new(oracle::python()).args(["-c", script]).output();
    stdout(&output.expect("Python starts"))
}

/// Generates a JSON value with whitespace between its tokens, numbers that a float cannot hold, and escapes.
fn odd_document(random: &mut StdRng, depth: u32) -> String {
    let blank = |random: &mut StdRng| ["", "", " ", "\n", "\t", "\r\n"][random.random_range(0..6)];
    let kind = if depth > 3 {
        random.random_range(0..5)
    } else {
        random.random_range(0..7)
    };
    let value = match kind {
        0 => ["null", "true", "false"][random.random_range(0..3)].to_owned(),
        1 => ["1.50", "-0", "1e400", "123456789012345678901234567890", "0.1000"][random.random_range(0..5)].to_owned(),
        2 => random.next_u64().to_string(),
        3 => [
            "\"\"",
            "\"\\u00e9 \\\"\\n\"",
            "\"é😀\"",
            "\"\\ud83d\\ude00\"",
            "\"a,b;c\\td\"",
        ][random.random_range(0..5)]
        .to_owned(),
        4 => format!("\"{}\"", "x,\\n'".repeat(random.random_range(0..50))),
        5 => {
            let items: Vec<String> = (0..random.random_range(0..4))
                .map(|_| odd_document(random, depth + 1))
                .collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            let fields: Vec<String> = (0..random.random_range(0..4))
                .map(|_| {
                    let name = ["a", "b.c", "_doc", "é", "a"][random.random_range(0..5)];
                    format!(
                        "{}\"{name}\"{}:{}",
                        blank(random),
                        blank(random),
                        odd_document(random, depth + 1)
                    )
                })
                .collect();
            format!("{{{}}}", fields.join(","))
        }
    };
    format!("{}{value}{}", blank(random), blank(random))
}

/// The documents of a collection, sorted.
async fn documents(server: &Server, collection: &str) -> Vec<String> {
    let statement = format!("SELECT _doc FROM {collection}");
    let all = server.query(&statement, json!({ "all_rows": true }));
    let rows = all.await.expect("an answer").rows;
    let mut documents: Vec<String> = rows
        .iter()
        .filter_map(|row| Some(row[0].as_str()?.to_owned()))
        .collect();
    documents.sort_unstable();
    documents
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_collection_out_and_in_again_is_the_same_byte_for_byte() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli::new(&server);
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = StdRng::seed_from_u64(tests::seed());
    let mut expected: Vec<String> = (0..DOCUMENTS).map(|_| odd_document(&mut random, 0)).collect();
    if data::folder().is_some() {
        let real = data::documents("gharchive_2015.ndjson.gz").expect("documents");
        expected.extend(real.into_iter().take(3_000));
    }
    let lines: String = expected
        .iter()
        .map(|document| format!("{}\n", json!({ "_doc": document })))
        .collect();
    let pushed = cli.with_input(&["push", "first", "-", "--column", "_doc"], &lines);
    assert!(pushed.status.success(), "{}", stderr(&pushed));
    expected.sort_unstable();
    assert!(
        documents(&server, "first").await == expected,
        "the column is stored as it is"
    );
    for ending in ["parquet", "arrow", "csv", "csv.gz", "ndjson.zst", "jsonl.xz"] {
        let file = folder.path().join(format!("all.{ending}"));
        let exported = cli.run(&["sql", "SELECT _doc FROM first", "-o", text(&file)]);
        assert!(
            exported.status.success() && exported.stdout.is_empty(),
            "{}",
            stderr(&exported)
        );
        let collection = format!("from_{}", ending.replace('.', "_"));
        let pushed = cli.run(&["push", &collection, text(&file), "--column", "_doc"]);
        assert!(pushed.status.success(), "{ending}: {}", stderr(&pushed));
        assert!(documents(&server, &collection).await == expected, "{ending}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_reads_in_a_file_what_it_had_put_in() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli::new(&server);
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let rows = format!(
        "select i as n, i / 8 as share, 'text, \"' || i || chr(10) as name, i % 2 = 0 as even, \
         case when i % 3 = 0 then null else i end as gap, \
         timestamptz '2024-02-28 23:59:59.123456+00' + interval (i) minute as seen from range({DOCUMENTS}) t(i)"
    );
    let input = at("in.json");
    python(&format!(
        "import duckdb\nduckdb.sql(\"set timezone='UTC'\")\nduckdb.sql('''copy ({rows}) to '{}' (format json)''')",
        input.display()
    ));
    stdout(&cli.run(&["push", "events", text(&input)]));
    let statement = "SELECT n, share, name, even, gap, seen::timestamp AS seen FROM events";
    for (name, read) in [
        ("out.parquet", "read_parquet('{}')"),
        (
            "out.csv.gz",
            "read_csv('{}', header = true, quote = '\"', escape = '\"')",
        ),
        ("out.ndjson.zst", "read_json('{}', format = 'newline_delimited')"),
    ] {
        let file = at(name);
        stdout(&cli.run(&["sql", statement, "-o", text(&file)]));
        let read = read.replace("{}", text(&file));
        let columns = "n::bigint n, share::double share, name::text, even::boolean, gap::bigint, seen::timestamptz";
        let difference = python(&format!(
            "import duckdb\nduckdb.sql(\"set timezone='UTC'\")\n\
             put, got = '''select {columns} from ({rows})''', '''select {columns} from {read}'''\n\
             count = lambda of: duckdb.sql(f'select count(*) from ({{of}})').fetchall()[0][0]\n\
             print(count(got), count(f'{{put}} except all {{got}}'), count(f'{{got}} except all {{put}}'))"
        ));
        assert_eq!(difference.trim(), format!("{DOCUMENTS} 0 0"), "{name}");
    }
    let types = python(&format!(
        "import duckdb\nprint([str(t) for t in duckdb.sql(\"from '{}'\").types])",
        at("out.parquet").display()
    ));
    let expected = "['BIGINT', 'DOUBLE', 'VARCHAR', 'BOOLEAN', 'BIGINT', 'TIMESTAMP WITH TIME ZONE']";
    assert_eq!(types.trim(), expected);
    let file = at("out.arrow");
    stdout(&cli.run(&["sql", statement, "-o", text(&file)]));
    stdout(&cli.run(&["push", "again", text(&file)]));
    let sums = "select count(*), sum(n), sum(share), sum(length(name)), count(*) filter (where even), sum(gap), \
                min(seen::timestamp), max(seen::timestamp) from";
    let events = server.sql(&format!("{sums} events")).await.rows;
    assert_eq!(server.sql(&format!("{sums} again")).await.rows, events);
    let stream = cli.run(&["sql", statement, "-o", "arrow", "--all-rows"]);
    std::fs::write(at("stream"), &stream.stdout).expect("written");
    stdout(&cli.run(&["push", "streamed", text(&at("stream"))]));
    assert_eq!(server.sql(&format!("{sums} streamed")).await.rows, events);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_fails_says_so_and_leaves_the_old_file() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli::new(&server);
    let folder = tempfile::tempdir().expect("a folder");
    let lines: String = (0..DOCUMENTS)
        .map(|n| format!("{}\n", json!({ "n": n, "pad": "x".repeat(1_000) })))
        .collect();
    stdout(&cli.with_input(&["push", "events", "-"], &lines));
    // Only the last row is too large, so a part of the answer has been sent before.
    let four = ["events"; 4]
        .map(|name| format!("SELECT n, pad FROM {name}"))
        .join(" UNION ALL ");
    let last = DOCUMENTS - 1;
    let fails =
        format!("SELECT n, pad, CASE WHEN n = {last} THEN replace(pad, 'x', $1) END AS large FROM ({four}) AS a");
    let large = "y".repeat(100_000);
    for name in ["a.parquet", "a.arrow", "a.csv.gz", "a.ndjson", "a.json"] {
        let file = folder.path().join(name);
        std::fs::write(&file, "old").expect("written");
        let failed = cli.run(&["sql", &fails, "-p", &large, "-o", text(&file)]);
        assert_fails(&failed, 1, &format!("{name} was not written: "));
        let why = if name == "a.ndjson" {
            "a row of the answer has"
        } else {
            "the answer ended early"
        };
        assert_fails(&failed, 1, why);
        assert_eq!(std::fs::read_to_string(&file).expect("the file"), "old", "{name}");
    }
    let pipe = named_pipe(folder.path());
    let reading = {
        let pipe = pipe.clone();
        std::thread::spawn(move || std::fs::read(pipe).expect("the pipe"))
    };
    let failed = cli.run(&["sql", &fails, "-p", &large, "-o", text(&pipe)]);
    assert_fails(&failed, 1, "the answer ended early");
    assert_no_whole_gzip(&reading.join().expect("it reads"));
    let full = folder.path().join("full.csv");
    std::os::unix::fs::symlink("/dev/full", &full).expect("a link");
    let failed = cli.run(&["sql", "SELECT * FROM events", "-o", text(&full)]);
    assert_fails(&failed, 1, "No space left on device");
    let missing = folder.path().join("missing/a.csv");
    assert_fails(&cli.run(&["sql", "SELECT 1", "-o", text(&missing)]), 1, "cannot write");
    assert_fails(
        &cli.run(&["sql", "SELECT 1; SELECT 2", "-o", text(&full)]),
        2,
        "one statement",
    );
    assert_fails(&cli.run(&["sql", "SELECT 1", "-o", "a.xlsx"]), 2, ".parquet, .arrow");
    let names: Vec<String> = std::fs::read_dir(folder.path())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names.len(), 7, "nothing else is left: {names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_cut_only_where_it_is_shown_and_the_exit_code_says_so() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli::new(&server);
    let folder = tempfile::tempdir().expect("a folder");
    let lines: String = (0..DOCUMENTS).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    stdout(&cli.with_input(&["push", "events", "-"], &lines));
    let rows = |output: &[u8]| output.iter().filter(|byte| **byte == b'\n').count();
    let shown = cli.run(&["sql", "SELECT n FROM events", "-o", "ndjson"]);
    assert_fails(&shown, 3, "get all rows with --all-rows or in a file (-o FILE)");
    assert_eq!(rows(&shown.stdout), 10_000);
    let all = cli.run(&["sql", "SELECT n FROM events", "-o", "ndjson", "--all-rows"]);
    assert_eq!(rows(stdout(&all).as_bytes()), DOCUMENTS);
    let file = folder.path().join("a.ndjson");
    let exported = cli.run(&["sql", "SELECT n FROM events", "-o", text(&file)]);
    assert!(
        stderr(&exported).contains("wrote ") && exported.status.success(),
        "{}",
        stderr(&exported)
    );
    let numbers: Vec<Value> = std::fs::read_to_string(&file)
        .expect("the file")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(numbers.len(), DOCUMENTS);
    let sum: i64 = numbers.iter().filter_map(|row| row["n"].as_i64()).sum();
    assert_eq!(sum, (0..DOCUMENTS as i64).sum::<i64>());
    let limited = folder.path().join("limited.csv");
    stdout(&cli.run(&["sql", "SELECT n FROM events ORDER BY n LIMIT 2", "-o", text(&limited)]));
    assert_eq!(std::fs::read_to_string(&limited).expect("the file"), "n\n0\n1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_file_keeps_its_mode_and_links_stay_links() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli::new(&server);
    let folder = tempfile::tempdir().expect("a folder");
    let (private, link, behind) = (
        folder.path().join("private.csv"),
        folder.path().join("link.csv"),
        folder.path().join("behind.csv"),
    );
    std::fs::write(&private, "old").expect("written");
    std::fs::set_permissions(&private, Permissions::from_mode(0o640)).expect("a mode");
    std::os::unix::fs::symlink("behind.csv", &link).expect("a link");
    for file in [&private, &link, &link] {
        stdout(&cli.run(&["sql", "SELECT 1 AS one", "-o", text(file)]));
    }
    let mode = std::fs::metadata(&private).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(link.is_symlink() && !behind.is_symlink());
    for file in [&private, &behind] {
        assert_eq!(std::fs::read_to_string(file).expect("the file"), "one\n1\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_into_a_pipe_that_nobody_reads_can_be_interrupted_and_is_no_whole_file() {
    let server = Server::start(Settings::default()).await;
    let cli = Cli::new(&server);
    let folder = tempfile::tempdir().expect("a folder");
    // More than a pipe holds, also when it is compressed.
    let mut random = StdRng::seed_from_u64(tests::seed());
    let lines: String = (0..DOCUMENTS)
        .map(|_| format!("{}\n", json!({ "pad": format!("{:x}", random.random::<u128>()) })))
        .collect();
    stdout(&cli.with_input(&["push", "events", "-"], &lines));
    let pipe = named_pipe(folder.path());
    let mut command = Command::new(tests::server::binary());
    command.args([
        "sql",
        "SELECT pad FROM events",
        "-o",
        text(&pipe),
        "--url",
        server.url(),
    ]);
    let mut export = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut reader = std::fs::File::open(&pipe).expect("the pipe");
    let mut packed = vec![0; 1];
    reader.read_exact(&mut packed).expect("it writes");
    let terminated = Command::new("kill")
        .arg(export.id().to_string())
        .status()
        .expect("kill");
    assert!(terminated.success());
    let status = export.wait().expect("it ends");
    let mut said = String::new();
    export
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut said)
        .expect("UTF-8");
    assert!(
        status.code() == Some(1) && said.contains("pipe.csv.gz was not written: interrupted"),
        "{status}: {said}"
    );
    reader.read_to_end(&mut packed).expect("the rest");
    assert_no_whole_gzip(&packed);
}

/// A server that answers once, as a proxy does that has lost the end of an answer.
fn answer_once(content_type: &str, body: &'static [u8]) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        // The statement is the end of the request.
        while !request.ends_with(b"}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the request");
            request.push(byte[0]);
        }
        stream.write_all(&[head.as_bytes(), body].concat()).expect("it reads");
    });
    (url, serving)
}

#[test]
fn an_answer_without_its_statistics_is_not_complete() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, content_type, body) in [
        ("a.csv", "text/csv", b"n\n1\n".as_slice()),
        ("a.tsv.gz", "text/tab-separated-values", b"n\n1\n"),
        ("a.ndjson", "application/x-ndjson", b"{\"n\":1}\n{\"n\":2}\n"),
        ("a.json", "application/json", b"{\"columns\":[],\"rows\":[]}"),
        ("a.parquet", "application/vnd.apache.arrow.stream", b""),
    ] {
        let (url, serving) = answer_once(content_type, body);
        let file = folder.path().join(name);
        let mut command = Command::new(tests::server::binary());
        command.args(["sql", "SELECT n FROM events", "-o", text(&file), "--url", &url]);
        assert_fails(&command.output().expect("it runs"), 1, "its statistics are missing");
        assert!(!file.exists(), "{name}");
        serving.join().expect("it has answered");
    }
}
