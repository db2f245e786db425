//! Arguments of the callback operations, written from C structs within the encode hook.

use crate::connection::rb_bytes;
use crate::error::{Failure, guard, rb_error};
use crate::pointer::{self, not_null};
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::nfs4::{Bitmap4, FHSIZE, Fattr, FileHandle, SESSIONID_SIZE, SessionId, Stateid4};
use ringback_rpc::xdr::{self, Writer, XdrError, XdrErrorKind};
use runtime::ReferringCalls;
use std::ffi::c_int;

mod notify;
mod recall;

pub use notify::rb_notify_kind;
#[cfg(test)]
pub use notify::*;
pub use recall::rb_layoutrecall_kind;
#[cfg(test)]
pub use recall::*;

/// Where the arguments of an operation go: of use within the encode hook that was given it.
pub struct rb_args<'a, 'b> {
    op: CallbackOp,
    writer: &'a mut Writer<'b>,
    /// Why they could not be written.
    error: Option<XdrError>,
    written: bool,
}

impl<'a, 'b> rb_args<'a, 'b> {
    pub fn new(op: CallbackOp, writer: &'a mut Writer<'b>) -> Self {
        rb_args { op, writer, error: None, written: false }
    }

    /// What became of it.
    pub fn finish(self) -> xdr::Result<()> {
        let nothing = XdrErrorKind::BadValue { value: 0 };
        match self.error {
            Some(error) => Err(error),
            None if self.written => Ok(()),
            None => Err(XdrError { what: "rb_hooks.encode has written nothing", offset: 0, kind: nothing }),
        }
    }

    fn write(
        &mut self,
        op: CallbackOp,
        write: impl FnOnce(&mut Writer<'_>) -> xdr::Result<()>,
    ) -> Result<c_int, Failure> {
        if op != self.op {
            let text = format!("the operation is {}, and these are arguments of {op}", self.op);
            return Err(Failure::new(rb_error::RB_ERR_INVALID, text));
        }
        self.raw(write)
    }

    fn raw(&mut self, write: impl FnOnce(&mut Writer<'_>) -> xdr::Result<()>) -> Result<c_int, Failure> {
        if self.written {
            return Err(Failure::new(rb_error::RB_ERR_INVALID, "the arguments have been written already"));
        }
        let result = write(self.writer);
        self.written = true;
        self.error = result.err();
        match self.error {
            Some(error) if matches!(error.kind, XdrErrorKind::NoSpace { .. }) => {
                Err(Failure::new(rb_error::RB_ERR_NO_SPACE, error.to_string()))
            }
            Some(error) => Err(Failure::new(rb_error::RB_ERR_XDR, error.to_string())),
            None => Ok(0),
        }
    }
}

/// Where the fore-channel calls go that a callback depends on: of use within the referring_calls hook that was given it.
pub struct rb_referring<'a, 'b>(pub &'a mut ReferringCalls<'b>);

/// Names a fore-channel call, by the session id (16 bytes), sequence id and session slot that its SEQUENCE carried.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_name_call(
    calls: Option<&mut rb_referring>,
    session_id: *const u8,
    sequence_id: u32,
    slot_id: u32,
) -> c_int {
    guard("rb_name_call", String::new, || {
        let calls = not_null(calls, "calls")?;
        // SAFETY: P2
        let bytes = unsafe { pointer::slice(session_id, SESSIONID_SIZE, "session_id") }?;
        let mut session = SessionId::default();
        session.0.copy_from_slice(bytes);
        calls.0.add(session, sequence_id, slot_id);
        Ok(0)
    })
}

fn invalid(text: String) -> Failure {
    Failure::new(rb_error::RB_ERR_INVALID, text)
}

/// A stateid (RFC 8881 section 3.3.12).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_stateid {
    /// Counts the changes of that state.
    pub seqid: u32,
    /// Names the state.
    pub other: [u8; 12],
}

impl From<rb_stateid> for Stateid4 {
    fn from(stateid: rb_stateid) -> Self {
        Stateid4 { seqid: stateid.seqid, other: stateid.other }
    }
}

/// A set of small numbers (RFC 8881 section 3.2, bitmap4): number n is bit n mod 32 of word n / 32.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct rb_bitmap {
    /// The words.
    pub words: [u32; 8],
}

impl From<rb_bitmap> for Bitmap4 {
    fn from(bitmap: rb_bitmap) -> Self {
        Bitmap4::from_words(&bitmap.words).unwrap_or_default()
    }
}

/// Attributes (RFC 8881 section 3.3.7): the values stand in ascending order of their bits, encoded as the protocol says.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_fattr {
    /// Which.
    pub mask: rb_bitmap,
    /// Their values.
    pub values: rb_bytes,
}

impl rb_fattr {
    /// # Safety
    ///
    /// P2.
    unsafe fn get<'a>(&self) -> Result<Fattr<'a>, Failure> {
        // SAFETY: P2
        let values = unsafe { self.values.get("values") }?;
        Ok(Fattr { mask: self.mask.into(), values })
    }
}

/// # Safety
///
/// P2.
unsafe fn handle<'a>(fh: rb_bytes) -> Result<FileHandle<'a>, Failure> {
    // SAFETY: P2
    let bytes = unsafe { fh.get("fh") }?;
    FileHandle::new(bytes)
        .ok_or_else(|| invalid(format!("a filehandle of {} bytes: {FHSIZE} are the most", bytes.len())))
}

/// Writes arguments that were encoded by the embedder: what follows argop in nfs_cb_argop4 (RFC 8881 section 20).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_encode_raw(args: Option<&mut rb_args>, xdr: rb_bytes) -> c_int {
    guard("rb_encode_raw", String::new, || {
        // SAFETY: P2
        let bytes = unsafe { xdr.get("xdr.data") }?;
        not_null(args, "args")?.raw(|w| w.raw(bytes))
    })
}
