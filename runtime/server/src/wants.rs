//! Delegations that clients wait for (RFC 8881 sections 18.16.3, 18.39 and 18.49): one that was refused because somebody is in
//! the way is pushed with CB_PUSH_DELEG when nobody is any more, and of one that was refused for want of room
//! CB_RECALLABLE_OBJ_AVAIL tells when there is some. Who waits in vain is told with CB_WANTS_CANCELLED.
//!
//! Once in a second the server looks whether anybody can be served (`later.rs`). A want turns into what the client is told of it,
//! and goes when that has been told, or its client is gone.

use crate::Inner;
use crate::arena::{Arena, Id};
use crate::callbacks::{Callbacks, Subject};
use crate::clients::{Client, Clients};
use crate::grants::Want;
use crate::keep::{Keep, keep, malformed};
use crate::opens::WRITE;
use ringback::{CallbackKey, ClientId, Done, Outcome};
use ringback_rpc::nfs4::callback::{CbPushDelegArgs, CbRecallAnyArgs, CbWantsCancelledArgs};
use ringback_rpc::nfs4::fore::share_access;
use ringback_rpc::nfs4::{Bitmap4, FileHandle, OpenNoneDelegation4, Status};
use ringback_rpc::xdr::{self, Encode, Writer};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Wants of all clients together. Who is not remembered because there are more is not promised anything.
const WANTS_MAX: u32 = 4096;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Somebody is in the way.
    Contended,
    /// There is no room.
    NoRoom,
    /// A delegation is offered, and the answer awaited.
    Pushing,
    /// The client is told that there is room.
    Signalling,
    /// The client is told that it waits in vain.
    Cancelling,
}

/// What a client wants, and then what it is told.
#[derive(Debug)]
struct Wanted {
    client: Arc<Client>,
    stage: Stage,
    /// The file; while it is pushed the delegation.
    about: Id,
    /// The type of the delegation, as a bit of craa_type_mask; or all those types that there is room for.
    types: Bitmap4,
    /// How many of them the client may have.
    keep: u32,
    /// What is cancelled: wants in somebody's way, and wants of room.
    cancelled: (bool, bool),
    callback: Option<CallbackKey>,
}

/// The same on its way to another process.
struct Kept {
    client: ringback_rpc::nfs4::ClientId4,
    stage: Stage,
    about: Id,
    types: Bitmap4,
    keep: u32,
    cancelled: (bool, bool),
    callback: Option<CallbackKey>,
}

keep! {
    Kept { client, stage, about, types, keep, cancelled, callback }
}

impl Keep for Stage {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        (*self as u8).save(out)
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        let all = [Stage::Contended, Stage::NoRoom, Stage::Pushing, Stage::Signalling, Stage::Cancelling];
        all.get(usize::from(u8::load(from)?)).copied().ok_or_else(malformed)
    }
}

/// All wants.
pub(crate) struct Wants(Mutex<Arena<Wanted>>);

/// The wants of an arena that are at a stage.
fn at_stage(wants: &Arena<Wanted>, stage: Stage) -> Vec<Id> {
    let ids = (0..wants.index_end()).filter_map(|index| wants.id_at(index));
    ids.filter(|id| wants.get(*id).is_some_and(|want| want.stage == stage)).collect()
}

fn forget(wants: &mut Arena<Wanted>, id: Id, callbacks: &Callbacks) {
    if let Some(Wanted { callback: Some(callback), .. }) = wants.remove(id) {
        callbacks.remove_is_final(callback);
    }
}

impl Wants {
    pub(crate) const fn new() -> Self {
        Wants(Mutex::new(Arena::new(WANTS_MAX)))
    }

