//! Client ids: EXCHANGE_ID, RECLAIM_COMPLETE, DESTROY_CLIENTID.

use crate::nfs4::wire::{undefined, wire_field, wire_struct};
use crate::nfs4::{Bitmap4, ClientId4, List, NfsTime4, OPAQUE_LIMIT, Verifier4};
use crate::xdr::{Decode, Encode, Reader, Result, Writer};

/// eia_flags and eir_flags (RFC 8881 section 18.35.3).
pub mod exchange_id_flag {
    /// EXCHGID4_FLAG_SUPP_MOVED_REFER.
    pub const SUPP_MOVED_REFER: u32 = 0x1;
    /// EXCHGID4_FLAG_SUPP_MOVED_MIGR.
    pub const SUPP_MOVED_MIGR: u32 = 0x2;
    /// EXCHGID4_FLAG_BIND_PRINC_STATEID.
    pub const BIND_PRINC_STATEID: u32 = 0x100;
    /// EXCHGID4_FLAG_USE_NON_PNFS.
    pub const USE_NON_PNFS: u32 = 0x1_0000;
    /// EXCHGID4_FLAG_USE_PNFS_MDS.
    pub const USE_PNFS_MDS: u32 = 0x2_0000;
    /// EXCHGID4_FLAG_USE_PNFS_DS.
    pub const USE_PNFS_DS: u32 = 0x4_0000;
    /// EXCHGID4_FLAG_UPD_CONFIRMED_REC_A, set by clients only.
    pub const UPD_CONFIRMED_REC_A: u32 = 0x4000_0000;
    /// EXCHGID4_FLAG_CONFIRMED_R, set by servers only.
    pub const CONFIRMED_R: u32 = 0x8000_0000;
}

/// Opaque data of at most [`OPAQUE_LIMIT`] bytes (RFC 5662, `opaque<NFS4_OPAQUE_LIMIT>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opaque4<'a>(&'a [u8]);

impl<'a> Opaque4<'a> {
    /// The data; `None` if it is too long.
    pub const fn new(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() <= OPAQUE_LIMIT { Some(Opaque4(bytes)) } else { None }
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Decode<'a> for Opaque4<'a> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        r.opaque("opaque<NFS4_OPAQUE_LIMIT>", OPAQUE_LIMIT).map(Opaque4)
    }
}

impl Encode for Opaque4<'_> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.opaque(self.0)
    }
}

wire_field!(Opaque4<'a>);

wire_struct! {
    /// Who the client says it is (RFC 8881 section 18.35.1, `client_owner4`).
    pub struct ClientOwner<'a> {
        /// Tells incarnations of the client apart.
        pub verifier: Verifier4 = "co_verifier",
        /// The client, over all its incarnations.
        pub owner_id: Opaque4<'a> = "co_ownerid",
    }
}

wire_struct! {
    /// Which implementation (RFC 8881 section 18.35.1, `nfs_impl_id4`).
    pub struct ImplId<'a> {
        /// The DNS domain of the author.
        pub domain: &'a [u8] = "nii_domain",
        /// The implementation.
        pub name: &'a [u8] = "nii_name",
        /// When it was built.
        pub date: NfsTime4 = "nii_date",
    }
}

wire_struct! {
    /// Operations that need the machine credential (RFC 8881 section 18.35.1, `state_protect_ops4`).
    pub struct StateProtectOps {
        /// Must use it.
        pub must_enforce: Bitmap4 = "spo_must_enforce",
        /// May use it.
        pub must_allow: Bitmap4 = "spo_must_allow",
    }
}

wire_struct! {
    /// What the client asks of SP4_SSV (RFC 8881 section 18.35.1, `ssv_sp_parms4`).
    pub struct SsvParams<'a> {
        /// The operations.
        pub ops: StateProtectOps = "ssp_ops",
        /// Hash algorithms.
        pub hash_algorithms: List<'a, SecOid4<'a>> = "ssp_hash_algs",
        /// Encryption algorithms.
        pub encryption_algorithms: List<'a, SecOid4<'a>> = "ssp_encr_algs",
        /// SSVs that the server keeps.
        pub window: u32 = "ssp_window",
        /// GSS handles that the client wants.
        pub gss_handles: u32 = "ssp_num_gss_handles",
    }
}

wire_struct! {
    /// What the server grants of SP4_SSV (RFC 8881 section 18.35.2, `ssv_prot_info4`).
    pub struct SsvInfo<'a> {
        /// The operations.
        pub ops: StateProtectOps = "spi_ops",
        /// Index of the hash algorithm.
        pub hash_algorithm: u32 = "spi_hash_alg",
        /// Index of the encryption algorithm.
        pub encryption_algorithm: u32 = "spi_encr_alg",
        /// Bytes of the SSV.
        pub ssv_bytes: u32 = "spi_ssv_len",
        /// SSVs that the server keeps.
        pub window: u32 = "spi_window",
        /// The handles.
        pub handles: List<'a, GssHandle4<'a>> = "spi_handles",
    }
}

