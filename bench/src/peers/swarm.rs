//! The clients that the callbacks go to: a loop over mio that compares each call with what it must be, to the byte,
//! answers it, and counts. It is as cheap as that allows, so that what is measured is the sender.

use super::wire::{self, Template};
use mio::{Events, Interest, Poll, Token};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

/// What one read takes at most; as much as a sender's receive buffers or more, so that answers leave together.
const READ_BYTES: usize = 256 << 10;
const EVENTS: usize = 1024;

/// What the swarm is asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Where the sender listens.
    pub sender: SocketAddr,
    /// Connections, each of a client and a session of its own.
    pub connections: u32,
    /// Session slots of each.
    pub slots: u32,
    /// Whether a session slot's sequence ids may be anything: the echo looks at no reply, so it cannot count them.
    pub any_sequence: bool,
    /// The CPU to stay on.
    pub cpu: Option<usize>,
}

/// What it counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Calls that were as they must be.
    pub calls: u64,
    /// CB_RECALLs in them.
    pub recalls: u64,
    /// Calls that were not.
    pub wrong: u64,
}

struct Client {
    socket: mio::net::TcpStream,
    template: Template,
    /// The last sequence id of each session slot.
    sequence: Vec<u32>,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
}

/// Connects, answers until every connection has been closed, and gives the counts.
pub fn run(config: &Config) -> io::Result<Tally> {
    let mut poll = Poll::new()?;
    let mut clients = Vec::with_capacity(config.connections as usize);
    for index in 0..config.connections {
        let mut socket = std::net::TcpStream::connect(config.sender)?;
        socket.set_nodelay(true)?;
        // Connections may be accepted in any order.
        socket.write_all(&index.to_be_bytes())?;
        socket.set_nonblocking(true)?;
        let mut socket = mio::net::TcpStream::from_std(socket);
        poll.registry().register(&mut socket, Token(index as usize), Interest::READABLE | Interest::WRITABLE)?;
        clients.push(Client {
            socket,
            template: Template::new(index),
            sequence: vec![0; config.slots as usize],
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
        });
    }
    let mut tally = Tally::default();
    let mut open = clients.len();
    let mut events = Events::with_capacity(EVENTS);
    let mut space = vec![0; READ_BYTES];
    while open > 0 {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            let client = &mut clients[event.token().0];
            if !client.turn(config, &mut space, &mut tally)? {
                poll.registry().deregister(&mut client.socket)?;
                open -= 1;
            }
        }
    }
    Ok(tally)
}

impl Client {
    /// Reads, answers and writes as far as that goes. `false`: the sender has closed.
    fn turn(&mut self, config: &Config, space: &mut [u8], tally: &mut Tally) -> io::Result<bool> {
        loop {
            self.flush()?;
            match self.socket.read(space) {
                Ok(0) => return Ok(false),
                Ok(len) => {
                    self.take(&space[..len], config, tally);
                    // A short read has emptied the socket; what comes later is another event.
                    if len < space.len() {
                        self.flush()?;
                        return Ok(true);
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // A sender that is gone has closed, however it did.
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    }

    fn take(&mut self, bytes: &[u8], config: &Config, tally: &mut Tally) {
        let Client { template, sequence, input, output, .. } = self;
        let pieces = !input.is_empty();
        if pieces {
            input.extend_from_slice(bytes);
        }
        let all: &[u8] = if pieces { input } else { bytes };
        let mut rest = all;
        while let Some(record) = wire::record_bytes(rest).and_then(|len| rest.get(..len)) {
            rest = &rest[record.len()..];
            let called = template.check(record).filter(|called| {
                let last = sequence.get_mut(called.slot as usize);
                last.is_some_and(|last| {
                    *last = last.wrapping_add(1);
                    config.any_sequence || (*last == called.sequence_id && called.highest >= called.slot)
                })
            });
            match called {
                Some(called) => {
                    tally.calls += 1;
                    tally.recalls += u64::from(called.recalls);
                    template.reply(&called, config.slots - 1, output);
                }
                None => tally.wrong += 1,
            }
        }
        let left = rest.len();
        if pieces {
            let done = input.len() - left;
            input.drain(..done);
        } else {
            input.extend_from_slice(&bytes[bytes.len() - left..]);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.socket.write(&self.output[self.written..]) {
                Ok(len) => self.written += len,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // The sender is gone, which the next read says.
                Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
                Err(e) => return Err(e),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }
}
