//! Encoding what is ready and handing it to the connections.

use super::connection::Lines;
use super::home::{Client, Place, WATCHABLE, conn_token};
use super::host::ClientHost;
use super::{Reactor, Settle};
use crate::command::Command;
use crate::io::{ConnKey, Io, SendBuf};
use crate::keys::ConnectionId;
use crate::registry::Shared;
use crate::settings::{STAGING_BYTES, TRANSMITS_PER_CLIENT, TRANSMITS_PER_TURN};
use crate::tenant::{Tenant, TenantId};
use crate::transport::Outbound;
use ringback_rpc::backchannel::Transmit;
use std::io;
use std::sync::Arc;

/// Batches of callback records under way to a connection of another reactor.
const REMOTE_BATCHES_MAX: usize = 2;

/// Room that a callback record is tried with first; what does not fit is tried again with a fresh staging buffer.
const CALLBACK_SPACE_BYTES: usize = 1024;

/// How long a client is held back before its tenant is asked again.
const HELD_NS: u64 = 2_000_000;

/// Why a client's turn ended.
#[derive(PartialEq, Eq)]
enum Turn {
    /// It has more to send.
    More,
    /// Nothing to send, or no way to send it now: it is looked at again when something happens to it.
    Over,
    /// Its tenant has sent as much as it may.
    Held,
    /// There was no memory to encode into, for this client and hence for all.
    Starved,
}

/// What became of a client's turn.
struct Served {
    turn: Turn,
    /// Callbacks.
    written: usize,
    /// Of its [deficit](super::deficit).
    has_some_left: bool,
    tenant: u16,
}

impl<I: Io> Reactor<I> {
    /// Lets each client in the ring encode up to its [deficit](super::deficit), until the turn's budget is spent.
    pub(super) fn transmit(&mut self) {
        self.let_in_held();
        let mut budget = if self.may_encode() { TRANSMITS_PER_TURN } else { 0 };
        // A client that has more goes to the end of the ring; it has its next turn when all others had theirs.
        while budget > 0 {
            let Some(index) = self.ring.pop() else { break };
            let served = if WATCHABLE && self.home.is_watched() {
                self.let_send::<true>(index, budget)
            } else {
                self.let_send::<false>(index, budget)
            };
            let Some(Served { turn, written, has_some_left, tenant }) = served else { continue };
            if written > 0 {
                self.memory.worked();
            }
            match turn {
                // The budget is spent: it goes on with the next turn.
                Turn::More if has_some_left => self.ring.push_front(tenant, index),
                Turn::More => self.ring.push_back(tenant, index),
                Turn::Held => self.hold_back(tenant, index),
                Turn::Over => {}
                Turn::Starved => {
                    self.memory.failed(self.home.now_ns);
                    self.ring.push_front(tenant, index);
                    break;
                }
            }
            self.ring.served(tenant, written);
            budget -= written.min(budget);
        }
        // What the encoding changed; a client without a way to send now is looked at again when it has one.
        self.settle_touched(Settle::KeepOut);
    }

