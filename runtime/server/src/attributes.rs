//! Attributes that a client asks for (RFC 8881 section 5): the ones that must be there, and those that clients use.

use crate::Inner;
use crate::arena::Id;
use crate::data::FILE_BYTES_MAX;
use crate::file::{Body, File, Kind};
use crate::inspect::fileid;
use crate::name::NAME_BYTES_MAX;
use crate::set_attributes::SETTABLE;
use crate::tree::LINKS_MAX;
use ringback_rpc::nfs4::{Bitmap4, FileHandle, Fsid4, LayoutType4, NfsTime4, Status, attr};
use ringback_rpc::xdr::{self, Encode, Writer};

/// More bytes than all values of [`SUPPORTED`] together take.
pub(crate) const VALUES_BYTES_MAX: usize = 768;

pub(crate) const SUPPORTED: Bitmap4 = Bitmap4::of(&[
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
    attr::CANSETTIME,
    attr::CASE_INSENSITIVE,
    attr::CASE_PRESERVING,
    attr::CHOWN_RESTRICTED,
    attr::FILEHANDLE,
    attr::FILEID,
    attr::FILES_AVAIL,
    attr::FILES_FREE,
    attr::FILES_TOTAL,
    attr::HOMOGENEOUS,
    attr::MAXFILESIZE,
    attr::MAXLINK,
    attr::MAXNAME,
    attr::MAXREAD,
    attr::MAXWRITE,
    attr::MODE,
    attr::NO_TRUNC,
    attr::NUMLINKS,
    attr::OWNER,
    attr::OWNER_GROUP,
    attr::RAWDEV,
    attr::SPACE_AVAIL,
    attr::SPACE_FREE,
    attr::SPACE_TOTAL,
    attr::SPACE_USED,
    attr::TIME_ACCESS,
    attr::TIME_ACCESS_SET,
    attr::TIME_CREATE,
    attr::TIME_DELTA,
    attr::TIME_METADATA,
    attr::TIME_MODIFY,
    attr::TIME_MODIFY_SET,
    attr::MOUNTED_ON_FILEID,
    attr::SUPPATTR_EXCLCREAT,
    attr::OPEN_ARGUMENTS,
]);

/// Those that a minor version has: the first has none beyond mounted_on_fileid (RFC 7530 section 5).
fn supported(minor_version: u32) -> Bitmap4 {
    match minor_version {
        0 => SUPPORTED.and(&Bitmap4::from_words(&[u32::MAX; 2]).unwrap_or(Bitmap4::EMPTY)),
        _ => SUPPORTED,
    }
}

/// What there is besides if there are layouts: fs_layout_types (RFC 8881 section 5.12.1).
const OF_LAYOUTS: Bitmap4 = Bitmap4::of(&[attr::FS_LAYOUT_TYPES]);

/// What OPEN takes here, as the attribute open_arguments (RFC 9754) says it: share_access; share_deny; the wants any, none,
/// cancel, signal and push; the claims by name and by filehandle, under a delegation or not; and all ways to create.
const OPEN_ARGUMENTS: [Bitmap4; 5] = [
    Bitmap4::of(&[1, 2, 3]),
    Bitmap4::of(&[0, 1, 2, 3]),
    Bitmap4::of(&[3, 4, 5, 17, 18]),
    Bitmap4::of(&[0, 2, 4, 5]),
    Bitmap4::of(&[0, 1, 2, 3]),
];

/// What is set and never asked for (RFC 8881 section 5.5).
pub(crate) const WRITE_ONLY: Bitmap4 = Bitmap4::of(&[attr::TIME_ACCESS_SET, attr::TIME_MODIFY_SET]);
/// Nothing expires a filehandle (RFC 8881 section 4.2.3).
const FH4_PERSISTENT: u32 = 0;
/// What a request or reply has besides the data of a WRITE or READ: headers, SEQUENCE, a filehandle, attributes.
const OVERHEAD_BYTES: u32 = 4096;

/// The attributes of one file at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    id: Id,
    pub(crate) kind: u32,
    pub(crate) change: u64,
    pub(crate) size: u64,
    space: u64,
    pub(crate) mode: u16,
    links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    device: (u32, u32),
    accessed: NfsTime4,
    pub(crate) modified: NfsTime4,
    changed: NfsTime4,
    created: NfsTime4,
}

impl Facts {
    pub(crate) fn of(id: Id, file: &File) -> Facts {
        let created = file.created();
        let mut facts = Facts {
            id,
            kind: file.file_type(),
            change: file.change,
            size: file.size(),
            space: file.memory(),
            mode: file.mode,
            links: file.links(),
            uid: 0,
            gid: 0,
            device: (0, 0),
            accessed: created,
            modified: created,
            changed: created,
            created,
        };
        if let Some(Body { kind, uid, gid, accessed, modified, changed, .. }) = file.body() {
            (facts.uid, facts.gid) = (*uid, *gid);
            (facts.accessed, facts.modified, facts.changed) = (*accessed, *modified, *changed);
            if let Kind::Special(_, device) = kind {
                facts.device = *device;
            }
        }
        facts
    }
}

