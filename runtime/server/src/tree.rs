//! Names: LOOKUP, CREATE, REMOVE, RENAME, LINK and what READDIR lists (RFC 8881 section 18).
//!
//! A directory is changed under its own shard's lock, the files in it under theirs. Adding a name needs no more than that.
//! Taking one away first looks at the file that it stands for, so it holds the namespace lock: nobody else takes names away
//! meanwhile.

use crate::arena::{Id, NONE};
use crate::callbacks::Callbacks;
use crate::delegations::Conflict;
use crate::directory::Directory;
use crate::file::File;
use crate::files::{Caller, Files, SHARDS, Shard, global, shard_number};
use crate::name::{ShortBytes, check_name};
use crate::watches::{Named, Names, Observed};
use ringback_rpc::nfs4::{ChangeInfo4, NfsTime4, Status, Verifier4};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, PoisonError};

/// Most names of one file, and most subdirectories of one directory.
pub(crate) const LINKS_MAX: u32 = 1 << 16;
/// Directories between the root and a file: a rename looks at all of them.
const DEPTH_MAX: usize = 4096;

/// One entry of a listing.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) cookie: u64,
    pub(crate) name: ShortBytes,
    pub(crate) id: Id,
}

/// Who changes a directory.
pub(crate) struct Editor<'a> {
    caller: &'a Caller<'a>,
    callbacks: &'a Callbacks,
    /// Those who watch it have been asked, and what may be told of it has not changed since.
    has_asked: bool,
}

impl<'a> Editor<'a> {
    const fn new(caller: &'a Caller<'a>, callbacks: &'a Callbacks) -> Self {
        Editor { caller, callbacks, has_asked: false }
    }

    /// Whether delegations stand against a change of names. They are being recalled then.
    fn is_resisted(&self, files: &Files, shard: &mut Shard, directory: u32, names: &Names<'_>) -> bool {
        files.recall_of_watchers(shard, directory, self.caller, names.notification(), self.callbacks)
    }
}

impl Files {
    /// LOOKUP.
    pub(crate) fn lookup(&self, directory: Id, name: &[u8]) -> Result<Id, Status> {
        self.with_file(directory, |file| {
            let directory = file.directory()?;
            check_name(name)?;
            directory.find(self.hash(name), name).ok_or(Status::NFS4ERR_NOENT)
        })?
    }

    /// The verifier of the cookies of a directory.
    pub(crate) fn cookie_verifier(&self, directory: Id) -> Result<Verifier4, Status> {
        self.with_file(directory, |file| Ok(Verifier4(file.directory()?.verifier.to_be_bytes())))?
    }

    /// The change attribute.
    pub(crate) fn change(&self, id: Id) -> Result<u64, Status> {
        self.with_file(id, |file| file.change)
    }

    pub(crate) fn namespace(&self) -> MutexGuard<'_, ()> {
        self.namespace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the entries of a directory that has not been removed, so that `names` come and go. Who watches it is told.
    fn edit(
        &self,
        directory: Id,
        names: Names<'_>,
        by: &Editor<'_>,
        change: impl FnOnce(&mut Directory) -> Result<(), Status>,
    ) -> Result<ChangeInfo4, Status> {
        let (mut shard, local) = self.shard_of(directory);
        let file = shard.files.get(local).ok_or(Status::NFS4ERR_STALE)?;
        let watched = file.delegations != NONE;
        if file.directory()?.removed {
            return Err(Status::NFS4ERR_STALE);
        }
        if watched && !by.has_asked && by.is_resisted(self, &mut shard, local.index, &names) {
            return Err(Status::NFS4ERR_DELAY);
        }
        let file = shard.files.get_mut(local).ok_or(Status::NFS4ERR_STALE)?;
        let before = file.change;
        let entries = file.directory_mut()?;
        let observed = watched.then(|| Observed::before(entries, names));
        change(entries)?;
        file.modify(by.caller.maker.now);
        let after = file.change;
        if let Some(observed) = observed {
            self.tell_watchers(&mut shard, local.index, by.caller.client, observed, by.callbacks);
        }
        Ok(ChangeInfo4 { atomic: true, before, after })
    }

