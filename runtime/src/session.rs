//! What a client says about a session's backchannel, in the terms of CREATE_SESSION (RFC 8881 section 18.36).

use crate::Error;
use crate::settings::STAGING_BYTES;
use ringback_rpc::backchannel::{Credential, SessionParams};
use ringback_rpc::message::{AUTH_SYS_GIDS_MAX, AUTH_SYS_MACHINE_NAME_BYTES_MAX, AuthSys};
use ringback_rpc::nfs4::SessionId;

/// How callbacks are authenticated, as the client asked in csa_sec_parms or bca_sec_parms.
///
/// # Examples
///
/// ```
/// use ringback::Security;
///
/// let root = Security::Sys { stamp: 0, machine_name: b"client".to_vec(), uid: 0, gid: 0, gids: vec![] };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Security {
    /// AUTH_NONE. Linux clients refuse it for everything but CB_NULL.
    None,
    /// AUTH_SYS (RFC 5531 appendix A).
    Sys {
        /// The stamp.
        stamp: u32,
        /// The machine name.
        machine_name: Vec<u8>,
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary groups, at most 16.
        gids: Vec<u32>,
    },
}

/// A session that has a backchannel.
///
/// # Examples
///
/// ```
/// use ringback::{Security, SessionConfig};
///
/// let negotiated = SessionConfig {
///     session_id: [9; 16],
///     program: 0x4000_0000,
///     security: Security::None,
///     slots: 16,
///     request_bytes_max: 4096,
///     response_bytes_max: 4096,
///     operations_max: 2,
///     minor_version: 1,
/// };
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// The session id.
    pub session_id: [u8; 16],
    /// The callback program's number (csa_cb_program).
    pub program: u32,
    /// How callbacks are authenticated (csa_sec_parms).
    pub security: Security,
    /// Session slots (ca_maxrequests), as negotiated for the backchannel.
    pub slots: u32,
    /// Largest request (ca_maxrequestsize), in bytes. More than 64 KiB is taken as 64 KiB.
    pub request_bytes_max: u32,
    /// Largest response (ca_maxresponsesize), in bytes.
    pub response_bytes_max: u32,
    /// Most operations in one CB_COMPOUND, CB_SEQUENCE included (ca_maxoperations). With more than 2, several callbacks
    /// share one.
    pub operations_max: u32,
    /// Minor version of the client: 1 or 2.
    pub minor_version: u32,
}

/// Room for the record mark beside the largest request in a staging buffer.
const REQUEST_BYTES_MAX: u32 = STAGING_BYTES as u32 - 64;

impl Security {
    pub(crate) fn into_credential(self) -> Result<Credential, Error> {
        match self {
            Security::None => Ok(Credential::none()),
            Security::Sys { stamp, machine_name, uid, gid, gids } => {
                in_range("machine name bytes", machine_name.len() as u64, 0, AUTH_SYS_MACHINE_NAME_BYTES_MAX as u64)?;
                in_range("gids", gids.len() as u64, 0, AUTH_SYS_GIDS_MAX as u64)?;
                let sys = AuthSys::new(stamp, &machine_name, uid, gid, &gids);
                let credential = sys.and_then(|sys| Credential::sys(&sys).ok());
                // Both lengths were looked at above, so there is a credential.
                credential.ok_or(Error::BadSession { name: "AUTH_SYS bytes", value: 0, min: 0, max: 0 })
            }
        }
    }
}

impl SessionConfig {
    pub(crate) fn into_params(self) -> Result<SessionParams, Error> {
        in_range("slots", self.slots.into(), 1, ringback_rpc::session::SLOTS_MAX.into())?;
        in_range("operations_max", self.operations_max.into(), 2, u32::MAX.into())?;
        in_range("request_bytes_max", self.request_bytes_max.into(), 512, u32::MAX.into())?;
        in_range("response_bytes_max", self.response_bytes_max.into(), 256, u32::MAX.into())?;
        in_range("minor_version", self.minor_version.into(), 1, 2)?;
        Ok(SessionParams {
            session_id: SessionId(self.session_id),
            program: self.program,
            credential: self.security.into_credential()?,
            slots: self.slots,
            request_bytes_max: self.request_bytes_max.min(REQUEST_BYTES_MAX),
            response_bytes_max: self.response_bytes_max,
            operations_max: self.operations_max,
            minor_version: self.minor_version,
        })
    }
}

pub(crate) fn in_range(name: &'static str, value: u64, min: u64, max: u64) -> Result<(), Error> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(Error::BadSession { name, value, min, max }) }
}
