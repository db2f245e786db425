//! Layouts (RFC 8881 section 12), of flexible files (RFC 8435) with this server as its own data server, tightly coupled: which client
//! has one of which file, how it is recalled (CB_LAYOUTRECALL), and what clients are told of the device (CB_NOTIFY_DEVICEID).
//!
//! A client has at most one layout of a file, of all of it. Its stateid is what the client's READ and WRITE at the data server carry,
//! so that they end with the layout: a client that does not return it in time is fenced off. There its client id may be
//! another one (section 13.9.1); what is done under a layout is done for the client that has it.
//!
//! Files are served here all the same, so that a layout is in nobody's way but of who cuts a file: it is recalled first. All this is
//! under one lock, below which no other is taken.

use crate::arena::{Arena, Id};
use crate::callbacks::{Callbacks, Subject};
use crate::clients::{Client, Clients};
use crate::files::Files;
use crate::keep::{Keep, keep, malformed};
use crate::stateids::{Kind, next_seqid};
use ringback::CallbackKey;
use ringback_rpc::nfs4::callback::device_notify_type;
use ringback_rpc::nfs4::{Bitmap4, ClientId4, LayoutIomode4, Stateid4, Status};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Layouts of all clients together.
const LAYOUTS_MAX: u32 = 1 << 16;
/// What is said to clients about all their layouts, or about the device, at the same time.
const WORDS_MAX: u32 = 1 << 14;
/// Of what clients can be told.
pub(crate) const NOTIFICATIONS: Bitmap4 = Bitmap4::of(&[device_notify_type::CHANGE, device_notify_type::DELETE]);

/// A client's layout of one file.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) client: Arc<Client>,
    pub(crate) file: Id,
    rw: bool,
    pub(crate) seqid: u32,
    /// Its CB_LAYOUTRECALL.
    callback: CallbackKey,
    recalled: bool,
    pub(crate) denials: u8,
    /// The client does not have it any more; a run of its callback still looks at it.
    pub(crate) gone: bool,
}

/// What a client is told, besides about single layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// To return all of the file system.
    ReturnFsid = 0,
    /// To return all.
    ReturnAll = 1,
    /// The device has other addresses.
    DeviceChanged = 2,
    /// There is no such device any more.
    DeviceDeleted = 3,
}

/// One word to one client.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) client: Arc<Client>,
    pub(crate) word: Word,
    /// Which device is meant.
    pub(crate) device: u64,
    callback: Option<CallbackKey>,
    /// Has been returned; a run still looks at it.
    gone: bool,
}

/// A client that has asked what a device is, and of what it is to be told.
#[derive(Debug)]
pub(crate) struct Asker {
    client: Arc<Client>,
    notifications: Bitmap4,
}

#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) layouts: Arena<Layout>,
    pub(crate) said: Arena<Said>,
    askers: Vec<Asker>,
    /// The number of the device; those before are deleted.
    device: u64,
    /// Operations that clients have reported to have failed at the data server.
    errors: u64,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Layouts(Mutex<Content>);

struct KeptLayout {
    client: ClientId4,
    file: Id,
    rw: bool,
    seqid: u32,
    callback: CallbackKey,
    recalled: bool,
    denials: u8,
    gone: bool,
}

struct KeptSaid {
    client: ClientId4,
    word: u8,
    device: u64,
    callback: Option<CallbackKey>,
    gone: bool,
}

keep! {
    KeptLayout { client, file, rw, seqid, callback, recalled, denials, gone }
    KeptSaid { client, word, device, callback, gone }
}

/// A layout as LAYOUTGET gives it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Given {
    pub(crate) stateid: Stateid4,
    pub(crate) rw: bool,
    pub(crate) device: u64,
}

impl Word {
    fn of(number: u8) -> Option<Word> {
        [Word::ReturnFsid, Word::ReturnAll, Word::DeviceChanged, Word::DeviceDeleted].get(usize::from(number)).copied()
    }

    const fn is_recall(self) -> bool {
        matches!(self, Word::ReturnFsid | Word::ReturnAll)
    }