    /// Asks those who watch a directory before names are taken away from it; they are not asked again then.
    fn ask_watchers(&self, directory: Id, names: &Names<'_>, by: &Editor<'_>) -> Result<(), Status> {
        let (mut shard, _, index) = self.live(directory)?;
        if by.is_resisted(self, &mut shard, index, names) { Err(Status::NFS4ERR_DELAY) } else { Ok(()) }
    }

    fn named<'n>(&self, name: &'n [u8]) -> Option<Named<'n>> {
        Some(Named { hash: self.hash(name), name })
    }

    /// Makes a file of any kind. With a name that is taken it answers NFS4ERR_EXIST.
    pub(crate) fn make(
        &self,
        directory: Id,
        name: &[u8],
        file: File,
        caller: &Caller<'_>,
        callbacks: &Callbacks,
    ) -> Result<(Id, ChangeInfo4), Status> {
        match self.lookup(directory, name) {
            Err(Status::NFS4ERR_NOENT) => {}
            Ok(_) => return Err(Status::NFS4ERR_EXIST),
            Err(status) => return Err(status),
        }
        let now = file.created();
        let is_directory = file.directory().is_ok();
        let hash = self.hash(name);
        let id = self.adopt(hash, file)?;
        let names = Names { added: Some(Named { hash, name }), removed: None };
        let added = self.edit(directory, names, &Editor::new(caller, callbacks), |entries| {
            if entries.find(hash, name).is_some() {
                return Err(Status::NFS4ERR_EXIST);
            }
            if is_directory && entries.subdirectories >= LINKS_MAX {
                return Err(Status::NFS4ERR_MLINK);
            }
            entries.put(hash, name, id)?;
            entries.subdirectories += u32::from(is_directory);
            Ok(())
        });
        added.map(|change| (id, change)).inspect_err(|_| self.unlink(id, now))
    }

    /// Stores a file that has no name yet, in a shard that follows from its first one.
    fn adopt(&self, hash: u64, file: File) -> Result<Id, Status> {
        let room = self.files.reserve(1).ok_or(Status::NFS4ERR_NOSPC)?;
        // Bytes are charged as they are written; a link has its own from the start.
        let target = file.target().map_or(0, |target| target.len() as u64);
        let content = self.data.reserve(target).ok_or(Status::NFS4ERR_NOSPC)?;
        let number = (hash >> 40) as usize % SHARDS;
        let id = self.shard(number).files.insert(file).ok_or(Status::NFS4ERR_NOSPC)?;
        room.keep();
        content.keep();
        Ok(global(number, id))
    }

    /// One name less stands for a file. Each but the last is charged like a file.
    fn unlink(&self, id: Id, now: NfsTime4) {
        let (mut shard, local) = self.shard_of(id);
        if let Some(file) = shard.files.get_mut(local) {
            let body = file.body_mut();
            body.links = body.links.saturating_sub(1);
            if body.links > 0 {
                self.files.give_back();
            }
            file.touch(now);
            self.reap(&mut shard, local.index);
        }
    }

    /// Frees a file that has no name and that nobody holds.
    pub(crate) fn reap(&self, shard: &mut Shard, index: u32) {
        let Some(file) = shard.files.at(index) else { return };
        let held = file.opens != NONE || file.delegations != NONE || file.locks() != NONE;
        if held || file.links() > 0 {
            return;
        }
        let gone = shard.files.id_at(index).and_then(|id| shard.files.remove(id));
        self.data.give_back_many(gone.map_or(0, |file| file.memory()));
        self.files.give_back();
    }

    /// Whether a file's name may be taken away by the caller: a directory must be empty, and is closed for new names; what
    /// others hold on a file is recalled first.
    fn release(&self, id: Id, caller: &Caller<'_>, callbacks: &Callbacks) -> Result<bool, Status> {
        let (mut shard, local) = self.shard_of(id);
        let file = shard.files.get_mut(local).ok_or(Status::NFS4ERR_STALE)?;
        if let Ok(directory) = file.directory_mut() {
            if !directory.is_empty() {
                return Err(Status::NFS4ERR_NOTEMPTY);
            }
            // Whatever is told of a directory, it is not that it is gone (section 10.9).
            if self.recall_of_others(&mut shard, local.index, caller, Conflict::Write, callbacks) {
                return Err(Status::NFS4ERR_DELAY);
            }
            if let Some(Ok(directory)) = shard.files.get_mut(local).map(File::directory_mut) {
                directory.removed = true;
            }
            return Ok(true);
        }
        match self.recall_of_others(&mut shard, local.index, caller, Conflict::Write, callbacks) {
            true => Err(Status::NFS4ERR_DELAY),
            false => Ok(false),
        }
    }

    /// REMOVE.
    pub(crate) fn remove(
        &self,
        directory: Id,
        name: &[u8],
        caller: &Caller<'_>,
        callbacks: &Callbacks,
    ) -> Result<ChangeInfo4, Status> {
        let _alone = self.namespace();
        let id = self.lookup(directory, name)?;
        let by = Editor { caller, callbacks, has_asked: true };
        let names = Names { removed: self.named(name), added: None };
        self.ask_watchers(directory, &names, &by)?;
        let is_directory = self.release(id, caller, callbacks)?;
        let change = self.edit(directory, names, &by, |entries| {
            entries.remove(self.hash(name), name);
            entries.subdirectories -= u32::from(is_directory);
            Ok(())
        })?;
        self.unlink(id, caller.maker.now);
        Ok(change)
    }

    /// LINK.
    pub(crate) fn link(
        &self,
        file: Id,
        directory: Id,
        name: &[u8],
        caller: &Caller<'_>,
        callbacks: &Callbacks,
    ) -> Result<ChangeInfo4, Status> {
        self.with_file(directory, |d| d.directory().map(|_| ()))??;
        check_name(name)?;
        let now = caller.maker.now;
        {
            let (mut shard, local) = self.shard_of(file);
            let linked = shard.files.get(local).ok_or(Status::NFS4ERR_STALE)?;
            if linked.directory().is_ok() {
                return Err(Status::NFS4ERR_ISDIR);
            }
            match linked.links() {
                0 => return Err(Status::NFS4ERR_STALE),
                links if links >= LINKS_MAX => return Err(Status::NFS4ERR_MLINK),
                _ => {}
            }
            if self.recall_of_others(&mut shard, local.index, caller, Conflict::Write, callbacks) {
                return Err(Status::NFS4ERR_DELAY);
            }
            if !self.files.take() {
                return Err(Status::NFS4ERR_NOSPC);
            }
            if let Some(file) = shard.files.get_mut(local) {
                file.body_mut().links += 1;
                file.touch(now);
            }
        }
        let hash = self.hash(name);
        let names = Names { added: Some(Named { hash, name }), removed: None };
        let added =
            self.edit(directory, names, &Editor::new(caller, callbacks), |entries| match entries.find(hash, name) {
                Some(_) => Err(Status::NFS4ERR_EXIST),
                None => entries.put(hash, name, file),
            });
        added.inspect_err(|_| self.unlink(file, now))
    }

    /// RENAME, with the changes of both directories.
    pub(crate) fn rename(
        &self,
        from: (Id, &[u8]),
        to: (Id, &[u8]),
        caller: &Caller<'_>,
        callbacks: &Callbacks,
    ) -> Result<(ChangeInfo4, ChangeInfo4), Status> {
        check_name(to.1)?;
        let _alone = self.namespace();
        let id = self.lookup(from.0, from.1)?;
        let target = match self.lookup(to.0, to.1) {
            Ok(target) => Some(target),
            Err(Status::NFS4ERR_NOENT) => None,
            Err(status) => return Err(status),
        };
        if target == Some(id) {
            // Two names of one file: nothing is to be done (section 18.26.3).
            let unchanged = |directory| {
                self.change(directory).map(|change| ChangeInfo4 { atomic: true, before: change, after: change })
            };
            return Ok((unchanged(from.0)?, unchanged(to.0)?));
        }
        let by = Editor { caller, callbacks, has_asked: true };
        for (directory, names) in self.moved(from, to) {
            self.ask_watchers(directory, &names, &by)?;
        }
        let is_directory = self.check_move(id, to.0, caller, callbacks)?;
        if let Some(target) = target {
            let replaced = self.with_file(target, |file| file.directory().is_ok())?;
            if replaced != is_directory {
                // As the RFC says of a rename that would change the kind (section 18.26.3).
                return Err(Status::NFS4ERR_EXIST);
            }
            self.release(target, caller, callbacks).map_err(|status| match status {
                Status::NFS4ERR_NOTEMPTY => Status::NFS4ERR_EXIST,
                status => status,
            })?;
        }
        self.move_name(id, from, to, (is_directory, target), &by)
    }

    /// What a rename does to the names of its directories, the target first: within one directory that is one change.
    fn moved<'n>(&self, from: (Id, &'n [u8]), to: (Id, &'n [u8])) -> Vec<(Id, Names<'n>)> {
        let (removed, added) = (self.named(from.1), self.named(to.1));
        match from.0 == to.0 {
            true => vec![(to.0, Names { removed, added })],
            false => vec![(to.0, Names { removed: None, added }), (from.0, Names { removed, added: None })],
        }
    }

    /// Whether a file may be moved into `directory`; whether it is a directory itself.
    fn check_move(&self, id: Id, directory: Id, caller: &Caller<'_>, callbacks: &Callbacks) -> Result<bool, Status> {
        {
            let (mut shard, local) = self.shard_of(id);
            let file = shard.files.get(local).ok_or(Status::NFS4ERR_STALE)?;
            if file.directory().is_err() {
                let held = self.recall_of_others(&mut shard, local.index, caller, Conflict::Write, callbacks);
                return if held { Err(Status::NFS4ERR_DELAY) } else { Ok(false) };
            }
        }
        // Not into itself or what is below it.
        let mut above = directory;
        for _ in 0..DEPTH_MAX {
            if above == id {
                return Err(Status::NFS4ERR_INVAL);
            }
            let parent = self.with_file(above, File::parent)??;
            if parent == above {
                return Ok(true);
            }
            above = parent;
        }
        Err(Status::NFS4ERR_NAMETOOLONG)
    }

    /// Moves a name, after all checks. The new name comes first: a file that is moved has a name at any time. If one was
    /// made meanwhile that is in the way, which needs no namespace lock, the client comes again.
    fn move_name(
        &self,
        id: Id,
        from: (Id, &[u8]),
        to: (Id, &[u8]),
        (is_directory, target): (bool, Option<Id>),
        by: &Editor<'_>,
    ) -> Result<(ChangeInfo4, ChangeInfo4), Status> {
        let (from_hash, to_hash) = (self.hash(from.1), self.hash(to.1));
        let (one, now) = (u32::from(is_directory), by.caller.maker.now);
        let put = |entries: &mut Directory| match entries.find(to_hash, to.1) {
            found if found == target => entries.put(to_hash, to.1, id),
            _ => Err(Status::NFS4ERR_DELAY),
        };
        let changes = match &*self.moved(from, to) {
            [(source, removed), ..] if *source == from.0 => {
                let change = self.edit(*source, *removed, by, |entries| {
                    put(entries)?;
                    entries.remove(from_hash, from.1);
                    entries.subdirectories -= if target.is_some() { one } else { 0 };
                    Ok(())
                })?;
                (change, change)
            }
            [(destination, added), (source, removed)] => {
                let target_change = self.edit(*destination, *added, by, |entries| {
                    put(entries)?;
                    entries.subdirectories += if target.is_some() { 0 } else { one };
                    Ok(())
                })?;
                // Between the two, see `saved.rs`.
                self.moves.fetch_add(1, Relaxed);
                let source_change = self.edit(*source, *removed, by, |entries| {
                    entries.remove(from_hash, from.1);
                    entries.subdirectories -= one;
                    Ok(())
                })?;
                (source_change, target_change)
            }
            _ => return Err(Status::NFS4ERR_SERVERFAULT),
        };
        let (mut shard, _, index) = self.live(id)?;
        if let Some(file) = shard.files.at_mut(index) {
            if let Ok(directory) = file.directory_mut() {
                directory.parent = to.0;
            }
            file.touch(now);
            self.tell_attributes(&mut shard, index, by.caller.client, by.callbacks);
        }
        drop(shard);
        if let Some(target) = target {
            self.unlink(target, now);
        }
        Ok(changes)
    }

    /// The entries after a cookie, as many as may be of use in `bytes`; and whether those are all.
    pub(crate) fn list(&self, directory: Id, cookie: u64, bytes: usize) -> Result<(Vec<Listed>, bool), Status> {
        self.with_file(directory, |file| {
            let mut entries = file.directory()?.after(cookie);
            let mut listed = Vec::new();
            let mut left = bytes;
            for (cookie, entry) in entries.by_ref() {
                listed.push(Listed { cookie: *cookie, name: entry.name.clone(), id: entry.id });
                // Link, cookie, the length of the name and an empty bitmap and attributes take 24 bytes.
                left = left.saturating_sub(24 + entry.name.as_bytes().len());
                if left == 0 {
                    break;
                }
            }
            let all = entries.next().is_none();
            Ok((listed, all))
        })?
    }

    /// The shard in which a file lives, by number, locked, if the file is there.
    pub(crate) fn live(&self, id: Id) -> Result<(MutexGuard<'_, Shard>, usize, u32), Status> {
        let (shard, local) = self.shard_of(id);
        match shard.files.get(local) {
            Some(_) => Ok((shard, shard_number(id), local.index)),
            None => Err(Status::NFS4ERR_STALE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Client;
    use crate::config::Config;
    use crate::file::{Kind, Maker, now};
    use crate::files::ROOT;
    use std::sync::Arc;

    #[test]
    fn a_name_that_is_made_while_another_moves_there_stays() {
        let (files, nobody, callbacks) =
            (Files::new(&Config::default(), 1), Client::nobody(), Callbacks::new(Arc::new(())));
        let maker = Maker { uid: 0, gid: 0, now: now() };
        let caller = Caller { client: &nobody, now_s: 0, maker };
        let make =
            |to, name: &[u8], kind| files.make(to, name, File::new(kind, 0, &maker), &caller, &callbacks).unwrap().0;
        let regular = || Kind::Regular(Default::default());
        let moved = make(ROOT, b"old", regular());
        let below = make(ROOT, b"below", Kind::Directory(Directory::new(ROOT)));
        // A rename has seen no such names.
        let made = [(ROOT, make(ROOT, b"new", regular())), (below, make(below, b"new", regular()))];
        for (directory, id) in made {
            let renamed = files.move_name(
                moved,
                (ROOT, b"old"),
                (directory, b"new"),
                (false, None),
                &Editor::new(&caller, &callbacks),
            );
            assert_eq!(renamed.unwrap_err(), Status::NFS4ERR_DELAY);
            assert_eq!((files.lookup(ROOT, b"old"), files.lookup(directory, b"new")), (Ok(moved), Ok(id)));
        }
    }
}
