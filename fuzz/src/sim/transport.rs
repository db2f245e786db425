//! Embedders that bring their own transport: records in, records out, over the same simulated lines.

use super::net::{Happening, LineId, Net};
use ringback::simulator::SendBuf;
use ringback::{ConnectionId, Outbound, Runtime, Transport};
use ringback_rpc::record::RecordReader;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Lines of transports are driven as if by reactors of these numbers.
const DRIVER_BASE: usize = 1 << 20;

/// What the runtime has asked the transport to do.
#[derive(Default)]
struct Orders {
    outbound: VecDeque<Outbound>,
    close: bool,
}

/// The runtime's half.
struct Near(Arc<Mutex<Orders>>);

impl Transport for Near {
    fn send(&mut self, outbound: Outbound) {
        lock(&self.0).outbound.push_back(outbound);
    }

    fn close(&mut self) {
        lock(&self.0).close = true;
    }
}

fn lock(orders: &Mutex<Orders>) -> MutexGuard<'_, Orders> {
    orders.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The embedder's half.
pub(crate) struct Carrier {
    pub line: LineId,
    connection: ConnectionId,
    orders: Arc<Mutex<Orders>>,
    reader: RecordReader,
    sending: Option<Outbound>,
    closed: bool,
    /// Nothing more is heard of the line.
    gone: bool,
}

impl Carrier {
    /// Hands a line to the runtime as an embedder's transport.
    pub(crate) fn new(line: LineId, runtime: &Runtime, net: &mut Net) -> Option<Carrier> {
        let orders: Arc<Mutex<Orders>> = Arc::default();
        let connection = runtime.add_transport(Box::new(Near(Arc::clone(&orders)))).ok()?;
        net.attach_driver(line, DRIVER_BASE + line);
        let reader = RecordReader::new(1 << 24);
        Some(Carrier { line, connection, orders, reader, sending: None, closed: false, gone: false })
    }

    pub(crate) fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// Neither side has anything to do with it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.gone && self.sending.is_none() && lock(&self.orders).outbound.is_empty()
    }

    /// The process that it belongs to is gone.
    pub(crate) fn abandon(&mut self, net: &mut Net) {
        lock(&self.orders).outbound.clear();
        self.sending = None;
        if !std::mem::replace(&mut self.closed, true) && !net.is_history(self.line) {
            net.detach(self.line);
        }
    }

    pub(crate) fn is_awake(&self, net: &Net) -> bool {
        let orders = lock(&self.orders);
        let asked = (orders.close && !self.closed) || (self.sending.is_none() && !orders.outbound.is_empty());
        asked || net.is_awake(DRIVER_BASE + self.line)
    }

    /// Does one thing.
    pub(crate) fn step(&mut self, runtime: Option<&Runtime>, net: &mut Net) {
        let (close, next) = {
            let mut orders = lock(&self.orders);
            let next = if self.sending.is_none() { orders.outbound.pop_front() } else { None };
            (orders.close && !self.closed, next)
        };
        if close {
            self.closed = true;
            net.detach(self.line);
            return;
        }
        if let Some(outbound) = next {
            // A closed line takes nothing; that is told as a failure.
            let bytes = outbound.bytes().to_vec();
            if self.closed || net.is_history(self.line) {
                return outbound.complete(Err(std::io::ErrorKind::BrokenPipe.into()));
            }
            self.sending = Some(outbound);
            if net.send(self.line, SendBuf::shared(Box::new(bytes))).is_err()
                && let Some(outbound) = self.sending.take()
            {
                outbound.complete(Err(std::io::ErrorKind::OutOfMemory.into()));
            }
            return;
        }
        match net.next_happening(DRIVER_BASE + self.line, Some(1 << 16)) {
            Some((_, Happening::Received(bytes))) => self.received(&bytes, runtime),
            Some((_, Happening::Sent(buf, result))) => self.sent(buf, result, net),
            Some((_, Happening::Closed(_))) => {
                if let Some(runtime) = runtime {
                    runtime.close_connection(self.connection);
                }
            }
            Some((_, Happening::Detached)) => self.gone = true,
            // A transport that is made is connected.
            Some((_, Happening::Connected(_) | Happening::Lifted(_))) | None => {}
        }
    }

    fn received(&mut self, bytes: &[u8], runtime: Option<&Runtime>) {
        let mut rest = bytes;
        loop {
            match (self.reader.next(&mut rest), runtime) {
                (Ok(Some(record)), Some(runtime)) => runtime.receive(self.connection, record.into_vec()),
                (Ok(Some(_)), None) => {}
                (Ok(None), _) => return,
                // What is no sequence of records is the end of the connection.
                (Err(_), runtime) => return runtime.map_or((), |r| r.close_connection(self.connection)),
            }
        }
    }

    fn sent(&mut self, buf: SendBuf, result: std::io::Result<usize>, net: &mut Net) {
        match result {
            // The rest of it goes next; a transport sends in one piece.
            Ok(_) if !buf.unsent().is_empty() && !net.is_history(self.line) => {
                if net.send(self.line, buf).is_ok() {
                    return;
                }
                self.complete(Err(std::io::ErrorKind::OutOfMemory.into()));
            }
            Ok(_) => self.complete(Ok(())),
            Err(e) => self.complete(Err(e)),
        }
    }

    fn complete(&mut self, result: std::io::Result<()>) {
        if let Some(outbound) = self.sending.take() {
            outbound.complete(result);
        }
    }
}
