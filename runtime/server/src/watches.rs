//! Directory delegations (RFC 8881 sections 10.9, 18.39 and 20.4): what a holder is told with CB_NOTIFY, and when it is
//! recalled instead.
//!
//! A change by anybody is put behind those that the holder has not been told yet, under the lock under which it happens, so
//! that the holder hears of changes in their order; one call tells as many of them as it has room for. A change that the
//! holder has not asked to be told of waits until its delegation is back, like any conflict. A holder that lags too far behind,
//! or refuses a notification, is told nothing more, and its delegation is recalled.

use crate::Inner;
use crate::arena::Id;
use crate::attributes::VALUES_BYTES_MAX;
use crate::callbacks::Callbacks;
use crate::clients::Client;
use crate::delegations::{Delegation, State};
use crate::directory::Directory;
use crate::files::{Caller, Files, Shard, global, shard_number};
use crate::keep::{Keep, keep, load_bytes, save_bytes};
use crate::name::ShortBytes;
use crate::quota::Quota;
use ringback::{CallbackKey, CallbackOp};
use ringback_rpc::nfs4::callback::{
    Notification, NotifyAdd, NotifyEntry, NotifyRemove, NotifyRename, NotifyVerifier, PrevEntry, notify_type,
};
use ringback_rpc::nfs4::fore::GetDirDelegationArgs;
use ringback_rpc::nfs4::{Bitmap4, Fattr, Status, Verifier4, attr};
use ringback_rpc::xdr::{self, Encode, Writer};
use std::collections::VecDeque;
use std::io::{self, Read, Write};

/// Changes that one holder has not been told yet; more are a reason to recall.
const CHANGES_PER_WATCH_MAX: usize = 256;
/// The same of all holders.
pub(crate) const CHANGES_MAX: u64 = 1 << 16;
/// Bytes of the changes in one CB_NOTIFY, whatever the session allows.
const NOTIFY_BYTES_MAX: u32 = 4096;
/// What a CB_COMPOUND has besides them: headers with the longest credential, CB_SEQUENCE, a stateid and a filehandle.
const HEADER_BYTES: u32 = 600;
/// The shortest change: mask, length, and an entry without a name that is gone.
const ELEMENT_BYTES_MIN: usize = 32;
/// The notifications that there are.
const TYPES: Bitmap4 = Bitmap4::of(&[
    notify_type::CHANGE_DIR_ATTRS,
    notify_type::REMOVE_ENTRY,
    notify_type::ADD_ENTRY,
    notify_type::RENAME_ENTRY,
    notify_type::CHANGE_COOKIE_VERIFIER,
]);
/// The attributes of entries and of directories that can be told: those that say something of one file.
const ATTRIBUTES: Bitmap4 = Bitmap4::of(&[
    attr::TYPE,
    attr::CHANGE,
    attr::SIZE,
    attr::FILEHANDLE,
    attr::FILEID,
    attr::MODE,
    attr::NUMLINKS,
    attr::OWNER,
    attr::OWNER_GROUP,
    attr::RAWDEV,
    attr::SPACE_USED,
    attr::TIME_ACCESS,
    attr::TIME_CREATE,
    attr::TIME_METADATA,
    attr::TIME_MODIFY,
]);

/// What the holder of a directory delegation wants to be told, and what it has not been told yet.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The runtime's CB_NOTIFY; none if nothing is to be told.
    pub(crate) notify: Option<CallbackKey>,
    pub(crate) types: Bitmap4,
    pub(crate) child_attributes: Bitmap4,
    pub(crate) directory_attributes: Bitmap4,
    /// Bytes of changes in one call.
    room: u32,
    pending: VecDeque<Change>,
    /// Attributes of the directory have changed since they were told.
    stale: bool,
    /// It is told nothing more: its delegation is being recalled because of that.
    deaf: bool,
    /// What the call under way tells: the elements of cna_changes, and their number.
    sending: (u32, Sending),
}

/// Encoded changes.
#[derive(Debug, Default)]
struct Sending(Vec<u8>);

