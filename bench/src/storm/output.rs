//! Files that a run writes at its end, opened before it begins: an hour of measuring must not end in "permission denied".

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file to be written at the end. What was in it stays until then; if the run breaks, a file made here goes again.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    file: File,
    made_here: bool,
    written: bool,
}

impl Output {
    /// Opens the file for writing. The error is one line that says what to do.
    pub fn open(option: &str, path: &Path) -> Result<Output, String> {
        let refuse = |e: io::Error| format!("{option} {}: cannot be written: {e}; name another file", path.display());
        let made = OpenOptions::new().write(true).create_new(true).open(path);
        let (file, made_here) = match made {
            Ok(file) => (file, true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                (OpenOptions::new().write(true).open(path).map_err(refuse)?, false)
            }
            Err(e) => return Err(refuse(e)),
        };
        Ok(Output { path: path.to_owned(), file, made_here, written: false })
    }

    /// Replaces the content.
    pub fn write(mut self, content: &[u8]) -> Result<(), String> {
        self.written = true;
        // A pipe or a device has no length to set.
        let plain = self.file.metadata().is_ok_and(|m| m.is_file());
        let done = if plain { self.file.set_len(0) } else { Ok(()) };
        done.and_then(|()| self.file.write_all(content))
            .map_err(|e| format!("{}: {e}: the results are not in it", self.path.display()))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.made_here && !self.written {
            // Nothing to do if it is gone already.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("storm-output-{}-{name}", std::process::id()))
    }

    #[test]
    fn an_unwritable_file_is_refused_before_the_run() {
        let error = Output::open("--json", Path::new("/nonexistent/x.json")).unwrap_err();
        assert!(error.contains("--json /nonexistent/x.json") && error.contains("name another"), "{error}");
        assert!(Output::open("--json", &std::env::temp_dir()).is_err());
    }

    #[test]
    fn an_unused_file_goes_again_and_an_old_one_stays() {
        let path = scratch("unused");
        drop(Output::open("--plot", &path).unwrap());
        assert!(!path.exists());
        std::fs::write(&path, "old and longer").unwrap();
        drop(Output::open("--plot", &path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old and longer");
        Output::open("--plot", &path).unwrap().write(b"new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        std::fs::remove_file(&path).unwrap();
    }
}
