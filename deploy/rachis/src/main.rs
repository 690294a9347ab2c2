//! The binary `rachis`.

fn main() -> std::process::ExitCode {
    rachis::main()
}
