//! Where snapshots are: an object store, or a folder.
//!
//! ```text
//! objects/3f/3f9a…            files of shards and lists of them, named by the SHA-256 of their bytes
//! snapshots/ID.json           the manifest of a complete snapshot: written last
//! running/ID.json             the lease of the node that takes or removes snapshots
//! ```

use std::{
    collections::BTreeMap,
    fs::File,
    ops::Range,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{
    ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    local::LocalFileSystem,
    path::Path,
    prefix::PrefixStore,
};
use parking_lot::Mutex;
use proto::{
    Code, Problem,
    snapshot::{Sha256, SnapshotId, StoredObject},
};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256 as Hasher};

use crate::{
    Manifest,
    manifest::{FORMAT, Summary},
};

/// Larger files are written in parts of this size, each of which is repeated by itself.
const PART_BYTES: u64 = 8 << 20;
/// A manifest, or a list of files, at most.
const JSON_BYTES_MAX: u64 = 1 << 30;
/// How long one request to the store may take …
const REQUEST_WAIT: Duration = Duration::from_secs(30);
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// … and how long it is repeated if the store is busy or fails.
const RETRIED_FOR: Duration = Duration::from_secs(60);
const RETRIES_MAX: usize = 10;
/// Requests that run at the same time.
pub(crate) const REQUESTS_AT_ONCE: usize = 8;

/// A store of snapshots. Cheap to clone.
#[derive(Clone)]
pub struct SnapshotStore {
    store: Arc<dyn ObjectStore>,
    /// Its folder, if it is one: what is written there is synced.
    folder: Option<PathBuf>,
    /// Which folder that was when it was opened.
    identity: Option<(u64, u64)>,
    /// Where it is, without what gives access.
    url: Arc<str>,
    /// What is known of complete snapshots, which never change.
    summaries: Arc<Mutex<BTreeMap<SnapshotId, Summary>>>,
    /// The manifest that was read last: each shard of a restored collection needs it.
    last: Arc<Mutex<Option<Arc<Manifest>>>>,
}

/// A lease file.
pub(crate) struct Written<T> {
    /// Its name.
    pub id: SnapshotId,
    /// When it was written last, by the clock of the store.
    pub written: chrono::DateTime<chrono::Utc>,
    /// What it says; `None` if this release cannot read it.
    pub value: Option<T>,
}

/// A snapshot in the store: its summary, or why it cannot be read.
pub type Known = (SnapshotId, Result<Summary, Problem>);

impl std::fmt::Debug for SnapshotStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SnapshotStore").field(&self.url).finish()
    }
}

impl SnapshotStore {
    /// A store at a URL: `s3://BUCKET/PREFIX`, `file:///FOLDER` or the absolute path of a folder. The options are those of
    /// crate `object_store` for S3, such as `endpoint` and `region`; what they do not say, the environment may
    /// (`AWS_ACCESS_KEY_ID` and so on). Opens no connection yet.
    pub fn open(url: &str, options: &BTreeMap<String, String>) -> Result<Self, Problem> {
        let folder = match url.starts_with('/') {
            true => Some(PathBuf::from(url)),
            false => None,
        };
        let parsed = folder.is_none().then(|| url::Url::parse(url));
        let wrong = |why: String| {
            let shown = without_user(url);
            Problem::new(Code::BadRequest, format!("url of [snapshots] is {shown:?}: {why}"))
                .hint("it is s3://BUCKET/PREFIX, or a folder that all nodes have, such as /mnt/snapshots")
        };
        let (store, folder, shown): (Arc<dyn ObjectStore>, _, _) = match (folder, parsed) {
            (Some(folder), _) => (open_folder(&folder, options)?, Some(folder), url.to_owned()),
            (None, Some(Ok(parsed))) if parsed.scheme() == "file" => {
                let folder = parsed
                    .to_file_path()
                    .map_err(|()| wrong("it names no folder of this machine".into()))?;
                (open_folder(&folder, options)?, Some(folder), url.to_owned())
            }
            (None, Some(Ok(parsed))) if parsed.scheme() == "s3" => {
                let bucket = parsed.host_str().ok_or_else(|| wrong("it names no bucket".into()))?;
                let prefix = Path::from_url_path(parsed.path()).map_err(|error| wrong(error.to_string()))?;
                let shown = format!("s3://{bucket}/{prefix}");
                (
                    Arc::new(PrefixStore::new(open_s3(bucket, options)?, prefix)),
                    None,
                    shown,
                )
            }
            (None, Some(Ok(parsed))) => return Err(wrong(format!("the scheme {} is not known", parsed.scheme()))),
            (None, Some(Err(error))) => return Err(wrong(error.to_string())),
            (None, None) => return Err(wrong("it is empty".into())),
        };
        Ok(Self {
            identity: folder.as_deref().and_then(identity),
            store,
            folder,
            url: shown.into(),
            summaries: Arc::default(),
            last: Arc::default(),
        })
    }

