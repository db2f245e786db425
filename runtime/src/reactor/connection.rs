//! One connection as its reactor sees it: records in, coalesced bytes out, and the limits on both.

use crate::fore::ReplySink;
use crate::io::{ConnKey, SendBuf};
use crate::keys::{ClientId, ConnectionId};
use crate::settings::{STAGING_BYTES, Settings};
use crate::transport::Transport;
use ringback_rpc::record::{self, RecordReader};
use ringback_rpc::xdr::{self, Writer, XdrError, XdrErrorKind};
use slab::Slab;
use std::collections::{HashMap, VecDeque};

/// A client with a session whose backchannel is bound to a connection; `home` owns the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub client: ClientId,
    pub home: usize,
}

pub(crate) struct Connection {
    pub id: ConnectionId,
    pub key: ConnKey,
    pub reader: RecordReader,
    pub bound: Vec<Bound>,
    /// `None`: a socket, driven through [`Io`](crate::io::Io).
    pub transport: Option<Box<dyn Transport>>,
    pub out: Outgoing,
    /// Made by us, for callbacks to a client of minor version 0: the embedder does not know it.
    pub dialled: bool,
    /// Clients of other reactors whose batches are in `out`: each is told when `out` is empty.
    pub carried: Vec<Bound>,
    /// Calls of clients of other reactors that went out here, less the replies that were passed on to them. A peer that
    /// makes up replies has no more of them passed on than that.
    pub replies_due: u64,
    /// Fore-channel calls that the embedder has and has not answered.
    pub calls_unanswered: usize,
    pub call_serial: u64,
    /// When clients of other reactors were told last that the connection is alive.
    pub heard_told_ns: u64,
    /// The peer asks faster than it is answered, or does not read its answers: nothing is read from it.
    pub paused: bool,
    /// Its clients have been told that the embedder keeps their replies from being read.
    pub held: bool,
    /// Received and not acted on, because the connection is paused. At most what was under way when it was.
    pub backlog: Vec<u8>,
    /// Closed by the peer, by an error or by us; nothing more is read or sent.
    pub closing: bool,
    /// Already on the reactor's list of connections with something to send.
    pub flush_queued: bool,
    /// Already on the reactor's list of connections whose send was refused.
    pub refused: bool,
    /// Out of the back end: the reactor stands still.
    #[cfg(feature = "checkpoint")]
    pub lifted: Option<std::sync::Arc<std::os::fd::OwnedFd>>,
}

impl Connection {
    fn new(id: ConnectionId, key: ConnKey, record_bytes_max: usize, transport: Option<Box<dyn Transport>>) -> Self {
        Connection {
            id,
            key,
            reader: RecordReader::new(record_bytes_max),
            bound: Vec::new(),
            transport,
            out: Outgoing::default(),
            dialled: false,
            carried: Vec::new(),
            replies_due: 0,
            calls_unanswered: 0,
            call_serial: 0,
            heard_told_ns: 0,
            paused: false,
            held: false,
            backlog: Vec::new(),
            closing: false,
            flush_queued: false,
            refused: false,
            #[cfg(feature = "checkpoint")]
            lifted: None,
        }
    }

    /// Has as many calls or bytes to answer as it may have.
    pub fn is_full(&self, settings: &Settings) -> bool {
        self.calls_unanswered >= settings.calls_unanswered_max || self.out.unsent_bytes() >= settings.unsent_bytes_max
    }

    /// Half of that is gone.
    pub fn is_relieved(&self, settings: &Settings) -> bool {
        self.calls_unanswered <= settings.calls_unanswered_max / 2
            && self.out.unsent_bytes() <= settings.unsent_bytes_max / 2
    }
}

/// All connections of a reactor.
#[derive(Default)]
pub(crate) struct Lines {
    connections: Slab<Connection>,
    /// [`ConnectionId::serial`] to the index in `connections`, for commands; events carry the index.
    by_serial: HashMap<u64, usize>,
    /// Generation of the next connection, so that a late event is told apart from the next one on the same index.
    generation: u32,
    pub pool: Pool,
    /// Connections (by index) with something to hand to their transport.
    flush: Vec<usize>,
}

