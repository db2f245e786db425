//! Mistakes made on purpose in a checkpoint on its way, to show that the simulator finds them.

use super::format::{self, ChunkWriter, Kind};
use super::record::{self, ClientRecord, EntryRecord, LineRecord, from_bytes, to_bytes};
use super::{Checkpoint, CheckpointError};
use crate::callback::Flags;

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// The sequence ids of free session slots are too small by one.
    SequenceIds,
    /// What was received on connections and not handled is dropped.
    Unread,
    /// A run that was not begun is forgotten.
    Run,
}

/// The same checkpoint with a mistake in it.
pub(crate) fn spoil(checkpoint: &Checkpoint, what: Spoil) -> Result<Checkpoint, CheckpointError> {
    let file = &checkpoint.opened().bytes;
    let mut bytes = Vec::new();
    let mut out = ChunkWriter::new(&mut bytes)?;
    let mut forgotten = None;
    for chunk in format::chunks(file)?.into_iter().filter(|chunk| chunk.kind != Kind::End) {
        let payload = &file[chunk.payload];
        let spoilt = match (what, chunk.kind) {
            (Spoil::SequenceIds, Kind::Client) => from_bytes(payload).map(earlier).map(|client| to_bytes(&client)),
            (Spoil::Run, Kind::Client) => {
                from_bytes(payload).map(|client| to_bytes(&forgetful(client, &mut forgotten)))
            }
            (Spoil::Unread, Kind::Line) => {
                from_bytes(payload).map(|line: LineRecord| to_bytes(&LineRecord { unread: Vec::new(), ..line }))
            }
            (Spoil::Run, Kind::Entries) => record::entries(payload).map(|entries| {
                let entry = |(index, entry)| {
                    let entry = EntryRecord::from(entry);
                    let flags = if forgotten == Some(index) { Flags::LIVE.bits() as u16 } else { entry.flags };
                    EntryRecord { flags, ..entry }
                };
                to_bytes(&(chunk.first..).zip(entries).map(entry).collect::<Vec<_>>())
            }),
            _ => None,
        };
        match spoilt {
            Some(spoilt) => out.chunk(chunk.kind, chunk.first, &spoilt?)?,
            None => out.chunk(chunk.kind, chunk.first, payload)?,
        }
    }
    out.finish()?;
    Checkpoint::from_bytes(&bytes)
}

fn earlier(mut client: ClientRecord) -> ClientRecord {
    let slots = client.core.sessions.iter_mut().flat_map(|session| &mut session.slots);
    slots.filter(|(id, state, ..)| *state == 0 && *id > 1).for_each(|(id, ..)| *id -= 1);
    client
}

fn forgetful(mut client: ClientRecord, forgotten: &mut Option<u32>) -> ClientRecord {
    if forgotten.is_none() {
        *forgotten = client.core.fresh.pop();
        client.runs.retain(|run| Some(run.index) != *forgotten);
    }
    client
}
