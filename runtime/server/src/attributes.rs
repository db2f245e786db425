//! File attributes (RFC 8881 section 5): the ones that must be there, and those that every client asks for.

use crate::Inner;
use crate::files::{File, Object};
use crate::opens::How;
use ringback_rpc::nfs4::{Bitmap4, Fattr, FileHandle, Fsid4, NfsTime4, Status, Verifier4, attr};
use ringback_rpc::xdr::{self, Encode, Reader, Writer};

/// More bytes than all values of [`SUPPORTED`] together take.
pub(crate) const VALUES_BYTES_MAX: usize = 512;

const SUPPORTED: Bitmap4 = Bitmap4::of(&[
    attr::SUPPORTED_ATTRS,
    attr::TYPE,
    attr::FH_EXPIRE_TYPE,
    attr::CHANGE,
    attr::SIZE,
    attr::LINK_SUPPORT,
    attr::SYMLINK_SUPPORT,
    attr::NAMED_ATTR,
    attr::FSID,
    attr::UNIQUE_HANDLES,
    attr::LEASE_TIME,
    attr::RDATTR_ERROR,
    attr::FILEHANDLE,
    attr::FILEID,
    attr::MODE,
    attr::NUMLINKS,
    attr::OWNER,
    attr::OWNER_GROUP,
    attr::SPACE_USED,
    attr::TIME_ACCESS,
    attr::TIME_METADATA,
    attr::TIME_MODIFY,
    attr::MOUNTED_ON_FILEID,
    attr::SUPPATTR_EXCLCREAT,
]);

/// What OPEN may set when it creates a file.
pub(crate) const SETTABLE: Bitmap4 = Bitmap4::of(&[attr::SIZE, attr::MODE]);

/// `nfs_ftype4` (RFC 8881 section 3.2).
const NF4REG: u32 = 1;
const NF4DIR: u32 = 2;
/// Nothing expires a filehandle (RFC 8881 section 4.2.3).
const FH4_PERSISTENT: u32 = 0;
/// The mode of a file whose create does not say, and of the root directory.
const FILE_MODE: u16 = 0o644;
const ROOT_MODE: u16 = 0o777;
/// The root's file id; a file's is made of its index and generation, and is larger.
const ROOT_FILEID: u64 = 1;

/// What differs from object to object.
struct Facts {
    kind: u32,
    change: u64,
    fileid: u64,
    mode: u16,
    links: u32,
    created_s: u32,
}

impl Inner {
    /// GETATTR: the values that are asked for and known, in ascending order.
    pub(crate) fn attributes(&self, object: Object, asked: &Bitmap4, w: &mut Writer<'_>) -> Result<Bitmap4, Status> {
        let facts = match object {
            Object::Root => Facts {
                kind: NF4DIR,
                change: self.files.root_change(),
                fileid: ROOT_FILEID,
                mode: ROOT_MODE,
                links: 2,
                created_s: 0,
            },
            Object::File(id) => self.files.with_file(id, |file: &File| Facts {
                kind: NF4REG,
                change: file.change,
                fileid: u64::from(id.generation) << 32 | u64::from(id.index),
                mode: file.mode,
                links: 1,
                created_s: file.created_s,
            })?,
        };
        let mask = asked.and(&SUPPORTED);
        for number in mask.iter() {
            // The caller's buffer holds them all.
            self.attribute(number, object, &facts, w).map_err(|_| Status::NFS4ERR_SERVERFAULT)?;
        }
        Ok(mask)
    }

    fn attribute(&self, number: u32, object: Object, facts: &Facts, w: &mut Writer<'_>) -> xdr::Result<()> {
        match number {
            attr::SUPPORTED_ATTRS => SUPPORTED.encode(w),
            attr::TYPE => w.u32(facts.kind),
            attr::FH_EXPIRE_TYPE => w.u32(FH4_PERSISTENT),
            attr::CHANGE => w.u64(facts.change),
            attr::SIZE | attr::SPACE_USED => w.u64(0),
            attr::LINK_SUPPORT | attr::SYMLINK_SUPPORT | attr::NAMED_ATTR => w.bool(false),
            attr::FSID => Fsid4 { major: 0, minor: 0 }.encode(w),
            attr::UNIQUE_HANDLES => w.bool(true),
            attr::LEASE_TIME => w.u32(self.config.lease.as_secs() as u32),
            attr::RDATTR_ERROR => w.u32(Status::NFS4_OK.0),
            attr::FILEHANDLE => match FileHandle::new(&self.files.handle(object)) {
                Some(handle) => handle.encode(w),
                None => w.opaque(&[]),
            },
            attr::FILEID | attr::MOUNTED_ON_FILEID => w.u64(facts.fileid),
            attr::MODE => w.u32(facts.mode.into()),
            attr::NUMLINKS => w.u32(facts.links),
            // A number as a string: what clients with AUTH_SYS understand without a name service (RFC 8881 section 5.9).
            attr::OWNER | attr::OWNER_GROUP => w.opaque(b"0"),
            attr::TIME_ACCESS | attr::TIME_METADATA | attr::TIME_MODIFY => {
                let seconds = self.started_unix_s.saturating_add(facts.created_s.into());
                NfsTime4 { seconds, nseconds: 0 }.encode(w)
            }
            attr::SUPPATTR_EXCLCREAT => SETTABLE.encode(w),
            // Nothing else is in SUPPORTED.
            _ => Ok(()),
        }
    }
}

/// What a create asks to set.
struct Initial {
    mode: u16,
    truncate: bool,
}

fn initial(attributes: &Fattr<'_>) -> Result<Initial, Status> {
    if attributes.mask.and(&SUPPORTED) != attributes.mask {
        return Err(Status::NFS4ERR_ATTRNOTSUPP);
    }
    if attributes.mask.and(&SETTABLE) != attributes.mask {
        return Err(Status::NFS4ERR_INVAL);
    }
    let mut values = Reader::new(attributes.values);
    let badxdr = |_| Status::NFS4ERR_BADXDR;
    let truncate = attributes.mask.contains(attr::SIZE);
    if truncate && values.u64("size").map_err(badxdr)? != 0 {
        // No data is kept, so that zero is every file's limit.
        return Err(Status::NFS4ERR_FBIG);
    }
    let mode = match attributes.mask.contains(attr::MODE) {
        true => values.u32("mode").map_err(badxdr)?,
        false => FILE_MODE.into(),
    };
    values.finish("fattr4").map_err(badxdr)?;
    match u16::try_from(mode) {
        Ok(mode) if mode <= 0o7777 => Ok(Initial { mode, truncate }),
        _ => Err(Status::NFS4ERR_INVAL),
    }
}

/// UNCHECKED4.
pub(crate) fn unchecked(attributes: &Fattr<'_>) -> Result<How, Status> {
    initial(attributes).map(|Initial { mode, truncate }| How::Unchecked { mode, truncate })
}

/// GUARDED4.
pub(crate) fn guarded(attributes: &Fattr<'_>) -> Result<How, Status> {
    initial(attributes).map(|Initial { mode, .. }| How::Guarded { mode })
}

/// EXCLUSIVE4 and EXCLUSIVE4_1.
pub(crate) fn exclusive(verifier: Verifier4, attributes: &Fattr<'_>) -> Result<How, Status> {
    let Initial { mode, .. } = initial(attributes)?;
    Ok(How::Exclusive { mode, verifier })
}
