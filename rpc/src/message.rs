//! ONC RPC version 2 messages (RFC 5531 section 9): call and reply headers, auth flavors, xid.

use crate::xdr::{Decode, Encode, Reader, Result, Writer, XdrError, XdrErrorKind};

/// The RPC protocol version (RFC 5531 section 9, `rpcvers`).
pub const RPC_VERSION: u32 = 2;
/// Longest body of an `opaque_auth` (RFC 5531 section 8.2).
pub const AUTH_BODY_BYTES_MAX: usize = 400;
/// Most supplementary groups in an AUTH_SYS credential (RFC 5531 appendix A).
pub const AUTH_SYS_GIDS_MAX: usize = 16;
/// Longest machine name in an AUTH_SYS credential (RFC 5531 appendix A).
pub const AUTH_SYS_MACHINE_NAME_BYTES_MAX: usize = 255;

/// CALL or REPLY (RFC 5531 section 9, `msg_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// A call.
    Call,
    /// A reply.
    Reply,
}

/// Reads the xid and the direction of a message, the first two words of every record.
pub fn peek(record: &[u8]) -> Result<(u32, MessageType)> {
    let mut r = Reader::new(record);
    let xid = r.u32("xid")?;
    Ok((xid, message_type(&mut r)?))
}

/// Whether a message is a REPLY, by its second word. What comes after that may be anything.
///
/// # Examples
///
/// ```
/// use ringback_rpc::message::is_reply;
///
/// assert!(is_reply(&[0, 0, 0, 7, 0, 0, 0, 1]));
/// assert!(!is_reply(&[0, 0, 0, 7, 0, 0, 0, 0]) && !is_reply(&[0, 0, 0, 7]));
/// ```
#[inline]
pub fn is_reply(record: &[u8]) -> bool {
    record.get(4..8).is_some_and(|word| *word == (MessageType::Reply as u32).to_be_bytes())
}

fn message_type(r: &mut Reader<'_>) -> Result<MessageType> {
    match r.u32("msg_type")? {
        0 => Ok(MessageType::Call),
        1 => Ok(MessageType::Reply),
        value => Err(bad(r, "msg_type", value)),
    }
}

fn bad(r: &Reader<'_>, what: &'static str, value: u32) -> XdrError {
    XdrError { what, offset: r.offset() - 4, kind: XdrErrorKind::BadValue { value: value.into() } }
}

/// Authentication flavors (RFC 5531 section 8.2, RFC 2203). The number of any other flavor passes through.
pub mod flavor {
    /// AUTH_NONE.
    pub const AUTH_NONE: u32 = 0;
    /// AUTH_SYS.
    pub const AUTH_SYS: u32 = 1;
    /// RPCSEC_GSS; its bodies are opaque here.
    pub const RPCSEC_GSS: u32 = 6;
}

/// A credential or verifier (RFC 5531 section 8.2, `opaque_auth`); the body is not interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpaqueAuth<'a> {
    /// The flavor, see [`flavor`].
    pub flavor: u32,
    /// The body, at most [`AUTH_BODY_BYTES_MAX`] bytes.
    pub body: &'a [u8],
}

impl OpaqueAuth<'_> {
    /// AUTH_NONE, with an empty body.
    pub const NONE: OpaqueAuth<'static> = OpaqueAuth { flavor: flavor::AUTH_NONE, body: &[] };
}

impl<'a> Decode<'a> for OpaqueAuth<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        Ok(OpaqueAuth { flavor: r.u32("auth_flavor")?, body: r.opaque("opaque_auth.body", AUTH_BODY_BYTES_MAX)? })
    }
}

impl Encode for OpaqueAuth<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        if self.body.len() > AUTH_BODY_BYTES_MAX {
            let kind = XdrErrorKind::TooLong { length: self.body.len() as u64, limit: AUTH_BODY_BYTES_MAX as u64 };
            return Err(XdrError { what: "opaque_auth.body", offset: w.position(), kind });
        }
        w.u32(self.flavor)?;
        w.opaque(self.body)
    }
}

/// AUTH_SYS credential body (RFC 5531 appendix A, `authsys_parms`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthSys<'a> {
    /// An arbitrary id that the caller generates.
    pub stamp: u32,
    /// The caller's machine name.
    pub machine_name: &'a [u8],
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    gids: [u32; AUTH_SYS_GIDS_MAX],
    gids_len: u8,
}

impl<'a> AuthSys<'a> {
    /// A credential; `None` if there are more than [`AUTH_SYS_GIDS_MAX`] groups, or the machine name is longer than
    /// [`AUTH_SYS_MACHINE_NAME_BYTES_MAX`].
    pub fn new(stamp: u32, machine_name: &'a [u8], uid: u32, gid: u32, gids: &[u32]) -> Option<Self> {
        if machine_name.len() > AUTH_SYS_MACHINE_NAME_BYTES_MAX {
            return None;
        }
        let mut all = [0; AUTH_SYS_GIDS_MAX];
        all.get_mut(..gids.len())?.copy_from_slice(gids);
        Some(AuthSys { stamp, machine_name, uid, gid, gids: all, gids_len: gids.len() as u8 })
    }