    fn lock(&self) -> MutexGuard<'_, Arena<Wanted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, for another process.
    pub(crate) fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        let kept = self.lock().map(|want| Kept {
            client: want.client.id,
            stage: want.stage,
            about: want.about,
            types: want.types,
            keep: want.keep,
            cancelled: want.cancelled,
            callback: want.callback,
        });
        kept.save(out)
    }

    /// Those of another process, of these clients.
    pub(crate) fn load(clients: &Clients, from: &mut dyn Read) -> io::Result<Self> {
        let kept: Arena<Kept> = Keep::load(from)?;
        let wants = kept.try_map(|want| {
            let client = Arc::clone(clients.client(want.client)?);
            let Kept { stage, about, types, keep, cancelled, callback, .. } = *want;
            Some(Wanted { client, stage, about, types, keep, cancelled, callback })
        });
        Ok(Wants(Mutex::new(wants.ok_or_else(malformed)?)))
    }

    /// Remembers what a client waits for; whether it is remembered. It waits for one thing of a file at a time.
    fn add(&self, client: &Arc<Client>, stage: Stage, file: Id, kind: u32, callbacks: &Callbacks) -> bool {
        let mut wants = self.lock();
        drop_of_file(&mut wants, client, file, callbacks);
        let (types, keep, cancelled) = (Bitmap4::of(&[kind]), 0, (false, false));
        let want = Wanted { client: Arc::clone(client), stage, about: file, types, keep, cancelled, callback: None };
        let added = wants.insert(want);
        // Who drops the client marks it first, and looks for its wants then.
        match added {
            Some(id) if client.is_gone() => {
                forget(&mut wants, id, callbacks);
                false
            }
            added => added.is_some(),
        }
    }

    /// A client waits for nothing of a file any more.
    pub(crate) fn cancel(&self, client: &Client, file: Id, callbacks: &Callbacks) {
        drop_of_file(&mut self.lock(), client, file, callbacks);
    }

    /// Forgets those of a client that is gone. One that it is being told about goes with its callback.
    pub(crate) fn forget_client(&self, client: &Client, callbacks: &Callbacks) {
        let mut wants = self.lock();
        for id in (0..wants.index_end()).filter_map(|index| wants.id_at(index)).collect::<Vec<_>>() {
            let Some(want) = wants.get(id).filter(|want| std::ptr::eq(&*want.client, client)) else { continue };
            if want.callback.is_none_or(|callback| callbacks.remove_is_final(callback)) {
                wants.remove(id);
            }
        }
    }

    /// The client has been told, or never will be.
    pub(crate) fn forget_told(&self, id: Id, callbacks: &Callbacks) {
        forget(&mut self.lock(), id, callbacks);
    }

    /// The file that a push is about.
    pub(crate) fn delegation(&self, id: Id) -> Option<Id> {
        self.lock().get(id).filter(|want| want.stage == Stage::Pushing).map(|want| want.about)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> u32 {
        self.lock().len()
    }
}

/// What a client waits for of one file is forgotten.
fn drop_of_file(wants: &mut Arena<Wanted>, client: &Client, file: Id, callbacks: &Callbacks) {
    for stage in [Stage::Contended, Stage::NoRoom] {
        for id in at_stage(wants, stage) {
            if wants.get(id).is_some_and(|want| std::ptr::eq(&*want.client, client) && want.about == file) {
                forget(wants, id, callbacks);
            }
        }
    }
}

impl Inner {
    /// What a client that was refused a delegation of a file is promised, if it has asked for that with `flags` (the bits
    /// OPEN4_SHARE_ACCESS_WANT_* of OPEN and WANT_DELEGATION).
    pub(crate) fn promise(
        &self,
        client: &Arc<Client>,
        file: Id,
        write: bool,
        flags: u32,
        why: OpenNoneDelegation4,
    ) -> OpenNoneDelegation4 {
        let kind = if write { CbRecallAnyArgs::WRITE_DELEGATIONS } else { CbRecallAnyArgs::READ_DELEGATIONS };
        let add = |stage| self.wants.add(client, stage, file, kind, &self.callbacks);
        match why {
            OpenNoneDelegation4::Contention { .. } => {
                let asked = flags & share_access::WANT_PUSH_DELEG_WHEN_UNCONTENDED != 0;
                OpenNoneDelegation4::Contention { will_push: asked && add(Stage::Contended) }
            }
            // Only one that there is no room for: without a callback path nobody can be told of any.
            OpenNoneDelegation4::Resource { .. } => {
                let asked = flags & share_access::WANT_SIGNAL_DELEG_WHEN_RESRC_AVAIL != 0;
                let will_signal = asked && !self.has_room() && add(Stage::NoRoom);
                OpenNoneDelegation4::Resource { will_signal }
            }
            why => why,
        }
    }

    /// The same for a directory delegation.
    pub(crate) fn promise_directory(&self, client: &Arc<Client>, directory: Id) -> bool {
        let kind = CbRecallAnyArgs::DIRECTORY_DELEGATIONS;
        self.wants.add(client, Stage::NoRoom, directory, kind, &self.callbacks)
    }

    /// Whether there may be one more delegation.
    fn has_room(&self) -> bool {
        self.files.delegations.used() < self.files.delegations.max()
    }

    /// Serves those who wait, as far as that can be done now.
    pub(crate) fn serve_wants(&self) {
        let (contended, no_room) = {
            let wants = self.wants.lock();
            (at_stage(&wants, Stage::Contended), at_stage(&wants, Stage::NoRoom))
        };
        contended.into_iter().for_each(|id| self.push_if_uncontended(id));
        if !no_room.is_empty() && self.has_room() {
            self.signal_room(&no_room);
        }
    }