    /// Where it is, without what gives access.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Fails if it is a folder, and another one or none by now: its disk may not be mounted.
    pub(crate) fn check_folder(&self) -> Result<(), Problem> {
        let is_other = |folder: &PathBuf| identity(folder) != self.identity;
        match self.folder.as_ref().filter(|folder| is_other(folder)) {
            Some(folder) => {
                let detail = format!(
                    "{} is not the folder that it was when this node started",
                    folder.display()
                );
                Err(Problem::new(Code::Unavailable, detail)
                    .hint("is its disk mounted? Restart the nodes if it is to be another folder"))
            }
            None => Ok(()),
        }
    }

    /// Whether an object is there with its size.
    pub async fn has(&self, object: &StoredObject) -> Result<bool, Problem> {
        match self.store.head(&object_path(object.sha256)).await {
            Ok(found) => Ok(found.size == object.bytes),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.problem(&error)),
        }
    }

    /// Writes a value as an object.
    pub async fn put_json(&self, value: &impl Serialize) -> Result<StoredObject, Problem> {
        let bytes: Bytes = json(value)?.into();
        let object = StoredObject {
            sha256: hash(&bytes),
            bytes: bytes.len() as u64,
        };
        if !self.has(&object).await? {
            self.put(&object_path(object.sha256), bytes).await?;
        }
        Ok(object)
    }

    /// Reads a value from an object, whose hash is compared.
    pub async fn get_json<T: DeserializeOwned>(&self, object: &StoredObject) -> Result<T, Problem> {
        if object.bytes > JSON_BYTES_MAX {
            return Err(self.damaged(object, "it is larger than any list of files"));
        }
        let bytes = self.get_range(object, 0..object.bytes).await?;
        if hash(&bytes) != object.sha256 {
            return Err(self.damaged(object, "its bytes have another hash"));
        }
        serde_json::from_slice(&bytes).map_err(|error| self.damaged(object, &error.to_string()))
    }

    /// A part of an object.
    pub async fn get_range(&self, object: &StoredObject, range: Range<u64>) -> Result<Bytes, Problem> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let wanted = range.end - range.start;
        let bytes = self.store.get_range(&object_path(object.sha256), range).await;
        match bytes {
            Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes),
            Ok(_) => Err(self.damaged(object, "it is shorter than it was")),
            Err(object_store::Error::NotFound { .. }) => Err(self.damaged(object, "it is not there")),
            Err(error) => Err(self.problem(&error)),
        }
    }

    /// Reads an object to its end and compares its hash.
    pub async fn compare(&self, object: &StoredObject) -> Result<bool, Problem> {
        if !self.has(object).await? {
            return Ok(false);
        }
        let (mut hasher, mut from) = (Hasher::new(), 0);
        while from < object.bytes {
            let to = object.bytes.min(from + PART_BYTES);
            hasher.update(&self.get_range(object, from..to).await?);
            from = to;
        }
        Ok(Sha256(hasher.finalize().into()) == object.sha256)
    }

    /// Uploads a file as an object, in parts, and reports each part to `pace`.
    pub(crate) async fn put_file(
        &self,
        file: &FilePath,
        object: &StoredObject,
        pace: &dyn crate::Pace,
    ) -> Result<(), Problem> {
        let path = object_path(object.sha256);
        if object.bytes <= PART_BYTES {
            pace.wait().await?;
            self.put(&path, read_part(file, 0..object.bytes).await?).await?;
            pace.wrote(object.bytes);
            return Ok(());
        }
        let begun = self.store.put_multipart(&path).await;
        let mut upload = begun.map_err(|error| self.problem(&error))?;
        let parts = async {
            let mut from = 0;
            while from < object.bytes {
                pace.wait().await?;
                let to = object.bytes.min(from + PART_BYTES);
                let part = read_part(file, from..to).await?;
                let written = upload.put_part(part.into()).await;
                written.map_err(|error| self.problem(&error))?;
                pace.wrote(to - from);
                from = to;
            }
            Ok(())
        };
        let ended = match parts.await {
            Ok(()) => upload.complete().await.map_err(|error| self.problem(&error)),
            Err(problem) => Err(problem),
        };
        if let Err(problem) = ended {
            // What remains if this fails, too, the store removes by its own rules for incomplete uploads.
            let _ = upload.abort().await;
            return Err(problem);
        }
        self.sync(&path).await
    }

    /// Writes the manifest of a snapshot. From then on, it is complete.
    pub(crate) async fn put_manifest(&self, manifest: &Manifest) -> Result<(), Problem> {
        let path = manifest_path(&manifest.id);
        self.put(&path, json(manifest)?.into()).await
    }

    /// The manifest of a snapshot, as it was read last: another node may have removed it since.
    pub async fn known_manifest(&self, id: &SnapshotId) -> Result<Arc<Manifest>, Problem> {
        let last = self.last.lock().clone();
        match last.filter(|last| last.id == *id) {
            Some(last) => Ok(last),
            None => self.manifest(id).await,
        }
    }

    /// The manifest of a snapshot.
    pub async fn manifest(&self, id: &SnapshotId) -> Result<Arc<Manifest>, Problem> {
        let bytes = self.get(&manifest_path(id)).await?;
        let bytes = bytes.ok_or_else(|| self.no_snapshot(id))?;
        let unreadable = |why: String| Problem::new(Code::Unavailable, format!("snapshot {id} cannot be read: {why}"));
        #[derive(serde::Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        if format > FORMAT {
            return Err(unreadable(format!(
                "its format is {format}, this release reads formats up to {FORMAT}"
            ))
            .hint("use the release that has taken it, or a later one"));
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        if manifest.id != *id {
            return Err(unreadable(format!("it is the manifest of {}", manifest.id)));
        }
        let manifest = Arc::new(manifest);
        *self.last.lock() = Some(manifest.clone());
        Ok(manifest)
    }

    pub(crate) fn no_snapshot(&self, id: &SnapshotId) -> Problem {
        let detail = format!("there is no complete snapshot {id} in {}", self.url);
        Problem::new(Code::NotFound, detail).hint("`rachis snapshot list` lists all")
    }

    /// All complete snapshots, by when they were begun.
    pub async fn list(&self) -> Result<Vec<Known>, Problem> {
        let ids: Vec<SnapshotId> = self
            .list_names("snapshots")
            .await?
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        self.summaries.lock().retain(|id, _| ids.contains(id));
        let known = ids.into_iter().map(|id| async move {
            if let Some(summary) = self.summaries.lock().get(&id) {
                return (id.clone(), Ok(summary.clone()));
            }
            let summary = self.manifest(&id).await.map(|manifest| manifest.summary());
            if let Ok(summary) = &summary {
                self.summaries.lock().insert(id.clone(), summary.clone());
            }
            (id, summary)
        });
        Ok(stream::iter(known).buffered(REQUESTS_AT_ONCE).collect().await)
    }

    /// Removes a manifest: the snapshot is gone, its objects are not yet.
    pub(crate) async fn remove_manifest(&self, id: &SnapshotId) -> Result<(), Problem> {
        self.last.lock().take_if(|last| last.id == *id);
        self.remove_at(&manifest_path(id)).await
    }

    /// All objects.
    pub(crate) async fn objects(&self) -> Result<Vec<(Sha256, u64)>, Problem> {
        let mut listed = self.store.list(Some(&Path::from("objects")));
        let mut objects = Vec::new();
        while let Some(found) = listed.next().await {
            let found = found.map_err(|error| self.problem(&error))?;
            let hash = found.location.filename().and_then(|name| name.parse().ok());
            objects.extend(hash.map(|hash| (hash, found.size)));
        }
        Ok(objects)
    }

    pub(crate) async fn remove_object(&self, hash: Sha256) -> Result<(), Problem> {
        self.remove_at(&object_path(hash)).await
    }

    /// Writes a lease file.
    pub(crate) async fn put_running(&self, id: &SnapshotId, value: &impl Serialize) -> Result<(), Problem> {
        self.put(&running_path(id), json(value)?.into()).await
    }

    pub(crate) async fn remove_running(&self, id: &SnapshotId) -> Result<(), Problem> {
        self.remove_at(&running_path(id)).await
    }

    /// All lease files.
    pub(crate) async fn running<T: DeserializeOwned>(&self) -> Result<Vec<Written<T>>, Problem> {
        let names = self.list_names("running").await?;
        let read = names.into_iter().map(|(id, meta)| async move {
            // It may have ended meanwhile.
            let bytes = self.get(&running_path(&id)).await?;
            Ok(bytes.map(|bytes| Written {
                id,
                written: meta.last_modified,
                value: serde_json::from_slice(&bytes).ok(),
            }))
        });
        let read = stream::iter(read).buffered(REQUESTS_AT_ONCE);
        read.try_filter_map(async |found| Ok(found)).try_collect().await
    }

    /// Whether there is a manifest of a snapshot, also if it cannot be read.
    pub(crate) async fn has_manifest(&self, id: &SnapshotId) -> Result<bool, Problem> {
        match self.store.head(&manifest_path(id)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.problem(&error)),
        }
    }

    /// The snapshots of which a file `FOLDER/ID.json` is there.
    async fn list_names(&self, folder: &str) -> Result<Vec<(SnapshotId, ObjectMeta)>, Problem> {
        self.check_folder()?;
        let found = self.store.list(Some(&Path::from(folder))).try_collect::<Vec<_>>().await;
        let found = found.map_err(|error| self.problem(&error))?.into_iter();
        let name = |meta: ObjectMeta| {
            let id = meta.location.filename()?.strip_suffix(".json")?.parse().ok()?;
            Some((id, meta))
        };
        let mut names: Vec<(SnapshotId, ObjectMeta)> = found.filter_map(name).collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(names)
    }

    async fn get(&self, path: &Path) -> Result<Option<Bytes>, Problem> {
        let read = async {
            let found = self.store.get(path).await?;
            if found.meta.size > JSON_BYTES_MAX {
                let source = format!("{path} has {} bytes, which no manifest has", found.meta.size).into();
                return Err(object_store::Error::Generic {
                    store: "snapshot",
                    source,
                });
            }
            found.bytes().await
        };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.problem(&error)),
        }
    }

    async fn put(&self, path: &Path, bytes: Bytes) -> Result<(), Problem> {
        self.check_folder()?;
        let put = self.store.put(path, bytes.into()).await;
        put.map_err(|error| self.problem(&error))?;
        self.sync(path).await
    }

    async fn remove_at(&self, path: &Path) -> Result<(), Problem> {
        match self.store.delete(path).await {
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(error) => Err(self.problem(&error)),
        }
    }

    /// Syncs a file in a folder, and the folders above it: `object_store` does not.
    async fn sync(&self, path: &Path) -> Result<(), Problem> {
        let Some(folder) = self.folder.clone() else {
            return Ok(());
        };
        let file = folder.join(path.as_ref());
        blocking(&file.clone(), move || {
            let mut at: &FilePath = &file;
            loop {
                File::open(at)?.sync_all()?;
                match at.parent() {
                    Some(parent) if at != folder => at = parent,
                    _ => return Ok(()),
                }
            }
        })
        .await
    }

    fn damaged(&self, object: &StoredObject, why: &str) -> Problem {
        let detail = format!("the object {} in {} is damaged: {why}", object.sha256, self.url);
        Problem::new(Code::Unavailable, detail).hint("the snapshot may have been removed; restore from another one")
    }

    fn problem(&self, error: &object_store::Error) -> Problem {
        use object_store::Error;
        let detail = format!("the snapshot store {} fails: {}", self.url, one_line(error));
        match error {
            Error::Unauthenticated { .. } | Error::PermissionDenied { .. } => Problem::new(Code::Unavailable, detail)
                .hint("check the keys of [snapshots], and whether they may list, read, write and delete"),
            _ => Problem::new(Code::Unavailable, detail).hint("check url, options and keys of [snapshots]; retry"),
        }
    }
}