    /// A client's turn. `None`: no such client.
    fn let_send<const WATCHED: bool>(&mut self, index: u32, budget: usize) -> Option<Served> {
        let shared = Arc::clone(&self.home.shared);
        let staged_bytes_max = self.home.settings.callback_staged_bytes_max();
        let lines = &mut self.lines;
        self.home.act_as(index, |client, host: &mut ClientHost<'_, WATCHED>| {
            let share = client.deficit.share(TRANSMITS_PER_CLIENT).min(budget);
            let (turn, written) = match shared.tenants.get(TenantId(client.tenant)) {
                None => serve(client, host, lines, &shared, (staged_bytes_max, share)),
                Some(tenant) => serve_of(tenant, client, host, lines, &shared, (staged_bytes_max, share)),
            };
            client.in_ring = turn != Turn::Over;
            let has_some_left = client.deficit.spend(written);
            if turn == Turn::Over {
                client.deficit.forfeit();
            }
            Served { turn, written, has_some_left, tenant: client.tenant }
        })
    }

    /// Whether there is something to encode, and memory for what must be noted of it: before anything is committed.
    fn may_encode(&mut self) -> bool {
        if self.ring.is_empty() || !self.memory.is_due(self.home.now_ns) {
            return false;
        }
        let reserved = self.home.owed.reserve(&mut self.lines.pool);
        if !reserved {
            self.memory.failed(self.home.now_ns);
        }
        reserved
    }

    /// The tenant of a client has sent as much as it may for now. It is asked again a little later: calls that other reactors
    /// settle are not told.
    fn hold_back(&mut self, tenant: u16, client: u32) {
        if self.held.is_empty() {
            self.held_until_ns = self.home.now_ns + HELD_NS;
        }
        self.held.push((tenant, client));
    }

    fn let_in_held(&mut self) {
        if !self.held.is_empty() && self.held_until_ns <= self.home.now_ns {
            for (tenant, client) in self.held.drain(..) {
                self.ring.push_back(tenant, client);
            }
        }
    }

    /// Hands one buffer per connection to its transport.
    pub(super) fn flush(&mut self) {
        if self.sending.is_due(self.home.now_ns) {
            for key in self.refused.drain(..) {
                self.lines.admit(key);
            }
        }
        let (mut taken, mut refused) = (false, false);
        while let Some((connection, pool)) = self.lines.next_flush() {
            let Some(buf) = connection.out.next(pool) else { continue };
            connection.out.sending = true;
            if let Some(transport) = &mut connection.transport {
                let outbound = Outbound::new(buf, connection.id, Arc::clone(&self.home.shared));
                if self.home.call("Transport::send", || transport.send(outbound)).is_none() {
                    self.home.port().post(Command::CloseConnection(connection.id));
                }
            } else if let Err(buf) = self.io.send(connection.key, buf) {
                // Not queued: the submission queue is full. The next turn empties it, or the kernel has no memory.
                connection.out.sending = false;
                connection.out.push_front(buf);
                refused = true;
                if !std::mem::replace(&mut connection.refused, true) {
                    self.refused.push(connection.key);
                }
            } else {
                taken = true;
            }
        }
        if taken {
            self.sending.worked();
        }
        if refused {
            self.sending.failed(self.home.now_ns);
        }
    }

    /// A send has ended.
    pub(super) fn sent(&mut self, key: ConnKey, buf: SendBuf, result: io::Result<usize>) {
        let Some((connection, pool)) = self.lines.get(key) else {
            // The connection is closing: the buffer is all that is left of the send.
            if let Some(staging) = buf.into_staging() {
                self.lines.pool.give(staging);
            }
            return;
        };
        connection.out.sending = false;
        if result.is_err() {
            self.close(key);
            return;
        }
        if buf.unsent().is_empty() {
            if let Some(staging) = buf.into_staging() {
                pool.give(staging);
            }
        } else {
            connection.out.push_front(buf);
        }
        self.went_out(key);
    }

    /// A connection has room again: it sends on, its clients encode on, and it may read on.
    pub(super) fn went_out(&mut self, key: ConnKey) {
        self.lines.queue_flush(key);
        let Some((connection, _)) = self.lines.get(key) else { return };
        let id = connection.id;
        // As soon as a client of this reactor could write on. Were it when everything has left, then replies to other
        // calls, which come all the time, could keep it from ever happening.
        if connection.out.unsent_bytes() < self.home.settings.callback_staged_bytes_max() {
            for carried in connection.carried.drain(..) {
                let command = Command::CarryDone { connection: id, client: carried.client };
                self.home.shared.post_to_home_of(carried.client.index, command);
            }
        }
        let here = self.home.reactor;
        for bound in connection.bound.iter().filter(|b| b.home == here) {
            self.home.touch(bound.client.index);
        }
        self.relieve(key);
    }
}

/// The same as [`serve`] within what the client's tenant may send. Without any of that, what was sent before is sent again
/// all the same: were it not, then the calls of a connection that was lost would keep their tenant at its limit.
fn serve_of<const WATCHED: bool>(
    tenant: &Tenant,
    client: &mut Client,
    host: &mut ClientHost<'_, WATCHED>,
    lines: &mut Lines,
    shared: &Shared,
    (staged_bytes_max, wanted): (usize, usize),
) -> (Turn, usize) {
    // Calls of a session that has a connection again count again.
    client.publish_calls(shared);
    let share = tenant.set_aside(host.now_ns, wanted);
    let held = share.callbacks == 0;
    let callbacks = if held { wanted } else { share.callbacks };
    let sent_before = client.backchannel.counters().callbacks_sent;
    client.backchannel.hold_new(held);
    let (turn, written) = serve(client, host, lines, shared, (staged_bytes_max, callbacks));
    client.backchannel.hold_new(false);
    client.publish_calls(shared);
    // Not what was written: that counts what is sent again, and what ends without being sent.
    let sent = client.backchannel.counters().callbacks_sent - sent_before;
    tenant.settle(host.now_ns, share, sent as usize);
    let held = held && turn == Turn::Over && client.wants_transmit();
    (if held { Turn::Held } else { turn }, written)
}

