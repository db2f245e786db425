//! Bytes to records to where they belong: replies to the backchannel core, calls to the embedder; and back pressure.

use super::Reactor;
use super::connection::{Bound, Connection, Fate, Lines, Pool, ReplyTo};
use super::home::{Client, Home, WATCHABLE, conn_token};
use super::host::ClientHost;
use crate::command::Command;
use crate::fore::{Call, CallToken};
use crate::io::{ConnKey, Io, RecvBuf};
use crate::keys::{ClientId, ConnectionId};
use crate::stats::count;
use ringback_rpc::backchannel::Handled;
use ringback_rpc::message::{self, MessageType};
use ringback_rpc::record::{Record, RecordError};

impl<I: Io> Reactor<I> {
    /// Bytes of a socket.
    pub(super) fn received(&mut self, key: ConnKey, buf: &RecvBuf) {
        self.heard(key);
        let bytes = self.io.received(buf);
        match self.lines.get(key) {
            // Received before the pause took effect.
            Some((connection, _)) if connection.paused => connection.backlog.extend_from_slice(bytes),
            Some(_) => {
                let rest = feed(bytes, key, &mut self.lines, &mut self.home).map(<[u8]>::to_vec);
                self.fed(key, rest);
            }
            None => {}
        }
    }

    /// Whatever arrives shows that the peer is alive, and keeps its connection from being judged by a callback that takes
    /// long. The home of a client elsewhere is told now and then.
    fn heard(&mut self, key: ConnKey) {
        let now_ns = self.home.now_ns;
        let Some((connection, _)) = self.lines.get(key) else { return };
        let due = now_ns >= connection.heard_told_ns + self.home.settings.heard_period_ns();
        for bound in &connection.bound {
            if bound.home == self.home.reactor {
                if let Some(client) = self.home.client(bound.client.index) {
                    client.backchannel.heard(now_ns, conn_token(connection.id));
                }
            } else if due {
                let command = Command::Heard { connection: connection.id, client: bound.client };
                self.home.shared.post_to_home_of(bound.client.index, command);
                connection.heard_told_ns = now_ns;
            }
        }
    }

    /// What [`feed`] left over waits until there is room. A stream that is no sequence of records cannot be understood
    /// from there on: its connection is closed.
    fn fed(&mut self, key: ConnKey, rest: Result<Vec<u8>, RecordError>) {
        match (rest, self.lines.get(key)) {
            (Ok(rest), Some((connection, _))) => {
                connection.backlog = rest;
                self.pause_if_full(key);
                self.lines.queue_flush(key);
            }
            (Err(_), _) => {
                count(&self.port().stats.records_malformed);
                self.close(key);
            }
            (Ok(_), None) => {}
        }
    }

    fn pause_if_full(&mut self, key: ConnKey) {
        let Some((connection, _)) = self.lines.get(key) else { return };
        if connection.paused || !connection.is_full(&self.home.settings) {
            return;
        }
        connection.paused = true;
        match &mut connection.transport {
            Some(transport) => {
                if self.home.call("Transport::pause", || transport.pause()).is_none() {
                    return self.close(key);
                }
            }
            None => self.io.pause(key),
        }
        self.update_held(key);
    }

    /// Tells the clients of a connection when it is the embedder, who has calls to answer, that keeps their replies from
    /// being read, and when it is not any more. A peer that does not read what it asked for has no such excuse.
    fn update_held(&mut self, key: ConnKey) {
        let calls_max = self.home.settings.calls_unanswered_max;
        let Some((connection, _)) = self.lines.get(key) else { return };
        // Until as many are answered as would let it be read again.
        let many = if connection.held { calls_max / 2 + 1 } else { calls_max };
        let held = connection.paused && connection.calls_unanswered >= many;
        if held == connection.held {
            return;
        }
        connection.held = held;
        let (id, bound) = (connection.id, connection.bound.clone());
        for bound in bound {
            self.tell_held(id, bound, held);
        }
    }

