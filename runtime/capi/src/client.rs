//! Clients and sessions.

use crate::error::{Failure, guard, rb_error};
use crate::pointer::{self, Versioned, not_null};
use crate::{numbers, rb_client, rb_connection, rb_runtime, rb_session};
use runtime::{ClientId, ClientLimits, Security, SessionConfig};
use std::ffi::c_int;
use std::mem::MaybeUninit;

/// How callbacks are authenticated, as the client asked in csa_sec_parms or bca_sec_parms. Linux clients refuse AUTH_NONE
/// for everything but CB_NULL.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_security {
    /// The RPC flavor: 0 is AUTH_NONE, 1 is AUTH_SYS (RFC 5531); then the rest is the credential to use.
    pub flavor: u32,
    /// The stamp.
    pub stamp: u32,
    /// The machine name, at most 255 bytes.
    pub machine_name: *const u8,
    /// Its length.
    pub machine_name_bytes: usize,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, at most 16.
    pub gids: *const u32,
    /// How many.
    pub gids_count: usize,
}

impl rb_security {
    /// # Safety
    ///
    /// P2.
    pub unsafe fn get(&self) -> Result<Security, Failure> {
        match self.flavor {
            0 => Ok(Security::None),
            1 => {
                // SAFETY: P2
                let name = unsafe { pointer::slice(self.machine_name, self.machine_name_bytes, "machine_name") }?;
                // SAFETY: P2
                let gids = unsafe { pointer::slice(self.gids, self.gids_count, "gids") }?;
                let (stamp, uid, gid) = (self.stamp, self.uid, self.gid);
                Ok(Security::Sys { stamp, machine_name: name.to_vec(), uid, gid, gids: gids.to_vec() })
            }
            other => {
                let text = format!("flavor is {other}: callbacks can be sent with AUTH_NONE (0) and AUTH_SYS (1)");
                Err(Failure::new(rb_error::RB_ERR_INVALID, text))
            }
        }
    }
}

/// What CREATE_SESSION (RFC 8881 section 18.36) negotiated for a session's backchannel. Set `size`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct rb_session_options {
    /// sizeof(rb_session_options).
    pub size: usize,
    /// The session id.
    pub session_id: [u8; 16],
    /// The callback program's number (csa_cb_program).
    pub program: u32,
    /// Minor version of the client: 1 or 2.
    pub minor_version: u32,
    /// Session slots (ca_maxrequests).
    pub slots: u32,
    /// Largest request (ca_maxrequestsize), in bytes.
    pub request_bytes_max: u32,
    /// Largest response (ca_maxresponsesize), in bytes.
    pub response_bytes_max: u32,
    /// Most operations in one CB_COMPOUND, CB_SEQUENCE included (ca_maxoperations).
    pub operations_max: u32,
    /// How callbacks are authenticated (csa_sec_parms).
    pub security: rb_security,
}

// SAFETY: as the trait asks for.
unsafe impl Versioned for rb_session_options {
    const NAME: &'static str = "rb_session_options";
}

/// As it is called in metrics.
pub fn name(client: ClientId) -> String {
    format!("{:#x}", client.to_bits())
}

pub fn about(client: rb_client) -> impl FnOnce() -> String {
    move || format!("client {client:#x}")
}

/// Registers a client near a connection, the one on which it made itself known; 0: anywhere.
#[unsafe(no_mangle)]
pub extern "C" fn rb_add_client(
    runtime: Option<&rb_runtime>,
    near_connection: rb_connection,
    client: Option<&mut MaybeUninit<rb_client>>,
) -> c_int {
    guard("rb_add_client", String::new, || {
        let client = not_null(client, "client")?;
        client.write(0);
        let runtime = not_null(runtime, "runtime")?;
        let near = (near_connection != 0).then(|| runtime.connection(near_connection)).transpose()?;
        client.write(runtime.runtime.add_client(near)?.to_bits());
        Ok(0)
    })
}

/// Forgets a client, its sessions included: its runs end as RB_ENDED_CANCELLED. Its callbacks are still to be removed.
#[unsafe(no_mangle)]
pub extern "C" fn rb_remove_client(runtime: Option<&rb_runtime>, client: rb_client) -> c_int {
    guard("rb_remove_client", about(client), || {
        not_null(runtime, "runtime")?.runtime.remove_client(ClientId::from_bits(client))?;
        Ok(0)
    })
}

/// Announces what the file server knows of a client: an rb_client_state.
#[unsafe(no_mangle)]
pub extern "C" fn rb_set_client_state(runtime: Option<&rb_runtime>, client: rb_client, state: i32) -> c_int {
    guard("rb_set_client_state", about(client), || {
        let runtime = not_null(runtime, "runtime")?;
        runtime.runtime.set_client_state(ClientId::from_bits(client), numbers::client_state(state)?)?;
        Ok(0)
    })
}

/// What this client is sent at most, from now on; what is out stays out: calls that are out at once (some old clients break
/// on two recalls at a time; 0: as many as its sessions have slots), and callbacks per second (0: any number).
#[unsafe(no_mangle)]
pub extern "C" fn rb_set_client_limits(
    runtime: Option<&rb_runtime>,
    client: rb_client,
    calls_max: u32,
    rate_max: u32,
) -> c_int {
    guard("rb_set_client_limits", about(client), || {
        let limits = ClientLimits::default().calls_max(calls_max).rate_max(rate_max);
        not_null(runtime, "runtime")?.runtime.set_client_limits(ClientId::from_bits(client), limits)?;
        Ok(0)
    })
}

