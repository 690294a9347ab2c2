//! A session of the shell: its settings, and what it does with an entry.

use std::{fs::File, io::Write as _, path::PathBuf, sync::Arc, time::Duration};

use aggregator::statements;
use futures::FutureExt as _;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    super::{
        Failure,
        http::{Client, broke_off},
        output::{self, SqlAnswer, note, note_warnings},
        sql,
    },
    command::{Expanded, ShellCommand, help},
    display::{self, Rendered, TerminalSize, page, rendered},
    names::Names,
    progress,
};
use crate::cli::{Output, SqlArgs};

/// What remains of a statement that Ctrl-C stops.
const STOPPED: &str = "stopped";

/// The state of the shell.
pub(super) struct ShellSession {
    client: Client,
    arguments: SqlArgs,
    names: Arc<Names>,
    expanded: Expanded,
    timing: bool,
    /// Where answers go instead of the terminal.
    file: Option<(PathBuf, File)>,
    /// The statement that `\watch` repeats.
    last: Option<String>,
    size: Option<TerminalSize>,
    /// Ctrl-C while a statement runs.
    interrupts: Signal,
}

/// The answer of a statement, as it is shown.
struct Shown {
    answer: Rendered,
    /// None if the format has no statistics.
    summary: Option<String>,
    stats: Value,
}

impl ShellSession {
    /// A session with a server.
    pub(super) fn new(client: Client, arguments: SqlArgs, names: Arc<Names>) -> Result<Self, Failure> {
        if arguments.output == Output::Arrow {
            return Err(
                Failure::usage("an Arrow stream cannot be shown at a terminal").hint("give a statement or a file")
            );
        }
        let interrupts =
            signal(SignalKind::interrupt()).map_err(|e| Failure::with_cause("cannot wait for Ctrl-C", &e))?;
        Ok(Self {
            client,
            arguments,
            names,
            expanded: Expanded::Auto,
            timing: true,
            file: None,
            last: None,
            size: None,
            interrupts,
        })
    }

    /// The first lines.
    pub(super) fn greet(&self) -> Result<(), Failure> {
        let (version, address) = (env!("CARGO_PKG_VERSION"), self.client.address());
        output::write(format!("rachis {version} at {address}. \\? shows all commands.\n").as_bytes())
    }

    /// Takes the width and height of the terminal.
    pub(super) fn update_size(&mut self, size: Option<(u16, u16)>) {
        self.size = size.map(|(columns, rows)| TerminalSize {
            columns: columns.into(),
            rows: rows.into(),
        });
    }

    /// Runs an entry. An error is shown. False if it ends the session.
    pub(super) async fn enter(&mut self, entry: &str) -> Result<bool, Failure> {
        let entry = entry.trim();
        let done = match entry.starts_with('\\') {
            true => match ShellCommand::parse(entry) {
                Ok(ShellCommand::Quit) => return Ok(false),
                Ok(command) => self.command(command).await,
                Err(failure) => Err(failure),
            },
            false => self.run_all(entry).await,
        };
        if let Err(failure) = done {
            note(&failure.to_string());
        }
        Ok(true)
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
                self.arguments.output = format;
                Ok(())
            }
            ShellCommand::Into(None) => {
                self.file = None;
                Ok(())
            }
            ShellCommand::Into(Some(path)) => {
                let file =
                    File::create(&path).map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))?;
                self.file = Some((path, file));
                Ok(())
            }
            ShellCommand::Include(path) => {
                let text = std::fs::read_to_string(&path)
                    .map_err(|e| Failure::new(format!("cannot read {}: {e}", path.display())))?;
                self.run_all(&text).await
            }
            ShellCommand::Watch(seconds) => self.watch(Duration::from_secs_f64(seconds)).await,
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
        let shown = tokio::select! {
            shown = answer(&self.client, &self.arguments, self.expanded, self.size, statement) => shown?,
            never = progress::show(&self.client, statement) => match never {},
            _ = self.interrupts.recv() => {
                note(STOPPED);
                return Ok(false);
            }
        };
        match &mut self.file {
            Some((path, file)) => file
                .write_all(shown.answer.text.as_bytes())
                .map_err(|e| Failure::new(format!("cannot write {}: {e}", path.display())))?,
            None => page(&shown.answer, self.size)?,
        }
        if self.timing
            && let Some(summary) = &shown.summary
        {
            output::write(format!("{summary}\n").as_bytes())?;
        }
        note_warnings(&shown.stats);
        if changes_names(statement) {
            self.names.refresh().await?;
        }
        Ok(true)
    }
}

/// Sends a statement and renders its answer.
async fn answer(
    client: &Client,
    arguments: &SqlArgs,
    expanded: Expanded,
    size: Option<TerminalSize>,
    statement: &str,
) -> Result<Shown, Failure> {
    let format = arguments.output;
    let response = client.send(sql::request(client, arguments, statement, format)).await?;
    let header = sql::stats_of(response.headers());
    let text = response.text().await.map_err(|e| broke_off(&e))?;
    if format != Output::Table {
        return Ok(Shown {
            answer: Rendered {
                text: if text.ends_with('\n') {
                    text
                } else {
                    format!("{text}\n")
                },
                wraps: true,
            },
            summary: None,
            stats: header.unwrap_or_default(),
        });
    }
    let answer: SqlAnswer =
        serde_json::from_str(&text).map_err(|e| Failure::with_cause("cannot parse the answer", &e))?;
    Ok(Shown {
        answer: rendered(&answer, expanded, size),
        summary: Some(display::summary(answer.rows.len(), &answer.stats)),
        stats: answer.stats,
    })
}

/// Whether a statement may add or remove names that Tab completes.
fn changes_names(statement: &str) -> bool {
    let first = statement.split_whitespace().next().unwrap_or_default().to_uppercase();
    ["CREATE", "DROP", "ALTER", "REVERT"].contains(&first.as_str())
}
