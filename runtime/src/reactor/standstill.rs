//! A reactor that stands still: it does what it is ordered to, until it goes on or ends. What arrives meanwhile waits in the
//! kernel and in the queues.
//!
//! Before everything goes to another process, what reactors have left with each other is done ([`Order::Settle`]): nothing is
//! between two of them any more. Then the sockets come out of the back end ([`Order::Lift`]), each between two bytes, with what
//! was received and not handled and what was encoded and not sent. Goes the reactor on, then it puts them in again.

use super::Reactor;
use super::connection::Bound;
use crate::checkpoint::record::LineRecord;
use crate::checkpoint::restore::RestoredLine;
use crate::checkpoint::suspend::{Freeze, Line, Order};
use crate::io::{ConnKey, Io, IoEvent, Wait};
use crate::keys::{ClientId, ConnectionId};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

impl<I: Io> Reactor<I> {
    /// Obeys, until it is told to end, or who orders is gone: then it goes on.
    pub(super) fn stand_still(&mut self, freeze: Freeze) -> io::Result<()> {
        let Some(orders) = self.begin_standstill(freeze) else { return Ok(()) };
        while let Ok(order) = orders.recv() {
            self.obey(order)?;
            if self.left {
                return Ok(());
            }
        }
        self.go_on();
        Ok(())
    }

    /// Where the orders come from. `None`: who has wanted it to stand still has given up.
    fn begin_standstill(&self, freeze: Freeze) -> Option<Receiver<Order>> {
        let Freeze { ready, orders } = freeze;
        ready.send(self.home.reactor).is_ok().then_some(orders)
    }

    /// Stands still, if it is to: then the orders are obeyed by hand.
    #[cfg(feature = "simulator")]
    pub(crate) fn stands_still(&mut self) -> Option<Receiver<Order>> {
        let freeze = self.freeze.take()?;
        self.begin_standstill(freeze)
    }

    /// Everything was left to another process.
    #[cfg(feature = "simulator")]
    pub(crate) fn has_left(&self) -> bool {
        self.left
    }

    /// Carries out one order. That nobody waits for the answer any more changes nothing.
    pub(crate) fn obey(&mut self, order: Order) -> io::Result<()> {
        match order {
            Order::Export { from, answer } => {
                let _ = answer.send(self.export(from));
            }
            Order::Settle { answer } => {
                let _ = answer.send(self.settle_with_others());
            }
            Order::Lift { until_ns, answer } => {
                if self.lift(until_ns)? {
                    let _ = answer.send(self.lines());
                }
            }
            Order::Restore { restored, answer } => {
                self.tell_time(self.io.now_ns());
                self.restore(*restored);
                let _ = answer.send(());
            }
            Order::Leave => self.left = true,
        }
        Ok(())
    }

    /// Does what others have left, as in a turn, but begins and sends nothing. Whether there was something.
    fn settle_with_others(&mut self) -> bool {
        self.tell_time(self.io.now_ns());
        let shared = Arc::clone(&self.home.shared);
        let port = &shared.reactors[self.home.reactor];
        let mut done = self.home.condemned.len() as u64;
        self.close_condemned();
        self.look_at_departing();
        for _ in 0..port.commands.len() {
            let Some(command) = port.commands.pop() else { break };
            self.run_command(command);
            done += 1;
        }
        self.send_off();
        done += self.take_back();
        self.close_condemned();
        done > 0 || !self.departing.is_empty()
    }

    /// Takes the sockets out of the back end. `false`: it takes too long.
    fn lift(&mut self, until_ns: u64) -> io::Result<bool> {
        let mut lifting = 0;
        for key in self.lines.keys() {
            let is_made = self.dialing.is_made(key);
            let Some((connection, _)) = self.lines.get(key) else { continue };
            if connection.transport.is_none() && connection.lifted.is_none() && !is_made {
                self.io.lift(key);
                lifting += 1;
            }
        }
        let mut events = std::mem::take(&mut self.events);
        while lifting > 0 {
            self.io.turn(Wait::Until(until_ns), &mut events)?;
            for event in events.drain(..) {
                lifting -= usize::from(matches!(event, IoEvent::Lifted { .. }));
                self.handle_still(event);
            }
            if self.io.now_ns() >= until_ns {
                break;
            }
        }
        self.events = events;
        Ok(lifting == 0)
    }

