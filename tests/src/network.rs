//! A network between processes, for tests that cut it: each host is a network namespace of its own, and a router joins
//! them all.
//!
//! ```text
//! test process ── veth ── router ── veth ── leaf-1
//!                          │  └──── veth ── leaf-2
//!                          └ rules: from A to B, drop without a word
//! ```
//!
//! What is cut is dropped in silence: no connection is refused or reset, as where a cable is pulled. Several networks
//! may be there at once, of one test process or of several; what a killed one leaves behind is cleared away by the next
//! of its number. Takes root.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{File, TryLockError},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Command,
    sync::Mutex,
};

use anyhow::{Context as _, Result, bail, ensure};

/// Networks at once on one machine.
const NETWORKS_MAX: u8 = 200;
/// The last bytes of the addresses of the router, and of the test process.
const ROUTER: u8 = 254;
const TESTER: u8 = 253;
/// The host that is the test process itself.
pub const TEST: &str = "test";

/// Where a process runs and listens: at a loopback address of this machine, or in a network namespace.
#[derive(Debug, Clone)]
pub struct Host {
    namespace: Option<String>,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Host {
    /// This machine, at a random address of 127.0.0.0/8. The ports of a process that is killed stay free at that
    /// address, and it can start again there; at one address for all, another test's process would listen at them now
    /// and then.
    pub fn here() -> Self {
        let [first, second, third] = rand::random();
        Self {
            namespace: None,
            address: Ipv4Addr::new(127, first, second, u8::max(third, 1).min(254)),
        }
    }

    /// The address of one of its ports.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.address, port))
    }

    /// Picks free ports below the kernel's range for outgoing connections. It holds each one until it has them all, so
    /// no two are the same.
    pub fn free_ports(&self, count: usize) -> Result<Vec<u16>> {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
        let first: u16 = range.split_whitespace().next().context("no range of ports")?.parse()?;
        // The test process cannot bind an address of another network namespace. All ports are free there, and any
        // address of its own will do.
        let address = if self.namespace.is_none() {
            self.address
        } else {
            Ipv4Addr::LOCALHOST
        };
        let one = || {
            (0..1_000)
                .find_map(|_| TcpListener::bind((address, rand::random_range(first / 2..first))).ok())
                .context("no free port")
        };
        let held = (0..count).map(|_| one()).collect::<Result<Vec<_>>>()?;
        held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
    }

    /// A program that runs there. Its process id is the program's own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(namespace) = &self.namespace else {
            return Command::new(program);
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }
}

/// Hosts and the router between them; gone when it is dropped.
pub struct Network {
    /// The third byte of all its addresses, and a part of all its names.
    number: u8,
    hosts: BTreeMap<String, Host>,
    cuts: Mutex<BTreeSet<(Ipv4Addr, Ipv4Addr)>>,
    slow: Mutex<BTreeSet<String>>,
    /// Locked while the network is there, whatever becomes of this process.
    _claim: File,
}

impl Network {
    /// A network of these hosts and the test process, with nothing cut.
    pub fn new(hosts: &[String]) -> Result<Self> {
        ensure!(
            nix::unistd::Uid::effective().is_root(),
            "a network of namespaces takes root"
        );
        ensure!(
            hosts.len() < usize::from(TESTER),
            "{} hosts are too many for a network",
            hosts.len()
        );
        let (number, claim) = claim()?;
        clear_away(number)?;
        let host = |(at, name): (usize, &String)| {
            (
                name.clone(),
                Host {
                    namespace: Some(format!("{}{name}", prefix(number))),
                    address: address(number, at as u8 + 1),
                },
            )
        };
        let hosts = hosts.iter().enumerate().map(host).collect();
        let network = Self {
            number,
            hosts,
            cuts: Mutex::default(),
            slow: Mutex::default(),
            _claim: claim,
        };
        network.build().context(
            "a network of namespaces needs iproute2 and a kernel with network namespaces, veth and policy routing",
        )?;
        Ok(network)
    }

    fn build(&self) -> Result<()> {
        let router = self.router();
        ip(&["netns", "add", &router])?;
        // Without the check of the way back, which would look at the rules of cuts: a cut of one way must not be one of
        // both.
        let forward =
            "cd /proc/sys/net/ipv4; echo 1 >ip_forward; echo 0 >conf/all/rp_filter; echo 0 >conf/default/rp_filter";
        ip(&["netns", "exec", &router, "sh", "-ec", forward])?;
        for (name, host) in &self.hosts {
            let namespace = host.namespace.as_deref().unwrap_or_default();
            ip(&["netns", "add", namespace])?;
            ip(&[
                "link",
                "add",
                &port(host),
                "netns",
                &router,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                namespace,
            ])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
            self.join(&["-n", namespace], "eth0", host)
                .with_context(|| name.clone())?;
        }
        let test = self.host(TEST);
        let near = format!("rachis-{}", self.number);
        ip(&[
            "link",
            "add",
            &port(&test),
            "netns",
            &router,
            "type",
            "veth",
            "peer",
            "name",
            &near,
        ])?;
        self.join(&[], &near, &test)
    }