    /// Supplementary group ids.
    pub fn gids(&self) -> &[u32] {
        &self.gids[..usize::from(self.gids_len)]
    }
}

impl<'a> Decode<'a> for AuthSys<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let stamp = r.u32("authsys_parms.stamp")?;
        let machine_name = r.opaque("authsys_parms.machinename", AUTH_SYS_MACHINE_NAME_BYTES_MAX)?;
        let uid = r.u32("authsys_parms.uid")?;
        let gid = r.u32("authsys_parms.gid")?;
        let count = r.count("authsys_parms.gids", AUTH_SYS_GIDS_MAX, 4)?;
        let mut gids = [0; AUTH_SYS_GIDS_MAX];
        for g in gids.iter_mut().take(count) {
            *g = r.u32("authsys_parms.gids")?;
        }
        Ok(AuthSys { stamp, machine_name, uid, gid, gids, gids_len: count as u8 })
    }
}

impl Encode for AuthSys<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.u32(self.stamp)?;
        w.opaque(self.machine_name)?;
        w.u32(self.uid)?;
        w.u32(self.gid)?;
        w.count(self.gids().len())?;
        self.gids().iter().try_for_each(|g| w.u32(*g))
    }
}

/// The header of a call (RFC 5531 section 9, `call_body`); the procedure's arguments follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallHeader<'a> {
    /// Transaction id, echoed by the reply.
    pub xid: u32,
    /// Program number.
    pub program: u32,
    /// Program version.
    pub version: u32,
    /// Procedure number.
    pub procedure: u32,
    /// The credential.
    pub credential: OpaqueAuth<'a>,
    /// The verifier.
    pub verifier: OpaqueAuth<'a>,
}

impl<'a> Decode<'a> for CallHeader<'a> {
    /// Reads a call header. A reply, or an RPC version other than 2, is [`XdrErrorKind::BadValue`] of `msg_type` or
    /// `rpcvers`; the answer to the latter is a denied reply with [`Rejected::RpcMismatch`].
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let xid = r.u32("xid")?;
        if message_type(r)? != MessageType::Call {
            return Err(bad(r, "msg_type", 1));
        }
        let version = r.u32("rpcvers")?;
        if version != RPC_VERSION {
            return Err(bad(r, "rpcvers", version));
        }
        Ok(CallHeader {
            xid,
            program: r.u32("prog")?,
            version: r.u32("vers")?,
            procedure: r.u32("proc")?,
            credential: OpaqueAuth::decode(r)?,
            verifier: OpaqueAuth::decode(r)?,
        })
    }
}

impl Encode for CallHeader<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.u32(self.xid)?;
        w.u32(0)?;
        w.u32(RPC_VERSION)?;
        w.u32(self.program)?;
        w.u32(self.version)?;
        w.u32(self.procedure)?;
        self.credential.encode(w)?;
        self.verifier.encode(w)
    }
}

/// Why a call was accepted or not (RFC 5531 section 9, `accept_stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptStatus {
    /// Executed; the procedure's results follow.
    Success,
    /// The program is not known there.
    ProgUnavail,
    /// The program is known, this version is not.
    ProgMismatch {
        /// Lowest version served.
        low: u32,
        /// Highest version served.
        high: u32,
    },
    /// No such procedure.
    ProcUnavail,
    /// The arguments could not be decoded.
    GarbageArgs,
    /// Memory and the like.
    SystemErr,
}

/// Why a call was denied (RFC 5531 section 9, `rejected_reply`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The RPC version is not served.
    RpcMismatch {
        /// Lowest version served.
        low: u32,
        /// Highest version served.
        high: u32,
    },
    /// The credential or verifier was refused.
    AuthError(AuthStatus),
}

/// Why authentication failed (RFC 5531 section 9, `auth_stat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AuthStatus {
    /// AUTH_OK.
    Ok = 0,
    /// AUTH_BADCRED: the credential's seal is broken.
    BadCred = 1,
    /// AUTH_REJECTEDCRED: begin a new session.
    RejectedCred = 2,
    /// AUTH_BADVERF: the verifier's seal is broken.
    BadVerf = 3,
    /// AUTH_REJECTEDVERF: the verifier expired or was replayed.
    RejectedVerf = 4,
    /// AUTH_TOOWEAK: rejected for security reasons.
    TooWeak = 5,
    /// AUTH_INVALIDRESP: bogus response verifier.
    InvalidResp = 6,
    /// AUTH_FAILED: reason unknown.
    Failed = 7,
    /// AUTH_KERB_GENERIC.
    KerbGeneric = 8,
    /// AUTH_TIMEEXPIRE.
    TimeExpire = 9,
    /// AUTH_TKT_FILE.
    TktFile = 10,
    /// AUTH_DECODE.
    Decode = 11,
    /// AUTH_NET_ADDR.
    NetAddr = 12,
    /// RPCSEC_GSS_CREDPROBLEM.
    GssCredProblem = 13,
    /// RPCSEC_GSS_CTXPROBLEM.
    GssCtxProblem = 14,
}

