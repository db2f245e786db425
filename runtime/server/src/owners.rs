//! Open-owners and lock-owners of minor version 0, and whose turn it is (RFC 7530 section 9.1.7).
//!
//! Without sessions it is the owner that puts requests in order: each OPEN, OPEN_CONFIRM, OPEN_DOWNGRADE, CLOSE, LOCK and LOCKU
//! carries the next seqid of its owner. The one that was served last is answered again from what was kept of it, and not
//! executed again; everything else is NFS4ERR_BAD_SEQID.
//!
//! An owner is locked while a request of it is served. Order of locks: an owner, then the table of clients, then the table
//! of owners or a shard of files. Of two owners, the open-owner comes first.

use crate::arena::Id;
use crate::files::{Files, SHARDS};
use crate::name::ShortBytes;
use ringback_rpc::nfs4::fore::Op;
use ringback_rpc::nfs4::{Stateid4, Status};
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What an owner owns. The two have names of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owned {
    Opens,
    Locks,
}

/// The name of an owner: what it owns, the index of its client, its bytes.
#[derive(Clone, Debug)]
pub(crate) struct OwnerName {
    owned: Owned,
    pub(crate) client: u32,
    bytes: ShortBytes,
}

impl OwnerName {
    pub(crate) fn new(owned: Owned, client: u32, bytes: &[u8]) -> Self {
        OwnerName { owned, client, bytes: ShortBytes::new(bytes) }
    }
}

impl PartialEq for OwnerName {
    fn eq(&self, other: &Self) -> bool {
        (self.owned, self.client, self.bytes.as_bytes()) == (other.owned, other.client, other.bytes.as_bytes())
    }
}

impl Eq for OwnerName {}

impl Hash for OwnerName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.owned, self.client, self.bytes.as_bytes()).hash(state);
    }
}

/// An owner, to be locked while a request of it is served.
#[derive(Clone, Debug)]
pub(crate) struct Owner(Arc<Mutex<Turns>>);

impl Owner {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Turns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of an owner's requests.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The seqid of the last request; `None`: there was none, and any is right.
    seqid: Option<u32>,
    kept: Option<Kept>,
    /// Of an open-owner: OPEN_CONFIRM has shown that its first OPEN was no late copy of one from a former life of the owner
    /// (RFC 7530 section 9.1.11).
    pub(crate) confirmed: bool,
    /// The open that waits for OPEN_CONFIRM.
    pub(crate) unconfirmed: Option<Stateid4>,
    /// The open that its last request has closed.
    pub(crate) closed: Option<Stateid4>,
    /// The second in which it was last used.
    used_s: u32,
}

/// A request that was served, and its answer.
#[derive(Debug)]
pub(crate) struct Kept {
    op: Op,
    /// Of its arguments.
    digest: u64,
    /// Number, status and results.
    pub(crate) result: Box<[u8]>,
    /// The current filehandle after it.
    pub(crate) current: Option<Id>,
}

impl Kept {
    /// How it ended, which stands behind the number.
    pub(crate) fn status(&self) -> Status {
        let word = self.result.get(4..8).and_then(|word| word.first_chunk());
        Status(word.map_or(Status::NFS4ERR_SERVERFAULT.0, |word| u32::from_be_bytes(*word)))
    }
}

/// Whose turn it is.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// That of this request.
    Next,
    /// It was served: here is the answer.
    Again(&'a Kept),
}

