//! The fore channel: COMPOUND and the operations that a client needs to set up, hold and return delegations, in both
//! directions (RFC 8881 sections 16 and 18; XDR in RFC 5662). Nothing is allocated; what is variable borrows the record.
//!
//! A record holds the RPC header ([`crate::message`]), a compound header ([`CompoundArgs`], [`CompoundRes`]) and then
//! `count` times an [`OpArgs`] or [`OpRes`]. Every operation is a line of the table in this file and a struct or two in
//! the file of its family: another operation is another line and another struct.
//!
//! An operation that is not in the table cannot be skipped, since its length is not known. It decodes as
//! [`OpArgs::Other`], with which a server ends the compound ([`OpRes::refusal`]).

mod client_id;
mod compound;
mod file;
mod op;
mod open;
mod session;
#[cfg(test)]
mod tests;

pub use client_id::*;
pub use compound::*;
pub use file::*;
pub use op::Op;
pub use open::*;
pub use session::*;

use super::Status;
use super::wire::Field;
use crate::xdr::{Decode, Encode, Reader, Result, Writer, XdrError, XdrErrorKind};

/// The procedure NULL.
pub const PROCEDURE_NULL: u32 = 0;
/// The procedure COMPOUND.
pub const PROCEDURE_COMPOUND: u32 = 1;

/// What an operation returns: its results, or the status with which it failed.
pub type OpResult<T> = core::result::Result<T, Status>;

macro_rules! operations {
    ($($number:ident: $variant:ident $(($args:ident: $args_type:ty))? => $ok:ty;)*) => {
        /// The arguments of one operation (RFC 8881 section 16.2.1, `nfs_argop4`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum OpArgs<'a> {
            $(#[doc = stringify!($number)] $variant $(($args_type))?,)*
            /// An operation that is not decoded here. What follows its number has not been read.
            Other(Op),
        }

        impl OpArgs<'_> {
            /// Which operation.
            pub const fn op(&self) -> Op {
                match self {
                    $(OpArgs::$variant { .. } => Op::$number,)*
                    OpArgs::Other(op) => *op,
                }
            }
        }

        impl<'a> Decode<'a> for OpArgs<'a> {
            fn decode(r: &mut Reader<'a>) -> Result<Self> {
                match Op(r.u32("argop")?) {
                    $(Op::$number => Ok(OpArgs::$variant $((<$args_type as Decode>::decode(r)?))?),)*
                    op => Ok(OpArgs::Other(op)),
                }
            }
        }

        impl Encode for OpArgs<'_> {
            fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
                w.u32(self.op().0)?;
                match self {
                    $(OpArgs::$variant $(($args))? => { $($args.encode(w)?;)? })*
                    OpArgs::Other(_) => {}
                }
                Ok(())
            }
        }

        /// The results of one operation (RFC 8881 section 16.2.2, `nfs_resop4`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum OpRes<'a> {
            $(#[doc = stringify!($number)] $variant(OpResult<$ok>),)*
            /// An operation that failed, in the form that all operations without results of failure share.
            Other(Op, Status),
        }

        impl OpRes<'_> {
            /// Which operation.
            pub const fn op(&self) -> Op {
                match self {
                    $(OpRes::$variant(_) => Op::$number,)*
                    OpRes::Other(op, _) => *op,
                }
            }

            /// How it went.
            pub fn status(&self) -> Status {
                match self {
                    $(OpRes::$variant(result) => result.err().unwrap_or(Status::NFS4_OK),)*
                    OpRes::Other(_, status) => *status,
                }
            }
        }

        impl<'a> Decode<'a> for OpRes<'a> {
            /// Reads one result. A result of success of an operation that is not in the table is an error, as its
            /// length is not known.
            fn decode(r: &mut Reader<'a>) -> Result<Self> {
                match Op(r.u32("resop")?) {
                    $(Op::$number => decode_result(r).map(OpRes::$variant),)*
                    op => match decode_result(r)? {
                        Err(status) => Ok(OpRes::Other(op, status)),
                        Ok(()) => Err(unknown_result(r, op)),
                    },
                }
            }
        }

        impl Encode for OpRes<'_> {
            fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
                w.u32(self.op().0)?;
                match self {
                    $(OpRes::$variant(result) => encode_result(result, w),)*
                    OpRes::Other(_, status) => w.u32(status.0),
                }
            }
        }
    };
}

