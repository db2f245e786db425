//! Sessions: CREATE_SESSION, BIND_CONN_TO_SESSION, BACKCHANNEL_CTL, SEQUENCE, DESTROY_SESSION.

use crate::nfs4::wire::{wire_enum, wire_struct};
use crate::nfs4::{CallbackSecParms, ClientId4, List, SessionId};

/// csa_flags and csr_flags (RFC 8881 section 18.36.3).
pub mod create_session_flag {
    /// CREATE_SESSION4_FLAG_PERSIST: the reply cache survives a restart of the server.
    pub const PERSIST: u32 = 1;
    /// CREATE_SESSION4_FLAG_CONN_BACK_CHAN: this connection carries the backchannel as well.
    pub const CONN_BACK_CHAN: u32 = 2;
    /// CREATE_SESSION4_FLAG_CONN_RDMA: step up to RDMA.
    pub const CONN_RDMA: u32 = 4;
}

/// sr_status_flags (RFC 8881 section 18.46.3).
pub mod seq4_status {
    /// SEQ4_STATUS_CB_PATH_DOWN.
    pub const CB_PATH_DOWN: u32 = 0x1;
    /// SEQ4_STATUS_CB_GSS_CONTEXTS_EXPIRING.
    pub const CB_GSS_CONTEXTS_EXPIRING: u32 = 0x2;
    /// SEQ4_STATUS_CB_GSS_CONTEXTS_EXPIRED.
    pub const CB_GSS_CONTEXTS_EXPIRED: u32 = 0x4;
    /// SEQ4_STATUS_EXPIRED_ALL_STATE_REVOKED.
    pub const EXPIRED_ALL_STATE_REVOKED: u32 = 0x8;
    /// SEQ4_STATUS_EXPIRED_SOME_STATE_REVOKED.
    pub const EXPIRED_SOME_STATE_REVOKED: u32 = 0x10;
    /// SEQ4_STATUS_ADMIN_STATE_REVOKED.
    pub const ADMIN_STATE_REVOKED: u32 = 0x20;
    /// SEQ4_STATUS_RECALLABLE_STATE_REVOKED.
    pub const RECALLABLE_STATE_REVOKED: u32 = 0x40;
    /// SEQ4_STATUS_LEASE_MOVED.
    pub const LEASE_MOVED: u32 = 0x80;
    /// SEQ4_STATUS_RESTART_RECLAIM_NEEDED.
    pub const RESTART_RECLAIM_NEEDED: u32 = 0x100;
    /// SEQ4_STATUS_CB_PATH_DOWN_SESSION.
    pub const CB_PATH_DOWN_SESSION: u32 = 0x200;
    /// SEQ4_STATUS_BACKCHANNEL_FAULT.
    pub const BACKCHANNEL_FAULT: u32 = 0x400;
    /// SEQ4_STATUS_DEVID_CHANGED.
    pub const DEVID_CHANGED: u32 = 0x800;
    /// SEQ4_STATUS_DEVID_DELETED.
    pub const DEVID_DELETED: u32 = 0x1000;
}

wire_struct! {
    /// The limits of one channel (RFC 8881 section 18.36.1, `channel_attrs4`).
    pub struct ChannelAttrs {
        /// Padding of headers that the requester asks for.
        pub header_pad_bytes: u32 = "ca_headerpadsize",
        /// Longest request, RPC header included, record mark not.
        pub request_bytes_max: u32 = "ca_maxrequestsize",
        /// Longest reply.
        pub response_bytes_max: u32 = "ca_maxresponsesize",
        /// Longest reply that is cached when `cachethis` is set.
        pub response_bytes_max_cached: u32 = "ca_maxresponsesize_cached",
        /// Most operations in one compound, SEQUENCE included.
        pub operations_max: u32 = "ca_maxoperations",
        /// Session slots.
        pub requests_max: u32 = "ca_maxrequests",
        /// RDMA inbound reads, on RDMA only.
        pub rdma_ird: Option<u32> = "ca_rdma_ird",
    }
}

wire_struct! {
    /// Arguments of CREATE_SESSION (RFC 8881 section 18.36).
    pub struct CreateSessionArgs<'a> {
        /// The client id that EXCHANGE_ID gave.
        pub client_id: ClientId4 = "csa_clientid",
        /// The sequence id of CREATE_SESSION itself, from EXCHANGE_ID.
        pub sequence_id: u32 = "csa_sequence",
        /// See [`create_session_flag`].
        pub flags: u32 = "csa_flags",
        /// What the client asks for on the fore channel.
        pub fore_channel: ChannelAttrs = "csa_fore_chan_attrs",
        /// What the client asks for on the backchannel.
        pub back_channel: ChannelAttrs = "csa_back_chan_attrs",
        /// The program number under which the client serves callbacks.
        pub callback_program: u32 = "csa_cb_program",
        /// The credentials that the client accepts on callbacks.
        pub security: List<'a, CallbackSecParms<'a>> = "csa_sec_parms",
    }
}

