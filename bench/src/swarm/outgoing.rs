//! Records on their way to one connection.

use ringback_rpc::record;
use ringback_rpc::xdr::{self, Writer};

/// Bytes to be written, in one buffer that keeps its size: in steady state nothing is allocated or zeroed.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Outgoing {
    /// Appends one record of at most `bytes_max` bytes, and gives it with its mark. On an error nothing is appended.
    pub(crate) fn record(
        &mut self,
        bytes_max: usize,
        write: impl FnOnce(&mut Writer<'_>) -> xdr::Result<()>,
    ) -> xdr::Result<&[u8]> {
        let begin = self.end;
        let space = self.space(bytes_max + record::MARK_BYTES);
        let mut w = Writer::new(space);
        let mark = record::begin(&mut w)?;
        write(&mut w)?;
        record::end(&mut w, mark)?;
        let len = w.position();
        self.end += len;
        Ok(&self.bytes[begin..self.end])
    }

    /// Appends a record that has its mark already.
    pub(crate) fn marked(&mut self, record: &[u8]) {
        self.space(record.len()).copy_from_slice(record);
        self.end += record.len();
    }

    fn space(&mut self, len: usize) -> &mut [u8] {
        let end = self.end + len;
        if self.bytes.len() < end {
            self.bytes.resize(end.next_power_of_two(), 0);
        }
        &mut self.bytes[self.end..end]
    }

    /// What is to be written.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// `len` bytes of [`pending`](Outgoing::pending) are with the kernel.
    pub(crate) fn wrote(&mut self, len: usize) {
        self.start = (self.start + len).min(self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// Forgets what was not written: the connection is gone.
    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_queue_up_and_leave_in_order() {
        let mut out = Outgoing::default();
        let first = out.record(16, |w| w.u32(7)).unwrap().to_vec();
        assert_eq!(first, [0x80, 0, 0, 4, 0, 0, 0, 7]);
        out.marked(&first);
        assert!(out.record(4, |w| w.u64(1)).is_err(), "over its own limit");
        assert_eq!(out.pending(), [&first[..], &first[..]].concat());
        out.wrote(10);
        assert_eq!(out.pending(), &first[2..]);
        out.wrote(6);
        assert!(out.pending().is_empty());
        assert_eq!(out.record(4, |w| w.u32(7)).unwrap(), first);
    }
}
