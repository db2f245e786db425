//! Copies that go on after the reply to COPY (RFC 7862 sections 4 and 15.2): one object each, which a thread of ours works on
//! (`later.rs`) and CB_OFFLOAD is about. It goes when the client has been told, has cancelled it, or is gone. If it could not be
//! told, or its answer was lost, the end of its copy is kept until it asks, or room is wanted.

use crate::Inner;
use crate::arena::{Arena, Id};
use crate::callbacks::{Callbacks, Subject};
use crate::clients::{Client, Clients};
use crate::file::now;
use crate::files::SPARE_BITS;
use crate::keep::{Keep, keep, malformed};
use ringback::{CallbackKey, ReferringCalls};
use ringback_rpc::nfs4::fore::OffloadStatusOk;
use ringback_rpc::nfs4::{ClientId4, SessionId, Status};
use ringback_rpc::session::{SequenceId, SlotId};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Copies that go on at once, in the whole server.
const COPIES_MAX: u32 = 1024;
const _: () = assert!(COPIES_MAX < u32::MAX >> SPARE_BITS);
/// Bytes that are copied at a time: in a reply, or before others have their turn.
pub(crate) const STEP_BYTES: usize = 1 << 20;

/// From where to where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) from: Id,
    pub(crate) from_offset: u64,
    pub(crate) to: Id,
    pub(crate) to_offset: u64,
    /// Bytes that are still to be copied.
    pub(crate) left: u64,
}

/// The request that began a copy: where it came on the fore channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) session: SessionId,
    pub(crate) slot: SlotId,
    pub(crate) id: SequenceId,
}

/// A copy.
#[derive(Debug)]
pub(crate) struct Copying {
    pub(crate) client: Arc<Client>,
    callback: Option<CallbackKey>,
    pub(crate) way: Way,
    pub(crate) copied: u64,
    /// How it ended; the client is being told.
    pub(crate) ended: Option<Status>,
    request: Option<Request>,
    /// CB_OFFLOAD names the request: its reply may still be on its way.
    refers: bool,
    /// The client has answered CB_OFFLOAD.
    told: bool,
}

/// The same on its way to another process.
struct Kept {
    client: ClientId4,
    callback: Option<CallbackKey>,
    way: Way,
    copied: u64,
    ended: Option<Status>,
    request: Option<Request>,
    refers: bool,
    told: bool,
}

keep! {
    Kept { client, callback, way, copied, ended, request, refers, told }
    Request { session, slot, id }
}

/// All copies.
pub(crate) struct Copies(Mutex<Arena<Copying>>);

keep! {
    Way { from, from_offset, to, to_offset, left }
}

