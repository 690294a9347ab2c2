//! Real event data, located through `RACHIS_TEST_DATA`.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
};

use anyhow::{Context as _, Result};

/// The folder of real event data: `RACHIS_TEST_DATA`, else `../shared/data` beside the repository; `None` if it does
/// not exist. With `CI` set this panics instead, because a test without its data proves nothing.
pub fn folder() -> Option<PathBuf> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("RACHIS_TEST_DATA").map_or(default, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    let ci = std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0");
    assert!(
        !ci,
        "{} does not exist; set RACHIS_TEST_DATA to the folder of real event data",
        folder.display()
    );
    eprintln!(
        "SKIPPED: {} does not exist; set RACHIS_TEST_DATA to the folder of real event data",
        folder.display()
    );
    None
}

/// The documents of one file (`gharchive_2015.ndjson.gz`), byte for byte.
pub fn documents(file: &str) -> Result<Vec<String>> {
    let path = folder().context("no folder of real event data")?.join(file);
    let gz =
        flate2::read::MultiGzDecoder::new(std::fs::File::open(&path).with_context(|| format!("{}", path.display()))?);
    let lines: Result<Vec<String>, _> = BufReader::new(gz).lines().collect();
    Ok(lines?.into_iter().filter(|line| !line.trim().is_empty()).collect())
}
