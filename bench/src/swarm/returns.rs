//! Delegations to be returned.

use ringback_rpc::nfs4::{FHSIZE, FileHandle, OTHER_SIZE, Stateid4};
use std::collections::VecDeque;

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
    packed: VecDeque<u8>,
}

impl ReturnQueue {
    pub(crate) fn push(&mut self, back: &Return) {
        self.packed.extend(back.stateid.seqid.to_be_bytes());
        self.packed.extend(back.stateid.other);
        self.packed.push_back(back.handle_len);
        self.packed.extend(back.handle().as_bytes());
    }

    pub(crate) fn pop(&mut self) -> Option<Return> {
        let seqid = u32::from_be_bytes(self.take()?);
        let other: [u8; OTHER_SIZE] = self.take()?;
        let [handle_len] = self.take()?;
        let mut handle = [0; FHSIZE];
        for (space, byte) in handle.iter_mut().zip(self.packed.drain(..usize::from(handle_len))) {
            *space = byte;
        }
        Some(Return { stateid: Stateid4 { seqid, other }, handle, handle_len })
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.packed.len() < N {
            return None;
        }
        let mut bytes = [0; N];
        for (space, byte) in bytes.iter_mut().zip(self.packed.drain(..N)) {
            *space = byte;
        }
        Some(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packed.is_empty()
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
        for _ in 0..3 {
            all.iter().for_each(|one| queue.push(one));
            all.iter().for_each(|one| assert_eq!(queue.pop(), Some(*one)));
        }
        assert!(queue.is_empty() && queue.pop().is_none());
    }
}
