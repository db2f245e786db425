//! The protocol half of ringback, sans-IO: no sockets, no clock, no threads. Bytes and the time come in as
//! arguments, bytes and decisions go out; [`backchannel`] is the core that everything else here serves.
//!
//! - [`xdr`]: bounded cursors over byte slices (RFC 4506).
//! - [`record`]: record marking (RFC 5531 section 11).
//! - [`session`]: session slot tables (RFC 8881 section 2.10.6.1).
//! - [`message`]: ONC RPC call and reply headers (RFC 5531).
//! - [`nfs4`]: the callback program and the fore-channel operations around delegations (RFC 8881, RFC 7862, RFC 7530).
#![forbid(unsafe_code)]

pub mod backchannel;
pub mod message;
pub mod nfs4;
pub mod record;
pub mod session;
pub mod xdr;
