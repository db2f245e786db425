//! A client's backchannel as plain data: what it takes to go on with it elsewhere, in another process perhaps.
//!
//! [`Backchannel::export`](super::Backchannel::export) makes an image and changes nothing;
//! [`Backchannel::import`](super::Backchannel::import) makes a backchannel that goes on where that one stood, once
//! [`BackchannelImage::check`] finds that the image does not contradict itself. Times are told as what is left of them or
//! what has passed, so that the clock may be another one.
//!
//! What the driver keeps for the runs (note, start, REQUEUE) is not in it: the driver restores that first.

mod check;
mod export;
mod import;

pub use check::ImageError;

use super::host::{PathFault, PathState, Token};
use super::limits::ClientLimits;
use super::{ClientState, ConnToken, Counters, SessionKey};
use crate::nfs4::SessionId;
use crate::nfs4::callback::CallbackOp;

/// A client.
///
/// # Examples
///
/// ```
/// use ringback_rpc::backchannel::BackchannelImage;
///
/// assert!(BackchannelImage::default().check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackchannelImage {
    /// What the embedder said last of the client.
    pub client: ClientState,
    /// What it is sent at most.
    pub limits: ClientLimits,
    /// It is being drained, for so long.
    pub drain_left_ns: Option<u64>,
    /// The path state that was told last.
    pub path: PathState,
    /// What it knows to be down is down for good after this time.
    pub path_left_ns: Option<u64>,
    /// That time is over.
    pub path_expired: bool,
    /// Operations that it does not support, one bit each.
    pub unsupported: u32,
    /// What was counted.
    pub counters: Counters,
    /// Counts the calls, in the upper bits of their xids.
    pub xid_generation: u32,
    /// How many of them are told from the replies to nothing.
    pub xids_issued: u32,
    /// The state of the jitter.
    pub random: u64,
    /// How far ahead of its allowed rate the client is.
    pub ahead_ns: u64,
    /// For how long nothing new is sent because of that; 0: it may be.
    pub hold_left_ns: u64,
    /// Whether a run that was sent before is next.
    pub again_next: bool,
    /// How often each class was passed over.
    pub passed_over: [u8; 3],
    /// Runs that wait and were never put back, the classes one after the other.
    pub fresh: Vec<Token>,
    /// Runs that were put back.
    pub again: Vec<Token>,
    /// Runs that were sent to a client of minor version 0 and not answered: they go again, as other calls.
    pub resend: Vec<Token>,
    /// Runs that wait for a delay to pass.
    pub delayed: Vec<DelayedRun>,
    /// Connections that carry its sessions.
    pub connections: Vec<ConnectionImage>,
    /// Its sessions.
    pub sessions: Vec<SessionImage>,
    /// The path of minor version 0 that it has confirmed.
    pub minor0: Option<PathImage>,
}

/// A callback path of minor version 0. What was known about it is not in the image: it is asked with CB_NULL before anything
/// else is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathImage {
    /// The driver's name for it.
    pub key: SessionKey,
    /// Program and credential.
    pub parameters: ParametersImage,
    /// Sent with each call.
    pub callback_ident: u32,
    /// Most calls without an answer.
    pub window: u32,
    /// The connections that carry it.
    pub bound: Vec<ConnToken>,
}

/// A run that waits for a delay to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayedRun {
    /// The run.
    pub token: Token,
    /// For how long.
    pub left_ns: u64,
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionImage {
    /// Its name.
    pub conn: ConnToken,
    /// For how long nothing has come in on it.
    pub silent_ns: u64,
    /// Which of the sessions is served next.
    pub turn: u8,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionImage {
    /// The driver's name for it.
    pub key: SessionKey,
    /// The client's name for it.
    pub session_id: SessionId,
    /// Minor version.
    pub minor_version: u32,
    /// The place of its first session slot among those of the client, which stands in the xids.
    pub base: u32,
    /// The session slots.
    pub slots: Vec<SlotImage>,
    /// Highest slot that the client accepts.
    pub highest: u32,
    /// Highest slot that it would like to see used.
    pub target: u32,
    /// Our own limit.
    pub ceiling: u32,
    /// Parameters that calls are pinned to, or that new ones have.
    pub parameters: Vec<ParametersImage>,
    /// Which of them new calls have.
    pub current: u8,
    /// Parameters that wait for a place among those.
    pub pending: Option<ParametersImage>,
    /// Largest request.
    pub request_bytes_max: u32,
    /// Most runs in one call.
    pub batch_limit: u8,
    /// The connections that carry it.
    pub bound: Vec<ConnToken>,
    /// Whether one ever did.
    pub ever_bound: bool,
    /// Runs that must not leave it.
    pub own: Vec<Token>,
    /// For how long they are held back; 0: they are not.
    pub own_hold_left_ns: u64,
    /// The client breaks the protocol.
    pub fault: Option<PathFault>,
    /// The client refuses what is sent.
    pub refused: Option<PathFault>,
    /// Nothing is sent any more.
    pub dead: bool,
    /// Every connection said NFS4ERR_BADSESSION.
    pub lost: bool,
    /// It is being drained.
    pub draining: bool,
    /// The calls on its busy slots.
    pub calls: Vec<CallImage>,
}

/// A session slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotImage {
    /// The sequence id of the call that is out, or of the next one.
    pub sequence_id: u32,
    /// Whether it is in use.
    pub state: SlotState,
    /// The client has dropped it: it restarts once it is free.
    pub restarts: bool,
    /// There may be a copy of one of its calls: where others restart, it is retired.
    pub copied: bool,
}

