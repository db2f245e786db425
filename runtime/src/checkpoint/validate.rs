//! Whether a file is a checkpoint that can be believed: whoever wrote it, what passes here can be restored.

use super::format::{self, Kind};
use super::map::Bytes;
use super::record::{
    self, ClientRecord, EntryRecord, LineRecord, PathRecord, PlaceRecord, ReactorRecord, SummaryRecord, TenantsRecord,
};
use super::{CheckpointError, Counts, Opened, convert};
use crate::builder::REACTORS_MAX;
use crate::callback::{Flags, GENERATION_RETIRED, GENERATION_UNUSED, OWN, SEGMENT_ENTRIES};
use crate::tenant::TENANTS_MAX;
use ringback_rpc::backchannel::{BackchannelImage, Token};
use ringback_rpc::nfs4::callback::CallbackOp;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::ops::Range;

/// Most clients that a runtime can be configured for.
const PLACES_MAX: usize = 1 << 24;

/// Something is wrong with a payload.
type Wrong = &'static str;

fn hold(holds: bool, what: Wrong) -> Result<(), Wrong> {
    if holds { Ok(()) } else { Err(what) }
}

/// Validates all of it.
pub(super) fn opened(bytes: Bytes) -> Result<Opened, CheckpointError> {
    let chunks = format::chunks(&bytes)?;
    let (mut clients, mut entries, mut own, mut lines) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut summaries, mut tenants, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    for chunk in chunks {
        match chunk.kind {
            Kind::Summary => summaries.push(chunk.payload),
            Kind::Client => clients.push(chunk.payload),
            Kind::Entries => entries.push((chunk.first, chunk.payload)),
            Kind::Own => own.push(chunk.payload),
            Kind::Line => lines.push(chunk.payload),
            Kind::Tenants => tenants.push(chunk.payload),
            Kind::Paths => paths.push(chunk.payload),
            Kind::End => {}
        }
    }
    let corrupt = |range: &Range<usize>| {
        let at = range.start as u64;
        move |what| CheckpointError::Corrupt { at, what }
    };
    let [summary_at] = &summaries[..] else {
        return Err(CheckpointError::Corrupt { at: 0, what: "it has no summary, or several" });
    };
    let summary = record::from_bytes(&bytes[summary_at.clone()])
        .ok_or("a summary is malformed")
        .and_then(|summary| check_summary(&summary).map(|()| summary));
    let summary: SummaryRecord = summary.map_err(corrupt(summary_at))?;
    let tenants = match &tenants[..] {
        [] => TenantsRecord::default(),
        [range] => check_tenants(&bytes[range.clone()], &summary).map_err(corrupt(range))?,
        [_, range, ..] => return Err(corrupt(range)("there are tenants twice")),
    };
    let paths = match &paths[..] {
        [] => Vec::new(),
        [range] => check_paths(&bytes[range.clone()], &summary).map_err(corrupt(range))?,
        [_, range, ..] => return Err(corrupt(range)("there are paths twice")),
    };
    let mut counts = Counts::default();
    // Each reactor has one place that is used in part, and the last one may be cut short: room is made for whole ones.
    let in_part = |range: &Range<usize>| {
        record::entries(&bytes[range.clone()]).is_some_and(|e| e.len() < SEGMENT_ENTRIES as usize)
    };
    if entries.iter().filter(|(_, range)| in_part(range)).count() > summary.reactors.len() + 1 {
        return Err(CheckpointError::Corrupt { at: 0, what: "entries are scattered" });
    }
    let mut end = 0;
    for (first, range) in &entries {
        let checked = hold(*first >= end && first.is_multiple_of(SEGMENT_ENTRIES), "entries are out of order")
            .and_then(|()| check_entries(*first, &bytes[range.clone()], &summary, &mut counts));
        end = checked.map_err(corrupt(range))?;
    }
    let mut seen = vec![false; summary.clients.len()];
    for range in &clients {
        check_client(&bytes[range.clone()], &summary, &paths, &mut seen).map_err(corrupt(range))?;
    }
    let mut names = HashSet::new();
    for range in &lines {
        let checked = line(&bytes[range.clone()]).and_then(|line| check_line(&line, &summary, &mut names));
        checked.map_err(corrupt(range))?;
    }
    Ok(Opened { bytes, summary, clients, entries, own, tenants, paths, lines, counts })
}

