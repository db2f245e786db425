//! Files in the store, and back (`serve --state`).
//!
//! What a shard's arena says may have changed is written, file by file, in one transaction: before a client is told that names or
//! attributes have changed, or that what it has written is safe (COMMIT, and a WRITE that asks for it), and now and then. Shards are looked at one after the
//! other while clients go on, so what is written is not what there was at one moment. That is put right when it is read: a
//! name of nothing goes, and so does a file without a name, unless somebody may come and reclaim an open of it. Only a name
//! that moved from one directory to another meanwhile could be missed in both, so they are looked at again then.

use crate::Inner;
use crate::arena::{Arena, Id, NONE};
use crate::compound::Compound;
use crate::directory::Directory;
use crate::file::{File, Kind};
use crate::files::{Files, OBJECTS_MAX, ROOT, SHARDS, global, local, shard_number};
use crate::keep::Keep;
use crate::store::Store;
use ringback_rpc::nfs4::Status;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

/// How often files are looked at again because names have moved, before they are kept from moving.
const LOOKS_MAX: usize = 4;

/// What is known of the files in the store.
#[derive(Debug, Default)]
pub(crate) struct Saved(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Generation and change attribute of what is in the store, by index.
    rows: HashMap<u32, (u32, u64)>,
    /// What may have changed and could not be written.
    left: HashSet<u32>,
    /// When that was begun which was last written.
    began_ns: u64,
}

/// Rows of the store, and what they will be known by.
#[derive(Debug, Default)]
struct Rows {
    rows: Vec<(u32, Vec<u8>)>,
    known: Vec<(u32, (u32, u64))>,
}

impl Inner {
    /// Whatever was there at `since_ns`, in nanoseconds of the server's life, is in the store when this returns.
    pub(crate) fn save_files(&self, since_ns: u64) -> io::Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let mut known = self.saved.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.began_ns > since_ns {
            return Ok(());
        }
        let began_ns = self.now_ns();
        let mut changed = std::mem::take(&mut known.left);
        let rows = self.files.changed_rows(&mut changed, &known.rows)?;
        let written = if rows.rows.is_empty() { Ok(()) } else { store.put_files(&rows.rows) };
        match written {
            Ok(()) => {
                known.rows.extend(rows.known);
                known.began_ns = began_ns;
                Ok(())
            }
            Err(error) => {
                known.left = changed;
                self.callbacks.observer().storage_failed(&error);
                Err(error)
            }
        }
    }
}

impl Compound<'_> {
    /// Has all that was there when the operation was asked for be in the store.
    pub(crate) fn save(&self, since_ns: u64) -> Result<(), Status> {
        self.server.save_files(since_ns).map_err(|_| Status::NFS4ERR_IO)
    }
}

impl Files {
    /// From now on it is noted which files change. All that are there have.
    pub(crate) fn track(&self) {
        (0..SHARDS).for_each(|number| self.shard(number).files.track());
    }

    fn changed_rows(&self, changed: &mut HashSet<u32>, known: &HashMap<u32, (u32, u64)>) -> io::Result<Rows> {
        for look in 0.. {
            let moves = self.moves.load(Relaxed);
            let alone = (look == LOOKS_MAX).then(|| self.namespace());
            for number in 0..SHARDS {
                let touched = self.shard(number).files.take_touched();
                changed.extend(touched.into_iter().map(|index| index_of(number, index)));
            }
            let mut found = Rows::default();
            for index in changed.iter() {
                self.row(*index, known, &mut found)?;
            }
            if alone.is_some() || moves == self.moves.load(Relaxed) {
                return Ok(found);
            }
        }
        unreachable!("the last look is the last")
    }

    fn row(&self, index: u32, known: &HashMap<u32, (u32, u64)>, found: &mut Rows) -> io::Result<()> {
        let id = Id { index, generation: 0 };
        let shard = self.shard(shard_number(id));
        let Some((generation, file)) = shard.files.row(local(id).index) else { return Ok(()) };
        // Every change of a file changes its change attribute.
        let state = (generation, file.map_or(0, |file| file.change));
        if known.get(&index) != Some(&state) {
            let mut row = Vec::new();
            generation.save(&mut row)?;
            file.is_some().save(&mut row)?;
            file.map_or(Ok(()), |file| file.save(&mut row))?;
            found.rows.push((index, row));
            found.known.push((index, state));
        }
        Ok(())
    }

