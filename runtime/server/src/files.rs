//! The files: one directory, `/`, that holds any number of them; their names, handles and attributes.
//!
//! What belongs to one file (its opens, its delegations) lives in the file's shard, under one short mutex: a conflict
//! between two clients is decided there and nowhere else. `opens.rs` and `delegations.rs` are the other two thirds of a
//! shard. The mutexes may be held across `try_run`, `insert` and `remove` of the runtime, which never block and never
//! call a hook of ours (rule R7); they are never held two at a time.

use crate::arena::{Arena, Id, NONE};
use crate::config::Config;
use crate::delegations::Delegation;
use crate::name::{ShortBytes, check_name};
use crate::opens::Open;
use hashbrown::HashTable;
use ringback_rpc::nfs4::{Status, Verifier4};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shards: enough that reactors seldom meet in one, few enough that sweeping all of them is nothing.
const SHARD_BITS: u32 = 6;
pub(crate) const SHARDS: usize = 1 << SHARD_BITS;
/// Most objects of one kind in a shard: what the other bits of an index can say, less the end mark of lists.
const OBJECTS_MAX: u32 = (u32::MAX >> SHARD_BITS) - 1;
/// Bytes of a filehandle.
pub(crate) const HANDLE_BYTES: usize = 12;

/// A file. Everything else about it hangs off the two lists.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: ShortBytes,
    pub(crate) change: u64,
    /// Of the exclusive create that made it (RFC 8881 section 18.16.3).
    pub(crate) verifier: Option<Verifier4>,
    /// First of its opens.
    pub(crate) opens: u32,
    /// First of its delegations.
    pub(crate) delegations: u32,
    /// No delegation before this second of the server's life: somebody was refused because of one.
    pub(crate) contended_until_s: u32,
    pub(crate) created_s: u32,
    pub(crate) mode: u16,
}

/// One shard's objects; indices are the shard's own.
#[derive(Debug)]
pub(crate) struct Shard {
    names: HashTable<u32>,
    pub(crate) files: Arena<File>,
    pub(crate) opens: Arena<Open>,
    pub(crate) delegations: Arena<Delegation>,
    /// By client index.
    pub(crate) holders: Vec<Holder>,
}

/// What one client holds in a shard: the heads of two lists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    pub(crate) opens: u32,
    pub(crate) delegations: u32,
}

/// A limited number of things.
#[derive(Debug)]
pub(crate) struct Quota {
    used: AtomicU64,
    max: u64,
}

impl Quota {
    fn new(max: u64) -> Self {
        Quota { used: AtomicU64::new(0), max }
    }

    /// Takes one more, unless that is too many.
    pub(crate) fn take(&self) -> bool {
        let taken = self.used.fetch_add(1, Relaxed) < self.max;
        if !taken {
            self.give_back();
        }
        taken
    }

    pub(crate) fn give_back(&self) {
        self.used.fetch_sub(1, Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }
}

/// A shard on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct ShardCell(Mutex<Shard>);

/// All files and what is held on them.
#[derive(Debug)]
pub(crate) struct Files {
    shards: Box<[ShardCell]>,
    hasher: RandomState,
    root_change: AtomicU64,
    /// Tells this life of the server from others, in handles and stateids: nothing here survives a restart.
    pub(crate) instance: u32,
    /// Seconds without a new delegation on a file after a conflict.
    pub(crate) contended_s: u32,
    pub(crate) files: Quota,
    pub(crate) opens: Quota,
    pub(crate) delegations: Quota,
}

/// What a filehandle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Root,
    File(Id),
}

impl Files {
    pub(crate) fn new(config: &Config, instance: u32) -> Self {
        Files {
            shards: (0..SHARDS).map(|_| ShardCell(Mutex::new(Shard::new()))).collect(),
            hasher: RandomState::new(),
            root_change: AtomicU64::new(1),
            instance,
            contended_s: config.contended.as_secs().try_into().unwrap_or(u32::MAX),
            files: Quota::new(config.files_max),
            opens: Quota::new(config.opens_max),
            delegations: Quota::new(config.delegations_max),
        }
    }

    /// The lock of a shard; a thread that panicked under it left whole objects behind, so it stays usable.
    pub(crate) fn shard(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard % SHARDS].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard in which `id` lives, locked, and its name there.
    pub(crate) fn shard_of(&self, id: Id) -> (MutexGuard<'_, Shard>, Id) {
        (self.shard(shard_number(id)), local(id))
    }

    /// The shard of a name, locked, with the name's hash there.
    pub(crate) fn shard_of_name(&self, name: &[u8]) -> (MutexGuard<'_, Shard>, usize, u64) {
        let hash = self.hasher.hash_one(name);
        // Not the bits by which the shard's own table tells names apart: it uses both ends.
        let shard = (hash >> 40) as usize % SHARDS;
        (self.shard(shard), shard, hash)
    }

