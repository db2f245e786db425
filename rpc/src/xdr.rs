//! XDR cursors over byte slices (RFC 4506).
//!
//! [`Reader`] never panics, never reads past the end and never allocates: what it returns borrows the input, and every
//! length that a peer chose is checked against a limit and against the bytes that are really there. [`Writer`] fills a
//! buffer that the caller owns and never writes past it. Errors say what was being read, at which offset, and the limit.

use thiserror::Error;

/// Why a value could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{what} at offset {offset}: {kind}")]
pub struct XdrError {
    /// The field, in the RFC's name for it.
    pub what: &'static str,
    /// Offset in bytes from the start of the buffer.
    pub offset: usize,
    /// What was wrong.
    pub kind: XdrErrorKind,
}

/// The kinds of [`XdrError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum XdrErrorKind {
    /// The value needs more bytes than are left.
    #[error("needs {needed} bytes, {left} are left")]
    Truncated {
        /// Bytes that the value needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A length or count is over its limit.
    #[error("length {length} is over the limit of {limit}")]
    TooLong {
        /// The length on the wire.
        length: u64,
        /// The limit.
        limit: u64,
    },
    /// An enum or union discriminant that the protocol does not define here.
    #[error("value {value} is not defined here")]
    BadValue {
        /// The value on the wire.
        value: u64,
    },
    /// Padding bytes that are not zero (RFC 4506 section 3 asks for zero).
    #[error("padding is not zero")]
    BadPadding,
    /// Bytes are left after the last field.
    #[error("{left} bytes are left over")]
    Trailing {
        /// Bytes left.
        left: usize,
    },
    /// The output buffer is full.
    #[error("needs {needed} bytes, the buffer has {left} left")]
    NoSpace {
        /// Bytes that the value needs.
        needed: usize,
        /// Bytes left in the buffer.
        left: usize,
    },
    /// Whoever was to write the value failed, for reasons that have nothing to do with XDR.
    #[error("its encoder failed")]
    EncoderFailed,
}

/// The result of a codec function.
pub type Result<T, E = XdrError> = core::result::Result<T, E>;

/// A value that can be read from XDR, borrowing what is variable from the input.
pub trait Decode<'a>: Sized {
    /// Reads one value and moves the reader past it.
    fn decode(r: &mut Reader<'a>) -> Result<Self>;
}

/// A value that can be written as XDR.
pub trait Encode {
    /// Writes the value.
    fn encode(&self, w: &mut Writer<'_>) -> Result<()>;
}

/// The number of zero bytes that fill `len` up to a multiple of four (RFC 4506 section 3).
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}

