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
mod entry;
mod names;
mod progress;
mod session;

use std::{fs, path::PathBuf, sync::Arc};

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
    // The beginning of a statement, which stays at the prompt while a command runs.
    let mut open = String::new();
    loop {
        let (used, line) = read_line(editor, std::mem::take(&mut open)).await?;
        editor = used;
        match line {
            Ok(line) => {
                session.update_size(editor.dimensions());
                open = match session.enter(&line).await {
                    Some(open) => open,
                    None => break,
                };
                // An open statement becomes an entry of the history when it ends.
                if open.is_empty() {
                    editor.add_history_entry(line.as_str()).map_err(unusable)?;
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

/// Reads one entry, which begins with what is already typed. On a thread of its own, as the editor blocks.
async fn read_line(
    mut editor: Editor<Assistant, FileHistory>,
    typed: String,
) -> Result<(Editor<Assistant, FileHistory>, Line), Failure> {
    let read = tokio::task::spawn_blocking(move || {
        let line = editor.readline_with_initial(PROMPT, (&typed, ""));
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
