//! The binary `rachis-mutant`: seeded bugs and crash points for the tests that must detect them. It has its own name so
//! that it is not run by mistake, and is built only with the feature `seeded-bugs`.

fn main() -> std::process::ExitCode {
    rachis::main()
}