/// A cursor over received bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub const fn offset(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// An error of `kind` about `what`, at the current offset.
    pub const fn error(&self, what: &'static str, kind: XdrErrorKind) -> XdrError {
        XdrError { what, offset: self.at, kind }
    }

    fn take(&mut self, what: &'static str, len: usize) -> Result<&'a [u8]> {
        match self.remaining().split_at_checked(len) {
            Some((head, _)) => {
                self.at += len;
                Ok(head)
            }
            None => Err(self.error(what, XdrErrorKind::Truncated { needed: len, left: self.remaining().len() })),
        }
    }

    /// Fixed-length opaque data of `N` bytes and its padding (RFC 4506 section 4.9).
    pub fn fixed<const N: usize>(&mut self, what: &'static str) -> Result<&'a [u8; N]> {
        let Some((head, _)) = self.remaining().split_first_chunk::<N>() else {
            return Err(self.error(what, XdrErrorKind::Truncated { needed: N, left: self.remaining().len() }));
        };
        self.at += N;
        self.skip_padding(what, N)?;
        Ok(head)
    }

    fn skip_padding(&mut self, what: &'static str, len: usize) -> Result<()> {
        let fill = self.take(what, padding(len))?;
        if fill.iter().any(|&b| b != 0) {
            return Err(self.error(what, XdrErrorKind::BadPadding));
        }
        Ok(())
    }

    /// Unsigned integer (RFC 4506 section 4.2).
    pub fn u32(&mut self, what: &'static str) -> Result<u32> {
        self.fixed::<4>(what).map(|b| u32::from_be_bytes(*b))
    }

    /// Integer (RFC 4506 section 4.1).
    pub fn i32(&mut self, what: &'static str) -> Result<i32> {
        self.fixed::<4>(what).map(|b| i32::from_be_bytes(*b))
    }

    /// Unsigned hyper integer (RFC 4506 section 4.5).
    pub fn u64(&mut self, what: &'static str) -> Result<u64> {
        self.fixed::<8>(what).map(|b| u64::from_be_bytes(*b))
    }

    /// Hyper integer (RFC 4506 section 4.5).
    pub fn i64(&mut self, what: &'static str) -> Result<i64> {
        self.fixed::<8>(what).map(|b| i64::from_be_bytes(*b))
    }

    /// Boolean: 0 or 1, nothing else (RFC 4506 section 4.4).
    pub fn bool(&mut self, what: &'static str) -> Result<bool> {
        let at = self.offset();
        match self.u32(what)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(XdrError { what, offset: at, kind: XdrErrorKind::BadValue { value: value.into() } }),
        }
    }

    /// Variable-length opaque data or string of at most `limit` bytes, and its padding (RFC 4506 section 4.10).
    pub fn opaque(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8]> {
        let len = self.length(what, limit)?;
        let bytes = self.take(what, len)?;
        self.skip_padding(what, len)?;
        Ok(bytes)
    }

    /// The count of a variable-length array: at most `limit`, and never more elements of at least `element_bytes_min`
    /// bytes than the bytes that are left could hold (RFC 4506 section 4.13).
    pub fn count(&mut self, what: &'static str, limit: usize, element_bytes_min: usize) -> Result<usize> {
        let count = self.length(what, limit)?;
        let needed = count.saturating_mul(element_bytes_min);
        let left = self.remaining().len();
        if needed > left {
            return Err(self.error(what, XdrErrorKind::Truncated { needed, left }));
        }
        Ok(count)
    }

    fn length(&mut self, what: &'static str, limit: usize) -> Result<usize> {
        let at = self.offset();
        let length = self.u32(what)?;
        match usize::try_from(length) {
            Ok(len) if len <= limit => Ok(len),
            _ => {
                let kind = XdrErrorKind::TooLong { length: length.into(), limit: limit as u64 };
                Err(XdrError { what, offset: at, kind })
            }
        }
    }

    /// Says that nothing may be left.
    pub fn finish(&self, what: &'static str) -> Result<()> {
        match self.remaining().len() {
            0 => Ok(()),
            left => Err(self.error(what, XdrErrorKind::Trailing { left })),
        }
    }
}

/// A cursor that fills a buffer of the caller.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

/// Where a word was reserved by [`Writer::reserve_u32`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a reserved word is zero until it is patched"]
pub struct Reserved(usize);

impl<'a> Writer<'a> {
    /// A cursor at the start of `bytes`.
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Writer { bytes, at: 0 }
    }

    /// Bytes written so far.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Bytes that still fit.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// What has been written.
    pub fn written(&self) -> &[u8] {
        &self.bytes[..self.at]
    }

    /// Forgets everything written after `position`; a position that was not reached yet changes nothing.
    pub fn rewind(&mut self, position: usize) {
        self.at = self.at.min(position);
    }

    /// Writes `bytes` as they are, with no length and no padding.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        let left = self.left();
        match self.bytes.get_mut(self.at..self.at + bytes.len()) {
            Some(space) => {
                space.copy_from_slice(bytes);
                self.at += bytes.len();
                Ok(())
            }
            None => Err(XdrError {
                what: "output",
                offset: self.at,
                kind: XdrErrorKind::NoSpace { needed: bytes.len(), left },
            }),
        }
    }

    /// Unsigned integer.
    pub fn u32(&mut self, value: u32) -> Result<()> {
        self.raw(&value.to_be_bytes())
    }

    /// Integer.
    pub fn i32(&mut self, value: i32) -> Result<()> {
        self.raw(&value.to_be_bytes())
    }

    /// Unsigned hyper integer.
    pub fn u64(&mut self, value: u64) -> Result<()> {
        self.raw(&value.to_be_bytes())
    }

    /// Hyper integer.
    pub fn i64(&mut self, value: i64) -> Result<()> {
        self.raw(&value.to_be_bytes())
    }

    /// Boolean.
    pub fn bool(&mut self, value: bool) -> Result<()> {
        self.u32(value.into())
    }

    /// Fixed-length opaque data and its padding.
    pub fn fixed(&mut self, bytes: &[u8]) -> Result<()> {
        self.raw(bytes)?;
        self.raw(&[0; 3][..padding(bytes.len())])
    }

    /// Variable-length opaque data or string, with its length and padding.
    pub fn opaque(&mut self, bytes: &[u8]) -> Result<()> {
        self.count(bytes.len())?;
        self.fixed(bytes)
    }

    /// The count of a variable-length array.
    pub fn count(&mut self, count: usize) -> Result<()> {
        let Ok(value) = u32::try_from(count) else {
            let kind = XdrErrorKind::TooLong { length: count as u64, limit: u32::MAX.into() };
            return Err(XdrError { what: "length", offset: self.at, kind });
        };
        self.u32(value)
    }

    /// A word that is known only later: a count, a status, a record mark.
    pub fn reserve_u32(&mut self) -> Result<Reserved> {
        let at = self.at;
        self.u32(0)?;
        Ok(Reserved(at))
    }

    /// Fills a reserved word. A word that [`Writer::rewind`] has dropped since is left alone.
    pub fn patch_u32(&mut self, reserved: Reserved, value: u32) {
        let written = &mut self.bytes[..self.at];
        if let Some(space) = written.get_mut(reserved.0..reserved.0 + 4) {
            space.copy_from_slice(&value.to_be_bytes());
        }
    }
}

