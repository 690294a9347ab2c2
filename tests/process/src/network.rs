//! A network between processes, for tests of partitions: each host is a network namespace, and a router connects
//! them.
//!
//! ```text
//! test process ── veth ── router ── veth ── leaf-1
//!                          │  └──── veth ── leaf-2
//!                          └ rules: from A to B, drop silently
//! ```
//!
//! A cut drops packets silently, like a pulled cable: no connection is refused or reset. Several networks can exist at
//! once, in one test process or in several; the leftovers of a killed process are removed by the next network with the
//! same number. Needs root.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{File, TryLockError},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Command,
    sync::Mutex,
};

use anyhow::{Context as _, Result, bail, ensure};

/// How many networks can exist at once on one machine.
const NETWORKS_MAX: u8 = 200;
/// The last byte of the address of the router, and of the test process.
const ROUTER: u8 = 254;
const TESTER: u8 = 253;
/// The name of the host that is the test process itself.
pub const TEST_HOST: &str = "test";

/// Where a process runs and listens: at a loopback address of this machine, or in a network namespace.
#[derive(Debug, Clone)]
pub struct Host {
    namespace: Option<String>,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Host {
    /// This machine, at a random address of 127.0.0.0/8. A killed process can restart on its ports, because no other
    /// test uses that address; with one address for all tests, another process might have taken them.
    pub fn local() -> Self {
        let [first, second, third] = rand::random();
        Self {
            namespace: None,
            address: Ipv4Addr::new(127, first, second, u8::max(third, 1).min(254)),
        }
    }

    /// The socket address of a port.
    pub fn socket_addr(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.address, port))
    }

    /// Picks free ports below the kernel's range for outgoing connections. It keeps each one bound until it has all of
    /// them, so no two are equal.
    pub fn free_ports(&self, count: usize) -> Result<Vec<u16>> {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
        let first: u16 = range
            .split_whitespace()
            .next()
            .context("ip_local_port_range is empty")?
            .parse()?;
        // The test process cannot bind an address of another network namespace. All ports are free there, so any local
        // address will do.
        let address = if self.namespace.is_none() {
            self.address
        } else {
            Ipv4Addr::LOCALHOST
        };
        let bind_one = || {
            (0..1_000)
                .find_map(|_| TcpListener::bind((address, rand::random_range(first / 2..first))).ok())
                .context("no free port")
        };
        let bound = (0..count).map(|_| bind_one()).collect::<Result<Vec<_>>>()?;
        bound.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
    }

    /// A command that runs on this host. Its process id is the program's own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(namespace) = &self.namespace else {
            return Command::new(program);
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }
}

/// Hosts and the router between them, removed on drop.
pub struct Network {
    /// The third byte of all its addresses, and part of all its names.
    number: u8,
    hosts: BTreeMap<String, Host>,
    cuts: Mutex<BTreeSet<(Ipv4Addr, Ipv4Addr)>>,
    throttled: Mutex<BTreeSet<String>>,
    /// A file that stays locked as long as the network exists; the lock ends with the process.
    _claim: File,
}

impl Network {
    /// Creates a network of these hosts and the test process, with nothing cut.
    pub fn new(hosts: &[String]) -> Result<Self> {
        ensure!(
            nix::unistd::Uid::effective().is_root(),
            "a network of namespaces needs root"
        );
        ensure!(
            hosts.len() < usize::from(TESTER),
            "{} hosts are too many for a network",
            hosts.len()
        );
        let (number, claim) = claim()?;
        remove_leftovers(number)?;
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
            throttled: Mutex::default(),
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
        // Reverse-path filtering is off: it would also apply the rules of a cut to the opposite direction, and turn a
        // one-way cut into a two-way cut.
        let forward =
            "cd /proc/sys/net/ipv4; echo 1 >ip_forward; echo 0 >conf/all/rp_filter; echo 0 >conf/default/rp_filter";
        ip(&["netns", "exec", &router, "sh", "-ec", forward])?;
        for (name, host) in &self.hosts {
            let namespace = host.namespace.as_deref().unwrap_or_default();
            ip(&["netns", "add", namespace])?;
            self.link(host, &["eth0", "netns", namespace])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
            self.connect(&["-n", namespace], "eth0", host)
                .with_context(|| name.clone())?;
        }
        let test = self.host(TEST_HOST);
        let near = format!("rachis-{}", self.number);
        self.link(&test, &[&near])?;
        self.connect(&[], &near, &test)
    }

    /// Links the router to a host. `near` is the name of the host's end, and where it is.
    fn link(&self, host: &Host, near: &[&str]) -> Result<()> {
        let (router, far) = (self.router(), port(host));
        let mut arguments = vec!["link", "add", &far, "netns", &router, "type", "veth", "peer", "name"];
        arguments.extend(near);
        ip(&arguments)
    }