/// Moves a client to another home reactor, with all that is under way; RB_EVENT_MOVED tells when it is there. Its connections
/// stay where they are and carry bytes for it. With RB_DELIVERY_QUEUE its next completions come on the queue of that reactor.
#[unsafe(no_mangle)]
pub extern "C" fn rb_move_client(runtime: Option<&rb_runtime>, client: rb_client, reactor: u32) -> c_int {
    guard("rb_move_client", about(client), || {
        not_null(runtime, "runtime")?.runtime.move_client(ClientId::from_bits(client), reactor as usize)?;
        Ok(0)
    })
}

/// The reactor that is the home of a client, or will be when it has moved.
#[unsafe(no_mangle)]
pub extern "C" fn rb_home_of(runtime: Option<&rb_runtime>, client: rb_client) -> c_int {
    guard("rb_home_of", about(client), || {
        // There are 1,024 at most.
        Ok(not_null(runtime, "runtime")?.runtime.home_of(ClientId::from_bits(client))? as c_int)
    })
}

/// The SEQ4_STATUS bits (RFC 8881 section 18.46.3) about the callback path, to be ORed into the reply to a SEQUENCE on
/// `session`; `session` null: of the client alone. 0 for a client that is not registered.
#[unsafe(no_mangle)]
pub extern "C" fn rb_seq4_status(
    runtime: Option<&rb_runtime>,
    client: rb_client,
    session: Option<&rb_session>,
    flags: Option<&mut MaybeUninit<u32>>,
) -> c_int {
    guard("rb_seq4_status", about(client), || {
        let flags = not_null(flags, "flags")?;
        flags.write(0);
        let runtime = not_null(runtime, "runtime")?;
        let session = session.map(|session| (*session).into());
        flags.write(runtime.runtime.seq4_status(ClientId::from_bits(client), session));
        Ok(0)
    })
}

/// 1 if the client has ever answered this operation (an rb_op) with NFS4ERR_NOTSUPP, in whichever session: asking again is
/// allowed and of no use. Else, or for a client that is not registered, 0.
#[unsafe(no_mangle)]
pub extern "C" fn rb_is_unsupported(runtime: Option<&rb_runtime>, client: rb_client, op: i32) -> c_int {
    guard("rb_is_unsupported", about(client), || {
        let runtime = not_null(runtime, "runtime")?;
        Ok(runtime.runtime.is_unsupported(ClientId::from_bits(client), numbers::op(op)?).into())
    })
}

/// Registers a session that has a backchannel. Nothing is sent on it before rb_bind().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_add_session(
    runtime: Option<&rb_runtime>,
    client: rb_client,
    options: *const rb_session_options,
    session: Option<&mut MaybeUninit<rb_session>>,
) -> c_int {
    guard("rb_add_session", about(client), || {
        let session = not_null(session, "session")?;
        session.write(rb_session::default());
        let runtime = not_null(runtime, "runtime")?;
        // SAFETY: P3
        let options = unsafe { pointer::read(options, "options") }?;
        let config = SessionConfig {
            session_id: options.session_id,
            program: options.program,
            // SAFETY: P2
            security: unsafe { options.security.get() }?,
            slots: options.slots,
            request_bytes_max: options.request_bytes_max,
            response_bytes_max: options.response_bytes_max,
            operations_max: options.operations_max,
            minor_version: options.minor_version,
        };
        session.write(runtime.runtime.add_session(ClientId::from_bits(client), config)?.into());
        Ok(0)
    })
}

/// The client has destroyed the session. Its calls move to another session of the client, or wait for one.
#[unsafe(no_mangle)]
pub extern "C" fn rb_remove_session(runtime: Option<&rb_runtime>, session: rb_session) -> c_int {
    guard(
        "rb_remove_session",
        || session.to_string(),
        || {
            not_null(runtime, "runtime")?.runtime.remove_session(session.into())?;
            Ok(0)
        },
    )
}

/// The connection carries the session's backchannel from now on (CREATE_SESSION with CONN_BACK_CHAN, BIND_CONN_TO_SESSION).
/// Waiting callbacks are sent at once.
#[unsafe(no_mangle)]
pub extern "C" fn rb_bind(runtime: Option<&rb_runtime>, connection: rb_connection, session: rb_session) -> c_int {
    guard(
        "rb_bind",
        || format!("{session}, connection {connection:#x}"),
        || {
            let runtime = not_null(runtime, "runtime")?;
            runtime.runtime.bind(runtime.connection(connection)?, session.into())?;
            Ok(0)
        },
    )
}

/// BACKCHANNEL_CTL (RFC 8881 section 18.33): program and credential for calls of the session that have not been sent yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rb_backchannel_ctl(
    runtime: Option<&rb_runtime>,
    session: rb_session,
    program: u32,
    security: Option<&rb_security>,
) -> c_int {
    guard(
        "rb_backchannel_ctl",
        || session.to_string(),
        || {
            let runtime = not_null(runtime, "runtime")?;
            // SAFETY: P2
            let security = unsafe { not_null(security, "security")?.get() }?;
            runtime.runtime.backchannel_ctl(session.into(), program, security)?;
            Ok(0)
        },
    )
}
