//! The service under test, in one process or in seven: the same promises hold of both.

use crate::{Client, Cluster, Server, Settings, cluster::Size};

/// The service, however it runs. Dereferences to a client of it.
pub enum Service {
    /// `rachis dev`.
    One(Box<Server>),
    /// A cluster.
    Many(Box<Cluster>),
}

impl std::ops::Deref for Service {
    type Target = Client;
    fn deref(&self) -> &Client {
        match self {
            Self::One(server) => server,
            Self::Many(cluster) => cluster,
        }
    }
}

impl Service {
    /// In one process.
    pub async fn one(settings: Settings) -> Self {
        Self::One(Box::new(Server::start(settings).await))
    }

    /// As a cluster of three leaves, two tailers and two aggregators.
    pub async fn many(settings: Settings) -> Self {
        Self::Many(Box::new(Cluster::start(Size::default(), settings).await))
    }

    /// `kill -9` of every process of the service, and all of them again.
    pub async fn kill_and_start_again(&mut self) {
        match self {
            Self::One(server) => {
                server.kill();
                server.start_again().await;
            }
            Self::Many(cluster) => {
                let names: Vec<String> = cluster.nodes().map(|node| node.name.clone()).collect();
                names.iter().for_each(|name| cluster.kill(name));
                cluster.start_all_again(&names).await;
            }
        }
    }
}

/// Makes two tests of each promise, an `async fn(Service)`: one of a single process, one of a cluster.
#[macro_export]
macro_rules! of_one_process_and_of_a_cluster {
    ($($promise:ident: $settings:expr),* $(,)?) => {
        mod of_one_process {
            $(#[tokio::test] async fn $promise() { super::$promise($crate::Service::one($settings).await).await })*
        }
        mod of_a_cluster {
            $(#[tokio::test] async fn $promise() { super::$promise($crate::Service::many($settings).await).await })*
        }
    };
}