impl Turns {
    /// Judges a request.
    pub(crate) fn judge(&self, seqid: u32, op: Op, digest: u64) -> Result<Turn<'_>, Status> {
        match (self.seqid, &self.kept) {
            (None, _) => Ok(Turn::Next),
            (Some(last), _) if seqid == last.wrapping_add(1) => Ok(Turn::Next),
            (Some(last), Some(kept)) if (seqid, op, digest) == (last, kept.op, kept.digest) => Ok(Turn::Again(kept)),
            _ => Err(Status::NFS4ERR_BAD_SEQID),
        }
    }

    /// Whether a request with that seqid would be the next one.
    pub(crate) fn is_next(&self, seqid: u32) -> bool {
        self.seqid.is_none_or(|last| seqid == last.wrapping_add(1))
    }

    /// Whether it is the seqid of the last request.
    pub(crate) fn is_last(&self, seqid: u32) -> bool {
        self.seqid == Some(seqid)
    }

    /// Whether any request has counted.
    pub(crate) fn has_begun(&self) -> bool {
        self.seqid.is_some()
    }

    /// A request was served.
    pub(crate) fn keep(&mut self, seqid: u32, (op, digest): (Op, u64), result: &[u8], current: Option<Id>) {
        self.seqid = Some(seqid);
        self.kept = Some(Kept { op, digest, result: result.into(), current });
    }

    /// A request of which nothing is to be kept: the open-owner's answer is that of a lock-owner's first LOCK.
    pub(crate) fn advance(&mut self, seqid: u32) {
        self.seqid = Some(seqid);
        self.kept = None;
    }

    /// Forgets all about an open-owner that was not confirmed: the next OPEN is the first.
    pub(crate) fn begin_anew(&mut self) {
        *self = Turns { used_s: self.used_s, ..Turns::default() };
    }
}

/// Whether a request that ended so counts: the client takes the next seqid after all but these (RFC 7530 section 9.1.7).
pub(crate) fn counts(status: Status) -> bool {
    !matches!(
        status,
        Status::NFS4ERR_STALE_CLIENTID
            | Status::NFS4ERR_STALE_STATEID
            | Status::NFS4ERR_BAD_STATEID
            | Status::NFS4ERR_BAD_SEQID
            | Status::NFS4ERR_BADXDR
            | Status::NFS4ERR_RESOURCE
            | Status::NFS4ERR_NOFILEHANDLE
            | Status::NFS4ERR_MOVED
    )
}

/// All owners.
#[derive(Debug)]
pub(crate) struct Owners {
    table: Mutex<Table>,
    max: usize,
    /// How long an owner that owns nothing is kept for a retry.
    idle_s: u32,
}

#[derive(Debug, Default)]
struct Table {
    owners: HashMap<OwnerName, Owner>,
    /// Who had the open that its last request closed, by its stateid: a retry of the CLOSE names nothing else.
    closed: HashMap<[u8; 12], OwnerName>,
    /// The second in which owners that own nothing were last looked for.
    swept_s: u32,
}