fn check_tenants(payload: &[u8], summary: &SummaryRecord) -> Result<TenantsRecord, Wrong> {
    let record: TenantsRecord = record::from_bytes(payload).ok_or("tenants are malformed")?;
    hold(record.tenants.len() < TENANTS_MAX, "there are too many tenants")?;
    let known = |(index, tenant): &(u32, u16)| {
        (*index as usize) < summary.clients.len() && (1..=record.tenants.len()).contains(&usize::from(*tenant))
    };
    hold(record.clients.iter().all(known), "a client has no tenant, or a tenant no client")?;
    Ok(record)
}

/// They are in the order of their clients.
fn check_paths(payload: &[u8], summary: &SummaryRecord) -> Result<Vec<PathRecord>, Wrong> {
    let mut paths: Vec<PathRecord> = record::from_bytes(payload).ok_or("paths are malformed")?;
    paths.sort_by_key(|path| path.client);
    hold(paths.windows(2).all(|pair| pair[0].client.0 != pair[1].client.0), "a client has two paths")?;
    for path in &paths {
        hold((path.client.0 as usize) < summary.clients.len(), "a path has no client")?;
        hold(path.key < summary.serials, "a path's name is yet to be given")?;
        hold(address(path).is_some(), "a path leads nowhere")?;
    }
    Ok(paths)
}

/// Where a path leads to; nowhere, if the embedder supplies the sockets. `None`: it is no address.
pub(super) fn address(path: &PathRecord) -> Option<Option<SocketAddr>> {
    path.address.as_ref().map(|address| address.parse().ok()).map_or(Some(None), |parsed| parsed.map(Some))
}

/// The path of a client.
pub(super) fn path_of(paths: &[PathRecord], client: (u32, u32)) -> Option<&PathRecord> {
    paths.binary_search_by_key(&client, |path| path.client).ok().map(|at| &paths[at])
}

/// The record of a connection.
pub(super) fn line(payload: &[u8]) -> Result<LineRecord, Wrong> {
    record::from_bytes(payload).ok_or("a connection is malformed")
}

fn check_line(line: &LineRecord, summary: &SummaryRecord, names: &mut HashSet<u64>) -> Result<(), Wrong> {
    let serial = line.connection & ((1 << 48) - 1);
    hold((1..summary.serials).contains(&serial), "a connection's name is yet to be given")?;
    hold(names.insert(serial), "two connections have one name")?;
    let counts = [line.replies_due, line.calls_unanswered, line.call_serial];
    hold(counts.iter().all(|count| *count <= convert::COUNTED_MAX), "a connection has counted further than anybody")?;
    let known = |(index, _): &(u32, u32)| (*index as usize) < summary.clients.len();
    hold(line.bound.iter().all(known), "a connection carries nobody's callbacks")
}

fn check_summary(summary: &SummaryRecord) -> Result<(), Wrong> {
    hold(summary.clients.len() <= PLACES_MAX, "there are too many clients")?;
    let reactors = summary.reactors.len();
    hold((1..=REACTORS_MAX).contains(&reactors), "there are no reactors, or too many")?;
    let numbered = summary.reactors.iter().enumerate().all(|(n, r)| r.reactor as usize == n);
    hold(numbered, "a reactor is missing or doubled")?;
    let homes = |place: &PlaceRecord| (place.home as usize) < reactors;
    hold(summary.clients.iter().all(homes), "a client has no reactor")?;
    hold(summary.serials < 1 << 48, "a name is higher than any is")?;
    let counted =
        |r: &ReactorRecord| r.stats.len() == summary.stat_names.len() && r.gone.len() == summary.counter_names.len();
    hold(summary.reactors.iter().all(counted), "a reactor's counters have no names")?;
    hold(summary.totals.len() == summary.stat_names.len(), "the counters have no names")
}