/// Whether a session slot is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// It is not.
    Free,
    /// A call is out on it, or its sequence id is not known.
    Busy,
    /// It is never used again.
    Retired,
}

/// Program and credential of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParametersImage {
    /// Program number.
    pub program: u32,
    /// Credential, as an encoded `opaque_auth`.
    pub credential: Vec<u8>,
}

/// A call that is not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallImage {
    /// Its session slot.
    pub slot: u32,
    /// The runs that it carries, with the positions of their operations. None: all were given up.
    pub runs: Vec<(u8, Token)>,
    /// Operations besides CB_SEQUENCE in the bytes that were sent.
    pub count: u8,
    /// The first of them.
    pub op: CallbackOp,
    /// Where it stands.
    pub state: CallState,
    /// Its parameters.
    pub parameters: u8,
    /// The connection that its reply may come on.
    pub conn: Option<ConnToken>,
    /// How often CB_SEQUENCE answered NFS4ERR_DELAY.
    pub level: u8,
    /// Some transmission got no answer.
    pub unknown: bool,
    /// It is a lone CB_SEQUENCE.
    pub resync: bool,
    /// It goes as a new call under the same sequence id.
    pub renew: bool,
    /// Its xid.
    pub xid: u32,
    /// csa_highest_slotid as sent.
    pub highest: u32,
    /// How long ago it was sent.
    pub sent_ago_ns: u64,
    /// When it is looked at again.
    pub wake_left_ns: Option<u64>,
    /// What was sent, with its record mark, if the same is to be sent again. Empty: it is not, or cannot be.
    pub bytes: Vec<u8>,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallState {
    /// On the wire.
    Sent,
    /// On the wire for longer than the RPC timeout.
    Unanswered,
    /// To be sent again.
    Ready,
    /// To be sent again after a while.
    BackingOff,
    /// To be sent again when no higher slot is busy.
    HigherBusy,
}

impl Default for BackchannelImage {
    /// A client without sessions.
    fn default() -> Self {
        BackchannelImage {
            client: ClientState::Active,
            limits: ClientLimits::default(),
            drain_left_ns: None,
            path: PathState::Unknown,
            path_left_ns: None,
            path_expired: false,
            unsupported: 0,
            counters: Counters::default(),
            xid_generation: 0,
            xids_issued: 0,
            random: 1,
            ahead_ns: 0,
            hold_left_ns: 0,
            again_next: false,
            passed_over: [0; 3],
            fresh: Vec::new(),
            again: Vec::new(),
            resend: Vec::new(),
            delayed: Vec::new(),
            connections: Vec::new(),
            sessions: Vec::new(),
            minor0: None,
        }
    }
}

impl BackchannelImage {
    /// Every run that is in it.
    pub fn runs(&self) -> impl Iterator<Item = Token> {
        let sent =
            self.sessions.iter().flat_map(|s| s.calls.iter().flat_map(|c| c.runs.iter().map(|(_, token)| *token)));
        let own = self.sessions.iter().flat_map(|s| s.own.iter().copied());
        let waiting = self.fresh.iter().chain(&self.again).chain(&self.resend).copied();
        waiting.chain(self.delayed.iter().map(|run| run.token)).chain(own).chain(sent)
    }

    /// Forgets the runs that are not to be kept, without ending them. A session slot of which the client may have taken
    /// such a run is quarantined.
    pub fn retain_runs(&mut self, mut keep: impl FnMut(Token) -> bool) {
        self.fresh.retain(|token| keep(*token));
        self.again.retain(|token| keep(*token));
        self.resend.retain(|token| keep(*token));
        self.delayed.retain(|run| keep(run.token));
        for session in &mut self.sessions {
            session.own.retain(|token| keep(*token));
            let slots = &mut session.slots;
            session.calls.retain_mut(|call| {
                let had = call.runs.len();
                call.runs.retain(|(_, token)| keep(*token));
                if call.runs.len() < had {
                    // The bytes name what is gone.
                    call.bytes.clear();
                }
                if !call.runs.is_empty() || had == 0 {
                    return true;
                }
                let taken = call.unknown || matches!(call.state, CallState::Sent | CallState::Unanswered);
                if taken {
                    call.wake_left_ns = Some(0);
                } else if let Some(slot) = slots.get_mut(call.slot as usize) {
                    slot.state = SlotState::Free;
                    match (std::mem::take(&mut slot.restarts), slot.copied) {
                        (true, true) => slot.state = SlotState::Retired,
                        (true, false) => slot.sequence_id = 1,
                        (false, _) => {}
                    }
                }
                taken
            });
        }
    }

    /// The backchannel has gone on since, and nobody knows how far: no session slot is used again before the client has told
    /// where it stands (RFC 8881 section 2.10.6.1).
    pub fn distrust(&mut self) {
        for session in &mut self.sessions {
            for call in &mut session.calls {
                call.unknown = true;
            }
            for (slot, image) in session.slots.iter_mut().enumerate() {
                let slot = slot as u32;
                if image.state != SlotState::Free || slot > session.highest {
                    continue;
                }
                image.state = SlotState::Busy;
                session.calls.push(CallImage {
                    slot,
                    runs: Vec::new(),
                    count: 1,
                    op: CallbackOp::Illegal,
                    state: CallState::Ready,
                    parameters: session.current,
                    conn: None,
                    level: 0,
                    unknown: true,
                    resync: false,
                    renew: true,
                    xid: session.base + slot,
                    highest: slot,
                    sent_ago_ns: 0,
                    wake_left_ns: None,
                    bytes: Vec::new(),
                });
            }
        }
    }
}