    /// Takes the files out of the store. Those without a name stay for now: somebody may reclaim an open of one.
    pub(crate) fn restore(&self, store: &Store) -> io::Result<()> {
        let mut rows: Vec<Vec<(u32, u32, Option<File>)>> = (0..SHARDS).map(|_| Vec::new()).collect();
        store.each_file(|index, mut row| {
            let id = Id { index, generation: 0 };
            let generation = u32::load(&mut row)?;
            let file = if bool::load(&mut row)? { Some(File::load(&mut row)?) } else { None };
            rows[shard_number(id)].push((local(id).index, generation, file));
            Ok(())
        })?;
        if rows.iter().all(Vec::is_empty) {
            return Ok(());
        }
        for (number, rows) in rows.into_iter().enumerate() {
            self.shard(number).files = Arena::of_rows(OBJECTS_MAX, rows);
        }
        if self.with_file(ROOT, |root| root.directory().is_err()).unwrap_or(true) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "there is no root directory in it"));
        }
        self.put_right();
        Ok(())
    }

    /// Makes names and files fit each other again, and forgets what was held on them.
    fn put_right(&self) {
        let mut names: HashMap<Id, u32> = HashMap::from([(ROOT, 1)]);
        let mut directories = vec![(ROOT, ROOT)];
        while let Some((directory, parent)) = directories.pop() {
            let entries = self.with_file(directory, |file| file.directory().map(Directory::names)).ok();
            let entries = entries.and_then(Result::ok).unwrap_or_default();
            let mut gone = BTreeSet::new();
            let mut subdirectories = 0;
            for (cookie, id) in entries {
                let is_directory = self.with_file(id, |file| file.directory().is_ok());
                match is_directory {
                    // Of a directory that has moved both names may have been seen.
                    Ok(true) if names.contains_key(&id) => drop(gone.insert(cookie)),
                    Ok(true) => {
                        subdirectories += 1;
                        directories.push((id, directory));
                    }
                    Ok(false) => {}
                    Err(_) => drop(gone.insert(cookie)),
                }
                if !gone.contains(&cookie) {
                    *names.entry(id).or_default() += 1;
                }
            }
            let put_right = |file: &mut File| {
                let Ok(found) = file.directory_mut() else { return };
                (found.parent, found.subdirectories, found.removed) = (parent, subdirectories, false);
                found.retain(|cookie| !gone.contains(&cookie));
            };
            // It was there before, and nobody else is.
            let _ = self.with_file_mut(directory, put_right);
        }
        for number in 0..SHARDS {
            let mut shard = self.shard(number);
            for index in 0..shard.files.index_end() {
                let Some(id) = shard.files.id_at(index) else { continue };
                let links = names.get(&global(number, id)).copied().unwrap_or(0);
                let Some(file) = shard.files.at_mut(index) else { continue };
                file.let_go(links);
                let (memory, named) = (file.memory(), links > 0);
                if named || file.data().is_ok() {
                    self.files.force(u64::from(links.max(1)));
                    self.data.force(memory);
                } else {
                    shard.files.remove(id);
                }
            }
        }
        // The root was counted with the others, but is no file of a client's.
        self.files.give_back();
    }
}

/// An index of a shard as one of the whole server.
fn index_of(shard: usize, index: u32) -> u32 {
    global(shard, Id { index, generation: 0 }).index
}

impl Directory {
    /// The names in it, by their cookies, and what they stand for.
    fn names(&self) -> Vec<(u64, Id)> {
        self.after(0).map(|(cookie, entry)| (*cookie, entry.id)).collect()
    }
}

impl File {
    /// Nobody holds anything on it, and it has so many names.
    fn let_go(&mut self, links: u32) {
        (self.opens, self.delegations, self.contended_until_s) = (NONE, NONE, 0);
        if self.body().is_some() || links != 1 {
            let body = self.body_mut();
            (body.locks, body.waiters, body.links) = (NONE, NONE, links);
            if matches!(body.kind, Kind::Directory(_)) {
                body.links = links.min(1);
            }
        }
    }
}