/// Where the entries end.
fn check_entries(first: u32, payload: &[u8], summary: &SummaryRecord, counts: &mut Counts) -> Result<u32, Wrong> {
    let entries = record::entries(payload).ok_or("entries are malformed")?;
    let end = first.checked_add(SEGMENT_ENTRIES).ok_or("an index is higher than any is")?;
    hold(entries.len() <= SEGMENT_ENTRIES as usize, "there are too many entries in one place")?;
    for entry in entries {
        let entry = EntryRecord::from(entry);
        let flags = check_entry(&entry, summary)?;
        counts.callbacks += u64::from(flags.contains(Flags::LIVE));
        counts.running += u64::from(flags.contains(Flags::RUNNING));
    }
    Ok(end)
}

fn check_entry(entry: &EntryRecord, summary: &SummaryRecord) -> Result<Flags, Wrong> {
    let flags = Flags::from_bits(entry.flags.into()).ok_or("an entry has unknown flags")?;
    if !flags.contains(Flags::LIVE) {
        return hold(flags.is_empty(), "a free entry has flags").map(|()| flags);
    }
    hold(!matches!(entry.generation, GENERATION_UNUSED | GENERATION_RETIRED), "a callback has no generation")?;
    hold((entry.client as usize) < summary.clients.len(), "a callback has no client")?;
    let op = CallbackOp::try_from(u32::from(entry.op & !OWN)).ok();
    let is_callback = op.is_some_and(|op| !matches!(op, CallbackOp::Sequence | CallbackOp::Illegal));
    hold(is_callback, "a callback has no operation")?;
    let of_run = Flags::SETTLED | Flags::REQUEUE | Flags::REARM | Flags::WAKE | Flags::CANCEL;
    hold(flags.contains(Flags::RUNNING) || !flags.intersects(of_run), "an idle callback has a run")?;
    hold(!flags.contains(Flags::SETTLED | Flags::REQUEUE), "a run is decided and is not")?;
    hold(!flags.contains(Flags::DYING | Flags::REARM), "a removed callback is to run again")?;
    hold(!flags.contains(Flags::DYING | Flags::OWED), "a removed callback is owed")?;
    Ok(flags)
}

/// The record of a client and its image.
pub(super) fn client(
    payload: &[u8],
    summary: &SummaryRecord,
    paths: &[PathRecord],
) -> Result<(ClientRecord, BackchannelImage), Wrong> {
    let client: ClientRecord = record::from_bytes(payload).ok_or("a client is malformed")?;
    let mut image = convert::to_image(&client.core, &summary.counter_names).ok_or("a client has unknown numbers")?;
    image.minor0 = path_of(paths, (client.index, client.generation)).map(convert::of_path);
    Ok((client, image))
}

fn check_client(payload: &[u8], summary: &SummaryRecord, paths: &[PathRecord], seen: &mut [bool]) -> Result<(), Wrong> {
    let (record, image) = client(payload, summary, paths)?;
    let place = summary.clients.get(record.index as usize).ok_or("a client has no place")?;
    let twice = std::mem::replace(&mut seen[record.index as usize], true);
    hold(!twice, "two clients have one place")?;
    // One that has gone since it was looked at is left out.
    hold(!summary.complete || place.generation == record.generation, "a client has another one's place")?;
    hold(record.generation != 0, "a client has no generation")?;
    hold(image.sessions.iter().all(|s| s.key.0 < summary.serials), "a session's name is yet to be given")?;
    hold(record.core.counters.len() == summary.counter_names.len(), "a client's counters have no names")?;
    image.check().map_err(|error| error.what)?;
    let mut runs: Vec<Token> = image.runs().collect();
    let mut listed: Vec<Token> = record.runs.iter().map(|run| Token(run.index)).collect();
    runs.sort_unstable();
    listed.sort_unstable();
    hold(runs == listed, "the runs of a client are not those that are listed")?;
    for run in &record.runs {
        let flags = check_entry(&run.entry, summary)?;
        let here = run.entry.client == record.index && flags.contains(Flags::LIVE | Flags::RUNNING);
        hold(here && !flags.contains(Flags::SETTLED), "a run of a client is not its own")?;
    }
    Ok(())
}