    pub(super) fn tell_held(&mut self, connection: ConnectionId, bound: Bound, held: bool) {
        if self.home.has(bound.client.index) {
            self.hold(connection, bound.client, held);
        } else {
            let command = Command::Hold { connection, client: bound.client, held };
            self.home.shared.post_to_home_of(bound.client.index, command);
        }
    }

    /// Reads again when half of what made it stop is gone: first what had been received already.
    pub(super) fn relieve(&mut self, key: ConnKey) {
        let settings = &self.home.settings;
        let Some((connection, _)) = self.lines.get(key) else { return };
        if !connection.paused {
            return;
        }
        if connection.is_relieved(settings) {
            self.feed_backlog(key);
            self.resume_unless_full(key);
        }
        self.update_held(key);
    }

    /// Acts on what had been received already.
    pub(super) fn feed_backlog(&mut self, key: ConnKey) {
        let Some((connection, _)) = self.lines.get(key) else { return };
        let backlog = std::mem::take(&mut connection.backlog);
        let rest = feed(&backlog, key, &mut self.lines, &mut self.home).map(<[u8]>::to_vec);
        self.fed(key, rest);
    }

    fn resume_unless_full(&mut self, key: ConnKey) {
        let settings = &self.home.settings;
        let Some((connection, _)) = self.lines.get(key) else { return };
        if connection.is_full(settings) {
            return;
        }
        connection.paused = false;
        match &mut connection.transport {
            Some(transport) => {
                if self.home.call("Transport::resume", || transport.resume()).is_none() {
                    self.close(key);
                }
            }
            None => self.io.resume(key),
        }
    }

    /// One record of an embedder's transport.
    pub(super) fn receive_record(&mut self, connection: ConnectionId, bytes: Vec<u8>) {
        let Some(key) = self.lines.key_of(connection) else { return };
        self.heard(key);
        if let Some((connection, pool)) = self.lines.get(key) {
            dispatch(connection, Record::Owned(bytes), pool, &mut self.home);
        }
        self.pause_if_full(key);
        self.lines.queue_flush(key);
    }

    /// A callback's reply that arrived on a connection of another reactor.
    pub(super) fn carried(&mut self, connection: ConnectionId, client: ClientId, record: &[u8]) {
        let handled = reply(&mut self.home, connection, client, record);
        self.port().stats.count_reply(handled);
    }
}

/// Takes the records out of `bytes` and acts on each, until the connection has as many calls or bytes to answer as it may
/// have. Gives what is left.
fn feed<'a>(mut bytes: &'a [u8], key: ConnKey, lines: &mut Lines, home: &mut Home) -> Result<&'a [u8], RecordError> {
    let Some((connection, pool)) = lines.get(key) else { return Ok(&[]) };
    while !connection.is_full(&home.settings) {
        let next = match connection.bound.as_slice() {
            [bound] if bound.home == home.reactor && WATCHABLE && home.is_watched() => {
                replies::<true>(connection, bound.client, &mut bytes, home)?
            }
            [bound] if bound.home == home.reactor => replies::<false>(connection, bound.client, &mut bytes, home)?,
            _ => connection.reader.next(&mut bytes)?,
        };
        match next {
            Some(record) => dispatch(connection, record, pool, home),
            None => break,
        }
    }
    Ok(bytes)
}

