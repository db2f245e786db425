//! Going on from a checkpoint. All that can be refused is refused before anything of it is there.

use super::record::{ClientRecord, EntryRecord, LineRecord, PlaceRecord, RunRecord};
use super::{Checkpoint, CheckpointError, Opened, convert, record, validate};
use crate::callback::{CallbackKey, Flags, OWN, Restored as Entry, SEGMENT_ENTRIES};
use crate::command::Command;
use crate::hooks::Restored;
use crate::io::IoCounters;
use crate::keys::{ClientId, ConnectionId};
use crate::reactor::turn_us;
use crate::registry::Shared;
use ringback_rpc::backchannel::{BackchannelImage, Counters};
use ringback_rpc::nfs4::callback::CallbackOp;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// What a reactor goes on with.
#[derive(Default)]
pub(crate) struct RestoredReactor {
    /// What was counted for clients that are gone.
    pub gone: Counters,
    /// What its back end was counting.
    pub io_before: IoCounters,
    /// Recalls whose return is awaited, and for how long, the shortest first.
    pub owed: Vec<(CallbackKey, u64)>,
    pub clients: Vec<RestoredClient>,
    /// Its connections.
    pub lines: Vec<RestoredLine>,
    /// The names of the connections of all reactors that come along.
    pub kept: Arc<HashSet<u64>>,
    /// Entries whose run has ended, as the embedder has been told or is to be told.
    pub completions: Vec<u32>,
}

/// A connection.
pub(crate) struct RestoredLine {
    pub socket: OwnedFd,
    pub record: LineRecord,
}

/// A client.
pub(crate) struct RestoredClient {
    pub id: ClientId,
    pub removed: bool,
    pub image: BackchannelImage,
    pub of_session: Vec<(u32, u32, u64)>,
    /// Some of its runs are to be cancelled.
    pub cancels: bool,
    /// Where it is called back, if it is of minor version 0.
    pub address: Option<SocketAddr>,
}

/// A client of the checkpoint, as long as it is put together.
struct Client {
    record: ClientRecord,
    image: BackchannelImage,
}

/// The runs that clients list, to be found by entry: there may be as many of them as there are entries.
struct Listed {
    /// By entry: where its run is, plus 1. 0: nobody lists it.
    at: Vec<u32>,
    runs: Vec<RunRecord>,
}

impl Listed {
    fn add(&mut self, run: RunRecord) {
        // What is no entry runs nowhere.
        let Some(at) = self.at.get_mut(run.index as usize) else { return };
        self.runs.push(run);
        *at = self.runs.len() as u32;
    }

    fn get(&self, index: u32) -> Option<&RunRecord> {
        self.runs.get((*self.at.get(index as usize)? as usize).checked_sub(1)?)
    }
}

struct Restoring<'a> {
    shared: &'a Shared,
    opened: &'a Opened,
    now_ns: u64,
    /// Session slots are where they are said to be.
    is_current: bool,
    clients: Vec<Client>,
    listed: Listed,
    /// Whether an entry runs and a client lists it, by entry.
    running: Vec<bool>,
    /// Clients of which a run is to be cancelled.
    cancels: HashSet<u32>,
    /// Entries that were accepted and have not come to their reactor.
    accepted: Vec<u32>,
    reactors: Vec<RestoredReactor>,
}

/// What a checkpoint is restored for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    GoOn,
    /// It shall be what it was, not what can be relied on.
    Look,
}

/// Restores a checkpoint in a runtime of which nothing is used yet.
pub(crate) fn restore(
    shared: &Shared,
    checkpoint: &Checkpoint,
    now_ns: u64,
    purpose: Purpose,
) -> Result<(), CheckpointError> {
    prepare(shared, checkpoint, now_ns, purpose, Vec::new()).map(|prepared| prepared.post(shared))
}

/// Puts in what is in the shared tables, and makes ready what the reactors go on with; `sockets` are those of the connections in
/// the checkpoint. Nothing can fail afterwards.
pub(crate) fn prepare(
    shared: &Shared,
    checkpoint: &Checkpoint,
    now_ns: u64,
    purpose: Purpose,
    sockets: Vec<OwnedFd>,
) -> Result<Prepared, CheckpointError> {
    let opened = checkpoint.opened();
    let end = make_room(shared, opened)? as usize;
    let reactors = shared.reactors.len();
    let mut restoring = Restoring {
        shared,
        opened,
        now_ns,
        is_current: opened.summary.complete || purpose == Purpose::Look,
        clients: Vec::new(),
        listed: Listed { at: vec![0; end], runs: Vec::new() },
        running: vec![false; end],
        cancels: HashSet::new(),
        accepted: Vec::new(),
        reactors: (0..reactors).map(|_| RestoredReactor::default()).collect(),
    };
    restoring.read_clients()?;
    restoring.put_places();
    restoring.put_entries()?;
    restoring.close_places();
    restoring.put_counters();
    restoring.put_clients();
    restoring.put_lines(sockets)?;
    Ok(Prepared { reactors: restoring.reactors, accepted: restoring.accepted })
}