    /// LOOKUP in the root directory (RFC 8881 section 18.13).
    pub(crate) fn lookup(&self, name: &[u8]) -> Result<Id, Status> {
        check_name(name)?;
        let (shard, number, hash) = self.shard_of_name(name);
        let found = shard.find(hash, name).ok_or(Status::NFS4ERR_NOENT)?;
        shard.files.id_at(found).map(|id| global(number, id)).ok_or(Status::NFS4ERR_NOENT)
    }

    /// Looks at a file, if it is still there.
    pub(crate) fn with_file<R>(&self, id: Id, look: impl FnOnce(&File) -> R) -> Result<R, Status> {
        let (shard, local) = self.shard_of(id);
        shard.files.get(local).map(look).ok_or(Status::NFS4ERR_STALE)
    }

    /// The change attribute of the root directory.
    pub(crate) fn root_change(&self) -> u64 {
        self.root_change.load(Relaxed)
    }

    /// Makes a file in the shard of its name. Gives its index there and the directory's change before it.
    pub(crate) fn create(&self, shard: &mut Shard, hash: u64, file: File) -> Result<(Id, u64), Status> {
        if !self.files.take() {
            return Err(Status::NFS4ERR_NOSPC);
        }
        let Some(id) = shard.files.insert(file) else {
            self.files.give_back();
            return Err(Status::NFS4ERR_NOSPC);
        };
        let Shard { names, files, .. } = shard;
        let rehash = |index: &u32| files.at(*index).map_or(0, |f| self.hasher.hash_one(f.name.as_bytes()));
        names.insert_unique(hash, id.index, rehash);
        Ok((id, self.root_change.fetch_add(1, Relaxed)))
    }

    /// The filehandle of an object.
    pub(crate) fn handle(&self, object: Object) -> [u8; HANDLE_BYTES] {
        let (index, generation) = match object {
            Object::Root => (NONE, 0),
            Object::File(id) => (id.index, id.generation),
        };
        words([self.instance, index, generation])
    }

    /// The object that a filehandle names; it may be gone.
    pub(crate) fn parse_handle(&self, handle: &[u8]) -> Result<Object, Status> {
        let bytes: &[u8; HANDLE_BYTES] = handle.try_into().map_err(|_| Status::NFS4ERR_BADHANDLE)?;
        match split_words(bytes) {
            [instance, NONE, 0] if instance == self.instance => Ok(Object::Root),
            [instance, index, generation] if instance == self.instance => {
                let id = Id { index, generation };
                self.with_file(id, |_| Object::File(id))
            }
            _ => Err(Status::NFS4ERR_STALE),
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for number in 0..SHARDS {
            *self.shard(number) = Shard::new();
        }
    }

    /// Whether a client holds anything (RFC 8881 section 18.50: DESTROY_CLIENTID of such a client is refused).
    pub(crate) fn is_holder(&self, client: u32) -> bool {
        (0..SHARDS).any(|n| {
            self.shard(n).holders.get(client as usize).is_some_and(|h| h.opens != NONE || h.delegations != NONE)
        })
    }
}

impl Shard {
    fn new() -> Self {
        Shard {
            names: HashTable::new(),
            files: Arena::new(OBJECTS_MAX),
            opens: Arena::new(OBJECTS_MAX),
            delegations: Arena::new(OBJECTS_MAX),
            holders: Vec::new(),
        }
    }

    /// The index of the file of that name.
    pub(crate) fn find(&self, hash: u64, name: &[u8]) -> Option<u32> {
        let same = |index: &u32| self.files.at(*index).is_some_and(|f| f.name.as_bytes() == name);
        self.names.find(hash, same).copied()
    }

    /// The heads of a client's lists.
    pub(crate) fn holder(&mut self, client: u32) -> &mut Holder {
        let at = client as usize;
        if self.holders.len() <= at {
            self.holders.resize(at + 1, Holder { opens: NONE, delegations: NONE });
        }
        &mut self.holders[at]
    }
}

/// A name within a shard as one of the whole server.
pub(crate) const fn global(shard: usize, id: Id) -> Id {
    Id { index: id.index << SHARD_BITS | shard as u32, generation: id.generation }
}

/// The shard in which an object lives.
pub(crate) const fn shard_number(id: Id) -> usize {
    id.index as usize % SHARDS
}

/// The object's name within its shard.
pub(crate) const fn local(id: Id) -> Id {
    Id { index: id.index >> SHARD_BITS, generation: id.generation }
}

/// Three words as twelve bytes, the size of a handle and of the opaque part of a stateid.
pub(crate) fn words(words: [u32; 3]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (space, word) in bytes.chunks_exact_mut(4).zip(words) {
        space.copy_from_slice(&word.to_be_bytes());
    }
    bytes
}

/// The other way round.
pub(crate) fn split_words(bytes: &[u8; 12]) -> [u32; 3] {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *bytes;
    [u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]), u32::from_be_bytes([i, j, k, l])]
}
