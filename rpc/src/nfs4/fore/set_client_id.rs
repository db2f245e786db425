//! Client ids of minor version 0, and where its clients are called back: SETCLIENTID, SETCLIENTID_CONFIRM, RENEW.

use super::{Failure, Opaque4};
use crate::nfs4::uaddr::{NETID_BYTES_MAX, UADDR_BYTES_MAX};
use crate::nfs4::wire::{wire_field, wire_struct};
use crate::nfs4::{ClientId4, Status, Verifier4};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

wire_struct! {
    /// Who the client says it is (RFC 7530 section 3.2, `nfs_client_id4`).
    pub struct NfsClientId<'a> {
        /// Tells incarnations of the client apart.
        pub verifier: Verifier4 = "verifier",
        /// The client, over all its incarnations.
        pub id: Opaque4<'a> = "id",
    }
}

/// An address of some network, as text (RFC 7530 section 3.2, `clientaddr4`). What it says is read by
/// [`UniversalAddress`](crate::nfs4::UniversalAddress).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetAddr4<'a> {
    netid: &'a [u8],
    address: &'a [u8],
}

impl<'a> NetAddr4<'a> {
    /// An address; `None` if one of the two is too long.
    pub const fn new(netid: &'a [u8], address: &'a [u8]) -> Option<Self> {
        if netid.len() <= NETID_BYTES_MAX && address.len() <= UADDR_BYTES_MAX {
            Some(NetAddr4 { netid, address })
        } else {
            None
        }
    }

    /// Which transport (`r_netid`).
    pub const fn netid(&self) -> &'a [u8] {
        self.netid
    }

    /// The universal address (`r_addr`).
    pub const fn address(&self) -> &'a [u8] {
        self.address
    }
}

impl<'a> Decode<'a> for NetAddr4<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        let netid = r.opaque("r_netid", NETID_BYTES_MAX)?;
        Ok(NetAddr4 { netid, address: r.opaque("r_addr", UADDR_BYTES_MAX)? })
    }
}

impl Encode for NetAddr4<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.opaque(self.netid)?;
        w.opaque(self.address)
    }
}

wire_field!(NetAddr4<'a>);

wire_struct! {
    /// The client's callback program, and where it is (RFC 7530 section 3.2, `cb_client4`).
    pub struct CbClient<'a> {
        /// The program number.
        pub program: u32 = "cb_program",
        /// The address.
        pub location: NetAddr4<'a> = "cb_location",
    }
}

wire_struct! {
    /// Arguments of SETCLIENTID (RFC 7530 section 16.33).
    pub struct SetClientIdArgs<'a> {
        /// Who the client is.
        pub client: NfsClientId<'a> = "client",
        /// Where it is called back.
        pub callback: CbClient<'a> = "callback",
        /// To be sent with each callback.
        pub callback_ident: u32 = "callback_ident",
    }
}

wire_struct! {
    /// Results of SETCLIENTID.
    pub struct SetClientIdOk {
        /// The client id.
        pub client_id: ClientId4 = "clientid",
        /// What SETCLIENTID_CONFIRM is to bring back.
        pub confirm: Verifier4 = "setclientid_confirm",
    }
}

/// How SETCLIENTID fails: NFS4ERR_CLID_INUSE says who uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetClientIdFailure<'a> {
    /// NFS4ERR_CLID_INUSE.
    InUse(NetAddr4<'a>),
    /// Any other status.
    Other(Status),
}

impl<'a> Failure<'a> for SetClientIdFailure<'a> {
    fn read(status: Status, r: &mut Reader<'a>) -> Result<Self> {
        match status {
            Status::NFS4ERR_CLID_INUSE => NetAddr4::decode(r).map(SetClientIdFailure::InUse),
            status => Ok(SetClientIdFailure::Other(status)),
        }
    }

    fn status(&self) -> Status {
        match self {
            SetClientIdFailure::InUse(_) => Status::NFS4ERR_CLID_INUSE,
            SetClientIdFailure::Other(status) => *status,
        }
    }

    fn put(&self, w: &mut Writer<'_>) -> Result<()> {
        match self {
            SetClientIdFailure::InUse(by) => by.encode(w),
            SetClientIdFailure::Other(_) => Ok(()),
        }
    }
}

impl From<Status> for SetClientIdFailure<'_> {
    fn from(status: Status) -> Self {
        SetClientIdFailure::Other(status)
    }
}

wire_struct! {
    /// Arguments of SETCLIENTID_CONFIRM (RFC 7530 section 16.34).
    pub struct SetClientIdConfirmArgs {
        /// The client id.
        pub client_id: ClientId4 = "clientid",
        /// What SETCLIENTID returned.
        pub confirm: Verifier4 = "setclientid_confirm",
    }
}

wire_struct! {
    /// Arguments of RENEW (RFC 7530 section 16.28).
    pub struct RenewArgs {
        /// The client id.
        pub client_id: ClientId4 = "clientid",
    }
}
