//! The bytes of a call.

use super::ReferringCalls;
use super::config::Credential;
use super::host::{Host, Sending, Token};
use super::timeout::NOTE_ALONE;
use crate::message::RPC_VERSION;
use crate::nfs4::SessionId;
use crate::nfs4::callback::{CB_COMPOUND, CallbackOp, NFS_CB};
use crate::record::LAST_FRAGMENT;
use crate::session::{SequenceId, SlotId};
use crate::xdr::{self, Writer, XdrError, XdrErrorKind};

/// What of CB_SEQUENCE follows the session id, up to the referring call lists: sequence id, slot, highest slot,
/// cachethis, number of lists.
const SEQUENCE_WORDS_BYTES: usize = 20;
/// The words of a call without referring call lists between its head and the arguments of its operation: those, and the
/// operation's number.
pub(super) const CALL_WORDS_BYTES: usize = SEQUENCE_WORDS_BYTES + 4;
/// Where among them the number of lists stands.
const LISTS_AT: usize = SEQUENCE_WORDS_BYTES - 4;
pub(super) const XID_AT: usize = 4;
/// The number of operations stands this far before the end of the head: itself, CB_SEQUENCE's number, the session id.
pub(super) const COUNT_FROM_END: usize = 4 + 4 + 16;
/// With less room than this beyond the fixed part, a new call or a further operation is not even tried.
pub(super) const ROOM_BYTES_MIN: usize = 192;

/// With less room than this a further record of the same poll is not even tried: what does not fit has been prepared in
/// vain, and waits for its turn once more.
pub(super) const ROOM_NEXT_BYTES_MIN: usize = 1024;

/// Everything of a call from the record mark to the session id, with mark and xid zero: it is the same for all calls of
/// a session until BACKCHANNEL_CTL.
pub(super) fn encode_head(program: u32, credential: &Credential, minor: u32, session: SessionId) -> Box<[u8]> {
    let mut head = Vec::with_capacity(96 + credential.bytes().len());
    let word = |head: &mut Vec<u8>, value: u32| head.extend_from_slice(&value.to_be_bytes());
    // Record mark, xid, CALL (RFC 5531 sections 9 and 11).
    for value in [0, 0, 0, RPC_VERSION, program, NFS_CB, CB_COMPOUND] {
        word(&mut head, value);
    }
    head.extend_from_slice(credential.bytes());
    // AUTH_NONE verifier; empty tag, minor version, callback_ident (ignored in 4.1: RFC 8881 section 19.2.3), two
    // operations, of which the first is CB_SEQUENCE.
    for value in [0, 0, 0, minor, 0, 2, CallbackOp::Sequence as u32] {
        word(&mut head, value);
    }
    head.extend_from_slice(&session.0);
    head.into_boxed_slice()
}

/// What [`encode_head`] was given: program and credential.
pub(super) fn parameters_of(head: &[u8]) -> (u32, &[u8]) {
    let program = [head[16], head[17], head[18], head[19]];
    (u32::from_be_bytes(program), &head[HEAD_BYTES_BEFORE..head.len() - HEAD_BYTES_AFTER])
}

/// What stands before the credential of a head, and after it.
const HEAD_BYTES_BEFORE: usize = 7 * 4;
const HEAD_BYTES_AFTER: usize = 7 * 4 + 16;

/// Why a call was not written.
pub(super) enum NotWritten {
    /// It would fit into a larger buffer.
    NoSpace,
    /// The driver's encoder failed for this run, or the session allows no record that large.
    Failed(Token, XdrError),
}

/// Writes an operation with its number. Returns its length.
#[inline(always)]
pub(super) fn write_op<H: Host>(run: &Sending<H::Known>, space: &mut [u8], host: &mut H) -> xdr::Result<usize> {
    let mut w = Writer::new(space);
    w.u32(run.op as u32)?;
    host.encode(run, &mut w)?;
    Ok(w.position())
}

