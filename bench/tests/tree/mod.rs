//! The files of the workspace, for tests that compare what is written with what is there.
#![allow(dead_code)] // each test file uses a part

use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file of the workspace.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Every file below `folder` whose name ends in `suffix`, relative to the workspace.
pub fn files(folder: &str, suffix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            let name = path.to_str().unwrap().trim_start_matches("./").to_owned();
            if entry.file_type().unwrap().is_dir() {
                if !["target", ".git"].iter().any(|skip| entry.file_name() == *skip) {
                    folders.push(path);
                }
            } else if name.ends_with(suffix) {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// Every source file.
pub fn sources() -> Vec<String> {
    ["rpc", "runtime", "bench", "fuzz"].iter().flat_map(|folder| files(folder, ".rs")).collect()
}
