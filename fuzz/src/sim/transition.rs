//! What may happen next, to the simulated file server, its clients and their lines.

use super::client::behaviour::Behaviour;
use super::client::{Client, Limits, Principal, Session};
use super::net::{LineId, Quality};
use super::world::World;
use ringback::{CallbackOp, ClientState, ConnectionId, Security, SessionConfig};

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Callbacks are asked to run, some of them more than once.
    Run,
    /// Callbacks are inserted.
    Insert,
    /// Callbacks are removed, whatever they are doing.
    Remove,
    /// The runtime is asked about a key that it never gave out.
    Stranger,
    /// A client opens a line and binds it.
    Connect,
    /// A client binds a line that it has, to a session that it has.
    Bind,
    /// A client closes a line.
    Close,
    /// A client resets a line.
    Reset,
    /// A client shuts its sending side.
    Shut,
    /// The server closes a connection.
    ServerClose,
    /// A line stops delivering, or delivers again.
    Freeze,
    /// A client creates a session.
    Create,
    /// A client destroys a session; the server learns of it then, or a little later.
    Destroy,
    /// The server learns of sessions that were destroyed.
    Remember,
    /// BACKCHANNEL_CTL.
    Control,
    /// A client changes its behaviour.
    Behave,
    /// A client would like to see more or fewer slots used.
    Target,
    /// The embedder announces the state of a client.
    Announce,
    /// A client renews its lease, and is told how its callback path is.
    Renew,
    /// A client goes, and a new incarnation comes.
    Replace,
}

impl Action {
    /// All of them, and how likely each one is.
    pub(crate) const ALL: [(Action, u64); 20] = [
        (Action::Run, 100),
        (Action::Insert, 20),
        (Action::Remove, 5),
        (Action::Stranger, 1),
        (Action::Connect, 8),
        (Action::Bind, 6),
        (Action::Close, 3),
        (Action::Reset, 3),
        (Action::Shut, 1),
        (Action::ServerClose, 2),
        (Action::Freeze, 4),
        (Action::Create, 4),
        (Action::Destroy, 3),
        (Action::Remember, 5),
        (Action::Control, 4),
        (Action::Behave, 8),
        (Action::Target, 2),
        (Action::Announce, 2),
        (Action::Renew, 10),
        (Action::Replace, 1),
    ];
}

const OPS: [CallbackOp; 14] = [
    CallbackOp::Recall,
    CallbackOp::Recall,
    CallbackOp::Recall,
    CallbackOp::Recall,
    CallbackOp::Getattr,
    CallbackOp::LayoutRecall,
    CallbackOp::Notify,
    CallbackOp::PushDeleg,
    CallbackOp::RecallAny,
    CallbackOp::RecallSlot,
    CallbackOp::NotifyLock,
    CallbackOp::NotifyDeviceId,
    CallbackOp::Offload,
    CallbackOp::RecallableObjAvail,
];

/// Lines that a client has at most: more than the core knows what to do with would be refused.
const LINES_MAX: usize = 8;

