//! The callback half of an NFSv4 server: a runtime that a file server links to call its clients back over the
//! backchannel (CB_RECALL and its kin) and that never loses count.

#[cfg(not(loom))]
mod keys;

#[cfg(not(loom))]
pub use keys::{ClientId, ConnectionId, SessionKey};

#[allow(dead_code)] // until the reactor uses all of it
mod callback;
#[allow(dead_code)] // as above
mod sync;

pub use callback::{CallbackKey, InsertError, Remove, TryRun};

#[cfg(not(loom))]
pub mod io;
