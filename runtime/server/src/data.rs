//! The bytes of one file: in chunks, so that a hole takes no memory and growing copies little.

use crate::keep::{Keep, load_bytes, malformed, save_bytes};
use crate::quota::Quota;
use ringback_rpc::nfs4::Status;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// Bytes per chunk.
const CHUNK: usize = 64 << 10;
/// Smallest allocation of a chunk: most files are small.
const ALLOCATION_MIN: usize = 512;
/// The largest file: offsets stay well below what a signed 64-bit offset can say.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 46;

/// A file's bytes. What no chunk covers is zero.
#[derive(Debug, Default)]
pub(crate) struct Data {
    size: u64,
    /// Capacity of all chunks.
    memory: u64,
    /// By number; a chunk may be shorter than [`CHUNK`], what is missing is zero.
    chunks: BTreeMap<u64, Vec<u8>>,
}

impl Keep for Data {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        self.size.save(out)?;
        (self.chunks.len() as u64).save(out)?;
        for (number, chunk) in &self.chunks {
            (*number, chunk.capacity() as u64).save(out)?;
            save_bytes(chunk, out)?;
        }
        Ok(())
    }

    fn load(from: &mut dyn Read) -> io::Result<Self> {
        let mut data = Data { size: u64::load(from)?, ..Data::default() };
        for _ in 0..u64::load(from)? {
            let (number, capacity) = <(u64, u64)>::load(from)?;
            let bytes = load_bytes(from)?;
            if bytes.len() > CHUNK || capacity > CHUNK as u64 {
                return Err(malformed());
            }
            let mut chunk = Vec::with_capacity((capacity as usize).max(bytes.len()));
            chunk.extend_from_slice(&bytes);
            data.memory += chunk.capacity() as u64;
            data.chunks.insert(number, chunk);
        }
        Ok(data)
    }
}

impl Data {
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Memory that is charged for it.
    pub(crate) const fn memory(&self) -> u64 {
        self.memory
    }

    /// Fills `space` from `offset` on; gives how many bytes there were before the end of the file.
    pub(crate) fn read(&self, offset: u64, space: &mut [u8]) -> usize {
        let len = self.size.saturating_sub(offset).min(space.len() as u64) as usize;
        let mut done = 0;
        while done < len {
            let (number, within, part) = piece(offset + done as u64, len - done);
            let out = &mut space[done..done + part];
            out.fill(0);
            let there = self.chunks.get(&number).and_then(|chunk| chunk.get(within..)).unwrap_or_default();
            let have = there.len().min(part);
            out[..have].copy_from_slice(&there[..have]);
            done += part;
        }
        len
    }