    /// Offers a delegation to who waits for it, if nobody is in the way any more.
    fn push_if_uncontended(&self, id: Id) {
        let Some((client, file, write)) = self.wants.lock().get(id).map(|want| {
            let write = want.types.contains(CbRecallAnyArgs::WRITE_DELEGATIONS);
            (Arc::clone(&want.client), want.about, write)
        }) else {
            return;
        };
        // Not under the lock of the wants: files have locks of their own.
        let granted = self.files.grant_wanted(file, &client, write, self.now_s(), &self.callbacks);
        let mut wants = self.wants.lock();
        let delegation = match granted {
            Ok(Ok(delegation)) => delegation,
            Ok(Err(OpenNoneDelegation4::Contention { .. } | OpenNoneDelegation4::Resource { .. })) => return,
            // The file is gone, or the client has got one in another way.
            Ok(Err(_)) | Err(_) => return forget(&mut wants, id, &self.callbacks),
        };
        let callback = wants.get_mut(id).and_then(|want| {
            (want.stage, want.about) = (Stage::Pushing, delegation);
            want.callback = self.callbacks.insert(client.callbacks, Subject::Push(id));
            want.callback
        });
        if !callback.is_some_and(|callback| self.callbacks.run(callback)) {
            forget(&mut wants, id, &self.callbacks);
            drop(wants);
            self.files.drop_unaccepted(delegation, &self.callbacks);
        }
    }

    /// Offers a delegation to a client that has not asked for it; the callback that does. `None`: it is nobody's.
    pub(crate) fn offer(&self, client: &Arc<Client>, delegation: Id) -> Option<CallbackKey> {
        let mut wants = self.wants.lock();
        let (stage, types, cancelled) = (Stage::Pushing, Bitmap4::EMPTY, (false, false));
        let client = Arc::clone(client);
        let callbacks = client.callbacks;
        let id = wants.insert(Wanted { client, stage, about: delegation, types, keep: 0, cancelled, callback: None });
        let callback = id.and_then(|id| self.callbacks.insert(callbacks, Subject::Push(id)));
        match (id, callback) {
            (Some(id), Some(callback)) => wants.get_mut(id)?.callback = Some(callback),
            (id, _) => {
                id.and_then(|id| wants.remove(id));
                drop(wants);
                self.files.drop_unaccepted(delegation, &self.callbacks);
            }
        }
        callback
    }

    /// Tells those who wait for room that there is some: each client once, of all that it waits for.
    fn signal_room(&self, no_room: &[Id]) {
        let free = self.files.delegations.max().saturating_sub(self.files.delegations.used());
        let mut wants = self.wants.lock();
        let mut told: Vec<(ClientId, Id)> = Vec::new();
        for id in no_room {
            let Some(client) = wants.get(*id).map(|want| Arc::clone(&want.client)) else { continue };
            if let Some((_, first)) = told.iter().find(|(known, _)| *known == client.callbacks).copied() {
                let types = wants.remove(*id).map_or(Bitmap4::EMPTY, |want| want.types);
                if let Some(want) = wants.get_mut(first) {
                    want.types = types.iter().fold(want.types, Bitmap4::with);
                }
                continue;
            }
            told.push((client.callbacks, *id));
            let held = self.files.delegations_held(client.index);
            let callback = self.callbacks.insert(client.callbacks, Subject::Available(*id));
            if let Some(want) = wants.get_mut(*id) {
                want.stage = Stage::Signalling;
                want.keep = u32::try_from(u64::from(held).saturating_add(free)).unwrap_or(u32::MAX);
                want.callback = callback;
            }
        }
        for (_, id) in told {
            let callback = wants.get(id).and_then(|want| want.callback);
            if !callback.is_some_and(|callback| self.callbacks.run(callback)) {
                forget(&mut wants, id, &self.callbacks);
            }
        }
    }

