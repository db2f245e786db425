//! What goes to another process, and comes from one: some clients in each turn, or all of them while the reactor stands
//! still.

use super::dial::ConfirmedPath;
use super::home::{Client, Home, Link, Place};
use super::{Reactor, turn_us};
use crate::callback::{CallbackEntry, CallbackKey};
use crate::checkpoint::record::{EntryRecord, RunRecord};
use crate::checkpoint::restore::{RestoredClient, RestoredReactor};
use crate::checkpoint::take::{ClientPart, Piece, ReactorPart};
use crate::inspect::{ClientReport, ReactorReport};
use crate::io::Io;
use crate::keys::{ConnectionId, SessionKey};
use crate::registry::Shared;
use crate::stats::count_by;
use ringback_rpc::backchannel::{Backchannel, Token};
use std::collections::HashMap;
use std::sync::Arc;

/// Runs and session slots that are looked at in one turn, by whole clients.
const EXPORTED_PER_TURN: u64 = 16_384;

/// An entry as a checkpoint holds it; `now_us` is the clock of its home reactor.
pub(crate) fn entry_record(entry: &CallbackEntry, now_us: u32) -> EntryRecord {
    let snapshot = entry.word().snapshot();
    // Of one that was accepted while the reactor was parked, the start is not known yet.
    let age_us = if entry.started_us() == 0 { 0 } else { now_us.wrapping_sub(entry.started_us()) };
    EntryRecord {
        cookie: entry.cookie(),
        generation: snapshot.generation(),
        client: entry.client(),
        age_us,
        owed_left_ms: 0,
        flags: snapshot.flags().bits() as u16,
        op: entry.op_and_mark(),
        note: entry.attempts(),
        reserved: 0,
    }
}

impl<I: Io> Reactor<I> {
    /// Hands out clients from `from` on, as many as fit into a turn; with the last of them what the reactor itself knows.
    pub(super) fn export(&mut self, from: u32) -> Piece {
        let mut budget = EXPORTED_PER_TURN;
        let (mut at, mut clients) = (from, Vec::new());
        while budget > 0 && (at as usize) < self.home.clients.len() {
            if let Some(part) = self.home.export_client(at) {
                let slots = part.image.sessions.iter().map(|s| s.slots.len() as u64).sum::<u64>();
                budget = budget.saturating_sub(1 + slots + part.runs.len() as u64);
                clients.push(part);
            }
            at += 1;
        }
        let over = at as usize >= self.home.clients.len();
        Piece { clients, next: (!over).then_some(at), reactor: over.then(|| self.export_self()) }
    }

    fn export_self(&mut self) -> ReactorPart {
        let stats = &self.home.shared.reactors[self.home.reactor].stats;
        stats.publish_io(self.io_counters());
        for client in self.home.clients.iter_mut().flatten() {
            client.publish_counters(stats);
        }
        ReactorPart {
            stats: stats.read(),
            endings: stats.endings.each().map(|(ending, count)| (ending.name().to_owned(), count)).collect(),
            gone: self.home.gone,
            now_ns: self.home.now_ns,
            tick_ns: self.home.owed.tick_ns(),
        }
    }

    /// Goes on with what another process has left off, before anything else is done here.
    pub(super) fn restore(&mut self, mut restored: RestoredReactor) {
        for line in std::mem::take(&mut restored.lines) {
            self.take_over(line);
        }
        let place = |bits: &u64| {
            let key = self.lines.key_of(ConnectionId::from_bits(*bits));
            (*bits, key.map_or(Place::Remote { batches_out: 0 }, Place::Local))
        };
        let places = restored.kept.iter().map(place).collect();
        self.io_before = self.io_before.plus(restored.io_before);
        let cancels = self.home.restore(restored, &places);
        for index in cancels {
            self.ask_cancel(index);
        }
    }
}

impl Home {
    fn export_client(&mut self, index: u32) -> Option<ClientPart> {
        let of_session: Vec<_> =
            self.of_session.iter().map(|(at, (generation, key))| (*at, *generation, *key)).collect();
        self.act(index, |client, host| {
            let mut space = vec![0; client.backchannel.record_bytes_max()];
            let image = client.backchannel.export(host.now_ns, &mut space, host);
            let now_us = turn_us(host.now_ns);
            let run =
                |token: Token| RunRecord { index: token.0, entry: entry_record(&host.shared.slab[token.0], now_us) };
            let runs = image.runs().map(run).collect();
            let of_session = of_session.iter().filter(|(.., key)| key.client == client.id);
            ClientPart {
                id: client.id,
                removed: client.removed,
                runs,
                address: client.path.and_then(|path| path.address),
                of_session: of_session.map(|(at, generation, key)| (*at, *generation, key.serial)).collect(),
                image,
            }
        })
    }

