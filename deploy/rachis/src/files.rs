//! Files that this process may have open: as many as the system allows, divided among those who open them.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Shards have one part in so many; connections, sources, results on disk and libraries have the rest.
const SHARDS_PART: u64 = 2;
/// With fewer files than this a server does little.
const FILES_LEAST: u64 = 256;
/// More are never counted on.
const FILES_MOST: u64 = 1 << 20;

/// Raises the limit of open files as far as the system lets this process, and answers how many of them the shards may have open.
pub fn of_shards() -> usize {
    let files = raised().unwrap_or_else(|error| {
        warn!(%error, "the system does not say how many files may be open (ulimit -n)");
        FILES_LEAST
    });
    if files < FILES_LEAST {
        warn!(files, "very few files may be open (ulimit -n): shards are opened and closed for every question");
    }
    usize::try_from(files.min(FILES_MOST) / SHARDS_PART).unwrap_or(usize::MAX)
}

fn raised() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => Ok(hard),
        Err(_) => Ok(soft),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shards_have_half_of_what_the_system_allows_at_most() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, hard / 2, hard).expect("a lower limit");
        let shards = of_shards();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((hard, hard)), "all that may be had is had");
        assert_eq!(shards as u64, hard.min(FILES_MOST) / 2);
    }
}
