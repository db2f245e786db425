//! Copying a directory of the host into the server.

use crate::Server;
use crate::arena::Id;
use crate::directory::Directory;
use crate::file::{File, Kind, Maker};
use crate::files::{Caller, ROOT};
use ringback_rpc::nfs4::fore::file_type;
use ringback_rpc::nfs4::{NfsTime4, Status};
use std::fs::{self, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Directories below each other that are copied.
const DEPTH_MAX: usize = 128;
/// Bytes read from a file at a time.
const READ_BYTES: usize = 1 << 20;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Files of every kind, directories included.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// Why a directory could not be copied.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The host refused something.
    #[error("{}: {error}", path.display())]
    Host {
        /// Of which file.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
    /// The server has no room, or no such names.
    #[error("{}: the server answers {status}", path.display())]
    Server {
        /// For which file.
        path: PathBuf,
        /// What it said.
        status: Status,
    },
    /// Too many directories below each other.
    #[error("{}: more than {DEPTH_MAX} directories deep", path.display())]
    TooDeep {
        /// The directory.
        path: PathBuf,
    },
}

impl Server {
    /// Copies what is in a directory of the host into the root directory: files, directories and links, with modes,
    /// owners and times of modification. Names that are taken are an error.
    pub fn import(&self, from: &Path) -> Result<Imported, ImportError> {
        let mut imported = Imported::default();
        self.import_directory(from, ROOT, 0, &mut imported)?;
        Ok(imported)
    }

    fn import_directory(&self, from: &Path, to: Id, depth: usize, imported: &mut Imported) -> Result<(), ImportError> {
        let inner = &self.inner;
        let host = |error| ImportError::Host { path: from.to_owned(), error };
        if depth > DEPTH_MAX {
            return Err(ImportError::TooDeep { path: from.to_owned() });
        }
        for entry in fs::read_dir(from).map_err(host)? {
            let path = entry.map_err(host)?.path();
            let metadata = fs::symlink_metadata(&path).map_err(host)?;
            let file = self.import_file(&path, to, &metadata, imported)?;
            let server = |status| ImportError::Server { path: path.clone(), status };
            let name = path.file_name().unwrap_or_default().as_bytes();
            let is_directory = file.directory().is_ok();
            let caller =
                Caller { client: &inner.nobody, now_s: 0, maker: Maker { uid: 0, gid: 0, now: file.created() } };
            let (made, _) = inner.files.make(to, name, file, &caller, &inner.callbacks).map_err(server)?;
            imported.files += 1;
            if is_directory {
                self.import_directory(&path, made, depth + 1, imported)?;
            }
        }
        Ok(())
    }

    /// The file, with its content, not in the tree yet.
    fn import_file(
        &self,
        path: &Path,
        parent: Id,
        metadata: &Metadata,
        imported: &mut Imported,
    ) -> Result<File, ImportError> {
        let host = |error| ImportError::Host { path: path.to_owned(), error };
        let server = |status| ImportError::Server { path: path.to_owned(), status };
        let kind = metadata.file_type();
        // The numbers of devices are those of the host and mean nothing elsewhere.
        let special = |kind| Kind::Special(kind, (0, 0));
        let kind = if kind.is_dir() {
            Kind::Directory(Directory::new(parent))
        } else if kind.is_symlink() {
            Kind::Symlink(fs::read_link(path).map_err(host)?.as_os_str().as_bytes().into())
        } else if kind.is_fifo() {
            special(file_type::FIFO)
        } else if kind.is_socket() {
            special(file_type::SOCKET)
        } else if kind.is_block_device() {
            special(file_type::BLOCK)
        } else if kind.is_char_device() {
            special(file_type::CHARACTER)
        } else {
            Kind::Regular(Default::default())
        };
        let modified = NfsTime4 { seconds: metadata.mtime().max(0), nseconds: metadata.mtime_nsec() as u32 };
        let maker = Maker { uid: metadata.uid(), gid: metadata.gid(), now: modified };
        let regular = matches!(kind, Kind::Regular(_));
        let mut file = File::new(kind, (metadata.mode() & 0o7777) as u16, &maker);
        if regular {
            let mut content = fs::File::open(path).map_err(host)?;
            let mut space = vec![0; READ_BYTES];
            let mut offset = 0;
            loop {
                let read = content.read(&mut space).map_err(host)?;
                if read == 0 {
                    break;
                }
                let data = file.data_mut().map_err(server)?;
                data.write(offset, &space[..read], &self.inner.files.data).map_err(server)?;
                offset += read as u64;
            }
            imported.bytes += offset;
        }
        Ok(file)
    }
}
