//! Searches the files of data folders for texts.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The numbers of the texts that occur in any file of these folders, each with the first such file.
pub fn texts_in_files(mut folders: Vec<PathBuf>, texts: &[String]) -> BTreeMap<usize, PathBuf> {
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                // The ballast is empty, and large.
                false if entry.file_name() == "ballast" => {}
                false => add_texts_of(&path, texts, &mut found),
            }
        }
    }
    found
}

fn add_texts_of(path: &Path, texts: &[String], found: &mut BTreeMap<usize, PathBuf>) {
    // A file may be gone by now.
    let bytes = std::fs::read(path).unwrap_or_default();
    for (number, text) in texts.iter().enumerate() {
        if !found.contains_key(&number) && memchr::memmem::find(&bytes, text.as_bytes()).is_some() {
            found.insert(number, path.to_owned());
        }
    }
}
