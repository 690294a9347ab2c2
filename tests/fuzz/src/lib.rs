//! Mutated inputs for code that reads what others wrote: texts of users, messages of peers, records on a disk.
//!
//! A run repeats all kept inputs, and then tries mutations of them and of a corpus: a fixed number of them in a test, for
//! `RACHIS_FUZZ_SECONDS` in `tests/fuzz/run`. An input that panics, or that takes too long, is kept.

use std::{
    any::Any,
    collections::BTreeSet,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

/// Mutations in a test.
const CASES: usize = 500;
/// Bytes of an input.
const INPUT_BYTES_MAX: usize = 4 << 10;
/// An input that takes longer ends the process: nothing that is read here may block a thread.
const TIME_MAX: Duration = Duration::from_secs(20);
/// Values at the edges of types and formats.
const EDGES: [&str; 12] = [
    "0",
    "-1",
    "255",
    "65536",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "1e308",
    "\0",
    "\u{feff}",
    "\u{1f600}",
    "((((((((",
];

/// Runs code over all kept inputs of this name, and over mutations of them and of a corpus. Fails if it panics, and ends
/// the process if it takes too long.
pub fn fuzz(name: &str, corpus: impl IntoIterator<Item = impl Into<Vec<u8>>>, run: impl FnMut(&[u8])) {
    fuzz_within(TIME_MAX, name, corpus, run);
}

fn fuzz_within(
    time_max: Duration,
    name: &str,
    corpus: impl IntoIterator<Item = impl Into<Vec<u8>>>,
    mut run: impl FnMut(&[u8]),
) {
    let seed = std::env::var("RACHIS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    let folder = kept_folder(name);
    // A stack that overflows ends the process, so the input is written before it runs.
    let last = std::env::temp_dir().join(format!("rachis-fuzz-{name}-{}", std::process::id()));
    eprintln!(
        "fuzz {name}: RACHIS_SEED={seed}; if the process dies, its last input is in {}",
        last.display()
    );
    let next_input = watchdog(time_max, last.clone(), folder.clone());
    let mut try_input = |input: &[u8]| {
        fs::write(&last, input).expect("the input is written");
        next_input.send(()).expect("the watchdog runs");
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(input))) else {
            return;
        };
        let (kept, failure) = (keep(&folder, input), message(panic.as_ref()));
        let _ = fs::remove_file(&last);
        panic!(
            "{name}: {} panics: {failure}\n{}",
            kept.display(),
            String::from_utf8_lossy(input)
        );
    };

    let mut corpus: Vec<Vec<u8>> = corpus.into_iter().map(Into::into).collect();
    let mut kept: Vec<PathBuf> = fs::read_dir(&folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    kept.sort();
    let repeated = kept.len();
    corpus.extend(kept.iter().map(|path| fs::read(path).expect("a kept input")));
    corpus.iter().for_each(|input| try_input(input));

    let seconds = std::env::var("RACHIS_FUZZ_SECONDS").ok();
    let seconds = seconds.map(|seconds| seconds.parse().expect("RACHIS_FUZZ_SECONDS is a number"));
    let (began, mut cases) = (Instant::now(), 0);
    let mut mutations = Mutations::new(seed, corpus);
    while seconds.map_or(cases < CASES, |seconds| began.elapsed() < Duration::from_secs(seconds)) {
        try_input(&mutations.next());
        cases += 1;
    }
    let _ = fs::remove_file(&last);
    eprintln!(
        "fuzz {name}: {cases} mutations and {repeated} kept inputs in {:?}",
        began.elapsed()
    );
}

/// Starts a thread that ends the process if an input runs for too long, because nothing else ends a loop, and keeps that
/// input. Each input must be announced before it runs.
fn watchdog(time_max: Duration, last: PathBuf, folder: PathBuf) -> mpsc::Sender<()> {
    let (sender, inputs) = mpsc::channel();
    std::thread::spawn(move || {
        loop {
            match inputs.recv_timeout(time_max) {
                Ok(()) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => break,
            }
        }
        let kept = fs::read(&last).map(|input| keep(&folder, &input));
        let _ = fs::remove_file(&last);
        eprintln!("{kept:?} takes longer than {time_max:?}");
        std::process::exit(1);
    });
    sender
}

fn kept_folder(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/kept")).join(name)
}

fn keep(folder: &Path, input: &[u8]) -> PathBuf {
    let kept = folder.join(format!("{:016x}", hash(input)));
    fs::create_dir_all(folder).expect("a folder");
    fs::write(&kept, input).expect("the input is kept");
    kept
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

/// FNV-1a: names of kept inputs stay the same in every release of Rust.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// Changes inputs of a corpus at random.
struct Mutations {
    random: StdRng,
    corpus: Vec<Vec<u8>>,
    /// Runs of letters and digits, and what stands between them, of the corpus.
    words: Vec<Vec<u8>>,
}

impl Mutations {
    fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        assert!(!corpus.is_empty(), "a corpus has inputs");
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let of_input = |input: &Vec<u8>| -> Vec<Vec<u8>> {
            input
                .chunk_by(|a, b| is_word(a) == is_word(b))
                .map(<[u8]>::to_vec)
                .collect()
        };
        let words: BTreeSet<Vec<u8>> = corpus
            .iter()
            .flat_map(of_input)
            .filter(|word| word.len() < 64)
            .collect();
        let edges = EDGES.iter().map(|edge| edge.as_bytes().to_vec());
        Self {
            random: StdRng::seed_from_u64(seed),
            words: words.into_iter().chain(edges).collect(),
            corpus,
        }
    }

    fn next(&mut self) -> Vec<u8> {
        let mut input = self.pick();
        for _ in 0..1 << self.random.random_range(0..4) {
            self.change(&mut input);
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn pick(&mut self) -> Vec<u8> {
        self.corpus.choose(&mut self.random).cloned().unwrap_or_default()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.random_range(0..=input.len());
        let end = (at + self.random.random_range(0..=16)).min(input.len());
        match self.random.random_range(0..8) {
            0 if at < input.len() => input[at] ^= 1 << self.random.random_range(0..8),
            1 if at < input.len() => input[at] = self.random.random(),
            2 => drop(input.drain(at..end)),
            3 => {
                let span = input[at..end].to_vec();
                input.splice(at..at, span.repeat(self.random.random_range(1..=8)));
            }
            4 => {
                // What stands at the same place of another input follows.
                let other = self.pick();
                let from = at.min(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            5 => {
                let other = self.pick();
                let from = self.random.random_range(0..=other.len());
                let to = (from + self.random.random_range(0..=64)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let word = self.words.choose(&mut self.random).cloned().unwrap_or_default();
                input.splice(at..end, word);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_none_is_too_long() {
        let corpus = vec![b"disk full".to_vec(), vec![b'x'; INPUT_BYTES_MAX]];
        let inputs = |seed| -> Vec<Vec<u8>> {
            let mut mutations = Mutations::new(seed, corpus.clone());
            (0..200).map(|_| mutations.next()).collect()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let different: BTreeSet<Vec<u8>> = inputs(1).into_iter().collect();
        assert!(different.len() > 150, "{}", different.len());
        assert!(different.iter().all(|input| input.len() <= INPUT_BYTES_MAX));
    }

    #[test]
    fn an_input_that_panics_is_kept_and_repeated() {
        let name = format!("itself-{}", std::process::id());
        let folder = kept_folder(&name);
        let run = || catch_unwind(|| fuzz(&name, ["abc"], |input| assert!(!input.contains(&b'c'), "a c")));
        let (first, second) = (run(), run());
        let kept = fs::read_dir(&folder).map(Iterator::count);
        let _ = fs::remove_dir_all(&folder);
        let failure = message(first.expect_err("a failure").as_ref());
        assert!(failure.contains("panics: a c") && failure.ends_with("abc"), "{failure}");
        assert!(second.is_err() && kept.is_ok_and(|kept| kept == 1));
    }

    /// The process of [`an_input_that_never_ends_is_kept`] has this variable: the name of its inputs.
    const ENDLESS: &str = "RACHIS_FUZZ_ENDLESS";

    #[test]
    fn an_input_that_never_ends_is_kept() {
        if let Ok(name) = std::env::var(ENDLESS) {
            fuzz_within(Duration::from_millis(100), &name, ["abc"], |_| {
                loop {
                    std::thread::park();
                }
            });
        }
        let name = format!("endless-{}", std::process::id());
        let test = "tests::an_input_that_never_ends_is_kept";
        let mut child = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args([test, "--exact"])
            .env(ENDLESS, &name)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("this test again");
        let until = Instant::now() + Duration::from_secs(60);
        let ended = loop {
            match child.try_wait().expect("whether it ended") {
                None if Instant::now() < until => std::thread::yield_now(),
                ended => break ended,
            }
        };
        let _ = child.kill();
        let kept: Vec<Vec<u8>> = fs::read_dir(kept_folder(&name))
            .map(|entries| {
                entries
                    .flatten()
                    .filter_map(|entry| fs::read(entry.path()).ok())
                    .collect()
            })
            .unwrap_or_default();
        let _ = fs::remove_dir_all(kept_folder(&name));
        assert_eq!(ended.and_then(|status| status.code()), Some(1), "within a minute");
        assert_eq!(kept, [b"abc"]);
    }
}
