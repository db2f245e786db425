//! Byte-range locks: LOCK, LOCKT, LOCKU (RFC 8881 sections 9.1 to 9.6 and 18.10 to 18.12), with the semantics of POSIX: the
//! locks of one owner on one file are a set of bytes, some shared, some exclusive.

use crate::arena::{Id, Link, Links, NONE};
use crate::callbacks::Callbacks;
use crate::clients::Client;
use crate::files::{Files, SHARDS, Shard, global, shard_number};
use crate::keep::keep;
use crate::lock_waiters::Asker;
use crate::name::ShortBytes;
use crate::opens::{READ, WRITE};
use crate::stateids::{Kind, check_seqid, next_seqid};
use ringback_rpc::nfs4::fore::{LockArgs, LockDenied, LockFailure, LockType, Locker};
use ringback_rpc::nfs4::{ClientId4, StateOwner4, Stateid4, Status};

/// Locks and lock-owners of one file: each LOCK looks at all of them.
pub(crate) const LOCKS_PER_FILE_MAX: usize = 4096;
/// The end of a lock that reaches to the end of the file, wherever that is.
const TO_THE_END: u64 = u64::MAX;

/// Locked bytes: from `start` up to, and not with, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    start: u64,
    end: u64,
    write: bool,
}

/// The locks of one owner on one file.
#[derive(Debug)]
pub(crate) struct LockOwner {
    pub(crate) file: u32,
    pub(crate) client: u32,
    client_id: ClientId4,
    /// The open under which the owner first locked.
    pub(crate) open: Id,
    in_file: Links,
    in_client: Links,
    owner: ShortBytes,
    seqid: u32,
    ranges: Vec<Range>,
}

keep! {
    Range { start, end, write }
    LockOwner { file, client, client_id, open, in_file, in_client, owner, seqid, ranges }
}

impl LockOwner {
    pub(crate) fn owner(&self) -> &[u8] {
        self.owner.as_bytes()
    }
}

/// The list of a file's lock-owners.
pub(crate) struct OfFile;
/// The list of a client's lock-owners in a shard.
pub(crate) struct OfClient;

impl Link<LockOwner> for OfFile {
    fn of(owner: &mut LockOwner) -> &mut Links {
        &mut owner.in_file
    }
    fn of_ref(owner: &LockOwner) -> &Links {
        &owner.in_file
    }
}

impl Link<LockOwner> for OfClient {
    fn of(owner: &mut LockOwner) -> &mut Links {
        &mut owner.in_client
    }
    fn of_ref(owner: &LockOwner) -> &Links {
        &owner.in_client
    }
}

/// A lock in somebody's way.
#[derive(Clone, Debug)]
pub(crate) struct InTheWay {
    range: Range,
    client_id: ClientId4,
    owner: ShortBytes,
}

impl InTheWay {
    /// As LOCK and LOCKT say it.
    pub(crate) fn failure(&self) -> LockFailure<'_> {
        let owner = StateOwner4::new(self.client_id, self.owner.as_bytes());
        // An owner was taken from the wire, where it has the same limit.
        let Some(owner) = owner else { return LockFailure::Other(Status::NFS4ERR_SERVERFAULT) };
        let Range { start, end, write } = self.range;
        let length = if end == TO_THE_END { u64::MAX } else { end - start };
        let kind = if write { LockType::Write } else { LockType::Read };
        LockFailure::Denied(LockDenied { offset: start, length, kind, owner })
    }
}

/// Why a lock was not given.
#[derive(Debug)]
pub(crate) enum NoLock {
    Status(Status),
    InTheWay(InTheWay),
}

impl From<Status> for NoLock {
    fn from(status: Status) -> Self {
        NoLock::Status(status)
    }
}