/// An error in one line. Of the text with which a store has answered only its code: the rest may repeat what was signed.
fn one_line(error: &object_store::Error) -> String {
    const SHOWN_MAX: usize = 300;
    let text = error.to_string();
    let (said, answered) = text.split_once('<').unwrap_or((&text, ""));
    let code = answered
        .split_once("<Code>")
        .and_then(|(_, code)| code.split_once("</Code>"));
    let code = code.map(|(code, _)| code).unwrap_or_default();
    let words: Vec<&str> = said.split_whitespace().chain([code]).collect();
    words.join(" ").trim_end().chars().take(SHOWN_MAX).collect()
}

/// A URL without user and password.
fn without_user(url: &str) -> String {
    match url
        .split_once("://")
        .and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?.1)))
    {
        Some((scheme, rest)) => format!("{scheme}://{rest}"),
        None => url.to_owned(),
    }
}

fn open_folder(folder: &FilePath, options: &BTreeMap<String, String>) -> Result<Arc<dyn ObjectStore>, Problem> {
    let bad = |why: String| {
        Problem::new(
            Code::BadRequest,
            format!("the folder {} of [snapshots] {why}", folder.display()),
        )
    };
    if !options.is_empty() {
        return Err(bad("needs no [snapshots.options]: these are for S3".to_owned()));
    }
    // It is not created: where a disk is not mounted, the snapshots would be on another one.
    if !folder.is_dir() {
        return Err(bad("does not exist".to_owned()).hint("create it, or mount it, on all nodes"));
    }
    let opened = LocalFileSystem::new_with_prefix(folder);
    Ok(Arc::new(
        opened.map_err(|error| bad(format!("cannot be opened: {error}")))?,
    ))
}