impl Copies {
    /// All of them, for another process.
    pub(crate) fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        let copies = self.lock();
        copies
            .map(|&Copying { ref client, callback, way, copied, ended, request, refers, told }| Kept {
                client: client.id,
                callback,
                way,
                copied,
                ended,
                request,
                refers,
                told,
            })
            .save(out)
    }

    /// Those of another process, of these clients.
    pub(crate) fn load(clients: &Clients, from: &mut dyn Read) -> io::Result<Self> {
        let kept: Arena<Kept> = Keep::load(from)?;
        let copies = kept.try_map(|&Kept { client, callback, way, copied, ended, request, refers, told }| {
            let client = Arc::clone(clients.client(client)?);
            Some(Copying { client, callback, way, copied, ended, request, refers, told })
        });
        Ok(Copies(Mutex::new(copies.ok_or_else(malformed)?)))
    }

    /// Those that go on.
    pub(crate) fn going_on(&self) -> Vec<Id> {
        let copies = self.lock();
        let ids = (0..copies.index_end()).filter_map(|index| copies.id_at(index));
        ids.filter(|id| copies.get(*id).is_some_and(|copying| copying.ended.is_none())).collect()
    }

    pub(crate) const fn new() -> Self {
        Copies(Mutex::new(Arena::new(COPIES_MAX)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Arena<Copying>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one. `None`: there are too many, or the client is going away.
    pub(crate) fn begin(
        &self,
        client: &Arc<Client>,
        way: Way,
        request: Option<Request>,
        callbacks: &Callbacks,
    ) -> Option<Id> {
        let mut copies = self.lock();
        if copies.len() >= COPIES_MAX {
            // Those that nobody has asked about.
            forget_all(&mut copies, callbacks, Copying::is_kept);
        }
        let (refers, told, ended) = (false, false, None);
        let client = Arc::clone(client);
        let callbacks_of = client.callbacks;
        let id = copies.insert(Copying { client, callback: None, way, copied: 0, ended, request, refers, told })?;
        let callback = callbacks.insert(callbacks_of, Subject::Offload(id));
        let copying = copies.get_mut(id)?;
        copying.callback = callback;
        // Who drops the client marks it first, and looks for its copies then.
        if callback.is_none() || copying.client.is_gone() {
            forget(&mut copies, id, callbacks);
            return None;
        }
        Some(id)
    }

    /// Ends a copy that its client does not want any more. An error: it has ended already, or is not there.
    pub(crate) fn cancel(&self, client: &Client, id: Id, callbacks: &Callbacks) -> Result<(), Status> {
        let mut copies = self.lock();
        let copying = copies.get(id).filter(|c| std::ptr::eq(&*c.client, client));
        match copying.ok_or(Status::NFS4ERR_BAD_STATEID)?.ended {
            Some(_) => {
                if copying.is_some_and(Copying::is_kept) {
                    forget(&mut copies, id, callbacks);
                }
                Err(Status::NFS4ERR_COMPLETE_ALREADY)
            }
            None => {
                forget(&mut copies, id, callbacks);
                Ok(())
            }
        }
    }

    /// Forgets those of a client that is gone. One that is being told about goes with its callback.
    pub(crate) fn forget_client(&self, client: &Client, callbacks: &Callbacks) {
        forget_all(&mut self.lock(), callbacks, |copying| {
            std::ptr::eq(&*copying.client, client) && (copying.ended.is_none() || copying.is_kept())
        });
    }

    /// The client has answered CB_OFFLOAD.
    pub(crate) fn was_told(&self, id: Id) {
        if let Some(copying) = self.lock().get_mut(id) {
            copying.told = true;
        }
    }

    /// The client has been told, or will not be: then it may ask.
    pub(crate) fn forget_told(&self, id: Id, callbacks: &Callbacks) {
        let mut copies = self.lock();
        let Some(copying) = copies.get_mut(id) else { return };
        if copying.told || copying.client.is_gone() {
            return forget(&mut copies, id, callbacks);
        }
        if let Some(callback) = copying.callback.take() {
            callbacks.remove_is_final(callback);
        }
    }

    /// Ends the copies to a file that go on; who is to be told, and by which callbacks.
    pub(crate) fn end_those_to(&self, to: Id) -> Vec<(Arc<Client>, CallbackKey)> {
        let mut copies = self.lock();
        let mut ended = Vec::new();
        for index in 0..copies.index_end() {
            if let Some(copying) = copies.at_mut(index).filter(|c| c.way.to == to && c.ended.is_none())
                && let Some(callback) = copying.callback
            {
                copying.ended = Some(Status::NFS4ERR_IO);
                ended.push((Arc::clone(&copying.client), callback));
            }
        }
        ended
    }

    /// How far a copy of the client's is. Of one whose end could not be told it is told once.
    pub(crate) fn status(&self, client: &Client, id: Id, callbacks: &Callbacks) -> Result<OffloadStatusOk, Status> {
        let mut copies = self.lock();
        let copying = copies.get(id).filter(|copying| std::ptr::eq(&*copying.client, client));
        let copying = copying.ok_or(Status::NFS4ERR_BAD_STATEID)?;
        let status = OffloadStatusOk { count: copying.copied, complete: copying.ended };
        if copying.is_kept() {
            forget(&mut copies, id, callbacks);
        }
        Ok(status)
    }
}

impl Copying {
    /// It has ended, and its client has not been told and will not be.
    fn is_kept(&self) -> bool {
        self.ended.is_some() && self.callback.is_none()
    }
}

fn forget_all(copies: &mut Arena<Copying>, callbacks: &Callbacks, which: impl Fn(&Copying) -> bool) {
    let ids: Vec<Id> = (0..copies.index_end()).filter_map(|index| copies.id_at(index)).collect();
    for id in ids {
        if copies.get(id).is_some_and(&which) {
            forget(copies, id, callbacks);
        }
    }
}

fn forget(copies: &mut Arena<Copying>, id: Id, callbacks: &Callbacks) {
    if let Some(Copying { callback: Some(callback), .. }) = copies.remove(id) {
        callbacks.remove_is_final(callback);
    }
}

impl Inner {
    /// Before a client is told of the end: whether it has the reply to COPY for certain (RFC 8881 section 2.10.6.3).
    pub(crate) fn prepare_offload(&self, id: Id) {
        let request = self.copies.lock().get(id).and_then(|copying| copying.request);
        let has_passed = |request: Request| {
            self.session(&request.session).is_ok_and(|session| session.slots().has_passed(request.slot, request.id))
        };
        let refers = request.is_some_and(|request| !has_passed(request));
        if let Some(copying) = self.copies.lock().get_mut(id) {
            copying.refers = refers;
        }
    }

    /// The COPY whose reply must not be overtaken.
    pub(crate) fn referred_by_offload(&self, id: Id, calls: &mut ReferringCalls<'_>) {
        let request = self.copies.lock().get(id).filter(|copying| copying.refers).and_then(|copying| copying.request);
        if let Some(Request { session, slot, id }) = request {
            calls.add(session, id.0, slot.0);
        }
    }

    /// Copies the next piece of a copy; whether there is more to be done. When there is not, the client is told.
    pub(crate) fn copy_on(&self, id: Id) -> bool {
        // Not under its lock: files have locks of their own.
        let going_on = |copying: &Copying| copying.ended.is_none().then_some(copying.way);
        let Some(way) = self.copies.lock().get(id).and_then(going_on) else { return false };
        let copied = self.copy_piece(&way);
        let mut copies = self.copies.lock();
        // It may have been ended meanwhile.
        let Some(copying) = copies.get_mut(id).filter(|copying| copying.ended.is_none()) else { return false };
        match copied {
            Ok(0) => copying.ended = Some(Status::NFS4_OK),
            Ok(count) => {
                copying.copied += count;
                copying.way.from_offset += count;
                copying.way.to_offset += count;
                copying.way.left -= count;
                copying.ended = (copying.way.left == 0).then_some(Status::NFS4_OK);
            }
            Err(status) => copying.ended = Some(status),
        }
        if copying.ended.is_none() {
            return true;
        }
        let told = copying.callback.is_some_and(|callback| self.callbacks.run(callback));
        if !told {
            forget(&mut copies, id, &self.callbacks);
        }
        false
    }

    /// Copies at most [`STEP_BYTES`]; fewer where the source ends.
    pub(crate) fn copy_piece(&self, way: &Way) -> Result<u64, Status> {
        let mut space = vec![0; way.left.min(STEP_BYTES as u64) as usize];
        let read = self
            .files
            .with_file(way.from, |file| Ok(file.data()?.map_or(0, |data| data.read(way.from_offset, &mut space))))??;
        space.truncate(read);
        self.files.with_file_mut(way.to, |file| {
            file.data_mut()?.write(way.to_offset, &space, &self.files.data)?;
            file.modify(now());
            Ok(read as u64)
        })?
    }
}