    /// Notes what has happened, and acts on nothing of it.
    fn handle_still(&mut self, event: IoEvent) {
        match event {
            IoEvent::Received { conn, buf } => {
                if let Some((connection, _)) = self.lines.get(conn) {
                    connection.backlog.extend_from_slice(self.io.received(&buf));
                }
                self.io.recycle(buf);
            }
            // A failure is met again by who sends the rest.
            IoEvent::Sent { conn, buf, .. } => match self.lines.get(conn) {
                Some((connection, _)) if !buf.unsent().is_empty() => {
                    connection.out.sending = false;
                    connection.out.push_front(buf);
                }
                line => {
                    if let Some((connection, _)) = line {
                        connection.out.sending = false;
                    }
                    if let Some(staging) = buf.into_staging() {
                        self.lines.pool.give(staging);
                    }
                }
            },
            IoEvent::Lifted { conn, socket } => {
                if let Some((connection, _)) = self.lines.get(conn) {
                    connection.lifted = Some(Arc::new(socket));
                }
            }
            IoEvent::Detached { conn } => self.lines.forget(conn),
            IoEvent::Connected { .. } | IoEvent::Closed { .. } => self.unhandled.push(event),
        }
    }

    /// The connections that are out of the back end.
    fn lines(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        for key in self.lines.keys() {
            let Some((connection, _)) = self.lines.get(key) else { continue };
            let Some(socket) = connection.lifted.clone() else { continue };
            let mut unread = connection.reader.begun();
            unread.extend_from_slice(&connection.backlog);
            let bound = connection.bound.iter().map(|bound| (bound.client.index, bound.client.generation));
            let record = LineRecord {
                connection: connection.id.to_bits(),
                bound: bound.collect(),
                unread,
                unsent: connection.out.unsent(),
                replies_due: connection.replies_due,
                calls_unanswered: connection.calls_unanswered as u64,
                call_serial: connection.call_serial,
                dialled: connection.dialled,
            };
            lines.push(Line { socket, record });
        }
        lines
    }

    /// A connection of another process. Its socket comes into the back end when this reactor goes on.
    pub(super) fn take_over(&mut self, line: RestoredLine) {
        let RestoredLine { socket, record } = line;
        let id = ConnectionId::from_bits(record.connection);
        let key = self.lines.add(id, self.home.shared.settings.record_bytes_max, None);
        let shared = &self.home.shared;
        let Some((connection, pool)) = self.lines.get(key) else { return };
        let bound = record.bound.iter().filter_map(|(index, generation)| {
            let client = ClientId { index: *index, generation: *generation };
            Some(Bound { client, home: shared.home_of(*index)? })
        });
        connection.bound = bound.collect();
        connection.backlog = record.unread;
        if !record.unsent.is_empty() {
            connection.out.push(record.unsent, pool);
        }
        connection.replies_due = record.replies_due;
        connection.calls_unanswered = usize::try_from(record.calls_unanswered).unwrap_or(usize::MAX);
        connection.call_serial = record.call_serial;
        connection.dialled = record.dialled;
        connection.lifted = Some(Arc::new(socket));
    }

    /// Goes on as if nothing had happened.
    pub(crate) fn go_on(&mut self) {
        self.tell_time(self.io.now_ns());
        for key in self.lines.keys() {
            if let Some(socket) = self.lines.get(key).and_then(|(connection, _)| connection.lifted.take()) {
                self.put_down_shared(key, socket);
            }
        }
        for event in std::mem::take(&mut self.unhandled) {
            self.handle(event);
        }
    }

    fn put_down_shared(&mut self, key: ConnKey, socket: Arc<OwnedFd>) {
        // Whoever was about to send it to another process has let go of it, or is about to.
        match Arc::try_unwrap(socket).or_else(|shared| shared.try_clone()) {
            Ok(socket) => self.put_down(key, socket),
            Err(_) => {
                self.close(key);
                self.lines.forget(key);
            }
        }
    }
}
