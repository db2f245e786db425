//! What the client wants callbacks to be authenticated with.

use super::wire::{undefined, wire_enum, wire_field, wire_struct};
use crate::message::{AuthSys, flavor};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

wire_enum! {
    /// The service of an RPCSEC_GSS context (RFC 2203 section 5.3.1, `rpc_gss_svc_t`).
    pub enum GssService = "rpc_gss_svc_t" {
        /// Authentication only.
        None = 1,
        /// Integrity.
        Integrity = 2,
        /// Privacy.
        Privacy = 3,
    }
}

wire_struct! {
    /// RPCSEC_GSS contexts for callbacks (RFC 8881 section 18.33, `gss_cb_handles4`); the handles are not interpreted.
    pub struct GssHandles<'a> {
        /// The service.
        pub service: GssService = "gcbp_service",
        /// The handle that the server gave.
        pub handle_from_server: &'a [u8] = "gcbp_handle_from_server",
        /// The handle that the client gave.
        pub handle_from_client: &'a [u8] = "gcbp_handle_from_client",
    }
}

/// One way to authenticate callbacks (RFC 8881 section 18.33, `callback_sec_parms4`), offered by CREATE_SESSION and
/// BACKCHANNEL_CTL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallbackSecParms<'a> {
    /// AUTH_NONE.
    None,
    /// AUTH_SYS, with the credential that the server is to use.
    Sys(AuthSys<'a>),
    /// RPCSEC_GSS.
    Gss(GssHandles<'a>),
}

impl<'a> Decode<'a> for CallbackSecParms<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let offset = r.offset();
        match r.u32("cb_secflavor")? {
            flavor::AUTH_NONE => Ok(CallbackSecParms::None),
            flavor::AUTH_SYS => AuthSys::decode(r).map(CallbackSecParms::Sys),
            flavor::RPCSEC_GSS => GssHandles::decode(r).map(CallbackSecParms::Gss),
            value => Err(undefined("cb_secflavor", offset, value)),
        }
    }
}

impl Encode for CallbackSecParms<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            CallbackSecParms::None => w.u32(flavor::AUTH_NONE),
            CallbackSecParms::Sys(credential) => {
                w.u32(flavor::AUTH_SYS)?;
                credential.encode(w)
            }
            CallbackSecParms::Gss(handles) => {
                w.u32(flavor::RPCSEC_GSS)?;
                handles.encode(w)
            }
        }
    }
}

wire_field!(CallbackSecParms<'a>);
