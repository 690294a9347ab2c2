//! The shell of `rachis sql` at a real terminal, and statements from files and pipes.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, ensure};
use serde_json::json;
use tests::{Server, Settings, eventually, server, unused_address};

/// A terminal of tmux in which the shell runs.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Starts the shell in a terminal of this size; its history is in the folder.
    fn start(server: &Server, home: &Path, columns: u32, rows: u32) -> Self {
        let socket = format!("rachis-{}-{}", std::process::id(), rand::random::<u32>());
        let terminal = Self { socket };
        let command = format!(
            "env HOME={home} XDG_STATE_HOME={home} PAGER=less RACHIS_URL={url} {rachis}",
            home = home.display(),
            url = server.url(),
            rachis = server::binary().display(),
        );
        let (columns, rows) = (columns.to_string(), rows.to_string());
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            &command,
        ]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.socket])
            .args(arguments)
            .output()
            .expect("tmux is installed");
        assert!(output.status.success(), "tmux {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Types a text as it is.
    fn type_text(&self, text: &str) {
        // A semicolon at the end would separate commands of tmux.
        let text = match text.strip_suffix(';') {
            Some(text) => format!("{text}\\;"),
            None => text.to_owned(),
        };
        self.tmux(&["send-keys", "-l", &text]);
    }

    /// Presses a key, by its name in tmux.
    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn enter(&self, line: &str) {
        self.type_text(line);
        self.press("Enter");
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen shows a text.
    async fn shows(&self, text: &str) -> String {
        eventually(&format!("the terminal shows {text:?}"), async || {
            let screen = self.screen();
            ensure!(screen.contains(text), "{screen}");
            Ok(screen)
        })
        .await
    }

    /// Clears the screen, so that what it shows next is new.
    async fn clear(&self) {
        self.press("C-l");
        eventually("the terminal is cleared", async || {
            let screen = self.screen();
            ensure!(screen.trim() == "rachis>", "{screen}");
            Ok(())
        })
        .await;
    }

    /// Drops the line at the prompt, and waits for the next prompt: what is typed before it can be dropped as well.
    async fn interrupt(&self) {
        self.press("C-c");
        eventually("the terminal shows an empty prompt", async || {
            let screen = self.screen();
            ensure!(screen.trim_end().ends_with("\nrachis>"), "{screen}");
            Ok(())
        })
        .await;
    }

    async fn ends(&self) {
        eventually("the shell ends", async || {
            let sessions = Command::new("tmux")
                .args(["-L", &self.socket, "has-session"])
                .output()?;
            ensure!(!sessions.status.success(), "it runs");
            Ok(())
        })
        .await;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.socket, "kill-server"]).output();
    }
}

