//! What was pushed of a file: its blocks, with their hashes. So a file with lines appended sends the new ones only, whenever
//! that is, and a file that has changed otherwise is noticed.
//!
//! A block is noted before it is sent: if the program or the server dies then, the next run sends the same block with the
//! same idempotency key.
//!
//! A file is known by its inode, so it may be renamed. If another file is at its path that begins with the same bytes, it may be
//! a copy or a new file with the same lines: the user decides.

use std::{
    fs,
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// How long a file is remembered after its last push.
const KEPT: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A block of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KnownBlock {
    pub bytes: usize,
    /// The hash of the bytes, in hexadecimal digits.
    hash: String,
    /// Its items, once the server has acknowledged them.
    #[serde(skip)]
    pub items: Option<u64>,
}

impl KnownBlock {
    /// A block of these bytes, of a file with this header.
    pub(super) fn new(header: &[u8], bytes: &[u8]) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(header);
        hasher.update(bytes);
        Self {
            bytes: bytes.len(),
            hash: format!("{:032x}", hasher.digest128()),
            items: None,
        }
    }

    /// Whether these are its header and its bytes.
    pub(super) fn is(&self, header: &[u8], bytes: &[u8]) -> bool {
        let other = Self::new(header, bytes);
        (self.bytes, &self.hash) == (other.bytes, &other.hash)
    }
}

/// What the file of a memory notes, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Noted {
    /// The first line.
    File {
        /// Its path, for people.
        path: PathBuf,
        /// Part of the idempotency keys; another one after `--again`.
        key: String,
    },
    /// A block is about to be sent.
    Begin(KnownBlock),
    /// The last block was acknowledged, with so many items.
    Acknowledged(u64),
    /// The last block was refused: nothing of it is stored.
    Refused,
}

/// What a file is known by.
#[derive(Debug, Clone)]
pub(super) struct FileIdentity {
    /// Its canonical path.
    pub path: PathBuf,
    /// A hash of its device, inode and time of creation, and of what it is pushed into.
    pub inode: String,
    /// A hash of its path and of what it is pushed into.
    pub place: String,
}

/// The memory of one file; or of none, which remembers nothing.
#[derive(Debug)]
pub(super) struct FileMemory {
    file: Option<fs::File>,
    /// Where it is.
    name: PathBuf,
    key: String,
    blocks: Vec<KnownBlock>,
}

impl FileMemory {
    /// The memory of a file in a folder. If `forget`, it begins anew.
    pub(super) fn open(folder: &Path, identity: &FileIdentity, forget: bool) -> io::Result<Self> {
        let own = own_name(folder, identity);
        let other = || Some(named(folder, &fs::read_to_string(place_name(folder, identity)).ok()?));
        let name = match forget || own.exists() {
            true => own,
            false => other().filter(|other| other.exists()).unwrap_or(own),
        };
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&name)?;
        // Fails with WouldBlock while another push of the file runs.
        file.try_lock()?;
        if forget {
            file.set_len(0)?;
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut memory = Self {
            file: None,
            name,
            key: format!("{}{}", identity.inode, if forget { new_run() } else { String::new() }),
            blocks: Vec::new(),
        };
        // A crash may have cut the last line.
        let mut end = 0;
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            match serde_json::from_str(line) {
                Ok(Noted::File { key, .. }) => memory.key = key,
                Ok(Noted::Begin(block)) => memory.blocks.push(block),
                Ok(Noted::Acknowledged(items)) => memory.set_items(items),
                Ok(Noted::Refused) => drop(memory.blocks.pop()),
                Err(_) => break,
            }
            end += line.len();
        }
        file.set_len(end as u64)?;
        file.seek(io::SeekFrom::Start(end as u64))?;
        memory.file = Some(file);
        if end == 0 {
            let (path, key) = (identity.path.clone(), memory.key.clone());
            memory.write(&Noted::File { path, key })?;
        }
        if memory.is_certain(folder, identity) {
            fs::write(place_name(folder, identity), &identity.inode)?;
        }
        Ok(memory)
    }

    /// The memory of nothing. If the push is not a new one, a server that has its blocks knows their keys for some time.
    pub(super) fn none(identity: Option<&FileIdentity>, is_new: bool) -> Self {
        let inode = identity.map_or("", |identity| &identity.inode);
        Self {
            file: None,
            name: PathBuf::new(),
            key: format!("{inode}{}", if is_new { new_run() } else { String::new() }),
            blocks: Vec::new(),
        }
    }

    /// Whether it is the memory of this very file. If not, it is that of another file that was at its path.
    pub(super) fn is_certain(&self, folder: &Path, identity: &FileIdentity) -> bool {
        self.name == own_name(folder, identity)
    }

    /// Takes over the memory of another file.
    pub(super) fn adopt(&mut self, folder: &Path, identity: &FileIdentity) -> io::Result<()> {
        let own = own_name(folder, identity);
        fs::rename(&self.name, &own)?;
        self.name = own;
        fs::write(place_name(folder, identity), &identity.inode)
    }

    /// What makes the idempotency keys of this push differ from those of others.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The blocks so far. Only the last one may not be acknowledged.
    pub(super) fn blocks(&self) -> &[KnownBlock] {
        &self.blocks
    }

    /// Notes a block before it is sent.
    pub(super) fn begin(&mut self, block: KnownBlock) -> io::Result<()> {
        self.write(&Noted::Begin(block.clone()))?;
        self.blocks.push(block);
        Ok(())
    }

    /// Notes that the last block was acknowledged.
    pub(super) fn acknowledge(&mut self, items: u64) -> io::Result<()> {
        self.write(&Noted::Acknowledged(items))?;
        self.set_items(items);
        Ok(())
    }

    /// Notes that the server has stored nothing of the last block.
    pub(super) fn refuse(&mut self) -> io::Result<()> {
        self.write(&Noted::Refused)?;
        self.blocks.pop();
        Ok(())
    }

    fn set_items(&mut self, items: u64) {
        if let Some(last) = self.blocks.last_mut() {
            last.items = Some(items);
        }
    }

    fn write(&mut self, noted: &Noted) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let line = serde_json::to_string(noted)? + "\n";
        file.write_all(line.as_bytes())
    }
}

