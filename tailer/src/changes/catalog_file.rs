//! The copy of the catalog state in a node's data folder. With it, the node can start while the change log is
//! unavailable.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use proto::catalog::State;

const FILE_NAME: &str = "catalog.json";

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

    /// Reads the saved state; `None` if there is no file. An unreadable file is an error, so that it is not overwritten
    /// unnoticed.
    pub(super) fn load(&self) -> io::Result<Option<State>> {
        match fs::read(self.path()) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
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
        file.write_all(&serde_json::to_vec(state)?)?;
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