wire_struct! {
    /// Results of CREATE_SESSION.
    pub struct CreateSessionOk {
        /// The new session.
        pub session_id: SessionId = "csr_sessionid",
        /// The sequence id of the request.
        pub sequence_id: u32 = "csr_sequence",
        /// What was granted of the flags asked for.
        pub flags: u32 = "csr_flags",
        /// What holds on the fore channel.
        pub fore_channel: ChannelAttrs = "csr_fore_chan_attrs",
        /// What holds on the backchannel.
        pub back_channel: ChannelAttrs = "csr_back_chan_attrs",
    }
}

wire_struct! {
    /// Arguments of BIND_CONN_TO_SESSION (RFC 8881 section 18.34).
    pub struct BindConnToSessionArgs {
        /// The session.
        pub session_id: SessionId = "bctsa_sessid",
        /// The channels asked for.
        pub direction: BindDirection = "bctsa_dir",
        /// Whether to step up to RDMA.
        pub rdma: bool = "bctsa_use_conn_in_rdma_mode",
    }
}

wire_struct! {
    /// Results of BIND_CONN_TO_SESSION.
    pub struct BindConnToSessionOk {
        /// The session.
        pub session_id: SessionId = "bctsr_sessid",
        /// The channels that the connection is bound to.
        pub direction: BoundDirection = "bctsr_dir",
        /// Whether to step up to RDMA.
        pub rdma: bool = "bctsr_use_conn_in_rdma_mode",
    }
}

wire_struct! {
    /// Arguments of BACKCHANNEL_CTL (RFC 8881 section 18.33).
    pub struct BackchannelCtlArgs<'a> {
        /// The program number of callbacks from now on.
        pub callback_program: u32 = "bca_cb_program",
        /// The credentials of callbacks from now on.
        pub security: List<'a, CallbackSecParms<'a>> = "bca_sec_parms",
    }
}

wire_struct! {
    /// Arguments of SEQUENCE (RFC 8881 section 18.46).
    pub struct SequenceArgs {
        /// The session.
        pub session_id: SessionId = "sa_sessionid",
        /// One more than the last request on this session slot.
        pub sequence_id: u32 = "sa_sequenceid",
        /// The session slot.
        pub slot_id: u32 = "sa_slotid",
        /// The highest session slot with a request outstanding.
        pub highest_slot_id: u32 = "sa_highest_slotid",
        /// Whether the client wants the reply cached.
        pub cache_this: bool = "sa_cachethis",
    }
}

wire_struct! {
    /// Results of SEQUENCE.
    pub struct SequenceOk {
        /// As in the request.
        pub session_id: SessionId = "sr_sessionid",
        /// As in the request.
        pub sequence_id: u32 = "sr_sequenceid",
        /// As in the request.
        pub slot_id: u32 = "sr_slotid",
        /// The highest session slot that the server takes.
        pub highest_slot_id: u32 = "sr_highest_slotid",
        /// The highest session slot that the server would like the client to use.
        pub target_highest_slot_id: u32 = "sr_target_highest_slotid",
        /// See [`seq4_status`].
        pub status_flags: u32 = "sr_status_flags",
    }
}

wire_struct! {
    /// Arguments of DESTROY_SESSION (RFC 8881 section 18.37).
    pub struct DestroySessionArgs {
        /// The session.
        pub session_id: SessionId = "dsa_sessionid",
    }
}

wire_enum! {
    /// What a client asks of BIND_CONN_TO_SESSION (RFC 8881 section 18.34.1, `channel_dir_from_client4`).
    pub enum BindDirection = "bctsa_dir" {
        /// CDFC4_FORE.
        Fore = 1,
        /// CDFC4_BACK.
        Back = 2,
        /// CDFC4_FORE_OR_BOTH.
        ForeOrBoth = 3,
        /// CDFC4_BACK_OR_BOTH.
        BackOrBoth = 7,
    }
}

wire_enum! {
    /// What a server granted (RFC 8881 section 18.34.2, `channel_dir_from_server4`).
    pub enum BoundDirection = "bctsr_dir" {
        /// CDFS4_FORE.
        Fore = 1,
        /// CDFS4_BACK.
        Back = 2,
        /// CDFS4_BOTH.
        Both = 3,
    }
}