    const fn subject(self, id: Id) -> Subject {
        if self.is_recall() { Subject::Layouts(id) } else { Subject::Device(id) }
    }
}

impl Layouts {
    pub(crate) fn new() -> Self {
        let (layouts, said) = (Arena::new(LAYOUTS_MAX), Arena::new(WORDS_MAX));
        Layouts(Mutex::new(Content { layouts, said, askers: Vec::new(), device: 1, errors: 0 }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For another process.
    pub(crate) fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        let content = self.lock();
        let layouts = content.layouts.map(|layout| {
            let &Layout { ref client, file, rw, seqid, callback, recalled, denials, gone } = layout;
            KeptLayout { client: client.id, file, rw, seqid, callback, recalled, denials, gone }
        });
        layouts.save(out)?;
        let said = content.said.map(|&Said { ref client, word, device, callback, gone }| KeptSaid {
            client: client.id,
            word: word as u8,
            device,
            callback,
            gone,
        });
        said.save(out)?;
        let askers: Vec<_> = content.askers.iter().map(|a| (a.client.id, a.notifications)).collect();
        (askers, (content.device, content.errors)).save(out)
    }

    /// Those of another process, of these clients.
    pub(crate) fn load(clients: &Clients, from: &mut dyn Read) -> io::Result<Self> {
        let kept: Arena<KeptLayout> = Keep::load(from)?;
        let layouts = kept.try_map(|&KeptLayout { client, file, rw, seqid, callback, recalled, denials, gone }| {
            let client = Arc::clone(clients.client(client)?);
            Some(Layout { client, file, rw, seqid, callback, recalled, denials, gone })
        });
        let kept: Arena<KeptSaid> = Keep::load(from)?;
        let said = kept.try_map(|&KeptSaid { client, word, device, callback, gone }| {
            let client = Arc::clone(clients.client(client)?);
            Some(Said { client, word: Word::of(word)?, device, callback, gone })
        });
        let (askers, (device, errors)): (Vec<(ClientId4, Bitmap4)>, _) = Keep::load(from)?;
        let asker = |(client, notifications)| {
            let client = Arc::clone(clients.client(client)?);
            Some(Asker { client, notifications })
        };
        let askers = askers.into_iter().map(asker).collect::<Option<_>>().ok_or_else(malformed)?;
        let (layouts, said) = (layouts.ok_or_else(malformed)?, said.ok_or_else(malformed)?);
        Ok(Layouts(Mutex::new(Content { layouts, said, askers, device, errors })))
    }

    /// LAYOUTGET. NFS4ERR_RECALLCONFLICT: it is being recalled. NFS4ERR_LAYOUTTRYLATER: there are too many.
    pub(crate) fn get(
        &self,
        client: &Arc<Client>,
        file: Id,
        rw: bool,
        files: &Files,
        callbacks: &Callbacks,
    ) -> Result<Given, Status> {
        let mut content = self.lock();
        let content = &mut *content;
        if content.said.ids().any(|id| content.said.get(id).is_some_and(|s| s.is_of(client) && s.word.is_recall())) {
            return Err(Status::NFS4ERR_RECALLCONFLICT);
        }
        let id = match content.find(client, file) {
            Some(id) => id,
            None => {
                let (client, callback) = (Arc::clone(client), CallbackKey::from_bits(u64::MAX));
                let (seqid, recalled, denials, gone) = (0, false, 0, false);
                let layout = Layout { client, file, rw, seqid, callback, recalled, denials, gone };
                content.layouts.insert(layout).ok_or(Status::NFS4ERR_LAYOUTTRYLATER)?
            }
        };
        let layout = content.layouts.get_mut(id).ok_or(Status::NFS4ERR_SERVERFAULT)?;
        if layout.recalled {
            return Err(Status::NFS4ERR_RECALLCONFLICT);
        }
        if layout.seqid == 0 {
            match callbacks.insert(client.callbacks, Subject::Layout(id)) {
                // Who drops the client marks it first, and looks for its layouts then.
                Some(callback) if !client.is_gone() => layout.callback = callback,
                callback => {
                    callback.map(|callback| callbacks.remove_is_final(callback));
                    content.layouts.remove(id);
                    return Err(Status::NFS4ERR_LAYOUTTRYLATER);
                }
            }
        }
        layout.rw |= rw;
        layout.seqid = next_seqid(layout.seqid);
        let stateid = files.stateid(Kind::Layout, id, layout.seqid);
        Ok(Given { stateid, rw: layout.rw, device: content.device })
    }

    /// Whether a stateid is that of the client's layout of the file.
    pub(crate) fn check(&self, client: &Client, file: Id, stateid: &Stateid4, files: &Files) -> Result<(), Status> {
        let id = files.parse_stateid(Kind::Layout, stateid)?;
        let content = self.lock();
        let layout = content.layouts.get(id).filter(|l| !l.gone && l.is_of(client) && l.file == file);
        let layout = layout.ok_or(Status::NFS4ERR_BAD_STATEID)?;
        // Several LAYOUTGETs may be under way, so an older one is as good (RFC 8881 section 12.5.3).
        match layout.seqid.wrapping_sub(stateid.seqid) {
            _ if stateid.seqid == 0 => Ok(()),
            behind if behind < 1 << 31 => Ok(()),
            _ => Err(Status::NFS4ERR_BAD_STATEID),
        }
    }

    /// The same of any file, for TEST_STATEID.
    pub(crate) fn check_any(&self, client: &Client, stateid: &Stateid4, files: &Files) -> Result<(), Status> {
        let id = files.parse_stateid(Kind::Layout, stateid)?;
        let file = self.lock().layouts.get(id).map(|layout| layout.file);
        self.check(client, file.ok_or(Status::NFS4ERR_BAD_STATEID)?, stateid, files)
    }

    /// For whom is read or written under a layout, if that may be.
    pub(crate) fn actor(
        &self,
        file: Id,
        stateid: &Stateid4,
        write: bool,
        files: &Files,
    ) -> Result<Arc<Client>, Status> {
        let id = files.parse_stateid(Kind::Layout, stateid)?;
        let content = self.lock();
        let layout = content.layouts.get(id).filter(|l| !l.gone && l.file == file);
        let layout = layout.ok_or(Status::NFS4ERR_BAD_STATEID)?;
        match write && !layout.rw {
            true => Err(Status::NFS4ERR_OPENMODE),
            false => Ok(Arc::clone(&layout.client)),
        }
    }

    /// LAYOUTRETURN of a file, for such use of it, if it is one of all of it; what the client has left.
    pub(crate) fn give_back(
        &self,
        client: &Client,
        file: Id,
        iomode: Option<LayoutIomode4>,
        files: &Files,
        callbacks: &Callbacks,
    ) -> Option<Stateid4> {
        let mut content = self.lock();
        let id = content.find(client, file)?;
        let layout = content.layouts.get_mut(id)?;
        let own = if layout.rw { LayoutIomode4::Rw } else { LayoutIomode4::Read };
        if iomode.is_none_or(|iomode| iomode != LayoutIomode4::Any && iomode != own) {
            layout.seqid = next_seqid(layout.seqid);
            return Some(files.stateid(Kind::Layout, id, layout.seqid));
        }
        content.drop_layout(id, callbacks);
        content.end_recalls(client, callbacks);
        None
    }

    /// LAYOUTRETURN of all; also when the client is gone.
    pub(crate) fn give_back_all(&self, client: &Client, callbacks: &Callbacks) {
        let mut content = self.lock();
        for id in content.layouts.ids().collect::<Vec<_>>() {
            if content.layouts.get(id).is_some_and(|l| !l.gone && l.is_of(client)) {
                content.drop_layout(id, callbacks);
            }
        }
        content.end_recalls(client, callbacks);
    }

    /// Forgets a client that is gone. What it is being told goes with its callback.
    pub(crate) fn forget_client(&self, client: &Client, callbacks: &Callbacks) {
        self.give_back_all(client, callbacks);
        self.lock().askers.retain(|asker| !asker.is_of(client));
    }

    /// The file that a layout is of.
    pub(crate) fn file(&self, id: Id) -> Option<Id> {
        self.lock().layouts.get(id).map(|layout| layout.file)
    }

    pub(crate) fn has_any(&self, client: &Client) -> bool {
        let content = self.lock();
        content.layouts.ids().any(|id| content.layouts.get(id).is_some_and(|l| !l.gone && l.is_of(client)))
    }

    /// Has the layouts that others than `client` have of a file returned; whether there are any.
    pub(crate) fn recall_of_others(&self, client: &Client, file: Id, callbacks: &Callbacks) -> bool {
        self.recall(file, |layout| !layout.is_of(client), callbacks) > 0
    }

    fn recall(&self, file: Id, which: impl Fn(&Layout) -> bool, callbacks: &Callbacks) -> u64 {
        let mut content = self.lock();
        let mut found = 0;
        for id in content.layouts.ids().collect::<Vec<_>>() {
            let Some(layout) = content.layouts.get_mut(id) else { continue };
            if !layout.gone && layout.file == file && which(layout) {
                found += 1;
                if !std::mem::replace(&mut layout.recalled, true) {
                    // The recall is a change of its state like any other (RFC 8881 section 12.5.5.2).
                    layout.seqid = next_seqid(layout.seqid);
                }
                callbacks.run(layout.callback);
            }
        }
        found
    }

    /// Recalls what anybody has of a file; how many that are.
    pub(crate) fn recall_file(&self, file: Id, callbacks: &Callbacks) -> u64 {
        self.recall(file, |_| true, callbacks)
    }

    /// Has every client that has layouts return all of them; how many clients that are.
    pub(crate) fn recall_all(&self, word: Word, callbacks: &Callbacks) -> u64 {
        let mut content = self.lock();
        let mut clients: Vec<Arc<Client>> = Vec::new();
        for id in content.layouts.ids() {
            if let Some(layout) = content.layouts.get(id).filter(|l| !l.gone)
                && !clients.iter().any(|client| Arc::ptr_eq(client, &layout.client))
            {
                clients.push(Arc::clone(&layout.client));
            }
        }
        clients.iter().filter(|client| content.say(client, word, callbacks)).count() as u64
    }

    /// GETDEVICEINFO: whether the device is there. The client will be told of these changes; which of them it asked for.
    pub(crate) fn ask(&self, client: &Arc<Client>, device: u64, asked: &Bitmap4) -> Result<Bitmap4, Status> {
        let mut content = self.lock();
        if device != content.device {
            return Err(Status::NFS4ERR_NOENT);
        }
        let notifications = asked.and(&NOTIFICATIONS);
        content.askers.retain(|asker| !asker.is_of(client));
        content.askers.push(Asker { client: Arc::clone(client), notifications });
        Ok(notifications)
    }

    /// Tells clients that asked for it that the device has changed, or deletes it: layouts that name it are recalled first, and
    /// there is another one from now on. How many clients are told, or asked.
    pub(crate) fn change_device(&self, word: Word, callbacks: &Callbacks) -> u64 {
        if word == Word::DeviceDeleted {
            // Who has layouts is told when they are back: no layout may name a device that is not there (RFC 8881 section 20.12.3).
            self.recall_all(Word::ReturnAll, callbacks);
        }
        let mut content = self.lock();
        let bit = if word == Word::DeviceChanged { device_notify_type::CHANGE } else { device_notify_type::DELETE };
        let asked = content.askers.iter().filter(|asker| asker.notifications.contains(bit));
        let asked: Vec<_> = asked.map(|asker| Arc::clone(&asker.client)).collect();
        let told = asked.iter().filter(|client| content.say(client, word, callbacks)).count() as u64;
        if word == Word::DeviceDeleted {
            content.device += 1;
            content.askers.clear();
        }
        told
    }

    pub(crate) fn count_errors(&self, errors: u64) {
        self.lock().errors += errors;
    }

    /// The last run of a layout's callback is over.
    pub(crate) fn forget_layout(&self, id: Id) {
        let mut content = self.lock();
        if content.layouts.get(id).is_some_and(|layout| layout.gone) {
            content.layouts.remove(id);
        }
    }

    /// A word has been said. One to return all stays until that is done.
    pub(crate) fn forget_word(&self, id: Id, callbacks: &Callbacks) {
        let mut content = self.lock();
        let Some(said) = content.said.get(id) else { return };
        if said.gone || !said.word.is_recall() {
            let said = content.said.remove(id);
            said.and_then(|said| said.callback).map(|callback| callbacks.remove_is_final(callback));
        }
    }

    #[cfg(test)]
    pub(crate) fn counts(&self) -> (u32, u32, u64) {
        let content = self.lock();
        (content.layouts.len(), content.said.len(), content.errors)
    }
}

impl Layout {
    fn is_of(&self, client: &Client) -> bool {
        std::ptr::eq(&*self.client, client)
    }
}

impl Said {
    fn is_of(&self, client: &Client) -> bool {
        !self.gone && std::ptr::eq(&*self.client, client)
    }
}

impl Asker {
    fn is_of(&self, client: &Client) -> bool {
        std::ptr::eq(&*self.client, client)
    }
}

impl Content {
    fn find(&self, client: &Client, file: Id) -> Option<Id> {
        let of_client = |id: &Id| self.layouts.get(*id).is_some_and(|l| !l.gone && l.file == file && l.is_of(client));
        self.layouts.ids().find(of_client)
    }

    /// The client has a layout no longer.
    pub(crate) fn drop_layout(&mut self, id: Id, callbacks: &Callbacks) {
        let Some(layout) = self.layouts.get_mut(id) else { return };
        layout.gone = true;
        if callbacks.remove_is_final(layout.callback) {
            self.layouts.remove(id);
        }
    }

    /// Whether the client has been asked to return all, and has: then it has been done, and what waited for it is said.
    pub(crate) fn end_recalls(&mut self, client: &Client, callbacks: &Callbacks) {
        if self.layouts.ids().any(|id| self.layouts.get(id).is_some_and(|l| !l.gone && l.is_of(client))) {
            return;
        }
        for id in self.said.ids().collect::<Vec<_>>() {
            let Some(said) = self.said.get_mut(id).filter(|said| said.is_of(client)) else { continue };
            match (said.word.is_recall(), said.callback) {
                (true, Some(callback)) => {
                    said.gone = true;
                    if callbacks.remove_is_final(callback) {
                        self.said.remove(id);
                    }
                }
                (false, None) => self.send(id, callbacks),
                _ => {}
            }
        }
    }

    /// Says something to a client; whether it will be. That a device is gone waits until the client has no layouts.
    fn say(&mut self, client: &Arc<Client>, word: Word, callbacks: &Callbacks) -> bool {
        if word.is_recall()
            && self.said.ids().any(|id| self.said.get(id).is_some_and(|s| s.is_of(client) && s.word == word))
        {
            return true;
        }
        let device = self.device;
        let said = Said { client: Arc::clone(client), word, device, callback: None, gone: false };
        let Some(id) = self.said.insert(said) else { return false };
        let waits = word == Word::DeviceDeleted
            && self.layouts.ids().any(|id| self.layouts.get(id).is_some_and(|l| !l.gone && l.is_of(client)));
        if !waits {
            self.send(id, callbacks);
        }
        self.said.get(id).is_some()
    }

    fn send(&mut self, id: Id, callbacks: &Callbacks) {
        let Some(said) = self.said.get_mut(id) else { return };
        said.callback = callbacks.insert(said.client.callbacks, said.word.subject(id));
        let sent = said.callback.is_some_and(|callback| callbacks.run(callback));
        if !sent || said.client.is_gone() {
            let said = self.said.remove(id);
            said.and_then(|said| said.callback).map(|callback| callbacks.remove_is_final(callback));
        }
    }
}
