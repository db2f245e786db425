//! The callback service of a client of minor version 0: what it is sent there, and what it answers.

use super::reply::REPLY_BYTES;
use super::{Answered, Client, Deeds, Held, Principal, Written};
use crate::sim::call::{Op, Payload};
use crate::sim::client::behaviour::Refusal;
use crate::sim::coverage::Kind;
use crate::sim::journal::Rule;
use crate::sim::net::{LineId, Net};
use ringback::SessionKey;
use ringback_rpc::message::{AcceptStatus, CallHeader, ReplyBody, ReplyHeader, flavor};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::{CB_COMPOUND, CB_NULL, CallbackOp, CbCompoundArgs, CbCompoundRes};
use ringback_rpc::record;
use ringback_rpc::xdr::{Decode, Encode, Reader, Result, Writer};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What a SETCLIENTID has said, and what has come of it.
#[derive(Debug)]
pub(crate) struct Path {
    pub key: SessionKey,
    pub address: SocketAddr,
    pub ident: u32,
    pub principal: Principal,
    pub window: u32,
    pub confirmed: bool,
    /// It was not when another process took over, which does not know it.
    pub lapsed: bool,
    /// CB_NULLs of earlier processes, each of which may be without an answer when the next one comes.
    earlier: u32,
    /// A CB_NULL was answered, however.
    probed: bool,
    /// The CB_NULL that came last, if nothing was answered since.
    probe: Option<u32>,
    /// Every call, by its xid, with the lines on which it came.
    calls: BTreeMap<u32, (Vec<u8>, Vec<LineId>)>,
}

impl Path {
    pub(crate) fn new(key: SessionKey, address: SocketAddr, ident: u32, principal: Principal, window: u32) -> Self {
        let (confirmed, lapsed, earlier, probed, probe, calls) = Default::default();
        Path { key, address, ident, principal, window, confirmed, lapsed, earlier, probed, probe, calls }
    }

    /// Another process takes over: it begins with a CB_NULL of its own.
    pub(crate) fn hand_over(&mut self) {
        self.lapsed |= !self.confirmed;
        self.earlier += 1;
    }
}

/// A call of minor version 0.
#[derive(Debug)]
struct Call0<'a> {
    header: CallHeader<'a>,
    /// callback_ident, and the operation. `None`: CB_NULL.
    op: Option<(u32, Op)>,
}

impl<'a> Call0<'a> {
    fn read(record: &'a [u8]) -> Option<Call0<'a>> {
        let mut r = Reader::new(record);
        let header = CallHeader::decode(&mut r).ok()?;
        let op = match header.procedure {
            CB_NULL => None,
            CB_COMPOUND => {
                let compound = CbCompoundArgs::decode(&mut r).ok().filter(|c| (c.minor_version, c.count) == (0, 1))?;
                let op = CallbackOp::try_from(r.u32("argop").ok()?).ok()?;
                Some((compound.callback_ident, Op { op, payload: Payload::read(&mut r).ok()? }))
            }
            _ => return None,
        };
        r.remaining().is_empty().then_some(Call0 { header, op })
    }
}

impl Client {
    /// The path that was confirmed last.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.paths.iter().flatten().rfind(|path| path.confirmed)
    }

    /// Whether the client is one of minor version 0.
    pub(crate) fn is_minor0(&self) -> bool {
        self.paths.is_some()
    }

    /// A call on a line that the server has made.
    pub(super) fn call0(&mut self, line: LineId, record: &[u8], net: &mut Net, deeds: &mut Deeds) {
        let address = net.address_of(line);
        let at = self.paths.iter().flatten().position(|path| Some(path.address) == address);
        let (Some(call), Some(at)) = (Call0::read(record), at) else {
            return self.journal.fail(Rule::Wire, format!("line {line} to {address:?}: no such call: {record:02x?}"));
        };
        self.check_call0(at, line, &call, record);
        let answer = self.answer0(&call);
        self.journal.note(
            || format!("client {}: line {line}: {:?}: {answer:?}", self.index, call.op),
            u64::from(call.header.xid),
        );
        if let (Some((_, op)), Ok(status)) = (call.op, answer) {
            deeds.answered.push(Answered { payload: op.payload, status, executed: true });
        }
        self.send0(at, line, &call, answer, net, deeds);
    }

