//! Where the processes run: at addresses of this machine or, if the network between them is to be cut, each one in a
//! network namespace of its own.

use anyhow::{Context as _, Result, bail};
use child_process::network::{Host, Network};
use rand::{RngExt as _, rngs::StdRng};

/// As many processes run at once at the most: a broker, two tailers, two aggregators, and leaves that come before others
/// have gone.
const HOSTS: usize = 24;

/// Where one process runs.
pub(crate) struct Place {
    pub host: Host,
    /// Its name in the network, if there is one.
    name: Option<String>,
}

pub(crate) struct Hosts {
    network: Option<Network>,
    /// The hosts of the network where no process runs.
    free: Vec<String>,
}

impl Hosts {
    /// Hosts, between which the network can be cut if `cuts`. That needs root.
    pub(crate) fn new(cuts: bool) -> Result<Self> {
        if !cuts {
            return Ok(Self {
                network: None,
                free: Vec::new(),
            });
        }
        let free: Vec<String> = (1..=HOSTS).map(|number| format!("host-{number}")).collect();
        Ok(Self {
            network: Some(Network::new(&free)?),
            free,
        })
    }

    /// Takes a host for a process.
    pub(crate) fn take(&mut self) -> Result<Place> {
        let Some(network) = &self.network else {
            return Ok(Place {
                host: Host::local(),
                name: None,
            });
        };
        let name = self.free.pop().context("all hosts are taken")?;
        Ok(Place {
            host: network.host(&name),
            name: Some(name),
        })
    }

    /// Gives back the host of a process that will not run again.
    pub(crate) fn give_back(&mut self, place: Place) {
        // The one that was free for the longest time is taken next: something may still ask for the former process.
        self.free.splice(0..0, place.name);
    }

    /// Cuts some of the connections of one process with the others, at least one, each in one direction or in both.
    pub(crate) fn cut_some(&self, rng: &mut StdRng, one: &Place, others: &[&Place]) -> Result<()> {
        let (Some(network), Some(one)) = (&self.network, &one.name) else {
            bail!("the processes are not in a network that can be cut");
        };
        let certain = rng.random_range(0..others.len());
        for (number, other) in others.iter().enumerate() {
            let other = other.name.as_ref().context("a process is not in the network")?;
            if number != certain && rng.random_bool(0.4) {
                continue;
            }
            match rng.random_range(0..4) {
                0 => network.cut_one_way(one, other),
                1 => network.cut_one_way(other, one),
                _ => network.cut(one, other),
            }
        }
        Ok(())
    }

    /// Ends all cuts.
    pub(crate) fn heal(&self) {
        self.network.iter().for_each(Network::heal);
    }
}
