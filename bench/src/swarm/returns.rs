//! Delegations to be returned.

use ringback_rpc::nfs4::{FHSIZE, FileHandle, OTHER_SIZE, Stateid4};

/// A delegation to be returned, with what DELEGRETURN needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Return {
    pub(crate) stateid: Stateid4,
    handle: [u8; FHSIZE],
    handle_len: u8,
}

impl Return {
    pub(crate) fn new(stateid: Stateid4, fh: &FileHandle<'_>) -> Self {
        let bytes = fh.as_bytes();
        let mut handle = [0; FHSIZE];
        handle[..bytes.len()].copy_from_slice(bytes);
        Return { stateid, handle, handle_len: bytes.len() as u8 }
    }

    pub(crate) fn handle(&self) -> FileHandle<'_> {
        FileHandle::new(&self.handle[..usize::from(self.handle_len)]).expect("a handle fits into FHSIZE bytes")
    }
}

/// Delegations that wait for a session slot: packed, since a server that recalls faster than it takes returns fills
/// this with everything that the client holds.
#[derive(Debug, Default)]
pub(crate) struct ReturnQueue {
    packed: Vec<u8>,
    /// Bytes before this one have been taken.
    taken: usize,
}

/// The parts of fixed length: stateid and the length of the filehandle.
const FIXED_BYTES: usize = 4 + OTHER_SIZE + 1;
/// Taken bytes are given up once there are this many, and more of them than others.
const TAKEN_BYTES_MIN: usize = 4096;

impl ReturnQueue {
    pub(crate) fn push(&mut self, back: &Return) {
        if self.taken >= TAKEN_BYTES_MIN && self.taken > self.packed.len() / 2 {
            self.packed.drain(..self.taken);
            self.taken = 0;
        }
        self.packed.extend_from_slice(&back.stateid.seqid.to_be_bytes());
        self.packed.extend_from_slice(&back.stateid.other);
        self.packed.push(back.handle_len);
        self.packed.extend_from_slice(back.handle().as_bytes());
    }

    pub(crate) fn pop(&mut self) -> Option<Return> {
        let (fixed, rest) = self.packed.get(self.taken..)?.split_first_chunk::<FIXED_BYTES>()?;
        let (seqid, rest_of_fixed) = fixed.split_first_chunk()?;
        let (other, handle_len) = rest_of_fixed.split_first_chunk::<OTHER_SIZE>()?;
        let stateid = Stateid4 { seqid: u32::from_be_bytes(*seqid), other: *other };
        let handle = FileHandle::new(rest.get(..usize::from(handle_len[0]))?)?;
        let back = Return::new(stateid, &handle);
        self.taken += FIXED_BYTES + usize::from(back.handle_len);
        if self.is_empty() {
            self.packed.clear();
            self.taken = 0;
        }
        Some(back)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.packed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_comes_back_in_order() {
        let mut queue = ReturnQueue::default();
        let all: Vec<_> = [0usize, 1, 28, FHSIZE]
            .iter()
            .map(|len| {
                let stateid = Stateid4 { seqid: *len as u32, other: [*len as u8; OTHER_SIZE] };
                Return::new(stateid, &FileHandle::new(&[7; FHSIZE][..*len]).unwrap())
            })
            .collect();
        for _ in 0..100 {
            queue.push(&all[1]);
            all.iter().for_each(|one| queue.push(one));
            assert_eq!(queue.pop(), Some(all[1]));
            all.iter().for_each(|one| assert_eq!(queue.pop(), Some(*one)));
            (0..30).for_each(|_| queue.push(&all[3]));
            (0..29).for_each(|_| assert_eq!(queue.pop(), Some(all[3])));
            queue.push(&all[0]);
            assert_eq!((queue.pop(), queue.pop()), (Some(all[3]), Some(all[0])));
        }
        assert!(queue.is_empty() && queue.pop().is_none());
    }
}
