//! The records of calls: one for each session slot, allocated with the session.
//!
//! A record is *the* memory of what was sent: session, slot, connection, parameters, xid, and the runs that it carries:
//! most often one, and at most [`BATCH_MAX`] in a batch, linked through the driver's entries as a queue is. A run that
//! is given up leaves its record; the record leaves only when the slot's sequence id is known.

use super::host::{Host, Token};
use crate::nfs4::callback::CallbackOp;

/// Most runs of one call: a bit each in the call's set of members.
pub const BATCH_MAX: u32 = u64::BITS;

/// Low bits of an xid that name the call record; the bits above count the calls of the client.
pub(super) const INDEX_BITS: u32 = 12;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
const GENERATION_MASK: u32 = u32::MAX >> INDEX_BITS;
/// A reply this many calls behind is late rather than of unknown origin.
const LATE_CALLS_MAX: u32 = GENERATION_MASK / 2;

/// The last transmission was answered, or its connection is gone.
pub(super) const NO_CONN: u8 = u8::MAX;

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The session slot is free.
    Free,
    /// On the wire. The timer is the RPC timeout.
    Sent,
    /// On the wire of a connection that is up, for longer than the RPC timeout. A late reply still settles it.
    Unknown,
    /// To be sent again, on any connection of its session.
    Ready,
    /// To be sent again when the timer says so.
    Backoff,
    /// To be sent again when no higher slot is busy (NFS4ERR_BAD_HIGH_SLOT).
    HigherBusy,
}

/// A call, and what it is pinned to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// The run that it carries, the first one of a batch. `None` while the call is out: all were given up, the slot is
    /// quarantined.
    pub token: Option<Token>,
    /// Which operations of the call, by position, are those of runs that it still carries. The runs are linked in this
    /// order, from `token` on.
    pub members: u64,
    /// Operations besides CB_SEQUENCE in the bytes that were sent.
    pub count: u8,
    /// The first of these operations.
    pub op: CallbackOp,
    pub state: State,
    /// It is one of minor version 0: without CB_SEQUENCE, or CB_NULL.
    pub minor0: bool,
    /// Index of the session.
    pub session: u8,
    /// Which parameters of the session it was first sent with.
    pub version: u8,
    /// Index of the connection that its reply may come on, or [`NO_CONN`].
    pub conn: u8,
    /// How often CB_SEQUENCE answered NFS4ERR_DELAY.
    pub level: u8,
    /// Some transmission got no answer: the client may have executed it.
    pub unknown: bool,
    /// It is a lone CB_SEQUENCE.
    pub resync: bool,
    /// The next transmission is a new call under the same sequence id (the last one was answered), not a retransmission
    /// of the same bytes.
    pub renew: bool,
    pub xid: u32,
    /// csa_highest_slotid as sent.
    pub highest: u32,
    /// When the first of the runs that it carries ends.
    pub deadline_ns: u64,
    pub sent_ns: u64,
    /// When to look at it again.
    pub wake_ns: u64,
}

impl Call {
    pub const FREE: Call = Call {
        token: None,
        members: 0,
        count: 1,
        op: CallbackOp::Illegal,
        state: State::Free,
        minor0: false,
        session: 0,
        version: 0,
        conn: NO_CONN,
        level: 0,
        unknown: false,
        resync: false,
        renew: false,
        xid: 0,
        highest: 0,
        deadline_ns: u64::MAX,
        sent_ns: 0,
        wake_ns: u64::MAX,
    };

    /// Nothing is out any more. The xid stays behind, to tell a duplicate from the reply to another call; so does what
    /// nobody asks a free record for.
    #[inline]
    pub fn free(&mut self) {
        (self.token, self.members, self.state) = (None, 0, State::Free);
        (self.conn, self.wake_ns) = (NO_CONN, u64::MAX);
    }

    /// Whether a reply would settle it. A quarantined slot that is about to be asked is settled by the late reply as
    /// well, as long as the connection is up and the question was not sent.
    pub fn is_out(&self) -> bool {
        self.conn != NO_CONN
    }

    /// Whether it was sent with more than one run.
    pub fn is_batch(&self) -> bool {
        self.count > 1
    }

    /// Whether a run has left, so that the bytes cannot be written again.
    pub fn is_torn(&self) -> bool {
        self.token.is_some() && self.members.count_ones() < u32::from(self.count)
    }

    /// The runs that it carries, in the order of their operations.
    pub fn runs(&self) -> Runs {
        Runs { next: self.token, left: self.members.count_ones() }
    }

    /// The call as one of its runs sees it.
    pub fn of_run<H: Host>(&self, token: Token, host: &H) -> Call {
        let op = if self.is_batch() { host.op(token) } else { self.op };
        Call { token: Some(token), op, ..*self }
    }
}

/// Some linked runs. Whoever walks them may do anything to those that it was given, for their links are not read again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs {
    next: Option<Token>,
    left: u32,
}

impl Runs {
    pub fn next<H: Host>(&mut self, host: &H) -> Option<Token> {
        let token = self.next?;
        self.left -= 1;
        self.next = if self.left == 0 { None } else { host.link(token) };
        Some(token)
    }

