//! Generates the Rust code for the wire messages and services, without an external protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    const FILES: [&str; 5] = [
        "problem.proto",
        "public.proto",
        "leaf.proto",
        "tailer.proto",
        "node.proto",
    ];
    let descriptors = protox::compile(FILES, ["wire"])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(out.join("rachis.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
