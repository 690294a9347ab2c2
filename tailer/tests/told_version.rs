//! A node that lacks a change which a peer has told it of.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use proto::{
    Catalog, Code, Problem,
    catalog::{CATALOG_RULES_LEVEL, Change, State},
    cluster::{Member, Role},
    service::node::NodeService,
    tailer::{Changes, LogHealth},
    wire::node::node_server::NodeServer,
};
use tailer::{CatalogFile, CatalogReplica, Follower};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::TcpIncoming};
use uuid::Uuid;

/// The change log of a node that accepts no changes.
struct FixedChanges(watch::Receiver<Arc<Catalog>>);

#[async_trait]
impl Changes for FixedChanges {
    fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.0.clone()
    }

    async fn propose(&self, _: Change, _: Option<u64>) -> Result<Arc<Catalog>, Problem> {
        Err(Problem::new(Code::NotSupported, "this node is fixed"))
    }

    fn health(&self) -> LogHealth {
        LogHealth::default()
    }
}

/// The state of a log with this many changes, which has the node `peer` as a member.
fn state(version: u64, peer: SocketAddr) -> State {
    let mut catalog = Catalog {
        version,
        ..Catalog::default()
    };
    let member = Member::new(Role::Aggregator, format!("http://{peer}"), Uuid::nil());
    catalog.members.insert("peer".parse().expect("a name"), member);
    State {
        offset: version as i64,
        catalog,
        ..State::default()
    }
}

/// Serves a node with this state until the token is cancelled.
async fn serve(listener: TcpListener, state: &watch::Sender<Arc<State>>, stop: &CancellationToken) {
    let service = NodeService {
        instance: Uuid::nil(),
        started_ms: 0,
        state: state.subscribe(),
        changes: Arc::new(FixedChanges(watch::channel(Arc::default()).1)),
        queries: None,
        silent: Arc::new(BTreeMap::new),
        stop: stop.clone(),
    };
    let incoming = TcpIncoming::from(listener);
    let server = Server::builder().add_service(NodeServer::new(service));
    tokio::spawn(server.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
}

/// A data folder with a copy of this state.
fn folder_with(state: &State) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut copy = serde_json::to_value(state).expect("JSON");
    copy["level"] = CATALOG_RULES_LEVEL.into();
    std::fs::write(folder.path().join("catalog.json"), copy.to_string()).expect("the folder can be written");
    folder
}

#[tokio::test]
async fn a_node_that_was_told_of_a_version_answers_only_with_it() {
    let stop = CancellationToken::new();
    // The peer is away when the node starts, and for so long that the node seldom tries to reach it.
    let away = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = away.local_addr().expect("an address");
    drop(away);
    let folder = folder_with(&state(0, address));
    let replica = CatalogReplica::open(CatalogFile::new(folder.path()).expect("a file")).expect("a state");
    let follower = Follower::start(replica, &"own".parse().expect("a name"), &stop);
    follower.catch_up().await;
    assert_eq!(follower.catalog().borrow().version, 0, "no peer is up yet");

    let states = watch::channel(Arc::new(state(7, address))).0;
    let listener = TcpListener::bind(address).await.expect("the same port");
    serve(listener, &states, &stop).await;
    follower.missed(7);
    follower.catch_up().await;
    assert_eq!(follower.catalog().borrow().version, 7);

    // A version that no peer has delays the node for a while, and not for ever.
    follower.missed(9);
    follower.catch_up().await;
    follower.catch_up().await;
    assert_eq!(follower.catalog().borrow().version, 7);
    // It comes by itself.
    states.send_replace(Arc::new(state(11, address)));
    follower.missed(11);
    follower.catch_up().await;
    assert_eq!(follower.catalog().borrow().version, 11);
    stop.cancel();
}