    fn check_call0(&mut self, at: usize, line: LineId, call: &Call0<'_>, record: &[u8]) {
        let (journal, has_lied) = (self.journal.clone(), self.has_lied);
        let Some(path) = self.paths.as_mut().and_then(|paths| paths.get_mut(at)) else { return };
        let check =
            |rule, holds: bool, what: &str| journal.check(rule, holds, || format!("line {line}: {what}: {call:?}"));
        let Principal { program, stamp } = path.principal;
        let credential = call.header.credential;
        check(Rule::Stale, path.confirmed, "an address that was never confirmed");
        check(Rule::Stale, call.header.program == program, "a program of another path");
        let xid = call.header.xid;
        if let Some((bytes, lines)) = path.calls.get_mut(&xid) {
            journal.reach(Kind::Call0Resent);
            check(Rule::SameBytes, bytes == record, "other bytes under the same xid");
            check(Rule::SameBytes, !lines.contains(&line), "twice on one line");
            lines.push(line);
            return;
        }
        path.calls.insert(xid, (record.to_vec(), vec![line]));
        match call.op {
            None => {
                journal.reach(Kind::Null);
                check(Rule::Wire, credential.flavor == flavor::AUTH_NONE, "CB_NULL with a credential");
                // A liar's answers may have been taken for none.
                let mut alone = path.probe.is_none() || has_lied;
                if !alone && path.earlier > 0 {
                    path.earlier -= 1;
                    alone = true;
                }
                check(Rule::Wire, alone, "another CB_NULL, and the one before has no answer");
                path.probe = Some(xid);
            }
            Some((ident, Op { op, .. })) => {
                journal.reach(Kind::Call0);
                check(Rule::Wire, ident == path.ident, "the callback_ident of another path");
                let is_sys = credential.flavor == flavor::AUTH_SYS
                    && credential.body.first_chunk() == Some(&stamp.to_be_bytes());
                check(Rule::Stale, is_sys, "a credential that was never asked for");
                check(Rule::Wire, path.probed, "a call, and no CB_NULL was answered");
                let known = matches!(op, CallbackOp::Recall | CallbackOp::Getattr);
                check(Rule::Wire, known, "an operation that minor version 0 has not");
            }
        }
    }

    /// The status of the operation; `Ok` for CB_NULL.
    fn answer0(&mut self, call: &Call0<'_>) -> std::result::Result<Status, Refusal> {
        if self.choices.per_mille(self.behaviour.reject) {
            self.has_refused = true;
            return Err(Refusal::draw(&mut self.choices));
        }
        Ok(call.op.map_or(Status::NFS4_OK, |(_, op)| self.execute(op.op)))
    }

    fn send0(
        &mut self,
        at: usize,
        line: LineId,
        call: &Call0<'_>,
        answer: std::result::Result<Status, Refusal>,
        net: &mut Net,
        deeds: &mut Deeds,
    ) {
        let mut bytes = encode(call, answer);
        if self.choices.per_mille(self.behaviour.lie) {
            self.has_lied = true;
            self.journal.reach(Kind::Reply0Wrong);
            match self.choices.below(3) {
                0 => {
                    // Neither in the mark, nor what makes it a reply.
                    let at = 12 + self.choices.index(bytes.len() - 12);
                    bytes[at] ^= 1 << self.choices.below(8);
                }
                1 => {
                    bytes.truncate(12 + self.choices.index(bytes.len() - 12));
                    let mark = record::mark(bytes.len() - 4).unwrap_or_default();
                    bytes[..4].copy_from_slice(&mark);
                }
                _ => bytes[4..8].copy_from_slice(&(self.choices.next() as u32).to_be_bytes()),
            }
        }
        let answers = Written { session: [0; 16], slot: at as u32, xid: call.header.xid };
        self.hold(Held { due_ns: 0, line, slot: None, answers, bytes }, net, deeds);
    }

    /// An answer goes out.
    pub(super) fn written0(&mut self, written: &Written) {
        let Some(path) = self.paths.as_mut().and_then(|paths| paths.get_mut(written.slot as usize)) else { return };
        path.probed |= path.probe == Some(written.xid) || path.calls.contains_key(&written.xid);
        path.probe = None;
    }
}

fn encode(call: &Call0<'_>, answer: std::result::Result<Status, Refusal>) -> Vec<u8> {
    let mut bytes = vec![0; REPLY_BYTES];
    let mut w = Writer::new(&mut bytes);
    let written = record::begin(&mut w).and_then(|mark| {
        write(call, answer, &mut w)?;
        record::end(&mut w, mark)
    });
    let len = w.position();
    assert!(written.is_ok(), "an answer of {len} bytes: {written:?}");
    bytes.truncate(len);
    bytes
}

fn write(call: &Call0<'_>, answer: std::result::Result<Status, Refusal>, w: &mut Writer<'_>) -> Result<()> {
    let xid = call.header.xid;
    let (status, op) = match (answer, call.op) {
        (Err(Refusal::Denied(why)), _) => return ReplyHeader { xid, body: ReplyBody::Denied(why) }.encode(w),
        (Err(Refusal::NotExecuted(status)), _) => return ReplyHeader::accepted(xid, status).encode(w),
        (Err(Refusal::NoResults(_)), None) => return ReplyHeader::accepted(xid, AcceptStatus::ProcUnavail).encode(w),
        (Err(Refusal::NoResults(status)), _) => (status, None),
        (Ok(status), op) => (status, op),
    };
    ReplyHeader::accepted(xid, AcceptStatus::Success).encode(w)?;
    if call.op.is_none() {
        return Ok(());
    }
    CbCompoundRes { status, tag: &[], count: u32::from(op.is_some()) }.encode(w)?;
    let Some((_, op)) = op else { return Ok(()) };
    w.u32(op.op as u32)?;
    status.encode(w)?;
    op.payload.write(0, w)
}
