//! Record marking: messages on a byte stream (RFC 5531 section 11).
//!
//! A record is one or more fragments; each begins with a mark, a word whose top bit says that it is the record's last
//! fragment and whose other bits are its length. Whether a record is a call or a reply is in the message, not here.
//!
//! [`RecordReader`] takes whatever the stream gives, split anywhere. A record that lies in the input as one fragment is
//! lent from there; any other is put together in memory of its own, which grows with what has arrived and never with
//! what a mark promises. [`begin`] and [`end`] write a mark in place, in front of a message of unknown length.

use core::ops::Deref;

use thiserror::Error;

use crate::xdr::{self, Reserved, Writer, XdrError, XdrErrorKind};

/// The top bit of a mark: no fragment of the record follows.
pub const LAST_FRAGMENT: u32 = 1 << 31;
/// Size of a mark.
pub const MARK_BYTES: usize = 4;
/// Most fragments of one record, empty ones included. Senders use one, or cut at their buffers of some kilobytes: a
/// record of one megabyte is then some 250.
pub const FRAGMENTS_MAX: u32 = 1024;
/// Most memory taken for a fragment before any of it has arrived.
const RESERVE_BYTES_MAX: usize = 64 * 1024;

/// Why a stream of records cannot be read any further. The connection is of no use after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The record is too long.
    #[error("a record of at least {length} bytes is over the limit of {limit}")]
    TooLong {
        /// Length of the fragments that are known so far.
        length: u64,
        /// The limit.
        limit: usize,
    },
    /// The record has too many fragments.
    #[error("a record of more than {limit} fragments")]
    TooManyFragments {
        /// The limit.
        limit: u32,
    },
    /// There is no memory for the record.
    #[error("no memory for a record of {length} bytes")]
    NoMemory {
        /// Bytes of the record that have arrived.
        length: usize,
    },
}

/// One whole record, without its marks.
#[derive(Debug)]
pub enum Record<'a> {
    /// Lies in the input, where it arrived.
    Borrowed(&'a [u8]),
    /// Arrived in pieces.
    Owned(Vec<u8>),
}

impl Record<'_> {
    /// The bytes, copied only if they are borrowed.
    pub fn into_vec(self) -> Vec<u8> {
        match self {
            Record::Borrowed(bytes) => bytes.to_vec(),
            Record::Owned(bytes) => bytes,
        }
    }
}

impl Deref for Record<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Record::Borrowed(bytes) => bytes,
            Record::Owned(bytes) => bytes,
        }
    }
}

/// Cuts a stream into records.
#[derive(Debug)]
pub struct RecordReader {
    record_bytes_max: usize,
    /// The next mark, as far as it has arrived.
    mark: [u8; MARK_BYTES],
    mark_len: usize,
    /// Bytes of the current fragment that have not arrived.
    fragment_left: usize,
    /// Whether the current fragment is the last.
    last: bool,
    /// Fragments of the current record whose mark has been read; 0 between records.
    fragments: u32,
    /// Bytes of the current record that have arrived.
    record: Vec<u8>,
    failed: Option<RecordError>,
}

impl RecordReader {
    /// A reader at the start of a stream, for records of at most `record_bytes_max` bytes.
    pub const fn new(record_bytes_max: usize) -> Self {
        RecordReader {
            record_bytes_max,
            mark: [0; MARK_BYTES],
            mark_len: 0,
            fragment_left: 0,
            last: false,
            fragments: 0,
            record: Vec::new(),
            failed: None,
        }
    }

    /// Whether the stream stands between two records: it may end here.
    pub const fn is_between_records(&self) -> bool {
        self.fragments == 0 && self.mark_len == 0
    }

    /// Memory that an unfinished record holds.
    pub const fn held_bytes(&self) -> usize {
        self.record.capacity()
    }

    /// The bytes that bring a new reader to where this one stands: those of the record that has begun, perhaps in other
    /// fragments than they came in. None between records.
    pub fn begun(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.fragments > 0 {
            let length = self.record.len() + self.fragment_left;
            let last = if self.last { LAST_FRAGMENT } else { 0 };
            bytes.extend_from_slice(&(length as u32 | last).to_be_bytes());
            bytes.extend_from_slice(&self.record);
        }
        bytes.extend_from_slice(&self.mark[..self.mark_len]);
        bytes
    }

