//! A real S3 server (versitygw), and a proxy in front of it that breaks requests off, refuses them and slows them down.

use std::{
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    Settings, cache_dir,
    network::Host,
    process::{Process, TestDir},
};

const KEY: &str = "rachis";
const SECRET: &str = "a-secret-of-tests";
const BUCKET: &str = "snapshots";
/// A connection on which nothing is sent for so long is closed, so that the next request gets a fault of its own.
const IDLE_MAX: Duration = Duration::from_millis(50);

/// A running S3 server with one bucket.
pub struct S3Server {
    address: std::net::SocketAddr,
    folder: TestDir,
    _process: Process,
}

/// The program: `RACHIS_S3_SERVER`, else where `tests/run` has put it.
fn program() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("RACHIS_S3_SERVER") {
        return Ok(program.into());
    }
    let cache = cache_dir().context("there is no home folder")?;
    let found = std::fs::read_dir(cache)?
        .filter_map(|entry| Some(entry.ok()?.path().join("versitygw")))
        .find(|program| program.is_file());
    found.context("there is no S3 server; `./tests/run --prepare` builds one")
}

impl S3Server {
    /// Starts a server on an empty folder.
    pub async fn start() -> Self {
        let (host, folder) = (Host::local(), TestDir::new("s3").expect("a temporary folder"));
        let address = host.socket_addr(host.free_ports(1).expect("a free port")[0]);
        for part in ["data/snapshots", "sidecar"] {
            std::fs::create_dir_all(folder.path().join(part)).expect("the folder can be written");
        }
        let mut command = Command::new(program().expect("an S3 server"));
        command
            .args(["--port", &address.to_string(), "--access", KEY, "--secret", SECRET])
            .args(["--region", "us-east-1", "posix", "--sidecar"])
            .arg(folder.path().join("sidecar"))
            .arg(folder.path().join("data"));
        let process = Process::start("versitygw", &mut command, &folder.path().join("log")).expect("it starts");
        crate::eventually("the S3 server answers", || async {
            TcpStream::connect(address).await.map(drop).map_err(Into::into)
        })
        .await;
        Self {
            address,
            folder,
            _process: process,
        }
    }

    /// The settings of a server whose snapshots are here.
    pub fn settings(&self, settings: Settings) -> Settings {
        at(self.address, settings)
    }

    /// The folder with the objects.
    pub fn objects(&self) -> PathBuf {
        self.folder.path().join("data").join(BUCKET)
    }
}

fn at(address: std::net::SocketAddr, settings: Settings) -> Settings {
    settings
        .with("RACHIS_SNAPSHOTS__URL", format!("s3://{BUCKET}/here"))
        .with("RACHIS_SNAPSHOTS__OPTIONS__ENDPOINT", format!("http://{address}"))
        .with("RACHIS_SNAPSHOTS__OPTIONS__REGION", "us-east-1")
        .with("RACHIS_SNAPSHOTS__OPTIONS__ALLOW_HTTP", "true")
        .with("RACHIS_SNAPSHOTS__OPTIONS__ACCESS_KEY_ID", KEY)
        .with("RACHIS_SNAPSHOTS__OPTIONS__SECRET_ACCESS_KEY", SECRET)
}

/// What a proxy does to connections, each in so many of a hundred, or has done, each so often.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Answered with 503 once the request has arrived.
    pub refused: u32,
    /// Closed in the middle of what is sent; counted if that is an upload.
    pub broken: u32,
    /// Slow in both directions.
    pub slow: u32,
}