/// Writes the referring call lists of a run that is alone in its call, their number into `lists`, and its operation. What
/// the session does not allow together is written without the lists, and so every time: the limit is the session's, to
/// which a call is pinned. Returns the length.
#[inline(always)]
pub(super) fn write_lone<H: Host>(
    run: &Sending<H::Known>,
    short: bool,
    lists: &mut [u8],
    space: &mut [u8],
    host: &mut H,
) -> xdr::Result<usize> {
    let mut calls = ReferringCalls::new(space);
    host.referring(run, &mut calls)?;
    if !calls.is_used() {
        return write_op(run, space, host);
    }
    let written = calls.finish();
    write_referring(run, short, written, lists, space, host)
}

/// The rest of it, if there are lists: `written` has their number and their length, unless they do not fit.
#[cold]
fn write_referring<H: Host>(
    run: &Sending<H::Known>,
    short: bool,
    written: Option<(u32, usize)>,
    lists: &mut [u8],
    space: &mut [u8],
    host: &mut H,
) -> xdr::Result<usize> {
    host.set_note(run.token, host.note(run.token) | NOTE_ALONE);
    let (count, len) = written.unwrap_or_default();
    let fits = if written.is_some() { write_op(run, &mut space[len..], host) } else { Err(NO_ROOM) };
    match fits {
        Ok(bytes) => {
            lists.copy_from_slice(&count.to_be_bytes());
            Ok(len + bytes)
        }
        Err(XdrError { kind: XdrErrorKind::NoSpace { .. }, .. }) if !short => write_op(run, space, host),
        Err(e) => Err(e),
    }
}

/// The referring call lists do not fit.
const NO_ROOM: XdrError =
    XdrError { what: "csa_referring_call_lists", offset: 0, kind: XdrErrorKind::NoSpace { needed: 1, left: 0 } };

/// Writes the mark of a record (RFC 5531 section 11).
#[inline]
pub(super) fn write_mark(record: &mut [u8]) {
    let mark = LAST_FRAGMENT | (record.len() as u32 - 4);
    record[..4].copy_from_slice(&mark.to_be_bytes());
}

/// Writes what was sent before.
pub(super) fn copy_record(bytes: &[u8], space: &mut [u8]) -> Result<usize, NotWritten> {
    let space = space.get_mut(..bytes.len()).ok_or(NotWritten::NoSpace)?;
    space.copy_from_slice(bytes);
    Ok(bytes.len())
}

/// What a call begins with, and what of that is its own.
pub(super) struct Fixed<'a> {
    pub head: &'a [u8],
    pub xid: u32,
    pub id: SequenceId,
    pub slot: SlotId,
    pub highest: u32,
}

impl Fixed<'_> {
    /// Writes it. Returns its length, where among it the number of referring call lists stands, and what follows.
    #[inline(always)]
    pub fn write<'b>(&self, space: &'b mut [u8]) -> Option<(usize, &'b mut [u8], &'b mut [u8])> {
        let (head, rest) = space.split_at_mut_checked(self.head.len())?;
        let (words, rest) = rest.split_first_chunk_mut::<SEQUENCE_WORDS_BYTES>()?;
        head.copy_from_slice(self.head);
        head[XID_AT..XID_AT + 4].copy_from_slice(&self.xid.to_be_bytes());
        let values = [self.id.0, self.slot.0, self.highest, 0, 0];
        for (word, value) in words.chunks_exact_mut(4).zip(values) {
            word.copy_from_slice(&value.to_be_bytes());
        }
        Some((head.len() + SEQUENCE_WORDS_BYTES, &mut words[LISTS_AT..], rest))
    }

    /// Writes the whole record of a call with one run. `short`: there could be more space.
    #[inline(always)]
    pub fn write_with<H: Host>(
        &self,
        run: &Sending<H::Known>,
        short: bool,
        space: &mut [u8],
        host: &mut H,
    ) -> Result<usize, NotWritten> {
        let (start, lists, rest) = self.write(space).ok_or(NotWritten::NoSpace)?;
        let len = start + write_lone(run, short, lists, rest, host).map_err(|e| not_written(run.token, short, e))?;
        write_mark(&mut space[..len]);
        Ok(len)
    }
}

#[cold]
pub(super) fn not_written(token: Token, short: bool, e: XdrError) -> NotWritten {
    match e.kind {
        XdrErrorKind::NoSpace { .. } if short => NotWritten::NoSpace,
        _ => NotWritten::Failed(token, e),
    }
}