impl Encode for u32 {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.u32(*self)
    }
}

impl Decode<'_> for u32 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        r.u32("uint32_t")
    }
}

impl Encode for u64 {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.u64(*self)
    }
}

impl Decode<'_> for u64 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        r.u64("uint64_t")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn errors_say_what_where_and_the_limit() {
        let mut r = Reader::new(&[0, 0, 0, 9, 1, 2]);
        let e = r.opaque("tag", 8).unwrap_err();
        assert_eq!(e.to_string(), "tag at offset 0: length 9 is over the limit of 8");
        let mut r = Reader::new(&[0, 0, 0, 5, 1, 2]);
        let e = r.opaque("tag", 8).unwrap_err();
        assert_eq!(e.to_string(), "tag at offset 4: needs 5 bytes, 2 are left");
    }

    #[test]
    fn a_count_is_bounded_by_the_bytes_that_are_there() {
        let mut r = Reader::new(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert!(r.count("list", usize::MAX, 4).is_err());
    }

    #[test]
    fn padding_must_be_zero() {
        let mut r = Reader::new(&[0, 0, 0, 1, 7, 0, 0, 1]);
        assert_eq!(r.opaque("x", 4).unwrap_err().kind, XdrErrorKind::BadPadding);
    }

    #[test]
    fn a_full_buffer_is_an_error_and_changes_nothing() {
        let mut space = [0u8; 6];
        let mut w = Writer::new(&mut space);
        w.u32(1).unwrap();
        assert!(w.u32(2).is_err());
        assert_eq!(w.written(), [0, 0, 0, 1]);
        let mut w = Writer::new(&mut space[..2]);
        assert!(w.reserve_u32().is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(a: u32, b: i32, c: u64, d: i64, e: bool, s in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut space = [0u8; 128];
            let mut w = Writer::new(&mut space);
            let mark = w.reserve_u32().unwrap();
            w.i32(b).unwrap();
            w.u64(c).unwrap();
            w.i64(d).unwrap();
            w.bool(e).unwrap();
            w.opaque(&s).unwrap();
            w.patch_u32(mark, a);
            let len = w.position();
            let mut r = Reader::new(&space[..len]);
            prop_assert_eq!(r.u32("a").unwrap(), a);
            prop_assert_eq!(r.i32("b").unwrap(), b);
            prop_assert_eq!(r.u64("c").unwrap(), c);
            prop_assert_eq!(r.i64("d").unwrap(), d);
            prop_assert_eq!(r.bool("e").unwrap(), e);
            prop_assert_eq!(r.opaque("s", 40).unwrap(), &s[..]);
            r.finish("end").unwrap();
        }

        #[test]
        fn no_input_makes_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), limit: usize) {
            let mut r = Reader::new(&bytes);
            while r.opaque("x", limit).is_ok() && !r.remaining().is_empty() {}
            let _ = r.bool("b");
            let _ = r.count("c", limit, 4);
        }
    }
}
