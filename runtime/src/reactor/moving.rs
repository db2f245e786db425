//! Clients that come from other reactors, and go there. What a reactor knows of one client is taken out in one place
//! ([`Home::extract`]) and put in again in one ([`Home::install`]).
//!
//! Who sends messages to a client meanwhile, and in which order they are acted on, is told in
//! [`Residence`](crate::callback::Residence).

use super::Reactor;
use super::home::{Client, Home, Place, conn_token};
use crate::callback::{CallbackEntry, CallbackKey, Chain, Flags, Waiter};
use crate::command::Command;
use crate::flight::FlightStep;
use crate::hooks::Event;
use crate::io::Io;
use crate::keys::{ClientId, SessionKey};
use crate::registry::{ClientShared, Shared};
use crate::stats::{count, count_by};
use crate::wait::Answer;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// All that a reactor knows of one client.
pub(super) struct Extract {
    client: Box<Client>,
    /// Callbacks that are about one of its sessions.
    of_session: Vec<(u32, (u32, SessionKey))>,
    /// Who waits for one of its callbacks.
    waiters: Vec<Arc<Waiter<Answer>>>,
}

/// A client between two reactors. One that is dropped before it has arrived is lost, with the reactor that had it.
pub(crate) struct Moving {
    shared: Arc<Shared>,
    id: ClientId,
    from: usize,
    to: usize,
    /// Taken when it arrives.
    extract: Option<Extract>,
    /// What was asked of it at its old home after it was frozen.
    commands: Vec<Command>,
    /// Everybody who went to the old home has left there what he brought, and it is taken up in this turn.
    quiet: bool,
}

impl Moving {
    fn known(&self) -> Option<&ClientShared> {
        self.shared.clients.get(self.id.index)
    }

    /// Whether nothing more comes to the old home.
    pub fn is_quiet(&self) -> bool {
        self.known().is_none_or(|known| known.residence.is_quiet())
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        if let (Some(_), Some(known)) = (self.extract.take(), self.known()) {
            // One of the two reactors has ended: its runs are lost, as if it had been that one's client.
            let _ = known.in_flight.close();
            let lost_at = if self.shared.reactors[self.to].has_ended() { self.to } else { self.from };
            known.residence.settle_at(lost_at);
            self.shared.reactors[self.to].post(Command::Lost(self.id.index));
            self.shared.forsake(Flags::empty(), |client| client == self.id.index);
        }
        self.commands.drain(..).for_each(Command::discard);
        self.shared.moved();
    }
}

/// What came for a client before it did.
#[derive(Default)]
pub(super) struct Kept {
    commands: Vec<Command>,
    runs: Chain,
    returned: Chain,
}

impl Home {
    /// Takes a client out: nothing of it is left here, but recalls whose return is awaited.
    fn extract(&mut self, index: u32) -> Option<Extract> {
        let mut client = self.clients.get_mut(index as usize)?.take()?;
        let port = &self.shared.reactors[self.reactor];
        client.publish_counters(&port.stats);
        self.gone.add(client.backchannel.counters());
        self.gone.subtract(&client.counted_elsewhere);
        client.counted_elsewhere = *client.backchannel.counters();
        self.moved_runs -= client.taken_up() as i64;
        self.with_embedder -= client.with_embedder;
        self.touched.retain(|touched| *touched != index);
        (client.in_ring, client.touched, client.due) = (false, false, false);
        let of_client = |_: &u32, (_, session): &mut (u32, SessionKey)| session.client == client.id;
        let of_session = self.of_session.extract_if(of_client).collect();
        Some(Extract { client, of_session, waiters: Vec::new() })
    }

    /// Puts a client in.
    fn install(&mut self, extract: Extract) {
        let Extract { client, of_session, waiters } = extract;
        self.moved_runs += client.taken_up() as i64;
        self.with_embedder += client.with_embedder;
        for (index, (generation, session)) in of_session {
            self.belongs(CallbackKey { index, generation }, session);
        }
        self.waits.admit(waiters);
        self.put(client);
    }
}

impl<I: Io> Reactor<I> {
    /// A client is to go, after what was asked of it before.
    pub(super) fn move_client(&mut self, id: ClientId, to: usize) {
        self.put_off.push((id, to));
        self.go_on_moving();
    }

