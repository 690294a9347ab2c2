//! The stages in which a test asks the same questions. They differ in where the documents are.

/// Where the documents are.
pub const STAGES: [&str; 4] = [
    "the fresh tail",
    "after merging",
    "after a restart",
    "three leaves, two tailers, two aggregators",
];

/// Whether a stage asks the question with this number by this scan, `auto` or `raw`.
///
/// By index and columns, everything is asked in every stage. From raw documents, which takes longest, a question is asked
/// in one of the stages, unless `RACHIS_RAW=all`.
pub fn is_asked(number: usize, stage: usize, scan: &str) -> bool {
    let in_every_stage = || std::env::var("RACHIS_RAW").is_ok_and(|which| which == "all");
    scan != "raw" || number % STAGES.len() == stage || in_every_stage()
}
