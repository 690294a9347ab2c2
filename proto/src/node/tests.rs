//! Tests of `node`.

use super::*;

fn name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

/// What a node reports that does not hear these members, each for so many milliseconds; `None` if it does not tell.
fn report(by: &str, silent: Option<&[(&str, u64)]>) -> (NodeName, NodeReport) {
    let silent = silent.map(|silent| silent.iter().map(|(name, time)| ((*name).to_owned(), *time)).collect());
    let report = NodeReport {
        version: String::new(),
        instance: None,
        started_ms: 0,
        log: LogHealth::default(),
        silent,
        rules_level: CATALOG_RULES_LEVEL,
    };
    (name(by), report)
}

#[test]
fn a_node_is_heard_if_it_answers_or_another_node_hears_it() {
    let absent = name("aggregator-2");
    assert!(!is_heard(&[], &absent));
    let all_silent = [
        report("a", Some(&[("aggregator-2", 1), ("x", 1)])),
        report("b", Some(&[("aggregator-2", 1)])),
    ];
    assert!(!is_heard(&all_silent, &absent));
    assert!(!is_heard(&[report("a", None)], &absent), "it does not tell");
    assert!(is_heard(
        &[
            report("a", Some(&[("aggregator-2", 1)])),
            report("b", Some(&[("x", 1)]))
        ],
        &absent
    ));
    assert!(is_heard(&[report("aggregator-2", Some(&[("a", 1)]))], &absent));
}

#[test]
fn a_node_is_absent_for_as_long_as_two_others_have_not_heard_it() {
    let absences = |reports: &[(NodeName, NodeReport)]| {
        let absences = absences(reports).into_iter();
        absences
            .map(|(name, time)| (name.to_string(), time.as_millis()))
            .collect::<Vec<_>>()
    };
    let a = report("a", Some(&[("l", 900), ("x", 50)]));
    assert_eq!(
        absences(std::slice::from_ref(&a)),
        [],
        "one node may have been cut off itself"
    );
    let b = report("b", Some(&[("l", 300)]));
    assert_eq!(absences(&[a.clone(), b.clone()]), [("l".to_owned(), 300)]);
    let c = report("c", Some(&[("l", 700)]));
    assert_eq!(absences(&[a.clone(), b.clone(), c]), [("l".to_owned(), 700)]);
    let hears = report("d", Some(&[]));
    assert_eq!(absences(&[a, b, hears]), []);
}