impl World {
    /// Something happens.
    pub(crate) fn act(&mut self) {
        let action = Action::ALL[self.choices.weighted(&self.scenario.weights)].0;
        let Some(client) = self.some_client() else { return };
        match action {
            Action::Run => {
                self.come_back(client);
                self.run_some(client);
            }
            Action::Insert => {
                let count = self.choices.log_between(1, 64);
                self.insert(client, count);
            }
            Action::Remove => self.remove_some(),
            Action::Stranger => {
                let bits = self.choices.next() >> self.choices.pick(&[0, 20, 40]);
                self.embedder.try_stranger(bits);
            }
            Action::Connect => {
                let quality = self.scenario.quality(&mut self.choices);
                let line = self.connect(client, quality);
                self.bind_some(client, line);
            }
            Action::Bind => {
                let line = self.some_line(client);
                self.bind_some(client, line);
            }
            Action::Close | Action::Reset => {
                if let Some(line) = self.some_line(client) {
                    self.journal.note(|| format!("client {client}: line {line}: {action:?}"), 40);
                    self.net.borrow_mut().client_close(line, action == Action::Reset);
                    self.clients[client].lines.retain(|(id, _)| *id != line);
                }
            }
            Action::Shut => {
                if let Some(line) = self.some_line(client) {
                    self.journal.note(|| format!("client {client}: shuts line {line}"), 41);
                    self.net.borrow_mut().client_shut(line);
                }
            }
            Action::ServerClose => self.server_close(client),
            Action::Freeze => {
                if let Some(line) = self.some_line(client) {
                    let frozen = &mut self.net.borrow_mut().lines[line].frozen;
                    *frozen = !*frozen;
                    let frozen = *frozen;
                    self.journal.note(|| format!("line {line}: frozen: {frozen}"), 42);
                }
            }
            Action::Create => {
                self.create_session(client);
                let line = self.some_line(client);
                self.bind_some(client, line);
            }
            Action::Destroy => self.destroy_some(client),
            Action::Remember => self.remove_destroyed(client),
            Action::Control => self.control_some(client),
            Action::Behave => {
                let good = self.choices.below(3) == 0;
                let other = Behaviour::draw(&mut self.choices, self.scenario.may_lie);
                let behaviour = if good { Behaviour::GOOD } else { other };
                self.clients[client].set_behaviour(behaviour, &mut self.net.borrow_mut());
            }
            Action::Target => self.set_target(client),
            Action::Announce => {
                let back = self.clients[client].in_courtesy || self.choices.below(2) == 0;
                self.announce(client, if back { ClientState::Active } else { ClientState::Courtesy });
            }
            Action::Renew => self.renew(client),
            Action::Replace => self.replace(client),
        }
    }

    fn some_client(&mut self) -> Option<usize> {
        let live: Vec<usize> = self.clients.iter().filter(|c| !c.removed).map(|c| c.index).collect();
        self.choices.any(&live).copied()
    }

    fn some_line(&mut self, client: usize) -> Option<usize> {
        let lines: Vec<usize> = self.clients[client].lines.iter().map(|(id, _)| *id).collect();
        self.choices.any(&lines).copied()
    }

    fn some_session(&mut self, client: usize) -> Option<usize> {
        let sessions = &self.clients[client].sessions;
        let live: Vec<usize> = (0..sessions.len()).filter(|at| !sessions[*at].destroyed).collect();
        self.choices.any(&live).copied()
    }

    /// Most clients that have lost their line or their session, or were asleep for too long, come back.
    fn come_back(&mut self, client: usize) {
        if self.choices.below(4) == 0 {
            return;
        }
        if self.clients[client].in_courtesy {
            self.announce(client, ClientState::Active);
        }
        if self.clients[client].sessions.iter().all(|s| s.destroyed) {
            self.create_session(client);
        }
        let lines = &self.clients[client].lines;
        let net = self.net.borrow();
        let alone = lines.iter().all(|(line, _)| net.is_history(*line));
        drop(net);
        if alone {
            let quality = self.scenario.quality(&mut self.choices);
            let line = self.connect(client, quality);
            self.bind_some(client, line);
        }
    }

    /// Asks for runs of callbacks of one client, or of any.
    fn run_some(&mut self, client: usize) {
        let (idle, all): (Vec<usize>, usize) = {
            let reference = self.embedder.reference();
            let own = reference.callbacks.iter().enumerate().filter(|(_, c)| c.owner == client && c.is_idle());
            (own.map(|(cookie, _)| cookie).collect(), reference.callbacks.len())
        };
        for _ in 0..self.choices.log_between(1, 128) {
            // Callbacks that run, that are going and that are gone are asked for too.
            if self.choices.below(8) == 0 && all > 0 {
                let cookie = self.choices.index(all);
                self.embedder.try_run(cookie);
            } else if let Some(cookie) = self.choices.any(&idle) {
                self.embedder.try_run(*cookie);
            }
        }
    }

    pub(crate) fn insert(&mut self, client: usize, count: u64) {
        for _ in 0..count {
            let op = self.choices.pick(&OPS);
            let filling = self.choices.below(self.scenario.filling_max + 1) as usize;
            if self.embedder.insert(self.clients[client].id, client, op, filling).is_none() {
                break;
            }
        }
    }

    fn remove_some(&mut self) {
        let all = self.embedder.reference().callbacks.len();
        for _ in 0..self.choices.log_between(1, 32) {
            if all > 0 {
                let cookie = self.choices.index(all);
                self.embedder.remove(cookie);
            }
        }
    }

