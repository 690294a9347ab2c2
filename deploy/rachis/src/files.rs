//! Files that this process may have open: as many as the system allows, divided among those who open them.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Shards have one part in so many …
const SHARDS_PART: usize = 2;
/// … connections one in so many; sources, results on disk and libraries have the rest.
const CONNECTIONS_PART: usize = 4;
/// More connections are not let in, however many files may be open.
const CONNECTIONS_MOST: usize = 4_096;
/// With fewer files than this a server does little.
const FILES_LEAST: u64 = 256;
/// More are never counted on.
const FILES_MOST: u64 = 1 << 20;

/// How many of them are for what.
#[derive(Debug, Clone, Copy)]
pub struct Files {
    /// Files that shards may have open.
    pub of_shards: usize,
    /// Connections that may be open.
    pub connections: usize,
}

/// Raises the limit of open files as far as the system lets this process, and divides them.
pub fn divided() -> Files {
    let files = raised().unwrap_or_else(|error| {
        warn!(%error, "the system does not say how many files may be open (ulimit -n)");
        FILES_LEAST
    });
    if files < FILES_LEAST {
        warn!(
            files,
            "very few files may be open (ulimit -n): shards are opened and closed for every question"
        );
    }
    let files = usize::try_from(files.min(FILES_MOST)).unwrap_or(usize::MAX);
    Files {
        of_shards: files / SHARDS_PART,
        connections: (files / CONNECTIONS_PART).min(CONNECTIONS_MOST),
    }
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
    fn what_the_system_allows_is_raised_and_divided() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, hard / 2, hard).expect("a lower limit");
        let files = divided();
        assert_eq!(
            getrlimit(Resource::RLIMIT_NOFILE),
            Ok((hard, hard)),
            "all that may be had is had"
        );
        assert_eq!(files.of_shards as u64, hard.min(FILES_MOST) / 2);
        assert!(files.connections as u64 <= hard / 4 && files.connections <= 4_096);
    }
}
