//! Opening a store: RocksDB's settings, and why each is not the default.

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use proto::ingest::ShardId;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode, Options,
    WriteBufferManager,
};

use super::{Family, Kind, RowKey, Store, Unwritten, WriteBatch, format, log};
use crate::{error::Error, fault};

/// Blocks of all shards that are kept in memory, decompressed.
const BLOCK_CACHE_BYTES: usize = 128 << 20;
/// The log ahead of the writes; above it memory is flushed.
const WAL_BYTES_MAX: u64 = 128 << 20;
const DOCS_BUFFER_BYTES: usize = 16 << 20;
const SMALL_BUFFER_BYTES: usize = 8 << 20;
const DOCS_BLOCK_BYTES: usize = 32 << 10;
const ZSTD_LEVEL: i32 = 3;
const ZSTD_DICTIONARY_BYTES: i32 = 16 << 10;
const ZSTD_TRAINING_BYTES: i32 = 1 << 20;
const BLOOM_BITS: f64 = 10.0;
/// Of its open files RocksDB keeps so many for others than tables.
const OTHER_FILES: usize = 10;
/// Set aside on disk for a manifest while a store is open; most hold little.
const MANIFEST_PREALLOCATED_BYTES: usize = 64 << 10;
const TABLE_CACHE_SHARD_BITS: i32 = 2;
/// Memory for rows is taken so much at a time: a store that is hardly written to takes little.
const ARENA_BLOCK_BYTES: usize = 64 << 10;
/// Rows of all shards that are in no file yet: above it every write stalls, which senders are told. Shortly before it,
/// whoever writes flushes; and the leaf flushes the largest at half of it (`leaf/memory.rs`), which may have no writes
/// of their own.
const WRITE_BUFFERS_BYTES: usize = 128 << 20;
/// Pinned, so that an update of RocksDB does not change the files.
const FORMAT_VERSION: i32 = 6;

static WRITE_BUFFERS: LazyLock<WriteBufferManager> =
    LazyLock::new(|| WriteBufferManager::new_write_buffer_manager(WRITE_BUFFERS_BYTES, true));
static BLOCK_CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::new_lru_cache(BLOCK_CACHE_BYTES));

impl Store {
    /// Opens the rows of a shard, or makes the store where there is none. So many of its tables are open at once.
    pub fn open(shard: ShardId, folder: &Path, tables_open_max: usize) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(|source| Error::File {
            path: folder.to_owned(),
            source,
        })?;
        refuse_headless(folder)?;
        let accepted = refuse_hole(folder)?;
        if fault::lies_in("no-room", folder) {
            return Err(Error::File {
                path: folder.to_owned(),
                source: std::io::ErrorKind::StorageFull.into(),
            });
        }
        let db = DB::open_cf_descriptors(&database(tables_open_max), folder, families())
            .map_err(|source| Error::Storage { shard, source })?;
        if let Some(accepted) = accepted {
            std::fs::remove_file(&accepted).map_err(|source| Error::File { path: accepted, source })?;
        }
        let mut store = Self {
            shard,
            db,
            incarnation: 0,
            read_only: false,
        };
        store.incarnation = store.read_or_draw_incarnation()?;
        Ok(store)
    }

    /// Opens the rows of a shard that are there, and writes nothing: not even a full disk is in the way.
    pub fn open_read_only(shard: ShardId, folder: &Path, tables_open_max: usize) -> Result<Self, Error> {
        refuse_headless(folder)?;
        // Whether a loss is accepted is for the next opening to act on.
        refuse_hole(folder)?;
        let db = DB::open_cf_descriptors_read_only(&database(tables_open_max), folder, families(), false);
        let db = db.map_err(|source| Error::Storage { shard, source })?;
        let mut store = Self {
            shard,
            db,
            incarnation: 0,
            read_only: true,
        };
        store.incarnation = store.read_or_draw_incarnation()?;
        Ok(store)
    }

    fn read_or_draw_incarnation(&self) -> Result<u128, Error> {
        let key = RowKey::new(Kind::Format).bytes();
        if let Some(value) = self.get(Family::Meta, &key)? {
            return self.read("format", format::decode(&value));
        }
        let incarnation = uuid::Uuid::now_v7().as_u128();
        let mut batch = WriteBatch::default();
        self.put(&mut batch, Family::Meta, &key, &format::encode(incarnation));
        match self.commit_synced(batch) {
            Ok(()) => Ok(incarnation),
            Err(Unwritten::Failed(source)) => Err(self.failed(source)),
            Err(Unwritten::Stalled) => {
                Err(proto::Problem::new(proto::Code::Busy, format!("shard {}: the store stalls", self.shard)).into())
            }
        }
    }
}

