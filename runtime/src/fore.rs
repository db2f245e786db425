//! Fore-channel calls that arrive on the connections, and their replies.

use crate::ConnectionId;
use ringback_rpc::xdr;

/// Names one fore-channel call until it is answered: the connection and which call on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallToken {
    pub(crate) connection: ConnectionId,
    pub(crate) serial: u64,
}

/// The embedder's fore-channel handler.
pub trait ForeChannel: Send + Sync + 'static {
    /// A CALL record arrived. Runs on the reactor that owns the connection and must not block: answer here with
    /// [`Call::reply`], or keep [`Call::token`] and answer later from any thread with
    /// [`Runtime::reply`](crate::Runtime::reply), in any order.
    fn call(&self, call: Call<'_>);

    /// A connection is gone; calls not answered yet need no answer.
    fn closed(&self, connection: ConnectionId) {
        let _ = connection;
    }
}

/// A received CALL record and the place for its answer.
pub struct Call<'a> {
    pub(crate) token: CallToken,
    pub(crate) record: RecordBytes<'a>,
    pub(crate) out: &'a mut dyn ReplySink,
}

/// A record, in a receive buffer or reassembled.
pub(crate) enum RecordBytes<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

/// Where an inline reply goes; the connection's staging buffer in a reactor.
pub(crate) trait ReplySink {
    /// Appends one record of at most `bytes_max` bytes, written by `write`; appends nothing if that fails.
    fn reply(
        &mut self,
        token: CallToken,
        bytes_max: usize,
        write: &mut dyn FnMut(&mut xdr::Writer<'_>) -> xdr::Result<()>,
    ) -> xdr::Result<()>;
}

impl Call<'_> {
    /// The connection on which the call arrived.
    pub fn connection(&self) -> ConnectionId {
        self.token.connection
    }

    /// Names the call for a later reply.
    pub fn token(&self) -> CallToken {
        self.token
    }

    /// The record, without its mark: an RPC call header and the arguments.
    pub fn record(&self) -> &[u8] {
        match &self.record {
            RecordBytes::Borrowed(b) => b,
            RecordBytes::Owned(v) => v,
        }
    }

    /// The record, to be kept. A large record that was reassembled is moved, not copied.
    pub fn into_record(self) -> Vec<u8> {
        match self.record {
            RecordBytes::Borrowed(b) => b.to_vec(),
            RecordBytes::Owned(v) => v,
        }
    }

    /// Answers the call: `write` writes the reply (RPC header and results, no record mark) of at most `bytes_max` bytes.
    /// On an error nothing is sent, the call stays unanswered, and the error is returned.
    pub fn reply(
        &mut self,
        bytes_max: usize,
        mut write: impl FnMut(&mut xdr::Writer<'_>) -> xdr::Result<()>,
    ) -> xdr::Result<()> {
        self.out.reply(self.token, bytes_max, &mut write)
    }
}
