//! One file of any kind, with its attributes.

use crate::arena::{Id, NONE};
use crate::data::Data;
use crate::directory::Directory;
use crate::keep::{Keep, keep, load_bytes, malformed, save_bytes};
use ringback_rpc::nfs4::fore::file_type;
use ringback_rpc::nfs4::{NfsTime4, Status, Verifier4};
use std::io::{self, Read, Write};
use std::time::SystemTime;

/// A file, directory, link or special file. It is small, as there may be millions: an empty regular file of the superuser
/// is all here, everything else has a body.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) change: u64,
    body: Option<Box<Body>>,
    /// Nanoseconds since 1970.
    created_ns: u64,
    /// First of its opens.
    pub(crate) opens: u32,
    /// First of its delegations.
    pub(crate) delegations: u32,
    /// No delegation before this second of the server's life: somebody was refused because of one.
    pub(crate) contended_until_s: u32,
    pub(crate) mode: u16,
}

/// What not every file has.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) kind: Kind,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Names that stand for it; of a directory one, until it is removed.
    pub(crate) links: u32,
    /// First of its lock-owners.
    pub(crate) locks: u32,
    /// First of those who wait for a lock.
    pub(crate) waiters: u32,
    /// Of the exclusive create that made it (RFC 8881 section 18.16.3).
    pub(crate) verifier: Option<Verifier4>,
    pub(crate) accessed: NfsTime4,
    pub(crate) modified: NfsTime4,
    pub(crate) changed: NfsTime4,
}

/// What kind of file, and what is in it.
#[derive(Debug)]
pub(crate) enum Kind {
    Regular(Data),
    Directory(Directory),
    Symlink(Box<[u8]>),
    /// A device, socket or pipe: its `nfs_ftype4` and the device's number.
    Special(u32, (u32, u32)),
}

keep! {
    File { change, body, created_ns, opens, delegations, contended_until_s, mode }
    Body { kind, uid, gid, links, locks, waiters, verifier, accessed, modified, changed }
}

impl Keep for Kind {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Kind::Regular(data) => {
                0u8.save(out)?;
                data.save(out)
            }
            Kind::Directory(directory) => {
                1u8.save(out)?;
                directory.save(out)
            }
            Kind::Symlink(target) => {
                2u8.save(out)?;
                save_bytes(target, out)
            }
            Kind::Special(kind, number) => {
                3u8.save(out)?;
                (*kind, *number).save(out)
            }
        }
    }

    fn load(from: &mut dyn Read) -> io::Result<Self> {
        Ok(match u8::load(from)? {
            0 => Kind::Regular(Keep::load(from)?),
            1 => Kind::Directory(Keep::load(from)?),
            2 => Kind::Symlink(load_bytes(from)?.into()),
            3 => Kind::Special(Keep::load(from)?, Keep::load(from)?),
            _ => return Err(malformed()),
        })
    }
}

/// Who makes a file, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Maker {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) now: NfsTime4,
}

/// The time of day.
pub(crate) fn now() -> NfsTime4 {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    NfsTime4 { seconds: unix.as_secs() as i64, nseconds: unix.subsec_nanos() }
}

impl File {
    pub(crate) fn new(kind: Kind, mode: u16, maker: &Maker) -> Self {
        let NfsTime4 { seconds, nseconds } = maker.now;
        let created_ns = (seconds as u64).saturating_mul(1_000_000_000).saturating_add(nseconds.into());
        let mut file =
            File { change: 1, body: None, created_ns, opens: NONE, delegations: NONE, contended_until_s: 0, mode };
        if !matches!(kind, Kind::Regular(_)) || maker.uid != 0 || maker.gid != 0 {
            let body = file.body_mut();
            (body.kind, body.uid, body.gid) = (kind, maker.uid, maker.gid);
        }
        file
    }

    pub(crate) fn created(&self) -> NfsTime4 {
        let nseconds = (self.created_ns % 1_000_000_000) as u32;
        NfsTime4 { seconds: (self.created_ns / 1_000_000_000) as i64, nseconds }
    }

    /// The body; `None`: an empty regular file of the superuser with one name, untouched since it was made.
    pub(crate) fn body(&self) -> Option<&Body> {
        self.body.as_deref()
    }

