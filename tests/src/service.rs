//! The service under test, as one process or as a cluster of seven: both must keep the same promises.

use std::path::PathBuf;

use crate::{Client, Cluster, Server, Settings, cluster::ClusterSize};

/// The service, however it runs. Dereferences to a client of it.
pub enum Service {
    /// `rachis dev`.
    SingleProcess(Box<Server>),
    /// A cluster.
    Cluster(Box<Cluster>),
}

impl std::ops::Deref for Service {
    type Target = Client;
    fn deref(&self) -> &Client {
        match self {
            Self::SingleProcess(server) => server,
            Self::Cluster(cluster) => cluster,
        }
    }
}

impl Service {
    /// Starts it as one process.
    pub async fn single_process(settings: Settings) -> Self {
        Self::SingleProcess(Box::new(Server::start(settings).await))
    }

    /// Starts it as a cluster of three leaves, two tailers and two aggregators, which compute every statement together that
    /// they can.
    pub async fn cluster(settings: Settings) -> Self {
        Self::Cluster(Box::new(
            Cluster::start(ClusterSize::default(), settings.distributed()).await,
        ))
    }

    /// The data folders of all its processes.
    pub fn data_dirs(&self) -> Vec<PathBuf> {
        match self {
            Self::SingleProcess(server) => vec![server.data_dir()],
            Self::Cluster(cluster) => cluster.nodes().map(|node| cluster.data_dir(&node.name)).collect(),
        }
    }

    /// Kills every process of the service with `kill -9`, then restarts all of them.
    pub async fn kill_and_restart(&mut self) {
        match self {
            Self::SingleProcess(server) => {
                server.kill();
                server.restart().await;
            }
            Self::Cluster(cluster) => {
                let names: Vec<String> = cluster.nodes().map(|node| node.name.clone()).collect();
                names.iter().for_each(|name| cluster.kill(name));
                cluster.restart_all(&names).await;
            }
        }
    }
}

/// Makes two tests of each `async fn(Service)`: one against a single process, one against a cluster.
#[macro_export]
macro_rules! for_single_process_and_cluster {
    ($($test:ident: $settings:expr),* $(,)?) => {
        mod single_process {
            $(#[tokio::test] async fn $test() {
                super::$test($crate::Service::single_process($settings).await).await
            })*
        }
        mod cluster {
            $(#[tokio::test] async fn $test() { super::$test($crate::Service::cluster($settings).await).await })*
        }
    };
}
