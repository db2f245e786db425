//! Writing a checkpoint: the reactors hand out their clients, some in each turn; the entries are read where they are, by the
//! thread that writes. Or the reactors stand still meanwhile ([`super::suspend`]).

use super::format::{ChunkWriter, Kind};
use super::pace::{Pace, block};
use super::record::{
    ClientRecord, EntryRecord, PathRecord, PlaceRecord, ReactorRecord, RunRecord, SummaryRecord, TenantsRecord,
    to_bytes,
};
use super::suspend::Line;
use super::undone::Exported;
use super::{CheckpointError, convert};
use crate::callback::{Flags, Snapshot};
use crate::command::Command;
use crate::guard::guard;
use crate::hooks::Event;
use crate::io::monotonic_ns;
use crate::keys::ClientId;
use crate::reactor::{entry_record, left_ns};
use crate::registry::{ClientShared, Shared};
use crate::runtime::Runtime;
use crate::stats::Stats;
use ringback_rpc::backchannel::{BackchannelImage, Counters};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a reactor may take for the turn that it is in, and the hooks in it, until it is taken to be stuck.
pub(crate) const STANDSTILL_NS: u64 = 10_000_000_000;

/// Clients of a reactor, on their way into a checkpoint.
pub(crate) struct Piece {
    pub clients: Vec<ClientPart>,
    /// The place of the next one.
    pub next: Option<u32>,
    /// After the last one.
    pub reactor: Option<ReactorPart>,
}

/// What a reactor knows beside its clients.
pub(crate) struct ReactorPart {
    pub stats: Stats,
    pub endings: Vec<(String, u64)>,
    pub gone: Counters,
    /// Its clock, and that of the returns that it awaits.
    pub now_ns: u64,
    pub tick_ns: u64,
}

/// A client.
pub(crate) struct ClientPart {
    pub id: ClientId,
    pub removed: bool,
    pub image: BackchannelImage,
    pub runs: Vec<RunRecord>,
    pub of_session: Vec<(u32, u32, u64)>,
    /// Where a client of minor version 0 is called back.
    pub address: Option<SocketAddr>,
}

/// How much a checkpoint holds.
///
/// # Examples
///
/// ```
/// use ringback::{CheckpointError, Runtime};
///
/// fn save(runtime: &Runtime) -> Result<(), CheckpointError> {
///     let size = runtime.checkpoint_to("/var/lib/server/callbacks")?;
///     println!("{} callbacks of {} clients, {} bytes", size.callbacks, size.clients, size.bytes);
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointSize {
    /// Bytes of the file.
    pub bytes: u64,
    /// Registered clients.
    pub clients: u64,
    /// Callbacks.
    pub callbacks: u64,
    /// Callbacks in flight.
    pub in_flight: u64,
}

/// Asks a reactor for clients.
pub(super) type Ask<'a> = dyn Fn(usize, u32, Sender<Piece>) + 'a;

struct Taking<'a> {
    shared: &'a Shared,
    out: ChunkWriter<'a>,
    summary: SummaryRecord,
    size: CheckpointSize,
    /// Of each reactor: its clock, and that of the returns.
    clocks: Vec<(u64, u64)>,
    exported: Option<&'a mut Exported>,
    paths: Vec<PathRecord>,
}

/// Writes a checkpoint of what the reactors answer. `exported`: they stand still, and it is noted there what is written of
/// entries.
pub(super) async fn take(
    shared: &Shared,
    pace: &Pace,
    ask: &Ask<'_>,
    lines: &[Line],
    out: &mut dyn Write,
    exported: Option<&mut Exported>,
) -> Result<CheckpointSize, CheckpointError> {
    let names = |stats: &Stats| stats.each().map(|(name, ..)| name.to_owned()).collect();
    let summary = SummaryRecord {
        complete: exported.is_some(),
        taken_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        counter_names: Counters::names(),
        stat_names: names(&Stats::default()),
        ..SummaryRecord::default()
    };
    let size = CheckpointSize::default();
    let mut taking =
        Taking { shared, out: ChunkWriter::new(out)?, summary, size, clocks: Vec::new(), exported, paths: Vec::new() };
    for reactor in 0..shared.reactors.len() {
        taking.reactor(reactor, pace, ask).await?;
    }
    for line in lines {
        taking.out.chunk(Kind::Line, 0, &to_bytes(&line.record)?)?;
    }
    taking.entries()?;
    let mut own = Vec::new();
    // A hook that panics has nothing to say.
    if shared.call_hook(|| guard(|| shared.hooks.checkpoint(&mut own))).is_none() {
        own.clear();
    }
    if !own.is_empty() {
        taking.out.chunk(Kind::Own, 0, &own)?;
    }
    taking.summary.totals = values(&shared.stats());
    taking.finish()
}

