//! What the clients saw, counted without trusting the server: every delegation by its stateid.

use super::config::Behaviour;
use ringback_rpc::nfs4::{OTHER_SIZE, Stateid4, Status};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::ops::AddAssign;

/// Counts of delegations and recalls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recalls {
    /// Delegations that the server granted.
    pub granted: u64,
    /// CB_RECALLs for delegations that the client holds or held, except those answered NFS4ERR_DELAY.
    pub received: u64,
    /// Delegations for which at least one CB_RECALL was executed, that is, answered NFS4_OK.
    pub distinct: u64,
    /// CB_RECALLs executed for a delegation that had been recalled before, where nothing the client did asked for it.
    pub doubled: u64,
    /// CB_RECALLs for a delegation whose first recall had been executed, but whose reply was lost: the server was told
    /// NFS4ERR_RETRY_UNCACHED_REP and asked again, as it may.
    pub repeated: u64,
    /// CB_RECALLs answered NFS4ERR_DELAY by a [`Behaviour::Delay`] client.
    pub delayed: u64,
    /// CB_RECALLs for a stateid that the client never had, answered NFS4ERR_BAD_STATEID.
    pub unknown_stateid: u64,
    /// DELEGRETURNs that succeeded.
    pub delegreturns_ok: u64,
}

impl AddAssign for Recalls {
    fn add_assign(&mut self, more: Recalls) {
        self.granted += more.granted;
        self.received += more.received;
        self.distinct += more.distinct;
        self.doubled += more.doubled;
        self.repeated += more.repeated;
        self.delayed += more.delayed;
        self.unknown_stateid += more.unknown_stateid;
        self.delegreturns_ok += more.delegreturns_ok;
    }
}

/// Everything that a swarm counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    by_behaviour: [Recalls; Behaviour::ALL.len()],
    /// Delegations that are neither done with nor given up, by behaviour.
    left: [u64; Behaviour::ALL.len()],
    /// OPENs that asked for a delegation and got their final answer.
    pub opened: u64,
    /// Those of them that brought no delegation, with or without an error.
    pub not_granted: u64,
    /// Stateids that the server granted a second time while the first was held.
    pub granted_twice: u64,
    /// CB_COMPOUNDs that took their session slot, with one operation or more.
    pub callbacks: u64,
    /// CB_SEQUENCEs that repeated the last sequence id of their session slot, whatever the answer.
    pub replays: u64,
    /// CB_SEQUENCEs answered NFS4ERR_SEQ_MISORDERED.
    pub misordered: u64,
    /// CB_SEQUENCEs answered with another error: NFS4ERR_BADSESSION, NFS4ERR_BADSLOT and the like.
    pub sequence_errors: u64,
    /// Records from the server that could not be decoded.
    pub malformed: u64,
    /// Callbacks refused for their credential: AUTH_NONE on anything but CB_NULL, or a flavor that was not offered.
    pub wrong_credential: u64,
    /// Callbacks with AUTH_SYS but not the credential that goes with their program (csa_sec_parms, bca_sec_parms). They are
    /// answered.
    pub other_credential: u64,
    /// Callbacks executed with a program that BACKCHANNEL_CTL had replaced, where none that was sent before can be meant:
    /// each session slot may have had one out.
    pub replaced_parameters: u64,
    /// BACKCHANNEL_CTLs that succeeded: after each cut, the client wants to be called with another program and credential.
    pub controls: u64,
    /// Callbacks for another program, version or procedure.
    pub wrong_program: u64,
    /// CB_NULLs answered.
    pub probes: u64,
    /// Replies to a call that is not outstanding.
    pub unknown_xid: u64,
    /// Connections cut on purpose and bound again.
    pub cuts: u64,
    /// Connections that the server closed, or that broke.
    pub connections_lost: u64,
    /// Calls repeated over a new connection that the server answered with NFS4ERR_RETRY_UNCACHED_REP.
    pub uncached_replies: u64,
    /// All SEQ4_STATUS bits that SEQUENCE replies carried.
    pub sequence_flags: u32,
    /// Fore-channel operations that failed, by status. NFS4ERR_DELAY and NFS4ERR_GRACE are repeated and counted too.
    pub errors: BTreeMap<u32, u64>,
    /// Opens for write of the trigger that succeeded.
    pub triggered: u64,
    /// Clients that gave up, and why.
    pub failures: Vec<String>,
}

impl Tally {
    /// The counts of the clients of one behaviour.
    pub fn of(&self, behaviour: Behaviour) -> &Recalls {
        &self.by_behaviour[behaviour as usize]
    }

