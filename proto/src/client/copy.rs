//! The copy of the catalog's state that a node keeps in its data folder, so that it starts while the change log is
//! away.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::catalog::State;

const FILE: &str = "catalog.json";

/// Where a node keeps its copy.
#[derive(Debug, Clone)]
pub struct Copy {
    folder: PathBuf,
}

impl Copy {
    /// In a folder, which is made.
    pub fn new(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// What was kept; nothing, where there is no file. A file that does not read is an error: it is not to be
    /// overwritten unseen.
    pub fn load(&self) -> io::Result<Option<State>> {
        match fs::read(self.file()) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Moves a file that does not read out of the way; where it is then.
    pub fn set_aside(&self) -> io::Result<PathBuf> {
        let aside = self.folder.join(format!("{FILE}.unreadable"));
        fs::rename(self.file(), &aside)?;
        Ok(aside)
    }

    /// Keeps a state: whole or not at all. Blocks for an fsync.
    pub fn save(&self, state: &State) -> io::Result<()> {
        let new = self.folder.join(format!("{FILE}.new"));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_all()?;
        fs::rename(&new, self.file())?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_reads_back_and_a_damaged_one_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let copy = Copy::new(&folder.path().join("node")).expect("a copy");
        assert_eq!(copy.load().expect("nothing yet"), None);
        let state = State {
            offset: 7,
            hash: u64::MAX,
            ..State::default()
        };
        copy.save(&state).expect("saved");
        assert_eq!(copy.load().expect("read"), Some(state));
        fs::write(copy.file(), "{").expect("damaged");
        assert!(copy.load().is_err());
        let aside = copy.set_aside().expect("set aside");
        assert_eq!(
            (
                copy.load().expect("nothing is there"),
                fs::read(aside).expect("it is kept").as_slice()
            ),
            (None, b"{".as_slice())
        );
    }
}
