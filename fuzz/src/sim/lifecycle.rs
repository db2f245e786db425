//! Clients with their sessions and lines: how they come, change, are drained and go, told to both sides.

use super::client::behaviour::Behaviour;
use super::client::{Client, Limits, Principal, Session};
use super::coverage::Kind;
use super::journal::Rule;
use super::net::{LineId, Quality};
use super::transport::Carrier;
use super::world::{PartDrain, World};
use ringback::simulator::Drain;
use ringback::{CallbackOp, ClientLimits, ClientState, ConnectionId, Runtime, Security, SessionConfig, TenantLimits};
use std::collections::VecDeque;
use std::time::Duration;

/// How much later than its deadline a drain may end.
const DRAIN_SLACK_NS: u64 = 2_000_000_000;

/// Lines that a client has at most: more than the core knows what to do with would be refused.
const LINES_MAX: usize = 8;

impl World {
    pub(crate) fn bind_some(&mut self, client: usize, line: Option<usize>) {
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
        if session.bound.contains(&line) {
            self.journal.reach(Kind::Bound);
        } else {
            session.bound.push(line);
        }
        let answer = runtime.bind(*connection, session.key);
        self.journal.note(|| format!("client {client}: binds line {line} to {:?}: {answer:?}", session.key), 43);
    }

    pub(crate) fn connect(&mut self, client: usize, quality: Quality) -> Option<usize> {
        if self.clients[client].lines.len() >= LINES_MAX || self.clients[client].is_minor0() {
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
        if self.choices.per_mille(self.scenario.transports) {
            let carrier = Carrier::new(line, &runtime, &mut self.net.borrow_mut())?;
            let connection = carrier.connection();
            self.journal.reach(Kind::OwnTransport);
            self.journal.note(|| format!("line {line} opens: a transport: {connection:?}"), 44);
            self.connections.insert(line, connection);
            self.carriers.push(carrier);
            return Some((line, connection));
        }
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

    pub(crate) fn server_close(&mut self, client: usize) {
        if let (Some(line), Some(runtime)) = (self.some_line(client), self.embedder.runtime())
            && let Some(connection) = self.connections.get(&line)
        {
            self.journal.note(|| format!("the server closes line {line}"), 45);
            self.journal.reach(Kind::ServerCloses);
            runtime.close_connection(*connection);
        }
    }

    pub(crate) fn principal(&mut self) -> Principal {
        self.principals += 1;
        Principal { program: 0x4000_0000 + self.principals, stamp: self.principals }
    }

    pub(crate) fn create_session(&mut self, client: usize) {
        if self.clients[client].is_minor0() {
            return self.begin_minor0(client);
        }
        let Some(runtime) = self.embedder.runtime() else { return };
        let principal = self.principal();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.choices.next().to_be_bytes());
        id[8..12].copy_from_slice(&principal.stamp.to_be_bytes());
        let slots = self.choices.log_between(self.scenario.slots_min, self.scenario.slots_max) as u32;
        let request_bytes_max = self.choices.pick(&[512, 4096, 4096, 1 << 20]);
        // The Linux client takes two operations.
        let operations_max = self.choices.pick(&[2, 2, 3, 8, 100]);
        let (request_bytes_max, operations_max) =
            self.scenario.call_limits.unwrap_or((request_bytes_max, operations_max));
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
            self.journal.reach(Kind::SessionCreated);
            self.fore.add_session(principal.stamp, key, known.id, id);
            known.sessions.push(Session::new(id, key, principal, slots, Limits { request_bytes_max, operations_max }));
            self.wire.session_added(id, client, known.home, principal);
        }
    }