impl Range {
    /// The bytes that the arguments of an operation mean (RFC 8881 section 18.10.3).
    pub(crate) fn new(kind: LockType, offset: u64, length: u64) -> Result<Range, Status> {
        let end = match length {
            0 => return Err(Status::NFS4ERR_INVAL),
            // A lock that ends where it begins would hold nothing, and never go.
            u64::MAX if offset == TO_THE_END => return Err(Status::NFS4ERR_INVAL),
            u64::MAX => TO_THE_END,
            _ => offset.checked_add(length).ok_or(Status::NFS4ERR_INVAL)?,
        };
        Ok(Range { start: offset, end, write: matches!(kind, LockType::Write | LockType::WriteWait) })
    }

    fn overlaps(&self, other: &Range) -> bool {
        self.start < other.end && other.start < self.end
    }

    pub(crate) fn conflicts(&self, other: &Range) -> bool {
        self.overlaps(other) && (self.write || other.write)
    }
}

/// `ranges` without the bytes of `cut`.
fn without(ranges: &[Range], cut: &Range) -> Vec<Range> {
    let mut left = Vec::with_capacity(ranges.len() + 2);
    for range in ranges {
        if !range.overlaps(cut) {
            left.push(*range);
            continue;
        }
        if range.start < cut.start {
            left.push(Range { end: cut.start, ..*range });
        }
        if cut.end < range.end {
            left.push(Range { start: cut.end, ..*range });
        }
    }
    left
}

/// `ranges` and those of `more`, which replaces what it overlaps; neighbours of one kind become one.
fn with(ranges: &[Range], more: Range) -> Vec<Range> {
    let mut all = without(ranges, &more);
    all.push(more);
    all.sort_unstable_by_key(|r| r.start);
    all.dedup_by(|next, kept| {
        let joins = kept.end == next.start && kept.write == next.write;
        if joins {
            kept.end = next.end;
        }
        joins
    });
    all
}

impl Files {
    /// LOCK on the current file. Who is ready to wait for it (READW_LT, WRITEW_LT) is told when it may be had.
    pub(crate) fn lock(
        &self,
        file: Id,
        client: &Client,
        args: &LockArgs<'_>,
        callbacks: &Callbacks,
    ) -> Result<Stateid4, NoLock> {
        let range = Range::new(args.kind, args.offset, args.length)?;
        let (mut shard, number, open, name, known) = match &args.locker {
            Locker::New(new) => {
                let (shard, number, open) = self.find_open(file, client, &new.open_stateid)?;
                if client.is_gone() {
                    return Err(Status::NFS4ERR_DEADSESSION.into());
                }
                (shard, number, open, ShortBytes::new(new.lock_owner.owner()), None)
            }
            Locker::Existing(existing) => {
                let (shard, number, id) = self.find_lock_owner(file, client, &existing.lock_stateid)?;
                let owner = shard.locks.get(id).ok_or(Status::NFS4ERR_BAD_STATEID)?;
                let (open, name) = (owner.open, owner.owner.clone());
                (shard, number, open, name, Some(id.index))
            }
        };
        check_mode(&shard, open, &range)?;
        let shard = &mut *shard;
        let asker = Asker { client, owner: name.as_bytes(), open, range };
        if let Err(found) = check_free(shard, index_of(file), client.index, asker.owner, &range) {
            if args.reclaim {
                return Err(Status::NFS4ERR_RECLAIM_CONFLICT.into());
            }
            if matches!(args.kind, LockType::ReadWait | LockType::WriteWait) {
                self.add_waiter(shard, number, index_of(file), &asker, callbacks);
            }
            return Err(NoLock::InTheWay(found));
        }
        let index = match known {
            Some(index) => index,
            None => self.owner_of(shard, file, client, open, asker.owner)?,
        };
        let stateid = self.set_ranges(shard, number, index, |ranges| with(ranges, range))?;
        self.drop_waiter(shard, index_of(file), &asker, callbacks);
        // A lock for writing may have become one for reading.
        self.notify_waiters(shard, index_of(file), callbacks);
        Ok(stateid)
    }

