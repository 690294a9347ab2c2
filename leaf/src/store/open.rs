//! Opening a store: the checks before it, and the RocksDB settings with the reason why each differs from the default.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use proto::ingest::ShardId;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Options,
    WriteBufferManager,
};

use super::{Family, PartitionRow, RowKey, RowKind, Store, WriteBatch, format::Format, wal};
use crate::{error::Error, fault};

/// Size of the block cache that all shards share, in decompressed bytes.
const BLOCK_CACHE_BYTES: usize = 128 << 20;
/// Size of the write-ahead log above which memtables are flushed.
const WAL_BYTES_MAX: u64 = 128 << 20;
const DOCS_BUFFER_BYTES: usize = 16 << 20;
const SMALL_BUFFER_BYTES: usize = 8 << 20;
const DOCS_BLOCK_BYTES: usize = 32 << 10;
/// Level 3 with a dictionary of 16 KiB made the files 4 % smaller, and a load needed a quarter more CPU time.
const ZSTD_LEVEL: i32 = 1;
const ZSTD_DICTIONARY_BYTES: i32 = 0;
const BLOOM_BITS: f64 = 10.0;
/// The share of its open file limit that RocksDB reserves for files other than tables.
const OTHER_FILES: usize = 10;
/// Disk space preallocated for a manifest while a store is open; most manifests are small.
const MANIFEST_PREALLOCATED_BYTES: usize = 64 << 10;
/// RocksDB begins a new manifest above this size, and above six times what the new one would have. Small, so that
/// [`Store::renew_manifest`] writes little.
const MANIFEST_BYTES_MAX: usize = 256 << 10;
const TABLE_CACHE_SHARD_BITS: i32 = 2;
/// Granularity of memtable allocations: a store with few writes needs little memory.
const ARENA_BLOCK_BYTES: usize = 64 << 10;
/// Size of the memtables of all shards above which every write stalls and senders get a busy response. Shortly below
/// it, a store flushes on its own writes. At half of it, the leaf flushes the largest stores (`leaf/memory.rs`), which
/// may receive no writes of their own.
const WRITE_BUFFERS_BYTES: usize = 128 << 20;
/// Pinned, so that a RocksDB upgrade does not change the file format.
const FORMAT_VERSION: i32 = 6;

static WRITE_BUFFERS: LazyLock<WriteBufferManager> =
    LazyLock::new(|| WriteBufferManager::new_write_buffer_manager(WRITE_BUFFERS_BYTES, true));
static BLOCK_CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::new_lru_cache(BLOCK_CACHE_BYTES));

/// A copied store, and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adopted {
    /// The shard whose store it was.
    pub was: ShardId,
    /// The shard whose store it will be.
    pub shard: ShardId,
}

impl Store {
    /// Opens the store of a shard, or creates it. RocksDB keeps at most `tables_open_max` tables open at once.
    pub(crate) fn open(shard: ShardId, folder: &Path, tables_open_max: usize) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
        reject_missing_current(folder)?;
        let acceptance = reject_damaged_log(folder)?;
        if fault::affects_folder("no-room", folder) {
            return Err(Error::File {
                path: folder.to_owned(),
                source: std::io::ErrorKind::StorageFull.into(),
            });
        }
        let db = DB::open_cf_descriptors(&database(tables_open_max), folder, families())
            .map_err(|source| Error::Storage { shard, source })?;
        if let Some(path) = acceptance {
            std::fs::remove_file(&path).map_err(Error::file(&path))?;
        }
        Self::over(shard, db, false)
    }

    /// Makes a copied store one of its own: it gets another incarnation. If it was of another collection, that one's own
    /// topics are not continued.
    pub(crate) fn adopt(adopted: Adopted, folder: &Path, tables_open_max: usize) -> Result<(), Error> {
        let store = Self::open(adopted.was, folder, tables_open_max)?;
        let mut batch = WriteBatch::default();
        if adopted.was != adopted.shard {
            for (partition, row) in store
                .partitions()?
                .into_iter()
                .filter(|(partition, _)| partition.source.is_own())
            {
                let row = PartitionRow { topic: None, ..row };
                let key = RowKey::new(RowKind::Partition).partition(&partition).bytes();
                store.put(&mut batch, Family::Meta, &key, &row.encode());
            }
        }
        let store = Self {
            shard: adopted.shard,
            ..store
        };
        store.assign_incarnation(batch).map(drop)
    }

    /// Opens an existing store without writing anything, so this works on a full disk, too.
    pub(crate) fn open_read_only(shard: ShardId, folder: &Path, tables_open_max: usize) -> Result<Self, Error> {
        reject_missing_current(folder)?;
        // The file that accepts a loss stays in place for the next writable opening.
        reject_damaged_log(folder)?;
        // A store of release 0.1 has no family of dead letters, and none can be created now.
        let names = DB::list_cf(&Options::default(), folder).map_err(|source| Error::Storage { shard, source })?;
        let families = families()
            .into_iter()
            .filter(|family| names.iter().any(|name| name == family.name()));
        let db = DB::open_cf_descriptors_read_only(&database(tables_open_max), folder, families, false);
        Self::over(shard, db.map_err(|source| Error::Storage { shard, source })?, true)
    }

    /// A store over an open database.
    fn over(shard: ShardId, db: DB, read_only: bool) -> Result<Self, Error> {
        let mut store = Self {
            shard,
            db,
            incarnation: 0,
            read_only,
        };
        store.incarnation = store.read_or_assign_incarnation()?;
        Ok(store)
    }

    fn read_or_assign_incarnation(&self) -> Result<u128, Error> {
        let key = RowKey::new(RowKind::Format).bytes();
        if let Some(value) = self.get(Family::Meta, &key)? {
            let format = self.check("format", Format::decode(&value))?;
            if format.shard != self.shard {
                let reason = format!(
                    "the store belongs to shard {}; its folder was moved or copied",
                    format.shard
                );
                return Err(self.corrupt("format", reason));
            }
            return Ok(format.incarnation);
        }
        self.assign_incarnation(WriteBatch::default())
    }

    /// Writes what the store is, together with these rows.
    fn assign_incarnation(&self, mut batch: WriteBatch) -> Result<u128, Error> {
        let key = RowKey::new(RowKind::Format).bytes();
        let format = Format::new(self.shard);
        self.put(&mut batch, Family::Meta, &key, &format.encode());
        self.commit_synced(batch).map_err(|error| self.unwritten(error))?;
        Ok(format.incarnation)
    }
}