    /// Nobody that `whose` names gets what it waits for, and is to be told so with CB_WANTS_CANCELLED: who that is,
    /// and the callbacks that tell it when they are run.
    pub(crate) fn cancel_wants(&self, whose: impl Fn(&Client) -> bool) -> Vec<(Arc<Client>, CallbackKey)> {
        let mut wants = self.wants.lock();
        let (mut told, mut seen) = (Vec::new(), BTreeSet::new());
        let waiting = [Stage::Contended, Stage::NoRoom].map(|stage| at_stage(&wants, stage));
        for id in waiting.iter().flatten() {
            let Some(client) = wants.get(*id).map(|want| Arc::clone(&want.client)).filter(|c| whose(c)) else {
                continue;
            };
            if !seen.insert(client.index) {
                continue;
            }
            let mut cancelled = [false; 2];
            for (ids, cancelled) in waiting.iter().zip(&mut cancelled) {
                let own: Vec<Id> = ids
                    .iter()
                    .filter(|id| wants.get(**id).is_some_and(|w| Arc::ptr_eq(&w.client, &client)))
                    .copied()
                    .collect();
                *cancelled = !own.is_empty();
                own.into_iter().for_each(|id| forget(&mut wants, id, &self.callbacks));
            }
            let callback = self.tell_cancelled(&mut wants, &client, (cancelled[0], cancelled[1]));
            told.extend(callback.map(|callback| (client, callback)));
        }
        told
    }

    /// The same, and they are run.
    pub(crate) fn cancel_all_wants(&self) {
        for (_, callback) in self.cancel_wants(|_| true) {
            self.callbacks.run(callback);
        }
    }

    /// Makes the callback that tells a client that it waits in vain.
    fn tell_cancelled(
        &self,
        wants: &mut Arena<Wanted>,
        client: &Arc<Client>,
        cancelled: (bool, bool),
    ) -> Option<CallbackKey> {
        let (stage, types, about) = (Stage::Cancelling, Bitmap4::EMPTY, Id { index: 0, generation: 0 });
        let want = Wanted { client: Arc::clone(client), stage, about, types, keep: 0, cancelled, callback: None };
        let id = wants.insert(want)?;
        let callback = self.callbacks.insert(client.callbacks, Subject::Cancelled(id));
        match wants.get_mut(id) {
            Some(want) if callback.is_some() => want.callback = callback,
            _ => forget(wants, id, &self.callbacks),
        }
        callback
    }

    /// Writes what a client is told.
    pub(crate) fn encode_want(&self, id: Id, w: &mut Writer<'_>) -> xdr::Result<()> {
        let gone = crate::callbacks::GONE;
        let (stage, about, types, objects_to_keep, cancelled) = {
            let wants = self.wants.lock();
            let want = wants.get(id).ok_or(gone)?;
            (want.stage, want.about, want.types, want.keep, want.cancelled)
        };
        match stage {
            Stage::Pushing => {
                let (granted, handle) = self.files.offered(about).ok_or(gone)?;
                let (fh, delegation) = (FileHandle::new(&handle).ok_or(gone)?, granted.on_the_wire());
                CbPushDelegArgs { fh, delegation }.encode(w)
            }
            Stage::Signalling => CbRecallAnyArgs { objects_to_keep, type_mask: types }.encode(w),
            Stage::Cancelling => {
                let (contended_wants_cancelled, resourced_wants_cancelled) = cancelled;
                CbWantsCancelledArgs { contended_wants_cancelled, resourced_wants_cancelled }.encode(w)
            }
            Stage::Contended | Stage::NoRoom => Err(gone),
        }
    }

    /// How an offer went. One that was not taken is nobody's; one of which nobody knows is revoked.
    pub(crate) fn push_done(&self, id: Id, outcome: &Outcome<'_>) -> Done {
        let wanted = self.wants.lock().get(id).map(|want| (Arc::clone(&want.client), want.about));
        let Some((client, delegation)) = wanted else { return Done::Finish };
        match outcome {
            Outcome::Replied { status: Status::NFS4_OK, .. } | Outcome::Cancelled { .. } => {}
            Outcome::TimedOut { sent: true } | Outcome::DeliveredUnknown => {
                self.files.revoke(delegation, &self.callbacks);
            }
            Outcome::Replied { status: Status::NFS4ERR_REJECT_DELEG, .. } => {
                self.files.drop_unaccepted(delegation, &self.callbacks);
            }
            // It may try again after any other answer; it is told that the server will not (section 20.5.3).
            _ => {
                self.files.drop_unaccepted(delegation, &self.callbacks);
                let mut told = self.cancel_wants(|c| std::ptr::eq(c, &*client)).pop().map(|(_, callback)| callback);
                if told.is_none() {
                    told = self.tell_cancelled(&mut self.wants.lock(), &client, (true, false));
                }
                told.map(|callback| self.callbacks.run(callback));
            }
        }
        Done::Finish
    }
}

/// Which delegation a client that opens with `access` waits for.
pub(crate) const fn wants_write(want: Want, access: u8, write_delegations: bool) -> bool {
    match want {
        Want::Write => true,
        Want::Any | Want::NoPreference => access & WRITE != 0 && write_delegations,
        Want::Read | Want::No | Want::Cancel => false,
    }
}