/// Acts on the replies that come next, all for one client: it is looked up once for them. Gives the first record that is
/// something else.
fn replies<'a, const WATCHED: bool>(
    connection: &mut Connection,
    client: ClientId,
    bytes: &mut &'a [u8],
    home: &mut Home,
) -> Result<Option<Record<'a>>, RecordError> {
    let Connection { id, ref mut reader, .. } = *connection;
    if !home.is_here(client) {
        return connection.reader.next(bytes);
    }
    let act = |client: &mut Client, host: &mut ClientHost<'_, WATCHED>| loop {
        let (mut other, mut rest) = (None, *bytes);
        let mut lent = std::iter::from_fn(|| {
            let record = reader.next_lent(&mut rest)?;
            if !message::is_reply(record) {
                other = Some(record);
                return None;
            }
            Some(record)
        });
        while let Some(handled) = client.backchannel.handle_records(host.now_ns, conn_token(id), &mut lent, host) {
            host.port.stats.count_reply(handled);
        }
        *bytes = rest;
        if let Some(record) = other {
            return Ok(Some(Record::Borrowed(record)));
        }
        match reader.next(bytes)? {
            Some(record) if message::is_reply(&record) => {
                let handled = client.backchannel.handle_record(host.now_ns, conn_token(id), &record, host);
                host.port.stats.count_reply(handled);
            }
            other => return Ok(other),
        }
    };
    home.act_as(client.index, act).unwrap_or(Ok(None))
}

fn dispatch(connection: &mut Connection, record: Record<'_>, pool: &mut Pool, home: &mut Home) {
    match message::peek(&record) {
        Ok((_, MessageType::Call)) => call(connection, record, pool, home),
        Ok((_, MessageType::Reply)) => {
            let handled = replied(connection, &record, home);
            home.port().stats.count_reply(handled);
        }
        Err(_) => count(&home.port().stats.replies_malformed),
    }
}

/// A CALL goes to the embedder, with the staging buffer of the connection as the place for an answer.
fn call(connection: &mut Connection, record: Record<'_>, pool: &mut Pool, home: &mut Home) {
    if connection.dialled {
        // The embedder does not know the connection, on which there is nothing to be asked.
        count(&home.port().stats.records_malformed);
        return home.port().post(Command::CloseConnection(connection.id));
    }
    count(&home.port().stats.fore_calls);
    connection.call_serial += 1;
    let token = CallToken { connection: connection.id, serial: connection.call_serial };
    let mut out = ReplyTo { out: &mut connection.out, pool, fate: Fate::Dropped };
    let call = Call { token, record, out: &mut out };
    let answered = home.call("ForeChannel::call", || home.shared.fore.call(call));
    out.out.release(out.pool);
    if out.fate == Fate::Deferred {
        connection.calls_unanswered += 1;
    }
    if answered.is_none() {
        // Nobody knows what the client was to be told. It asks again on the next connection.
        home.port().post(Command::CloseConnection(connection.id));
    }
}

/// A REPLY goes to the client that has a call with its xid; nearly always there is one client on a connection. Those of
/// other reactors get a copy if none of this one takes it, and no more copies than calls were carried for them.
fn replied(connection: &mut Connection, record: &[u8], home: &mut Home) -> Handled {
    let (mut handled, here) = (Handled::UnknownXid, home.reactor);
    for bound in connection.bound.iter().filter(|bound| bound.home == here) {
        match reply(home, connection.id, bound.client, record) {
            Handled::UnknownXid => {}
            // By its number it may be an old one of this client, and as well a new one of the next.
            Handled::Late => handled = Handled::Late,
            known => return known,
        }
    }
    if connection.replies_due > 0 {
        let mut passed_on = false;
        for bound in connection.bound.iter().filter(|bound| bound.home != here) {
            let (connection, record) = (connection.id, record.to_vec());
            let command = Command::Carried { connection, client: bound.client, record };
            home.shared.post_to_home_of(bound.client.index, command);
            // Its home says what it was.
            (handled, passed_on) = (Handled::Late, true);
        }
        connection.replies_due -= u64::from(passed_on);
    }
    handled
}

fn reply(home: &mut Home, connection: ConnectionId, client: ClientId, record: &[u8]) -> Handled {
    let now_ns = home.now_ns;
    let act = |client: &mut Client, host: &mut ClientHost<'_>| {
        client.backchannel.handle_record(now_ns, conn_token(connection), record, host)
    };
    home.act_on(client, act).unwrap_or(Handled::UnknownXid)
}
