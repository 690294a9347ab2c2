//! A session of the shell: its settings, and what it does with an entry.

use std::{
    fmt::Display,
    fs::File,
    io::Write as _,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aggregator::statements;
use futures::FutureExt as _;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    super::{
        Failure,
        http::{Client, broke_off},
        output::{self, Cells, note, note_warnings},
        sql,
    },
    command::{Expanded, ShellCommand, help},
    display::{self, Rendered, TerminalSize, page, rendered},
    entry::{Entry, Step},
    names::Names,
    progress,
};
use crate::cli::{Output, SqlArgs, sql_output::SqlOutput};

/// What remains of a statement that Ctrl-C stops.
const STOPPED: &str = "stopped";

/// The state of the shell.
pub(super) struct ShellSession {
    client: Client,
    arguments: SqlArgs,
    /// How answers are written.
    format: Output,
    names: Arc<Names>,
    expanded: Expanded,
    timing: bool,
    /// Where answers go instead of the terminal.
    file: Option<(PathBuf, File)>,
    /// The statement that `\watch` repeats.
    last: Option<String>,
    size: Option<TerminalSize>,
    /// Whether long answers go to the pager.
    pages: bool,
    /// Ctrl-C while a statement runs.
    interrupts: Signal,
}

/// The answer of a statement, as it is shown.
struct Shown {
    /// None if it was written to a file.
    answer: Option<Rendered>,
    /// None if the format is no table.
    summary: Option<String>,
    stats: Value,
}

impl ShellSession {
    /// A session with a server.
    pub(super) fn new(client: Client, arguments: SqlArgs, names: Arc<Names>) -> Result<Self, Failure> {
        let format = match arguments.output {
            SqlOutput::Shown(format) if format != Output::Arrow => format,
            _ => {
                let failure = Failure::usage("a file, or an Arrow stream, has the answer of one statement");
                return Err(failure.hint("give the statement, or leave out -o"));
            }
        };
        let interrupts =
            signal(SignalKind::interrupt()).map_err(|e| Failure::with_cause("cannot wait for Ctrl-C", &e))?;
        Ok(Self {
            client,
            arguments,
            format,
            names,
            expanded: Expanded::Auto,
            timing: true,
            file: None,
            last: None,
            size: None,
            pages: true,
            interrupts,
        })
    }

    /// The first lines.
    pub(super) fn greet(&self) -> Result<(), Failure> {
        let (version, address) = (env!("CARGO_PKG_VERSION"), self.client.address());
        let usage = "End a statement with a semicolon (;). \\? shows all commands, \\q leaves.";
        output::write(format!("rachis {version} at {address}\n{usage}\n").as_bytes())
    }

    /// Takes the width and height of the terminal.
    pub(super) fn update_size(&mut self, size: Option<(u16, u16)>) {
        self.size = size.map(|(columns, rows)| TerminalSize {
            columns: columns.into(),
            rows: rows.into(),
        });
    }

    /// Runs an entry until a step of it fails; the error is shown. Returns the statement that is still open, which the
    /// next entry begins with. None if the entry ends the session.
    pub(super) async fn enter(&mut self, text: &str) -> Option<String> {
        let Entry { steps, open, .. } = Entry::read(text);
        for step in steps {
            let done = match step {
                Step::Statements(text) => self.run_all(&text).await,
                Step::Command(line) => match ShellCommand::parse(&line) {
                    Ok(ShellCommand::Quit) => return None,
                    Ok(command) => self.command(command).await,
                    Err(failure) => Err(failure),
                },
            };
            if let Err(failure) = done {
                note(&failure.to_string());
                break;
            }
        }
        Some(open)
    }

    async fn command(&mut self, command: ShellCommand) -> Result<(), Failure> {
        let say = |text: String| output::write(format!("{text}\n").as_bytes());
        match command {
            ShellCommand::Quit => Ok(()),
            ShellCommand::Help => output::write(help().as_bytes()),
            ShellCommand::Run(statement) => self.run(&statement).await.map(|_| ()),
            ShellCommand::Timing(to) => {
                self.timing = to.unwrap_or(!self.timing);
                say(format!("timing is {}", if self.timing { "on" } else { "off" }))
            }
            ShellCommand::Expanded(to) => {
                let other = if self.expanded == Expanded::On {
                    Expanded::Off
                } else {
                    Expanded::On
                };
                self.expanded = to.unwrap_or(other);
                say(match self.expanded {
                    Expanded::On => "each value has a line of its own".to_owned(),
                    Expanded::Off => "answers are tables".to_owned(),
                    Expanded::Auto => "answers are tables, unless they are wider than the terminal".to_owned(),
                })
            }
            ShellCommand::Format(format) => {
                self.format = format;
                Ok(())
            }
            ShellCommand::Into(None) => {
                self.file = None;
                Ok(())
            }
            ShellCommand::Into(Some(path)) => {
                let file = create(&path)?;
                self.file = Some((path, file));
                Ok(())
            }
            ShellCommand::Include(path) => {
                let source = path.clone();
                match self.blocking(move || std::fs::read_to_string(source)).await {
                    Some(Ok(text)) => self.run_all(&text).await,
                    Some(Err(e)) => Err(Failure::new(format!("cannot read {}: {e}", path.display()))),
                    None => Ok(()),
                }
            }
            ShellCommand::Watch(seconds) => self.watch(Duration::from_secs_f64(seconds)).await,
        }
    }