    /// Moves that have not begun, each client's in the order in which they were asked for.
    pub(super) fn go_on_moving(&mut self) {
        if self.put_off.is_empty() || self.home.shared.moves_held.load(SeqCst) != 0 {
            return;
        }
        for (client, to) in std::mem::take(&mut self.put_off) {
            if !self.home.has(client.index) {
                // It has just left, and goes on from there.
                let _ = self.keep(client.index, Command::Move { client, to });
            } else if self.put_off.iter().any(|(other, _)| *other == client) || !self.let_go(client, to) {
                self.put_off.push((client, to));
            }
        }
    }

    /// Lets a client go, if it may ever. It is frozen: what comes for it from here on goes with it, or to its new home.
    /// `false`: not now.
    fn let_go(&mut self, id: ClientId, to: usize) -> bool {
        let shared = Arc::clone(&self.home.shared);
        let from = self.home.reactor;
        let gone = self.home.client(id.index).is_none_or(|client| client.id != id || client.removed);
        let Some(known) = shared.clients.get(id.index).filter(|_| !gone && !shared.reactors[to].has_ended()) else {
            return true;
        };
        // What was sent on a connection that was given up is not to be sent elsewhere before that is closed, or known to be
        // about to.
        self.close_condemned();
        match shared.begin_move() {
            Some(true) => {}
            Some(false) => return false,
            None => return true,
        }
        if to == from {
            // Asked like any other: one before it may have been refused for ever, and then this is not told either.
            shared.moved();
            self.home.tell(&Event::Moved { client: id, reactor: to });
            return true;
        }
        let begun = known.residence.begin_move(to);
        assert!(begun, "{id:?} is here, and on its way");
        let Some(mut extract) = self.home.extract(id.index) else { unreachable!("{id:?} was here just now") };
        self.wheel.disarm(id.index);
        self.ring.remove(id.index);
        self.held.retain(|(_, held)| *held != id.index);
        self.lend_links(&mut extract.client, to);
        self.home.note(FlightStep::Moved, id, to as u64);
        let (extract, commands) = (Some(extract), Vec::new());
        self.departing.push(Moving { shared: Arc::clone(&shared), id, from, to, extract, commands, quiet: false });
        true
    }

    /// Connections of this reactor carry bytes for the client from now on.
    fn lend_links(&mut self, client: &mut Client, to: usize) {
        let id = client.id;
        for link in &mut client.links {
            let Place::Local(key) = link.place else { continue };
            link.place = Place::Remote { batches_out: 0 };
            if let Some((connection, _)) = self.lines.get(key) {
                connection.bound.iter_mut().filter(|b| b.client == id).for_each(|b| b.home = to);
                // What it has sent here itself is answered here.
                connection.replies_due += client.backchannel.calls_out_on(conn_token(link.connection));
            }
        }
    }

    /// Before a turn takes up what others have left: of which clients this will be all.
    pub(super) fn look_at_departing(&mut self) {
        self.departing.iter_mut().for_each(|moving| moving.quiet = moving.is_quiet());
    }

    /// And after it: those are sent off.
    pub(super) fn send_off(&mut self) {
        while let Some(at) = self.departing.iter().position(|moving| moving.quiet) {
            let mut moving = self.departing.swap_remove(at);
            let port = &self.home.shared.reactors[self.home.reactor];
            if let Some(extract) = &mut moving.extract {
                extract.waiters = self.home.waits.extract(&port.waits, moving.id.index);
            }
            let to = moving.to;
            self.home.shared.reactors[to].post(Command::Arrive(Box::new(moving)));
        }
    }

    /// Whether a client that leaves can be sent off, or begin to leave.
    pub(super) fn may_send_off(&self) -> bool {
        let may_begin = || !self.put_off.is_empty() && self.home.shared.moves_held.load(SeqCst) == 0;
        self.departing.iter().any(Moving::is_quiet) || may_begin()
    }