impl Lines {
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    pub fn wants_flush(&self) -> bool {
        !self.flush.is_empty()
    }

    /// Takes a connection into the table.
    pub fn add(&mut self, id: ConnectionId, record_bytes_max: usize, transport: Option<Box<dyn Transport>>) -> ConnKey {
        let entry = self.connections.vacant_entry();
        let key = ConnKey { index: entry.key() as u32, generation: self.generation };
        self.generation = self.generation.wrapping_add(1);
        self.by_serial.insert(id.serial, entry.key());
        entry.insert(Connection::new(id, key, record_bytes_max, transport));
        key
    }

    /// An open connection and the staging buffers.
    pub fn get(&mut self, key: ConnKey) -> Option<(&mut Connection, &mut Pool)> {
        let connection = self.connections.get_mut(key.index as usize)?;
        (connection.key == key && !connection.closing).then_some((connection, &mut self.pool))
    }

    /// The key of an open connection.
    pub fn key_of(&self, id: ConnectionId) -> Option<ConnKey> {
        let index = *self.by_serial.get(&id.serial)?;
        self.connections.get(index).filter(|c| !c.closing).map(|c| c.key)
    }

    /// Every connection.
    pub fn keys(&self) -> Vec<ConnKey> {
        self.connections.iter().map(|(_, c)| c.key).collect()
    }

    /// Puts a connection on the list of those to flush, once, if it has something to send and may send.
    pub fn queue_flush(&mut self, key: ConnKey) {
        if let Some(connection) = self.connections.get_mut(key.index as usize) {
            let ready = !connection.closing && !connection.out.sending && connection.out.unsent_bytes() > 0;
            if connection.key == key && ready && !connection.flush_queued {
                connection.flush_queued = true;
                self.flush.push(key.index as usize);
            }
        }
    }

    /// A connection whose send was refused may try again.
    pub fn admit(&mut self, key: ConnKey) {
        if let Some((connection, _)) = self.get(key) {
            connection.refused = false;
        }
        self.queue_flush(key);
    }

    /// The next connection to flush.
    pub fn next_flush(&mut self) -> Option<(&mut Connection, &mut Pool)> {
        while let Some(index) = self.flush.pop() {
            let Some(connection) = self.connections.get_mut(index) else { continue };
            connection.flush_queued = false;
            if !connection.closing && !connection.out.sending {
                // Looked up once more because the borrow checker does not let a conditional return end the first borrow.
                return self.connections.get_mut(index).map(|c| (c, &mut self.pool));
            }
        }
        None
    }

    /// The connection is not to be found by name any more; its index stays taken until [`Lines::forget`].
    pub fn begin_close(&mut self, key: ConnKey) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(key.index as usize).filter(|c| c.key == key && !c.closing)?;
        connection.closing = true;
        connection.out.clear(&mut self.pool);
        self.by_serial.remove(&connection.id.serial);
        Some(connection)
    }

    /// Nothing of the connection is under way any more: its index may be used again.
    pub fn forget(&mut self, key: ConnKey) {
        if self.connections.get(key.index as usize).is_some_and(|c| c.key == key) {
            self.connections.remove(key.index as usize);
        }
    }
}

/// Staging buffers that a reactor keeps for later, 32 MiB: as many connections as have a send under way in ordinary
/// times. What a burst over more connections needed goes back to the allocator.
const POOL_BUFFERS_MAX: usize = 512;

/// Embedder's bytes up to this size are copied behind what waits already: a send of its own costs more.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// Staging buffers that are not in use, kept for the next turn.
#[derive(Default)]
pub(crate) struct Pool {
    kept: Vec<Vec<u8>>,
    /// Asked before a buffer is handed out, kept or new, and before other memory is taken to send: `false` makes it fail, as
    /// if there were none.
    #[cfg(any(test, feature = "simulator"))]
    pub gate: Option<Box<dyn FnMut() -> bool + Send>>,
}