    /// The clients of which runs are to be cancelled.
    pub fn restore(&mut self, restored: RestoredReactor, places: &HashMap<u64, Place>) -> Vec<u32> {
        let RestoredReactor { gone, owed, clients, completions, .. } = restored;
        self.gone.add(&gone);
        for (key, left_ns) in owed {
            let stamp = self.owed.push_back(key, self.now_ns, left_ns);
            self.shared.slab[key.index].set_return_stamp(stamp);
        }
        let mut cancels = Vec::new();
        for client in clients {
            cancels.extend(client.cancels.then_some(client.id.index));
            self.restore_client(client, places);
        }
        for index in completions {
            self.restore_completion(index);
        }
        cancels
    }

    fn restore_client(&mut self, restored: RestoredClient, places: &HashMap<u64, Place>) {
        let RestoredClient { id, removed, mut image, of_session, cancels: _, address } = restored;
        if let Some(path) = image.minor0.as_mut().filter(|_| !self.keeps_connections) {
            // A connection that has not come along has not failed: another one is made.
            path.bound.retain(|conn| places.contains_key(&conn.0));
        }
        let config = self.shared.settings.backchannel_config(id);
        self.add(id, Backchannel::new(config));
        let runs = image.runs().count() as u64;
        let connections = if self.keeps_connections { &[][..] } else { &image.connections };
        self.act(id.index, |client, host| {
            let now_ns = host.now_ns;
            match Backchannel::import(config, &image, now_ns, host) {
                Ok(core) => client.backchannel = core,
                Err(error) => unreachable!("an image that was found valid: {error}"),
            }
            client.set_restored(image.sessions.len(), removed);
            let path = image.minor0.as_ref().filter(|_| client.backchannel.has_minor0());
            client.path =
                path.map(|path| ConfirmedPath { key: SessionKey { client: id, serial: path.key.0 }, address });
            // Before any reactor goes on, and sends for others of its tenant.
            client.publish_calls(host.shared);
            for connection in connections {
                match places.get(&connection.conn.0) {
                    Some(place) => {
                        let connection = ConnectionId::from_bits(connection.conn.0);
                        client.links.push(Link { connection, place: *place, held: false });
                    }
                    // It has not come along.
                    None => client.backchannel.handle_disconnect(connection.conn, host),
                }
            }
        });
        count_by(&self.port().stats.started, runs);
        for (index, generation, serial) in of_session {
            self.belongs(CallbackKey { index, generation }, SessionKey { client: id, serial });
        }
    }

    /// A run whose outcome the embedder has been told, and which it has not given back: it is told again, or the run ends.
    fn restore_completion(&mut self, index: u32) {
        count_by(&self.port().stats.started, 1);
        let client = self.shared.slab[index].client();
        let ends = self.shared.queue_of(self.reactor).is_none() && !self.keeps_connections;
        self.act(client, |_, host| {
            host.delivered += 1;
            if ends {
                host.finish_returned(Token(index));
            }
        });
        if let Some(queue) = self.shared.queue_of(self.reactor) {
            self.shared.deliver_again(queue, index);
        }
    }
}

impl Client {
    fn set_restored(&mut self, sessions: usize, removed: bool) {
        self.session_count = sessions;
        self.removed = removed;
        self.counted_already();
    }
}

/// The clients of a reactor that does not run.
pub(crate) struct Offline(Home);

impl Offline {
    pub fn new(reactor: usize, shared: Arc<Shared>, now_ns: u64) -> Self {
        Offline(Home::new(reactor, shared, now_ns))
    }

    /// As they were, with the connections that they had.
    pub fn restore(&mut self, restored: RestoredReactor) {
        self.0.keeps_connections = true;
        let _ = self.0.restore(restored, &HashMap::new());
    }

    pub fn clients(&mut self, callbacks_max: usize) -> Vec<ClientReport> {
        let ids: Vec<_> = self.0.clients.iter().flatten().map(|client| client.id).collect();
        ids.into_iter().filter_map(|id| self.0.describe_client(id, callbacks_max)).collect()
    }

    pub fn describe(&mut self) -> ReactorReport {
        self.0.describe()
    }
}