    /// LOCKT on the current file.
    pub(crate) fn test_lock(&self, file: Id, client: &Client, owner: &[u8], range: &Range) -> Result<(), NoLock> {
        let (shard, _, index) = self.live(file)?;
        // Only regular files are locked (RFC 8881 section 18.11.3).
        shard.files.at(index).ok_or(Status::NFS4ERR_STALE)?.data()?;
        check_free(&shard, index, client.index, owner, range).map_err(NoLock::InTheWay)
    }

    /// LOCKU on the current file.
    pub(crate) fn unlock(
        &self,
        file: Id,
        client: &Client,
        stateid: &Stateid4,
        cut: &Range,
        callbacks: &Callbacks,
    ) -> Result<Stateid4, Status> {
        let (mut shard, number, id) = self.find_lock_owner(file, client, stateid)?;
        let stateid = self.set_ranges(&mut shard, number, id.index, |ranges| without(ranges, cut))?;
        self.notify_waiters(&mut shard, index_of(file), callbacks);
        Ok(stateid)
    }

    fn find_lock_owner<'s>(
        &'s self,
        file: Id,
        client: &Client,
        stateid: &Stateid4,
    ) -> Result<(std::sync::MutexGuard<'s, Shard>, usize, Id), Status> {
        let (shard, number, id) = self.find_state(Kind::Lock, stateid)?;
        let owner = shard.locks.get(id).ok_or(Status::NFS4ERR_BAD_STATEID)?;
        let locked = shard.files.id_at(owner.file).map(|f| global(number, f));
        if owner.client != client.index || locked != Some(file) {
            return Err(Status::NFS4ERR_BAD_STATEID);
        }
        check_seqid(stateid.seqid, owner.seqid)?;
        Ok((shard, number, id))
    }

    /// The entry of a lock-owner on a file, made if there is none.
    fn owner_of(&self, shard: &mut Shard, file: Id, client: &Client, open: Id, owner: &[u8]) -> Result<u32, Status> {
        let file = index_of(file);
        let head = shard.files.at(file).map_or(NONE, |f| f.locks());
        let same = |o: &LockOwner| o.client == client.index && o.owner.as_bytes() == owner;
        if let Some((index, _)) = shard.locks.list::<OfFile>(head).find(|(_, o)| same(o)) {
            return Ok(index);
        }
        // The entry itself is charged like a lock: it stays when all its locks are gone.
        if is_full(shard, file) || !self.locks.take() {
            return Err(Status::NFS4ERR_DELAY);
        }
        let entry = LockOwner {
            file,
            client: client.index,
            client_id: client.id,
            open,
            in_file: Links::ALONE,
            in_client: Links::ALONE,
            owner: ShortBytes::new(owner),
            seqid: 0,
            ranges: Vec::new(),
        };
        shard.holder(client.index);
        let index =
            shard.locks.insert(entry).ok_or(Status::NFS4ERR_DELAY).inspect_err(|_| self.locks.give_back())?.index;
        let Shard { files, locks, holders, .. } = shard;
        if let Some(file) = files.at_mut(file) {
            locks.link::<OfFile>(&mut file.body_mut().locks, index);
        }
        if let Some(holder) = holders.get_mut(client.index as usize) {
            locks.link::<OfClient>(&mut holder.locks, index);
        }
        Ok(index)
    }

    /// Changes the locks of an owner, within the limit.
    fn set_ranges(
        &self,
        shard: &mut Shard,
        number: usize,
        index: u32,
        change: impl FnOnce(&[Range]) -> Vec<Range>,
    ) -> Result<Stateid4, Status> {
        let id = shard.locks.id_at(index).ok_or(Status::NFS4ERR_BAD_STATEID)?;
        let owner = shard.locks.get(id).ok_or(Status::NFS4ERR_BAD_STATEID)?;
        let ranges = change(&owner.ranges);
        let (before, after) = (owner.ranges.len() as u64, ranges.len() as u64);
        if after > before && (is_full(shard, owner.file) || !self.locks.take_many(after - before)) {
            return Err(Status::NFS4ERR_DELAY);
        }
        self.locks.give_back_many(before.saturating_sub(after));
        let owner = shard.locks.get_mut(id).ok_or(Status::NFS4ERR_BAD_STATEID)?;
        owner.ranges = ranges;
        owner.seqid = next_seqid(owner.seqid);
        Ok(self.stateid(Kind::Lock, global(number, id), owner.seqid))
    }

    /// Takes a lock-owner and its locks out of everything.
    pub(crate) fn drop_lock_owner(&self, shard: &mut Shard, id: Id) {
        let Some(LockOwner { file, client, .. }) = shard.locks.get(id) else { return };
        let (file, client) = (*file, *client);
        let Shard { files, locks, holders, .. } = &mut *shard;
        if let Some(file) = files.at_mut(file) {
            locks.unlink::<OfFile>(&mut file.body_mut().locks, id.index);
        }
        if let Some(holder) = holders.get_mut(client as usize) {
            locks.unlink::<OfClient>(&mut holder.locks, id.index);
        }
        let ranges = locks.remove(id).map_or(0, |owner| owner.ranges.len() as u64);
        self.locks.give_back_many(ranges + 1);
        self.reap(shard, file);
    }

    /// Before an open is closed: its lock-owners go with it, unless they hold locks (RFC 8881 section 18.2.3).
    pub(crate) fn close_lock_owners(&self, shard: &mut Shard, open: Id) -> Result<(), Status> {
        let head = shard.opens.get(open).and_then(|o| shard.files.at(o.file)).map_or(NONE, |f| f.locks());
        let of_open = shard.locks.list::<OfFile>(head).filter(|(_, owner)| owner.open == open);
        let owners: Vec<(u32, bool)> = of_open.map(|(index, owner)| (index, owner.ranges.is_empty())).collect();
        if owners.iter().any(|(_, free)| !free) {
            return Err(Status::NFS4ERR_LOCKS_HELD);
        }
        for (index, _) in owners {
            if let Some(id) = shard.locks.id_at(index) {
                self.drop_lock_owner(shard, id);
            }
        }
        Ok(())
    }

    /// RELEASE_LOCKOWNER, of minor version 0 (RFC 7530 section 16.37): forgets what a lock-owner had, which must be no locks.
    pub(crate) fn release_lock_owner(&self, client: u32, owner: &[u8]) -> Result<(), Status> {
        for drops in [false, true] {
            for number in 0..SHARDS {
                let mut shard = self.shard(number);
                let head = shard.holders.get(client as usize).map_or(NONE, |holder| holder.locks);
                let of_owner = shard.locks.list::<OfClient>(head).filter(|(_, o)| o.owner() == owner);
                let found: Vec<(u32, bool)> = of_owner.map(|(index, o)| (index, o.ranges.is_empty())).collect();
                if found.iter().any(|(_, free)| !free) {
                    return Err(Status::NFS4ERR_LOCKS_HELD);
                }
                for id in found
                    .iter()
                    .filter_map(|(index, _)| shard.locks.id_at(*index))
                    .filter(|_| drops)
                    .collect::<Vec<_>>()
                {
                    self.drop_lock_owner(&mut shard, id);
                }
            }
        }
        Ok(())
    }

    /// FREE_STATEID of a lock stateid (RFC 8881 section 18.38).
    pub(crate) fn free_lock(&self, client: &Client, stateid: &Stateid4) -> Result<(), Status> {
        let (mut shard, _, id) = self.find_state(Kind::Lock, stateid)?;
        match shard.locks.get(id) {
            Some(owner) if owner.client != client.index => Err(Status::NFS4ERR_BAD_STATEID),
            Some(owner) if !owner.ranges.is_empty() => Err(Status::NFS4ERR_LOCKS_HELD),
            Some(_) => {
                self.drop_lock_owner(&mut shard, id);
                Ok(())
            }
            None => Err(Status::NFS4ERR_BAD_STATEID),
        }
    }

    /// TEST_STATEID of a lock stateid.
    pub(crate) fn test_lock_stateid(&self, client: &Client, stateid: &Stateid4) -> Result<(), Status> {
        let (shard, _, id) = self.find_state(Kind::Lock, stateid)?;
        match shard.locks.get(id) {
            Some(owner) if owner.client == client.index => check_seqid(stateid.seqid, owner.seqid),
            _ => Err(Status::NFS4ERR_BAD_STATEID),
        }
    }

    /// The open under which a lock stateid of the current file was made.
    pub(crate) fn open_of_lock(
        &self,
        shard: &Shard,
        number: usize,
        client: &Client,
        stateid: &Stateid4,
    ) -> Result<Id, Status> {
        let id = self.parse_stateid(Kind::Lock, stateid)?;
        let owner = shard.locks.get(crate::files::local(id)).filter(|_| shard_number(id) == number);
        let owner = owner.filter(|o| o.client == client.index).ok_or(Status::NFS4ERR_BAD_STATEID)?;
        check_seqid(stateid.seqid, owner.seqid)?;
        Ok(owner.open)
    }
}