    /// A client has come.
    pub(super) fn arrive(&mut self, mut moving: Moving) {
        // No earlier than what has happened to it.
        self.tell_time(self.io.now_ns());
        let (id, now_ns, here) = (moving.id, self.home.now_ns, self.home.reactor);
        let Some(mut extract) = moving.extract.take() else { return };
        let commands = std::mem::take(&mut moving.commands);
        let cancels = std::mem::take(&mut extract.client.cancels);
        self.take_links(&mut extract.client);
        self.home.install(extract);
        if let Some(known) = moving.known() {
            known.residence.arrived();
        }
        count(&self.port().stats.clients_moved);
        if let Some(deadline_ns) = self.home.drain_deadline_ns {
            self.home.act_on(id, |client, host| client.backchannel.drain(now_ns, deadline_ns, host));
            self.home.shared.forsake(Flags::RUNNING, |client| client == id.index);
        }
        drop(moving);
        self.home.tune_client(id.index);
        self.home.touch(id.index);
        if cancels {
            self.ask_cancel(id.index);
        }
        self.home.tell(&Event::Moved { client: id, reactor: here });
        let kept = self.arriving.remove(&id.index).unwrap_or_default();
        self.kept_runs.push_back(kept.runs);
        self.kept_returned.push_back(kept.returned);
        for command in commands.into_iter().chain(kept.commands) {
            self.run_command(command);
        }
    }

    /// Connections of this reactor have carried bytes for the client until now.
    fn take_links(&mut self, client: &mut Client) {
        let (id, here) = (client.id, self.home.reactor);
        for link in &mut client.links {
            if !self.home.drives(link.connection) || !matches!(link.place, Place::Remote { .. }) {
                continue;
            }
            // Else it was closed, which the client is about to learn.
            let Some(key) = self.lines.key_of(link.connection) else { continue };
            link.place = Place::Local(key);
            if let Some((connection, _)) = self.lines.get(key) {
                connection.bound.iter_mut().filter(|b| b.client == id).for_each(|b| b.home = here);
                let out = client.backchannel.calls_out_on(conn_token(link.connection));
                connection.replies_due = connection.replies_due.saturating_sub(out);
            }
        }
    }

    /// A command about a client that is not here. Gives it back if the client is not about to go, or to come.
    pub(super) fn keep(&mut self, client: u32, command: Command) -> Option<Command> {
        if let Some(moving) = self.departing.iter_mut().find(|moving| moving.id.index == client) {
            moving.commands.push(command);
            return None;
        }
        if !self.is_expected(client) {
            return Some(command);
        }
        self.arriving.entry(client).or_default().commands.push(command);
        None
    }

    /// Whether a client is on its way to here.
    fn is_expected(&self, client: u32) -> bool {
        let known = self.home.shared.clients.get(client);
        known.is_some_and(|known| known.home() == self.home.reactor && known.residence.is_moving())
    }

    /// A run whose client is not here: it is kept until the client comes, or goes to where it is. `returned`: the embedder
    /// has given it back.
    pub(super) fn pass_on(&mut self, index: u32, entry: &CallbackEntry, returned: bool) {
        let client = entry.client();
        let shared = Arc::clone(&self.home.shared);
        let Some(home) = shared.home_of(client) else {
            unreachable!("entry {index} names client {client}, which was never registered")
        };
        if home != self.home.reactor {
            shared.reactors[home].post(if returned { Command::TakeBack(index) } else { Command::Submit(index) });
        } else if self.is_expected(client) {
            let kept = self.arriving.entry(client).or_default();
            let chain = if returned { &mut kept.returned } else { &mut kept.runs };
            chain.keep(&shared.slab, index);
        } else {
            // Client indices are not used again while something is in flight, so the client is somewhere.
            unreachable!("entry {index} names client {client}, whose home is here and who is not");
        }
    }

    /// A client that was to come is lost.
    pub(super) fn lost(&mut self, client: u32) {
        if let Some(kept) = self.arriving.remove(&client) {
            kept.commands.into_iter().for_each(Command::discard);
        }
    }

    /// A run that another reactor has passed on. It may have begun a moment after this turn.
    pub(super) fn passed_on(&mut self, index: u32, returned: bool) {
        self.tell_time(self.io.now_ns());
        let shared = Arc::clone(&self.home.shared);
        if returned {
            return self.give_back(index, &shared.slab[index]);
        }
        let mut chain = Chain::default();
        chain.push(&shared.slab, index);
        let started = self.submit(&shared, index, &mut chain, 1);
        count_by(&self.port().stats.started, started);
    }
}