    fn bind_some(&mut self, client: usize, line: Option<usize>) {
        let Some(line) = line else { return };
        for session in 0..self.clients[client].sessions.len() {
            if self.choices.below(4) > 0 {
                self.bind(client, line, session);
            }
        }
    }

    /// Binds a line to a session, on both sides.
    pub(crate) fn bind(&mut self, client: usize, line: usize, session: usize) {
        let session = &mut self.clients[client].sessions[session];
        let (Some(connection), Some(runtime)) = (self.connections.get(&line), self.embedder.runtime()) else { return };
        if session.destroyed {
            return;
        }
        if !session.bound.contains(&line) {
            session.bound.push(line);
        }
        let answer = runtime.bind(*connection, session.key);
        self.journal.note(|| format!("client {client}: binds line {line} to {:?}: {answer:?}", session.key), 43);
    }

    pub(crate) fn connect(&mut self, client: usize, quality: Quality) -> Option<usize> {
        if self.clients[client].lines.len() >= LINES_MAX {
            return None;
        }
        let (line, _) = self.open_line(quality)?;
        self.net.borrow_mut().lines[line].reads = self.clients[client].behaviour.reads;
        self.clients[client].add_line(line);
        Some(line)
    }

    fn open_line(&mut self, quality: Quality) -> Option<(LineId, ConnectionId)> {
        let runtime = self.embedder.runtime()?;
        let (line, descriptor) = self.net.borrow_mut().connect(quality);
        let connection = runtime.add_connection(descriptor);
        self.journal.note(|| format!("line {line} opens: {connection:?}"), 44);
        match connection {
            Ok(connection) => {
                self.connections.insert(line, connection);
                Some((line, connection))
            }
            Err(_) => {
                self.net.borrow_mut().abandon(line);
                None
            }
        }
    }

    fn server_close(&mut self, client: usize) {
        if let (Some(line), Some(runtime)) = (self.some_line(client), self.embedder.runtime())
            && let Some(connection) = self.connections.get(&line)
        {
            self.journal.note(|| format!("the server closes line {line}"), 45);
            runtime.close_connection(*connection);
        }
    }

    fn principal(&mut self) -> Principal {
        self.principals += 1;
        Principal { program: 0x4000_0000 + self.principals, stamp: self.principals }
    }