/// The memory of a file with this inode.
fn own_name(folder: &Path, identity: &FileIdentity) -> PathBuf {
    named(folder, &identity.inode)
}

fn named(folder: &Path, inode: &str) -> PathBuf {
    folder.join(format!("{inode}.ndjson"))
}

/// The file that names the inode that was last seen at a path.
fn place_name(folder: &Path, identity: &FileIdentity) -> PathBuf {
    folder.join(format!("{}.inode", identity.place))
}

fn new_run() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// Creates the folder of memories, and removes those that are old.
pub(super) fn prepare(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    remove_old(folder)
}

/// Where files are remembered; none without a home folder.
pub(super) fn folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("rachis/push"))
}

fn remove_old(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let written = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = |written: SystemTime| written.elapsed().is_ok_and(|age| age > KEPT);
        if written.is_ok_and(is_old) {
            // Another push may have removed it.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_remembered_until_they_are_pushed_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let identity = identity("a.json", "file");
        let open = |forget| FileMemory::open(folder.path(), &identity, forget).expect("a memory");
        let mut memory = open(false);
        assert_eq!((memory.key(), memory.blocks()), ("file", &[][..]));
        memory.begin(KnownBlock::new(b"h", b"one")).expect("written");
        memory.acknowledge(1).expect("written");
        memory.begin(KnownBlock::new(b"h", b"two")).expect("written");
        // A crash cuts what is written next.
        let file = folder.path().join("file.ndjson");
        let cut = fs::read_to_string(&file).expect("a file") + "{\"acknow";
        drop(memory);
        fs::write(&file, cut).expect("written");
        let items = |memory: &FileMemory| -> Vec<_> { memory.blocks().iter().map(|block| block.items).collect() };
        let mut known = open(false);
        assert_eq!(items(&known), [Some(1), None]);
        assert!(known.blocks()[1].is(b"h", b"two") && !known.blocks()[1].is(b"h", b"tw0"));
        known.refuse().expect("written");
        drop(known);
        assert_eq!(items(&open(false)), [Some(1)]);
        let mut known = open(false);
        known.begin(KnownBlock::new(b"h", b"two")).expect("written");
        known.acknowledge(2).expect("written");
        assert!(!known.blocks()[1].is(b"another header", b"two"));
        drop(known);
        assert_eq!(items(&open(false)), [Some(1), Some(2)]);
        let again = open(true);
        assert!(again.blocks().is_empty() && again.key() != "file");
        let key = again.key().to_owned();
        let at_once = FileMemory::open(folder.path(), &identity, false);
        assert!(at_once.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
        drop(again);
        assert_eq!(open(false).key(), key);
    }

    fn identity(path: &str, inode: &str) -> FileIdentity {
        FileIdentity {
            path: path.into(),
            inode: inode.into(),
            place: format!("at-{path}"),
        }
    }

    #[test]
    fn the_memory_of_a_file_goes_on_when_it_is_renamed_or_adopted() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = |identity: &FileIdentity| FileMemory::open(folder.path(), identity, false).expect("a memory");
        let mut memory = open(&identity("a", "1"));
        memory.begin(KnownBlock::new(b"", b"one")).expect("written");
        drop(memory);
        let renamed = identity("b", "1");
        assert!(open(&renamed).is_certain(folder.path(), &renamed) && open(&renamed).blocks().len() == 1);
        let replaced = identity("a", "2");
        let mut memory = open(&replaced);
        assert!(!memory.is_certain(folder.path(), &replaced) && memory.blocks().len() == 1);
        memory.adopt(folder.path(), &replaced).expect("written");
        drop(memory);
        let memory = open(&replaced);
        assert!(memory.is_certain(folder.path(), &replaced) && memory.blocks().len() == 1);
        assert_eq!(memory.key(), "1");
        assert!(open(&identity("d", "1")).blocks().is_empty());
    }
}
