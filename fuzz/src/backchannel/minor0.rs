//! Clients of minor version 0: their SETCLIENTIDs that are confirmed, the connections that the core asks for, and their
//! calls as they see them.

use super::client::{Sent, Twist};
use super::credential;
use super::host::{Table, op_of};
use ringback_rpc::backchannel::{PathParams, SessionKey};
use ringback_rpc::message::{CallHeader, OpaqueAuth, ReplyHeader, flavor};
use ringback_rpc::nfs4::callback::{CallbackOp, CbCompoundArgs};
use ringback_rpc::xdr::{Encode, Reader, Result, Writer};
use std::collections::HashSet;

/// Programs of paths, each has its own.
const PROGRAM: u32 = 0x5000_0000;
/// Makes a callback_ident of a path's number.
const IDENT: u32 = 0x1000_0000;

/// What the client has said of its callback service, and what has come of it.
pub(super) struct Path {
    pub key: SessionKey,
    pub window: u32,
    /// The core wants a connection.
    pub wanted: bool,
    /// The CB_NULL that was sent, until the client has answered anything.
    probe: Option<u32>,
    /// The client has answered something.
    answered: bool,
    calls: HashSet<u32>,
}

impl Path {
    pub(super) fn new(key: SessionKey, window: u32) -> Path {
        Path { key, window, wanted: false, probe: None, answered: false, calls: HashSet::new() }
    }

    pub(super) fn params(&self) -> PathParams {
        let number = self.key.0 as u32;
        let credential = credential(number);
        PathParams { program: PROGRAM + number, callback_ident: IDENT + number, credential, window: self.window }
    }

    /// A call goes out, which must be of this path: CB_NULL before any other, and one CB_NULL at a time.
    pub(super) fn sent(&mut self, sent: &Sent) {
        assert_eq!(sent.key, self.key, "of a path that was replaced");
        if !self.calls.insert(sent.xid) {
            return;
        }
        if sent.ops.is_empty() {
            assert_eq!(self.probe.replace(sent.xid), None, "a second CB_NULL: {sent:?}");
        } else {
            assert!(self.answered, "a call, and nothing was ever answered: {sent:?}");
        }
    }

    /// Something arrives that is taken for an answer to that call.
    pub(super) fn answered(&mut self, xid: u32) {
        if self.calls.contains(&xid) {
            (self.probe, self.answered) = (None, true);
        }
    }
}

/// The path of a call, and its operation, which CB_NULL has not.
pub(super) fn read(
    header: &CallHeader<'_>,
    compound: Option<CbCompoundArgs<'_>>,
    r: &mut Reader<'_>,
    table: &Table,
) -> Result<(SessionKey, Option<CallbackOp>)> {
    let number = header.program.wrapping_sub(PROGRAM);
    let key = SessionKey(number.into());
    let Some(compound) = compound else {
        assert_eq!(header.credential, OpaqueAuth::NONE);
        return Ok((key, None));
    };
    assert_eq!((compound.count, compound.callback_ident), (1, IDENT + number));
    assert_eq!(header.credential.flavor, flavor::AUTH_SYS);
    let op = op_of(table.read_args(r)?);
    assert!(matches!(op, CallbackOp::Getattr | CallbackOp::Recall), "{op:?}");
    Ok((key, Some(op)))
}

/// The answer to a call of minor version 0.
pub(super) fn answer(sent: &Sent, twist: &Twist, w: &mut Writer<'_>) -> Result<()> {
    ReplyHeader::success(sent.xid).encode(w)?;
    let Some(op) = sent.ops.first() else { return Ok(()) };
    let stop = twist.stop.filter(|(at, _)| *at == 0).map(|(_, status)| status);
    let status = stop.unwrap_or(twist.sequence);
    let op = if twist.other { CallbackOp::Notify } else { *op };
    let words = [status.0, 0, u32::from(twist.missing == 0), op as u32, status.0];
    words[..if twist.missing == 0 { 5 } else { 3 }].iter().try_for_each(|word| w.u32(*word))
}
