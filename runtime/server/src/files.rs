//! The files, their handles, and what is held on them.
//!
//! What belongs to one file (its attributes and content, its opens, delegations and locks) lives in the file's shard, under
//! one short mutex: a conflict between two clients is decided there and nowhere else. `tree.rs` (names), `opens.rs`,
//! `delegations.rs` and `locks.rs` are the other parts of it. The mutexes may be held across `try_run`, `insert` and
//! `remove` of the runtime, which never block and never call a hook of ours (rule R7); they are never held two at a time.

use crate::arena::{Arena, Id, NONE};
use crate::clients::Client;
use crate::config::Config;
use crate::delegations::Delegation;
use crate::directory::Directory;
use crate::file::{File, Kind, Maker, now};
use crate::grace::Grace;
use crate::keep::{Keep, keep};
use crate::lock_waiters::LockWaiter;
use crate::locks::LockOwner;
use crate::opens::Open;
use crate::quota::Quota;
use crate::watches::CHANGES_MAX;
use ringback::Group;
use ringback_rpc::nfs4::Status;
use siphasher::sip::SipHasher13;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shards: enough that reactors seldom meet in one, few enough that sweeping all of them is nothing.
const SHARD_BITS: u32 = 6;
pub(crate) const SHARDS: usize = 1 << SHARD_BITS;
/// Bits of an index that are left to others, at its top: a callback's cookie says there what it is about.
pub(crate) const SPARE_BITS: u32 = 4;
/// Most objects of one kind in a shard: what the other bits of an index can say.
pub(crate) const OBJECTS_MAX: u32 = u32::MAX >> (SHARD_BITS + SPARE_BITS);
/// Bytes of a filehandle.
pub(crate) const HANDLE_BYTES: usize = 12;
/// The root directory: the first file of the first shard.
pub(crate) const ROOT: Id = Id { index: 0, generation: 1 };
/// The mode of the root directory: anybody may make files.
const ROOT_MODE: u16 = 0o777;

/// For whom something is done, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    pub(crate) client: &'a Client,
    /// Seconds of the server's life.
    pub(crate) now_s: u32,
    pub(crate) maker: Maker,
}

/// One shard's objects; indices are the shard's own.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) files: Arena<File>,
    pub(crate) opens: Arena<Open>,
    pub(crate) delegations: Arena<Delegation>,
    pub(crate) locks: Arena<LockOwner>,
    pub(crate) waiters: Arena<LockWaiter>,
    /// By client index.
    pub(crate) holders: Vec<Holder>,
    /// Files of which all that is in somebody's way is being recalled.
    pub(crate) recalls: HashMap<Id, Group>,
}

/// What one client holds in a shard: the heads of three lists.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holder {
    pub(crate) opens: u32,
    pub(crate) delegations: u32,
    pub(crate) locks: u32,
    /// How many of the delegations it holds.
    pub(crate) held: u32,
}

impl Holder {
    const NOTHING: Holder = Holder { opens: NONE, delegations: NONE, locks: NONE, held: 0 };
}

keep! {
    Holder { opens, delegations, locks, held }
}

