//! One client and its connection.

use super::client::{Client, Stage, Turn};
use super::config::{Behaviour, SwarmConfig};
use super::outgoing::Outgoing;
use super::tally::Tally;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use ringback_rpc::record::RecordReader;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

/// Longest record that is taken from the server.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// What the links of one swarm share in a turn.
pub(crate) struct Shared<'a> {
    pub(crate) now_ns: u64,
    pub(crate) config: &'a SwarmConfig,
    pub(crate) tally: &'a mut Tally,
    pub(crate) registry: &'a Registry,
    /// Where received bytes land; handled before the next connection is read.
    pub(crate) buffer: &'a mut [u8],
}

#[derive(Debug)]
enum Socket {
    None,
    Connecting(TcpStream),
    Up(TcpStream),
}

/// One client and its connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: Client,
    token: Token,
    socket: Socket,
    reader: RecordReader,
    out: Outgoing,
    /// At how many CB_RECALLs the connection is cut; the next one last.
    cut_points: Vec<u64>,
    /// Why the last connection attempt failed.
    pub(crate) connect_error: Option<io::Error>,
    /// When to connect again after a connection was lost.
    reconnect_ns: u64,
}

/// How long a client waits before it connects again to a server that refused or broke the last connection.
const RECONNECT_NS: u64 = 100_000_000;

impl Link {
    pub(crate) fn new(client: Client, token: Token) -> Self {
        Link {
            client,
            token,
            socket: Socket::None,
            reader: RecordReader::new(RECORD_BYTES_MAX),
            out: Outgoing::default(),
            cut_points: Vec::new(),
            connect_error: None,
            reconnect_ns: 0,
        }
    }

    /// Whether a connection is being made.
    pub(crate) fn is_connecting(&self) -> bool {
        matches!(self.socket, Socket::Connecting(_))
    }

    /// Whether everything that was to be said is with the kernel, and no cut is due any more.
    pub(crate) fn is_quiet(&self) -> bool {
        self.out.pending().is_empty() && self.cut_points.is_empty() && self.client.stage == Stage::Ready
    }

    /// Begins to connect.
    pub(crate) fn connect(&mut self, shared: &Shared<'_>) -> io::Result<()> {
        let mut stream = TcpStream::connect(shared.config.server)?;
        shared.registry.register(&mut stream, self.token, Interest::READABLE | Interest::WRITABLE)?;
        self.reader = RecordReader::new(RECORD_BYTES_MAX);
        self.out.clear();
        self.socket = Socket::Connecting(stream);
        Ok(())
    }

    /// Sets how often the connection is to be cut: at even shares of the delegations that the client holds.
    pub(crate) fn begin_recalls(&mut self, cuts: u32, registry: &Registry) {
        self.client.recalls_begun = true;
        self.client.recalls_seen = 0;
        if self.client.behaviour == Behaviour::Dead {
            if let Socket::Up(stream) = &mut self.socket {
                // The socket stays open, and what arrives fills the kernel's buffer.
                let _ = registry.deregister(stream);
            }
            return;
        }
        let parts = u64::from(cuts) + 1;
        self.cut_points = (1..parts).rev().map(|i| (self.client.left * i / parts).max(1)).collect();
    }

    fn is_dead(&self) -> bool {
        self.client.behaves() == Behaviour::Dead
    }

    /// The kernel says that something can be done.
    pub(crate) fn ready(&mut self, readable: bool, shared: &mut Shared<'_>) {
        if self.is_dead() {
            return;
        }
        if self.is_connecting() && !self.finish_connect(shared) {
            return;
        }
        if readable {
            self.read(shared);
        }
        self.turn(shared, Client::pump);
        self.flush(shared);
    }

    /// Lets the client act on the clock, and connects again where that is due.
    pub(crate) fn tick(&mut self, shared: &mut Shared<'_>) {
        if self.is_dead() {
            return;
        }
        if self.client.stage == Stage::Unbound {
            if matches!(self.socket, Socket::None)
                && self.reconnect_ns <= shared.now_ns
                && let Err(e) = self.connect(shared)
            {
                self.reconnect_ns = shared.now_ns + RECONNECT_NS;
                self.connect_error = Some(e);
            }
            return;
        }
        // A client without anything left to do still owes its cuts.
        if self.client.left == 0 && self.client.stage == Stage::Ready && self.cut_points.pop().is_some() {
            self.flush(shared);
            self.cut(shared);
            return;
        }
        if matches!(self.socket, Socket::Up(_)) {
            self.turn(shared, Client::tick);
            self.flush(shared);
        }
    }