impl Owners {
    pub(crate) fn new(max: usize, idle_s: u32) -> Self {
        Owners { table: Mutex::default(), max, idle_s }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner of that name, if it is known.
    pub(crate) fn find(&self, name: &OwnerName) -> Option<Owner> {
        self.table().owners.get(name).cloned()
    }

    /// The owner of that name, made if there is none. NFS4ERR_RESOURCE if there are too many that own something.
    pub(crate) fn get(&self, name: &OwnerName, now_s: u32, files: &Files) -> Result<Owner, Status> {
        let known = self.find(name);
        let owner = match known {
            Some(owner) => owner,
            None => self.add(name, now_s, files)?,
        };
        owner.lock().used_s = now_s;
        Ok(owner)
    }

    fn add(&self, name: &OwnerName, now_s: u32, files: &Files) -> Result<Owner, Status> {
        if self.is_full_now(now_s) {
            self.sweep(now_s, files);
        }
        let mut table = self.table();
        let full = table.owners.len() >= self.max;
        match table.owners.get(name) {
            // Another request was faster.
            Some(owner) => Ok(owner.clone()),
            None if full => Err(Status::NFS4ERR_RESOURCE),
            None => {
                let owner = Owner(Arc::default());
                table.owners.insert(name.clone(), owner.clone());
                Ok(owner)
            }
        }
    }

    /// Whether room has to be made, and may be: at most once in a second, as all that is held is looked at.
    fn is_full_now(&self, now_s: u32) -> bool {
        let mut table = self.table();
        let sweeps = table.owners.len() >= self.max && table.swept_s != now_s;
        table.swept_s = if sweeps { now_s } else { table.swept_s };
        sweeps
    }

    /// Forgets owners that own nothing and have not been used for a lease (RFC 7530 section 9.1.10).
    fn sweep(&self, now_s: u32, files: &Files) {
        let mut owning = HashSet::new();
        for number in 0..SHARDS {
            files.owners_in(number, &mut owning);
        }
        let mut table = self.table();
        // One that is locked is being used.
        let idle = |owner: &Owner| owner.0.try_lock().is_ok_and(|o| now_s.saturating_sub(o.used_s) > self.idle_s);
        table.owners.retain(|name, owner| owning.contains(name) || !idle(owner));
        let Table { owners, closed, .. } = &mut *table;
        closed.retain(|_, name| owners.contains_key(name));
    }

    /// The open of that stateid was closed by the last request of its owner.
    pub(crate) fn note_closed(&self, stateid: &Stateid4, name: &OwnerName) {
        self.table().closed.insert(stateid.other, name.clone());
    }

    /// An owner goes on, and a retry of its CLOSE cannot come any more.
    pub(crate) fn forget_closed(&self, stateid: &Stateid4) {
        self.table().closed.remove(&stateid.other);
    }

    /// Who had the open that a CLOSE of it has closed.
    pub(crate) fn closer(&self, stateid: &Stateid4) -> Option<OwnerName> {
        self.table().closed.get(&stateid.other).cloned()
    }

    pub(crate) fn remove(&self, name: &OwnerName) {
        self.table().owners.remove(name);
    }

    /// A client is gone, and its owners with it.
    pub(crate) fn forget_client(&self, client: u32) {
        let mut table = self.table();
        table.owners.retain(|name, _| name.client != client);
        table.closed.retain(|_, name| name.client != client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: (Op, u64) = (Op::OPEN, 1);

    fn is_next(turns: &Turns, seqid: u32) -> bool {
        matches!(turns.judge(seqid, OPEN.0, OPEN.1), Ok(Turn::Next))
    }

    #[test]
    fn the_next_is_served_the_last_repeated_and_nothing_else() {
        let mut turns = Turns::default();
        assert!(is_next(&turns, 7), "any seqid is the first");
        turns.keep(7, OPEN, b"answer", None);
        assert!(is_next(&turns, 8));
        let Ok(Turn::Again(kept)) = turns.judge(7, OPEN.0, OPEN.1) else { panic!("no retry") };
        assert_eq!(&kept.result[..], b"answer");
        for seqid in [6, 9, 0] {
            assert_eq!(turns.judge(seqid, OPEN.0, OPEN.1).err(), Some(Status::NFS4ERR_BAD_SEQID), "{seqid}");
        }
        for (op, digest) in [(Op::CLOSE, 1), (Op::OPEN, 2)] {
            assert_eq!(turns.judge(7, op, digest).err(), Some(Status::NFS4ERR_BAD_SEQID), "another request");
        }
        turns.advance(8);
        assert_eq!(turns.judge(8, OPEN.0, OPEN.1).err(), Some(Status::NFS4ERR_BAD_SEQID), "nothing was kept");
        turns.keep(u32::MAX, OPEN, b"", None);
        assert!(is_next(&turns, 0), "the count wraps");
    }

    #[test]
    fn owners_make_room_when_they_own_nothing_and_time_has_passed() {
        let files = Files::new(&crate::Config::default(), 1);
        let owners = Owners::new(2, 10);
        let name = |n: u8| OwnerName::new(Owned::Opens, 0, &[n]);
        assert!(owners.get(&name(1), 0, &files).is_ok() && owners.get(&name(2), 5, &files).is_ok());
        assert_eq!(owners.get(&name(3), 9, &files).err(), Some(Status::NFS4ERR_RESOURCE));
        assert!(owners.get(&name(1), 9, &files).is_ok(), "known");
        assert!(owners.get(&name(3), 16, &files).is_ok(), "the second was not used for longer than a lease");
        assert!(owners.find(&name(1)).is_some() && owners.find(&name(2)).is_none());
        owners.forget_client(0);
        assert!(owners.find(&name(1)).is_none());
    }
}