    /// The next record if it lies in `input` as one fragment, taken off its front: what is usual, at the least cost. `None`
    /// says nothing: ask [`next`](RecordReader::next).
    #[inline]
    pub fn next_lent<'a>(&self, input: &mut &'a [u8]) -> Option<&'a [u8]> {
        if !self.is_between_records() || self.failed.is_some() {
            return None;
        }
        let (mark, rest) = input.split_first_chunk()?;
        let mark = u32::from_be_bytes(*mark);
        let length = (mark & !LAST_FRAGMENT) as usize;
        if mark & LAST_FRAGMENT == 0 || length > self.record_bytes_max {
            return None;
        }
        let (record, rest) = rest.split_at_checked(length)?;
        *input = rest;
        Some(record)
    }

    /// The next record. What was used is taken off the front of `input`; `None`: all of it was, and more is needed.
    /// After an error every call gives that error.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Record<'a>>, RecordError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Some(record) = self.next_lent(input) {
            return Ok(Some(Record::Borrowed(record)));
        }
        self.assemble(input).inspect_err(|error| {
            self.failed = Some(*error);
            self.record = Vec::new();
        })
    }

    fn assemble<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Record<'a>>, RecordError> {
        loop {
            if self.fragments > 0 && self.fragment_left == 0 && self.last {
                self.fragments = 0;
                return Ok(Some(Record::Owned(core::mem::take(&mut self.record))));
            }
            if self.fragments == 0 || self.fragment_left == 0 {
                if !self.read_mark(input)? {
                    return Ok(None);
                }
            } else if input.is_empty() {
                return Ok(None);
            }
            self.read_fragment(input)?;
        }
    }

    /// Reads a mark; false: it has not arrived as a whole.
    fn read_mark(&mut self, input: &mut &[u8]) -> Result<bool, RecordError> {
        while self.mark_len < MARK_BYTES {
            let Some((byte, rest)) = input.split_first() else {
                return Ok(false);
            };
            self.mark[self.mark_len] = *byte;
            self.mark_len += 1;
            *input = rest;
        }
        self.mark_len = 0;
        let mark = u32::from_be_bytes(self.mark);
        self.last = mark & LAST_FRAGMENT != 0;
        self.fragment_left = (mark & !LAST_FRAGMENT) as usize;
        self.fragments += 1;
        if self.fragments > FRAGMENTS_MAX {
            return Err(RecordError::TooManyFragments { limit: FRAGMENTS_MAX });
        }
        let length = self.record.len() as u64 + self.fragment_left as u64;
        if length > self.record_bytes_max as u64 {
            return Err(RecordError::TooLong { length, limit: self.record_bytes_max });
        }
        self.reserve(self.fragment_left.min(RESERVE_BYTES_MAX))?;
        Ok(true)
    }

    /// Takes what there is of the current fragment.
    fn read_fragment(&mut self, input: &mut &[u8]) -> Result<(), RecordError> {
        let (bytes, rest) = input.split_at(self.fragment_left.min(input.len()));
        self.reserve(bytes.len())?;
        self.record.extend_from_slice(bytes);
        self.fragment_left -= bytes.len();
        *input = rest;
        Ok(())
    }

    fn reserve(&mut self, bytes: usize) -> Result<(), RecordError> {
        self.record.try_reserve(bytes).map_err(|_| RecordError::NoMemory { length: self.record.len() })
    }
}

impl Default for RecordReader {
    /// A stand-in that takes no bytes, for a reader that is moved out of its place for a while.
    fn default() -> Self {
        RecordReader::new(0)
    }
}

/// The mark of a record of one fragment; `None` if a fragment cannot be that long.
pub const fn mark(record_bytes: usize) -> Option<[u8; MARK_BYTES]> {
    if record_bytes >= LAST_FRAGMENT as usize {
        return None;
    }
    Some((record_bytes as u32 | LAST_FRAGMENT).to_be_bytes())
}

/// Where a record was begun by [`begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the mark is zero until `end` fills it"]
pub struct Mark {
    reserved: Reserved,
    body: usize,
}

/// Reserves the mark of a record of one fragment; the message follows.
pub fn begin(w: &mut Writer<'_>) -> xdr::Result<Mark> {
    let reserved = w.reserve_u32()?;
    Ok(Mark { reserved, body: w.position() })
}