/// Who waits for recalls to be settled asks again, and is not kept.
impl Keep for Shard {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        self.files.save(out)?;
        self.opens.save(out)?;
        self.delegations.save(out)?;
        self.locks.save(out)?;
        self.waiters.save(out)?;
        self.holders.save(out)
    }

    fn load(from: &mut dyn Read) -> io::Result<Self> {
        Ok(Shard {
            files: Keep::load(from)?,
            opens: Keep::load(from)?,
            delegations: Keep::load(from)?,
            locks: Keep::load(from)?,
            waiters: Keep::load(from)?,
            holders: Keep::load(from)?,
            recalls: HashMap::new(),
        })
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
    /// Makes the hashes of names this server's own. They go along to the next process, as directories are in their order.
    pub(crate) seed: u64,
    /// Held while names are taken away: what a name stands for does not change meanwhile.
    pub(crate) namespace: Mutex<()>,
    /// How often a name has gone from one directory to another.
    pub(crate) moves: AtomicU64,
    /// Tells these files from those of another server, in filehandles. Without a store nothing survives a restart, and it is
    /// `instance`.
    pub(crate) volume: u32,
    /// Tells this life of the server from others, in stateids and client ids.
    pub(crate) instance: u32,
    /// What may be reclaimed after a restart.
    pub(crate) grace: Grace,
    /// Seconds without a new delegation on a file after a conflict.
    pub(crate) contended_s: u32,
    /// Whether opens for writing are delegated.
    pub(crate) write_delegations: bool,
    /// Revoked delegations that their clients have not acknowledged, by client index.
    pub(crate) revoked: Box<[AtomicU32]>,
    /// Clients, by index, that cannot acknowledge: those of minor version 0.
    pub(crate) keeps_no_revoked: Box<[AtomicBool]>,
    /// Delegations that were ever revoked.
    pub(crate) revocations: AtomicU64,
    pub(crate) files: Quota,
    pub(crate) opens: Quota,
    pub(crate) delegations: Quota,
    pub(crate) locks: Quota,
    /// Changes of directories that holders have not been told yet.
    pub(crate) changes: Quota,
    /// Bytes of content.
    pub(crate) data: Quota,
}

impl Files {
    pub(crate) fn new(config: &Config, instance: u32) -> Self {
        let files = Files {
            shards: (0..SHARDS).map(|_| ShardCell(Mutex::new(Shard::new()))).collect(),
            seed: RandomState::new().hash_one(instance),
            namespace: Mutex::new(()),
            moves: AtomicU64::new(0),
            volume: instance,
            instance,
            grace: Grace::default(),
            contended_s: config.contended.as_secs().try_into().unwrap_or(u32::MAX),
            write_delegations: config.write_delegations,
            revoked: (0..config.clients_max).map(|_| AtomicU32::new(0)).collect(),
            keeps_no_revoked: (0..config.clients_max).map(|_| AtomicBool::new(false)).collect(),
            revocations: AtomicU64::new(0),
            files: Quota::new(config.files_max),
            opens: Quota::new(config.opens_max),
            delegations: Quota::new(config.delegations_max),
            locks: Quota::new(config.locks_max),
            changes: Quota::new(CHANGES_MAX),
            data: Quota::new(config.data_bytes_max),
        };
        files.make_root();
        files
    }

    fn make_root(&self) {
        let maker = Maker { uid: 0, gid: 0, now: now() };
        let root = File::new(Kind::Directory(Directory::new(ROOT)), ROOT_MODE, &maker);
        let made = self.shard(shard_number(ROOT)).files.insert(root);
        debug_assert_eq!(made, Some(local(ROOT)));
    }