    /// Writes `bytes` at `offset`. With no room left in `quota` nothing is written.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8], quota: &Quota) -> Result<(), Status> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(Status::NFS4ERR_FBIG)?;
        let mut done = 0;
        // Room first, so that a write is whole or nothing.
        while done < bytes.len() {
            let (number, within, part) = piece(offset + done as u64, bytes.len() - done);
            self.reserve(number, within + part, quota)?;
            done += part;
        }
        done = 0;
        while done < bytes.len() {
            let (number, within, part) = piece(offset + done as u64, bytes.len() - done);
            let chunk = self.chunks.entry(number).or_default();
            if chunk.len() < within + part {
                chunk.resize(within + part, 0);
            }
            chunk[within..within + part].copy_from_slice(&bytes[done..done + part]);
            done += part;
        }
        self.size = self.size.max(end);
        Ok(())
    }

    /// The next byte from `offset` on that is in a chunk, or that is in none, before the end. What a chunk is short of counts as
    /// data: holes are found by whole chunks.
    pub(crate) fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        let first = offset / CHUNK as u64;
        let number = if data {
            self.chunks.range(first..).next().map(|(number, _)| *number)?
        } else {
            let end = self.size.div_ceil(CHUNK as u64);
            (first..end).find(|number| !self.chunks.contains_key(number))?
        };
        Some((number * CHUNK as u64).max(offset)).filter(|found| *found < self.size)
    }

    /// Makes room for all bytes from `offset` on, so that writing them does not fail for want of it (RFC 7862 section 15.1).
    pub(crate) fn allocate(&mut self, offset: u64, len: u64, quota: &Quota) -> Result<(), Status> {
        let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Status::NFS4ERR_FBIG)?;
        let free = quota.max().saturating_sub(quota.used());
        let pieces = || {
            let first = std::iter::successors(Some(offset), |at| Some(at - at % CHUNK as u64 + CHUNK as u64));
            first.take_while(|at| *at < end).map(|at| piece(at, (end - at).min(CHUNK as u64) as usize))
        };
        let missing = |(number, within, part): (u64, usize, usize)| {
            let there = self.chunks.get(&number).map_or(0, Vec::capacity);
            allocation(within + part).saturating_sub(there) as u64
        };
        // Not even begun if there is not room for all; and not looked through if there cannot be.
        if len > free.saturating_add(self.memory) || pieces().map(missing).sum::<u64>() > free {
            return Err(Status::NFS4ERR_NOSPC);
        }
        for (number, within, part) in pieces() {
            self.reserve(number, within + part, quota)?;
        }
        self.size = self.size.max(end);
        Ok(())
    }

    /// Makes a hole (RFC 7862 section 15.4). The size stays.
    pub(crate) fn deallocate(&mut self, offset: u64, len: u64, quota: &Quota) -> Result<(), Status> {
        let end = offset.checked_add(len).ok_or(Status::NFS4ERR_INVAL)?;
        let chunks = offset / CHUNK as u64..end.div_ceil(CHUNK as u64);
        let there: Vec<u64> = self.chunks.range(chunks).map(|(number, _)| *number).collect();
        for number in there {
            let start = number * CHUNK as u64;
            let (from, to) = (offset.saturating_sub(start) as usize, (end - start).min(CHUNK as u64) as usize);
            let Some(chunk) = self.chunks.get_mut(&number) else { continue };
            if from == 0 && to >= chunk.len() {
                let freed = chunk.capacity() as u64;
                self.chunks.remove(&number);
                quota.give_back_many(freed);
                self.memory -= freed;
            } else if from < chunk.len() {
                let to = to.min(chunk.len());
                chunk[from..to].fill(0);
            }
        }
        Ok(())
    }

    /// Cuts or extends the file.
    pub(crate) fn set_size(&mut self, size: u64, quota: &Quota) -> Result<(), Status> {
        if size > FILE_BYTES_MAX {
            return Err(Status::NFS4ERR_FBIG);
        }
        let (number, within) = (size / CHUNK as u64, (size % CHUNK as u64) as usize);
        let mut cut = self.chunks.split_off(&number);
        if within > 0
            && let Some(mut last) = cut.remove(&number)
        {
            // What was behind the end must be zero if the file grows again.
            last.truncate(within);
            self.chunks.insert(number, last);
        }
        let freed = cut.values().map(|chunk| chunk.capacity() as u64).sum();
        quota.give_back_many(freed);
        self.memory -= freed;
        self.size = size;
        Ok(())
    }

    /// Makes room in a chunk for `len` bytes, doubling, and charges it. With no room left in `quota` there is no chunk.
    fn reserve(&mut self, number: u64, len: usize, quota: &Quota) -> Result<(), Status> {
        let before = self.chunks.get(&number).map_or(0, Vec::capacity);
        if len <= before {
            return Ok(());
        }
        let wanted = allocation(len);
        if !quota.take_many((wanted - before) as u64) {
            return Err(Status::NFS4ERR_NOSPC);
        }
        let chunk = self.chunks.entry(number).or_default();
        chunk.reserve_exact(wanted - chunk.len());
        // An allocator that gave more is not charged for: what is given back is the capacity.
        let capacity = chunk.capacity();
        quota.force((capacity - wanted) as u64);
        self.memory += (capacity - before) as u64;
        Ok(())
    }
}

/// How much is allocated for the first `len` bytes of a chunk.
fn allocation(len: usize) -> usize {
    len.next_power_of_two().clamp(ALLOCATION_MIN, CHUNK)
}

