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
mod delegation;
mod directory;
mod file;
mod flex_files;
mod io;
mod layout;
mod lock;
mod offload;
mod op;
mod open;
mod session;
mod set_client_id;
#[cfg(test)]
mod tests;

pub use client_id::*;
pub use compound::*;
pub use delegation::*;
pub use directory::*;
pub use file::*;
pub use flex_files::*;
pub use io::*;
pub use layout::*;
pub use lock::*;
pub use offload::*;
pub use op::Op;
pub use open::*;
pub use session::*;
pub use set_client_id::*;

use super::Status;
use super::wire::Field;
use crate::xdr::{Decode, Encode, Reader, Result, Writer, XdrError, XdrErrorKind};

/// The procedure NULL.
pub const PROCEDURE_NULL: u32 = 0;
/// The procedure COMPOUND.
pub const PROCEDURE_COMPOUND: u32 = 1;

/// What an operation returns: its results, or how it failed. Most say only with which status.
pub type OpResult<T, E = Status> = core::result::Result<T, E>;

/// How an operation failed: a status, and what a few operations say besides.
pub trait Failure<'a>: Copy {
    /// Reads what follows the status.
    fn read(status: Status, r: &mut Reader<'a>) -> Result<Self>;
    /// The status.
    fn status(&self) -> Status;
    /// Writes what follows the status.
    fn put(&self, w: &mut Writer<'_>) -> Result<()>;
}

impl Failure<'_> for Status {
    fn read(status: Status, _: &mut Reader<'_>) -> Result<Self> {
        Ok(status)
    }

    fn status(&self) -> Status {
        *self
    }

    fn put(&self, _: &mut Writer<'_>) -> Result<()> {
        Ok(())
    }
}

/// The type of a failure: a status unless the table says otherwise.
macro_rules! failure {
    () => {
        Status
    };
    ($failure:ty) => {
        $failure
    };
}

macro_rules! operations {
    ($($number:ident: $variant:ident $(($args:ident: $args_type:ty))? => $ok:ty $(, $failure:ty)?;)*) => {
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
            $(#[doc = stringify!($number)] $variant(OpResult<$ok, failure!($($failure)?)>),)*
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
                    $(OpRes::$variant(result) => result.err().map_or(Status::NFS4_OK, |failure| failure.status()),)*
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
                    OpRes::Other(op, status) => encode_failure(*op, *status, w),
                }
            }
        }
    };
}