fn values(stats: &Stats) -> Vec<u64> {
    stats.each().map(|(.., value)| value).collect()
}

impl Taking<'_> {
    async fn reactor(&mut self, reactor: usize, pace: &Pace, ask: &Ask<'_>) -> Result<(), CheckpointError> {
        let mut from = Some(0);
        while let Some(at) = from {
            let (answer, answers) = channel();
            ask(reactor, at, answer);
            let piece: Piece = pace.hear(&answers, None).await.ok_or(CheckpointError::Reactor { reactor })?;
            for client in piece.clients {
                self.client(client)?;
            }
            if let Some(part) = piece.reactor {
                self.clocks.push((part.now_ns, part.tick_ns));
                self.summary.reactors.push(ReactorRecord {
                    reactor: reactor as u32,
                    stats: values(&part.stats),
                    endings: part.endings,
                    gone: convert::counter_values(&part.gone, &self.summary.counter_names),
                });
            }
            from = piece.next;
        }
        Ok(())
    }

    fn client(&mut self, part: ClientPart) -> Result<(), CheckpointError> {
        let path = part.image.minor0.as_ref();
        self.paths.extend(path.map(|path| convert::to_path((part.id.index, part.id.generation), path, part.address)));
        let record = ClientRecord {
            index: part.id.index,
            generation: part.id.generation,
            removed: part.removed,
            core: convert::to_record(&part.image, &self.summary.counter_names),
            runs: part.runs,
            of_session: part.of_session,
        };
        self.out.chunk(Kind::Client, 0, &to_bytes(&record)?)
    }

    fn entries(&mut self) -> Result<(), CheckpointError> {
        for range in self.shared.slab.used() {
            let first = range.start;
            let mut words = Vec::with_capacity(if self.exported.is_some() { range.len() } else { 0 });
            let entries: Vec<EntryRecord> = range.map(|index| self.entry(index, &mut words)).collect();
            if let Some(exported) = &mut self.exported {
                exported.push(first, words);
            }
            self.out.chunk(Kind::Entries, first, &to_bytes(&entries)?)?;
        }
        Ok(())
    }

    fn entry(&mut self, index: u32, words: &mut Vec<Snapshot>) -> EntryRecord {
        let entry = &self.shared.slab[index];
        let home = self.shared.home_of(entry.client()).unwrap_or(0);
        let (now_ns, tick_ns) = self.clocks.get(home).copied().unwrap_or_else(|| (monotonic_ns(), 1));
        let mut record = entry_record(entry, crate::reactor::turn_us(now_ns));
        let flags = Flags::from_bits_truncate(record.flags.into());
        if self.exported.is_some() {
            words.push(Snapshot::new(record.generation, flags));
        }
        if !flags.contains(Flags::LIVE) {
            return EntryRecord { generation: record.generation, ..EntryRecord::default() };
        }
        if flags.contains(Flags::DYING) && !flags.contains(Flags::RUNNING) {
            // Whoever removed it is about to free it.
            return EntryRecord { generation: record.generation + 1, ..EntryRecord::default() };
        }
        if flags.contains(Flags::SETTLED) {
            // On a completion queue: that is its age.
            record.age_us = entry.started_us();
        }
        // Nobody waits in another process.
        record.flags &= !(Flags::WAKE.bits() as u16);
        if flags.contains(Flags::OWED) {
            // Never less than there was.
            let left_ms = left_ns(entry.return_stamp(), now_ns, tick_ns).div_ceil(1_000_000);
            record.owed_left_ms = u32::try_from(left_ms).unwrap_or(u32::MAX);
        }
        self.size.callbacks += 1;
        self.size.in_flight += u64::from(flags.contains(Flags::RUNNING));
        record
    }

    fn tenants(&mut self) -> Result<(), CheckpointError> {
        let tenants = self.shared.tenants.to_records();
        if tenants.is_empty() {
            return Ok(());
        }
        let of_client = |(index, known): (u32, &ClientShared)| {
            let tenant = known.tenant.load(SeqCst) as u16;
            (tenant != 0).then_some((index, tenant))
        };
        let clients = (0..).zip(self.shared.clients.places()).filter_map(of_client).collect();
        self.out.chunk(Kind::Tenants, 0, &to_bytes(&TenantsRecord { tenants, clients })?)
    }

    fn finish(mut self) -> Result<CheckpointSize, CheckpointError> {
        let place = |known: &ClientShared| PlaceRecord {
            generation: known.generation(),
            home: known.home() as u32,
            live: known.live.load(SeqCst),
            closed: known.in_flight.is_closed(),
        };
        self.summary.clients = self.shared.clients.places().into_iter().map(place).collect();
        self.tenants()?;
        if !self.paths.is_empty() {
            self.out.chunk(Kind::Paths, 0, &to_bytes(&self.paths)?)?;
        }
        self.summary.serials = self.shared.next_serial();
        self.size.clients = self.summary.clients.iter().filter(|place| place.live).count() as u64;
        self.out.chunk(Kind::Summary, 0, &to_bytes(&self.summary)?)?;
        self.size.bytes = self.out.finish()?;
        Ok(self.size)
    }
}

