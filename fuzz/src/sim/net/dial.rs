//! Lines that a reactor makes, to the callback services of clients of minor version 0.

use super::{Happening, Line, LineId, Net, Pipe, Quality, Stage, socket};
use crate::sim::coverage::Kind;
use crate::sim::journal::Rule;
use ringback::simulator::ConnKey;
use std::io;
use std::net::SocketAddr;

/// Connections that a reactor may make at the same time.
pub(crate) const CONNECTS_MAX: usize = 2;

/// How a callback service takes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    /// Nobody listens.
    Closed,
    /// Nothing comes back.
    Silent,
}

/// A callback service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listener {
    pub client: usize,
    pub door: Door,
    /// The SETCLIENTID that names it was confirmed.
    pub confirmed: bool,
    pub quality: Quality,
}

/// An attempt to connect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dial {
    pub due_ns: u64,
    taken: bool,
    address: SocketAddr,
}

impl Net {
    /// A reactor begins to connect.
    pub(crate) fn dial(&mut self, reactor: usize, key: ConnKey, address: SocketAddr) -> io::Result<LineId> {
        let known = self.listeners.get(&address).copied();
        self.journal.check(Rule::Stale, known.is_some_and(|l| l.confirmed), || {
            format!("reactor {reactor} connects to {address}, which nobody has confirmed: {known:?}")
        });
        if self.step_fails() || self.choices.per_mille(self.faults.attach_failed) {
            self.journal.reach(Kind::ConnectFailed);
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let Some(listener) = known else { return Err(io::ErrorKind::ConnectionRefused.into()) };
        let Quality { latency_ns, jitter_ns, .. } = listener.quality;
        let arrives_ns = self.journal.now_ns() + 2 * latency_ns + self.choices.below(jitter_ns + 1);
        self.journal.reach(match listener.door {
            Door::Open if address.is_ipv6() => Kind::ConnectTaken6,
            Door::Open => Kind::ConnectTaken,
            Door::Closed => Kind::ConnectRefused,
            Door::Silent => Kind::ConnectSilent,
        });
        let others =
            |line: &&LineId| self.lines[**line].reactor == reactor && self.lines[**line].stage == Stage::Dialling;
        let dialling = self.live.iter().filter(others).count();
        self.journal.check(Rule::BoundedWork, dialling < CONNECTS_MAX, || {
            format!("reactor {reactor} connects to {address}, and {dialling} attempts are under way")
        });
        let due_ns = if listener.door == Door::Silent { u64::MAX } else { arrives_ns };
        let id = self.lines.len();
        self.live.push(id);
        let (far, descriptor) = socket::pair();
        let dial = Dial { due_ns, taken: listener.door == Door::Open, address };
        self.lines.push(Line {
            quality: listener.quality,
            frozen: false,
            reads: true,
            client_open: false,
            client_shut: false,
            stage: Stage::Dialling,
            reactor,
            key: Some(key),
            descriptor: Some(descriptor),
            far: Some(far),
            dial: Some(dial),
            paused: false,
            closed_told: false,
            sending: None,
            refused: false,
            gone_ns: 0,
            to_client: Pipe::default(),
            to_server: Pipe::default(),
        });
        Ok(id)
    }

    /// An attempt is over.
    pub(super) fn dialled(&mut self, id: LineId) -> Option<Happening> {
        let line = &mut self.lines[id];
        let dial = line.dial?;
        line.stage = Stage::Attached;
        if !dial.taken {
            // There is no other end that could close.
            line.closed_told = true;
            return Some(Happening::Connected(Err(io::ErrorKind::ConnectionRefused.into())));
        }
        line.client_open = true;
        let client = self.listeners.get(&dial.address)?.client;
        self.accepted.push((client, id));
        Some(Happening::Connected(Ok(())))
    }

    /// To where a reactor has made the line; `None`: the client has.
    pub(crate) fn address_of(&self, line: LineId) -> Option<SocketAddr> {
        self.lines[line].dial.map(|dial| dial.address)
    }

    /// Whether the server has the line, and has not begun to let go of it.
    pub(crate) fn is_attached(&self, line: LineId) -> bool {
        self.lines[line].stage == Stage::Attached
    }

    /// A service that was never confirmed.
    pub(crate) fn some_unconfirmed(&self) -> Option<SocketAddr> {
        self.listeners.iter().find(|(_, listener)| !listener.confirmed).map(|(address, _)| *address)
    }
}
