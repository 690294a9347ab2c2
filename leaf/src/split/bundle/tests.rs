//! Tests of `bundle`.

use super::*;

#[test]
fn an_unfinished_file_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = || {
        let entries = std::fs::read_dir(folder.path()).expect("the folder");
        entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect::<Vec<_>>()
    };
    let file = folder.path().join("7.split");
    let mut unfinished = BundleWriter::create(&file).expect("a file");
    let full = unfinished.entry("a".into(), |to| {
        to.write_all(&[1; 4 << 20])
            .and_then(|()| Err(io::ErrorKind::StorageFull.into()))
    });
    assert!(full.is_err() && names() == ["7.split.tmp"], "{:?}", names());
    drop(unfinished);
    assert_eq!(names(), [""; 0]);
    let mut finished = BundleWriter::create(&file).expect("a file");
    finished.entry("a".into(), |to| to.write_all(b"1")).expect("an entry");
    finished.publish(&file).expect("a bundle");
    assert_eq!(names(), ["7.split"]);
}

/// A file of version 1 with these entries.
fn version_1_file(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = MAGIC.to_le_bytes().to_vec();
    let mut footer = ValueWriter::unversioned().u32(entries.len() as u32);
    for (name, bytes) in entries {
        footer = footer
            .u32_text(name)
            .u64(file.len() as u64)
            .u64(bytes.len() as u64)
            .u64(xxh3_64(bytes));
        file.extend_from_slice(bytes);
    }
    let footer = footer.finish();
    let trailer = ValueWriter::unversioned()
        .u64(file.len() as u64)
        .u64(xxh3_64(&footer))
        .u32(VERSION_OF_ENTRY_CHECKSUMS)
        .u64(MAGIC)
        .finish();
    [file, footer, trailer].concat()
}

#[test]
fn a_version_1_file_is_readable_and_its_damage_is_detected() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("7.split");
    let entries: [(&str, &[u8]); 3] = [("a", b"first"), ("empty", b""), ("b", b"second")];
    let whole = version_1_file(&entries);
    std::fs::write(&file, &whole).expect("written");
    let bundle = Bundle::open(&file).expect("a bundle");
    for (name, bytes) in entries {
        assert_eq!(
            &*bundle.get(name).and_then(|slice| slice.read_bytes()).expect("an entry"),
            bytes
        );
    }
    assert_eq!(bundle.file.scrub(0, u64::MAX).expect("it is whole").0, None);
    let mut damaged = whole;
    damaged[8 + 5] ^= 1;
    std::fs::write(&file, &damaged).expect("written");
    let bundle = Bundle::open(&file).expect("a bundle");
    assert_eq!(
        &*bundle.get("a").and_then(|slice| slice.read_bytes()).expect("an entry"),
        b"first"
    );
    assert!(bundle.file.damaged().is_none());
    assert!(bundle.get("b").and_then(|slice| slice.read_bytes()).is_err());
    assert!(bundle.file.damaged().is_some());
}