    pub(crate) fn create_session(&mut self, client: usize) {
        let Some(runtime) = self.embedder.runtime() else { return };
        let principal = self.principal();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.choices.next().to_be_bytes());
        id[8..12].copy_from_slice(&principal.stamp.to_be_bytes());
        let slots = self.choices.log_between(1, self.scenario.slots_max) as u32;
        let request_bytes_max = self.choices.pick(&[512, 4096, 4096, 1 << 20]);
        // The Linux client takes two operations.
        let operations_max = self.choices.pick(&[2, 2, 3, 8, 100]);
        let config = SessionConfig {
            session_id: id,
            program: principal.program,
            security: security(principal),
            slots,
            request_bytes_max,
            response_bytes_max: 4096,
            operations_max,
            minor_version: self.choices.pick(&[1, 1, 2]),
        };
        let known = &mut self.clients[client];
        let key = runtime.add_session(known.id, config);
        self.journal.note(|| format!("client {client}: creates a session of {slots} slots: {key:?}"), 46);
        if let Ok(key) = key {
            known.sessions.push(Session::new(id, key, principal, slots, Limits { request_bytes_max, operations_max }));
            self.wire.session_added(id, client, known.home, principal);
        }
    }

    fn destroy_some(&mut self, client: usize) {
        if let Some(session) = self.some_session(client) {
            self.destroy(client, session);
            if self.choices.below(2) == 0 {
                self.remove_destroyed(client);
            }
        }
    }

    pub(crate) fn destroy(&mut self, client: usize, session: usize) {
        let session = &mut self.clients[client].sessions[session];
        session.destroyed = true;
        self.embedder.reference().owners[client].has_destroyed = true;
        self.journal.note(|| format!("client {client}: destroys {:?}", session.key), 47);
    }

    pub(crate) fn remove_destroyed(&mut self, client: usize) {
        let Some(runtime) = self.embedder.runtime() else { return };
        for session in self.clients[client].sessions.iter_mut().filter(|s| s.destroyed && !s.removed) {
            session.removed = true;
            let answer = runtime.remove_session(session.key);
            self.journal.note(|| format!("the server removes {:?}: {answer:?}", session.key), 48);
            self.wire.session_removed(session.id);
        }
    }

    fn control_some(&mut self, client: usize) {
        let Some(at) = self.some_session(client) else { return };
        let Some(runtime) = self.embedder.runtime() else { return };
        let principal = self.principal();
        let session = &mut self.clients[client].sessions[at];
        let answer = runtime.backchannel_ctl(session.key, principal.program, security(principal));
        self.journal.note(|| format!("client {client}: {principal:?} on {:?}: {answer:?}", session.key), 49);
        if answer.is_ok() {
            session.principals.push(principal);
            self.wire.controlled(session.id, principal);
        }
    }

    fn set_target(&mut self, client: usize) {
        if let Some(at) = self.some_session(client) {
            let session = &mut self.clients[client].sessions[at];
            let target = self.choices.below(u64::from(session.slot_count()) + 2) as u32;
            session.set_target(target);
        }
    }

    pub(crate) fn announce(&mut self, client: usize, state: ClientState) {
        let Some(runtime) = self.embedder.runtime() else { return };
        self.clients[client].in_courtesy = state == ClientState::Courtesy;
        self.embedder.reference().owners[client].courtesy |= state == ClientState::Courtesy;
        let answer = runtime.set_client_state(self.clients[client].id, state);
        self.journal.note(|| format!("client {client} is {state:?}: {answer:?}"), 50);
    }

    fn renew(&mut self, client: usize) {
        let session = self.some_session(client).map(|at| self.clients[client].sessions[at].key);
        let Some(runtime) = self.embedder.runtime() else { return };
        let status = runtime.seq4_status(self.clients[client].id, session);
        self.journal.note(|| format!("client {client} renews: {status:#x}"), 51);
        self.embedder.reference().owners[client].told |= status != 0;
    }

    /// A client is forgotten, and comes back as a new one.
    fn replace(&mut self, client: usize) {
        let Some(runtime) = self.embedder.runtime() else { return };
        let known = &mut self.clients[client];
        known.removed = true;
        for session in &mut known.sessions {
            (session.destroyed, session.removed) = (true, true);
            self.wire.session_removed(session.id);
        }
        let answer = runtime.remove_client(known.id);
        self.journal.note(|| format!("the server removes client {client}: {answer:?}"), 52);
        self.embedder.reference().owners[client].removed = true;
        if self.choices.below(2) == 0 {
            for (line, _) in std::mem::take(&mut self.clients[client].lines) {
                self.net.borrow_mut().client_close(line, true);
            }
        }
        let callbacks: Vec<usize> = {
            let reference = self.embedder.reference();
            let own = reference.callbacks.iter().enumerate().filter(|(_, c)| c.owner == client && c.exists);
            own.map(|(cookie, _)| cookie).collect()
        };
        for cookie in callbacks {
            self.embedder.remove(cookie);
        }
        self.add_client();
    }

    /// A client makes itself known, with a session and a line.
    pub(crate) fn add_client(&mut self) -> Option<usize> {
        let runtime = self.embedder.runtime()?;
        let index = self.clients.len();
        let quality = self.scenario.quality(&mut self.choices);
        let (line, connection) = self.open_line(quality)?;
        let id = runtime.add_client(Some(connection));
        self.journal.note(|| format!("client {index} comes: {id:?}"), 53);
        let (id, home) = (id.ok()?, connection.reactor());
        let mut client = Client::new(index, id, home, self.choices.fork(), self.journal.clone());
        client.add_line(line);
        if self.choices.per_mille(self.scenario.odd) {
            let behaviour = Behaviour::draw(&mut self.choices, self.scenario.may_lie);
            client.set_behaviour(behaviour, &mut self.net.borrow_mut());
        }
        self.clients.push(client);
        self.embedder.reference().owners.push(super::reference::Owner { home, ..Default::default() });
        for _ in 0..self.choices.between(1, 2) {
            self.create_session(index);
        }
        self.bind_some(index, Some(line));
        for _ in 0..self.choices.below(3) {
            let quality = self.scenario.quality(&mut self.choices);
            let line = self.connect(index, quality);
            self.bind_some(index, line);
        }
        Some(index)
    }
}

fn security(principal: Principal) -> Security {
    Security::Sys { stamp: principal.stamp, machine_name: b"sim".to_vec(), uid: 0, gid: 0, gids: Vec::new() }
}
