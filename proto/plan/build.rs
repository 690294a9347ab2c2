//! Writes the named patterns of GROK, those of the `grok` crate, as a table.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut table = String::from("&[\n");
    for (name, pattern) in grok::patterns() {
        writeln!(table, "({name:?}, {pattern:?}),")?;
    }
    table.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR")?).join("grok_patterns.rs"), table)?;
    Ok(())
}
