//! The file: a head of 16 bytes (magic, version), then chunks, the last of which says that it is the last.
//!
//! A chunk is a head of 32 bytes and its payload, both little-endian, padded with zeros to a multiple of 16, so that every
//! payload is aligned for what it holds. Its head has a checksum over itself and the payload. So the file can be written
//! as a stream, and nothing of a chunk is believed before all of its bytes are known to be those that were written; in one
//! that was cut, the last chunk is missing.

use super::CheckpointError;
use std::io::Write;
use std::ops::Range;

const MAGIC: [u8; 8] = *b"ringbkcp";
/// Version of the format that is written.
pub(super) const VERSION: u32 = 1;
/// The oldest version that is read.
const VERSION_OLDEST: u32 = 1;
const FILE_HEAD_BYTES: usize = 16;
const CHUNK_HEAD_BYTES: usize = 32;
/// Every payload begins at a multiple of it.
pub(super) const ALIGNMENT: usize = 16;
/// Longest payload of one chunk: what 32 bits of a relative pointer reach.
pub(super) const CHUNK_BYTES_MAX: usize = 1 << 30;

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// What there is one of.
    Summary = 1,
    /// A client.
    Client = 2,
    /// Callback entries, from one index on.
    Entries = 3,
    /// What the embedder has written.
    Own = 4,
    /// Nothing: the end.
    End = 5,
    /// A connection, whose socket comes along.
    Line = 6,
    /// Tenants: one chunk, if there are any.
    Tenants = 7,
    /// Paths of minor version 0: one chunk, if there are any.
    Paths = 8,
}

const KINDS: [Kind; 8] =
    [Kind::Summary, Kind::Client, Kind::Entries, Kind::Own, Kind::End, Kind::Line, Kind::Tenants, Kind::Paths];

impl Kind {
    fn of(number: u32) -> Option<Kind> {
        KINDS.into_iter().find(|k| *k as u32 == number)
    }
}

/// A chunk that was found.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub kind: Kind,
    /// The index of the first entry.
    pub first: u32,
    /// Where its payload is.
    pub payload: Range<usize>,
}

fn padding(len: usize) -> usize {
    len.next_multiple_of(ALIGNMENT) - len
}

/// Kind, checksum, number of the chunk, first entry, bytes of the payload.
fn chunk_head(kind: u32, number: u64, first: u32, payload: &[u8]) -> [u8; CHUNK_HEAD_BYTES] {
    let mut head = [0; CHUNK_HEAD_BYTES];
    head[..4].copy_from_slice(&kind.to_le_bytes());
    head[8..16].copy_from_slice(&number.to_le_bytes());
    head[16..20].copy_from_slice(&first.to_le_bytes());
    head[24..].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&head);
    checksum.update(payload);
    head[4..8].copy_from_slice(&checksum.finalize().to_le_bytes());
    head
}

/// Writes chunks to a stream.
pub(super) struct ChunkWriter<'a> {
    out: &'a mut dyn Write,
    chunks: u64,
    pub bytes: u64,
}

impl<'a> ChunkWriter<'a> {
    pub fn new(out: &'a mut dyn Write) -> Result<Self, CheckpointError> {
        let mut head = [0; FILE_HEAD_BYTES];
        head[..8].copy_from_slice(&MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let mut writer = ChunkWriter { out, chunks: 0, bytes: 0 };
        writer.put(&head)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.out.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    pub fn chunk(&mut self, kind: Kind, first: u32, payload: &[u8]) -> Result<(), CheckpointError> {
        if payload.len() > CHUNK_BYTES_MAX {
            return Err(CheckpointError::TooLarge);
        }
        self.put(&chunk_head(kind as u32, self.chunks, first, payload))?;
        self.put(payload)?;
        self.put(&[0; ALIGNMENT][..padding(payload.len())])?;
        self.chunks += 1;
        Ok(())
    }

    /// The last chunk. How many bytes there are.
    pub fn finish(mut self) -> Result<u64, CheckpointError> {
        self.chunk(Kind::End, 0, &[])?;
        self.out.flush()?;
        Ok(self.bytes)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

/// Finds the chunks of a file, and verifies each.
pub(super) fn chunks(file: &[u8]) -> Result<Vec<Chunk>, CheckpointError> {
    if !file.starts_with(&MAGIC[..file.len().min(MAGIC.len())]) {
        return Err(CheckpointError::NotACheckpoint);
    }
    let head = file.get(..FILE_HEAD_BYTES).ok_or(CheckpointError::Truncated)?;
    match word(head, 8) {
        found if found < VERSION_OLDEST => return Err(CheckpointError::Older { found, oldest: VERSION_OLDEST }),
        found if found > VERSION => return Err(CheckpointError::Newer { found, newest: VERSION }),
        _ => {}
    }
    if word(head, 12) != 0 {
        return Err(CheckpointError::Corrupt { at: 12, what: "something stands after the version" });
    }
    let (mut found, mut at) = (Vec::new(), FILE_HEAD_BYTES);
    loop {
        let corrupt = |what| CheckpointError::Corrupt { at: at as u64, what };
        let head = file.get(at..at + CHUNK_HEAD_BYTES).ok_or(CheckpointError::Truncated)?;
        let bytes = usize::try_from(long(head, 24)).ok().filter(|bytes| *bytes <= CHUNK_BYTES_MAX);
        let bytes = bytes.ok_or(corrupt("a chunk is longer than any is"))?;
        let payload = at + CHUNK_HEAD_BYTES..at + CHUNK_HEAD_BYTES + bytes;
        let held = file.get(payload.clone()).ok_or(CheckpointError::Truncated)?;
        if *head != chunk_head(word(head, 0), long(head, 8), word(head, 16), held) {
            return Err(corrupt("the checksum of a chunk is wrong"));
        }
        let kind = Kind::of(word(head, 0)).ok_or(corrupt("a chunk is of no known kind"))?;
        if long(head, 8) != found.len() as u64 {
            return Err(corrupt("a chunk is missing or doubled"));
        }
        let end = payload.end + padding(bytes);
        let pad = file.get(payload.end..end).ok_or(CheckpointError::Truncated)?;
        if pad.iter().any(|byte| *byte != 0) {
            return Err(corrupt("something stands between two chunks"));
        }
        found.push(Chunk { kind, first: word(head, 16), payload });
        at = end;
        if kind == Kind::End {
            break;
        }
    }
    if at != file.len() {
        return Err(CheckpointError::Corrupt { at: at as u64, what: "something follows the end" });
    }
    Ok(found)
}

/// Makes the head of a file and the checksums of its chunks right, whatever is in them: so that a fuzzer gets beyond them.
/// `false`: it is too short.
#[cfg(any(test, feature = "simulator"))]
pub(crate) fn mend(file: &mut [u8]) -> bool {
    let Some(head) = file.get_mut(..FILE_HEAD_BYTES) else { return false };
    head.fill(0);
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let (mut at, mut number) = (FILE_HEAD_BYTES, 0);
    while let Some(rest) = file.get_mut(at..).filter(|rest| rest.len() >= CHUNK_HEAD_BYTES) {
        let (head, held) = rest.split_at_mut(CHUNK_HEAD_BYTES);
        let bytes = usize::try_from(long(head, 24)).unwrap_or(usize::MAX).min(held.len());
        let mended = chunk_head(word(head, 0), number, word(head, 16), &held[..bytes]);
        head.copy_from_slice(&mended);
        at += CHUNK_HEAD_BYTES + bytes + padding(bytes);
        number += 1;
    }
    true
}