impl Inner {
    /// The attributes that this server has in a minor version.
    pub(crate) fn supported(&self, minor_version: u32) -> Bitmap4 {
        match self.config.layouts {
            Some(_) if minor_version > 0 => OF_LAYOUTS.iter().fold(SUPPORTED, Bitmap4::with),
            _ => supported(minor_version),
        }
    }

    /// The attributes of a file, to be encoded with [`Inner::attributes`].
    pub(crate) fn facts(&self, id: Id) -> Result<Facts, Status> {
        self.files.with_file(id, |file| Facts::of(id, file))
    }

    /// GETATTR: the values that are asked for and known, in ascending order.
    pub(crate) fn attributes(
        &self,
        facts: &Facts,
        asked: &Bitmap4,
        minor_version: u32,
        w: &mut Writer<'_>,
    ) -> Result<Bitmap4, Status> {
        let supported = self.supported(minor_version);
        let mask = asked.and(&supported);
        if !mask.and(&WRITE_ONLY).is_empty() {
            return Err(Status::NFS4ERR_INVAL);
        }
        for number in mask.iter() {
            // The caller's buffer holds them all.
            let put = match number {
                attr::SUPPORTED_ATTRS => supported.encode(w),
                _ => self.attribute(number, facts, w),
            };
            put.map_err(|_| Status::NFS4ERR_SERVERFAULT)?;
        }
        Ok(mask)
    }

    fn attribute(&self, number: u32, facts: &Facts, w: &mut Writer<'_>) -> xdr::Result<()> {
        match number {
            attr::TYPE => w.u32(facts.kind),
            attr::CHANGE => w.u64(facts.change),
            attr::SIZE => w.u64(facts.size),
            attr::RDATTR_ERROR => w.u32(Status::NFS4_OK.0),
            attr::FILEHANDLE => match FileHandle::new(&self.files.handle(facts.id)) {
                Some(handle) => handle.encode(w),
                None => w.opaque(&[]),
            },
            attr::FILEID | attr::MOUNTED_ON_FILEID => w.u64(fileid(facts.id)),
            attr::MODE => w.u32(facts.mode.into()),
            attr::NUMLINKS => w.u32(facts.links),
            // A number as a string: what clients with AUTH_SYS understand without a name service (RFC 8881 section 5.9).
            attr::OWNER => w.opaque(facts.uid.to_string().as_bytes()),
            attr::OWNER_GROUP => w.opaque(facts.gid.to_string().as_bytes()),
            attr::RAWDEV => {
                w.u32(facts.device.0)?;
                w.u32(facts.device.1)
            }
            attr::SPACE_USED => w.u64(facts.space),
            attr::TIME_ACCESS => facts.accessed.encode(w),
            attr::TIME_CREATE => facts.created.encode(w),
            attr::TIME_METADATA => facts.changed.encode(w),
            attr::TIME_MODIFY => facts.modified.encode(w),
            _ => self.general_attribute(number, w),
        }
    }

    /// What is the same for all files.
    fn general_attribute(&self, number: u32, w: &mut Writer<'_>) -> xdr::Result<()> {
        let (files, data) = (&self.files.files, &self.files.data);
        match number {
            attr::SUPPATTR_EXCLCREAT => SETTABLE.encode(w),
            attr::OPEN_ARGUMENTS => OPEN_ARGUMENTS.iter().try_for_each(|bits| bits.encode(w)),
            attr::FS_LAYOUT_TYPES => {
                w.u32(1)?;
                w.u32(LayoutType4::FLEX_FILES.0)
            }
            attr::FH_EXPIRE_TYPE => w.u32(FH4_PERSISTENT),
            attr::FSID => Fsid4 { major: self.files.volume.into(), minor: 0 }.encode(w),
            attr::LEASE_TIME => w.u32(self.config.lease.as_secs() as u32),
            attr::LINK_SUPPORT
            | attr::SYMLINK_SUPPORT
            | attr::UNIQUE_HANDLES
            | attr::CANSETTIME
            | attr::CASE_PRESERVING
            | attr::HOMOGENEOUS
            | attr::NO_TRUNC => w.bool(true),
            attr::NAMED_ATTR | attr::CASE_INSENSITIVE | attr::CHOWN_RESTRICTED => w.bool(false),
            attr::FILES_AVAIL | attr::FILES_FREE => w.u64(files.max().saturating_sub(files.used())),
            attr::FILES_TOTAL => w.u64(files.max()),
            attr::SPACE_AVAIL | attr::SPACE_FREE => w.u64(data.max().saturating_sub(data.used())),
            attr::SPACE_TOTAL => w.u64(data.max()),
            attr::MAXFILESIZE => w.u64(FILE_BYTES_MAX),
            attr::MAXLINK => w.u32(LINKS_MAX),
            attr::MAXNAME => w.u32(NAME_BYTES_MAX as u32),
            attr::MAXREAD => w.u64(self.config.response_bytes_max.saturating_sub(OVERHEAD_BYTES).into()),
            attr::MAXWRITE => w.u64(self.config.request_bytes_max.saturating_sub(OVERHEAD_BYTES).into()),
            attr::TIME_DELTA => NfsTime4 { seconds: 0, nseconds: 1 }.encode(w),
            // Nothing else is in SUPPORTED.
            _ => Ok(()),
        }
    }
}
