//! What other threads, and other reactors, ask for.

use super::Reactor;
use super::connection::Bound;
use super::dial::Dialing;
use super::draining::core_key;
use super::home::{Link, Place, conn_token};
use super::inspect::Inspection;
use crate::callback::Flags;
use crate::command::Command;
use crate::flight::FlightStep;
use crate::hooks::Event;
use crate::io::{ConnKey, Io};
use crate::keys::{ClientId, ConnectionId, SessionKey};
use crate::stats::count;
use crate::transport::Transport;
use ringback_rpc::backchannel::{Backchannel, ClientState};
use ringback_rpc::record::MARK_BYTES;
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl<I: Io> Reactor<I> {
    pub(super) fn run_command(&mut self, command: Command) {
        let command = match command.client().filter(|client| !self.home.has(*client)) {
            Some(client) => match self.keep(client, command) {
                Some(command) => command,
                None => return,
            },
            None => command,
        };
        match command {
            Command::AddSocket { connection, socket } => self.add_socket(connection, socket),
            Command::AddTransport { connection, transport } => self.add_transport(connection, transport),
            Command::CloseConnection(connection) => {
                if let Some(key) = self.lines.key_of(connection) {
                    self.close(key);
                }
            }
            Command::Receive { connection, record } => self.receive_record(connection, record),
            Command::Transmitted { connection, buf, result } => {
                if let Some(key) = self.lines.key_of(connection) {
                    let mut buf = buf;
                    let len = buf.unsent().len();
                    buf.advance(len);
                    self.sent(key, buf, result.map(|()| len));
                }
            }
            Command::Reply { connection, mark, buffers } => self.reply(connection, mark, buffers),
            Command::Bind { connection, session } => self.bind(connection, session),
            Command::Carry { connection, records, calls, client } => self.carry(connection, records, calls, client),
            Command::Carried { connection, client, record } => self.carried(connection, client, &record),
            Command::CarryDone { connection, client } => {
                self.home.act_on(client, |client, _| {
                    if let Some(Link { place: Place::Remote { batches_out }, .. }) = client.link_mut(connection) {
                        // None are counted of what went out before the client left the connection's reactor.
                        *batches_out = batches_out.saturating_sub(1);
                    }
                });
            }
            Command::Release { connection, client } => self.release(connection, client),
            Command::Hold { connection, client, held } => self.hold(connection, client, held),
            Command::Heard { connection, client } => {
                let now_ns = self.home.now_ns;
                self.home.act_on(client, |client, _| client.backchannel.heard(now_ns, conn_token(connection)));
            }
            Command::ConfirmPath { path, params, address } => self.confirm_path(path, &params, address),
            Command::ConnectFailed(path) => self.connect_failed(path),
            Command::Bound { connection, session } => {
                let place = match self.lines.key_of(connection) {
                    Some(key) => Place::Local(key),
                    // It is closed, and was not when the message was sent; another one says so.
                    None if self.home.drives(connection) => return,
                    None => Place::Remote { batches_out: 0 },
                };
                self.bound(connection, place, session);
            }
            Command::Unbound { connection, client } => self.unbound(connection, client),
            Command::Belongs { key, session } => {
                self.home.belongs(key, session);
            }
            Command::Cancel(client) => self.ask_cancel(client),
            Command::DrainClient { client, job } => self.home.drain_client(client, None, job),
            Command::DrainSession { session, job } => self.home.drain_client(session.client, Some(session), job),
            Command::Abandoned { callback, client } => self.home.abandoned(callback, client),
            Command::ForgetWaiters => self.home.end_waits(|_| false),
            Command::Drain(job) => self.begin_drain(job),
            Command::Census { census, answer } => {
                // Nobody waits any more if the receiver is gone.
                let _ = answer.send(self.home.census(|client| self.home.is_uncounted(client, census)));
            }
            Command::CensusOf { client, census, answer } => {
                let counted = self.home.client(client.index).filter(|c| c.id == client).map(|c| c.census());
                if let Some(counted) = counted.filter(|_| self.home.is_uncounted(client, census)) {
                    let _ = answer.send(counted);
                }
            }
            Command::Tune(settings) => self.tune(settings),
            Command::Move { client, to } => self.move_client(client, to),
            Command::Arrive(moving) => self.arrive(*moving),
            Command::Lost(client) => self.lost(client),
            Command::Submit(index) => self.passed_on(index, false),
            Command::TakeBack(index) => self.passed_on(index, true),
            Command::Inspect { callbacks_max, answer } => {
                self.inspections.push_back(Inspection::new(callbacks_max, answer));
            }
            #[cfg(feature = "checkpoint")]
            Command::Export { from, answer } => {
                let _ = answer.send(self.export(from));
            }
            #[cfg(feature = "checkpoint")]
            Command::Freeze(freeze) => self.freeze = Some(freeze),
            #[cfg(feature = "checkpoint")]
            Command::Restore(restored) => self.restore(*restored),
            Command::InspectClient { client, callbacks_max, answer } => {
                if let Some(report) = self.home.describe_client(client, callbacks_max) {
                    let _ = answer.send(report);
                }
            }
            Command::Stop => self.stop(),
            #[cfg(test)]
            Command::Panic => panic!("a mistake of ours, on purpose"),
            // By name, so that a new one is not forgotten.
            of_client @ (Command::AddClient(_)
            | Command::RemoveClient(_)
            | Command::ClientState { .. }
            | Command::Limits { .. }
            | Command::PathDownTold(_)
            | Command::AddSession { .. }
            | Command::RemoveSession(_)
            | Command::Control { .. }) => self.run_client_command(of_client),
        }
    }

    /// Commands about a client and its sessions.
    fn run_client_command(&mut self, command: Command) {
        let now_ns = self.home.now_ns;
        match command {
            Command::AddClient(client) => {
                let config = self.home.settings.backchannel_config(client);
                self.home.add(client, Backchannel::new(config));
                let limits = self.home.settings.client_limits;
                self.home.act_on(client, |client, host| client.backchannel.set_limits(limits, host));
                // A client that came while the runtime was being closed.
                if let Some(deadline_ns) = self.home.drain_deadline_ns {
                    self.home.act_on(client, |client, host| client.backchannel.drain(now_ns, deadline_ns, host));
                }
            }
            Command::RemoveClient(client) => {
                self.home.act_on(client, |client, host| {
                    client.removed = true;
                    host.note_path(FlightStep::Shutdown, 0, 0);
                    client.backchannel.set_client_state(now_ns, ClientState::Expired, host);
                });
                self.home.shared.forsake(Flags::RUNNING, |index| index == client.index);
            }
            Command::ClientState { client, state } => {
                self.home.act_on(client, |client, host| {
                    // Posted before the client was removed, it may come after that.
                    if !client.removed {
                        client.backchannel.set_client_state(now_ns, state, host);
                    }
                });
            }
            Command::Limits { client, limits } => {
                self.home.act_on(client, |client, host| {
                    client.has_own_limits = true;
                    client.backchannel.set_limits(limits, host);
                });
            }
            Command::PathDownTold(client) => {
                self.home.act_on(client, |client, _| client.backchannel.path_down_told(now_ns));
            }
            Command::AddSession { session, params } => {
                let added = self.home.act_on(session.client, |client, host| {
                    client.backchannel.add_session(core_key(session), &params, host)?;
                    client.session_count += 1;
                    Ok(())
                });
                if let Some(Err(error)) = added {
                    // Shown when it was registered; its place is another one's now.
                    if let Some(known) = self.home.shared.clients.live(session.client) {
                        known.hide_session(session.serial);
                    }
                    self.home.tell(&Event::SessionRefused { session, error });
                }
            }
            Command::RemoveSession(session) => {
                self.home.act_on(session.client, |client, host| {
                    if client.backchannel.remove_session(now_ns, core_key(session), host) {
                        client.session_count -= 1;
                    }
                });
            }
            Command::Control { session, program, credential } => {
                let set = self.home.act_on(session.client, |client, host| {
                    client.backchannel.control(core_key(session), program, &credential, host)
                });
                if let Some(Err(error)) = set {
                    self.home.tell(&Event::SessionRefused { session, error });
                }
            }
            _ => unreachable!("handed over by run_command, which names those above"),
        }
    }

    fn add_socket(&mut self, connection: ConnectionId, socket: OwnedFd) {
        let key = self.lines.add(connection, self.home.shared.settings.record_bytes_max, None);
        if self.stopping || self.io.attach(key, socket).is_err() {
            self.lines.begin_close(key);
            self.lines.forget(key);
            self.home.tell_closed(connection);
        }
    }

    /// A connection goes on with its socket, which was out of the back end.
    pub(super) fn put_down(&mut self, key: ConnKey, socket: OwnedFd) {
        if self.io.attach(key, socket).is_err() {
            self.close(key);
            // Of what is not attached the back end has nothing to tell.
            self.lines.forget(key);
            return;
        }
        match self.lines.get(key) {
            Some((connection, _)) if connection.paused => self.io.pause(key),
            _ => self.feed_backlog(key),
        }
        self.went_out(key);
    }

    fn add_transport(&mut self, connection: ConnectionId, transport: Box<dyn Transport>) {
        let key = self.lines.add(connection, self.home.shared.settings.record_bytes_max, Some(transport));
        // It was posted while the runtime was being shut down: nobody else would close it, and the reactor would stay.
        if self.stopping {
            self.close(key);
        }
    }

    fn reply(&mut self, connection: ConnectionId, mark: [u8; MARK_BYTES], buffers: Vec<Vec<u8>>) {
        let Some(key) = self.lines.key_of(connection) else { return };
        if let Some((connection, pool)) = self.lines.get(key) {
            connection.calls_unanswered = connection.calls_unanswered.saturating_sub(1);
            connection.out.push_record(mark, buffers, pool);
        }
        self.lines.queue_flush(key);
        self.relieve(key);
    }

    /// The connection learns whose replies it will carry, then the client's home learns about the connection.
    pub(super) fn bind(&mut self, connection: ConnectionId, session: SessionKey) {
        let shared = Arc::clone(&self.home.shared);
        let Some(known) = shared.clients.live(session.client) else { return };
        let bound = Bound { client: session.client, home: known.home() };
        let Some(key) = self.lines.key_of(connection) else { return };
        let mut held = false;
        if let Some((connection, _)) = self.lines.get(key) {
            held = connection.held;
            if !connection.bound.contains(&bound) {
                connection.bound.push(bound);
            }
        }
        if self.home.has(session.client.index) {
            self.bound(connection, Place::Local(key), session);
        } else {
            shared.post_home(known, Command::Bound { connection, session });
        }
        if held {
            self.tell_held(connection, bound, held);
        }
    }

    fn bound(&mut self, connection: ConnectionId, place: Place, session: SessionKey) {
        let now_ns = self.home.now_ns;
        // One that we have made, for a path that was replaced meanwhile, is of no use to anybody. Any other may be bound to
        // another session by what is under way.
        let useless = matches!(place, Place::Local(key) if self.lines.get(key).is_some_and(|(c, _)| c.dialled));
        let bound = self.home.act_on(session.client, |client, host| {
            if client.link_mut(connection).is_none() {
                client.links.push(Link { connection, place, held: false });
            }
            client.excuse_held(now_ns);
            let bound = client.backchannel.bind(now_ns, core_key(session), conn_token(connection), host);
            if bound.is_err() && useless {
                client.links.retain(|link| link.connection != connection);
            }
            bound
        });
        match bound {
            Some(Ok(())) => {
                self.supplied(session);
                self.home.note(FlightStep::Bound, session.client, connection.to_bits());
            }
            Some(Err(_)) if useless => self.part(connection, session.client),
            Some(Err(error)) => self.home.tell(&Event::SessionRefused { session, error }),
            // It has been forgotten since the connection learnt about it.
            None => self.part(connection, session.client),
        }
    }

    /// A connection is to carry nothing for a client any more.
    pub(super) fn part(&mut self, connection: ConnectionId, client: ClientId) {
        if self.home.drives(connection) {
            self.release(connection, client);
        } else {
            self.home.shared.port_of(connection).post(Command::Release { connection, client });
        }
    }

    fn release(&mut self, connection: ConnectionId, client: ClientId) {
        let Some(key) = self.lines.key_of(connection) else { return };
        let Some((connection, _)) = self.lines.get(key) else { return };
        connection.bound.retain(|b| b.client != client);
        // Nobody else knows it.
        if connection.dialled && connection.bound.is_empty() {
            self.close(key);
        }
    }

    pub(super) fn hold(&mut self, connection: ConnectionId, client: ClientId, held: bool) {
        self.home.act_on(client, |client, _| {
            if let Some(link) = client.link_mut(connection) {
                link.held = held;
            }
        });
    }

    fn unbound(&mut self, connection: ConnectionId, client: ClientId) {
        self.home.act_on(client, |client, host| {
            host.note_path(FlightStep::Lost, 0, connection.to_bits());
            client.links.retain(|l| l.connection != connection);
            client.backchannel.handle_disconnect(conn_token(connection), host);
        });
    }

    /// Callback records of a client whose home is another reactor.
    fn carry(&mut self, connection: ConnectionId, records: Vec<u8>, calls: u64, client: ClientId) {
        let Some(home) = self.home.shared.clients.get(client.index).map(|c| c.home()) else { return };
        let Some(key) = self.lines.key_of(connection) else { return };
        if let Some((connection, pool)) = self.lines.get(key) {
            connection.out.push(records, pool);
            connection.replies_due += calls;
            connection.carried.push(Bound { client, home });
        }
        self.lines.queue_flush(key);
    }

    /// Closes a connection: its clients go on without it, and the back end drops it when nothing of it is under way.
    pub(super) fn close(&mut self, key: ConnKey) {
        let Some(connection) = self.lines.begin_close(key) else { return };
        let (id, dialled) = (connection.id, connection.dialled);
        let bound = std::mem::take(&mut connection.bound);
        let transport = connection.transport.take();
        for bound in bound {
            if self.home.has(bound.client.index) {
                self.unbound(id, bound.client);
            } else {
                let command = Command::Unbound { connection: id, client: bound.client };
                self.home.shared.post_to_home_of(bound.client.index, command);
            }
        }
        match transport {
            Some(mut transport) => {
                self.home.call("Transport::close", || transport.close());
                self.home.call("Transport::drop", || drop(transport));
                self.lines.forget(key);
            }
            None => self.io.detach(key),
        }
        if !dialled {
            self.home.tell_closed(id);
        }
    }

    /// Connections that the core judged dead. They must be shut down before the same calls go out on another one (RFC
    /// 8881 section 2.10.6.2).
    pub(super) fn close_condemned(&mut self) {
        while let Some((client, connection)) = self.home.condemned.pop() {
            count(&self.port().stats.connections_condemned);
            if self.home.drives(connection) {
                if let Some(key) = self.lines.key_of(connection) {
                    self.close(key);
                }
                continue;
            }
            let port = self.home.shared.port_of(connection);
            port.post(Command::CloseConnection(connection));
            if port.has_ended() {
                self.unbound(connection, client);
                continue;
            }
            // Until the other reactor says that it is unbound, which it does when it has closed it.
            self.home.act_on(client, |client, _| {
                if let Some(link) = client.link_mut(connection) {
                    link.place = Place::Condemned;
                }
            });
        }
    }

    /// Ends every run that a drain has not ended: a run that was accepted completes, whatever comes (rule R3).
    fn stop(&mut self) {
        self.stopping = true;
        self.dialing = Dialing::default();
        self.drain_all(self.home.now_ns);
        for key in self.lines.keys() {
            self.close(key);
        }
    }

    /// A removed client has nothing in flight any more.
    pub(super) fn forget_client(&mut self, index: u32) {
        self.wheel.disarm(index);
        if let Some(client) = self.home.clients.get_mut(index as usize).and_then(Option::take) {
            self.ring.remove(index);
            self.held.retain(|(_, held)| *held != index);
            self.home.gone.add(client.backchannel.counters());
            for link in &client.links {
                self.part(link.connection, client.id);
            }
            self.home.of_session.retain(|_, (_, session)| session.client != client.id);
            self.home.shared.clients.removed(client.id);
        }
    }
}
