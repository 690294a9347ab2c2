//! The shell of `rachis sql`: statements and commands that are typed at a terminal.
//!
//! ```text
//!   line editor ── statement ; ──> server ── answer ──> pager or file
//!        │ Tab: names (asked once)            Ctrl-C: the request is dropped, so the server ends the query
//!        └ \command ──> settings of the shell
//! ```

mod command;
mod completion;
mod display;
mod names;
mod progress;
mod session;

use std::{fs, path::PathBuf, sync::Arc};

use aggregator::statements;
use rustyline::{CompletionType, Config, Editor, config::Builder, error::ReadlineError, history::FileHistory};

use self::{completion::Assistant, names::Names, session::ShellSession};
use super::{Failure, http::Client, output};
use crate::cli::SqlArgs;

/// Entries of the history.
const HISTORY_MAX: usize = 10_000;
const PROMPT: &str = "rachis> ";

/// Reads and runs statements until the end of the input.
pub(crate) async fn run(client: Client, arguments: SqlArgs) -> Result<(), Failure> {
    let names = Arc::new(Names::new(client.clone()));
    names.refresh().await?;
    let mut session = ShellSession::new(client, arguments, Arc::clone(&names))?;
    session.greet()?;
    let unusable = |e: ReadlineError| Failure::with_cause("cannot use this terminal", &e);
    let mut editor: Editor<Assistant, FileHistory> =
        Editor::with_config(configuration().map_err(unusable)?).map_err(unusable)?;
    editor.set_helper(Some(Assistant::new(names, tokio::runtime::Handle::current())));
    let history = history_file();
    if let Some(file) = &history {
        // There is none before the first session.
        let _ = editor.load_history(file);
    }
    loop {
        let (used, line) = read_line(editor).await?;
        editor = used;
        match line {
            Ok(line) => {
                session.update_size(editor.dimensions());
                if !session.enter(&line).await? {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(unusable(error)),
        }
        if let Some(file) = &history
            && let Err(error) = editor.append_history(file)
        {
            output::note(&format!(
                "warning: the history was not saved to {}: {error}",
                file.display()
            ));
        }
    }
    Ok(())
}

type Line = Result<String, ReadlineError>;

/// Reads one entry on a thread of its own, as the editor blocks.
async fn read_line(
    mut editor: Editor<Assistant, FileHistory>,
) -> Result<(Editor<Assistant, FileHistory>, Line), Failure> {
    let read = tokio::task::spawn_blocking(move || {
        let line = editor.readline(PROMPT);
        (editor, line)
    });
    read.await
        .map_err(|e| Failure::with_cause("the line editor failed", &e))
}

fn configuration() -> Result<Config, ReadlineError> {
    let builder: Builder = Config::builder();
    Ok(builder
        .completion_type(CompletionType::List)
        .max_history_size(HISTORY_MAX)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .auto_add_history(true)
        .build())
}

/// `history` in the folder for state of the user; none if there is no such folder.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")))?;
    let folder = state.join("rachis");
    fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

/// Whether what is typed can be run: a command, or statements that all end with a `;`.
fn is_complete(text: &str) -> bool {
    let text = text.trim();
    if text.is_empty() || text.starts_with('\\') {
        return true;
    }
    // What comes after a `;` is a statement of its own.
    let marked = format!("{text}\nx");
    statements(&marked).last().is_some_and(|last| last.text == "x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_complete_when_its_last_statement_ends() {
        for complete in [
            "",
            " ",
            "\\d",
            "select 1;",
            "select ';';",
            "select 1; -- done",
            "select 1;\nselect 2;",
        ] {
            assert!(is_complete(complete), "{complete:?}");
        }
        for open in [
            "select 1",
            "select ';",
            "select 1; select 2",
            "select \"a;",
            "select 1 /* ; ",
            "select $$ ; ",
        ] {
            assert!(!is_complete(open), "{open:?}");
        }
    }
}
