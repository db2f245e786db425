//! Memory pressure as the Linux kernel tells it (PSI): a file that becomes readable, out of band, when tasks have waited
//! for memory for too long.

use crate::builder::BuildError;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A tenth of a second of waiting within two seconds. Windows of a multiple of two seconds need no privilege.
const TRIGGER: &[u8] = b"some 100000 2000000\0";

/// How a file of PSI begins.
const BEGINNING: [u8; 11] = *b"some avg10=";

/// A trigger, for as long as its file is open.
pub(crate) struct Pressure(File);

impl Pressure {
    /// Sets the trigger in `/proc/pressure/memory` or a cgroup's `memory.pressure`.
    pub fn open(path: &Path) -> Result<Self, BuildError> {
        let refused = |error| BuildError::MemoryPressure { file: path.to_owned(), error };
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).custom_flags(nonblock).open(path).map_err(refused)?;
        // Any other file would take it as its content.
        let mut beginning = [0; BEGINNING.len()];
        if file.read(&mut beginning).map_err(refused)? < beginning.len() || beginning != BEGINNING {
            return Err(refused(io::ErrorKind::InvalidInput.into()));
        }
        // In one write, or it is no trigger.
        match file.write(TRIGGER).map_err(refused)? {
            written if written == TRIGGER.len() => Ok(Pressure(file)),
            _ => Err(refused(io::ErrorKind::WriteZero.into())),
        }
    }
}

impl AsFd for Pressure {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What may help.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            " (give /proc/pressure/memory, which needs a kernel with CONFIG_PSI, or a cgroup's memory.pressure)"
        }
        io::ErrorKind::Unsupported => " (boot with psi=1)",
        io::ErrorKind::PermissionDenied => {
            " (who watches it must be able to write it, and on older kernels have CAP_SYS_RESOURCE)"
        }
        io::ErrorKind::InvalidInput => " (no file of PSI)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_pressure_file_is_refused_and_left_alone() {
        let path = std::env::temp_dir().join(format!("ringback-no-pressure-{}", std::process::id()));
        std::fs::write(&path, "something else").unwrap();
        let error = Pressure::open(&path).err().unwrap().to_string();
        assert!(error.contains("ringback-no-pressure") && error.ends_with("(no file of PSI)"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"something else");
        std::fs::remove_file(&path).unwrap();
        let error = Pressure::open(&path).err().unwrap().to_string();
        assert!(error.contains("give /proc/pressure/memory"), "{error}");
    }
}
