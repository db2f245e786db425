//! Attributes that a client sets: with SETATTR, or as it creates a file (RFC 8881 sections 5.5 and 18.30).

use crate::attributes::SUPPORTED;
use crate::data::Data;
use crate::file::{File, Kind};
use crate::quota::Quota;
use ringback_rpc::nfs4::{Bitmap4, Fattr, NfsTime4, Status, attr};
use ringback_rpc::xdr::{Decode, Reader, XdrError};

/// What may be set.
pub(crate) const SETTABLE: Bitmap4 = Bitmap4::of(&[
    attr::SIZE,
    attr::MODE,
    attr::OWNER,
    attr::OWNER_GROUP,
    attr::TIME_ACCESS_SET,
    attr::TIME_MODIFY_SET,
]);
/// Longest owner's name: a number.
const OWNER_BYTES_MAX: usize = 10;
/// Nanoseconds of a valid time.
const NANOSECONDS: u32 = 1_000_000_000;

/// The changes that the attributes of a request ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) size: Option<u64>,
    mode: Option<u16>,
    uid: Option<u32>,
    gid: Option<u32>,
    accessed: Option<NfsTime4>,
    modified: Option<NfsTime4>,
}

impl Changes {
    /// Reads and checks them. `now` is what "the server's time" means.
    pub(crate) fn parse(attributes: &Fattr<'_>, now: NfsTime4) -> Result<Changes, Status> {
        let mask = &attributes.mask;
        if mask.and(&SUPPORTED) != *mask {
            return Err(Status::NFS4ERR_ATTRNOTSUPP);
        }
        if mask.and(&SETTABLE) != *mask {
            // Known, and not to be set (RFC 8881 section 5.5).
            return Err(Status::NFS4ERR_INVAL);
        }
        let badxdr = |_: XdrError| Status::NFS4ERR_BADXDR;
        let mut values = Reader::new(attributes.values);
        let mut changes = Changes::default();
        for number in mask.iter() {
            match number {
                attr::SIZE => changes.size = Some(values.u64("size").map_err(badxdr)?),
                attr::MODE => changes.mode = Some(mode(values.u32("mode").map_err(badxdr)?)?),
                attr::OWNER => changes.uid = Some(owner(&mut values)?),
                attr::OWNER_GROUP => changes.gid = Some(owner(&mut values)?),
                attr::TIME_ACCESS_SET => changes.accessed = Some(time(&mut values, now)?),
                attr::TIME_MODIFY_SET => changes.modified = Some(time(&mut values, now)?),
                // Nothing else is in SETTABLE.
                _ => return Err(Status::NFS4ERR_INVAL),
            }
        }
        values.finish("fattr4").map_err(badxdr)?;
        Ok(changes)
    }

    /// Sets them on a file that nobody has seen yet.
    pub(crate) fn apply_to_new(&self, file: &mut File, quota: &Quota) -> Result<(), Status> {
        let made = file.created();
        match self.size {
            None | Some(0) => {}
            Some(size) => file.data_mut()?.set_size(size, quota)?,
        }
        self.set(file);
        if self.modified.is_some() || self.accessed.is_some() {
            file.body_mut().changed = made;
        }
        Ok(())
    }

    /// SETATTR on a file. The size comes first, as only it can fail.
    pub(crate) fn apply(&self, file: &mut File, quota: &Quota, now: NfsTime4) -> Result<(), Status> {
        if let Some(size) = self.size {
            let data: &mut Data = file.data_mut()?;
            data.set_size(size, quota)?;
            file.modify(now);
        }
        if *self != (Changes { size: self.size, ..Changes::default() }) {
            self.set(file);
            file.touch(now);
        }
        Ok(())
    }

    fn set(&self, file: &mut File) {
        if let Some(mode) = self.mode {
            file.mode = mode;
        }
        if self.uid.is_some() || self.gid.is_some() || self.accessed.is_some() || self.modified.is_some() {
            let body = file.body_mut();
            body.uid = self.uid.unwrap_or(body.uid);
            body.gid = self.gid.unwrap_or(body.gid);
            body.accessed = self.accessed.unwrap_or(body.accessed);
            body.modified = self.modified.unwrap_or(body.modified);
        }
    }
}

/// Which attributes a create may carry for a file of that kind: only a regular file has a size to set.
pub(crate) fn check_kind(changes: &Changes, kind: &Kind) -> Result<(), Status> {
    match kind {
        Kind::Regular(_) => Ok(()),
        _ if changes.size.is_some() => Err(Status::NFS4ERR_INVAL),
        _ => Ok(()),
    }
}

fn mode(mode: u32) -> Result<u16, Status> {
    match u16::try_from(mode) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(Status::NFS4ERR_INVAL),
    }
}

/// A number as a string, which is what clients with AUTH_SYS send; there is no name service here (RFC 8881 section 5.9).
fn owner(values: &mut Reader<'_>) -> Result<u32, Status> {
    let name = values.opaque("owner", u32::MAX as usize).map_err(|_| Status::NFS4ERR_BADXDR)?;
    let digits = std::str::from_utf8(name).map_err(|_| Status::NFS4ERR_INVAL)?;
    let number = digits.len() <= OWNER_BYTES_MAX && digits.bytes().all(|b| b.is_ascii_digit());
    number.then(|| digits.parse().ok()).flatten().ok_or(Status::NFS4ERR_BADOWNER)
}

/// `settime4`: the server's time, or one of the client's.
fn time(values: &mut Reader<'_>, now: NfsTime4) -> Result<NfsTime4, Status> {
    match values.u32("time_how4") {
        Ok(0) => Ok(now),
        Ok(1) => match NfsTime4::decode(values) {
            Ok(time) if time.nseconds < NANOSECONDS => Ok(time),
            Ok(_) => Err(Status::NFS4ERR_INVAL),
            Err(_) => Err(Status::NFS4ERR_BADXDR),
        },
        _ => Err(Status::NFS4ERR_BADXDR),
    }
}