async fn server_with_events() -> Server {
    let server = Server::start(Settings::default()).await;
    let events: String = (0..200)
        .map(|n| {
            format!(
                "{}\n",
                json!({ "n": n, "user": { "name": format!("user-{n}") }, "text": "x".repeat(150) })
            )
        })
        .collect();
    server.push("events", events).await.expect("a push");
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_typed_completed_and_remembered() {
    let server = server_with_events().await;
    let home = tempfile::tempdir().expect("a folder");
    let terminal = Terminal::start(&server, home.path(), 100, 30);
    terminal.shows("rachis>").await;
    // Two lines, and an end of line within a text.
    terminal.enter("SELECT count(*) AS c,");
    terminal.enter("       'a;b' AS t FROM events;");
    let screen = terminal.shows("1 row in ").await;
    assert!(
        screen.contains("200") && screen.contains("a;b") && screen.contains(" s ago"),
        "{screen}"
    );
    terminal.clear().await;
    // A table, then one of its paths.
    terminal.type_text("SELECT max(n) AS greatest FROM even");
    terminal.press("Tab");
    terminal.shows("FROM events").await;
    terminal.type_text(" WHERE user.na");
    terminal.press("Tab");
    terminal.shows("WHERE user.name").await;
    terminal.enter(" LIKE 'user-1%';");
    terminal.shows("199").await;
    terminal.clear().await;
    terminal.press("Up");
    terminal.shows("greatest FROM events WHERE user.name LIKE").await;
    terminal.interrupt().await;
    terminal.enter("SELEC 1;");
    let screen = terminal.shows("hint: ").await;
    assert!(screen.contains("error: SELEC is not a supported statement"), "{screen}");
    terminal.enter("\\nope");
    terminal.shows("\\? lists all commands").await;
    terminal.enter("\\d");
    terminal.shows("rachis.sources").await;
    terminal.press("C-d");
    terminal.ends().await;
    let history = home.path().join("rachis/history");
    let mode = fs::metadata(&history).expect("a history").permissions().mode();
    assert_eq!(mode & 0o077, 0, "only its owner reads the history");
    let terminal = Terminal::start(&server, home.path(), 100, 30);
    terminal.shows("rachis>").await;
    for _ in 0..4 {
        terminal.press("Up");
    }
    terminal.shows("greatest FROM events").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_finds_the_end_of_a_statement_help_and_the_way_out() {
    let server = server_with_events().await;
    let home = tempfile::tempdir().expect("a folder");
    let terminal = Terminal::start(&server, home.path(), 100, 40);
    let screen = terminal.shows("rachis>").await;
    assert!(screen.contains("End a statement with a semicolon (;)"), "{screen}");
    terminal.enter("help");
    terminal.shows("list functions").await;
    terminal.clear().await;
    terminal.enter("SELECT 'for' || 'ty'");
    terminal.shows("end the statement with ; or drop it with Ctrl-C").await;
    // A command leaves the statement at the prompt.
    terminal.enter("\\d");
    terminal.shows("rachis.sources").await;
    terminal.enter("AS answer;");
    terminal.shows("forty").await;
    terminal.clear().await;
    // The history has the whole statement, and before it no statement with a command.
    terminal.press("Up");
    terminal.shows("AS answer;").await;
    terminal.press("Up");
    terminal.press("Up");
    terminal.shows("rachis> help").await;
    terminal.interrupt().await;
    terminal.enter("SELECT 'open;");
    terminal.shows("close the quote or the comment").await;
    terminal.interrupt().await;
    terminal.enter("SELECT 1");
    terminal.enter("\\q");
    terminal.ends().await;
    let terminal = Terminal::start(&server, home.path(), 100, 40);
    terminal.shows("rachis>").await;
    terminal.enter("exit");
    terminal.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_answers_are_vertical_long_ones_paged_and_files_take_them() {
    let server = server_with_events().await;
    let home = tempfile::tempdir().expect("a folder");
    let terminal = Terminal::start(&server, home.path(), 80, 24);
    terminal.shows("rachis>").await;
    terminal.enter("SELECT n, user.name, text FROM events WHERE n = 7;");
    let screen = terminal.shows("1 row in ").await;
    assert!(
        screen.contains("-[ 1 ]-") && screen.contains("name | user-7"),
        "{screen}"
    );
    terminal.enter("\\x off");
    terminal.shows("answers are tables").await;
    terminal.enter("SELECT n, user.name FROM events ORDER BY n;");
    // The pager waits at its first page.
    let screen = terminal.shows("user-20").await;
    assert!(!screen.contains("user-40"), "{screen}");
    terminal.press("G");
    terminal.shows("user-199").await;
    terminal.press("q");
    terminal.shows("200 rows in ").await;
    let file = home.path().join("answer.csv");
    terminal.enter("\\format csv");
    terminal.enter(&format!("\\o {}", file.display()));
    terminal.enter("SELECT n FROM events ORDER BY n LIMIT 2;");
    eventually("the file has the answer", async || {
        let text = fs::read_to_string(&file)?;
        ensure!(
            text == "n\n0\n1\n",
            "{text:?}, and the terminal shows:\n{}",
            terminal.screen()
        );
        Ok(())
    })
    .await;
    terminal.enter("\\o");
    terminal.enter("\\format table");
    let script = home.path().join("script.sql");
    fs::write(
        &script,
        "SELECT 'first' AS a; -- one\nSELECT 'second' AS b;\nSELECT nope(1);\nSELECT 'never';",
    )
    .expect("a file");
    terminal.clear().await;
    terminal.enter(&format!("\\i {}", script.display()));
    let screen = terminal.shows("statement 3 (line 3)").await;
    assert!(
        screen.contains("first") && screen.contains("second") && !screen.contains("never"),
        "{screen}"
    );
    terminal.enter("\\q");
    terminal.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_a_statement_on_the_server_and_the_shell_goes_on() {
    let server = server_with_events().await;
    let home = tempfile::tempdir().expect("a folder");
    let terminal = Terminal::start(&server, home.path(), 120, 30);
    terminal.shows("rachis>").await;
    let series = "generate_series(1, 100000)";
    terminal.enter(&format!("SELECT count(*) FROM {series} a, {series} b, {series} c;"));
    // Its progress.
    terminal.shows("(Ctrl-C stops it)").await;
    let running = "SELECT count(*) FROM rachis.queries WHERE text LIKE 'SELECT count(*) FROM generate_series%'";
    server.eventually(running, json!(1)).await;
    terminal.press("C-c");
    terminal.shows("stopped").await;
    server.eventually(running, json!(0)).await;
    terminal.enter("SELECT 'al' || 'ive' AS state;");
    terminal.shows("alive").await;
    terminal.enter("\\watch 0.1");
    eventually("the statement is repeated", async || {
        let screen = terminal.screen();
        ensure!(screen.matches("every 0.1 s").count() > 2, "{screen}");
        Ok(())
    })
    .await;
    terminal.interrupt().await;
    terminal.enter("SELECT 'after' || ' watching' AS state;");
    terminal.shows("after watching").await;
}

/// Runs the client with a standard input.
fn rachis(server: &Server, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
    // `host:port` is an address, too.
    let address = server.url().trim_start_matches("http://").to_owned();
    let mut child = Command::new(server::binary())
        .args(arguments)
        .env("RACHIS_URL", address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("the client starts")?;
    child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_come_from_files_and_pipes_in_every_format() {
    let server = server_with_events().await;
    let run = |arguments: &[&str], input: &str| {
        let output = rachis(&server, arguments, input).expect("an output");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let two = "SELECT 1 AS a; /* ; */ SELECT 'x;y' AS b;\n";
    let (code, shown, _) = run(&["sql", "-o", "csv"], two);
    assert_eq!((code, shown.as_str()), (Some(0), "a\n1\nb\nx;y\n"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("two.sql");
    fs::write(&file, two).expect("a file");
    let file = file.to_str().expect("a name");
    assert_eq!(run(&["sql", "-f", file, "-o", "tsv"], "").1, "a\n1\nb\nx;y\n");
    let (code, shown, error) = run(
        &["sql", "-o", "ndjson"],
        "SELECT 1 AS a;\nSELECT nope(1);\nSELECT 2 AS never",
    );
    assert_eq!(code, Some(1));
    assert!(shown.starts_with("{\"a\":1}\n") && !shown.contains("never"), "{shown}");
    assert!(
        error.contains("statement 2 (line 2)") && error.contains("nope"),
        "{error}"
    );
    let (_, shown, _) = run(&["sql", "-o", "tsv", "SELECT 'a\tb' AS t, NULL AS n"], "");
    assert_eq!(shown, "t\tn\na\\tb\t\\N\n");
    let arrow = rachis(&server, &["sql", "-o", "arrow", "SELECT n FROM events"], "").expect("an output");
    assert!(
        arrow.stdout.starts_with(&[0xff; 4]),
        "an Arrow stream begins with these bytes"
    );
    let (code, _, error) = run(&["sql", "-o", "arrow"], two);
    assert!(code == Some(2) && error.contains("hint: "), "{error}");
    let (_, plan, _) = run(&["sql", "EXPLAIN ANALYZE SELECT max(n) FROM events"], "");
    assert!(
        plan.contains("\n  Combine partial aggregates: max(n)") && plan.contains("\n    Scan events"),
        "{plan}"
    );

    let (code, status, _) = run(&["status"], "");
    assert!(
        code == Some(0) && status.contains("collections") && status.contains("events"),
        "{status}"
    );
    let (_, status, _) = run(&["status", "-o", "json"], "");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["collections"][0]["documents"], 200, "{status}");
    assert_eq!(status["nodes"][0]["state"], "up", "{status}");
    for of_a_cluster in ["replicas_that_do_not_serve", "moves", "controller_on_hold"] {
        assert_eq!(status[of_a_cluster], serde_json::json!([]), "{status}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = run(&["completions", shell], "");
        assert!(code == Some(0) && script.contains("rachis"), "{shell}: {script}");
    }
    let (code, _, error) = run(&["sql", "--url", &unused_address(), "SELECT 1"], "");
    assert!(code == Some(1) && error.contains("rachis dev"), "{error}");
}
