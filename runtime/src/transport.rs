//! The third shape of the seam: an embedder that owns its transport (its own event loop, RDMA, TLS) hands in records
//! received and takes records to send.

use crate::command::Command;
use crate::io::SendBuf;
use crate::keys::ConnectionId;
use crate::registry::Shared;
use std::io;
use std::sync::Arc;

/// An embedder's transport for one connection. Called on the reactor that owns the connection; must not block.
///
/// What was received goes to [`Runtime::receive`](crate::Runtime::receive); that the connection is gone is said with
/// [`Runtime::close_connection`](crate::Runtime::close_connection).
///
/// # Examples
///
/// ```
/// use ringback::{Outbound, Transport};
/// use std::io::Write;
/// use std::net::{Shutdown, TcpStream};
/// use std::sync::mpsc::Sender;
///
/// /// For a connection whose records are written by a thread of its own.
/// struct ToWriter(Sender<Outbound>, TcpStream);
///
/// impl Transport for ToWriter {
///     fn send(&mut self, outbound: Outbound) {
///         let _ = self.0.send(outbound);
///     }
///
///     fn close(&mut self) {
///         let _ = self.1.shutdown(Shutdown::Both);
///     }
/// }
/// ```
pub trait Transport: Send + 'static {
    /// Sends records, one or several, each with its record mark (RFC 5531 section 11), in one piece. There is never more
    /// than one [`Outbound`] at a time: the next is handed over when this one has been [completed](Outbound::complete) or
    /// dropped.
    fn send(&mut self, outbound: Outbound);

    /// The connection has as many calls or bytes to answer as it may have
    /// ([`calls_unanswered_max`](crate::Builder::calls_unanswered_max),
    /// [`unsent_bytes_max`](crate::Builder::unsent_bytes_max)): hand in nothing more until [`Transport::resume`], so that
    /// the peer is held back. What is handed in all the same is taken, and nothing bounds it.
    fn pause(&mut self) {}

    /// Half of what made it pause is gone.
    fn resume(&mut self) {}

    /// The runtime is done with the connection. Nothing may be sent on it afterwards, nor may what has been begun be sent
    /// on another one: the same calls may go out on another connection right after this (RFC 8881 section 2.10.6.2).
    fn close(&mut self);
}

/// Marked records on their way out through an embedder's transport.
///
/// # Examples
///
/// ```
/// use ringback::Outbound;
/// use std::io::Write;
///
/// fn write(mut socket: impl Write, outbound: Outbound) {
///     let written = socket.write_all(outbound.bytes());
///     outbound.complete(written);
/// }
/// ```
pub struct Outbound {
    buf: Option<SendBuf>,
    connection: ConnectionId,
    shared: Arc<Shared>,
}

impl Outbound {
    pub(crate) fn new(buf: SendBuf, connection: ConnectionId, shared: Arc<Shared>) -> Self {
        Outbound { buf: Some(buf), connection, shared }
    }

    /// The bytes to send. They do not move until the completion.
    pub fn bytes(&self) -> &[u8] {
        self.buf.as_ref().map_or(&[], SendBuf::unsent)
    }

    /// The connection.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// Says that all of it was sent, or that the transport failed and the connection is to be closed. Dropping an
    /// outbound completes it as sent.
    pub fn complete(mut self, result: io::Result<()>) {
        self.finish(result);
    }

    fn finish(&mut self, result: io::Result<()>) {
        if let Some(buf) = self.buf.take() {
            let command = Command::Transmitted { connection: self.connection, buf, result };
            self.shared.port_of(self.connection).post(command);
        }
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.finish(Ok(()));
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbound({} bytes on {:?})", self.bytes().len(), self.connection)
    }
}
