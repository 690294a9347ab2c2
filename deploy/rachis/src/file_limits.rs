//! The limit of open files: raised as far as the system allows and divided between shards and connections.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::warn;

/// Shards get half of the files, connections a quarter; sources, spilled results and libraries use the rest.
const SHARDS_DIVISOR: usize = 2;
const CONNECTIONS_DIVISOR: usize = 4;
/// The most connections, even if more files may be open.
const CONNECTIONS_MAX: usize = 4_096;
/// A server with fewer files than this can hardly work.
const FILES_MIN: u64 = 256;
/// Files above this number are not used.
const FILES_MAX: u64 = 1 << 20;

/// How many files each use may have open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileLimits {
    /// Files of shards.
    pub shards: usize,
    /// Client connections.
    pub connections: usize,
}

/// Raises the limit of open files as far as the system allows, and divides it.
pub(crate) fn raise_and_divide() -> FileLimits {
    let files = raise().unwrap_or_else(|error| {
        warn!(%error, "could not read the limit on open files (ulimit -n)");
        FILES_MIN
    });
    if files < FILES_MIN {
        warn!(
            files,
            "the limit on open files (ulimit -n) is very low, so shards are opened and closed for every query: raise it"
        );
    }
    let files = usize::try_from(files.min(FILES_MAX)).unwrap_or(usize::MAX);
    FileLimits {
        shards: files / SHARDS_DIVISOR,
        connections: (files / CONNECTIONS_DIVISOR).min(CONNECTIONS_MAX),
    }
}

fn raise() -> nix::Result<u64> {
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
    fn the_limit_is_raised_to_the_maximum_and_divided() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        setrlimit(Resource::RLIMIT_NOFILE, hard / 2, hard).expect("a lower limit");
        let files = raise_and_divide();
        assert_eq!(
            getrlimit(Resource::RLIMIT_NOFILE),
            Ok((hard, hard)),
            "the soft limit is raised to the hard limit"
        );
        assert_eq!(files.shards as u64, hard.min(FILES_MAX) / 2);
        assert!(files.connections as u64 <= hard / 4 && files.connections <= 4_096);
    }
}
