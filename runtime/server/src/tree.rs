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
use ringback_rpc::nfs4::{ChangeInfo4, NfsTime4, Status};
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

impl Files {
    /// LOOKUP.
    pub(crate) fn lookup(&self, directory: Id, name: &[u8]) -> Result<Id, Status> {
        self.with_file(directory, |file| {
            let directory = file.directory()?;
            check_name(name)?;
            directory.find(self.hash(name), name).ok_or(Status::NFS4ERR_NOENT)
        })?
    }

    /// The change attribute.
    pub(crate) fn change(&self, id: Id) -> Result<u64, Status> {
        self.with_file(id, |file| file.change)
    }

    fn namespace(&self) -> MutexGuard<'_, ()> {
        self.namespace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the entries of a directory that has not been removed.
    fn edit<R>(
        &self,
        directory: Id,
        now: NfsTime4,
        change: impl FnOnce(&mut Directory) -> Result<R, Status>,
    ) -> Result<(R, ChangeInfo4), Status> {
        self.with_file_mut(directory, |file| {
            let before = file.change;
            let entries = file.directory_mut()?;
            if entries.removed {
                return Err(Status::NFS4ERR_STALE);
            }
            let result = change(entries)?;
            file.modify(now);
            Ok((result, ChangeInfo4 { atomic: true, before, after: file.change }))
        })?
    }

    /// Makes a file of any kind. With a name that is taken it answers NFS4ERR_EXIST.
    pub(crate) fn make(&self, directory: Id, name: &[u8], file: File) -> Result<(Id, ChangeInfo4), Status> {
        match self.lookup(directory, name) {
            Err(Status::NFS4ERR_NOENT) => {}
            Ok(_) => return Err(Status::NFS4ERR_EXIST),
            Err(status) => return Err(status),
        }
        let now = file.created();
        let is_directory = file.directory().is_ok();
        let hash = self.hash(name);
        let id = self.adopt(hash, file)?;
        let added = self.edit(directory, now, |entries| {
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
        match added {
            Ok(((), change)) => Ok((id, change)),
            Err(status) => {
                self.unlink(id, now);
                Err(status)
            }
        }
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
            directory.removed = true;
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
        let is_directory = self.release(id, caller, callbacks)?;
        let now = caller.maker.now;
        let ((), change) = self.edit(directory, now, |entries| {
            entries.remove(self.hash(name), name);
            entries.subdirectories -= u32::from(is_directory);
            Ok(())
        })?;
        self.unlink(id, now);
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
        let added = self.edit(directory, now, |entries| match entries.find(hash, name) {
            Some(_) => Err(Status::NFS4ERR_EXIST),
            None => entries.put(hash, name, file),
        });
        added.map(|((), change)| change).inspect_err(|_| self.unlink(file, now))
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
        self.move_name(id, from, to, (is_directory, target), caller.maker.now)
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
        now: NfsTime4,
    ) -> Result<(ChangeInfo4, ChangeInfo4), Status> {
        let (from_hash, to_hash) = (self.hash(from.1), self.hash(to.1));
        let one = u32::from(is_directory);
        let put = |entries: &mut Directory| match entries.find(to_hash, to.1) {
            found if found == target => entries.put(to_hash, to.1, id),
            _ => Err(Status::NFS4ERR_DELAY),
        };
        let changes = if from.0 == to.0 {
            let ((), change) = self.edit(from.0, now, |entries| {
                put(entries)?;
                entries.remove(from_hash, from.1);
                entries.subdirectories -= if target.is_some() { one } else { 0 };
                Ok(())
            })?;
            (change, change)
        } else {
            let ((), target_change) = self.edit(to.0, now, |entries| {
                put(entries)?;
                entries.subdirectories += if target.is_some() { 0 } else { one };
                Ok(())
            })?;
            let ((), source_change) = self.edit(from.0, now, |entries| {
                entries.remove(from_hash, from.1);
                entries.subdirectories -= one;
                Ok(())
            })?;
            (source_change, target_change)
        };
        self.with_file_mut(id, |file| {
            if let Ok(directory) = file.directory_mut() {
                directory.parent = to.0;
            }
            file.touch(now);
        })?;
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
    use crate::config::Config;
    use crate::file::{Kind, Maker, now};
    use crate::files::ROOT;

    #[test]
    fn a_name_that_is_made_while_another_moves_there_stays() {
        let files = Files::new(&Config::default(), 1);
        let maker = Maker { uid: 0, gid: 0, now: now() };
        let make = |to, name: &[u8], kind| files.make(to, name, File::new(kind, 0, &maker)).unwrap().0;
        let regular = || Kind::Regular(Default::default());
        let moved = make(ROOT, b"old", regular());
        let below = make(ROOT, b"below", Kind::Directory(Directory::new(ROOT)));
        // A rename has seen no such names.
        let made = [(ROOT, make(ROOT, b"new", regular())), (below, make(below, b"new", regular()))];
        for (directory, id) in made {
            let renamed = files.move_name(moved, (ROOT, b"old"), (directory, b"new"), (false, None), maker.now);
            assert_eq!(renamed.unwrap_err(), Status::NFS4ERR_DELAY);
            assert_eq!((files.lookup(ROOT, b"old"), files.lookup(directory, b"new")), (Ok(moved), Ok(id)));
        }
    }
}
