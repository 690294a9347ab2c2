//! Tests of `pushes`.

use std::collections::VecDeque;

use super::*;
use crate::{
    catalog::CollectionUid,
    client::peers::Peers,
    ingest::{Batch, BatchOutcome, Loss, PartitionStatus, StoredPosition},
    record::Rules,
};

/// A leaf that returns the given outcomes, one per call.
struct ScriptedLeaf(Mutex<VecDeque<Result<PushResult, Problem>>>);

#[async_trait]
impl Ingest for ScriptedLeaf {
    async fn pushed(&self, _: ShardId, _: &Position, _: &RequestKey, _: Instant) -> Result<PushResult, Problem> {
        self.0.lock().pop_front().expect("an answer is left")
    }

    async fn write(&self, _: Batch) -> Result<BatchOutcome, Problem> {
        unreachable!("nothing is written")
    }

    async fn stored(&self, _: ShardId, _: &SourceName, _: i32) -> Result<StoredPosition, Problem> {
        unreachable!("nothing is stored")
    }

    async fn partitions(&self, _: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
        unreachable!("there are no partitions")
    }

    async fn note_loss(&self, _: ShardId, _: Loss) -> Result<(), Problem> {
        unreachable!("nothing is lost")
    }

    async fn losses(&self, _: CollectionUid) -> Result<Vec<Loss>, Problem> {
        unreachable!("nothing is lost")
    }
}

fn failure(code: Code) -> Result<PushResult, Problem> {
    Err(Problem::new(code, "the shard is being opened"))
}

fn success() -> PushResult {
    PushResult {
        accepted: 1,
        rejected: 0,
        errors: Vec::new(),
        position: Position {
            source: SourceName::push(),
            partition: 0,
            offset: 7,
        },
        repeated: false,
    }
}

/// The outcome of a push at offset 7, if the leaf gives these answers.
async fn outcome(answers: Vec<Result<PushResult, Problem>>) -> Result<PushResult, Code> {
    let request = RequestKey {
        key: "k".into(),
        body: 0,
    };
    let push = Push {
        shard: ShardId {
            collection: CollectionUid(uuid::Uuid::nil()),
            number: 0,
        },
        source: SourceName::push(),
        partition: 0,
        rules: Rules::default(),
        request: None,
        time_ms: 0,
        level: 0,
        items: Vec::new(),
    };
    let catalog = watch::channel(Arc::default()).1;
    let tailers = Tailers::new(Peers::new(catalog.clone()));
    let pushes = LoggedPushes::new(tailers, Arc::new(ScriptedLeaf(Mutex::new(answers.into()))), catalog);
    pushes
        .outcome(&push, 7, &request, Instant::now() + Duration::from_secs(60))
        .await
        .map_err(|problem| problem.code)
}

#[tokio::test]
async fn a_push_that_is_in_the_log_is_never_refused() {
    for passing in [Code::Busy, Code::Unavailable, Code::Timeout] {
        assert_eq!(
            outcome(vec![failure(passing), failure(passing), Ok(success())]).await,
            Ok(success()),
            "{passing:?}"
        );
    }
    for lasting in [Code::Internal, Code::TooLarge, Code::LimitReached] {
        assert_eq!(
            outcome(vec![failure(lasting)]).await,
            Err(Code::UnknownOutcome),
            "{lasting:?}"
        );
    }
    for of_the_push in [Code::Conflict, Code::NotFound, Code::UnknownOutcome] {
        assert_eq!(outcome(vec![failure(of_the_push)]).await, Err(of_the_push));
    }
}