/// Which folder a path leads to: its file system and its number there.
fn identity(folder: &FilePath) -> Option<(u64, u64)> {
    let meta = std::fs::metadata(folder).ok()?;
    Some((meta.dev(), meta.ino()))
}

fn open_s3(bucket: &str, options: &BTreeMap<String, String>) -> Result<impl ObjectStore, Problem> {
    let client = ClientOptions::new()
        .with_timeout(REQUEST_WAIT)
        .with_connect_timeout(CONNECT_WAIT);
    let retry = RetryConfig {
        max_retries: RETRIES_MAX,
        retry_timeout: RETRIED_FOR,
        ..RetryConfig::default()
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_client_options(client)
        .with_retry(retry)
        .with_bucket_name(bucket);
    for (key, value) in options {
        let known: AmazonS3ConfigKey = key.parse().map_err(|_| {
            Problem::new(Code::BadRequest, format!("[snapshots.options] has a key {key:?}, which is not known"))
                .hint("keys are those of object_store for S3: endpoint, region, access_key_id, secret_access_key, allow_http, …")
        })?;
        if known == AmazonS3ConfigKey::Endpoint && value.starts_with("http://") {
            builder = builder.with_allow_http(true);
        }
        builder = builder.with_config(known, value);
    }
    builder.build().map_err(|error| {
        let detail = format!("the snapshot store s3://{bucket} cannot be opened: {error}");
        Problem::new(Code::BadRequest, detail).hint("check [snapshots.options]")
    })
}

fn object_path(hash: Sha256) -> Path {
    let hash = hash.to_string();
    Path::from(format!("objects/{}/{hash}", &hash[..2]))
}

fn manifest_path(id: &SnapshotId) -> Path {
    Path::from(format!("snapshots/{id}.json"))
}

fn running_path(id: &SnapshotId) -> Path {
    Path::from(format!("running/{id}.json"))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|error| Problem::new(Code::Internal, error.to_string()))
}

