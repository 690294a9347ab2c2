//! What is typed at the prompt: which commands and statements it has, and whether it can be run.
//!
//! Pure: the line editor and the session ask the same questions about a text.

use aggregator::statements;

/// An entry, as far as it is typed.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Entry {
    /// What to run, in this order.
    pub steps: Vec<Step>,
    /// The beginning of a statement whose end is not yet typed. It may have other statements before it.
    pub open: String,
    /// Whether Enter runs it: nothing is open, or its last line is a command.
    pub is_complete: bool,
}

/// A step of an entry.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// A command, which begins with a backslash.
    Command(String),
    /// Statements that end.
    Statements(String),
}

impl Entry {
    /// Reads a text. A command is a line that begins with a backslash, wherever it is except within quotes and comments;
    /// what comes before it and after it is one text.
    pub(super) fn read(text: &str) -> Self {
        let mut entry = Self::default();
        if let Some(command) = command_of_word(text) {
            entry.steps.push(Step::Command(command.to_owned()));
            entry.is_complete = true;
            return entry;
        }
        let mut ends_with_command = false;
        for line in text.trim_end().lines() {
            ends_with_command = line.trim_start().starts_with('\\') && !ends_within_quotes(&entry.open);
            if ends_with_command {
                entry.take_ended();
                entry.steps.push(Step::Command(line.trim().to_owned()));
            } else {
                entry.open.push_str(line);
                entry.open.push('\n');
            }
        }
        entry.take_ended();
        entry.is_complete = ends_with_command || entry.open.is_empty();
        entry
    }

    /// Makes a step of the statements so far, if the last of them ends.
    fn take_ended(&mut self) {
        if !is_ended(&self.open) {
            return;
        }
        let ended = std::mem::take(&mut self.open);
        if !ended.trim().is_empty() {
            self.steps.push(Step::Statements(ended));
        }
    }
}

/// The hint on a new, empty line while a statement is open.
pub(super) fn advice(text: &str) -> Option<&'static str> {
    if !text.ends_with('\n') {
        return None;
    }
    let open = Entry::read(text).open;
    if open.is_empty() {
        None
    } else if ends_within_quotes(&open) {
        Some("close the quote or the comment, or drop the statement with Ctrl-C")
    } else {
        Some("end the statement with ; or drop it with Ctrl-C")
    }
}

/// The command for a word that is also one without a backslash, if it is the whole entry.
fn command_of_word(text: &str) -> Option<&'static str> {
    let word = text.trim().trim_end_matches(';').trim_end();
    match word.to_lowercase().as_str() {
        "exit" | "quit" => Some("\\q"),
        "help" => Some("\\?"),
        _ => None,
    }
}

/// Whether all statements of a text end.
fn is_ended(text: &str) -> bool {
    // What comes after a `;` is a statement of its own.
    ends_with_statement_x(&format!("{text}\nx"))
}

/// Whether the end of a text is within quotes or within a comment of several lines.
fn ends_within_quotes(text: &str) -> bool {
    // There, a `;` ends nothing.
    !ends_with_statement_x(&format!("{text}\n;\nx"))
}

fn ends_with_statement_x(marked: &str) -> bool {
    statements(marked).last().is_some_and(|last| last.text == "x")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Step {
        Step::Command(line.to_owned())
    }

    fn ended(text: &str) -> Step {
        Step::Statements(text.to_owned())
    }

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
            assert!(Entry::read(complete).is_complete, "{complete:?}");
        }
        for open in [
            "select 1",
            "select ';",
            "select 1; select 2",
            "select \"a;",
            "select 1 /* ; ",
            "select $$ ; ",
        ] {
            assert!(!Entry::read(open).is_complete, "{open:?}");
        }
    }

    #[test]
    fn a_command_begins_any_line_and_the_statement_so_far_stays() {
        let entry = Entry::read("select 1,\n  \\d it's");
        assert_eq!(entry.steps, [command("\\d it's")]);
        assert_eq!(entry.open, "select 1,\n");
        assert!(entry.is_complete);
        let entry = Entry::read("select 1,\n\\d it's\n2");
        assert_eq!(entry.open, "select 1,\n2\n");
        assert!(!entry.is_complete, "the statement goes on after the command");
        let entry = Entry::read("select 1,\n\\d it's\n2;");
        assert_eq!(entry.steps, [command("\\d it's"), ended("select 1,\n2;\n")]);
        assert!(entry.is_complete && entry.open.is_empty());
    }

    #[test]
    fn statements_that_end_run_before_the_command_below_them() {
        let entry = Entry::read("select 1;\n\\d\nselect 2;\n\\q\n");
        assert_eq!(
            entry.steps,
            [
                ended("select 1;\n"),
                command("\\d"),
                ended("select 2;\n"),
                command("\\q")
            ]
        );
    }

    #[test]
    fn a_backslash_within_quotes_and_comments_is_text() {
        for open in ["select 'a\n\\q", "select $$\n\\q", "/* a\n\\q", "select \"a\n\\q"] {
            let entry = Entry::read(open);
            assert!(entry.steps.is_empty() && !entry.is_complete, "{open:?}");
        }
        assert_eq!(
            Entry::read("select 'a\n\\q';").steps,
            [ended("select 'a\n\\q';\n")],
            "the text has two lines"
        );
        assert_eq!(Entry::read("select 1 -- it's\n\\q").steps, [command("\\q")]);
    }

    #[test]
    fn exit_quit_and_help_are_commands_if_they_are_alone() {
        for (text, line) in [
            ("exit", "\\q"),
            ("QUIT;", "\\q"),
            (" quit ;", "\\q"),
            ("help", "\\?"),
            ("Help;", "\\?"),
        ] {
            let entry = Entry::read(text);
            assert!(entry.is_complete, "{text}");
            assert_eq!(entry.steps, [command(line)], "{text}");
        }
        for open in ["select 1\nexit", "help me", "exits"] {
            let entry = Entry::read(open);
            assert!(entry.steps.is_empty() && !entry.is_complete, "{open:?}");
        }
    }

    #[test]
    fn a_new_line_of_an_open_statement_says_how_it_ends() {
        for (text, told) in [
            ("select 1\n", "end the statement with ;"),
            ("select 1; select 2\n", "end the statement with ;"),
            ("select 'a;\n", "close the quote"),
            ("select 1 /* ;\n", "close the quote or the comment"),
        ] {
            let advice = advice(text).expect(text);
            assert!(advice.contains(told) && advice.contains("Ctrl-C"), "{text:?}: {advice}");
        }
        for text in ["", "\n", "select 1", "select 1\nfrom"] {
            assert_eq!(advice(text), None, "{text:?}");
        }
    }
}