/// One change of the names in a directory, or of its cookie verifier.
#[derive(Clone, Debug, Default)]
struct Change {
    removed: Option<Gone>,
    added: Option<Added>,
    /// What the name that was added stood for.
    replaced: Option<Gone>,
    verifier: Option<(u64, u64)>,
}

/// An entry that is not there any more.
#[derive(Clone, Debug)]
struct Gone {
    name: ShortBytes,
    cookie: u64,
}

impl Gone {
    /// What is told of it. Its attributes were those of a file that may be gone.
    fn told(&self) -> NotifyRemove<'_> {
        let entry = NotifyEntry { name: self.name.as_bytes(), attributes: Fattr::NONE };
        NotifyRemove { entry, cookie: self.cookie }
    }
}

/// An entry that is new.
#[derive(Clone, Debug)]
struct Added {
    name: ShortBytes,
    cookie: u64,
    id: Id,
    before: Option<Neighbour>,
    last: bool,
}

/// The entry before it.
#[derive(Clone, Debug)]
struct Neighbour {
    name: ShortBytes,
    cookie: u64,
    id: Id,
}

keep! {
    Watch { notify, types, child_attributes, directory_attributes, room, pending, stale, deaf, sending }
    Change { removed, added, replaced, verifier }
    Gone { name, cookie }
    Added { name, cookie, id, before, last }
    Neighbour { name, cookie, id }
}

impl Keep for Sending {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        save_bytes(&self.0, out)
    }
    fn load(from: &mut dyn Read) -> io::Result<Self> {
        load_bytes(from).map(Sending)
    }
}

/// What a holder is to be told.
struct Due {
    directory: Id,
    room: usize,
    child_attributes: Bitmap4,
    directory_attributes: Bitmap4,
    changes: Vec<Change>,
    /// Attributes of the directory too, when the changes before them have been told.
    stale: bool,
}

/// A name and its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) hash: u64,
    pub(crate) name: &'a [u8],
}

/// What is about to be done to the names in a directory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Names<'a> {
    pub(crate) removed: Option<Named<'a>>,
    pub(crate) added: Option<Named<'a>>,
}

impl Names<'_> {
    /// Which notification tells of it.
    pub(crate) const fn notification(&self) -> u32 {
        match (self.removed.is_some(), self.added.is_some()) {
            (true, true) => notify_type::RENAME_ENTRY,
            (true, false) => notify_type::REMOVE_ENTRY,
            (false, true) => notify_type::ADD_ENTRY,
            (false, false) => notify_type::CHANGE_DIR_ATTRS,
        }
    }
}

/// A change of names in a directory that somebody watches, from before it to after it.
pub(crate) struct Observed<'a> {
    names: Names<'a>,
    removed: Option<Gone>,
    replaced: Option<Gone>,
}

impl<'a> Observed<'a> {
    /// Looks at what will be gone.
    pub(crate) fn before(directory: &Directory, names: Names<'a>) -> Self {
        let gone = |named: Named<'_>| {
            let cookie = directory.cookie(named.hash, named.name)?;
            Some(Gone { name: ShortBytes::new(named.name), cookie })
        };
        Observed { names, removed: names.removed.and_then(gone), replaced: names.added.and_then(gone) }
    }

    /// Looks at what is new.
    fn after(self, directory: &Directory) -> Change {
        let added = self.names.added.and_then(|named| {
            let cookie = directory.cookie(named.hash, named.name)?;
            let neighbour = |(cookie, name, id): (u64, &ShortBytes, Id)| Neighbour { name: name.clone(), cookie, id };
            Some(Added {
                name: ShortBytes::new(named.name),
                cookie,
                id: directory.find(named.hash, named.name)?,
                before: directory.before(cookie).map(neighbour),
                last: directory.after(cookie).next().is_none(),
            })
        });
        Change { removed: self.removed, added, replaced: self.replaced, verifier: None }
    }
}

