//! The binary.

fn main() -> std::process::ExitCode {
    rachis::main()
}
