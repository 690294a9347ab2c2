//! Tests of `controller`.

use uuid::Uuid;

use super::*;
use crate::{
    cluster::{Member, Role},
    tailer::LogHealth,
};

const ABSENT_AFTER: Duration = Duration::from_secs(900);

fn name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

/// Two aggregators, a tailer and a leaf.
fn catalog(controller: Option<(&str, u64)>) -> Catalog {
    let mut catalog = Catalog::default();
    let nodes = [
        ("a", Role::Aggregator),
        ("b", Role::Aggregator),
        ("t", Role::Tailer),
        ("l", Role::Leaf),
    ];
    for (node, role) in nodes {
        let member = Member::new(role, format!("http://{node}:7700"), Uuid::nil());
        catalog.members.insert(name(node), member);
    }
    if let Some((node, epoch)) = controller {
        catalog.controller.node = Some(name(node));
        catalog.controller.epoch = epoch;
    }
    catalog
}

/// What a node reports that does not hear these members.
fn report(by: &str, rules_level: u16, silent: &[&str]) -> (NodeName, NodeReport) {
    let silent = silent.iter().map(|name| ((*name).to_owned(), 1)).collect();
    let report = NodeReport {
        version: String::new(),
        instance: None,
        started_ms: 0,
        log: LogHealth::default(),
        silent: Some(silent),
        rules_level,
    };
    (name(by), report)
}

fn away(nodes: &[(&str, u64)]) -> BTreeMap<NodeName, Duration> {
    let nodes = nodes.iter();
    nodes
        .map(|(node, seconds)| (name(node), Duration::from_secs(*seconds)))
        .collect()
}

/// What `a` has to do if all members but these answer, and know of controllers.
fn duty(catalog: &Catalog, absent: &[(&str, u64)], epoch: Option<u64>, idle: bool) -> Duty {
    let is_absent = |node: &str| absent.iter().any(|(other, _)| *other == node);
    let silent: Vec<&str> = absent.iter().map(|(node, _)| *node).collect();
    let nodes = catalog.members.keys().map(NodeName::as_str);
    let reports: Vec<_> = nodes
        .filter(|node| !is_absent(node))
        .map(|node| report(node, CONTROLLER_LEVEL, &silent))
        .collect();
    decide(catalog, &reports, absent, epoch, idle)
}

fn decide(
    catalog: &Catalog,
    reports: &[(NodeName, NodeReport)],
    absent: &[(&str, u64)],
    epoch: Option<u64>,
    idle: bool,
) -> Duty {
    let (own, away) = (name("a"), away(absent));
    let view = ClusterView {
        catalog,
        own: &own,
        reports,
        away: &away,
        absent_after: ABSENT_AFTER,
    };
    view.duty(epoch, idle)
}

#[test]
fn an_aggregator_takes_over_if_there_is_no_controller_or_it_is_away_or_idle() {
    assert_eq!(duty(&catalog(None), &[], None, false), Duty::Take(1));
    let of_b = catalog(Some(("b", 7)));
    assert_eq!(duty(&of_b, &[], None, false), Duty::Nothing);
    assert_eq!(duty(&of_b, &[("b", 59)], None, false), Duty::Nothing, "it may restart");
    assert_eq!(duty(&of_b, &[("b", 60)], None, false), Duty::Take(8));
    assert_eq!(duty(&of_b, &[], None, true), Duty::Take(8), "it does not work");
}

#[test]
fn an_epoch_is_an_aggregators_own_only_if_it_has_taken_it_since_it_started() {
    let of_a = catalog(Some(("a", 7)));
    assert_eq!(duty(&of_a, &[], Some(7), false), Duty::Control);
    assert_eq!(duty(&of_a, &[], None, false), Duty::Take(8), "it was restarted");
    let of_b = catalog(Some(("b", 8)));
    assert_eq!(duty(&of_b, &[], Some(7), false), Duty::Nothing, "its epoch is over");
}

#[test]
fn an_aggregator_that_no_other_node_hears_does_not_take_over() {
    let of_b = catalog(Some(("b", 7)));
    let unheard = ["l", "t"].map(|by| report(by, CONTROLLER_LEVEL, &["a", "b"]));
    let own = report("a", CONTROLLER_LEVEL, &["b"]);
    let reports: Vec<_> = unheard.into_iter().chain([own]).collect();
    assert_eq!(decide(&of_b, &reports, &[("b", 600)], None, false), Duty::Unheard);
    assert_eq!(decide(&of_b, &reports, &[("b", 600)], None, true), Duty::Unheard);
    assert_eq!(
        decide(&of_b, &reports, &[], None, false),
        Duty::Nothing,
        "there is a controller"
    );
}

#[test]
fn the_first_controller_waits_for_members_of_an_older_release_but_not_for_the_dead() {
    let catalog = catalog(None);
    let reports = |level: u16| {
        let others = ["a", "b", "t"].map(|by| report(by, CONTROLLER_LEVEL, &["l"]));
        others.into_iter().chain((level > 0).then(|| report("l", level, &[])))
    };
    let wait = Duty::WaitFor(vec![name("l")]);
    let decide = |level, absent: &[(&str, u64)]| {
        let reports: Vec<_> = reports(level).collect();
        super::tests::decide(&catalog, &reports, absent, None, false)
    };
    assert_eq!(decide(CONTROLLER_LEVEL - 1, &[]), wait);
    assert_eq!(decide(0, &[]), wait, "its answer got lost");
    assert_eq!(decide(0, &[("l", 899)]), wait, "it may be older");
    assert_eq!(decide(0, &[("l", 900)]), Duty::Take(1));
    assert_eq!(decide(CONTROLLER_LEVEL, &[]), Duty::Take(1));
}

#[test]
fn a_node_that_was_heard_a_moment_ago_is_not_away_for_long() {
    let (mut absences, began) = (Absences::default(), Instant::now());
    let at = |seconds| began + Duration::from_secs(seconds);
    let all = away(&[("l", 1_200)]);
    assert_eq!(absences.see(&all, at(0)), away(&[("l", 0)]), "it was just found away");
    assert_eq!(absences.see(&all, at(100)), away(&[("l", 200)]));
    assert_eq!(absences.see(&all, at(900)), all);
    assert_eq!(absences.see(&away(&[]), at(930)), away(&[]), "it is heard");
    assert_eq!(absences.see(&all, at(960)), away(&[("l", 0)]));
}

#[test]
fn a_controller_is_idle_if_it_begins_nothing_for_several_looks_and_not_while_it_goes_on_slowly() {
    let mut idleness = Idleness::default();
    let idle: Vec<bool> = (0..7).map(|_| idleness.see(40, true)).collect();
    assert_eq!(idle, [false, false, false, false, false, true, true]);
    // Of several looks, one finds that it has gone on.
    let slow = (0..40).flat_map(|turn| [1_000 - turn; 4]);
    let mut idleness = Idleness::default();
    assert!(slow.into_iter().all(|lost| !idleness.see(lost, true)));
    assert!((0..20).all(|_| !idleness.see(40, false)), "nothing could be replaced");
}