    /// Runs what may block, such as the opening of a pipe. None if Ctrl-C came first.
    async fn blocking<T: Send + 'static>(&mut self, run: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        // Not on a thread of the runtime, whose end would wait for it.
        let (sender, done) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || sender.send(run()));
        tokio::select! {
            done = done => done.ok(),
            _ = self.interrupts.recv() => {
                note(STOPPED);
                None
            }
        }
    }

    /// Runs statements until one fails or is stopped.
    async fn run_all(&mut self, text: &str) -> Result<(), Failure> {
        let found = statements(text);
        let is_one = found.len() == 1;
        for (index, statement) in found.iter().enumerate() {
            let place = format!("statement {} (line {})", index + 1, statement.at.0);
            let goes_on = self.run(statement.text).await;
            let goes_on = goes_on.map_err(|failure| if is_one { failure } else { failure.within(&place) })?;
            self.last = Some(statement.text.to_owned());
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    async fn watch(&mut self, interval: Duration) -> Result<(), Failure> {
        self.pages = false;
        let watched = self.repeat(interval).await;
        self.pages = true;
        watched
    }

    async fn repeat(&mut self, interval: Duration) -> Result<(), Failure> {
        let Some(statement) = self.last.clone() else {
            return Err(Failure::new("there is no statement to repeat").hint("run one first, then \\watch"));
        };
        loop {
            let now = chrono::Local::now().format("%H:%M:%S");
            output::write(format!("{now}, every {} s, until Ctrl-C\n", interval.as_secs_f64()).as_bytes())?;
            if !self.run(&statement).await? {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                _ = self.interrupts.recv() => return Ok(()),
            }
        }
    }

    /// Runs a statement and shows its answer. False if Ctrl-C stopped it.
    async fn run(&mut self, statement: &str) -> Result<bool, Failure> {
        // Those of earlier, such as in the pager, stop nothing.
        while self.interrupts.recv().now_or_never().is_some() {}
        let Self {
            client,
            arguments,
            format,
            file,
            expanded,
            size,
            interrupts,
            ..
        } = self;
        let shown = tokio::select! {
            shown = answer(client, arguments, *format, *expanded, *size, file.as_mut(), statement) => shown?,
            never = progress::show(client, statement) => match never {},
            _ = interrupts.recv() => {
                note(STOPPED);
                return Ok(false);
            }
        };
        if let Some(answer) = shown.answer {
            let size = self.size.filter(|_| self.pages);
            // The pager waits for its reader.
            let paged = tokio::task::spawn_blocking(move || page(&answer, size)).await;
            paged.map_err(|e| Failure::with_cause("cannot show the answer", &e))??;
        }
        if self.timing
            && let Some(summary) = &shown.summary
        {
            output::write(format!("{summary}\n").as_bytes())?;
        }
        note_warnings(&shown.stats);
        if changes_names(statement) {
            tokio::select! {
                refreshed = self.names.refresh() => if let Err(failure) = refreshed {
                    note(&format!("warning: Tab may not complete new names: {failure}"));
                },
                _ = self.interrupts.recv() => {}
            }
        }
        Ok(true)
    }
}

/// Sends a statement. Writes its answer to the file, if there is one, or renders it for the terminal.
async fn answer(
    client: &Client,
    arguments: &SqlArgs,
    format: Output,
    expanded: Expanded,
    size: Option<TerminalSize>,
    mut file: Option<&mut (PathBuf, File)>,
    statement: &str,
) -> Result<Shown, Failure> {
    let is_for_file = file.is_some();
    let mut into_file = |bytes: &[u8]| match &mut file {
        Some((path, file)) => file
            .write_all(bytes)
            .map(|()| true)
            .map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display()))),
        None => Ok(false),
    };
    if format != Output::Table {
        let mut shown = Vec::new();
        let stats = sql::pass_on(client, arguments, statement, format, &mut |chunk| {
            if !into_file(chunk)? {
                shown.extend_from_slice(chunk);
            }
            Ok(())
        })
        .await?;
        let text = output::harmless(&String::from_utf8_lossy(&shown));
        let answer = (!is_for_file).then_some(Rendered { text, wraps: true });
        let summary = None;
        return Ok(Shown { answer, summary, stats });
    }
    let request = sql::request(client, arguments, statement, format);
    let text = client.send(request).await?.text().await.map_err(|e| broke_off(&e))?;
    let answer = sql::parse_answer(&text, statement)?;
    let (cells, size) = match is_for_file {
        true => (Cells::Whole, None),
        false => (Cells::Cut, size),
    };
    let shown = rendered(&answer, expanded, size, cells);
    into_file(shown.text.as_bytes())?;
    Ok(Shown {
        answer: (!is_for_file).then_some(shown),
        summary: Some(display::summary(answer.rows.len(), &answer.stats)),
        stats: answer.stats,
    })
}

/// Creates the file that `\o` writes to. Refuses a named pipe: opening one blocks until another process reads it, and
/// Ctrl-C could not interrupt that.
fn create(path: &Path) -> Result<File, Failure> {
    let cannot = |e: &dyn Display| Failure::new(format!("cannot write {}: {e}", path.display()));
    if std::fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo()) {
        let hint = "it is a pipe; write to a file, or use `rachis sql -f statements.sql > pipe`";
        return Err(cannot(&hint));
    }
    File::create(path).map_err(|e| cannot(&e))
}

/// Whether a statement may add or remove names that Tab completes.
fn changes_names(statement: &str) -> bool {
    ["CREATE", "DROP", "ALTER", "REVERT"].contains(&sql::first_word(statement).as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_files_and_not_to_pipes() {
        let folder = std::env::temp_dir().join(format!("rachis-shell-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let (file, pipe) = (folder.join("file"), folder.join("pipe"));
        let created = create(&file).is_ok() && file.exists();
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        let refused = create(&pipe).expect_err("a pipe is refused").to_string();
        let _ = std::fs::remove_dir_all(&folder);
        assert!(created && made.is_ok_and(|made| made.success()));
        assert!(refused.contains("it is a pipe; write to a file"), "{refused}");
    }
}
