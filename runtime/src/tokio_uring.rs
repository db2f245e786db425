//! For embedders that live in tokio-uring (feature `tokio-uring`): connections that are read and written on that runtime's
//! ring, and completions that are awaited there. [`Wait`](crate::Wait) and [`Drain`](crate::Drain) are plain futures, and
//! need nothing of this.
//!
//! It is an adapter over the seam for a [transport](crate::Transport) of one's own, and the only place where the public
//! interface names a type of tokio-uring. Shut the [`Runtime`] down before the tokio-uring runtime ends: that waits for its
//! operations in flight, and a read ends with its connection.

use crate::command::Command;
use crate::completion::{Completion, CompletionQueue};
use crate::keys::ConnectionId;
use crate::registry::Shared;
use crate::runtime::Runtime;
use crate::transport::{Outbound, Transport};
use ::tokio_uring::net::TcpStream;
use ringback_rpc::record::RecordReader;
use socket2::{SockRef, Socket};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

/// Read at a time from one connection.
const READ_BYTES: usize = 64 << 10;

/// Takes over a connected stream, as [`Runtime::add_connection`] does with a socket: two tasks of the tokio-uring runtime
/// that this is called in carry its records, until either side closes it. Each connection has a second descriptor, by which
/// a reactor can end it at once.
///
/// # Panics
///
/// Outside of a tokio-uring runtime.
///
/// # Examples
///
/// ```
/// # use ringback::{ConnectionId, Runtime};
/// async fn accept(runtime: Runtime, listener: tokio_uring::net::TcpListener) -> std::io::Result<()> {
///     loop {
///         let (stream, _) = listener.accept().await?;
///         ringback::tokio_uring::add_connection(&runtime, stream)?;
///     }
/// }
/// ```
pub fn add_connection(runtime: &Runtime, stream: TcpStream) -> io::Result<ConnectionId> {
    let socket = SockRef::from(&stream).try_clone()?;
    let (sender, outbounds) = mpsc::unbounded_channel();
    let (paused, pauses) = watch::channel(false);
    let transport = Box::new(Pumped { socket, outbounds: sender, paused });
    let connection = runtime.add_transport(transport).map_err(io::Error::other)?;
    let stream = Rc::new(stream);
    let end = End { shared: Arc::clone(runtime.shared()), connection };
    ::tokio_uring::spawn(receive(end, Rc::clone(&stream), pauses));
    ::tokio_uring::spawn(send(stream, outbounds));
    Ok(connection)
}

/// The reactor's side of a connection.
struct Pumped {
    socket: Socket,
    /// Never holds more than one.
    outbounds: mpsc::UnboundedSender<Outbound>,
    paused: watch::Sender<bool>,
}

impl Transport for Pumped {
    fn send(&mut self, outbound: Outbound) {
        // If the task has ended, the connection is as good as closed; dropping what is to be sent completes it.
        let _ = self.outbounds.send(outbound);
    }

    fn pause(&mut self) {
        self.paused.send_replace(true);
    }

    fn resume(&mut self) {
        self.paused.send_replace(false);
    }

    /// Not left to the tasks: the same calls may go out on another connection right after this.
    fn close(&mut self) {
        // An error says that it is closed already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Says that a connection is lost, also when its task is dropped. Does not keep the runtime alive.
struct End {
    shared: Arc<Shared>,
    connection: ConnectionId,
}

impl End {
    fn post(&self, command: Command) {
        self.shared.port_of(self.connection).post(command);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.post(Command::CloseConnection(self.connection));
    }
}

/// Hands in the records that arrive, until the connection ends or sends what is none.
async fn receive(end: End, stream: Rc<TcpStream>, mut pauses: watch::Receiver<bool>) {
    let mut records = RecordReader::new(end.shared.settings.record_bytes_max);
    let mut space = Vec::with_capacity(READ_BYTES);
    // An error says that the runtime has let go of the connection.
    while pauses.wait_for(|is_paused| !is_paused).await.is_ok() {
        let (Ok(1..), filled) = stream.read(space).await else { return };
        let mut input = filled.as_slice();
        loop {
            match records.next(&mut input) {
                Ok(Some(record)) => {
                    end.post(Command::Receive { connection: end.connection, record: record.into_vec() });
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        space = filled;
        space.clear();
    }
}

/// Sends what the runtime hands over, until it lets go of the connection.
async fn send(stream: Rc<TcpStream>, mut outbounds: mpsc::UnboundedReceiver<Outbound>) {
    let mut bytes = Vec::new();
    while let Some(outbound) = outbounds.recv().await {
        // A copy, because tokio-uring takes no borrowed bytes, and what it takes without one is promised by unsafe code.
        bytes.clear();
        bytes.extend_from_slice(outbound.bytes());
        let (sent, buffer) = stream.write_all(bytes).await;
        bytes = buffer;
        outbound.complete(sent);
    }
}

/// A [completion queue](CompletionQueue) whose descriptor is awaited: in tokio-uring's runtime, or in tokio's.
///
/// # Examples
///
/// ```
/// use ringback::{Completion, CompletionQueue, tokio_uring::Completions};
///
/// async fn take(queue: CompletionQueue, mut ended: impl FnMut(&Completion)) -> std::io::Result<()> {
///     let completions = Completions::new(queue)?;
///     let mut batch = Vec::new();
///     loop {
///         completions.next(&mut batch, 64).await?;
///         batch.iter().for_each(&mut ended);
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Completions(AsyncFd<Queue>);

#[derive(Debug)]
struct Queue(CompletionQueue);

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Completions {
    /// An error if the descriptor cannot be watched.
    ///
    /// # Panics
    ///
    /// Outside of a runtime of tokio-uring or tokio.
    pub fn new(queue: CompletionQueue) -> io::Result<Self> {
        // Its successor is unsafe, and wants promised what `Queue` keeps: the same descriptor, open as long as it lives.
        #[allow(deprecated)]
        AsyncFd::with_interest(Queue(queue), Interest::READABLE).map(Completions)
    }

    /// Waits for completions, and takes up to `limit` of them into `batch`, as [`CompletionQueue::poll`] does: that is also
    /// when those that were taken last are released. Nothing is lost if the future is dropped.
    pub async fn next(&self, batch: &mut Vec<Completion>, limit: usize) -> io::Result<()> {
        while self.0.get_ref().0.poll(batch, limit.max(1)) == 0 {
            self.0.readable().await?.clear_ready();
        }
        Ok(())
    }
}