    /// Runs a step of the client, and closes the connection of one that gave up or is done.
    pub(crate) fn turn(&mut self, shared: &mut Shared<'_>, step: impl FnOnce(&mut Client, &mut Turn<'_>)) {
        let mut turn = Turn { now_ns: shared.now_ns, config: shared.config, tally: shared.tally, out: &mut self.out };
        step(&mut self.client, &mut turn);
        if matches!(self.client.stage, Stage::Failed | Stage::Gone) {
            self.socket = Socket::None;
            self.out.clear();
        }
    }

    fn finish_connect(&mut self, shared: &mut Shared<'_>) -> bool {
        let Socket::Connecting(stream) = std::mem::replace(&mut self.socket, Socket::None) else {
            return false;
        };
        let outcome = match stream.take_error() {
            Ok(Some(e)) | Err(e) => Err(e),
            Ok(None) => stream.peer_addr().map(drop),
        };
        match outcome {
            Ok(()) => {
                // Records are gathered here already; the last one of a turn must not wait.
                let _ = stream.set_nodelay(true);
                self.socket = Socket::Up(stream);
                self.turn(shared, Client::connected);
                true
            }
            Err(e) if e.kind() == ErrorKind::NotConnected => {
                self.socket = Socket::Connecting(stream);
                false
            }
            Err(e) => {
                self.connect_error = Some(e);
                self.reconnect_ns = shared.now_ns + RECONNECT_NS;
                false
            }
        }
    }

    /// Reads all that is there, and handles it.
    fn read(&mut self, shared: &mut Shared<'_>) {
        loop {
            let Socket::Up(stream) = &mut self.socket else {
                return;
            };
            match stream.read(shared.buffer) {
                Ok(0) => return self.lost(shared),
                Ok(len) => {
                    self.received(len, shared);
                    // Less than was asked for: the kernel has no more, and says so when it has (epoll(7)).
                    if len < shared.buffer.len() {
                        return;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.lost(shared),
            }
        }
    }

    fn received(&mut self, len: usize, shared: &mut Shared<'_>) {
        let mut input = &shared.buffer[..len];
        let mut turn = Turn { now_ns: shared.now_ns, config: shared.config, tally: shared.tally, out: &mut self.out };
        loop {
            match self.reader.next(&mut input) {
                Ok(Some(record)) => self.client.record(&record, &mut turn),
                Ok(None) => break,
                Err(e) => {
                    turn.tally.malformed += 1;
                    self.client.fail(format!("the server's stream of records is broken: {e}"), turn.tally);
                    break;
                }
            }
        }
        if self.client.stage == Stage::Failed {
            self.socket = Socket::None;
            self.out.clear();
        } else if self.cut_points.last().is_some_and(|at| *at <= self.client.recalls_seen) {
            self.cut_points.pop();
            // Every other cut takes the answers of this turn with it.
            if self.cut_points.len().is_multiple_of(2) {
                self.turn(shared, Client::pump);
                self.flush(shared);
            }
            self.cut(shared);
        }
    }

    /// Closes the connection at once, without the orderly end, and begins a new one.
    fn cut(&mut self, shared: &mut Shared<'_>) {
        if let Socket::Up(stream) = std::mem::replace(&mut self.socket, Socket::None) {
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
        }
        shared.tally.cuts += 1;
        self.out.clear();
        self.client.disconnected(shared.tally);
        self.reconnect_ns = shared.now_ns;
    }

    fn lost(&mut self, shared: &mut Shared<'_>) {
        self.socket = Socket::None;
        self.out.clear();
        if self.client.stage != Stage::Gone {
            shared.tally.connections_lost += 1;
        }
        self.client.disconnected(shared.tally);
        self.reconnect_ns = shared.now_ns + RECONNECT_NS;
    }

    /// Writes what is queued, as far as the kernel takes it.
    pub(crate) fn flush(&mut self, shared: &mut Shared<'_>) {
        while !self.out.pending().is_empty() {
            let Socket::Up(stream) = &mut self.socket else {
                return;
            };
            match stream.write(self.out.pending()) {
                Ok(len) => self.out.wrote(len),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.lost(shared),
            }
        }
    }
}
