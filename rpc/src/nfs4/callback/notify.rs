//! What CB_NOTIFY and CB_NOTIFY_DEVICEID carry. On the wire a notification is a mask of types and an opaque body that
//! holds one value for each bit, in ascending order (RFC 8881 section 20.4).

use super::super::{Bitmap4, DeviceId4, Fattr, LayoutType4, Verifier4};
use crate::nfs4::wire::{undefined, wire_struct};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

/// Bits of a directory notification (RFC 8881 section 20.4.1, `notify_type4`).
pub mod notify_type {
    /// NOTIFY4_CHANGE_CHILD_ATTRS.
    pub const CHANGE_CHILD_ATTRS: u32 = 0;
    /// NOTIFY4_CHANGE_DIR_ATTRS.
    pub const CHANGE_DIR_ATTRS: u32 = 1;
    /// NOTIFY4_REMOVE_ENTRY.
    pub const REMOVE_ENTRY: u32 = 2;
    /// NOTIFY4_ADD_ENTRY.
    pub const ADD_ENTRY: u32 = 3;
    /// NOTIFY4_RENAME_ENTRY.
    pub const RENAME_ENTRY: u32 = 4;
    /// NOTIFY4_CHANGE_COOKIE_VERIFIER.
    pub const CHANGE_COOKIE_VERIFIER: u32 = 5;
}

/// Bits of a device notification (RFC 8881 section 20.12.1, `notify_deviceid_type4`).
pub mod device_notify_type {
    /// NOTIFY_DEVICEID4_CHANGE.
    pub const CHANGE: u32 = 1;
    /// NOTIFY_DEVICEID4_DELETE.
    pub const DELETE: u32 = 2;
}

wire_struct! {
    /// Notifications, packed (RFC 8881 section 20.4.1, `notify4`).
    pub struct Notify4<'a> {
        /// Which types.
        pub mask: Bitmap4 = "notify_mask",
        /// Their values, see [`Notify4::notifications`] and [`Notify4::device_notifications`].
        pub values: &'a [u8] = "notify_vals",
    }
}

impl<'a> Notify4<'a> {
    /// The values of a directory notification, each decoded as it is reached. After an error there is nothing more.
    pub fn notifications(&self) -> Notifications<'a> {
        Notifications { mask: self.mask, bit: 0, reader: Reader::new(self.values) }
    }

    /// The values of a device notification, each decoded as it is reached. After an error there is nothing more.
    pub fn device_notifications(&self) -> DeviceNotifications<'a> {
        DeviceNotifications { mask: self.mask, bit: 0, reader: Reader::new(self.values) }
    }
}

wire_struct! {
    /// A directory entry (RFC 8881 section 20.4.1, `notify_entry4`).
    pub struct NotifyEntry<'a> {
        /// Its name.
        pub name: &'a [u8] = "ne_file",
        /// Its attributes, as many as the client asked for.
        pub attributes: Fattr<'a> = "ne_attrs",
    }
}

wire_struct! {
    /// The entry before an added one (RFC 8881 section 20.4.1, `prev_entry4`).
    pub struct PrevEntry<'a> {
        /// The entry.
        pub entry: NotifyEntry<'a> = "pe_prev_entry",
        /// Its READDIR cookie.
        pub cookie: u64 = "pe_prev_entry_cookie",
    }
}

wire_struct! {
    /// An entry was removed (RFC 8881 section 20.4.1, `notify_remove4`).
    pub struct NotifyRemove<'a> {
        /// The entry.
        pub entry: NotifyEntry<'a> = "nrm_old_entry",
        /// Its READDIR cookie.
        pub cookie: u64 = "nrm_old_entry_cookie",
    }
}

wire_struct! {
    /// An entry was added (RFC 8881 section 20.4.1, `notify_add4`).
    pub struct NotifyAdd<'a> {
        /// What a rename replaced.
        pub old_entry: Option<NotifyRemove<'a>> = "nad_old_entry",
        /// The entry.
        pub new_entry: NotifyEntry<'a> = "nad_new_entry",
        /// Its READDIR cookie.
        pub new_entry_cookie: Option<u64> = "nad_new_entry_cookie",
        /// The entry before it.
        pub prev_entry: Option<PrevEntry<'a>> = "nad_prev_entry",
        /// Whether it is the last entry of the directory.
        pub last_entry: bool = "nad_last_entry",
    }
}

wire_struct! {
    /// An entry was renamed (RFC 8881 section 20.4.1, `notify_rename4`).
    pub struct NotifyRename<'a> {
        /// The old entry.
        pub old_entry: NotifyRemove<'a> = "nrn_old_entry",
        /// The new entry.
        pub new_entry: NotifyAdd<'a> = "nrn_new_entry",
    }
}

wire_struct! {
    /// The cookie verifier changed (RFC 8881 section 20.4.1, `notify_verifier4`).
    pub struct NotifyVerifier {
        /// The old one.
        pub old: Verifier4 = "nv_old_cookieverf",
        /// The new one.
        pub new: Verifier4 = "nv_new_cookieverf",
    }
}

wire_struct! {
    /// A device id was deleted (RFC 8881 section 20.12.1, `notify_deviceid_delete4`).
    pub struct NotifyDeviceIdDelete {
        /// The layout type.
        pub layout_type: LayoutType4 = "ndd_layouttype",
        /// The device id.
        pub device_id: DeviceId4 = "ndd_deviceid",
    }
}

