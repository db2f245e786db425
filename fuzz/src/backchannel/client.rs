//! The client: what it sees of a call, and every way to answer it.

use super::host::{Table, op_of};
use super::minor0;
use ringback_rpc::backchannel::{ConnToken, SessionKey};
use ringback_rpc::message::{AcceptStatus, AuthStatus, CallHeader, OpaqueAuth, Rejected, ReplyBody, ReplyHeader};
use ringback_rpc::nfs4::callback::{CB_COMPOUND, CB_NULL, CallbackOp, CbCompoundArgs, CbSequenceArgs};
use ringback_rpc::nfs4::{SessionId, Status};
use ringback_rpc::xdr::{Decode, Encode, Reader, Result, Writer};
use std::collections::HashMap;

/// A call as the client sees it.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub conn: ConnToken,
    /// Without the mark.
    pub record: Vec<u8>,
    pub xid: u32,
    /// The session, or the path.
    pub key: SessionKey,
    /// `None`: a call of minor version 0.
    pub place: Option<Place>,
    /// The operations after CB_SEQUENCE. None: CB_NULL.
    pub ops: Vec<CallbackOp>,
}

/// What CB_SEQUENCE says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub id: u32,
    pub slot: u32,
    pub highest: u32,
}

/// The id that the server has given to a session.
pub(super) fn session_id(key: SessionKey) -> SessionId {
    let mut id = [0x5e; 16];
    id[..8].copy_from_slice(&key.0.to_be_bytes());
    SessionId(id)
}

impl Sent {
    /// Reads what the core wrote, which must be a call with the arguments of runs that are under way.
    pub(super) fn read(conn: ConnToken, bytes: &[u8], table: &Table) -> Result<Sent> {
        let record = &bytes[4..];
        assert_eq!(bytes[..4], (1 << 31 | record.len() as u32).to_be_bytes(), "the mark");
        let mut r = Reader::new(record);
        let header = CallHeader::decode(&mut r)?;
        assert_eq!((header.version, header.verifier), (1, OpaqueAuth::NONE));
        let compound = match header.procedure {
            CB_NULL => None,
            CB_COMPOUND => Some(CbCompoundArgs::decode(&mut r)?),
            procedure => panic!("procedure {procedure}"),
        };
        let (key, place, ops) = match compound {
            Some(compound) if compound.minor_version > 0 => read(&compound, &mut r, table)?,
            compound => {
                let (key, op) = minor0::read(&header, compound, &mut r, table)?;
                (key, None, Vec::from_iter(op))
            }
        };
        r.finish("a call")?;
        Ok(Sent { conn, record: record.to_vec(), xid: header.xid, key, place, ops })
    }
}