impl AuthStatus {
    /// All of them, in the order of their numbers.
    pub const ALL: [AuthStatus; 15] = [
        AuthStatus::Ok,
        AuthStatus::BadCred,
        AuthStatus::RejectedCred,
        AuthStatus::BadVerf,
        AuthStatus::RejectedVerf,
        AuthStatus::TooWeak,
        AuthStatus::InvalidResp,
        AuthStatus::Failed,
        AuthStatus::KerbGeneric,
        AuthStatus::TimeExpire,
        AuthStatus::TktFile,
        AuthStatus::Decode,
        AuthStatus::NetAddr,
        AuthStatus::GssCredProblem,
        AuthStatus::GssCtxProblem,
    ];
}

/// The body of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyBody<'a> {
    /// MSG_ACCEPTED.
    Accepted {
        /// The server's verifier.
        verifier: OpaqueAuth<'a>,
        /// How the call went.
        status: AcceptStatus,
    },
    /// MSG_DENIED.
    Denied(Rejected),
}

/// The header of a reply (RFC 5531 section 9, `reply_body`); the results follow it if the call was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader<'a> {
    /// The call's transaction id.
    pub xid: u32,
    /// What became of the call.
    pub body: ReplyBody<'a>,
}

impl ReplyHeader<'_> {
    /// A reply to an executed call, with an AUTH_NONE verifier.
    pub const fn success(xid: u32) -> ReplyHeader<'static> {
        Self::accepted(xid, AcceptStatus::Success)
    }

    /// An accepted reply of any status, with an AUTH_NONE verifier.
    pub const fn accepted(xid: u32, status: AcceptStatus) -> ReplyHeader<'static> {
        ReplyHeader { xid, body: ReplyBody::Accepted { verifier: OpaqueAuth::NONE, status } }
    }
}

impl<'a> Decode<'a> for ReplyHeader<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let xid = r.u32("xid")?;
        if message_type(r)? != MessageType::Reply {
            return Err(bad(r, "msg_type", 0));
        }
        let body = match r.u32("reply_stat")? {
            0 => {
                let verifier = OpaqueAuth::decode(r)?;
                let status = match r.u32("accept_stat")? {
                    0 => AcceptStatus::Success,
                    1 => AcceptStatus::ProgUnavail,
                    2 => AcceptStatus::ProgMismatch { low: r.u32("low")?, high: r.u32("high")? },
                    3 => AcceptStatus::ProcUnavail,
                    4 => AcceptStatus::GarbageArgs,
                    5 => AcceptStatus::SystemErr,
                    value => return Err(bad(r, "accept_stat", value)),
                };
                ReplyBody::Accepted { verifier, status }
            }
            1 => ReplyBody::Denied(match r.u32("reject_stat")? {
                0 => Rejected::RpcMismatch { low: r.u32("low")?, high: r.u32("high")? },
                1 => {
                    let value = r.u32("auth_stat")?;
                    let status = AuthStatus::ALL.get(value as usize).copied();
                    Rejected::AuthError(status.ok_or_else(|| bad(r, "auth_stat", value))?)
                }
                value => return Err(bad(r, "reject_stat", value)),
            }),
            value => return Err(bad(r, "reply_stat", value)),
        };
        Ok(ReplyHeader { xid, body })
    }
}

impl Encode for ReplyHeader<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.u32(self.xid)?;
        w.u32(1)?;
        match self.body {
            ReplyBody::Accepted { verifier, status } => {
                w.u32(0)?;
                verifier.encode(w)?;
                match status {
                    AcceptStatus::Success => w.u32(0),
                    AcceptStatus::ProgUnavail => w.u32(1),
                    AcceptStatus::ProgMismatch { low, high } => [2, low, high].iter().try_for_each(|v| w.u32(*v)),
                    AcceptStatus::ProcUnavail => w.u32(3),
                    AcceptStatus::GarbageArgs => w.u32(4),
                    AcceptStatus::SystemErr => w.u32(5),
                }
            }
            ReplyBody::Denied(rejected) => {
                w.u32(1)?;
                match rejected {
                    Rejected::RpcMismatch { low, high } => [0, low, high].iter().try_for_each(|v| w.u32(*v)),
                    Rejected::AuthError(status) => [1, status as u32].iter().try_for_each(|v| w.u32(*v)),
                }
            }
        }
    }
}