fn families() -> [ColumnFamilyDescriptor; 4] {
    [
        ColumnFamilyDescriptor::new("default", small()),
        ColumnFamilyDescriptor::new(Family::Docs.name(), docs()),
        ColumnFamilyDescriptor::new(Family::Keys.name(), keys()),
        ColumnFamilyDescriptor::new(Family::Meta.name(), small()),
    ]
}

/// Refuses a folder of RocksDB whose `CURRENT` is gone: RocksDB would make an empty store there, and remove what it
/// does not know.
fn refuse_headless(folder: &Path) -> Result<(), Error> {
    let file_error = |source| Error::File {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(file_error)? {
        names.push(entry.map_err(file_error)?.file_name().to_string_lossy().into_owned());
    }
    // A store whose very first opening was cut short has a manifest and nothing else.
    let holds = |name: &&String| {
        let empty_log = || std::fs::metadata(folder.join(name)).is_ok_and(|log| log.len() == 0);
        name.ends_with(".sst") || (name.ends_with(".log") && !empty_log())
    };
    match (names.iter().any(|name| name == "CURRENT"), names.iter().find(holds)) {
        (false, Some(orphan)) => {
            let detail = format!(
                "{} has {orphan} but no CURRENT: a file of the store is lost, and all of its documents would be",
                folder.display()
            );
            Err(proto::Problem::new(proto::Code::Unavailable, detail)
                .hint("bring the folder back from a copy, or move it away to begin anew")
                .into())
        }
        _ => Ok(()),
    }
}

/// The file in a store's folder by which somebody accepts that what stands behind a damaged record is lost.
const ACCEPT_LOSS: &str = "ACCEPT-LOSS";

/// Refuses a log with a damaged record in front of acknowledged writes, unless their loss is accepted: by this file,
/// which goes once the store is open.
fn refuse_hole(folder: &Path) -> Result<Option<PathBuf>, Error> {
    let accept = folder.join(ACCEPT_LOSS);
    let accepted = accept.exists().then(|| accept.clone());
    let hole = log::hole(folder).map_err(|source| Error::File {
        path: folder.to_owned(),
        source,
    })?;
    let Some(log::Hole { file, offset }) = hole else {
        return Ok(accepted);
    };
    let file = file.display();
    if accepted.is_some() {
        tracing::error!(%file, offset, "a record of the log is damaged; the writes behind it are lost, which was accepted");
        return Ok(accepted);
    }
    let detail = format!("{file} is damaged at byte {offset}, and acknowledged writes may stand behind it");
    let hint = format!(
        "bring the folder back from a copy; or, to go on without these writes, make the file {}",
        accept.display()
    );
    Err(proto::Problem::new(proto::Code::Unavailable, detail).hint(hint).into())
}

fn database(tables_open_max: usize) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    // All families reach the files together, so what is in a file was never without what was written with it.
    options.set_atomic_flush(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    options.set_max_background_jobs(2);
    options.set_max_open_files(i32::try_from(tables_open_max + OTHER_FILES).unwrap_or(i32::MAX));
    options.set_write_buffer_manager(&WRITE_BUFFERS);
    // Its tables are few, and so are those who look for them at once.
    options.set_table_cache_num_shard_bits(TABLE_CACHE_SHARD_BITS);
    options.set_manifest_preallocation_size(MANIFEST_PREALLOCATED_BYTES);
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

/// Documents: written once, read in runs or by point, removed late.
fn docs() -> Options {
    let mut blocks = blocks();
    blocks.set_block_size(DOCS_BLOCK_BYTES);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(DOCS_BUFFER_BYTES);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    // The same compression on all levels: files move down instead of being written again.
    options.set_compression_type(DBCompressionType::Zstd);
    options.set_compression_options(-14, ZSTD_LEVEL, 0, ZSTD_DICTIONARY_BYTES);
    options.set_zstd_max_train_bytes(ZSTD_TRAINING_BYTES);
    // Nothing here gets better by being written again for its age.
    options.set_ttl(0);
    options
}

/// Ids: looked up for every document that has one, mostly in vain.
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