    /// Gives both ends of a host's link their addresses and routes.
    fn connect(&self, within: &[&str], near: &str, host: &Host) -> Result<()> {
        let (router, gateway, own) = (
            self.router(),
            address(self.number, ROUTER).to_string(),
            host.address.to_string(),
        );
        let subnet = format!("{}/24", address(self.number, 0));
        let on_host = |arguments: &[&str]| ip(&[within, arguments].concat());
        let on_router = |arguments: &[&str]| ip(&[&["-n", &router], arguments].concat());
        on_router(&["addr", "add", &gateway, "dev", &port(host)])?;
        on_router(&["link", "set", &port(host), "up"])?;
        on_router(&["route", "add", &own, "dev", &port(host)])?;
        on_host(&["addr", "add", &own, "dev", near])?;
        on_host(&["link", "set", near, "up"])?;
        on_host(&["route", "add", &gateway, "dev", near, "src", &own])?;
        on_host(&["route", "add", &subnet, "via", &gateway, "dev", near, "src", &own])
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Host {
        match name {
            TEST_HOST => Host {
                namespace: None,
                address: address(self.number, TESTER),
            },
            name => self
                .hosts
                .get(name)
                .unwrap_or_else(|| panic!("the network has no host {name}"))
                .clone(),
        }
    }

    /// Drops packets from one host to another, but not those in the opposite direction.
    pub fn cut_one_way(&self, from: &str, to: &str) {
        let (from, to) = (self.host(from).address, self.host(to).address);
        if self.cuts.lock().expect("not poisoned").insert((from, to)) {
            self.rule("add", from, to);
        }
    }

    /// Drops all packets between two hosts.
    pub fn cut(&self, one: &str, other: &str) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Removes all cuts.
    pub fn heal(&self) {
        for (from, to) in std::mem::take(&mut *self.cuts.lock().expect("not poisoned")) {
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

    /// Limits the rate to and from a host, in kilobits per second.
    pub fn throttle(&self, name: &str, kilobits: u32) {
        let (host, rate) = (self.host(name), format!("{kilobits}kbit"));
        let limit = ["root", "tbf", "rate", &rate, "burst", "16kb", "latency", "400ms"];
        for (within, link) in self.ends(&host) {
            tc(&[&["-n", &within, "qdisc", "replace", "dev", &link][..], &limit].concat())
                .expect("the kernel has the qdisc tbf");
        }
        self.throttled.lock().expect("not poisoned").insert(name.to_owned());
    }

    /// Removes all rate limits.
    pub fn unthrottle(&self) {
        for name in std::mem::take(&mut *self.throttled.lock().expect("not poisoned")) {
            for (within, link) in self.ends(&self.host(&name)) {
                tc(&["-n", &within, "qdisc", "del", "dev", &link, "root"]).expect("the rate limit is removed");
            }
        }
    }

    /// Both ends of a host's link: namespace and interface.
    fn ends(&self, host: &Host) -> [(String, String); 2] {
        let namespace = host
            .namespace
            .clone()
            .expect("only a host has a link, not the test process");
        [(self.router(), port(host)), (namespace, "eth0".to_owned())]
    }

    /// The number of IPv4 packets that a host has received.
    pub fn received(&self, name: &str) -> Result<u64> {
        let output = self.host(name).command("cat").arg("/proc/net/snmp").output()?;
        let counters = String::from_utf8(output.stdout)?;
        let mut lines = counters
            .lines()
            .filter(|line| line.starts_with("Ip: "))
            .map(str::split_whitespace);
        let (names, values) = (
            lines.next().context("no names in /proc/net/snmp")?,
            lines.next().context("no values in /proc/net/snmp")?,
        );
        let (_, received) = names
            .zip(values)
            .find(|(name, _)| *name == "InReceives")
            .context("no InReceives in /proc/net/snmp")?;
        Ok(received.parse()?)
    }

    fn router(&self) -> String {
        format!("{}router", prefix(self.number))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = remove_leftovers(self.number) {
            eprintln!("cannot remove network {}: {error:#}", self.number);
        }
    }
}

/// Claims the first unused number. The lock ends with the process that holds it, however that process ends.
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
    bail!("{NETWORKS_MAX} networks already exist; wait until other tests end")
}

/// Removes every namespace and link of a number. Processes that still run in one lose their network.
fn remove_leftovers(number: u8) -> Result<()> {
    let near = format!("rachis-{number}");
    if std::fs::exists(format!("/sys/class/net/{near}"))? {
        ip(&["link", "del", &near])?;
    }
    let output = Command::new("ip")
        .args(["netns", "list"])
        .output()
        .context("cannot run ip; install iproute2")?;
    let listed = String::from_utf8(output.stdout)?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| name.starts_with(&prefix(number)))
        .try_for_each(|name| ip(&["netns", "del", name]))
}

/// The prefix of a network's namespaces.
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
        .with_context(|| format!("cannot run {program}; install iproute2"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {}: {}; {}",
        arguments.join(" "),
        output.status,
        stderr.trim()
    );
    Ok(())
}
