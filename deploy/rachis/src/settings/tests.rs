//! Tests of `settings`.

use super::*;

fn leaf_options(text: &str, environment: &[(&str, &str)]) -> Result<LeafOptions, String> {
    let mut options = LeafOptions::new("/nowhere");
    parse(
        text,
        environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )?
    .leaf
    .apply(&mut options);
    Ok(options)
}

#[test]
fn the_environment_overrides_the_file_and_the_file_overrides_defaults() {
    let file = "[leaf]\nsplit_documents = 7\nmerge_splits = 3\n";
    let options = leaf_options(
        file,
        &[
            ("RACHIS_LEAF__SPLIT_DOCUMENTS", "9"),
            ("RACHIS_LEAF__SPLIT_IDLE_MS", "300"),
            ("RACHIS_URL", "x"),
        ],
    )
    .expect("settings");
    assert_eq!(
        (options.split_documents, options.merge_splits, options.split_idle),
        (9, 3, Duration::from_millis(300))
    );
    assert_eq!(
        options.publish_documents,
        LeafOptions::new("/nowhere").publish_documents
    );
}

#[test]
fn an_error_names_the_unknown_key_or_invalid_value() {
    for (file, environment, named) in [
        ("[leaf]\nsplit_docs = 7\n", ("RACHIS_URL", ""), "split_docs"),
        ("[leef]\n", ("RACHIS_URL", ""), "leef"),
        ("", ("RACHIS_LEAF__SPLITS", "1"), "splits"),
        ("", ("RACHIS_LEEF__SPLIT_DOCUMENTS", "1"), "leef"),
        (
            "",
            ("RACHIS_LEAF__SPLIT_DOCUMENTS", "many"),
            "RACHIS_LEAF__SPLIT_DOCUMENTS",
        ),
        ("[log]\nformat = \"xml\"\n", ("RACHIS_URL", ""), "xml"),
        ("[leaf]\nmerge_splits = 0\n", ("RACHIS_URL", ""), "merge_splits"),
        ("[cluster]\nleaves = \"a=http://a:1\"\n", ("RACHIS_URL", ""), "--listen"),
        ("", ("RACHIS_CLUSTER__TAILERS", "a=http://a:1"), "--listen"),
        ("", ("RACHIS_AGGREGATOR__QUERIES_MAX", "0"), "queries_max"),
        ("", ("RACHIS_LEAF_SPLIT_DOCUMENTS", "1"), "RACHIS_LEAF__"),
    ] {
        let why = leaf_options(file, &[environment]).expect_err("the settings are invalid");
        assert!(why.contains(named), "{why} names {named}");
    }
}

#[test]
fn the_sample_lists_every_key_with_its_default() {
    let sample = include_str!("../../../rachis.toml");
    let uncommented: String = sample
        .lines()
        .map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| rest.contains(" = "))
                .unwrap_or(line)
        })
        .collect::<Vec<_>>()
        .join("\n");
    let settings = parse(&uncommented, std::iter::empty()).expect("the sample is valid");
    let Settings {
        leaf,
        aggregator,
        tailer,
        ..
    } = settings;
    let unset = |section: String| section.contains("None");
    assert!(
        !unset(format!("{leaf:?}{aggregator:?}{tailer:?}")),
        "a key is missing in {leaf:?} {aggregator:?} {tailer:?}"
    );
    let (mut leaf_options, mut aggregator_options, mut tailer_options) = (
        LeafOptions::new("/nowhere"),
        AggregatorOptions::new("/nowhere"),
        TailerOptions::default(),
    );
    leaf.apply(&mut leaf_options);
    aggregator.apply(&mut aggregator_options);
    tailer.apply(&mut tailer_options);
    // The defaults of a machine with two cores.
    let leaf_defaults = LeafOptions {
        index_threads: 2,
        scan_threads: 2,
        ..LeafOptions::new("/nowhere")
    };
    assert_eq!(format!("{leaf_options:?}"), format!("{leaf_defaults:?}"));
    assert_eq!(
        format!("{aggregator_options:?}"),
        format!("{:?}", AggregatorOptions::new("/nowhere"))
    );
    assert_eq!(format!("{tailer_options:?}"), format!("{:?}", TailerOptions::default()));
}
