//! Names for what an embedder registers. They are plain numbers, cheap to store, and never name a later thing by
//! mistake: what is gone stays gone.

/// A client (always the NFS client).
///
/// # Examples
///
/// ```
/// use ringback::ClientId;
///
/// fn same(client: ClientId) -> bool {
///     ClientId::from_bits(client.to_bits()) == client
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// A session of a client (RFC 8881 section 2.10).
///
/// # Examples
///
/// ```
/// use ringback::{Error, Runtime, SessionKey};
///
/// /// DESTROY_SESSION.
/// fn destroyed(runtime: &Runtime, session: SessionKey) -> Result<(), Error> {
///     runtime.remove_session(session)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    pub(crate) client: ClientId,
    pub(crate) serial: u64,
}

/// A connection: a socket handed in, or an embedder's own transport.
///
/// # Examples
///
/// ```
/// use ringback::{ConnectionId, Error, Runtime};
/// use std::net::TcpStream;
///
/// fn accepted(runtime: &Runtime, socket: TcpStream) -> Result<ConnectionId, Error> {
///     runtime.add_connection(socket)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    pub(crate) reactor: u16,
    /// Never reused within one runtime.
    pub(crate) serial: u64,
}

impl ClientId {
    /// A number that names the client, for logs, and to be kept. Never 0.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The client that [`to_bits`](ClientId::to_bits) named. Any value is safe: one that was never given out names nobody.
    pub fn from_bits(bits: u64) -> Self {
        ClientId { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

impl SessionKey {
    /// The client whose session it is, and a number that tells it from every other session of the runtime.
    pub fn to_parts(self) -> (ClientId, u64) {
        (self.client, self.serial)
    }

    /// The session that [`to_parts`](SessionKey::to_parts) named. Any value is safe: one that was never given out names no
    /// session.
    pub fn from_parts(client: ClientId, serial: u64) -> Self {
        SessionKey { client, serial }
    }
}

impl ConnectionId {
    /// The reactor that drives the connection. Handed over to a runtime with fewer reactors, a connection keeps its name: then it
    /// is this number modulo theirs.
    pub fn reactor(self) -> usize {
        self.reactor.into()
    }

    /// A number that names the connection, for logs, and to be kept. Never 0. The top 16 bits are the reactor.
    pub fn to_bits(self) -> u64 {
        u64::from(self.reactor) << 48 | self.serial
    }

    /// The connection that [`to_bits`](ConnectionId::to_bits) named. Any value is safe: one that was never given out names no
    /// connection.
    pub fn from_bits(bits: u64) -> Self {
        ConnectionId { reactor: (bits >> 48) as u16, serial: bits & ((1 << 48) - 1) }
    }
}