/// Fills the mark, now that the message has been written.
pub fn end(w: &mut Writer<'_>, begun: Mark) -> xdr::Result<()> {
    let length = w.position().saturating_sub(begun.body);
    match self::mark(length) {
        Some(mark) => {
            w.patch_u32(begun.reserved, u32::from_be_bytes(mark));
            Ok(())
        }
        None => {
            let kind = XdrErrorKind::TooLong { length: length as u64, limit: u64::from(LAST_FRAGMENT) - 1 };
            Err(XdrError { what: "record", offset: begun.body, kind })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fragment(last: bool, bytes: &[u8]) -> Vec<u8> {
        let mark = bytes.len() as u32 | if last { LAST_FRAGMENT } else { 0 };
        [&mark.to_be_bytes()[..], bytes].concat()
    }

    /// Reads everything, giving the reader one chunk after the other.
    fn read(reader: &mut RecordReader, chunks: &[&[u8]]) -> Result<Vec<Vec<u8>>, RecordError> {
        let mut records = Vec::new();
        for chunk in chunks {
            let mut input = *chunk;
            while let Some(record) = reader.next(&mut input)? {
                records.push(record.into_vec());
            }
            assert!(input.is_empty(), "all input is used before more is asked for");
        }
        Ok(records)
    }

    #[test]
    fn a_whole_record_is_not_copied() {
        let stream = [fragment(true, b"one"), fragment(true, b""), fragment(true, b"three")].concat();
        let mut reader = RecordReader::new(5);
        let mut input = &stream[..];
        for expected in [&b"one"[..], b"", b"three"] {
            match reader.next(&mut input) {
                Ok(Some(Record::Borrowed(bytes))) => assert_eq!(bytes, expected),
                other => panic!("{other:?}"),
            }
        }
        assert!(reader.next(&mut input).unwrap().is_none());
        assert!(reader.is_between_records());
        assert_eq!(reader.held_bytes(), 0);
    }

    #[test]
    fn a_stream_cut_at_every_byte_gives_the_same_records() {
        let stream = [
            fragment(true, b"first"),
            fragment(false, b"sec"),
            fragment(false, b""),
            fragment(true, b"ond"),
            fragment(false, b""),
            fragment(true, b""),
            fragment(true, b"third"),
            // The last byte of this mark and what follows look like a mark themselves.
            fragment(true, &[0; 128]),
        ]
        .concat();
        let expected: [&[u8]; 5] = [b"first", b"second", b"", b"third", &[0; 128]];
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            let mut reader = RecordReader::new(128);
            let mut records = read(&mut reader, &[head]).unwrap();
            // What has begun goes on in another reader, too.
            let begun = reader.begun();
            let mut others = records.clone();
            records.extend(read(&mut reader, &[tail]).unwrap());
            assert_eq!(records, expected, "cut at {cut}");
            others.extend(read(&mut RecordReader::new(128), &[&begun, tail]).unwrap());
            assert_eq!(others, expected, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&mut RecordReader::new(128), &bytes).unwrap(), expected);
    }

    #[test]
    fn a_record_over_the_limit_is_refused_at_its_mark_and_for_good() {
        let error = RecordError::TooLong { length: 7, limit: 6 };
        let mut reader = RecordReader::new(6);
        let stream = [fragment(false, b"four"), (LAST_FRAGMENT | 3).to_be_bytes().to_vec()].concat();
        assert_eq!(read(&mut reader, &[&stream]), Err(error));
        assert_eq!(read(&mut reader, &[&fragment(true, b"ok")]), Err(error));
        assert_eq!(reader.held_bytes(), 0);
        let promise = (LAST_FRAGMENT | 7).to_be_bytes();
        assert_eq!(read(&mut RecordReader::new(6), &[&promise]), Err(error));
        assert_eq!(error.to_string(), "a record of at least 7 bytes is over the limit of 6");
    }

    #[test]
    fn fragments_are_counted_empty_ones_too() {
        let empty = fragment(false, b"");
        let mut stream = empty.repeat(FRAGMENTS_MAX as usize - 1);
        stream.extend(fragment(true, b"x"));
        assert_eq!(read(&mut RecordReader::new(6), &[&stream, &stream]).unwrap(), [b"x", b"x"]);
        let stream = empty.repeat(FRAGMENTS_MAX as usize + 1);
        let error = RecordError::TooManyFragments { limit: FRAGMENTS_MAX };
        assert_eq!(read(&mut RecordReader::new(6), &[&stream]), Err(error));
    }

    #[test]
    fn a_promise_takes_little_memory() {
        let mut reader = RecordReader::new(1 << 30);
        let promise = (LAST_FRAGMENT | 1 << 30).to_be_bytes();
        assert_eq!(read(&mut reader, &[&promise, b"some"]).unwrap(), [] as [Vec<u8>; 0]);
        assert!(reader.held_bytes() <= RESERVE_BYTES_MAX, "{}", reader.held_bytes());
        assert!(!reader.is_between_records());
    }

    #[test]
    fn a_mark_is_written_in_place() {
        let mut space = [0xff; 16];
        let mut w = Writer::new(&mut space);
        w.u32(0x0102_0304).unwrap();
        let mark = begin(&mut w).unwrap();
        w.u64(5).unwrap();
        end(&mut w, mark).unwrap();
        assert_eq!(w.written(), [1, 2, 3, 4, 0x80, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(super::mark(8), Some([0x80, 0, 0, 8]));
        assert_eq!(super::mark(1 << 31), None);
    }

    proptest! {
        #[test]
        fn any_fragments_split_anyhow_give_the_records(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..8),
            cuts in prop::collection::vec(1usize..20, 1..20),
            chunks in prop::collection::vec(1usize..50, 1..20),
        ) {
            let mut cuts = cuts.iter().cycle();
            let mut stream = Vec::new();
            for record in &records {
                let mut rest = &record[..];
                while let Some((head, tail)) = rest.split_at_checked(*cuts.next().unwrap()) {
                    stream.extend(fragment(false, head));
                    rest = tail;
                }
                stream.extend(fragment(true, rest));
            }
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = &stream[..];
            for chunk in chunks.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (head, tail) = rest.split_at(rest.len().min(*chunk));
                pieces.push(head);
                rest = tail;
            }
            let mut reader = RecordReader::new(60);
            prop_assert_eq!(read(&mut reader, &pieces).unwrap(), records);
            prop_assert!(reader.is_between_records());
        }

        #[test]
        fn no_stream_makes_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), limit in 0usize..100) {
            let mut reader = RecordReader::new(limit);
            let _ = read(&mut reader, &[&bytes]);
            prop_assert!(reader.held_bytes() <= 2 * limit.max(8));
        }
    }
}
