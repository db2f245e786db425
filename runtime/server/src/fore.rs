//! The fore channel: a CALL record comes in, its reply goes out (RFC 5531, RFC 8881 section 16).

use crate::Inner;
use crate::clients::Principal;
use crate::compound::{Compound, Suspended};
use crate::sessions::{Groups, Origin};
use ringback::{Call, ConnectionId, ForeChannel};
use ringback_rpc::message::{
    AcceptStatus, AuthStatus, AuthSys, CallHeader, MessageType, OpaqueAuth, RPC_VERSION, Rejected, ReplyBody,
    ReplyHeader, flavor, peek,
};
use ringback_rpc::nfs4::fore::{CompoundArgs, OpArgs, PROCEDURE_COMPOUND, PROCEDURE_NULL};
use ringback_rpc::nfs4::{NFS_V4, NFS4_PROGRAM};
use ringback_rpc::xdr::{self, Decode, Encode, Reader, Writer, XdrError, XdrErrorKind};

/// What a reply may take beyond a session's limit: a compound outside a session, with the longest tag.
const REPLY_BYTES_SPARE: usize = 4096;

/// The longest reply without content: attributes, names, stateids.
const PLAIN_REPLY_BYTES_MAX: usize = 16 << 10;

impl Inner {
    /// Bytes that the reply to a record may take: much only if it asks for content, as room for it is taken before it is
    /// known what there is.
    pub(crate) fn reply_bytes(&self, record: &[u8]) -> usize {
        let most = self.reply_bytes_max();
        let plain = PLAIN_REPLY_BYTES_MAX + REPLY_BYTES_SPARE;
        if most <= plain { most } else { plain.saturating_add(content_asked(record)).min(most) }
    }

    /// Bytes that the longest reply takes.
    pub(crate) fn reply_bytes_max(&self) -> usize {
        self.config.response_bytes_max as usize + REPLY_BYTES_SPARE
    }

    /// Answers one CALL record that came on `connection` (RPC header and arguments, no record mark) into `w`, which has
    /// room for [`Inner::reply_bytes_max`]. An error says that there is nothing to answer. A compound that comes back has
    /// to wait for something: what was written is worth nothing.
    pub(crate) fn handle(
        &self,
        connection: ConnectionId,
        now_ns: u64,
        record: &[u8],
        w: &mut Writer<'_>,
    ) -> xdr::Result<Option<Box<Suspended>>> {
        let mut r = Reader::new(record);
        let base = w.position();
        let header = match CallHeader::decode(&mut r) {
            Ok(header) => header,
            Err(error) => {
                // A message without an xid, or a reply: no answer would be understood.
                let (xid, MessageType::Call) = peek(record)? else { return Err(error) };
                return undecodable(xid, &error).encode(w).map(|()| None);
            }
        };
        let accepted = |status| ReplyHeader::accepted(header.xid, status);
        if header.program != NFS4_PROGRAM {
            return accepted(AcceptStatus::ProgUnavail).encode(w).map(|()| None);
        }
        if header.version != NFS_V4 {
            return accepted(AcceptStatus::ProgMismatch { low: NFS_V4, high: NFS_V4 }).encode(w).map(|()| None);
        }
        let (principal, gid, groups) = match principal(&header) {
            Ok(caller) => caller,
            Err(status) => return denied(header.xid, Rejected::AuthError(status)).encode(w).map(|()| None),
        };
        match header.procedure {
            PROCEDURE_NULL => return ReplyHeader::success(header.xid).encode(w).map(|()| None),
            PROCEDURE_COMPOUND => {}
            _ => return accepted(AcceptStatus::ProcUnavail).encode(w).map(|()| None),
        }
        let Ok(args) = CompoundArgs::decode(&mut r) else {
            return accepted(AcceptStatus::GarbageArgs).encode(w).map(|()| None);
        };
        ReplyHeader::success(header.xid).encode(w)?;
        let origin = Origin { connection, principal, gid, groups, now_ns, minor_version: args.minor_version };
        Compound::new(self, origin, record.len()).run(&args, &mut r, &[], base, w)
    }
}

/// Stands for an answer that has to wait.
const NOT_YET: XdrError =
    XdrError { what: "an answer that has to wait", offset: 0, kind: XdrErrorKind::BadValue { value: 0 } };

impl ForeChannel for Inner {
    fn closed(&self, connection: ConnectionId) {
        self.minor0.forget_connection(connection);
    }

    fn call(&self, call: Call<'_>) {
        let connection = call.connection();
        let now_ns = self.now_ns();
        // What cannot be answered at all is dropped with its call, as RFC 5531 has no reply for it.
        let bytes_max = self.reply_bytes(call.record());
        let mut suspended = None;
        let answered = call.reply(bytes_max, |record, w| {
            suspended = self.handle(connection, now_ns, record, w)?;
            if suspended.is_some() { Err(NOT_YET) } else { Ok(()) }
        });
        if let (Err((call, _)), Some(suspended)) = (answered, suspended) {
            let (token, record) = call.defer();
            self.later.wait(token, record, suspended);
        }
    }
}

/// The bytes of content that the READs and READDIRs of a compound ask for.
fn content_asked(record: &[u8]) -> usize {
    let mut r = Reader::new(record);
    let (Ok(_), Ok(args)) = (CallHeader::decode(&mut r), CompoundArgs::decode(&mut r)) else { return 0 };
    let mut bytes = 0usize;
    for _ in 0..args.count {
        match OpArgs::decode(&mut r) {
            Ok(OpArgs::Read(read)) => bytes = bytes.saturating_add(read.count as usize),
            Ok(OpArgs::ReadDir(read)) => bytes = bytes.saturating_add(read.bytes_max as usize),
            Ok(OpArgs::Other(_)) | Err(_) => break,
            Ok(_) => {}
        }
    }
    bytes
}

fn denied(xid: u32, why: Rejected) -> ReplyHeader<'static> {
    ReplyHeader { xid, body: ReplyBody::Denied(why) }
}

/// The reply to a call whose header is wrong.
fn undecodable(xid: u32, error: &xdr::XdrError) -> ReplyHeader<'static> {
    match (error.what, error.kind) {
        ("rpcvers", XdrErrorKind::BadValue { .. }) => {
            denied(xid, Rejected::RpcMismatch { low: RPC_VERSION, high: RPC_VERSION })
        }
        ("opaque_auth.body", _) => denied(xid, Rejected::AuthError(AuthStatus::BadCred)),
        _ => ReplyHeader::accepted(xid, AcceptStatus::GarbageArgs),
    }
}

/// Who calls (RFC 5531 section 8.2, appendix A).
fn principal(header: &CallHeader<'_>) -> Result<(Principal, u32, Groups), AuthStatus> {
    if header.verifier != OpaqueAuth::NONE {
        return Err(AuthStatus::BadVerf);
    }
    let credential = &header.credential;
    match credential.flavor {
        flavor::AUTH_NONE if credential.body.is_empty() => Ok((Principal::Nobody, 0, Groups::default())),
        flavor::AUTH_SYS => {
            let mut body = Reader::new(credential.body);
            let sys = AuthSys::decode(&mut body).map_err(|_| AuthStatus::BadCred)?;
            body.finish("authsys_parms").map_err(|_| AuthStatus::BadCred)?;
            Ok((Principal::Uid(sys.uid), sys.gid, Groups::new(sys.gids())))
        }
        flavor::AUTH_NONE => Err(AuthStatus::BadCred),
        _ => Err(AuthStatus::RejectedCred),
    }
}
