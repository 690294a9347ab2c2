//! Commands of the shell, which begin with a backslash.

use std::path::PathBuf;

use clap::ValueEnum as _;

use super::super::Failure;
use crate::cli::Output;

/// What a command asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ShellCommand {
    Help,
    Quit,
    /// A statement that stands for the command.
    Run(String),
    Timing(Option<bool>),
    Expanded(Option<Expanded>),
    Format(Output),
    /// Where answers go; none: to the terminal.
    Into(Option<PathBuf>),
    /// The file whose statements are run.
    Include(PathBuf),
    /// Seconds between runs of the last statement.
    Watch(f64),
}

/// Whether each value of a table is on a line of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expanded {
    On,
    Off,
    /// If a table is wider than the terminal.
    Auto,
}

/// The commands, what they take, and what they do.
pub(super) const COMMANDS: [(&str, &str, &str); 10] = [
    ("\\?", "", "show these commands (as help)"),
    ("\\d", "[NAME]", "list tables, or describe one"),
    ("\\df", "[PATTERN]", "list functions, for example \\df regexp%"),
    ("\\format", "table|json|ndjson|csv|tsv", "choose the format of answers"),
    ("\\i", "FILE", "run the statements of a file"),
    ("\\o", "[FILE]", "write answers to a file, or to the terminal again"),
    ("\\q", "", "leave (as exit, quit and Ctrl-D)"),
    (
        "\\timing",
        "[on|off]",
        "show rows, time and freshness after each answer",
    ),
    (
        "\\watch",
        "[SECONDS]",
        "run the last statement again and again, until Ctrl-C",
    ),
    (
        "\\x",
        "[on|off|auto]",
        "show each value on a line of its own; auto: if the table is too wide",
    ),
];

impl ShellCommand {
    /// Reads a line that begins with a backslash.
    pub(super) fn parse(line: &str) -> Result<Self, Failure> {
        let line = line.trim().trim_end_matches(';').trim_end();
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim();
        let is_missing = |what: &str| Err(Failure::new(format!("{name} needs {what}")).hint(usage(name)));
        match name {
            "\\?" | "\\h" | "\\help" => Ok(Self::Help),
            "\\q" | "\\quit" | "\\exit" => Ok(Self::Quit),
            "\\d" | "\\dt" if argument.is_empty() => Ok(Self::Run("SHOW TABLES".to_owned())),
            "\\d" => Ok(Self::Run(format!("DESCRIBE {argument}"))),
            "\\df" if argument.is_empty() => Ok(Self::Run("SHOW FUNCTIONS".to_owned())),
            "\\df" => Ok(Self::Run(format!(
                "SHOW FUNCTIONS LIKE '{}'",
                argument.replace('\'', "''")
            ))),
            "\\timing" => switch(name, argument).map(Self::Timing),
            "\\x" if argument == "auto" => Ok(Self::Expanded(Some(Expanded::Auto))),
            "\\x" => {
                let to = |on| if on { Expanded::On } else { Expanded::Off };
                Ok(Self::Expanded(switch(name, argument)?.map(to)))
            }
            "\\format" if argument.is_empty() => is_missing("a format"),
            "\\format" => match Output::from_str(argument, true) {
                Ok(Output::Arrow) | Err(_) => {
                    Err(Failure::new(format!("{argument} is no format of the shell")).hint(usage(name)))
                }
                Ok(format) => Ok(Self::Format(format)),
            },
            "\\o" => Ok(Self::Into((!argument.is_empty()).then(|| PathBuf::from(argument)))),
            "\\i" if argument.is_empty() => is_missing("a file"),
            "\\i" => Ok(Self::Include(PathBuf::from(argument))),
            "\\watch" if argument.is_empty() => Ok(Self::Watch(2.0)),
            "\\watch" => match argument.parse::<f64>() {
                Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(Self::Watch(seconds)),
                _ => Err(Failure::new(format!("{argument} is not a number of seconds")).hint("write \\watch 2")),
            },
            _ => Err(Failure::new(format!("{name} is not a command")).hint("\\? lists all commands")),
        }
    }
}

/// `on` or `off`; none to change it.
fn switch(name: &str, argument: &str) -> Result<Option<bool>, Failure> {
    match argument {
        "" => Ok(None),
        "on" => Ok(Some(true)),
        "off" => Ok(Some(false)),
        other => Err(Failure::new(format!("{name} does not take {other}")).hint(usage(name))),
    }
}

fn usage(name: &str) -> String {
    let known = COMMANDS.iter().find(|(command, ..)| *command == name);
    known.map_or(String::new(), |(command, argument, what)| {
        format!("{command} {argument}: {what}")
    })
}

/// The text of `\?`.
pub(super) fn help() -> String {
    let line =
        |(command, argument, what): &(&str, &str, &str)| format!("  {:34}{what}\n", format!("{command} {argument}"));
    let commands: String = COMMANDS.iter().map(line).collect();
    format!(
        "End a statement with ; (it may have several lines).\n\
         A command may begin any line; the statement so far stays at the prompt.\n\
         Ctrl-C stops a statement that runs, or drops what was typed. Tab completes names.\n\
         {commands}\
         SHOW TABLES, SHOW FUNCTIONS, DESCRIBE events, SUMMARIZE events and EXPLAIN ANALYZE help to look around.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_arguments() {
        for (line, command) in [
            ("\\q", ShellCommand::Quit),
            ("\\d", ShellCommand::Run("SHOW TABLES".to_owned())),
            ("\\d events;", ShellCommand::Run("DESCRIBE events".to_owned())),
            (
                "\\df it's%",
                ShellCommand::Run("SHOW FUNCTIONS LIKE 'it''s%'".to_owned()),
            ),
            ("\\x", ShellCommand::Expanded(None)),
            ("\\x  auto ", ShellCommand::Expanded(Some(Expanded::Auto))),
            ("\\timing off", ShellCommand::Timing(Some(false))),
            ("\\format CSV", ShellCommand::Format(Output::Csv)),
            ("\\o", ShellCommand::Into(None)),
            ("\\o a b.txt", ShellCommand::Into(Some(PathBuf::from("a b.txt")))),
            ("\\watch 0.5", ShellCommand::Watch(0.5)),
        ] {
            assert_eq!(ShellCommand::parse(line).expect(line), command);
        }
    }

    #[test]
    fn a_wrong_command_is_an_error_with_a_hint() {
        for line in [
            "\\nope",
            "\\x maybe",
            "\\watch soon",
            "\\watch 0",
            "\\format xml",
            "\\format arrow",
            "\\format",
            "\\i",
        ] {
            let failure = ShellCommand::parse(line).expect_err(line).to_string();
            assert!(failure.contains("\nhint: "), "{failure}");
        }
    }

    #[test]
    fn help_names_every_command_that_is_parsed() {
        let help = help();
        for (name, ..) in COMMANDS {
            assert!(help.contains(name));
            let argument = if name == "\\i" {
                " f"
            } else if name == "\\format" {
                " csv"
            } else {
                ""
            };
            ShellCommand::parse(&format!("{name}{argument}")).expect(name);
        }
    }
}