/// A proxy before an S3 server.
pub struct FaultyProxy {
    address: std::net::SocketAddr,
    faults: Arc<Mutex<Faults>>,
    /// How many connections had each fault.
    had: Arc<Mutex<Faults>>,
    accepting: JoinHandle<()>,
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl FaultyProxy {
    /// Starts a proxy without faults.
    pub async fn start(server: &S3Server, seed: u64) -> Self {
        let host = Host::local();
        let listener = TcpListener::bind((host.address, 0)).await.expect("a free port");
        let (address, to) = (listener.local_addr().expect("an address"), server.address);
        let (faults, had) = (Arc::new(Mutex::new(Faults::default())), Arc::default());
        let (known, counts) = (faults.clone(), Arc::clone(&had));
        let accepting = tokio::spawn(async move {
            let mut random = StdRng::seed_from_u64(seed);
            while let Ok((client, _)) = listener.accept().await {
                let faults = *known.lock().expect("the faults");
                let fate = random.random_range(0..100);
                // So that also the middle of small requests is met.
                let bytes = random.random_range(0..14_u32);
                let fate = match fate {
                    fate if fate < faults.refused => Fate::Refused,
                    fate if fate < faults.refused + faults.broken => Fate::BrokenAfter(1 << (bytes + 8)),
                    fate if fate < faults.refused + faults.broken + faults.slow => Fate::Slow,
                    _ => Fate::None,
                };
                let counts = Arc::clone(&counts);
                tokio::spawn(async move { drop(forward(client, to, fate, &counts).await) });
            }
        });
        Self {
            address,
            faults,
            had,
            accepting,
        }
    }

    /// The settings of a server whose snapshots are behind this proxy.
    pub fn settings(&self, settings: Settings) -> Settings {
        at(self.address, settings)
    }

    /// Sets what happens to connections from now on.
    pub fn set(&self, faults: Faults) {
        *self.faults.lock().expect("the faults") = faults;
    }

    /// How many connections had each fault.
    pub fn had(&self) -> Faults {
        *self.had.lock().expect("the counts")
    }
}

/// What happens to one connection.
#[derive(Debug, Clone, Copy)]
enum Fate {
    None,
    Refused,
    BrokenAfter(u64),
    Slow,
}

async fn forward(mut client: TcpStream, to: std::net::SocketAddr, fate: Fate, had: &Mutex<Faults>) -> Result<()> {
    if matches!(fate, Fate::Refused) {
        refuse(client).await?;
        had.lock().expect("the counts").refused += 1;
        return Ok(());
    }
    had.lock().expect("the counts").slow += u32::from(matches!(fate, Fate::Slow));
    let mut server = TcpStream::connect(to).await?;
    let (mut sent, mut is_answered, mut up, mut down) = (0, false, vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let (read, is_up) = tokio::select! {
            read = client.read(&mut up) => (read?, true),
            read = server.read(&mut down) => (read?, false),
            () = tokio::time::sleep(IDLE_MAX), if is_answered => return Ok(()),
        };
        if read == 0 {
            return Ok(());
        }
        (sent, is_answered) = (sent + read as u64, !is_up);
        match fate {
            Fate::BrokenAfter(bytes) if sent > bytes => {
                had.lock().expect("the counts").broken += u32::from(is_up);
                return Ok(());
            }
            Fate::Slow => tokio::time::sleep(Duration::from_millis(20)).await,
            _ => {}
        }
        match is_up {
            true => server.write_all(&up[..read]).await?,
            false => client.write_all(&down[..read]).await?,
        }
    }
}

/// Reads a request to its end, and refuses it.
async fn refuse(mut client: TcpStream) -> Result<()> {
    let (mut request, mut part) = (Vec::new(), vec![0; 64 << 10]);
    let head = loop {
        if let Some(end) = memchr::memmem::find(&request, b"\r\n\r\n") {
            break end + 4;
        }
        let read = client.read(&mut part).await?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&part[..read]);
    };
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let mut left = length.unwrap_or(0).saturating_sub(request.len() - head);
    while left > 0 {
        match client.read(&mut part).await? {
            0 => return Ok(()),
            read => left = left.saturating_sub(read),
        }
    }
    let answer = "HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    Ok(client.write_all(answer.as_bytes()).await?)
}