impl Pool {
    /// Whether an allocation that is about to be made may succeed: always, unless a test has its gate here.
    pub fn is_granted(&mut self) -> bool {
        #[cfg(any(test, feature = "simulator"))]
        if self.gate.as_mut().is_some_and(|gate| !gate()) {
            return false;
        }
        true
    }

    /// A staging buffer. `None`: there is no memory for one.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        if !self.is_granted() {
            return None;
        }
        self.kept.pop().or_else(|| zeroed(STAGING_BYTES))
    }

    /// Keeps a staging buffer; one of another size was made for a single large record and is dropped.
    pub fn give(&mut self, buf: Vec<u8>) {
        if buf.len() == STAGING_BYTES && self.kept.len() < POOL_BUFFERS_MAX {
            self.kept.push(buf);
        }
    }
}

/// A buffer of `bytes` zeroes. `None`: there is no memory for it.
fn zeroed(bytes: usize) -> Option<Vec<u8>> {
    let mut buf = Vec::new();
    buf.try_reserve_exact(bytes).ok()?;
    buf.resize(bytes, 0);
    Some(buf)
}

/// What waits to be sent on a connection, in order. Everything that is written while a send is in flight leaves with
/// the next one.
#[derive(Default)]
pub(crate) struct Outgoing {
    queue: VecDeque<SendBuf>,
    tail: Vec<u8>,
    tail_filled: usize,
    queued_bytes: usize,
    /// A send is in flight: at most one per connection.
    pub sending: bool,
}

impl Outgoing {
    /// Bytes written and not handed to the transport yet.
    pub fn unsent_bytes(&self) -> usize {
        self.queued_bytes + self.tail_filled
    }

    /// The bytes themselves.
    #[cfg(feature = "checkpoint")]
    pub fn unsent(&self) -> Vec<u8> {
        let queued = self.queue.iter().flat_map(|buf| buf.unsent());
        queued.chain(&self.tail[..self.tail_filled]).copied().collect()
    }

    /// Room for at least `bytes_min` bytes, behind what was written before. `None`: there is no memory for it, and
    /// nothing has changed.
    pub fn space(&mut self, bytes_min: usize, pool: &mut Pool) -> Option<&mut [u8]> {
        if self.tail.len() - self.tail_filled < bytes_min {
            let tail = if bytes_min <= STAGING_BYTES { pool.take() } else { zeroed(bytes_min) }?;
            self.seal(pool);
            self.tail = tail;
        }
        Some(&mut self.tail[self.tail_filled..])
    }

    /// Says that the first `count` bytes of [`Outgoing::space`] were written.
    pub fn commit(&mut self, count: usize) {
        self.tail_filled += count;
    }

    /// Gives the staging buffer back if nothing was written to it.
    pub fn release(&mut self, pool: &mut Pool) {
        if self.tail_filled == 0 {
            pool.give(std::mem::take(&mut self.tail));
        }
    }

    /// Lets `write` write at most `bytes_max` bytes behind what was written before; it says how many. How much room it
    /// asks for does not matter for what is sent together, nor for the memory that waits: a buffer is sealed only when
    /// what was really written does not fit.
    pub fn write(
        &mut self,
        bytes_max: usize,
        pool: &mut Pool,
        write: impl FnOnce(&mut [u8]) -> xdr::Result<usize>,
    ) -> xdr::Result<()> {
        let room = self.tail.len() - self.tail_filled;
        if bytes_max <= room {
            self.tail_filled += write(&mut self.tail[self.tail_filled..][..bytes_max])?;
            return Ok(());
        }
        let fresh = if bytes_max <= STAGING_BYTES { pool.take() } else { zeroed(bytes_max) };
        let no_memory = XdrErrorKind::NoSpace { needed: bytes_max, left: 0 };
        let mut fresh = fresh.ok_or(XdrError { what: "staging buffer", offset: 0, kind: no_memory })?;
        let written = match write(&mut fresh[..bytes_max]) {
            Ok(written) => written,
            Err(error) => {
                pool.give(fresh);
                return Err(error);
            }
        };
        if written <= room {
            self.tail[self.tail_filled..][..written].copy_from_slice(&fresh[..written]);
            self.tail_filled += written;
            pool.give(fresh);
        } else {
            self.seal(pool);
            (self.tail, self.tail_filled) = (fresh, written);
        }
        Ok(())
    }