    /// Both ends of a host's link get addresses and routes.
    fn join(&self, within: &[&str], near: &str, host: &Host) -> Result<()> {
        let (router, gateway, own) = (
            self.router(),
            address(self.number, ROUTER).to_string(),
            host.address.to_string(),
        );
        let everybody = format!("{}/24", address(self.number, 0));
        let here = |arguments: &[&str]| ip(&[within, arguments].concat());
        let there = |arguments: &[&str]| ip(&[&["-n", &router], arguments].concat());
        there(&["addr", "add", &gateway, "dev", &port(host)])?;
        there(&["link", "set", &port(host), "up"])?;
        there(&["route", "add", &own, "dev", &port(host)])?;
        here(&["addr", "add", &own, "dev", near])?;
        here(&["link", "set", near, "up"])?;
        here(&["route", "add", &gateway, "dev", near, "src", &own])?;
        here(&["route", "add", &everybody, "via", &gateway, "dev", near, "src", &own])
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Host {
        match name {
            TEST => Host {
                namespace: None,
                address: address(self.number, TESTER),
            },
            name => self
                .hosts
                .get(name)
                .unwrap_or_else(|| panic!("{name} is a host of the network"))
                .clone(),
        }
    }

    /// Drops what goes from one to another, and nothing of what comes back.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        let (from, to) = (self.host(from).address, self.host(to).address);
        if self.cuts.lock().expect("no holder panicked").insert((from, to)) {
            self.rule("add", from, to);
        }
    }

    /// Drops all between two.
    pub fn cut(&self, one: &str, other: &str) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Nothing is cut any more.
    pub fn heal(&self) {
        for (from, to) in std::mem::take(&mut *self.cuts.lock().expect("no holder panicked")) {
            self.rule("del", from, to);
        }
    }

    fn rule(&self, verb: &str, from: Ipv4Addr, to: Ipv4Addr) {
        ip(&[
            "-n",
            &self.router(),
            "rule",
            verb,
            "from",
            &from.to_string(),
            "to",
            &to.to_string(),
            "blackhole",
        ])
        .expect("the router takes a rule");
    }

    /// Lets so many kilobits a second through to and from a host.
    pub fn slow(&self, name: &str, kilobits: u32) {
        let (host, rate) = (self.host(name), format!("{kilobits}kbit"));
        let limit = ["root", "tbf", "rate", &rate, "burst", "16kb", "latency", "400ms"];
        for (within, link) in self.ends(&host) {
            tc(&[&["-n", &within, "qdisc", "replace", "dev", &link][..], &limit].concat())
                .expect("the kernel has the qdisc tbf");
        }
        self.slow.lock().expect("no holder panicked").insert(name.to_owned());
    }

    /// No link is slow any more.
    pub fn quicken(&self) {
        for name in std::mem::take(&mut *self.slow.lock().expect("no holder panicked")) {
            for (within, link) in self.ends(&self.host(&name)) {
                tc(&["-n", &within, "qdisc", "del", "dev", &link, "root"]).expect("a slow link is made fast");
            }
        }
    }

    /// Both ends of a host's link: namespace and interface.
    fn ends(&self, host: &Host) -> [(String, String); 2] {
        let namespace = host
            .namespace
            .clone()
            .expect("the link of a host, not of the test process");
        [(self.router(), port(host)), (namespace, "eth0".to_owned())]
    }

    /// Packets of IPv4 that have reached a host.
    pub fn received(&self, name: &str) -> Result<u64> {
        let output = self.host(name).command("cat").arg("/proc/net/snmp").output()?;
        let told = String::from_utf8(output.stdout)?;
        let mut lines = told
            .lines()
            .filter(|line| line.starts_with("Ip: "))
            .map(str::split_whitespace);
        let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
        let (_, received) = names
            .zip(values)
            .find(|(name, _)| *name == "InReceives")
            .context("no packets are counted")?;
        Ok(received.parse()?)
    }

    fn router(&self) -> String {
        format!("{}router", prefix(self.number))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = clear_away(self.number) {
            eprintln!("network {} stays: {error:#}", self.number);
        }
    }
}

/// The first number that nobody has. The lock ends with the process that holds it, however that ends.
fn claim() -> Result<(u8, File)> {
    for number in 0..NETWORKS_MAX {
        let path = std::env::temp_dir().join(format!("rachis-network-{number}"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        match file.try_lock() {
            Ok(()) => return Ok((number, file)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    bail!("{NETWORKS_MAX} networks are there already")
}

/// Removes every namespace and link of a number. Whatever still runs in one is alone from then on.
fn clear_away(number: u8) -> Result<()> {
    let near = format!("rachis-{number}");
    if std::fs::exists(format!("/sys/class/net/{near}"))? {
        ip(&["link", "del", &near])?;
    }
    let output = Command::new("ip")
        .args(["netns", "list"])
        .output()
        .context("ip cannot be run; it comes with iproute2")?;
    let listed = String::from_utf8(output.stdout)?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| name.starts_with(&prefix(number)))
        .try_for_each(|name| ip(&["netns", "del", name]))
}

/// What the names of a network's namespaces begin with.
fn prefix(number: u8) -> String {
    format!("rachis-{number}-")
}

fn address(number: u8, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, number, host)
}

/// The router's end of a host's link.
fn port(host: &Host) -> String {
    format!("port{}", host.address.octets()[3])
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn tc(arguments: &[&str]) -> Result<()> {
    run("tc", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("{program} cannot be run; it comes with iproute2"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {}: {}; {}",
        arguments.join(" "),
        output.status,
        said.trim()
    );
    Ok(())
}