/// The index of a file in its shard.
const fn index_of(file: Id) -> u32 {
    crate::files::local(file).index
}

/// Whether the open allows such a lock (RFC 8881 section 18.10.3).
fn check_mode(shard: &Shard, open: Id, range: &Range) -> Result<(), Status> {
    let access = shard.opens.get(open).map_or(0, |o| o.access);
    let needed = if range.write { WRITE } else { READ };
    if access & needed == 0 { Err(Status::NFS4ERR_OPENMODE) } else { Ok(()) }
}

/// Whether a file has as many locks as it may have.
fn is_full(shard: &Shard, file: u32) -> bool {
    let head = shard.files.at(file).map_or(NONE, |f| f.locks());
    let count: usize = shard.locks.list::<OfFile>(head).map(|(_, owner)| 1 + owner.ranges.len()).sum();
    count >= LOCKS_PER_FILE_MAX
}

/// Whether no other owner's lock is in the way.
pub(crate) fn check_free(shard: &Shard, file: u32, client: u32, owner: &[u8], range: &Range) -> Result<(), InTheWay> {
    let head = shard.files.at(file).map_or(NONE, |f| f.locks());
    let others =
        shard.locks.list::<OfFile>(head).filter(|(_, other)| other.client != client || other.owner.as_bytes() != owner);
    for (_, other) in others {
        if let Some(found) = other.ranges.iter().find(|r| r.conflicts(range)) {
            let (range, client_id, owner) = (*found, other.client_id, other.owner.clone());
            return Err(InTheWay { range, client_id, owner });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_are_sets_of_bytes(steps in proptest::collection::vec((0u64..20, 1u64..10, 0u8..3), 1..20)) {
            let mut ranges = Vec::new();
            let mut model = [None; 32];
            for (start, len, what) in steps {
                let range = Range { start, end: start + len, write: what == 1 };
                ranges = if what == 2 { without(&ranges, &range) } else { with(&ranges, range) };
                model[start as usize..(start + len) as usize].fill((what != 2).then_some(what == 1));
                for (byte, held) in model.iter().enumerate() {
                    let byte = byte as u64;
                    let found: Vec<_> = ranges.iter().filter(|r| (r.start..r.end).contains(&byte)).collect();
                    prop_assert_eq!(found.len(), usize::from(held.is_some()));
                    prop_assert_eq!(found.first().map(|r| r.write), *held);
                }
            }
        }
    }

    #[test]
    fn ranges_of_the_wire() {
        let range = |offset, length| Range::new(LockType::Read, offset, length).map(|r| (r.start, r.end));
        assert_eq!(range(5, u64::MAX), Ok((5, u64::MAX)));
        assert_eq!(range(0, 10), Ok((0, 10)));
        assert_eq!(range(0, 0), Err(Status::NFS4ERR_INVAL));
        assert_eq!(range(u64::MAX, 2), Err(Status::NFS4ERR_INVAL));
        assert_eq!(range(u64::MAX, u64::MAX), Err(Status::NFS4ERR_INVAL));
    }
}
