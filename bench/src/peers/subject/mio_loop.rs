//! A loop over mio, without our core: a session slot's next callback is sent when its last has been answered, and all
//! that one read has answered leaves in one write.

use super::super::job::Load;
use super::super::wire::{self, Template};
use super::{Gauge, add};
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

const READ_BYTES: usize = 64 << 10;
const EVENTS: usize = 1024;

struct Connection {
    socket: mio::net::TcpStream,
    template: Template,
    /// The sequence id of each session slot's last call.
    sequence: Vec<u32>,
    /// Calls without an answer.
    waiting: usize,
    /// The number of the next delegation.
    number: u64,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
}

/// Sends until it is told to stop, and all has been answered.
pub fn run(load: Load, sockets: Vec<TcpStream>, gauge: Arc<Gauge>) -> Result<(), String> {
    serve(&load, sockets, &gauge).map_err(|e| format!("mio loop: {e}"))
}

fn serve(load: &Load, sockets: Vec<TcpStream>, gauge: &Gauge) -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    let mut connections = Vec::with_capacity(sockets.len());
    for (index, socket) in sockets.into_iter().enumerate() {
        socket.set_nonblocking(true)?;
        let mut socket = mio::net::TcpStream::from_std(socket);
        poll.registry().register(&mut socket, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        let mut connection = Connection {
            socket,
            template: Template::new(index as u32),
            sequence: vec![0; load.slots as usize],
            waiting: 0,
            number: 0,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
        };
        for slot in 0..load.slots {
            connection.call(slot);
        }
        connection.flush(gauge)?;
        connections.push(connection);
    }
    let mut events = Events::with_capacity(EVENTS);
    let mut space = vec![0; READ_BYTES];
    while connections.iter().any(|c| c.waiting > 0) {
        // While there is load, this is looked at for each batch of events only.
        loop {
            match poll.poll(&mut events, None) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                connections[event.token().0].turn(&mut space, gauge)?;
            }
            if gauge.stopped() {
                break;
            }
        }
    }
    Ok(())
}

impl Connection {
    /// The session slot is free: its next call. The xid names the slot.
    fn call(&mut self, slot: u32) {
        let sequence = &mut self.sequence[slot as usize];
        *sequence = sequence.wrapping_add(1);
        let highest = self.sequence.len() as u32 - 1;
        let call = self.template.call(slot, slot, self.sequence[slot as usize], highest, self.number);
        self.number += 1;
        self.output.extend_from_slice(&call);
        self.waiting += 1;
    }

    fn turn(&mut self, space: &mut [u8], gauge: &Gauge) -> std::io::Result<()> {
        self.flush(gauge)?;
        loop {
            let len = match self.socket.read(space) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => len,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            self.take(&space[..len], gauge);
            self.flush(gauge)?;
            if len < space.len() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, bytes: &[u8], gauge: &Gauge) {
        let mut input = std::mem::take(&mut self.input);
        let pieces = !input.is_empty();
        if pieces {
            input.extend_from_slice(bytes);
        }
        let mut rest: &[u8] = if pieces { &input } else { bytes };
        let (mut fine, mut failed) = (0, 0);
        while let Some(record) = wire::record_bytes(rest).and_then(|len| rest.get(..len)) {
            rest = &rest[record.len()..];
            self.waiting -= 1;
            match wire::settled(record).filter(|slot| (*slot as usize) < self.sequence.len()) {
                Some(slot) => {
                    fine += 1;
                    if !gauge.stopped() {
                        self.call(slot);
                    }
                }
                None => failed += 1,
            }
        }
        add(&gauge.completed, fine);
        add(&gauge.failed, failed);
        let left = rest.to_vec();
        input.clear();
        input.extend_from_slice(&left);
        self.input = input;
    }

    fn flush(&mut self, gauge: &Gauge) -> std::io::Result<()> {
        while self.written < self.output.len() {
            match self.socket.write(&self.output[self.written..]) {
                Ok(len) => {
                    self.written += len;
                    add(&gauge.sends, 1);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }
}
