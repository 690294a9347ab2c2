//! Which files are pushed: those that are named, those in folders, and those that meet a pattern.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use super::Failure;

/// The files that these paths name, in order; each of them once.
pub(super) fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        let named = match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => below(path)?,
            Ok(_) => vec![path.clone()],
            Err(_) if path.as_os_str() == "-" => vec![path.clone()],
            Err(_) if is_pattern(path) => matching(path)?,
            Err(error) => return Err(unreadable(path, &error)),
        };
        if named.is_empty() {
            return Err(Failure::new(format!("{} has no files", path.display())));
        }
        files.extend(named);
    }
    let mut seen = HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    Ok(files)
}

/// All files in a folder and its folders, by name; hidden ones are left out.
fn below(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut entries: Vec<_> = entries
        .map_err(|error| unreadable(folder, &error))?
        .iter()
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .map(std::fs::DirEntry::path)
        .collect();
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        // A link to a folder could lead back here.
        let metadata = std::fs::symlink_metadata(&entry).map_err(|error| unreadable(&entry, &error))?;
        match metadata.is_dir() {
            true => files.extend(below(&entry)?),
            false if entry.is_file() => files.push(entry),
            false => {}
        }
    }
    Ok(files)
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

fn matching(pattern: &Path) -> Result<Vec<PathBuf>, Failure> {
    let text = pattern.to_string_lossy();
    // As shells do it: hidden files only if the pattern names the dot.
    let options = glob::MatchOptions {
        require_literal_leading_dot: true,
        require_literal_separator: true,
        ..glob::MatchOptions::default()
    };
    let found =
        glob::glob_with(&text, options).map_err(|error| Failure::usage(format!("{text} is no pattern: {error}")))?;
    let mut files = Vec::new();
    for path in found {
        let path =
            path.map_err(|error| Failure::new(format!("cannot read {}: {}", error.path().display(), error.error())))?;
        files.extend(path.is_file().then_some(path));
    }
    Ok(files)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_patterns_name_files_in_order_and_each_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("b/c")).expect("a folder");
        for name in ["z.json", "a.csv", "b/c/m.json", "b/.hidden", ".x.json"] {
            std::fs::write(at(name), "{}").expect("a file");
        }
        let all = expand(&[folder.path().to_owned()]).expect("files");
        assert_eq!(all, [at("a.csv"), at("b/c/m.json"), at("z.json")]);
        let json = expand(&[at("*.json"), at("z.json"), "-".into()]).expect("files");
        assert_eq!(json, [at("z.json"), "-".into()]);
        assert!(expand(&[at("*.parquet")]).is_err());
        assert!(expand(&[at("missing.json")]).is_err());
        assert_eq!(
            expand(&[at("**/*.json")]).expect("files"),
            [at("b/c/m.json"), at("z.json")]
        );
    }
}
