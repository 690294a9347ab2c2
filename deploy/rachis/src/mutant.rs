//! The binary with seeded bugs and crash points, for the tests that must notice them. It has a name of its own, so that
//! nobody runs it by mistake, and is built only where the feature is asked for.

fn main() -> std::process::ExitCode {
    rachis::main()
}