/// The session of a call, where it is in that, and its operations.
fn read(
    compound: &CbCompoundArgs<'_>,
    r: &mut Reader<'_>,
    table: &Table,
) -> Result<(SessionKey, Option<Place>, Vec<CallbackOp>)> {
    assert_eq!(r.u32("argop")?, CallbackOp::Sequence as u32);
    let sequence = CbSequenceArgs::decode(r)?;
    let mut ops = Vec::new();
    for _ in 1..compound.count {
        ops.push(op_of(table.read_args(r)?));
    }
    let mut key = [0; 8];
    key.copy_from_slice(&sequence.session_id.0[..8]);
    let key = SessionKey(u64::from_be_bytes(key));
    assert_eq!(sequence.session_id, session_id(key));
    assert!(!sequence.cache_this && sequence.referring_call_lists.is_empty(), "{sequence:?}");
    let (id, slot, highest) = (sequence.sequence_id, sequence.slot_id, sequence.highest_slot_id);
    Ok((key, Some(Place { id, slot, highest }), ops))
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Twist {
    /// The status of CB_SEQUENCE.
    pub sequence: Status,
    /// The operation at this position fails with this status, if there is one.
    pub stop: Option<(usize, Status)>,
    /// Added to the session id's last byte, the sequence id and the slot id of the echo.
    pub echo: [u8; 3],
    /// sr_target_highest_slotid, and how much lower than the table sr_highest_slotid is.
    pub target: u32,
    pub lower: u32,
    /// Results of operations that are left out.
    pub missing: usize,
    /// Each result is this one's instead of its own.
    pub other: bool,
    /// Bytes that are cut off.
    pub cut: usize,
    /// The bit that is wrong.
    pub flip: Option<u16>,
}

impl Twist {
    /// Nothing.
    pub(super) const NONE: Twist = Twist {
        sequence: Status::NFS4_OK,
        stop: None,
        echo: [0; 3],
        target: u32::MAX,
        lower: 0,
        missing: 0,
        other: false,
        cut: 0,
        flip: None,
    };
}

/// See the [module](self). It keeps to the Linux client's rules for sequence ids.
#[derive(Default)]
pub(super) struct Client {
    /// The last sequence id of each slot.
    last: HashMap<(SessionKey, u32), u32>,
}

impl Client {
    /// The last sequence id that it took on a slot.
    pub(super) fn last(&self, session: SessionKey, slot: u32) -> u32 {
        self.last.get(&(session, slot)).copied().unwrap_or(0)
    }

    /// Executes a call, and answers with a twist.
    pub(super) fn execute(&mut self, sent: &Sent, slots: u32, mut twist: Twist) -> Vec<u8> {
        let mut bytes = match sent.place {
            Some(place) => {
                self.take(sent.key, place, &mut twist);
                written(|w| write(sent, place, slots, &twist, w))
            }
            None => written(|w| minor0::answer(sent, &twist, w)),
        };
        bytes.truncate(bytes.len() - twist.cut.min(bytes.len()));
        if let Some(bit) = twist.flip {
            let bit = usize::from(bit) % (8 * bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
        bytes
    }

    /// Whether the sequence id is the one that it expects.
    fn take(&mut self, session: SessionKey, Place { id, slot, .. }: Place, twist: &mut Twist) {
        let last = self.last(session, slot);
        if !twist.sequence.is_ok() {
            return;
        }
        if id == last {
            twist.stop = Some((0, Status::NFS4ERR_RETRY_UNCACHED_REP));
        } else if id == last.wrapping_add(1) {
            self.last.insert((session, slot), id);
        } else {
            twist.sequence = Status::NFS4ERR_SEQ_MISORDERED;
        }
    }
}

fn written(write: impl FnOnce(&mut Writer<'_>) -> Result<()>) -> Vec<u8> {
    let mut space = [0; 512];
    let mut w = Writer::new(&mut space);
    write(&mut w).expect("an answer is small");
    w.written().to_vec()
}

fn write(sent: &Sent, place: Place, slots: u32, twist: &Twist, w: &mut Writer<'_>) -> Result<()> {
    ReplyHeader::success(sent.xid).encode(w)?;
    let words = |w: &mut Writer<'_>, words: &[u32]| words.iter().try_for_each(|word| w.u32(*word));
    if !twist.sequence.is_ok() {
        return words(w, &[twist.sequence.0, 0, 1, CallbackOp::Sequence as u32, twist.sequence.0]);
    }
    let stop = twist.stop.filter(|(at, _)| *at < sent.ops.len());
    let reached = stop.map_or(sent.ops.len(), |(at, _)| at + 1);
    let ops = &sent.ops[..reached.saturating_sub(twist.missing)];
    let status = stop.map_or(Status::NFS4_OK, |(_, status)| status);
    words(w, &[status.0, 0, 1 + ops.len() as u32, CallbackOp::Sequence as u32, 0])?;
    let mut id = session_id(sent.key);
    id.0[15] = id.0[15].wrapping_add(twist.echo[0]);
    id.encode(w)?;
    let sequence = place.id.wrapping_add(twist.echo[1].into());
    let slot = place.slot.wrapping_add(twist.echo[2].into());
    let highest = slots.saturating_sub(1 + twist.lower);
    words(w, &[sequence, slot, highest, twist.target.min(highest)])?;
    for (at, op) in ops.iter().enumerate() {
        let op = if twist.other { CallbackOp::Notify } else { *op };
        let status = stop.filter(|(stop, _)| *stop == at).map_or(Status::NFS4_OK, |(_, status)| status);
        words(w, &[op as u32, status.0])?;
    }
    Ok(())
}

/// An answer of a client that executes nothing.
pub(super) fn refusal(xid: u32, which: u8) -> Vec<u8> {
    let rejected = |why| ReplyHeader { xid, body: ReplyBody::Denied(why) };
    let no_results = |status: Status| {
        written(|w| {
            ReplyHeader::success(xid).encode(w)?;
            [status.0, 0, 0].iter().try_for_each(|word| w.u32(*word))
        })
    };
    let header = match which % 9 {
        0 => rejected(Rejected::AuthError(AuthStatus::BadCred)),
        1 => rejected(Rejected::AuthError(AuthStatus::TooWeak)),
        2 => rejected(Rejected::RpcMismatch { low: 2, high: 2 }),
        3 => ReplyHeader::accepted(xid, AcceptStatus::ProgUnavail),
        4 => ReplyHeader::accepted(xid, AcceptStatus::ProgMismatch { low: 4, high: 4 }),
        5 => ReplyHeader::accepted(xid, AcceptStatus::GarbageArgs),
        6 => ReplyHeader::accepted(xid, AcceptStatus::SystemErr),
        7 => return no_results(Status::NFS4ERR_MINOR_VERS_MISMATCH),
        _ => return no_results(Status::NFS4ERR_RESOURCE),
    };
    written(|w| header.encode(w))
}