    pub(crate) fn of_mut(&mut self, behaviour: Behaviour) -> &mut Recalls {
        &mut self.by_behaviour[behaviour as usize]
    }

    /// The counts of all clients together.
    pub fn total(&self) -> Recalls {
        let mut total = Recalls::default();
        self.by_behaviour.iter().for_each(|one| total += *one);
        total
    }

    /// Delegations of the clients of one behaviour that are still to be recalled, and returned where that is asked for.
    pub(crate) fn left(&self, behaviour: Behaviour) -> u64 {
        self.left[behaviour as usize]
    }

    pub(crate) fn left_mut(&mut self, behaviour: Behaviour) -> &mut u64 {
        &mut self.left[behaviour as usize]
    }

    pub(crate) fn error(&mut self, status: Status) {
        *self.errors.entry(status.0).or_default() += 1;
    }
}

/// What happened to one delegation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held(u8);

impl Held {
    const RECALLED: u8 = 1;
    const RETURNED: u8 = 2;
    /// The reply to its recall was lost, and the server was told so: it may ask once more.
    const MAY_REPEAT: u8 = 4;

    fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}

/// The delegations of one client: thirteen bytes and the map's own byte each.
#[derive(Debug, Default)]
pub(crate) struct Delegations {
    held: HashMap<[u8; OTHER_SIZE], Held, FoldBuild>,
}

/// What a CB_RECALL found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recalled {
    /// Held, and recalled for the first time.
    First,
    /// Held, and recalled before.
    Again,
    /// Recalled before, and returned since.
    Gone,
    /// Never heard of.
    Unknown,
}

impl Delegations {
    /// Room for `count` more, so that the table does not grow in steps while delegations come in.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.held.reserve(count);
    }

    /// Takes over a delegation that OPEN granted.
    pub(crate) fn granted(&mut self, stateid: &Stateid4, counts: &mut Recalls) -> Granted {
        match self.held.insert(stateid.other, Held::default()) {
            // A server may use a stateid again for the next delegation once the last one is returned.
            Some(before) if !before.has(Held::RETURNED) => Granted::Twice,
            _ => {
                counts.granted += 1;
                Granted::Once
            }
        }
    }

    /// Counts a CB_RECALL that is about to be answered.
    pub(crate) fn recall(&mut self, stateid: &Stateid4, counts: &mut Recalls) -> Recalled {
        let Some(held) = self.held.get_mut(&stateid.other) else {
            counts.unknown_stateid += 1;
            return Recalled::Unknown;
        };
        counts.received += 1;
        if !held.has(Held::RECALLED) && !held.has(Held::RETURNED) {
            counts.distinct += 1;
        } else if held.has(Held::MAY_REPEAT) {
            counts.repeated += 1;
        } else {
            counts.doubled += 1;
        }
        let before = *held;
        held.0 = Held::RECALLED | (held.0 & Held::RETURNED);
        match (before.has(Held::RETURNED), before.has(Held::RECALLED)) {
            (true, _) => Recalled::Gone,
            (false, true) => Recalled::Again,
            (false, false) => Recalled::First,
        }
    }

    /// The server was told that the reply to this delegation's recall is not to be had again.
    pub(crate) fn reply_lost(&mut self, other: &[u8; OTHER_SIZE]) {
        if let Some(held) = self.held.get_mut(other) {
            held.0 |= Held::MAY_REPEAT;
        }
    }

    /// DELEGRETURN succeeded.
    pub(crate) fn returned(&mut self, stateid: &Stateid4, counts: &mut Recalls) {
        if let Some(held) = self.held.get_mut(&stateid.other) {
            held.0 |= Held::RETURNED;
            counts.delegreturns_ok += 1;
        }
    }
}

/// What the grant of a delegation was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Granted {
    /// New.
    Once,
    /// Its stateid was held already.
    Twice,
}

/// Hashes stateids: one folded multiplication per eight bytes. The keys come from one server that gains nothing from
/// collisions, and the standard hasher would cost as much as the rest of a callback here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FoldBuild;

impl BuildHasher for FoldBuild {
    type Hasher = Fold;

    fn build_hasher(&self) -> Fold {
        Fold(0x9e37_79b9_7f4a_7c15)
    }
}

/// The hasher of [`FoldBuild`].
#[derive(Debug)]
pub(crate) struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let product = u128::from(self.0 ^ u64::from_le_bytes(word)) * 0xd6e8_feb8_6659_fd93;
            self.0 = (product as u64) ^ ((product >> 64) as u64);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