operations! {
    CLOSE: Close(args: CloseArgs) => CloseOk;
    DELEGRETURN: DelegReturn(args: DelegReturnArgs) => ();
    GETATTR: GetAttr(args: GetAttrArgs) => GetAttrOk<'a>;
    GETFH: GetFh => GetFhOk<'a>;
    LOOKUP: Lookup(args: LookupArgs<'a>) => ();
    OPEN: Open(args: OpenArgs<'a>) => OpenOk<'a>;
    PUTFH: PutFh(args: PutFhArgs<'a>) => ();
    PUTROOTFH: PutRootFh => ();
    BACKCHANNEL_CTL: BackchannelCtl(args: BackchannelCtlArgs<'a>) => ();
    BIND_CONN_TO_SESSION: BindConnToSession(args: BindConnToSessionArgs) => BindConnToSessionOk;
    EXCHANGE_ID: ExchangeId(args: ExchangeIdArgs<'a>) => ExchangeIdOk<'a>;
    CREATE_SESSION: CreateSession(args: CreateSessionArgs<'a>) => CreateSessionOk;
    DESTROY_SESSION: DestroySession(args: DestroySessionArgs) => ();
    SEQUENCE: Sequence(args: SequenceArgs) => SequenceOk;
    DESTROY_CLIENTID: DestroyClientId(args: DestroyClientIdArgs) => ();
    RECLAIM_COMPLETE: ReclaimComplete(args: ReclaimCompleteArgs) => ();
}

impl OpRes<'static> {
    /// The answer to an operation that the server does not implement: NFS4ERR_NOTSUPP as that operation where minor
    /// version `minor` defines it (RFC 8881 section 15.1.1.5), else NFS4ERR_OP_ILLEGAL as [`Op::ILLEGAL`] (RFC 8881
    /// section 16.2.3).
    pub const fn refusal(op: Op, minor: u32) -> OpRes<'static> {
        if op.is_defined_in(minor) {
            OpRes::Other(op, Status::NFS4ERR_NOTSUPP)
        } else {
            OpRes::Other(Op::ILLEGAL, Status::NFS4ERR_OP_ILLEGAL)
        }
    }
}

/// An array of at most one element: an optional value.
impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    fn get(r: &mut Reader<'a>, what: &'static str) -> Result<Self> {
        match r.count(what, 1, 4)? {
            0 => Ok(None),
            _ => T::get(r, what).map(Some),
        }
    }

    fn put(&self, w: &mut Writer<'_>) -> Result<()> {
        w.count(self.iter().len())?;
        self.iter().try_for_each(|value| value.put(w))
    }
}

/// The results of an operation that returns only a status.
impl Decode<'_> for () {
    fn decode(_: &mut Reader<'_>) -> Result<Self> {
        Ok(())
    }
}

impl Encode for () {
    fn encode(&self, _: &mut Writer<'_>) -> Result<()> {
        Ok(())
    }
}

/// Reads a status and, if it is NFS4_OK, the results after it. None of the operations here has results of failure.
fn decode_result<'a, T: Decode<'a>>(r: &mut Reader<'a>) -> Result<OpResult<T>> {
    match Status(r.u32("status")?) {
        Status::NFS4_OK => T::decode(r).map(Ok),
        status => Ok(Err(status)),
    }
}

fn encode_result<T: Encode>(result: &OpResult<T>, w: &mut Writer<'_>) -> Result<()> {
    match result {
        Ok(ok) => w.u32(Status::NFS4_OK.0).and_then(|()| ok.encode(w)),
        // A success without its results would make the rest of the compound unreadable.
        Err(Status::NFS4_OK) => {
            let kind = XdrErrorKind::BadValue { value: 0 };
            Err(XdrError { what: "status", offset: w.position(), kind })
        }
        Err(status) => w.u32(status.0),
    }
}

fn unknown_result(r: &Reader<'_>, op: Op) -> XdrError {
    XdrError { what: "resop", offset: r.offset() - 8, kind: XdrErrorKind::BadValue { value: op.0.into() } }
}