fn take_running(shared: &Shared, out: &mut dyn Write) -> Result<CheckpointSize, CheckpointError> {
    // A client on its way would be missing, or there twice.
    let pace = Pace::default();
    let until_ns = pace.now_ns() + STANDSTILL_NS;
    let _held = block(shared.hold_moves(&pace, until_ns)).ok_or(CheckpointError::Busy)?;
    let ask = |reactor: usize, from, answer| shared.reactors[reactor].post(Command::Export { from, answer });
    block(take(shared, &pace, &ask, &[], out, None))
}

impl Runtime {
    /// Writes a checkpoint of a runtime that goes on: each client as it is between two pieces of work, those of different
    /// reactors a moment apart. No reactor is kept from its work for longer than one turn at a time, and none for the
    /// entries. For a look at it later, also when the process has crashed; a process that goes on from it has to find out
    /// what has happened since ([`Checkpoint::is_complete`](crate::Checkpoint::is_complete)). Waits for the reactors: an
    /// error from a hook.
    pub fn checkpoint(&self, out: &mut dyn Write) -> Result<CheckpointSize, CheckpointError> {
        self.may_wait().map_err(|_| CheckpointError::Busy)?;
        take_running(self.shared(), out)
    }

    /// [`Runtime::checkpoint`] into a file, which only its owner may read: it holds credentials. The file is replaced when
    /// all of it is on the disk, and else stays what it was.
    pub fn checkpoint_to(&self, path: impl AsRef<Path>) -> Result<CheckpointSize, CheckpointError> {
        replace(path.as_ref(), |out| self.checkpoint(out))
    }
}

/// Writes a file beside the one that it is to replace, and replaces that when it is complete.
pub(super) fn replace<R>(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<R, CheckpointError>,
) -> Result<R, CheckpointError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = (|| {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let result = write(&mut out)?;
        let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The name is on the disk when the directory is.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()?;
        Ok(result)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Writes a checkpoint every now and then, until nobody holds the other end of `stop` any more.
pub(crate) fn start(
    shared: &Arc<Shared>,
    path: PathBuf,
    interval: Duration,
    stop: Receiver<()>,
) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let name = format!("{}-checkpoint", shared.settings.name);
    crate::threads::spawn(name, move || {
        while stop.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            if let Err(error) = replace(&path, |out| take_running(&shared, out))
                && !shared.is_closed()
            {
                let event = Event::CheckpointFailed { error: error.to_string() };
                shared.tell(None, &event);
            }
        }
    })
}
