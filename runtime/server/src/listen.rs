//! Listening: an accept thread hands sockets to the runtime.

use crate::{Inner, Server};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long accepting rests after an error that another try at once would only repeat (no descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a stop waits for the connection that wakes an accept thread.
const WAKE_PATIENCE: Duration = Duration::from_secs(1);

/// One listening socket and its thread.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    socket: Arc<TcpListener>,
}

impl Server {
    /// Listens on an address, and gives the one that it got: port 0 asks for any.
    pub fn listen(&self, address: impl ToSocketAddrs) -> io::Result<SocketAddr> {
        self.inner.listen_on(Arc::new(TcpListener::bind(address)?))
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.inner.listeners().iter().map(|listener| listener.address).collect()
    }
}

impl Inner {
    /// Accepts connections on a socket that listens.
    pub(crate) fn listen_on(self: &Arc<Self>, socket: Arc<TcpListener>) -> io::Result<SocketAddr> {
        let address = socket.local_addr()?;
        let accepting = Arc::clone(&socket);
        let stopping = Arc::new(AtomicBool::new(false));
        let (inner, stop) = (Arc::clone(self), Arc::clone(&stopping));
        let thread = thread::Builder::new()
            .name(format!("nfs-accept-{}", address.port()))
            .spawn(move || accept(&accepting, &inner, &stop))?;
        self.listeners().push(Listener { address, stopping, thread, socket });
        Ok(address)
    }
}

fn accept(socket: &TcpListener, inner: &Inner, stopping: &AtomicBool) {
    loop {
        let accepted = socket.accept();
        // What came just now may be a client, and not only what ends the wait: it is served all the same.
        let last = stopping.load(SeqCst);
        match accepted {
            Ok((connection, peer)) => {
                // Replies are small and wanted at once. A socket that refuses the option is merely slower.
                let _ = connection.set_nodelay(true);
                let _present = inner.present();
                let Some(runtime) = inner.callbacks.runtime() else { return };
                // Held until it is in there: its first call, or its end, may come at once.
                let mut peers = inner.minor0.peers();
                let Ok(id) = runtime.add_connection(connection) else { return };
                peers.insert(id, peer);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => thread::sleep(ACCEPT_PAUSE),
        }
        if last {
            return;
        }
    }
}

/// Ends all listeners. Their sockets still listen as long as they are kept.
pub(crate) fn stop(inner: &Inner) -> Vec<Arc<TcpListener>> {
    let mut sockets = Vec::new();
    for Listener { address, stopping, thread, socket } in inner.listeners().drain(..) {
        sockets.push(socket);
        stopping.store(true, SeqCst);
        // An accept ends with a connection, and this is one. The unspecified address reaches the own host.
        if TcpStream::connect_timeout(&address, WAKE_PATIENCE).is_ok() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
    sockets
}