wire_struct! {
    /// Arguments of EXCHANGE_ID (RFC 8881 section 18.35).
    pub struct ExchangeIdArgs<'a> {
        /// Who the client is.
        pub client_owner: ClientOwner<'a> = "eia_clientowner",
        /// See [`exchange_id_flag`].
        pub flags: u32 = "eia_flags",
        /// The state protection asked for.
        pub state_protect: StateProtectArgs<'a> = "eia_state_protect",
        /// The client's implementation.
        pub impl_id: Option<ImplId<'a>> = "eia_client_impl_id",
    }
}

wire_struct! {
    /// Who the server is (RFC 8881 section 18.35.2, `server_owner4`).
    pub struct ServerOwner<'a> {
        /// Tells the parts of one server apart.
        pub minor_id: u64 = "so_minor_id",
        /// The server.
        pub major_id: Opaque4<'a> = "so_major_id",
    }
}

wire_struct! {
    /// Results of EXCHANGE_ID.
    pub struct ExchangeIdOk<'a> {
        /// The client id.
        pub client_id: ClientId4 = "eir_clientid",
        /// The sequence id for the first CREATE_SESSION.
        pub sequence_id: u32 = "eir_sequenceid",
        /// See [`exchange_id_flag`].
        pub flags: u32 = "eir_flags",
        /// The state protection granted.
        pub state_protect: StateProtectOk<'a> = "eir_state_protect",
        /// Who the server is.
        pub server_owner: ServerOwner<'a> = "eir_server_owner",
        /// The scope in which the server's ids are valid.
        pub server_scope: Opaque4<'a> = "eir_server_scope",
        /// The server's implementation.
        pub impl_id: Option<ImplId<'a>> = "eir_server_impl_id",
    }
}

wire_struct! {
    /// Arguments of RECLAIM_COMPLETE (RFC 8881 section 18.51).
    pub struct ReclaimCompleteArgs {
        /// Whether this is about the current filehandle's file system only.
        pub one_fs: bool = "rca_one_fs",
    }
}

wire_struct! {
    /// Arguments of DESTROY_CLIENTID (RFC 8881 section 18.50).
    pub struct DestroyClientIdArgs {
        /// The client id.
        pub client_id: ClientId4 = "dca_clientid",
    }
}

wire_struct! {
    /// The object identifier of an algorithm (RFC 8881 section 3.2, `sec_oid4`).
    pub struct SecOid4<'a> {
        /// Its DER encoding.
        pub der: &'a [u8] = "sec_oid4",
    }
}

wire_struct! {
    /// The handle of an RPCSEC_GSS context (RFC 8881 section 18.35.2, `gsshandle4_t`).
    pub struct GssHandle4<'a> {
        /// The handle.
        pub handle: &'a [u8] = "gsshandle4_t",
    }
}

/// A union over `state_protect_how4`, once for the arguments and once for the results.
macro_rules! state_protect {
    ($(#[$meta:meta])* $name:ident, $ssv:ty, $wire:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name<'a> {
            /// SP4_NONE.
            None,
            /// SP4_MACH_CRED.
            MachCred(StateProtectOps),
            /// SP4_SSV.
            Ssv($ssv),
        }

        impl<'a> Decode<'a> for $name<'a> {
            fn decode(r: &mut Reader<'a>) -> Result<Self> {
                let offset = r.offset();
                match r.u32($wire)? {
                    0 => Ok($name::None),
                    1 => Decode::decode(r).map($name::MachCred),
                    2 => Decode::decode(r).map($name::Ssv),
                    value => Err(undefined($wire, offset, value)),
                }
            }
        }

        impl Encode for $name<'_> {
            fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
                match self {
                    $name::None => w.u32(0),
                    $name::MachCred(ops) => w.u32(1).and_then(|()| ops.encode(w)),
                    $name::Ssv(ssv) => w.u32(2).and_then(|()| ssv.encode(w)),
                }
            }
        }

        wire_field!($name<'a>);
    };
}

state_protect! {
    /// How state is to be protected (RFC 8881 section 18.35.1, `state_protect4_a`).
    StateProtectArgs, SsvParams<'a>, "spa_how"
}
state_protect! {
    /// How state is protected (RFC 8881 section 18.35.2, `state_protect4_r`).
    StateProtectOk, SsvInfo<'a>, "spr_how"
}