    /// All of them, for another process.
    pub(crate) fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        // That process may be of another version, which hashes in another way: it is told what comes out here.
        ((self.instance, self.volume), (self.seed, self.hash(b"name"))).save(out)?;
        self.grace.save(out)?;
        for number in 0..SHARDS {
            self.shard(number).save(out)?;
        }
        self.revoked.iter().map(|count| count.load(Relaxed)).collect::<Vec<u32>>().save(out)?;
        self.revocations.load(Relaxed).save(out)?;
        let quotas = [&self.files, &self.opens, &self.delegations, &self.locks, &self.changes];
        quotas.iter().try_for_each(|quota| quota.used().save(out))
    }

    /// Those of another process.
    pub(crate) fn load(config: &Config, from: &mut dyn Read) -> io::Result<Self> {
        let ((instance, volume), (seed, hash)) = <((u32, u32), (u64, u64))>::load(from)?;
        let mut files = Files::new(config, instance);
        (files.volume, files.seed) = (volume, seed);
        files.grace = Grace::load(from)?;
        if files.hash(b"name") != hash {
            let why = "the other process hashes names in another way: its directories cannot be taken over";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        for number in 0..SHARDS {
            let shard = Shard::load(from)?;
            let content =
                (0..shard.files.index_end()).filter_map(|index| shard.files.at(index)).map(File::memory).sum();
            files.data.force(content);
            *files.shard(number) = shard;
        }
        let revoked: Vec<u32> = Keep::load(from)?;
        // There may be more clients than there are to be.
        let clients = revoked.len().max(files.revoked.len());
        let revoked = revoked.into_iter().chain(std::iter::repeat(0));
        files.revoked = revoked.take(clients).map(AtomicU32::new).collect();
        files.keeps_no_revoked = (0..clients).map(|_| AtomicBool::new(false)).collect();
        files.revocations.store(Keep::load(from)?, Relaxed);
        for quota in [&files.files, &files.opens, &files.delegations, &files.locks, &files.changes] {
            quota.force(Keep::load(from)?);
        }
        Ok(files)
    }

    /// The lock of a shard; a thread that panicked under it left whole objects behind, so it stays usable.
    pub(crate) fn shard(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard % SHARDS].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard in which `id` lives, locked, and its name there.
    pub(crate) fn shard_of(&self, id: Id) -> (MutexGuard<'_, Shard>, Id) {
        (self.shard(shard_number(id)), local(id))
    }

    /// The hash of a name: the same in every build, and whoever chooses names does not know the seed.
    pub(crate) fn hash(&self, name: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new();
        hasher.write(&self.seed.to_le_bytes());
        hasher.write(name);
        hasher.finish()
    }

    /// Looks at a file, if it is still there.
    pub(crate) fn with_file<R>(&self, id: Id, look: impl FnOnce(&File) -> R) -> Result<R, Status> {
        let (shard, local) = self.shard_of(id);
        shard.files.get(local).map(look).ok_or(Status::NFS4ERR_STALE)
    }

    /// Changes a file, if it is still there.
    pub(crate) fn with_file_mut<R>(&self, id: Id, change: impl FnOnce(&mut File) -> R) -> Result<R, Status> {
        let (mut shard, local) = self.shard_of(id);
        shard.files.get_mut(local).map(change).ok_or(Status::NFS4ERR_STALE)
    }

    /// The filehandle of a file.
    pub(crate) fn handle(&self, id: Id) -> [u8; HANDLE_BYTES] {
        words([self.volume, id.index, id.generation])
    }

    /// The file that a filehandle names; it may be gone.
    pub(crate) fn parse_handle(&self, handle: &[u8]) -> Result<Id, Status> {
        let bytes: &[u8; HANDLE_BYTES] = handle.try_into().map_err(|_| Status::NFS4ERR_BADHANDLE)?;
        match split_words(bytes) {
            [volume, index, generation] if volume == self.volume => {
                let id = Id { index, generation };
                self.with_file(id, |_| id)
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
            self.shard(n)
                .holders
                .get(client as usize)
                .is_some_and(|h| h.opens != NONE || h.delegations != NONE || h.locks != NONE)
        })
    }
}

impl Shard {
    fn new() -> Self {
        Shard {
            files: Arena::new(OBJECTS_MAX),
            opens: Arena::new(OBJECTS_MAX),
            delegations: Arena::new(OBJECTS_MAX),
            locks: Arena::new(OBJECTS_MAX),
            waiters: Arena::new(OBJECTS_MAX),
            holders: Vec::new(),
            recalls: HashMap::new(),
        }
    }

    /// The heads of a client's lists.
    pub(crate) fn holder(&mut self, client: u32) -> &mut Holder {
        let at = client as usize;
        if self.holders.len() <= at {
            self.holders.resize(at + 1, Holder::NOTHING);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Directories go to the next process in the order of these: it may be of another build.
    #[test]
    fn hashes_of_names_are_the_same_in_every_build() {
        let mut files = Files::new(&Config::default(), 1);
        files.seed = 7;
        assert_eq!(files.hash(b"name"), 0x6ceb_4442_0fd0_d06a);
    }
}