    fn seal(&mut self, pool: &mut Pool) {
        let tail = std::mem::take(&mut self.tail);
        let filled = std::mem::take(&mut self.tail_filled);
        if filled > 0 {
            self.queued_bytes += filled;
            self.queue.push_back(SendBuf::staging(tail, filled));
        } else {
            pool.give(tail);
        }
    }

    /// Bytes of an embedder, behind what was written before; without a copy if they are many.
    pub fn push(&mut self, bytes: Vec<u8>, pool: &mut Pool) {
        if bytes.len() > COPY_BYTES_MAX || !self.copy(&bytes, pool) {
            self.seal(pool);
            self.queued_bytes += bytes.len();
            self.queue.push_back(SendBuf::shared(Box::new(bytes)));
        }
    }

    /// Copies a few bytes behind what was written before. `false`: there is no memory to copy them to.
    fn copy(&mut self, bytes: &[u8], pool: &mut Pool) -> bool {
        let Some(space) = self.space(bytes.len(), pool) else { return false };
        space[..bytes.len()].copy_from_slice(bytes);
        self.commit(bytes.len());
        true
    }

    /// A record of an embedder that consists of these pieces, behind its mark.
    pub fn push_record(&mut self, mark: [u8; record::MARK_BYTES], pieces: Vec<Vec<u8>>, pool: &mut Pool) {
        if !self.copy(&mark, pool) {
            self.push(mark.to_vec(), pool);
        }
        for bytes in pieces {
            self.push(bytes, pool);
        }
    }

    /// A buffer that the transport did not take, or not wholly: first in line again.
    pub fn push_front(&mut self, buf: SendBuf) {
        self.queued_bytes += buf.unsent().len();
        self.queue.push_front(buf);
    }

    /// The next buffer to send.
    pub fn next(&mut self, pool: &mut Pool) -> Option<SendBuf> {
        if self.queue.is_empty() {
            self.seal(pool);
        }
        let buf = self.queue.pop_front()?;
        self.queued_bytes -= buf.unsent().len();
        Some(buf)
    }

    /// Drops everything that waits.
    pub fn clear(&mut self, pool: &mut Pool) {
        while let Some(buf) = self.next(pool) {
            if let Some(staging) = buf.into_staging() {
                pool.give(staging);
            }
        }
    }
}

/// Where an inline reply is written: the connection's staging buffer.
pub(crate) struct ReplyTo<'a> {
    pub out: &'a mut Outgoing,
    pub pool: &'a mut Pool,
    /// What became of the call when the handler returned.
    pub fate: Fate,
}

/// What a handler did with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Dropped,
    Answered,
    Deferred,
}