/// The chunk of an offset, the place in it, and how much of `len` is in it.
fn piece(offset: u64, len: usize) -> (u64, usize, usize) {
    let within = (offset % CHUNK as u64) as usize;
    (offset / CHUNK as u64, within, len.min(CHUNK - within))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_a_vector_would_be(
            steps in proptest::collection::vec((0u64..200_000, 0usize..70_000, any::<u8>(), 0..4), 1..20)
        ) {
            let quota = Quota::new(1 << 30);
            let (mut data, mut model) = (Data::default(), Vec::new());
            for (offset, len, byte, step) in steps {
                let end = offset as usize + len;
                if step == 2 {
                    data.allocate(offset, len as u64, &quota).unwrap();
                    model.resize(model.len().max(end), 0);
                } else if step == 3 {
                    data.deallocate(offset, len as u64, &quota).unwrap();
                    let end = end.min(model.len());
                    model[(offset as usize).min(end)..end].fill(0);
                } else if step == 1 {
                    let bytes = vec![byte; len];
                    data.write(offset, &bytes, &quota).unwrap();
                    model.resize(model.len().max(end), 0);
                    model[end - len..end].copy_from_slice(&bytes);
                } else {
                    data.set_size(offset, &quota).unwrap();
                    model.resize(offset as usize, 0);
                }
                prop_assert_eq!(data.size(), model.len() as u64);
                let mut space = vec![1; model.len() + 10];
                prop_assert_eq!(data.read(0, &mut space), model.len());
                prop_assert!(space[..model.len()] == model[..]);
                prop_assert_eq!(quota.used(), data.memory());
                prop_assert_eq!(quota.used(), data.chunks.values().map(|chunk| chunk.capacity() as u64).sum::<u64>());
            }
            data.set_size(0, &quota).unwrap();
            prop_assert_eq!(quota.used(), 0);
        }
    }

    #[test]
    fn what_is_allocated_is_charged_until_it_is_a_hole() {
        let quota = Quota::new(4 * CHUNK as u64);
        let mut data = Data::default();
        data.allocate(10, 3 * CHUNK as u64 - 10, &quota).unwrap();
        assert_eq!((data.size(), quota.used(), data.memory()), (3 * CHUNK as u64, 3 * CHUNK as u64, 3 * CHUNK as u64));
        assert_eq!(data.allocate(0, 5 * CHUNK as u64, &quota), Err(Status::NFS4ERR_NOSPC));
        assert_eq!(data.allocate(FILE_BYTES_MAX, 1, &quota), Err(Status::NFS4ERR_FBIG));
        assert_eq!(data.allocate(u64::MAX, 2, &quota), Err(Status::NFS4ERR_FBIG));
        data.write(CHUNK as u64, &[7; CHUNK], &quota).unwrap();
        data.deallocate(CHUNK as u64 + 1, CHUNK as u64, &quota).unwrap();
        let mut space = [9; 2];
        data.read(CHUNK as u64, &mut space);
        assert_eq!(space, [7, 0]);
        data.deallocate(0, FILE_BYTES_MAX, &quota).unwrap();
        assert_eq!((data.size(), quota.used()), (3 * CHUNK as u64, 0));
        assert_eq!(data.deallocate(u64::MAX, 2, &quota), Err(Status::NFS4ERR_INVAL));
    }

    #[test]
    fn limits_hold_and_holes_are_free() {
        let quota = Quota::new(100_000);
        let mut data = Data::default();
        data.set_size(FILE_BYTES_MAX, &quota).unwrap();
        assert_eq!((data.memory(), data.set_size(FILE_BYTES_MAX + 1, &quota)), (0, Err(Status::NFS4ERR_FBIG)));
        assert_eq!(data.write(FILE_BYTES_MAX, b"x", &quota), Err(Status::NFS4ERR_FBIG));
        assert_eq!(data.write(0, &[1; 200_000], &quota), Err(Status::NFS4ERR_NOSPC));
        let mut space = [7; 4];
        assert_eq!(data.read(0, &mut space), 4);
        assert_eq!(space, [0; 4], "a write that found no room wrote nothing");
        assert!(quota.used() <= 100_000);
        assert!(data.chunks.values().all(|chunk| chunk.capacity() > 0), "a chunk that is not charged");
    }
}
