//! Fore-channel calls that arrive on the connections, and their replies.

use crate::ConnectionId;
use ringback_rpc::xdr::{self, XdrError};

/// Names one fore-channel call that will be answered later, with [`Runtime::reply`](crate::Runtime::reply). There is one
/// per call, so a call cannot be answered twice. A call that will never be answered still counts against the
/// connection's limit of unanswered calls: answer with an error instead.
///
/// # Examples
///
/// ```
/// use ringback::{CallToken, Runtime};
///
/// /// The protocol engine has made the reply to a call that was deferred.
/// fn answer(runtime: &Runtime, token: CallToken, reply: Vec<u8>) {
///     println!("to {:?}", token.connection());
///     runtime.reply(token, vec![reply]);
/// }
/// ```
#[derive(Debug, PartialEq, Eq, Hash)]
#[must_use = "an unanswered call counts against the limits of its connection"]
pub struct CallToken {
    pub(crate) connection: ConnectionId,
    /// Which call of the connection, for logs.
    pub(crate) serial: u64,
}

impl CallToken {
    /// The connection on which the call arrived.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// The connection, and which call of it this is: to be kept where the call is still to be answered in
    /// [another process](crate::Builder::upgrade_from).
    pub fn to_parts(&self) -> (ConnectionId, u64) {
        (self.connection, self.serial)
    }

    /// What [`to_parts`](CallToken::to_parts) has named, of a call that another process has taken along and not answered.
    pub fn from_parts(connection: ConnectionId, serial: u64) -> Self {
        CallToken { connection, serial }
    }
}

/// The embedder's fore-channel handler.
///
/// # Examples
///
/// ```
/// use ringback::{Call, CallToken, ConnectionId, ForeChannel};
/// use std::sync::{Mutex, mpsc::Sender};
///
/// /// Hands the calls to the threads of a protocol engine.
/// struct Engine(Mutex<Sender<(CallToken, Vec<u8>)>>);
///
/// impl ForeChannel for Engine {
///     fn call(&self, call: Call<'_>) {
///         let sender = self.0.lock().unwrap();
///         // The engine may have ended: then nobody answers.
///         let _ = sender.send(call.defer());
///     }
///
///     fn closed(&self, connection: ConnectionId) {
///         println!("{connection:?} is gone");
///     }
/// }
/// ```
pub trait ForeChannel: Send + Sync + 'static {
    /// A CALL record arrived. Runs on the reactor that owns the connection and must not block: answer here with
    /// [`Call::reply`], or take it along with [`Call::defer`] and answer later from any thread, in any order. A call that
    /// is dropped gets no answer.
    fn call(&self, call: Call<'_>);

    /// A connection is gone; calls not answered yet need no answer.
    fn closed(&self, connection: ConnectionId) {
        let _ = connection;
    }
}

/// A received CALL record and the place for its answer.
///
/// # Examples
///
/// ```
/// use ringback::Call;
/// use ringback_rpc::message::{MessageType, ReplyHeader, peek};
/// use ringback_rpc::xdr::Encode;
///
/// /// Answers every call as if it were a NULL.
/// fn answer(call: Call<'_>) {
///     if let Ok((xid, MessageType::Call)) = peek(call.record()) {
///         let _ = call.reply(1024, |_, reply| ReplyHeader::success(xid).encode(reply));
///     }
/// }
/// ```
pub struct Call<'a> {
    pub(crate) token: CallToken,
    pub(crate) record: RecordBytes<'a>,
    pub(crate) out: &'a mut dyn ReplySink,
}

/// A record, in a receive buffer or reassembled.
pub(crate) type RecordBytes<'a> = ringback_rpc::record::Record<'a>;

/// Where an inline reply goes.
pub(crate) trait ReplySink {
    /// Appends one record of at most `bytes_max` bytes, written by `write`; appends nothing if that fails.
    fn reply(
        &mut self,
        bytes_max: usize,
        write: &mut dyn FnMut(&mut xdr::Writer<'_>) -> xdr::Result<()>,
    ) -> xdr::Result<()>;

    /// The call will be answered later.
    fn defer(&mut self);
}

impl Call<'_> {
    /// The connection on which the call arrived.
    pub fn connection(&self) -> ConnectionId {
        self.token.connection
    }

    /// The record, without its mark: an RPC call header and the arguments.
    pub fn record(&self) -> &[u8] {
        &self.record
    }

    /// Takes the call along, to be answered later. A large record that was reassembled is moved, not copied.
    pub fn defer(self) -> (CallToken, Vec<u8>) {
        self.out.defer();
        (self.token, self.record.into_vec())
    }

    /// Answers the call: `write` is given the call's record and writes the reply (RPC header and results, no record mark)
    /// of at most `bytes_max` bytes, at whatever position the writer has. It is called at most once.
    /// On an error nothing is sent, and the call comes back to be answered in another way.
    pub fn reply(
        self,
        bytes_max: usize,
        mut write: impl FnMut(&[u8], &mut xdr::Writer<'_>) -> xdr::Result<()>,
    ) -> Result<(), (Self, XdrError)> {
        match self.out.reply(bytes_max, &mut |w| write(&self.record, w)) {
            Ok(()) => Ok(()),
            Err(error) => Err((self, error)),
        }
    }
}