impl ReplySink for ReplyTo<'_> {
    fn reply(
        &mut self,
        bytes_max: usize,
        write: &mut dyn FnMut(&mut Writer<'_>) -> xdr::Result<()>,
    ) -> xdr::Result<()> {
        self.out.write(bytes_max + record::MARK_BYTES, self.pool, |space| {
            let mut w = Writer::new(space);
            let mark = record::begin(&mut w)?;
            write(&mut w)?;
            record::end(&mut w, mark)?;
            Ok(w.position())
        })?;
        self.fate = Fate::Answered;
        Ok(())
    }

    fn defer(&mut self) {
        self.fate = Fate::Deferred;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(out: &mut Outgoing, pool: &mut Pool, bytes: &[u8]) {
        out.space(bytes.len(), pool).expect("there is memory")[..bytes.len()].copy_from_slice(bytes);
        out.commit(bytes.len());
    }

    #[test]
    fn bytes_leave_in_the_order_in_which_they_were_written() {
        let (mut out, mut pool) = (Outgoing::default(), Pool::default());
        write(&mut out, &mut pool, b"one");
        let large = vec![2; COPY_BYTES_MAX + 1];
        out.push(large.clone(), &mut pool);
        out.push(b"two".to_vec(), &mut pool);
        write(&mut out, &mut pool, b"three");
        write(&mut out, &mut pool, b"four");
        assert_eq!(out.unsent_bytes(), 15 + large.len());
        let mut all = Vec::new();
        let mut sends = 0;
        while let Some(buf) = out.next(&mut pool) {
            all.extend_from_slice(buf.unsent());
            sends += 1;
        }
        let expected = [b"one", &large[..], b"twothreefour"].concat();
        assert!(all == expected);
        assert_eq!((sends, out.unsent_bytes()), (3, 0));
    }

    /// However much room a reply asks for: replies leave together, and a peer that does not read holds little more memory
    /// than bytes.
    #[test]
    fn room_that_was_asked_for_in_vain_costs_nothing() {
        let (mut out, mut pool) = (Outgoing::default(), Pool::default());
        for n in 0..1000 {
            let bytes_max = [60_000, STAGING_BYTES, 1 << 20][n % 3];
            out.write(bytes_max, &mut pool, |space| {
                assert_eq!(space.len(), bytes_max);
                space[..100].fill(n as u8);
                Ok(100)
            })
            .unwrap();
            out.write(bytes_max, &mut pool, |space| Writer::new(space).raw(&vec![0; 1 << 21]).map(|()| 0)).unwrap_err();
            out.push(vec![n as u8; 100], &mut pool);
        }
        let held: usize = out.queue.iter().map(|b| b.unsent().len().max(STAGING_BYTES)).sum();
        assert!(held < 1 << 20, "{held} bytes are held for {}", out.unsent_bytes());
        let mut all = Vec::new();
        while let Some(buf) = out.next(&mut pool) {
            all.extend_from_slice(buf.unsent());
        }
        let expected: Vec<u8> = (0..1000).flat_map(|n| [n as u8; 200]).collect();
        assert!(all == expected);
    }

    #[test]
    fn the_pool_forgets_a_burst() {
        let mut pool = Pool::default();
        let mut outs: Vec<Outgoing> = (0..3 * POOL_BUFFERS_MAX).map(|_| Outgoing::default()).collect();
        for out in &mut outs {
            write(out, &mut pool, b"reply");
        }
        for out in &mut outs {
            out.clear(&mut pool);
        }
        assert_eq!(pool.kept.len(), POOL_BUFFERS_MAX);
        // Looking for room and writing nothing keeps no buffer either.
        outs[0].space(1, &mut pool).unwrap();
        outs[0].release(&mut pool);
        assert_eq!((pool.kept.len(), outs[0].tail.len()), (POOL_BUFFERS_MAX, 0));
    }

    #[test]
    fn a_partly_sent_buffer_goes_first_again() {
        let (mut out, mut pool) = (Outgoing::default(), Pool::default());
        write(&mut out, &mut pool, b"abcdef");
        let mut buf = out.next(&mut pool).unwrap();
        write(&mut out, &mut pool, b"ghi");
        buf.advance(4);
        out.push_front(buf);
        assert_eq!(out.unsent_bytes(), 5);
        assert_eq!(out.next(&mut pool).unwrap().unsent(), b"ef");
        assert_eq!(out.next(&mut pool).unwrap().unsent(), b"ghi");
        assert!(out.next(&mut pool).is_none());
    }

    #[test]
    fn a_record_larger_than_a_staging_buffer_gets_its_own() {
        let (mut out, mut pool) = (Outgoing::default(), Pool::default());
        write(&mut out, &mut pool, b"small");
        let large = vec![7; STAGING_BYTES + 1];
        write(&mut out, &mut pool, &large);
        assert_eq!(out.next(&mut pool).unwrap().unsent(), b"small");
        let buf = out.next(&mut pool).unwrap();
        assert_eq!(buf.unsent(), large);
        pool.give(buf.into_staging().unwrap());
        assert!(pool.kept.is_empty());
    }
}