impl Watch {
    /// What is granted of what a client asks for, on a session that carries callbacks of so many bytes.
    pub(crate) fn new(asked: &GetDirDelegationArgs, request_bytes_max: u32) -> Self {
        let wanted = asked.notification_types.and(&TYPES);
        let tells = wanted.contains(notify_type::CHANGE_DIR_ATTRS);
        let directory_attributes = if tells { asked.directory_attributes.and(&ATTRIBUTES) } else { Bitmap4::EMPTY };
        // Of no attribute there is nothing to tell.
        let told = |bit: &u32| *bit != notify_type::CHANGE_DIR_ATTRS || !directory_attributes.is_empty();
        Watch {
            notify: None,
            types: wanted.iter().filter(told).fold(Bitmap4::EMPTY, Bitmap4::with),
            child_attributes: asked.child_attributes.and(&ATTRIBUTES),
            directory_attributes,
            room: request_bytes_max.saturating_sub(HEADER_BYTES).min(NOTIFY_BYTES_MAX),
            pending: VecDeque::new(),
            stale: false,
            deaf: false,
            sending: (0, Sending::default()),
        }
    }

    /// Whether the holder will hear of a change.
    fn hears(&self, notification: u32) -> bool {
        self.types.contains(notification) && !self.deaf
    }

    fn is_told_all(&self) -> bool {
        self.pending.is_empty() && !self.stale
    }

    /// Forgets what has not been told.
    pub(crate) fn clear(&mut self, changes: &Quota) {
        changes.give_back_many(self.pending.len() as u64);
        self.pending.clear();
        self.stale = false;
    }

    /// What is under way: the elements of cna_changes, after their number.
    pub(crate) fn encode_sending(&self, w: &mut Writer<'_>) -> xdr::Result<()> {
        w.u32(self.sending.0)?;
        w.raw(&self.sending.1.0)
    }
}

impl Delegation {
    /// Whether it stands against a change of a directory by a client: others wait for what the holder would not hear of. Its own
    /// changes are never in its way (section 10.9).
    fn resists(&self, client: &Client, notification: u32) -> bool {
        let hears = self.watch().is_some_and(|watch| watch.hears(notification));
        self.client != client.index && !hears
    }
}

impl Files {
    /// Recalls the delegations of others that stand against a change of a directory; whether there are any.
    pub(crate) fn recall_of_watchers(
        &self,
        shard: &mut Shard,
        directory: u32,
        caller: &Caller<'_>,
        notification: u32,
        callbacks: &Callbacks,
    ) -> bool {
        self.recall_those(shard, directory, caller, |d| d.resists(caller.client, notification), callbacks)
    }

    /// Has the holders of a directory's delegations told of a change by a client.
    pub(crate) fn tell_watchers(
        &self,
        shard: &mut Shard,
        directory: u32,
        by: &Client,
        observed: Observed<'_>,
        callbacks: &Callbacks,
    ) {
        let notification = observed.names.notification();
        let Some(Ok(entries)) = shard.files.at(directory).map(|file| file.directory()) else { return };
        self.tell(shard, directory, by.index, (notification, true), &observed.after(entries), callbacks);
    }

    /// The same, of attributes of the directory itself.
    pub(crate) fn tell_attributes(&self, shard: &mut Shard, directory: u32, by: &Client, callbacks: &Callbacks) {
        self.tell(shard, directory, by.index, (notify_type::CHANGE_DIR_ATTRS, true), &Change::default(), callbacks);
    }

    fn tell(
        &self,
        shard: &mut Shard,
        directory: u32,
        by: u32,
        (notification, run): (u32, bool),
        change: &Change,
        callbacks: &Callbacks,
    ) {
        let only_attributes = notification == notify_type::CHANGE_DIR_ATTRS;
        for index in shard.indices_of(directory) {
            let Some(delegation) = shard.delegations.at_mut(index) else { continue };
            let own = delegation.client == by;
            let Some(watch) = delegation.watch_mut().filter(|watch| !watch.deaf) else { continue };
            // What the holder itself has done to attributes it knows (section 20.4.3).
            watch.stale |= !own && watch.types.contains(notify_type::CHANGE_DIR_ATTRS);
            if !only_attributes && watch.hears(notification) {
                if watch.pending.len() >= CHANGES_PER_WATCH_MAX || !self.changes.take() {
                    self.give_up_telling(delegation, callbacks);
                    continue;
                }
                watch.pending.push_back(change.clone());
            }
            if let Some(notify) = watch.notify.filter(|_| run && !watch.is_told_all()) {
                callbacks.run(notify);
            }
        }
    }

