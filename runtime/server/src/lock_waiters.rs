//! Who waits for a byte-range lock, and is told with CB_NOTIFY_LOCK when it may be had (RFC 8881 sections 9.6 and 20.11).
//!
//! A waiter has one callback, which runs once: the notification is a hint, and the client asks for the lock as if there had
//! been none. Whoever is not remembered here, because there are too many, polls.

use crate::arena::{Id, Link, Links, NONE};
use crate::callbacks::{Callbacks, Subject};
use crate::clients::Client;
use crate::files::{Files, Shard, global};
use crate::keep::keep;
use crate::locks::{Range, check_free};
use crate::name::ShortBytes;
use ringback::CallbackKey;
use ringback_rpc::nfs4::ClientId4;

/// One waiter: a lock-owner whose LOCK was denied.
#[derive(Debug)]
pub(crate) struct LockWaiter {
    /// In its shard.
    pub(crate) file: Id,
    client: u32,
    pub(crate) client_id: ClientId4,
    /// The open under which the lock was asked for; with it the waiter goes.
    open: Id,
    in_file: Links,
    pub(crate) owner: ShortBytes,
    range: Range,
    callback: CallbackKey,
}

keep! {
    LockWaiter { file, client, client_id, open, in_file, owner, range, callback }
}

/// The list of a file's waiters, without those that are being notified.
pub(crate) struct OfFile;

impl Link<LockWaiter> for OfFile {
    fn of(waiter: &mut LockWaiter) -> &mut Links {
        &mut waiter.in_file
    }
    fn of_ref(waiter: &LockWaiter) -> &Links {
        &waiter.in_file
    }
}

/// Who asks for a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) client: &'a Client,
    pub(crate) owner: &'a [u8],
    pub(crate) open: Id,
    pub(crate) range: Range,
}

impl Asker<'_> {
    fn is(&self, waiter: &LockWaiter) -> bool {
        waiter.client == self.client.index && waiter.owner.as_bytes() == self.owner
    }
}

impl Shard {
    /// Who waits for a lock of a file, by client index, and the callbacks that would tell them.
    pub(crate) fn waiters_of(&self, file: u32) -> Vec<(u32, CallbackKey)> {
        let head = self.files.at(file).map_or(NONE, |f| f.waiters());
        self.waiters.list::<OfFile>(head).map(|(_, waiter)| (waiter.client, waiter.callback)).collect()
    }
}

impl Files {
    /// Remembers that somebody waits, if there is room. A lock-owner waits for one lock of a file at a time.
    pub(crate) fn add_waiter(
        &self,
        shard: &mut Shard,
        number: usize,
        file: u32,
        asker: &Asker<'_>,
        callbacks: &Callbacks,
    ) {
        self.drop_waiter(shard, file, asker, callbacks);
        let Some(file) = shard.files.id_at(file).filter(|_| self.locks.take()) else { return };
        let waiter = LockWaiter {
            file,
            client: asker.client.index,
            client_id: asker.client.id,
            open: asker.open,
            in_file: Links::ALONE,
            owner: ShortBytes::new(asker.owner),
            range: asker.range,
            callback: CallbackKey::from_bits(u64::MAX),
        };
        let Some(id) = shard.waiters.insert(waiter) else { return self.locks.give_back() };
        let Some(callback) = callbacks.insert(asker.client.callbacks, Subject::Lock(global(number, id))) else {
            shard.waiters.remove(id);
            return self.locks.give_back();
        };
        let Shard { files, waiters, .. } = shard;
        if let (Some(waiter), Some(file)) = (waiters.get_mut(id), files.get_mut(file)) {
            waiter.callback = callback;
            waiters.link::<OfFile>(&mut file.body_mut().waiters, id.index);
        }
    }

    /// The waiters of a file that `which` names.
    fn waiters(shard: &Shard, file: u32, which: impl Fn(&LockWaiter) -> bool) -> Vec<u32> {
        let head = shard.files.at(file).map_or(NONE, |f| f.waiters());
        shard.waiters.list::<OfFile>(head).filter(|(_, waiter)| which(waiter)).map(|(index, _)| index).collect()
    }

    /// Who asks waits no longer.
    pub(crate) fn drop_waiter(&self, shard: &mut Shard, file: u32, asker: &Asker<'_>, callbacks: &Callbacks) {
        for index in Self::waiters(shard, file, |waiter| asker.is(waiter)) {
            self.end_waiter(shard, index, callbacks);
        }
    }

    /// An open goes, and who waits under it waits no longer.
    pub(crate) fn drop_waiters(&self, shard: &mut Shard, open: Id, callbacks: &Callbacks) {
        let Some(file) = shard.opens.get(open).map(|o| o.file) else { return };
        for index in Self::waiters(shard, file, |waiter| waiter.open == open) {
            self.end_waiter(shard, index, callbacks);
        }
    }

    /// Locks of a file have been given up: tells those who wait for what is free now, each of them once.
    pub(crate) fn notify_waiters(&self, shard: &mut Shard, file: u32, callbacks: &Callbacks) {
        self.notify_waiters_where(shard, file, callbacks, |shard, w| {
            check_free(shard, file, w.client, w.owner.as_bytes(), &w.range).is_ok()
        });
    }

    /// Tells those who wait for a lock of a file and whom `which` names; how many those are.
    pub(crate) fn notify_waiters_where(
        &self,
        shard: &mut Shard,
        file: u32,
        callbacks: &Callbacks,
        which: impl Fn(&Shard, &LockWaiter) -> bool,
    ) -> u64 {
        let told = Self::waiters(shard, file, |waiter| which(shard, waiter));
        for index in &told {
            if let Some(waiter) = shard.waiters.at(*index) {
                callbacks.run(waiter.callback);
            }
            self.end_waiter(shard, *index, callbacks);
        }
        told.len() as u64
    }

    /// Takes a waiter off its list. It goes now, or when the run of its callback does not need it any more.
    fn end_waiter(&self, shard: &mut Shard, index: u32, callbacks: &Callbacks) {
        let Shard { files, waiters, .. } = &mut *shard;
        let (Some(id), Some(waiter)) = (waiters.id_at(index), waiters.at(index)) else { return };
        let callback = waiter.callback;
        if let Some(file) = files.get_mut(waiter.file) {
            waiters.unlink::<OfFile>(&mut file.body_mut().waiters, index);
        }
        if callbacks.remove_is_final(callback) {
            self.forget_local_waiter(shard, id);
        }
    }

    /// The run of a waiter's callback is over.
    pub(crate) fn forget_waiter(&self, id: Id) {
        let (mut shard, id) = self.shard_of(id);
        self.forget_local_waiter(&mut shard, id);
    }

    fn forget_local_waiter(&self, shard: &mut Shard, id: Id) {
        if shard.waiters.remove(id).is_some() {
            self.locks.give_back();
        }
    }
}