    /// The other way round: pushed to the head of a queue one by one, they stand there in their order.
    pub fn reversed<H: Host>(mut self, host: &mut H) -> Runs {
        let mut reversed = Runs { next: None, left: 0 };
        while let Some(token) = self.next(host) {
            if reversed.left > 0 {
                host.set_link(token, reversed.next);
            }
            reversed = Runs { next: Some(token), left: reversed.left + 1 };
        }
        reversed
    }
}

/// What an xid names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Out(usize),
    Late,
    Unknown,
}

/// The bytes of a call that was sent before its record was made from an image: what is sent again are these.
#[derive(Debug)]
pub(super) struct Kept {
    pub index: usize,
    pub xid: u32,
    pub bytes: Box<[u8]>,
}

#[derive(Debug)]
pub(super) struct Calls {
    records: Vec<Call>,
    /// By index; none but after an import. Those whose call is settled go when the calls are looked at next.
    kept: Vec<Kept>,
    /// No call wants to be looked at earlier. It may be too early, never too late.
    pub wake_bound_ns: u64,
    generation: u32,
    issued: u32,
}

impl Calls {
    pub fn memory_bytes(&self) -> usize {
        let kept =
            self.kept.iter().map(|kept| kept.bytes.len()).sum::<usize>() + self.kept.capacity() * size_of::<Kept>();
        self.records.capacity() * size_of::<Call>() + kept
    }

    pub fn new(first_xid: u32) -> Self {
        Calls {
            records: Vec::new(),
            kept: Vec::new(),
            wake_bound_ns: u64::MAX,
            generation: first_xid.wrapping_sub(1) & GENERATION_MASK,
            issued: 0,
        }
    }

    /// Makes room for `count` records that are not in `taken`, and returns where they start. `None`: no room.
    pub fn reserve(&mut self, count: u32, taken: &mut [(u32, u32)]) -> Option<u32> {
        taken.sort_unstable();
        let mut base = 0;
        for &(start, len) in taken.iter() {
            if start - base >= count {
                break;
            }
            base = start + len;
        }
        let end = base.checked_add(count)?;
        if end > 1 << INDEX_BITS {
            return None;
        }
        if self.records.len() < end as usize {
            self.records.resize(end as usize, Call::FREE);
        }
        Some(base)
    }

    pub fn get(&self, index: usize) -> &Call {
        &self.records[index]
    }

    pub fn get_mut(&mut self, index: usize) -> &mut Call {
        &mut self.records[index]
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// An xid for the call in record `index`.
    pub fn new_xid(&mut self, index: usize) -> u32 {
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        self.issued = self.issued.saturating_add(1);
        self.generation << INDEX_BITS | index as u32
    }

    /// How far the xids are.
    pub fn xids(&self) -> (u32, u32) {
        (self.generation, self.issued)
    }

    /// Sets [`xids`](Calls::xids).
    pub fn set_xids(&mut self, generation: u32, issued: u32) {
        (self.generation, self.issued) = (generation & GENERATION_MASK, issued);
    }

    /// Makes room for records up to `end`.
    pub fn make_room(&mut self, end: u32) {
        if self.records.len() < end as usize {
            self.records.resize(end as usize, Call::FREE);
        }
    }

    /// Keeps the bytes of a call. Then [`sort_kept`](Calls::sort_kept).
    pub fn keep(&mut self, kept: Kept) {
        self.kept.push(kept);
    }

    /// Makes what was kept be found.
    pub fn sort_kept(&mut self) {
        self.kept.sort_unstable_by_key(|kept| kept.index);
    }

    /// The bytes of a call, if they were kept.
    pub fn kept(&self, index: usize) -> Option<&[u8]> {
        let kept = &self.kept[self.kept.binary_search_by_key(&index, |kept| kept.index).ok()?];
        (kept.xid == self.records[index].xid).then_some(&*kept.bytes)
    }

    /// Forgets the bytes of calls that are settled.
    pub fn forget_kept(&mut self) {
        let records = &self.records;
        self.kept.retain(|kept| {
            let call = &records[kept.index];
            call.xid == kept.xid && call.token.is_some() && !call.renew
        });
    }

    /// The call that a reply with this xid answers, and its index, if that may come on this connection.
    #[inline]
    pub fn out_on(&mut self, xid: u32, conn: usize) -> Option<(usize, &mut Call)> {
        let index = (xid & INDEX_MASK) as usize;
        let call = self.records.get_mut(index)?;
        (call.xid == xid && usize::from(call.conn) == conn).then_some((index, call))
    }

    /// Finds the call that a reply with this xid answers.
    pub fn find(&self, xid: u32) -> Found {
        let index = (xid & INDEX_MASK) as usize;
        match self.records.get(index) {
            Some(call) if call.xid == xid && call.is_out() => Found::Out(index),
            _ => {
                let behind = self.generation.wrapping_sub(xid >> INDEX_BITS) & GENERATION_MASK;
                if behind < self.issued.min(LATE_CALLS_MAX) { Found::Late } else { Found::Unknown }
            }
        }
    }

    /// Sets the timer of a call.
    #[inline]
    pub fn wake_at(&mut self, index: usize, wake_ns: u64) {
        self.records[index].wake_ns = wake_ns;
        self.wake_bound_ns = self.wake_bound_ns.min(wake_ns);
    }
}