    /// The holder cannot be told any more: its delegation is recalled instead.
    fn give_up_telling(&self, delegation: &mut Delegation, callbacks: &Callbacks) {
        let Some(watch) = delegation.watch_mut().filter(|watch| !watch.deaf) else { return };
        watch.deaf = true;
        watch.clear(&self.changes);
        if delegation.state == State::Held {
            callbacks.recall(delegation.callback);
        }
    }

    /// A holder has been told: what has not been told yet is next.
    pub(crate) fn was_told(&self, id: Id, callbacks: &Callbacks) {
        let (mut shard, local) = self.shard_of(id);
        let Some(watch) = shard.delegations.get_mut(local).and_then(|d| d.watch_mut()) else { return };
        watch.sending = (0, Sending::default());
        if let Some(notify) = watch.notify.filter(|_| !watch.is_told_all()) {
            callbacks.run(notify);
        }
    }

    /// A holder has not been told, or nobody knows.
    pub(crate) fn was_not_told(&self, id: Id, callbacks: &Callbacks) {
        let (mut shard, local) = self.shard_of(id);
        if let Some(delegation) = shard.delegations.get_mut(local) {
            self.give_up_telling(delegation, callbacks);
        }
    }

    /// Gives a directory another cookie verifier; who is to be told so, or recalled, by client index, and by which callback. They are
    /// the caller's to run.
    pub(crate) fn renew_cookies(
        &self,
        directory: Id,
        callbacks: &Callbacks,
    ) -> Result<Vec<(u32, CallbackOp, CallbackKey)>, Status> {
        let (mut shard, _, index) = self.live(directory)?;
        let entries = shard.files.at_mut(index).ok_or(Status::NFS4ERR_STALE)?.directory_mut()?;
        let old = entries.verifier;
        entries.verifier += 1;
        let change = Change { verifier: Some((old, entries.verifier)), ..Change::default() };
        let mut called = Vec::new();
        for delegation in shard.delegations_of(index) {
            let hears = delegation.watch().filter(|watch| watch.hears(notify_type::CHANGE_COOKIE_VERIFIER));
            called.push(match hears.and_then(|watch| watch.notify) {
                Some(notify) => (delegation.client, CallbackOp::Notify, notify),
                None => (delegation.client, CallbackOp::Recall, delegation.callback),
            });
        }
        self.tell(&mut shard, index, u32::MAX, (notify_type::CHANGE_COOKIE_VERIFIER, false), &change, callbacks);
        Ok(called)
    }
}

impl Inner {
    /// Puts together what the next CB_NOTIFY of a delegation tells; whether there is anything. As this asks for attributes of
    /// files in other shards it holds no lock meanwhile: only the end of `pending` changes behind its back.
    pub(crate) fn prepare_notify(&self, id: Id) -> bool {
        let Some(due) = self.to_be_told(id) else { return false };
        let mut space = vec![0; due.room];
        let mut w = Writer::new(&mut space);
        let fits = |change: &&Change| self.put_change(change, &due.child_attributes, &mut w).is_ok();
        let told = due.changes.iter().take_while(fits).count();
        // The directory's attributes come last, when all changes before them have been told.
        let told_attributes = due.stale && told == due.changes.len() && self.put_attributes(&due, &mut w).is_ok();
        let elements = told as u32 + u32::from(told_attributes);
        let (mut shard, local) = self.files.shard_of(id);
        let Some(delegation) = shard.delegations.get_mut(local) else { return false };
        let Some(watch) = delegation.watch_mut().filter(|watch| !watch.deaf) else { return false };
        if elements == 0 {
            self.files.give_up_telling(delegation, &self.callbacks);
            return false;
        }
        let told = told.min(watch.pending.len());
        watch.pending.drain(..told);
        self.files.changes.give_back_many(told as u64);
        watch.stale &= !told_attributes;
        watch.sending = (elements, Sending(w.written().to_vec()));
        true
    }

