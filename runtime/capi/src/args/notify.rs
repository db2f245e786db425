//! Operations that tell of changes.

use super::{handle, invalid, rb_args, rb_fattr, rb_stateid};
use crate::connection::rb_bytes;
use crate::error::{Failure, guard};
use crate::pointer::{self, not_null};
use ringback_rpc::nfs4::callback::{
    CallbackOp, CbNotifyLockArgs, DeviceNotification, Notification, NotifyAdd, NotifyDeviceIdChange,
    NotifyDeviceIdDelete, NotifyEntry, NotifyRemove, NotifyRename, NotifyVerifier, PrevEntry,
};
use ringback_rpc::nfs4::{Bitmap4, ClientId4, DeviceId4, LayoutType4, OPAQUE_LIMIT, StateOwner4, Stateid4, Verifier4};
use ringback_rpc::xdr::{self, Encode, Writer};
use std::ffi::c_int;

/// What a directory notification says (RFC 8881 section 20.4, notify_type4).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum rb_notify_kind {
    /// Attributes of an entry changed: `entry`.
    RB_NOTIFY_CHILD_ATTRS = 0,
    /// Attributes of the directory changed: `entry`.
    RB_NOTIFY_DIR_ATTRS = 1,
    /// An entry was removed: `entry`, `cookie`.
    RB_NOTIFY_REMOVE = 2,
    /// An entry was added: `entry`; perhaps `replaced`, `cookie` and `previous`.
    RB_NOTIFY_ADD = 3,
    /// An entry was renamed: `old_entry`, `old_cookie`, and the rest as for an added one.
    RB_NOTIFY_RENAME = 4,
    /// The cookie verifier changed: `verifier_old`, `verifier_new`.
    RB_NOTIFY_VERIFIER = 5,
}

/// A directory entry.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_notify_entry {
    /// Its name.
    pub name: rb_bytes,
    /// Its attributes, as many as the client asked for.
    pub attributes: rb_fattr,
    /// Its READDIR cookie.
    pub cookie: u64,
}

impl rb_notify_entry {
    /// # Safety
    ///
    /// P2.
    unsafe fn get<'a>(&self) -> Result<NotifyEntry<'a>, Failure> {
        // SAFETY: P2
        let name = unsafe { self.name.get("name") }?;
        // SAFETY: P2
        let attributes = unsafe { self.attributes.get() }?;
        Ok(NotifyEntry { name, attributes })
    }

    /// # Safety
    ///
    /// P2.
    unsafe fn removed<'a>(&self) -> Result<NotifyRemove<'a>, Failure> {
        // SAFETY: P2
        Ok(NotifyRemove { entry: unsafe { self.get() }?, cookie: self.cookie })
    }

    /// # Safety
    ///
    /// P2.
    unsafe fn before<'a>(&self) -> Result<PrevEntry<'a>, Failure> {
        // SAFETY: P2
        Ok(PrevEntry { entry: unsafe { self.get() }?, cookie: self.cookie })
    }
}

/// One change of a directory. What a kind does not name is not looked at.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_notification {
    /// An rb_notify_kind.
    pub kind: i32,
    /// RB_NOTIFY_ADD, RB_NOTIFY_RENAME: 1 if `entry.cookie` is to be told.
    pub has_cookie: i32,
    /// 1 if the entry is the last of the directory.
    pub is_last: i32,
    /// 0.
    pub reserved: i32,
    /// The entry.
    pub entry: rb_notify_entry,
    /// RB_NOTIFY_RENAME: what it was before.
    pub old_entry: rb_notify_entry,
    /// RB_NOTIFY_ADD, RB_NOTIFY_RENAME: the entry that was replaced; null: none.
    pub replaced: *const rb_notify_entry,
    /// RB_NOTIFY_ADD, RB_NOTIFY_RENAME: the entry before it; null: not told.
    pub previous: *const rb_notify_entry,
    /// RB_NOTIFY_VERIFIER.
    pub verifier_old: [u8; 8],
    /// RB_NOTIFY_VERIFIER.
    pub verifier_new: [u8; 8],
}

impl rb_notification {
    /// # Safety
    ///
    /// P2.
    unsafe fn added<'a>(&self) -> Result<NotifyAdd<'a>, Failure> {
        // SAFETY: P2: one, or null.
        let replaced = unsafe { self.replaced.as_ref() };
        // SAFETY: P2: one, or null.
        let previous = unsafe { self.previous.as_ref() };
        // SAFETY: P2
        let old_entry = replaced.map(|entry| unsafe { entry.removed() }).transpose()?;
        // SAFETY: P2
        let prev_entry = previous.map(|entry| unsafe { entry.before() }).transpose()?;
        Ok(NotifyAdd {
            old_entry,
            // SAFETY: P2
            new_entry: unsafe { self.entry.get() }?,
            new_entry_cookie: (self.has_cookie != 0).then_some(self.entry.cookie),
            prev_entry,
            last_entry: self.is_last != 0,
        })
    }