    /// The body, made if there is none.
    pub(crate) fn body_mut(&mut self) -> &mut Body {
        let created = self.created();
        self.body.get_or_insert_with(|| {
            Box::new(Body {
                kind: Kind::Regular(Data::default()),
                uid: 0,
                gid: 0,
                links: 1,
                locks: NONE,
                waiters: NONE,
                verifier: None,
                accessed: created,
                modified: created,
                changed: created,
            })
        })
    }

    /// Its `nfs_ftype4`.
    pub(crate) fn file_type(&self) -> u32 {
        match self.body().map(|b| &b.kind) {
            None | Some(Kind::Regular(_)) => file_type::REGULAR,
            Some(Kind::Directory(_)) => file_type::DIRECTORY,
            Some(Kind::Symlink(_)) => file_type::SYMLINK,
            Some(Kind::Special(kind, _)) => *kind,
        }
    }

    pub(crate) fn size(&self) -> u64 {
        match self.body().map(|b| &b.kind) {
            Some(Kind::Regular(data)) => data.size(),
            _ => self.target().map_or(0, |target| target.len() as u64),
        }
    }

    /// Memory that is charged for its content.
    pub(crate) fn memory(&self) -> u64 {
        match self.body().map(|b| &b.kind) {
            Some(Kind::Regular(data)) => data.memory(),
            _ => self.size(),
        }
    }

    /// What it points to, if it is a symbolic link.
    pub(crate) fn target(&self) -> Option<&[u8]> {
        match self.body().map(|b| &b.kind) {
            Some(Kind::Symlink(target)) => Some(target),
            _ => None,
        }
    }

    /// Names that stand for it; a directory counts itself and its subdirectories' parents.
    pub(crate) fn links(&self) -> u32 {
        match self.body() {
            None => 1,
            Some(Body { kind: Kind::Directory(directory), links, .. }) if *links > 0 => 2 + directory.subdirectories,
            Some(body) => body.links,
        }
    }

    pub(crate) fn verifier(&self) -> Option<Verifier4> {
        self.body().and_then(|b| b.verifier)
    }

    /// First of its lock-owners.
    pub(crate) fn locks(&self) -> u32 {
        self.body().map_or(NONE, |b| b.locks)
    }

    /// First of those who wait for a lock.
    pub(crate) fn waiters(&self) -> u32 {
        self.body().map_or(NONE, |b| b.waiters)
    }

    /// The directory that it is.
    pub(crate) fn directory(&self) -> Result<&Directory, Status> {
        match self.body().map(|b| &b.kind) {
            Some(Kind::Directory(directory)) => Ok(directory),
            // A client that looks up names under a link has not read it (RFC 8881 section 15.1.2.9).
            Some(Kind::Symlink(_)) => Err(Status::NFS4ERR_SYMLINK),
            _ => Err(Status::NFS4ERR_NOTDIR),
        }
    }

    /// The directory that it is, to be changed.
    pub(crate) fn directory_mut(&mut self) -> Result<&mut Directory, Status> {
        self.directory()?;
        match &mut self.body_mut().kind {
            Kind::Directory(directory) => Ok(directory),
            _ => Err(Status::NFS4ERR_NOTDIR),
        }
    }

    /// Its bytes, to be read. `None`: there are none.
    pub(crate) fn data(&self) -> Result<Option<&Data>, Status> {
        match self.body().map(|b| &b.kind) {
            None => Ok(None),
            Some(Kind::Regular(data)) => Ok(Some(data)),
            Some(Kind::Directory(_)) => Err(Status::NFS4ERR_ISDIR),
            Some(Kind::Symlink(_)) => Err(Status::NFS4ERR_SYMLINK),
            Some(Kind::Special(..)) => Err(Status::NFS4ERR_INVAL),
        }
    }

    /// Its bytes, to be changed.
    pub(crate) fn data_mut(&mut self) -> Result<&mut Data, Status> {
        self.data()?;
        match &mut self.body_mut().kind {
            Kind::Regular(data) => Ok(data),
            _ => Err(Status::NFS4ERR_INVAL),
        }
    }

    /// Something about it has changed, but not its content.
    pub(crate) fn touch(&mut self, now: NfsTime4) {
        self.change += 1;
        self.body_mut().changed = now;
    }

    /// Its content has changed.
    pub(crate) fn modify(&mut self, now: NfsTime4) {
        self.touch(now);
        self.body_mut().modified = now;
    }

    /// The parent of a directory.
    pub(crate) fn parent(&self) -> Result<Id, Status> {
        self.directory().map(|d| d.parent)
    }
}