fn families() -> [ColumnFamilyDescriptor; 5] {
    [
        ColumnFamilyDescriptor::new("default", small()),
        ColumnFamilyDescriptor::new(Family::Docs.name(), docs()),
        ColumnFamilyDescriptor::new(Family::DeadLetters.name(), small()),
        ColumnFamilyDescriptor::new(Family::Keys.name(), keys()),
        ColumnFamilyDescriptor::new(Family::Meta.name(), small()),
    ]
}

/// Rejects a RocksDB folder without its `CURRENT` file: RocksDB would create an empty store there and remove all files
/// that it does not know.
fn reject_missing_current(folder: &Path) -> Result<(), Error> {
    let file_error = Error::file(folder);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(file_error)? {
        names.push(entry.map_err(file_error)?.file_name().to_string_lossy().into_owned());
    }
    // If the very first opening of a store was interrupted, it has a manifest and no data.
    let has_data = |name: &&String| {
        let empty_log = || std::fs::metadata(folder.join(name)).is_ok_and(|log| log.len() == 0);
        name.ends_with(".sst") || (name.ends_with(".log") && !empty_log())
    };
    match (names.iter().any(|name| name == "CURRENT"), names.iter().find(has_data)) {
        (false, Some(orphan)) => {
            let detail = format!(
                "{} has {orphan} but no CURRENT: a file of the store is lost; opening it would delete all documents",
                folder.display()
            );
            Err(proto::Problem::new(proto::Code::Unavailable, detail)
                .hint("restore the folder from a backup, or move it away to start with an empty store")
                .into())
        }
        _ => Ok(()),
    }
}

/// The file in the folder of a store by which an operator accepts the loss of all writes after a damaged record.
const ACCEPT_LOSS: &str = "ACCEPT-LOSS";

/// Rejects a log with a damaged record before acknowledged writes, unless their loss is accepted by the returned file,
/// which is removed once the store is open.
fn reject_damaged_log(folder: &Path) -> Result<Option<PathBuf>, Error> {
    let accept = folder.join(ACCEPT_LOSS);
    let accepted = accept.exists().then(|| accept.clone());
    let damage = wal::find_damage(folder).map_err(Error::file(folder))?;
    let Some(wal::DamagedRecord { file, offset }) = damage else {
        return Ok(accepted);
    };
    let file = file.display();
    if accepted.is_some() {
        tracing::error!(
            %file,
            offset,
            "a record of the log is damaged; the writes after it are lost, which the operator accepted"
        );
        return Ok(accepted);
    }
    let detail = format!("{file} is damaged at byte {offset}, and acknowledged writes may follow the damage");
    let hint = format!(
        "restore the folder from a backup; or, to continue without these writes, create the file {}",
        accept.display()
    );
    Err(proto::Problem::new(proto::Code::Unavailable, detail).hint(hint).into())
}

fn database(tables_open_max: usize) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    // All families are flushed together, so the files never contain only a part of a batch.
    options.set_atomic_flush(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    options.set_max_background_jobs(2);
    options.set_max_open_files(i32::try_from(tables_open_max + OTHER_FILES).unwrap_or(i32::MAX));
    options.set_write_buffer_manager(&WRITE_BUFFERS);
    // A store has few tables and few concurrent lookups.
    options.set_table_cache_num_shard_bits(TABLE_CACHE_SHARD_BITS);
    options.set_manifest_preallocation_size(MANIFEST_PREALLOCATED_BYTES);
    options.set_max_manifest_file_size(MANIFEST_BYTES_MAX);
    options.set_keep_log_file_num(2);
    options.set_stats_dump_period_sec(0);
    options
}

fn blocks() -> BlockBasedOptions {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&BLOCK_CACHE);
    blocks.set_format_version(FORMAT_VERSION);
    blocks
}

/// Documents: written once, read by range or by point, removed late.
fn docs() -> Options {
    let mut blocks = blocks();
    blocks.set_block_size(DOCS_BLOCK_BYTES);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(DOCS_BUFFER_BYTES);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    // The same compression on all levels lets files move down without being rewritten.
    options.set_compression_type(DBCompressionType::Zstd);
    options.set_compression_options(-14, ZSTD_LEVEL, 0, ZSTD_DICTIONARY_BYTES);
    // Rewriting old files because of their age has no benefit.
    options.set_ttl(0);
    options
}

/// Ids: looked up for every document that has one, and usually not found.
fn keys() -> Options {
    let mut blocks = blocks();
    blocks.set_bloom_filter(BLOOM_BITS, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(SMALL_BUFFER_BYTES);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

fn small() -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks());
    options.set_write_buffer_size(SMALL_BUFFER_BYTES);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}
