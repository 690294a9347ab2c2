//! Client commands of the program, run as a user runs them.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

use crate::{Server, server};

/// Runs client commands of the program against a server.
pub struct Cli<'a> {
    server: &'a Server,
}

impl<'a> Cli<'a> {
    /// Runs commands against this server. What is pushed is remembered in its data folder.
    pub fn new(server: &'a Server) -> Self {
        Self { server }
    }

    /// Runs a command.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.with_input(arguments, "")
    }

    /// Runs a command with this standard input.
    pub fn with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(server::binary());
        command
            .args(arguments)
            .env("RACHIS_URL", self.server.url())
            .env("XDG_STATE_HOME", self.server.data_dir().join("state"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(input.as_bytes())
            .expect("the program reads its input");
        child.wait_with_output().expect("the program exits")
    }
}

/// Standard output of a command, which must have succeeded.
pub fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error of a command.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that a command failed with this exit code and a message that contains `text`.
pub fn assert_fails(output: &Output, code: i32, text: &str) {
    let message = stderr(output);
    assert!(
        output.status.code() == Some(code) && message.contains(text),
        "{:?}, not {code} with {text:?}: {message}",
        output.status
    );
}