/// Encodes up to `share` callbacks for a client, and the rest of a batch, over whichever of its connections has work and
/// room.
fn serve<const WATCHED: bool>(
    client: &mut Client,
    host: &mut ClientHost<'_, WATCHED>,
    lines: &mut Lines,
    shared: &Shared,
    (staged_bytes_max, share): (usize, usize),
) -> (Turn, usize) {
    let mut written = 0;
    if !client.may_transmit() {
        return (Turn::Over, written);
    }
    for at in 0..client.links.len() {
        if written >= share {
            break;
        }
        let link = client.links[at];
        let (turn, more) = match link.place {
            Place::Local(key) => {
                serve_local(client, host, lines, (link.connection, key), staged_bytes_max, share - written)
            }
            Place::Remote { batches_out } if batches_out < REMOTE_BATCHES_MAX => {
                serve_remote(client, host, lines, shared, at, share - written)
            }
            Place::Remote { .. } | Place::Condemned => (Turn::Over, 0),
        };
        written += more;
        if turn == Turn::Starved {
            return (turn, written);
        }
    }
    (if written >= share { Turn::More } else { Turn::Over }, written)
}

fn serve_local<const WATCHED: bool>(
    client: &mut Client,
    host: &mut ClientHost<'_, WATCHED>,
    lines: &mut Lines,
    (id, key): (ConnectionId, ConnKey),
    staged_bytes_max: usize,
    share: usize,
) -> (Turn, usize) {
    let Some((connection, pool)) = lines.get(key) else { return (Turn::Over, 0) };
    let (mut turn, mut written, mut sent) = (Turn::Over, 0, client.backchannel.counters().callbacks_sent);
    if !client.backchannel.wants_transmit(conn_token(id)) {
        return (turn, written); // asked first, so that no buffer is taken for nothing
    }
    let mut space_bytes = CALLBACK_SPACE_BYTES;
    while written < share && connection.out.unsent_bytes() < staged_bytes_max {
        let room = (staged_bytes_max - connection.out.unsent_bytes()).max(space_bytes);
        let Some(space) = connection.out.space(space_bytes, pool) else {
            turn = Turn::Starved;
            break;
        };
        let bytes_max = room.min(space.len());
        let (space, now_ns) = (&mut space[..bytes_max], host.now_ns);
        match client.backchannel.poll_transmits(now_ns, conn_token(id), share - written, space, host) {
            Transmit::Wrote(len) => {
                connection.out.commit(len);
                written += sent_by(client, &mut sent);
                space_bytes = CALLBACK_SPACE_BYTES;
            }
            // Runs that ended without being sent count as work, so that a turn stays bounded.
            Transmit::Again => written += 1,
            Transmit::NoSpace if space_bytes < STAGING_BYTES => space_bytes = STAGING_BYTES,
            Transmit::NoSpace | Transmit::Idle => break,
        }
    }
    connection.out.release(pool);
    lines.queue_flush(key);
    (turn, written)
}

/// What a record counts against a client's share: the callbacks that it carries; one, if it is sent again.
fn sent_by(client: &Client, sent_before: &mut u64) -> usize {
    let sent = client.backchannel.counters().callbacks_sent;
    (sent - std::mem::replace(sent_before, sent)).max(1) as usize
}

/// Encodes records for a connection that another reactor drives.
fn serve_remote<const WATCHED: bool>(
    client: &mut Client,
    host: &mut ClientHost<'_, WATCHED>,
    lines: &mut Lines,
    shared: &Shared,
    at: usize,
    share: usize,
) -> (Turn, usize) {
    let connection = client.links[at].connection;
    if !client.backchannel.wants_transmit(conn_token(connection)) {
        return (Turn::Over, 0);
    }
    let Some(mut records) = lines.pool.take() else { return (Turn::Starved, 0) };
    let (mut filled, mut calls, mut written, mut sent) = (0, 0, 0, client.backchannel.counters().callbacks_sent);
    while written < share {
        let space = &mut records[filled..];
        match client.backchannel.poll_transmit(host.now_ns, conn_token(connection), space, host) {
            Transmit::Wrote(len) => {
                filled += len;
                calls += 1;
                written += sent_by(client, &mut sent);
            }
            Transmit::Again => written += 1,
            Transmit::Idle | Transmit::NoSpace => break,
        }
    }
    if let (1.., Place::Remote { batches_out }) = (filled, &mut client.links[at].place) {
        *batches_out += 1;
        records.truncate(filled);
        shared.port_of(connection).post(Command::Carry { connection, records, calls, client: client.id });
    } else {
        lines.pool.give(records);
    }
    (Turn::Over, written)
}