operations! {
    ACCESS: Access(args: AccessArgs) => AccessOk;
    CLOSE: Close(args: CloseArgs) => CloseOk;
    COMMIT: Commit(args: CommitArgs) => CommitOk;
    CREATE: Create(args: CreateArgs<'a>) => CreateOk;
    DELEGRETURN: DelegReturn(args: DelegReturnArgs) => ();
    GETATTR: GetAttr(args: GetAttrArgs) => GetAttrOk<'a>;
    GETFH: GetFh => GetFhOk<'a>;
    LINK: Link(args: LinkArgs<'a>) => LinkOk;
    LOCK: Lock(args: LockArgs<'a>) => LockOk, LockFailure<'a>;
    LOCKT: LockTest(args: LockTestArgs<'a>) => (), LockFailure<'a>;
    LOCKU: Unlock(args: UnlockArgs) => UnlockOk;
    LOOKUP: Lookup(args: LookupArgs<'a>) => ();
    LOOKUPP: LookupParent => ();
    NVERIFY: NotVerify(args: VerifyArgs<'a>) => ();
    OPEN: Open(args: OpenArgs<'a>) => OpenOk<'a>;
    OPEN_CONFIRM: OpenConfirm(args: OpenConfirmArgs) => OpenConfirmOk;
    OPEN_DOWNGRADE: OpenDowngrade(args: OpenDowngradeArgs) => OpenDowngradeOk;
    PUTFH: PutFh(args: PutFhArgs<'a>) => ();
    PUTPUBFH: PutPubFh => ();
    PUTROOTFH: PutRootFh => ();
    READ: Read(args: ReadArgs) => ReadOk<'a>;
    READDIR: ReadDir(args: ReadDirArgs) => ReadDirOk<'a>;
    READLINK: ReadLink => ReadLinkOk<'a>;
    REMOVE: Remove(args: RemoveArgs<'a>) => RemoveOk;
    RENAME: Rename(args: RenameArgs<'a>) => RenameOk;
    RENEW: Renew(args: RenewArgs) => ();
    RESTOREFH: RestoreFh => ();
    SAVEFH: SaveFh => ();
    SECINFO: SecInfo(args: SecInfoArgs<'a>) => SecInfoOk<'a>;
    SETATTR: SetAttr(args: SetAttrArgs<'a>) => SetAttrOk, SetAttrFailure;
    SETCLIENTID: SetClientId(args: SetClientIdArgs<'a>) => SetClientIdOk, SetClientIdFailure<'a>;
    SETCLIENTID_CONFIRM: SetClientIdConfirm(args: SetClientIdConfirmArgs) => ();
    VERIFY: Verify(args: VerifyArgs<'a>) => ();
    WRITE: Write(args: WriteArgs<'a>) => WriteOk;
    RELEASE_LOCKOWNER: ReleaseLockOwner(args: ReleaseLockOwnerArgs<'a>) => ();
    BACKCHANNEL_CTL: BackchannelCtl(args: BackchannelCtlArgs<'a>) => ();
    BIND_CONN_TO_SESSION: BindConnToSession(args: BindConnToSessionArgs) => BindConnToSessionOk;
    EXCHANGE_ID: ExchangeId(args: ExchangeIdArgs<'a>) => ExchangeIdOk<'a>;
    CREATE_SESSION: CreateSession(args: CreateSessionArgs<'a>) => CreateSessionOk;
    DESTROY_SESSION: DestroySession(args: DestroySessionArgs) => ();
    FREE_STATEID: FreeStateid(args: FreeStateidArgs) => ();
    GET_DIR_DELEGATION: GetDirDelegation(args: GetDirDelegationArgs) => GetDirDelegationOk;
    GETDEVICEINFO: GetDeviceInfo(args: GetDeviceInfoArgs) => GetDeviceInfoOk<'a>, GetDeviceInfoFailure;
    LAYOUTCOMMIT: LayoutCommit(args: LayoutCommitArgs<'a>) => LayoutCommitOk;
    LAYOUTGET: LayoutGet(args: LayoutGetArgs) => LayoutGetOk<'a>, LayoutGetFailure;
    LAYOUTRETURN: LayoutReturn(args: LayoutReturnArgs<'a>) => LayoutReturnOk;
    SECINFO_NO_NAME: SecInfoNoName(args: SecInfoStyle) => SecInfoOk<'a>;
    SEQUENCE: Sequence(args: SequenceArgs) => SequenceOk;
    TEST_STATEID: TestStateid(args: TestStateidArgs<'a>) => TestStateidOk<'a>;
    WANT_DELEGATION: WantDelegation(args: WantDelegationArgs) => WantDelegationOk<'a>;
    DESTROY_CLIENTID: DestroyClientId(args: DestroyClientIdArgs) => ();
    RECLAIM_COMPLETE: ReclaimComplete(args: ReclaimCompleteArgs) => ();
    ALLOCATE: Allocate(args: AllocateArgs) => ();
    COPY: Copy(args: CopyArgs<'a>) => CopyOk, CopyFailure;
    DEALLOCATE: Deallocate(args: AllocateArgs) => ();
    LAYOUTERROR: LayoutError(args: LayoutErrorArgs<'a>) => ();
    LAYOUTSTATS: LayoutStats(args: LayoutStatsArgs<'a>) => ();
    OFFLOAD_CANCEL: OffloadCancel(args: OffloadCancelArgs) => ();
    OFFLOAD_STATUS: OffloadStatus(args: OffloadStatusArgs) => OffloadStatusOk;
    SEEK: Seek(args: SeekArgs) => SeekOk;
    CLONE: Clone(args: CloneArgs) => ();
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

/// Reads a status and what follows it.
fn decode_result<'a, T: Decode<'a>, E: Failure<'a>>(r: &mut Reader<'a>) -> Result<OpResult<T, E>> {
    match Status(r.u32("status")?) {
        Status::NFS4_OK => T::decode(r).map(Ok),
        status => E::read(status, r).map(Err),
    }
}

fn encode_result<'a, T: Encode, E: Failure<'a>>(result: &OpResult<T, E>, w: &mut Writer<'_>) -> Result<()> {
    match result {
        Ok(ok) => w.u32(Status::NFS4_OK.0).and_then(|()| ok.encode(w)),
        // A success without its results would make the rest of the compound unreadable.
        Err(failure) if failure.status().is_ok() => Err(no_results(Status::NFS4_OK, w)),
        Err(failure) => w.u32(failure.status().0).and_then(|()| failure.put(w)),
    }
}

/// Writes the failure of an operation of which only the status is known.
fn encode_failure(op: Op, status: Status, w: &mut Writer<'_>) -> Result<()> {
    match op {
        Op::SETCLIENTID if status == Status::NFS4ERR_CLID_INUSE => Err(no_results(status, w)),
        Op::GETDEVICEINFO if status == Status::NFS4ERR_TOOSMALL => Err(no_results(status, w)),
        Op::LAYOUTGET if status == Status::NFS4ERR_LAYOUTTRYLATER => Err(no_results(status, w)),
        Op::COPY if status == Status::NFS4ERR_OFFLOAD_NO_REQS => Err(no_results(status, w)),
        Op::LOCK | Op::LOCKT if status == Status::NFS4ERR_DENIED => Err(no_results(status, w)),
        Op::SETATTR => encode_result::<(), _>(&Err(SetAttrFailure::from(status)), w),
        _ => w.u32(status.0),
    }
}

/// The error for a status whose results are missing.
fn no_results(status: Status, w: &Writer<'_>) -> XdrError {
    XdrError { what: "status", offset: w.position(), kind: XdrErrorKind::BadValue { value: status.0.into() } }
}

fn unknown_result(r: &Reader<'_>, op: Op) -> XdrError {
    XdrError { what: "resop", offset: r.offset() - 8, kind: XdrErrorKind::BadValue { value: op.0.into() } }
}
