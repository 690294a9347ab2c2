//! The copy of the catalog state in a node's data folder. With it, the node can start while the change log is
//! unavailable.
//!
//! It names the level of the rules by which the state was reached. An older level is read; a newer one is refused,
//! because a state read in part would go on to decide differently than on other nodes.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use proto::catalog::{CATALOG_RULES_LEVEL, State};
use serde::{Deserialize, Serialize};

const FILE_NAME: &str = "catalog.json";

/// The content of the file: a state, which is read without the level, too.
#[derive(Serialize)]
struct Saved<'a> {
    /// The level of the rules that a release must know to read it.
    level: u16,
    #[serde(flatten)]
    state: &'a State,
}

/// As much of the file as every release can read.
#[derive(Deserialize)]
struct SavedLevel {
    level: u16,
}

/// The file with a node's copy of the catalog state.
#[derive(Debug, Clone)]
pub struct CatalogFile {
    folder: PathBuf,
}

impl CatalogFile {
    /// A file in this folder. Creates the folder.
    pub fn new(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The path of the file.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(FILE_NAME)
    }

    /// Reads the saved state; `None` if there is no file. An unreadable file is an error (`InvalidData`), so that it is
    /// not overwritten unnoticed. So is one of a newer release (`Unsupported`).
    pub(super) fn load(&self) -> io::Result<Option<State>> {
        let bytes = match fs::read(self.path()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let unreadable = |e| io::Error::new(io::ErrorKind::InvalidData, e);
        let SavedLevel { level } = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if level > CATALOG_RULES_LEVEL {
            let reason = format!(
                "the saved catalog {} has level {level}, but this release reads levels up to {CATALOG_RULES_LEVEL}: run \
                 the release that wrote it, or a newer one",
                self.path().display()
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(unreadable)
    }

    /// Renames an unreadable file, and returns its new path.
    pub(super) fn set_aside(&self) -> io::Result<PathBuf> {
        let aside = self.folder.join(format!("{FILE_NAME}.unreadable"));
        fs::rename(self.path(), &aside)?;
        Ok(aside)
    }

    /// Saves a state atomically. Blocks for an fsync.
    pub(super) fn save(&self, state: &State) -> io::Result<()> {
        let new = self.folder.join(format!("{FILE_NAME}.new"));
        let mut file = File::create(&new)?;
        let saved = Saved {
            level: state.level(),
            state,
        };
        file.write_all(&serde_json::to_vec(&saved)?)?;
        file.sync_all()?;
        fs::rename(&new, self.path())?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_state_round_trips_and_a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let copy = CatalogFile::new(&folder.path().join("node")).expect("a copy");
        assert_eq!(copy.load().expect("nothing yet"), None);
        let state = State {
            offset: 7,
            hash: u64::MAX,
            ..State::default()
        };
        copy.save(&state).expect("saved");
        assert_eq!(copy.load().expect("read"), Some(state));
        let saved: SavedLevel = serde_json::from_slice(&fs::read(copy.path()).expect("read")).expect("JSON");
        assert!(saved.level < CATALOG_RULES_LEVEL, "the release before reads it too");
        let newer = format!(r#"{{"level":{},"offset":"?"}}"#, CATALOG_RULES_LEVEL + 1);
        fs::write(copy.path(), newer).expect("written");
        let error = copy.load().expect_err("it is newer");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        let levels = format!(
            "has level {}, but this release reads levels up to {CATALOG_RULES_LEVEL}",
            CATALOG_RULES_LEVEL + 1
        );
        assert!(error.to_string().contains(&levels), "{error}");
        fs::write(copy.path(), "{").expect("damaged");
        assert!(copy.load().is_err());
        let aside = copy.set_aside().expect("set aside");
        assert_eq!(
            (
                copy.load().expect("no file is left"),
                fs::read(aside).expect("it is kept").as_slice()
            ),
            (None, b"{".as_slice())
        );
    }
}