wire_struct! {
    /// A device id's addresses changed (RFC 8881 section 20.12.1, `notify_deviceid_change4`).
    pub struct NotifyDeviceIdChange {
        /// The layout type.
        pub layout_type: LayoutType4 = "ndc_layouttype",
        /// The device id.
        pub device_id: DeviceId4 = "ndc_deviceid",
        /// Whether the old addresses must not be used any more.
        pub immediate: bool = "ndc_immediate",
    }
}

/// One value of a directory notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification<'a> {
    /// Attributes of an entry changed (`notify_attr4`).
    ChangeChildAttributes(NotifyEntry<'a>),
    /// Attributes of the directory changed (`notify_attr4`).
    ChangeDirectoryAttributes(NotifyEntry<'a>),
    /// An entry was removed.
    Remove(NotifyRemove<'a>),
    /// An entry was added.
    Add(NotifyAdd<'a>),
    /// An entry was renamed.
    Rename(NotifyRename<'a>),
    /// The cookie verifier changed.
    ChangeCookieVerifier(NotifyVerifier),
}

impl<'a> Notification<'a> {
    /// The bit that stands for it in [`Notify4::mask`].
    pub const fn bit(&self) -> u32 {
        match self {
            Notification::ChangeChildAttributes(_) => notify_type::CHANGE_CHILD_ATTRS,
            Notification::ChangeDirectoryAttributes(_) => notify_type::CHANGE_DIR_ATTRS,
            Notification::Remove(_) => notify_type::REMOVE_ENTRY,
            Notification::Add(_) => notify_type::ADD_ENTRY,
            Notification::Rename(_) => notify_type::RENAME_ENTRY,
            Notification::ChangeCookieVerifier(_) => notify_type::CHANGE_COOKIE_VERIFIER,
        }
    }

    fn decode(bit: u32, r: &mut Reader<'a>) -> Result<Self> {
        match bit {
            notify_type::CHANGE_CHILD_ATTRS => Decode::decode(r).map(Notification::ChangeChildAttributes),
            notify_type::CHANGE_DIR_ATTRS => Decode::decode(r).map(Notification::ChangeDirectoryAttributes),
            notify_type::REMOVE_ENTRY => Decode::decode(r).map(Notification::Remove),
            notify_type::ADD_ENTRY => Decode::decode(r).map(Notification::Add),
            notify_type::RENAME_ENTRY => Decode::decode(r).map(Notification::Rename),
            notify_type::CHANGE_COOKIE_VERIFIER => Decode::decode(r).map(Notification::ChangeCookieVerifier),
            bit => Err(undefined("notify_type4", r.offset(), bit)),
        }
    }
}

impl Encode for Notification<'_> {
    /// Writes the value, which is a part of [`Notify4::values`]; the caller sets its [`Notification::bit`].
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            Notification::ChangeChildAttributes(entry) | Notification::ChangeDirectoryAttributes(entry) => {
                entry.encode(w)
            }
            Notification::Remove(remove) => remove.encode(w),
            Notification::Add(add) => add.encode(w),
            Notification::Rename(rename) => rename.encode(w),
            Notification::ChangeCookieVerifier(verifier) => verifier.encode(w),
        }
    }
}

/// One value of a device notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceNotification {
    /// Addresses changed.
    Change(NotifyDeviceIdChange),
    /// The device id was deleted.
    Delete(NotifyDeviceIdDelete),
}

impl DeviceNotification {
    /// The bit that stands for it in [`Notify4::mask`].
    pub const fn bit(&self) -> u32 {
        match self {
            DeviceNotification::Change(_) => device_notify_type::CHANGE,
            DeviceNotification::Delete(_) => device_notify_type::DELETE,
        }
    }

    fn decode(bit: u32, r: &mut Reader<'_>) -> Result<Self> {
        match bit {
            device_notify_type::CHANGE => Decode::decode(r).map(DeviceNotification::Change),
            device_notify_type::DELETE => Decode::decode(r).map(DeviceNotification::Delete),
            bit => Err(undefined("notify_deviceid_type4", r.offset(), bit)),
        }
    }
}

impl Encode for DeviceNotification {
    /// Writes the value, which is a part of [`Notify4::values`]; the caller sets its [`DeviceNotification::bit`].
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            DeviceNotification::Change(change) => change.encode(w),
            DeviceNotification::Delete(delete) => delete.encode(w),
        }
    }
}

/// Takes the lowest bit that is at least `from`.
fn next_bit(mask: &Bitmap4, from: u32) -> Option<u32> {
    mask.iter().find(|bit| *bit >= from)
}

macro_rules! values_iterator {
    ($(#[$meta:meta])* $name:ident, $value:ty, $decode:path) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name<'a> {
            mask: Bitmap4,
            bit: u32,
            reader: Reader<'a>,
        }

        impl<'a> Iterator for $name<'a> {
            type Item = Result<$value>;

            fn next(&mut self) -> Option<Self::Item> {
                let Some(bit) = next_bit(&self.mask, self.bit) else {
                    // No bit is left: no byte may be, either.
                    let end = self.reader.finish("notify_vals");
                    self.reader = Reader::new(&[]);
                    return end.err().map(Err);
                };
                self.bit = bit + 1;
                let value = $decode(bit, &mut self.reader);
                if value.is_err() {
                    self.mask = Bitmap4::EMPTY;
                    self.reader = Reader::new(&[]);
                }
                Some(value)
            }
        }
    };
}

values_iterator! {
    /// Iterates over the values of a directory notification.
    Notifications, Notification<'a>, Notification::decode
}

values_iterator! {
    /// Iterates over the values of a device notification.
    DeviceNotifications, DeviceNotification, DeviceNotification::decode
}