    /// What there is to be told.
    fn to_be_told(&self, id: Id) -> Option<Due> {
        let (shard, local) = self.files.shard_of(id);
        let delegation = shard.delegations.get(local).filter(|d| d.state == State::Held)?;
        let watch = delegation.watch().filter(|watch| !watch.deaf && !watch.is_told_all())?;
        let most = watch.room as usize / ELEMENT_BYTES_MIN;
        Some(Due {
            directory: global(shard_number(id), shard.files.id_at(delegation.file)?),
            room: watch.room as usize,
            child_attributes: watch.child_attributes,
            directory_attributes: watch.directory_attributes,
            changes: watch.pending.iter().take(most).cloned().collect(),
            stale: watch.stale && watch.pending.len() <= most,
        })
    }

    /// Writes one change, or nothing if there is no room.
    fn put_change(&self, change: &Change, asked: &Bitmap4, w: &mut Writer<'_>) -> xdr::Result<()> {
        let (mut space, mut before_space) = ([0; VALUES_BYTES_MAX], [0; VALUES_BYTES_MAX]);
        let removed = change.removed.as_ref().map(Gone::told);
        let added = change.added.as_ref().map(|added| NotifyAdd {
            old_entry: change.replaced.as_ref().map(Gone::told),
            new_entry: NotifyEntry {
                name: added.name.as_bytes(),
                attributes: self.values(added.id, asked, &mut space),
            },
            new_entry_cookie: Some(added.cookie),
            prev_entry: added.before.as_ref().map(|before| PrevEntry {
                entry: NotifyEntry {
                    name: before.name.as_bytes(),
                    attributes: self.values(before.id, asked, &mut before_space),
                },
                cookie: before.cookie,
            }),
            last_entry: added.last,
        });
        let notification = match (removed, added, change.verifier) {
            (Some(old_entry), Some(new_entry), _) => Notification::Rename(NotifyRename { old_entry, new_entry }),
            (Some(removed), None, _) => Notification::Remove(removed),
            (None, Some(added), _) => Notification::Add(added),
            (None, None, Some((old, new))) => {
                let verifier = |number: u64| Verifier4(number.to_be_bytes());
                Notification::ChangeCookieVerifier(NotifyVerifier { old: verifier(old), new: verifier(new) })
            }
            (None, None, None) => return Ok(()),
        };
        put(&notification, w)
    }

    fn put_attributes(&self, due: &Due, w: &mut Writer<'_>) -> xdr::Result<()> {
        let mut space = [0; VALUES_BYTES_MAX];
        let attributes = self.values(due.directory, &due.directory_attributes, &mut space);
        put(&Notification::ChangeDirectoryAttributes(NotifyEntry { name: b"", attributes }), w)
    }

    /// The attributes of a file now; none if it is gone.
    fn values<'s>(&self, id: Id, asked: &Bitmap4, space: &'s mut [u8]) -> Fattr<'s> {
        let mut w = Writer::new(space);
        let mask = self.facts(id).and_then(|facts| self.attributes(&facts, asked, 1, &mut w));
        match mask {
            Ok(mask) => {
                let len = w.written().len();
                Fattr { mask, values: space.get(..len).unwrap_or_default() }
            }
            Err(_) => Fattr::NONE,
        }
    }
}

/// Writes one element of cna_changes, or nothing if there is no room.
fn put(notification: &Notification<'_>, w: &mut Writer<'_>) -> xdr::Result<()> {
    let start = w.position();
    let element = |w: &mut Writer<'_>| {
        Bitmap4::of(&[notification.bit()]).encode(w)?;
        let length = w.reserve_u32()?;
        let first = w.position();
        notification.encode(w)?;
        let bytes = w.position() - first;
        w.patch_u32(length, bytes as u32);
        Ok(())
    };
    element(w).inspect_err(|_| w.rewind(start))
}