/// Where the entries end.
fn make_room(shared: &Shared, opened: &Opened) -> Result<u32, CheckpointError> {
    let settings = &shared.settings;
    let too_small = |name, needed: u64, limit: u64| {
        if needed > limit { Err(CheckpointError::TooSmall { name, needed, limit }) } else { Ok(()) }
    };
    let places = opened.summary.clients.len() as u64;
    too_small("clients_max", places, settings.clients_max as u64)?;
    let mut used = Vec::new();
    for (first, payload) in &opened.entries {
        let count = record::entries(&opened.bytes[payload.clone()]).map_or(0, <[_]>::len) as u32;
        used.push(*first..*first + count);
    }
    let end = used.last().map_or(0, |range| range.end);
    too_small("callbacks_max", end.into(), settings.callbacks_max.into())?;
    if shared.slab.make_room(&used) { Ok(end) } else { Err(CheckpointError::OutOfMemory) }
}

impl Restoring<'_> {
    fn place(&self, index: u32) -> &PlaceRecord {
        &self.opened.summary.clients[index as usize]
    }

    /// The reactor that is a client's home here.
    fn home(&self, index: u32) -> usize {
        self.place(index).home as usize % self.reactors.len()
    }

    fn read_clients(&mut self) -> Result<(), CheckpointError> {
        let opened = self.opened;
        for range in &opened.clients {
            let corrupt = |what| CheckpointError::Corrupt { at: range.start as u64, what };
            let (record, mut image) =
                validate::client(&opened.bytes[range.clone()], &opened.summary, &opened.paths).map_err(corrupt)?;
            if self.place(record.index).generation != record.generation {
                continue;
            }
            if !self.is_current {
                image.distrust();
            }
            record.runs.iter().for_each(|run| self.listed.add(*run));
            self.clients.push(Client { record, image });
        }
        Ok(())
    }

    fn put_places(&self) {
        let leaving: HashSet<u32> = self.clients.iter().map(|client| client.record.index).collect();
        let places = (0..).zip(&self.opened.summary.clients);
        let places = places
            .map(|(index, place): (u32, _)| (place.generation, self.home(index), place.live, leaving.contains(&index)));
        self.shared.clients.restore(places);
        self.shared.skip_serials(self.opened.summary.serials);
        self.shared.tenants.restore(&self.opened.tenants.tenants);
        for (index, tenant) in &self.opened.tenants.clients {
            if let Some(known) = self.shared.clients.get(*index) {
                known.tenant.store((*tenant).into(), SeqCst);
            }
        }
        for client in &self.clients {
            let Some(known) = self.shared.clients.get(client.record.index) else { continue };
            for session in &client.image.sessions {
                known.show_session(session.key.0);
            }
            if let Some(path) = &client.image.minor0 {
                known.path.store(path.key.0, SeqCst);
            }
        }
    }

    fn put_entries(&mut self) -> Result<(), CheckpointError> {
        let opened = self.opened;
        let mut owed: Vec<Vec<(CallbackKey, u64)>> = self.reactors.iter().map(|_| Vec::new()).collect();
        for (first, payload) in &opened.entries {
            let corrupt = CheckpointError::Corrupt { at: payload.start as u64, what: "entries are malformed" };
            let entries = record::entries(&opened.bytes[payload.clone()]).ok_or(corrupt)?;
            for (index, entry) in (*first..*first + SEGMENT_ENTRIES).zip(entries) {
                let entry = EntryRecord::from(entry);
                let flags = self.put_entry(index, &entry);
                if flags.contains(Flags::OWED) {
                    let key = CallbackKey { index, generation: entry.generation };
                    owed[self.home(entry.client)].push((key, u64::from(entry.owed_left_ms) * 1_000_000));
                }
            }
        }
        for (reactor, mut owed) in self.reactors.iter_mut().zip(owed) {
            owed.sort_by_key(|(_, left_ns)| *left_ns);
            reactor.owed = owed;
        }
        Ok(())
    }

    /// Puts an entry back, if the embedder says that it is still there. Its flags.
    fn put_entry(&mut self, index: u32, was: &EntryRecord) -> Flags {
        let mut flags = Flags::from_bits_truncate(was.flags.into());
        let (mut note, mut age_us, mut cookie) = (was.note, was.age_us, was.cookie);
        let mut listed = None;
        if flags.contains(Flags::RUNNING) {
            // Of a client that is not there, nothing can run; and another one may have had the entry before.
            let is_it = |run: &&RunRecord| (run.entry.generation, run.entry.client) == (was.generation, was.client);
            listed = self.listed.get(index).filter(is_it).copied();
            if let Some(RunRecord { entry, .. }) = listed {
                // As it was when its client was looked at; what other threads have asked for since holds as well.
                let of_core = Flags::REQUEUE | Flags::SETTLED;
                let requeued = Flags::from_bits_truncate(entry.flags.into()) & Flags::REQUEUE;
                flags = (flags - of_core) | requeued;
                (note, age_us) = (entry.note, entry.age_us);
            } else if !(self.opened.summary.complete && flags.contains(Flags::SETTLED)) {
                // Accepted, and not begun as far as anybody knows.
                flags -= Flags::REQUEUE | Flags::SETTLED;
            }
        }
        flags -= Flags::WAKE;
        if flags.contains(Flags::LIVE) && was.op & OWN == 0 {
            match self.ask(index, was, flags) {
                Some(known_by) => cookie = known_by,
                None => flags = Flags::empty(),
            }
        }
        let is_gone = !flags.contains(Flags::LIVE) && was.flags != 0;
        let generation = if is_gone { was.generation + 1 } else { was.generation };
        let on_queue = flags.contains(Flags::SETTLED);
        let started_us = if on_queue { age_us } else { turn_us(self.now_ns).wrapping_sub(age_us) };
        let restored = Entry { generation, flags, client: was.client, op: was.op, cookie, started_us, attempts: note };
        self.shared.slab.put(index, &restored);
        self.count(index, was, flags, listed.is_some());
        flags
    }

    fn ask(&self, index: u32, was: &EntryRecord, flags: Flags) -> Option<u64> {
        let callback = Restored {
            key: CallbackKey { index, generation: was.generation },
            cookie: was.cookie,
            client: ClientId { index: was.client, generation: self.place(was.client).generation },
            op: CallbackOp::try_from(u32::from(was.op)).ok()?,
            running: flags.contains(Flags::RUNNING),
        };
        let ask = || self.shared.hooks.restored(&callback);
        let answer = self
            .shared
            .call_hook(|| self.shared.call(&self.shared.reactors[0], "Hooks::restored", Some(callback.key), ask));
        // A hook that panics has not said that it is gone.
        answer.unwrap_or(Some(was.cookie))
    }

    /// Counts an entry for its client, and finds its run a place.
    fn count(&mut self, index: u32, was: &EntryRecord, flags: Flags, listed: bool) {
        let Some(known) = self.shared.clients.get(was.client) else { return };
        if !flags.contains(Flags::LIVE) {
            return;
        }
        known.entries.add(was.op);
        if let Some(tenant) = self.shared.tenant_of(known) {
            tenant.has_callback();
        }
        if !flags.contains(Flags::RUNNING) {
            return;
        }
        // The doors are open until all are inside.
        let entered = known.in_flight.enter();
        debug_assert!(entered);
        if flags.contains(Flags::CANCEL) {
            self.cancels.insert(was.client);
        }
        if flags.contains(Flags::SETTLED) {
            let home = self.home(was.client);
            self.reactors[home].completions.push(index);
        } else if listed {
            self.running[index as usize] = true;
        } else {
            self.accepted.push(index);
        }
    }

    fn close_places(&self) {
        for (place, known) in self.opened.summary.clients.iter().zip(self.shared.clients.each()) {
            if place.closed || !place.live {
                let _ = known.in_flight.close();
            }
        }
    }

    /// The counters go on, on the first reactor. Runs that are in flight are counted where they come to.
    fn put_counters(&mut self) {
        let summary = &self.opened.summary;
        let stats = &self.shared.reactors[0].stats;
        for reactor in &summary.reactors {
            self.reactors[0].gone.add(&convert::counters(&reactor.gone, &summary.counter_names));
            let io = &mut self.reactors[0].io_before;
            for (name, value) in summary.stat_names.iter().zip(&reactor.stats) {
                let add = |sum: &mut u64| *sum = sum.saturating_add(*value).min(convert::COUNTED_MAX);
                match name.as_str() {
                    "started" => {}
                    // Those of the back end are published as they stand.
                    "syscalls" => add(&mut io.syscalls),
                    "sends" => add(&mut io.sends),
                    "sent_bytes" => add(&mut io.sent_bytes),
                    "receives" => add(&mut io.receives),
                    "received_bytes" => add(&mut io.received_bytes),
                    "released" => {
                        stats.add_by_name("released", *value);
                        stats.add_by_name("started", *value);
                    }
                    name => stats.add_by_name(name, *value),
                }
            }
            reactor.endings.iter().for_each(|(name, count)| stats.endings.add_by_name(name, *count));
        }
    }

    fn put_clients(&mut self) {
        let mut homeless: HashSet<u32> = (0..)
            .zip(&self.opened.summary.clients)
            .filter(|(_, place)| place.live)
            .map(|(index, _): (u32, _)| index)
            .collect();
        for Client { record, mut image } in std::mem::take(&mut self.clients) {
            homeless.remove(&record.index);
            // What has ended since it was looked at, or is about something that is gone. What runs in its place may be another
            // client's.
            let is_its_own = |index| self.shared.slab[index].client() == record.index;
            image.retain_runs(|token| {
                self.running.get(token.0 as usize).is_some_and(|runs| *runs) && is_its_own(token.0)
            });
            let path = validate::path_of(&self.opened.paths, (record.index, record.generation));
            let client = RestoredClient {
                address: path.and_then(validate::address).flatten(),
                id: ClientId { index: record.index, generation: record.generation },
                removed: record.removed || !self.place(record.index).live,
                image,
                of_session: record.of_session,
                cancels: self.cancels.contains(&record.index),
            };
            let home = self.home(record.index);
            self.reactors[home].clients.push(client);
        }
        // Registered a moment ago: they have no session yet.
        for index in homeless {
            let id = ClientId { index, generation: self.place(index).generation };
            let config = self.shared.settings.backchannel_config(id);
            let image = BackchannelImage {
                limits: self.shared.settings.client_limits,
                xid_generation: config.first_xid,
                random: config.seed,
                ..BackchannelImage::default()
            };
            let client = RestoredClient {
                id,
                removed: false,
                image,
                of_session: Vec::new(),
                address: None,
                cancels: self.cancels.contains(&index),
            };
            let home = self.home(index);
            self.reactors[home].clients.push(client);
        }
    }

    /// The connections whose sockets came along.
    fn put_lines(&mut self, sockets: Vec<OwnedFd>) -> Result<(), CheckpointError> {
        let mut kept = HashSet::new();
        for (range, socket) in self.opened.lines.iter().zip(sockets) {
            let corrupt = |what| CheckpointError::Corrupt { at: range.start as u64, what };
            let record = validate::line(&self.opened.bytes[range.clone()]).map_err(corrupt)?;
            let reactor = self.shared.reactor_of(ConnectionId::from_bits(record.connection));
            kept.insert(record.connection);
            self.reactors[reactor].lines.push(RestoredLine { socket, record });
        }
        let kept = Arc::new(kept);
        self.reactors.iter_mut().for_each(|reactor| reactor.kept = Arc::clone(&kept));
        Ok(())
    }
}

/// A checkpoint whose reactors have yet to learn of it.
pub(crate) struct Prepared {
    pub reactors: Vec<RestoredReactor>,
    /// Entries that were accepted and have not come to their reactor.
    accepted: Vec<u32>,
}

impl Prepared {
    /// The reactors learn of their clients before they learn of the runs that are new to them.
    fn post(mut self, shared: &Shared) {
        for (port, restored) in shared.reactors.iter().zip(std::mem::take(&mut self.reactors)) {
            port.post(Command::Restore(Box::new(restored)));
        }
        self.submit(shared);
    }

    /// Those runs.
    pub fn submit(self, shared: &Shared) {
        for index in self.accepted {
            let home = shared.home_of(shared.slab[index].client()).unwrap_or(0);
            let port = &shared.reactors[home];
            port.inbox.push(&shared.slab, index);
            if port.parking.must_wake() {
                port.wake();
            }
        }
    }
}
