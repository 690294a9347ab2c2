//! Which leaf is asked first, and when a call to it is slow.

use tokio::sync::watch;

use super::*;
use crate::{Catalog, problem::Code};

fn leaf(number: u32) -> NodeName {
    format!("leaf-{number}").parse().expect("a name")
}

/// Answers of a leaf that took so long.
fn answered(loads: &LeafLoads, number: u32, took: Duration, times: usize) {
    for _ in 0..times {
        let mut call = loads.begin(&leaf(number));
        call.began -= took;
        call.end(&Ok(()));
    }
}

fn order(loads: &LeafLoads) -> Vec<NodeName> {
    let catalog = watch::channel(Arc::<Catalog>::default()).1;
    let peer = |number: u32| Peer::new(leaf(number), "http://leaf.test", catalog.clone()).expect("a peer");
    let mut peers = vec![peer(1), peer(2), peer(3)];
    loads.sort(&mut peers);
    peers.into_iter().map(|peer| peer.name).collect()
}

#[tokio::test]
async fn leaves_that_answer_soonest_are_asked_first_and_those_that_are_alike_stay_in_their_order() {
    let loads = LeafLoads::default();
    assert_eq!(order(&loads), [leaf(1), leaf(2), leaf(3)]);
    for (number, seconds) in [(1, 0.080), (2, 0.008), (3, 0.009)] {
        loads.by_leaf.lock().entry(leaf(number)).or_default().seconds = seconds;
    }
    assert_eq!(order(&loads), [leaf(2), leaf(3), leaf(1)]);
    // Calls that are not answered yet make it wait.
    let _waiting: Vec<LeafCall> = (0..3).map(|_| loads.begin(&leaf(2))).collect();
    assert_eq!(order(&loads), [leaf(3), leaf(2), leaf(1)]);
}

#[tokio::test]
async fn a_leaf_that_has_just_failed_or_was_given_up_is_asked_last_until_it_answers() {
    let loads = LeafLoads::default();
    let unavailable = Problem::new(Code::Unavailable, "it does not answer");
    loads.begin(&leaf(1)).end::<()>(&Err(unavailable));
    assert_eq!(order(&loads), [leaf(2), leaf(3), leaf(1)]);
    let mut given_up = loads.begin(&leaf(2));
    given_up.began -= GIVEN_UP_AFTER * 2;
    drop(given_up);
    assert_eq!(order(&loads), [leaf(3), leaf(1), leaf(2)]);
    // A call that is not needed any more, because another leaf was faster, says nothing.
    drop(loads.begin(&leaf(3)));
    assert_eq!(order(&loads), [leaf(3), leaf(1), leaf(2)]);
    // What is wrong with the question is not wrong with the leaf.
    loads
        .begin(&leaf(1))
        .end::<()>(&Err(Problem::new(Code::BadRequest, "no such path")));
    let order = order(&loads);
    assert_eq!(order.last(), Some(&leaf(2)), "{order:?}");
}

#[test]
fn a_call_is_slow_after_several_times_what_calls_to_the_leaf_take() {
    let loads = LeafLoads::default();
    assert_eq!(loads.slow_after(&leaf(1)), SLOW_MIN);
    answered(&loads, 1, Duration::from_millis(1), 10);
    assert_eq!(loads.slow_after(&leaf(1)), SLOW_MIN);
    answered(&loads, 1, Duration::from_millis(200), 100);
    let slow = loads.slow_after(&leaf(1));
    assert!(
        slow > Duration::from_millis(900) && slow < Duration::from_millis(1_100),
        "{slow:?}"
    );
}