    pub(crate) fn destroy_some(&mut self, client: usize) {
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
        self.journal.reach(Kind::SessionDestroyed);
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

    pub(crate) fn control_some(&mut self, client: usize) {
        let Some(at) = self.some_session(client) else { return };
        let Some(runtime) = self.embedder.runtime() else { return };
        let principal = self.principal();
        let session = &mut self.clients[client].sessions[at];
        let answer = runtime.backchannel_ctl(session.key, principal.program, security(principal));
        self.journal.note(|| format!("client {client}: {principal:?} on {:?}: {answer:?}", session.key), 49);
        if answer.is_ok() {
            self.journal.reach(Kind::BackchannelCtl);
            session.principals.push(principal);
            self.wire.controlled(session.id, principal);
        }
    }

    pub(crate) fn set_target(&mut self, client: usize) {
        if let Some(at) = self.some_session(client) {
            let session = &mut self.clients[client].sessions[at];
            let target = self.choices.below(u64::from(session.slot_count()) + 2) as u32;
            session.set_target(target);
            self.journal.reach(Kind::TargetMoved);
        }
    }

    /// A client lowers or raises csr_highest_slotid, if it is sure that the server will know which came last.
    pub(crate) fn resize(&mut self, client: usize) {
        let Some(at) = self.some_session(client) else { return };
        let count = self.clients[client].sessions[at].slot_count();
        let half = self.choices.below(u64::from(count)) as u32;
        let highest = self.choices.pick(&[0, half, count - 1]);
        self.clients[client].resize(at, highest, &self.net.borrow());
    }

    pub(crate) fn announce(&mut self, client: usize, state: ClientState) {
        let Some(runtime) = self.embedder.runtime() else { return };
        let known = &mut self.clients[client];
        match (known.state, state) {
            (_, ClientState::Courtesy) => self.journal.reach(Kind::Courtesy),
            (_, ClientState::Expired) => self.journal.reach(Kind::ClientExpired),
            (ClientState::Courtesy, ClientState::Active) => self.journal.reach(Kind::CourtesyOver),
            (ClientState::Expired, ClientState::Active) => self.journal.reach(Kind::BackFromExpired),
            (ClientState::Active, ClientState::Active) => {}
        }
        known.state = state;
        {
            let owner = &mut self.embedder.reference().owners[client];
            owner.courtesy |= state == ClientState::Courtesy;
            owner.expired |= state == ClientState::Expired;
        }
        let answer = runtime.set_client_state(self.clients[client].id, state);
        self.journal.note(|| format!("client {client} is {state:?}: {answer:?}"), 50);
    }

    pub(crate) fn renew(&mut self, client: usize) {
        let session = self.some_session(client).map(|at| self.clients[client].sessions[at].key);
        let Some(runtime) = self.embedder.runtime() else { return };
        let status = runtime.seq4_status(self.clients[client].id, session);
        self.journal.note(|| format!("client {client} renews: {status:#x}"), 51);
        if status != 0 {
            self.journal.reach(Kind::PathDownTold);
        }
        self.embedder.reference().owners[client].told |= status != 0;
    }

    /// A client is forgotten, and comes back as a new one.
    pub(crate) fn replace(&mut self, client: usize) {
        let Some(runtime) = self.embedder.runtime() else { return };
        let known = &mut self.clients[client];
        known.removed = true;
        self.journal.reach(Kind::ClientReplaced);
        let net = self.net.borrow();
        let unreachable = known.lines.iter().all(|(line, _)| net.is_history(*line));
        drop(net);
        if unreachable && self.embedder.reference().runs_of(client) > 0 {
            self.journal.reach(Kind::RebootParked);
        }
        for session in &mut known.sessions {
            (session.destroyed, session.removed) = (true, true);
            self.wire.session_removed(session.id);
        }
        let answer = runtime.remove_client(known.id);
        self.journal.note(|| format!("the server removes client {client}: {answer:?}"), 52);
        self.embedder.reference().remove_owner(client);
        self.close_doors(client);
        let late = self.embedder.insert(self.clients[client].id, client, CallbackOp::Recall, 0);
        self.journal.check(Rule::Answer, late.is_none(), || format!("insert for client {client}, which is removed"));
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
        let tenant = self.some_tenant();
        let id = match tenant {
            None => runtime.add_client(Some(connection)),
            Some(at) => runtime.add_client_of(self.embedder.reference().tenants.id(at), Some(connection)),
        };
        self.journal.note(|| format!("client {index} comes: {id:?}"), 53);
        let (id, home) = (id.ok()?, connection.reactor());
        let mut client = Client::new(index, id, home, self.choices.fork(), self.journal.clone());
        client.add_line(line);
        client.tenant = tenant;
        if self.scenario.minor0 > 0 && self.choices.per_mille(self.scenario.minor0) {
            client.paths = Some(Vec::new());
        }
        if self.choices.per_mille(self.scenario.odd) {
            let behaviour = Behaviour::draw(&mut self.choices, self.scenario.may_lie, self.scenario.liars);
            client.set_behaviour(behaviour, &mut self.net.borrow_mut());
        }
        self.clients.push(client);
        self.embedder.reference().owners.push(super::reference::Owner { home, tenant, ..Default::default() });
        for _ in 0..self.choices.between(1, self.scenario.sessions_max.min(2)) {
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

    /// The tenants of the scenario come.
    pub(crate) fn add_tenants(&mut self) {
        let Some(runtime) = self.embedder.runtime() else { return };
        for at in 0..self.scenario.tenants {
            let (label, limits) = (format!("tenant {at}"), self.some_limits());
            let told = self.embedder.planted().loosen(limits);
            let id = runtime.add_tenant(&label, told);
            self.journal.note(|| format!("{label} comes: {id:?} {limits:?}"), 57);
            self.journal.check(Rule::Answer, id.is_ok(), || format!("{label}: {id:?}"));
            if let Ok(id) = id {
                self.embedder.reference().tenants.add(id, label, limits);
            }
        }
    }

    fn some_limits(&mut self) -> TenantLimits {
        let choices = &mut self.choices;
        let callbacks = [0, 0, choices.log_between(1, 300) as u32];
        let limits = TenantLimits::default().callbacks_max(choices.pick(&callbacks));
        limits.calls_max(choices.pick(&[0, 1, 3, 8])).rate_max(choices.pick(&[0, 0, 20, 1000]))
    }

    fn some_tenant(&mut self) -> Option<usize> {
        let count = self.embedder.reference().tenants.len();
        if count == 0 { None } else { self.choices.index(count + 1).checked_sub(1) }
    }

    /// A tenant has other limits from now on.
    fn limit_some_tenant(&mut self) {
        let (Some(runtime), Some(at)) = (self.embedder.runtime(), self.some_tenant()) else { return };
        let limits = self.some_limits();
        self.limit(&runtime, at, limits);
    }

    fn limit(&self, runtime: &Runtime, at: usize, limits: TenantLimits) {
        self.journal.reach(Kind::TenantLimited);
        self.journal.note(|| format!("tenant {at}: {limits:?}"), 58);
        let told = self.embedder.planted().loosen(limits);
        let answer = runtime.set_tenant_limits(self.embedder.reference().tenants.id(at), told);
        self.journal.check(Rule::Answer, answer.is_ok(), || format!("tenant {at}: {answer:?}"));
        self.embedder.reference().tenants.set(at, limits);
    }

    /// No tenant has limits any more.
    pub(crate) fn lift_limits(&self) {
        let Some(runtime) = self.embedder.runtime() else { return };
        let count = self.embedder.reference().tenants.len();
        (0..count).for_each(|at| self.limit(&runtime, at, TenantLimits::default()));
    }

    /// Settings change, to what the scenario allows.
    pub(crate) fn tune(&mut self) {
        let Some(runtime) = self.embedder.runtime() else { return };
        let (choices, scenario) = (&mut self.choices, &self.scenario);
        let ms = |ns: u64| Duration::from_nanos(ns).max(Duration::from_millis(1));
        let answer = runtime.tune(|to| {
            // Never longer than what the model knows.
            to.run_deadline = ms(scenario.run_deadline_ns / choices.pick(&[1, 1, 2]));
            to.rpc_timeout = ms(scenario.rpc_timeout_ns / choices.pick(&[1, 1, 2, 5]));
            to.backoff_min = Duration::from_millis(choices.pick(&[1, 50, 100, 1000]));
            to.batch_max = choices.between(1, 64) as u32;
            to.recalls_passed_over_max = choices.pick(&[0, 1, 4]);
            to.background_passed_over_max = choices.pick(&[0, 1, 16]);
            to.client_limits = ClientLimits::default().calls_max(choices.pick(&[0, 0, 1, 4]));
            to.calls_unanswered_max = scenario.calls_unanswered_max.max(choices.pick(&[1, 16]));
        });
        self.journal.reach(Kind::Tuned);
        self.journal.note(|| format!("settings change: {:?}", runtime.tuning()), 56);
        self.limit_some_tenant();
        self.journal.check(Rule::Answer, answer.is_ok(), || format!("{answer:?}"));
    }

    /// A client is to move to another reactor.
    pub(crate) fn move_client(&mut self, client: usize) {
        let Some(runtime) = self.embedder.runtime() else { return };
        let (id, to) = (self.clients[client].id, self.choices.index(self.scenario.reactors));
        let asked = runtime.move_client(id, to);
        self.journal.note(|| format!("client {client} is to move to reactor {to}: {asked:?}"), 55);
        if asked.is_ok() {
            let mut reference = self.embedder.reference();
            reference.moves.entry(id).or_insert_with(|| (client, VecDeque::new())).1.push_back(to);
        }
    }

    /// Drains a client, or a session of it.
    pub(crate) fn drain_one(&mut self, client: usize, session: Option<usize>) {
        let deadline_ns = self.journal.now_ns() + self.choices.pick(&[0, 1_000_000, self.scenario.lease_ns]);
        self.drain_until(client, session, deadline_ns);
    }

    pub(crate) fn drain_until(&mut self, client: usize, session: Option<usize>, deadline_ns: u64) {
        let Some(runtime) = self.embedder.runtime() else { return };
        let key = session.map(|at| self.clients[client].sessions[at].key);
        let begun = match key {
            Some(key) => Drain::begin_session(&runtime, key, deadline_ns),
            None => Drain::begin_client(&runtime, self.clients[client].id, deadline_ns),
        };
        self.journal.note(|| format!("drain of client {client} {key:?} until {deadline_ns}: {}", begun.is_ok()), 54);
        if let Ok(drain) = begun {
            self.journal.reach(if key.is_some() { Kind::DrainSession } else { Kind::DrainClient });
            let number = self.embedder.reference().begin_drain(client, key.is_some());
            if let Some(at) = session {
                self.wire.session_drained(self.clients[client].sessions[at].id);
            }
            self.drains.push(PartDrain { drain, number, client, session: key, deadline_ns });
        }
    }

    /// Drains of clients and sessions that have ended: what was drained goes.
    pub(crate) fn look_at_drains(&mut self) {
        if self.is_left_alone() {
            return;
        }
        for at in (0..self.drains.len()).rev() {
            let drain = &self.drains[at];
            let Some(report) = drain.drain.poll() else {
                let slack_ns = DRAIN_SLACK_NS + self.embedder.reference().stood_ns();
                let late = self.journal.now_ns() > drain.deadline_ns + slack_ns;
                self.journal.check(Rule::Ends, !late, || {
                    format!("the drain of client {} {:?} does not end", drain.client, drain.session)
                });
                continue;
            };
            let drain = self.drains.swap_remove(at);
            self.journal
                .note(|| format!("the drain of client {} {:?} ends: {report:?}", drain.client, drain.session), 55);
            self.embedder.reference().end_drain(drain.number, &report);
            if self.clients[drain.client].removed {
                continue;
            }
            match drain.session {
                Some(key) => {
                    if let Some(session) = self.clients[drain.client].sessions.iter().position(|s| s.key == key) {
                        self.destroy(drain.client, session);
                        self.remove_destroyed(drain.client);
                    }
                }
                None => self.replace(drain.client),
            }
        }
    }
}

pub(crate) fn security(principal: Principal) -> Security {
    Security::Sys { stamp: principal.stamp, machine_name: b"sim".to_vec(), uid: 0, gid: 0, gids: Vec::new() }
}
