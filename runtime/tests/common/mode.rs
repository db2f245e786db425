//! How the connections of a test are driven: by the runtime, or by an embedder with a transport of its own, here two threads
//! for each. The same tests hold for both.

use super::backends;
use ringback::{Backend, ConnectionId, Error, Outbound, Runtime, Transport};
use ringback_rpc::record::RecordReader;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};

#[derive(Clone, Debug)]
pub struct Mode {
    pub backend: Backend,
    /// By the embedder: the runtime never sees a socket.
    pub own_transport: bool,
    embedder: Arc<Embedder>,
}

/// What the threads of an embedder have in common.
#[derive(Debug, Default)]
struct Embedder {
    received_bytes: AtomicU64,
    handles: Mutex<Vec<Handle>>,
}

/// The runtime, until the embedder lets go of it.
type Handle = Arc<Mutex<Option<Runtime>>>;

/// Every back end with sockets, and an embedder with a transport of its own.
pub fn modes() -> Vec<Mode> {
    let own = Mode { own_transport: true, ..Mode::sockets(Backend::Epoll) };
    backends().into_iter().map(Mode::sockets).chain([own]).collect()
}

impl Mode {
    /// The runtime drives the sockets.
    pub fn sockets(backend: Backend) -> Self {
        Mode { backend, own_transport: false, embedder: Arc::default() }
    }

    pub fn add_connection(&self, runtime: &Runtime, socket: TcpStream) -> Result<ConnectionId, Error> {
        if !self.own_transport {
            return runtime.add_connection(socket);
        }
        let (sender, outbounds) = mpsc::channel::<Outbound>();
        let (reading, mut writing) = (socket.try_clone().unwrap(), socket.try_clone().unwrap());
        let connection = runtime.add_transport(Box::new(Threads { sender, socket }))?;
        std::thread::spawn(move || {
            for outbound in outbounds {
                let sent = writing.write_all(outbound.bytes());
                outbound.complete(sent);
            }
        });
        let handle = Arc::new(Mutex::new(Some(runtime.clone())));
        self.embedder.handles.lock().unwrap().push(Arc::clone(&handle));
        let embedder = Arc::clone(&self.embedder);
        std::thread::spawn(move || embedder.read(reading, connection, &handle));
        Ok(connection)
    }

    /// Bytes that have been received, by whoever reads.
    pub fn received_bytes(&self, runtime: &Runtime) -> u64 {
        if self.own_transport { self.embedder.received_bytes.load(SeqCst) } else { runtime.stats().received_bytes }
    }

    /// The embedder's threads keep the runtime no longer.
    pub fn let_go(&self) {
        for handle in self.embedder.handles.lock().unwrap().drain(..) {
            let gone = handle.lock().unwrap().take();
            drop(gone);
        }
    }
}

impl Embedder {
    /// Hands in what comes, until the connection ends or is not worth reading.
    fn read(&self, mut socket: TcpStream, connection: ConnectionId, handle: &Mutex<Option<Runtime>>) {
        let with = |act: &mut dyn FnMut(&Runtime)| {
            // Not under the lock: what is called may wait for who lets go.
            let runtime = handle.lock().unwrap().clone();
            let _ = runtime.as_ref().map(act);
        };
        let (mut reader, mut bytes) = (RecordReader::new(2 << 20), [0; 4096]);
        'connection: while let Ok(count @ 1..) = socket.read(&mut bytes) {
            self.received_bytes.fetch_add(count as u64, SeqCst);
            let mut input = &bytes[..count];
            loop {
                match reader.next(&mut input) {
                    Ok(Some(record)) => {
                        let record = record.into_vec();
                        with(&mut |runtime| runtime.receive(connection, record.clone()));
                    }
                    Ok(None) => break,
                    Err(_) => break 'connection,
                }
            }
        }
        with(&mut |runtime| runtime.close_connection(connection));
        // It has ended: nothing is to be handed in any more.
        let gone = handle.lock().unwrap().take();
        drop(gone);
    }
}

/// A transport with a thread for each direction.
struct Threads {
    sender: mpsc::Sender<Outbound>,
    socket: TcpStream,
}

impl Transport for Threads {
    fn send(&mut self, outbound: Outbound) {
        self.sender.send(outbound).unwrap();
    }

    fn close(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}