    /// # Safety
    ///
    /// P2.
    unsafe fn get<'a>(&self) -> Result<Notification<'a>, Failure> {
        Ok(match self.kind {
            // SAFETY: P2
            0 => Notification::ChangeChildAttributes(unsafe { self.entry.get() }?),
            // SAFETY: P2
            1 => Notification::ChangeDirectoryAttributes(unsafe { self.entry.get() }?),
            // SAFETY: P2
            2 => Notification::Remove(unsafe { self.entry.removed() }?),
            // SAFETY: P2
            3 => Notification::Add(unsafe { self.added() }?),
            4 => {
                // SAFETY: P2
                let old_entry = unsafe { self.old_entry.removed() }?;
                // SAFETY: P2
                Notification::Rename(NotifyRename { old_entry, new_entry: unsafe { self.added() }? })
            }
            5 => Notification::ChangeCookieVerifier(NotifyVerifier {
                old: Verifier4(self.verifier_old),
                new: Verifier4(self.verifier_new),
            }),
            other => return Err(invalid(format!("kind is {other}, which is no rb_notify_kind"))),
        })
    }
}

/// Writes one notify4: a mask of one bit, and an opaque body that holds one value.
fn notify4(w: &mut Writer<'_>, bit: u32, value: impl FnOnce(&mut Writer<'_>) -> xdr::Result<()>) -> xdr::Result<()> {
    Bitmap4::of(&[bit]).encode(w)?;
    let length = w.reserve_u32()?;
    let begin = w.position();
    value(w)?;
    // Every value is made of whole words: there is no padding.
    let bytes = w.position() - begin;
    w.patch_u32(length, bytes as u32);
    Ok(())
}

/// CB_NOTIFY (RFC 8881 section 20.4).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_notify_args {
    /// The directory delegation.
    pub stateid: rb_stateid,
    /// The directory.
    pub fh: rb_bytes,
    /// What changed.
    pub changes: *const rb_notification,
    /// How many.
    pub changes_count: usize,
}

/// Writes the arguments of CB_NOTIFY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_encode_notify(args: Option<&mut rb_args>, notify: Option<&rb_notify_args>) -> c_int {
    guard("rb_encode_notify", String::new, || {
        let (args, from) = (not_null(args, "args")?, not_null(notify, "notify")?);
        // SAFETY: P2
        let fh = unsafe { handle(from.fh) }?;
        // SAFETY: P2
        let changes = unsafe { pointer::slice(from.changes, from.changes_count, "changes") }?;
        // Before the first byte is written.
        // SAFETY: P2
        changes.iter().try_for_each(|change| unsafe { change.get() }.map(drop))?;
        args.write(CallbackOp::Notify, |w| {
            Stateid4::from(from.stateid).encode(w)?;
            fh.encode(w)?;
            w.count(changes.len())?;
            changes.iter().try_for_each(|change| {
                // SAFETY: P2
                let Ok(value) = (unsafe { change.get() }) else { return Ok(()) };
                notify4(w, value.bit(), |w| value.encode(w))
            })
        })
    })
}

/// CB_NOTIFY_LOCK (RFC 8881 section 20.11): a lock may be had.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_notify_lock_args {
    /// The file.
    pub fh: rb_bytes,
    /// The client id of who asked for the lock.
    pub client_id: u64,
    /// Who asked for it, at most 1024 bytes.
    pub owner: rb_bytes,
}

/// Writes the arguments of CB_NOTIFY_LOCK.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_encode_notify_lock(
    args: Option<&mut rb_args>,
    notify_lock: Option<&rb_notify_lock_args>,
) -> c_int {
    guard("rb_encode_notify_lock", String::new, || {
        let (args, from) = (not_null(args, "args")?, not_null(notify_lock, "notify_lock")?);
        // SAFETY: P2
        let fh = unsafe { handle(from.fh) }?;
        // SAFETY: P2
        let owner = unsafe { from.owner.get("owner") }?;
        let lock_owner = StateOwner4::new(ClientId4(from.client_id), owner)
            .ok_or_else(|| invalid(format!("an owner of {} bytes: {OPAQUE_LIMIT} are the most", owner.len())))?;
        args.write(CallbackOp::NotifyLock, |w| CbNotifyLockArgs { fh, lock_owner }.encode(w))
    })
}

/// One change of a device id.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_device_notification {
    /// 1: it is deleted; 0: its addresses changed.
    pub is_deleted: i32,
    /// The layout type (layouttype4).
    pub layout_type: u32,
    /// The device id.
    pub device_id: [u8; 16],
    /// Changed: 1 if the old addresses must not be used any more.
    pub immediate: i32,
}

/// Writes the arguments of CB_NOTIFY_DEVICEID (RFC 8881 section 20.12).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_encode_notify_deviceid(
    args: Option<&mut rb_args>,
    changes: *const rb_device_notification,
    changes_count: usize,
) -> c_int {
    guard("rb_encode_notify_deviceid", String::new, || {
        let args = not_null(args, "args")?;
        // SAFETY: P2
        let changes = unsafe { pointer::slice(changes, changes_count, "changes") }?;
        args.write(CallbackOp::NotifyDeviceId, |w| {
            w.count(changes.len())?;
            changes.iter().try_for_each(|change| {
                let (layout_type, device_id) = (LayoutType4(change.layout_type), DeviceId4(change.device_id));
                let value = if change.is_deleted != 0 {
                    DeviceNotification::Delete(NotifyDeviceIdDelete { layout_type, device_id })
                } else {
                    let immediate = change.immediate != 0;
                    DeviceNotification::Change(NotifyDeviceIdChange { layout_type, device_id, immediate })
                };
                notify4(w, value.bit(), |w| value.encode(w))
            })
        })
    })
}