pub(crate) fn hash(bytes: &[u8]) -> Sha256 {
    Sha256(Hasher::digest(bytes).into())
}

/// The hash of a file. Blocks on the disk.
pub fn hash_file(path: &FilePath) -> std::io::Result<Sha256> {
    let (mut hasher, mut file) = (Hasher::new(), File::open(path)?);
    let mut part = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut part)? {
            0 => return Ok(Sha256(hasher.finalize().into())),
            read => hasher.update(&part[..read]),
        }
    }
}

async fn read_part(file: &FilePath, range: Range<u64>) -> Result<Bytes, Problem> {
    let path = file.to_owned();
    blocking(file, move || {
        let mut part = vec![0; (range.end - range.start) as usize];
        File::open(path)?.read_exact_at(&mut part, range.start)?;
        Ok(part.into())
    })
    .await
}

/// Runs on a thread that may wait for a disk.
pub(crate) async fn blocking<T: Send + 'static>(
    file: &FilePath,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let failed = |why: String| Problem::new(Code::Unavailable, format!("{} failed: {why}", file.display()));
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_store_shows_its_code_and_nothing_else_of_the_answer() {
        let answer = "403 Forbidden: <?xml?><Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIA</AWSAccessKeyId>\
                      <StringToSign>AWS4</StringToSign></Error>";
        let error = object_store::Error::Generic {
            store: "S3",
            source: answer.into(),
        };
        let shown = one_line(&error);
        assert!(shown.ends_with("403 Forbidden: SignatureDoesNotMatch"), "{shown}");
        assert_eq!(without_user("s3://me:secret@bucket/a"), "s3://bucket/a");
    }

    #[tokio::test]
    async fn an_error_about_a_url_does_not_repeat_its_password() {
        for url in ["s4://me:secret@bucket", "relative/folder", ""] {
            let problem = SnapshotStore::open(url, &BTreeMap::new())
                .map(drop)
                .expect_err("an invalid URL");
            assert!(
                problem.detail.contains("url of [snapshots]") && !problem.detail.contains("secret"),
                "{problem}"
            );
        }
        let options = [("regoin".to_owned(), "x".to_owned())].into();
        let problem = SnapshotStore::open("s3://bucket", &options)
            .map(drop)
            .expect_err("a key is misspelled");
        assert!(problem.detail.contains("regoin"), "{problem}");
    }
}
