//! What clients are told of their layouts and of the device, and what becomes of it: CB_LAYOUTRECALL and CB_NOTIFY_DEVICEID (RFC 8881
//! sections 20.3 and 20.12).

use crate::Inner;
use crate::arena::Id;
use crate::callbacks::GONE;
use crate::layouts::Word;
use crate::stateids::Kind;
use ringback::{Done, Outcome};
use ringback_rpc::nfs4::callback::{
    CbLayoutRecallArgs, CbNotifyDeviceIdArgs, DeviceNotification, LayoutRecall, Notify4, NotifyDeviceIdChange,
    NotifyDeviceIdDelete,
};
use ringback_rpc::nfs4::{Bitmap4, DeviceId4, FileHandle, Fsid4, LayoutIomode4, LayoutType4, List, Status};
use ringback_rpc::xdr::{self, Encode, Writer};
use std::sync::Arc;

/// How often a client may deny that it has a layout before it is believed: the reply to its LAYOUTGET may be still on its way
/// (RFC 8881 section 12.5.5.2.1).
const DENIALS_MAX: u8 = 5;
/// Nanoseconds until a recall that was denied is sent again.
const DENIAL_DELAY_NS: u64 = 200_000_000;

impl Inner {
    /// The name of a device: of this server, by its number.
    pub(crate) fn device_id(&self, number: u64) -> DeviceId4 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&self.files.volume.to_be_bytes());
        id[4..8].copy_from_slice(&self.files.instance.to_be_bytes());
        id[8..].copy_from_slice(&number.to_be_bytes());
        DeviceId4(id)
    }

    /// The number of a device of this server.
    pub(crate) fn device_number(&self, id: &DeviceId4) -> Option<u64> {
        let number = u64::from_be_bytes(*id.0.last_chunk()?);
        (self.device_id(number) == *id).then_some(number)
    }

    pub(crate) fn encode_layout_recall(&self, id: Id, w: &mut Writer<'_>) -> xdr::Result<()> {
        let (file, seqid) = self.layouts.lock().layouts.get(id).map(|l| (l.file, l.seqid)).ok_or(GONE)?;
        let handle = self.files.handle(file);
        let fh = FileHandle::new(&handle).ok_or(GONE)?;
        let stateid = self.files.stateid(Kind::Layout, id, seqid);
        recall(LayoutRecall::File { fh, offset: 0, length: u64::MAX, stateid }).encode(w)
    }

    pub(crate) fn encode_word(&self, id: Id, w: &mut Writer<'_>) -> xdr::Result<()> {
        let (word, device) = self.layouts.lock().said.get(id).map(|said| (said.word, said.device)).ok_or(GONE)?;
        let (layout_type, device_id) = (LayoutType4::FLEX_FILES, self.device_id(device));
        let notification = match word {
            Word::ReturnFsid => {
                return recall(LayoutRecall::Fsid(Fsid4 { major: self.files.volume.into(), minor: 0 })).encode(w);
            }
            Word::ReturnAll => return recall(LayoutRecall::All).encode(w),
            Word::DeviceChanged => {
                DeviceNotification::Change(NotifyDeviceIdChange { layout_type, device_id, immediate: true })
            }
            Word::DeviceDeleted => DeviceNotification::Delete(NotifyDeviceIdDelete { layout_type, device_id }),
        };
        let mut space = [0; 64];
        let mut values = Writer::new(&mut space);
        notification.encode(&mut values)?;
        let change = Notify4 { mask: Bitmap4::of(&[notification.bit()]), values: values.written() };
        CbNotifyDeviceIdArgs { changes: List::Slice(&[change]) }.encode(w)
    }

    /// How the recall of one layout went.
    pub(crate) fn layout_recall_done(&self, id: Id, outcome: &Outcome<'_>) -> Done {
        let mut content = self.layouts.lock();
        let Some(layout) = content.layouts.get_mut(id).filter(|l| !l.gone) else { return Done::Finish };
        match outcome {
            Outcome::Replied { status: Status::NFS4ERR_NOMATCHING_LAYOUT, .. } => {
                layout.denials += 1;
                if layout.denials < DENIALS_MAX {
                    return Done::RequeueAfter(DENIAL_DELAY_NS);
                }
            }
            Outcome::TimedOut { sent: false } | Outcome::PathDown => {}
            // It was told, or may have been: the return is awaited, or overdue some day.
            _ => return Done::Finish,
        }
        let client = Arc::clone(&layout.client);
        content.drop_layout(id, &self.callbacks);
        content.end_recalls(&client, &self.callbacks);
        Done::Finish
    }

    /// How it went to have a client return all.
    pub(crate) fn layouts_recall_done(&self, id: Id, outcome: &Outcome<'_>) -> Done {
        if matches!(
            outcome,
            Outcome::Replied { status: Status::NFS4ERR_NOMATCHING_LAYOUT, .. }
                | Outcome::TimedOut { sent: false }
                | Outcome::PathDown
        ) {
            self.layouts_overdue(id);
        }
        Done::Finish
    }

    /// A layout was not returned in time: its client is fenced off.
    pub(crate) fn layout_overdue(&self, id: Id) {
        let mut content = self.layouts.lock();
        let Some(client) = content.layouts.get(id).filter(|l| !l.gone).map(|l| Arc::clone(&l.client)) else { return };
        content.drop_layout(id, &self.callbacks);
        content.end_recalls(&client, &self.callbacks);
    }

    /// All that a client has was not returned in time, or it has nothing.
    pub(crate) fn layouts_overdue(&self, id: Id) {
        let client = self.layouts.lock().said.get(id).map(|said| Arc::clone(&said.client));
        if let Some(client) = client {
            self.layouts.give_back_all(&client, &self.callbacks);
        }
    }
}

fn recall(recall: LayoutRecall<'_>) -> CbLayoutRecallArgs<'_> {
    CbLayoutRecallArgs {
        layout_type: LayoutType4::FLEX_FILES,
        iomode: LayoutIomode4::Any,
        // What was written may still be committed here.
        changed: false,
        recall,
    }
}
