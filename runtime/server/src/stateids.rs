//! Stateids: what kind of state, which object, which life of the server (RFC 8881 section 8.2).
//!
//! The opaque part is an index and a generation, so that finding the object is one array access and a stateid of an
//! object that is gone finds nothing.

use crate::arena::Id;
use crate::files::{Files, Shard, shard_number, split_words, words};
use ringback_rpc::nfs4::{Stateid4, Status};
use std::sync::MutexGuard;

/// What a stateid stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Open = 1,
    Delegation = 2,
    Lock = 3,
    /// A copy that goes on. No operation on state takes it.
    Copy = 4,
    /// A layout.
    Layout = 5,
}

/// The bits of the first word that tell lives of the server apart; above them stands the kind.
pub(crate) const INSTANCE_MASK: u32 = 0x00ff_ffff;

impl Files {
    /// The stateid of an object, by its name in the whole server.
    pub(crate) fn stateid(&self, kind: Kind, id: Id, seqid: u32) -> Stateid4 {
        let first = (kind as u32) << 24 | self.instance & INSTANCE_MASK;
        Stateid4 { seqid, other: words([first, id.index, id.generation]) }
    }

    /// The object's name, if the stateid is one of ours and of that kind. All else is NFS4ERR_BAD_STATEID: minor version 1
    /// has no use for NFS4ERR_STALE_STATEID (RFC 8881 section 15.1.16).
    pub(crate) fn parse_stateid(&self, kind: Kind, stateid: &Stateid4) -> Result<Id, Status> {
        let [first, index, generation] = split_words(&stateid.other);
        if first != (kind as u32) << 24 | self.instance & INSTANCE_MASK {
            return Err(Status::NFS4ERR_BAD_STATEID);
        }
        Ok(Id { index, generation })
    }

    /// The object that a stateid of minor version 0 names, and its kind. There, one of another life of the server is
    /// NFS4ERR_STALE_STATEID (RFC 7530 section 9.1.4).
    pub(crate) fn parse_minor0(&self, stateid: &Stateid4) -> Result<(Kind, Id), Status> {
        let [first, index, generation] = split_words(&stateid.other);
        // What is none of a server's (RFC 7530 section 9.1.4.3).
        if matches!([first, index, generation], [0, 0, 0] | [u32::MAX, u32::MAX, u32::MAX]) {
            return Err(Status::NFS4ERR_BAD_STATEID);
        }
        if first & INSTANCE_MASK != self.instance & INSTANCE_MASK {
            return Err(Status::NFS4ERR_STALE_STATEID);
        }
        let kind = match first >> 24 {
            1 => Kind::Open,
            2 => Kind::Delegation,
            3 => Kind::Lock,
            _ => return Err(Status::NFS4ERR_BAD_STATEID),
        };
        Ok((kind, Id { index, generation }))
    }

    /// What kind of state a stateid stands for.
    pub(crate) fn kind_of(&self, stateid: &Stateid4) -> Result<Kind, Status> {
        [Kind::Open, Kind::Delegation, Kind::Lock, Kind::Layout]
            .into_iter()
            .find(|kind| self.parse_stateid(*kind, stateid).is_ok())
            .ok_or(Status::NFS4ERR_BAD_STATEID)
    }

    /// The shard of a state object, locked, its number, and the object's name in it.
    pub(crate) fn find_state(
        &self,
        kind: Kind,
        stateid: &Stateid4,
    ) -> Result<(MutexGuard<'_, Shard>, usize, Id), Status> {
        let id = self.parse_stateid(kind, stateid)?;
        let (shard, local) = self.shard_of(id);
        Ok((shard, shard_number(id), local))
    }
}

/// The seqid after `seqid`: zero is left out, as it stands for the current one (RFC 8881 section 8.2.2).
pub(crate) const fn next_seqid(seqid: u32) -> u32 {
    match seqid.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

/// Compares a stateid's seqid with the current one (RFC 8881 section 8.2.2): older is NFS4ERR_OLD_STATEID, newer than
/// what was ever given is NFS4ERR_BAD_STATEID. The count wraps, so that older means less than half of its range behind.
pub(crate) fn check_seqid(given: u32, current: u32) -> Result<(), Status> {
    match current.wrapping_sub(given) {
        _ if given == 0 => Ok(()),
        0 => Ok(()),
        behind if behind < 1 << 31 => Err(Status::NFS4ERR_OLD_STATEID),
        _ => Err(Status::NFS4ERR_BAD_STATEID),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seqids_are_compared_around_the_wrap() {
        assert_eq!(check_seqid(0, 7), Ok(()));
        assert_eq!(check_seqid(7, 7), Ok(()));
        assert_eq!(check_seqid(6, 7), Err(Status::NFS4ERR_OLD_STATEID));
        assert_eq!(check_seqid(8, 7), Err(Status::NFS4ERR_BAD_STATEID));
        assert_eq!(check_seqid(u32::MAX, 1), Err(Status::NFS4ERR_OLD_STATEID));
        assert_eq!(next_seqid(u32::MAX), 1);
    }
}
