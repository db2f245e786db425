//! Variable-length arrays without allocation.

use core::fmt;
use core::marker::PhantomData;

use crate::xdr::{Decode, Encode, Reader, Result, Writer};

/// A variable-length array (RFC 4506 section 4.13). One that was decoded stays in the received bytes: every element has
/// been validated, and iterating decodes them again, one by one. One that is to be encoded is a slice of the caller.
#[derive(Clone, Copy)]
pub enum List<'a, T> {
    /// Elements of the caller, to be encoded.
    Slice(&'a [T]),
    /// Elements in received bytes.
    Wire(WireList<'a, T>),
}

/// The elements of a decoded [`List`]; only a decoder makes one.
#[derive(Clone, Copy)]
pub struct WireList<'a, T> {
    count: usize,
    bytes: &'a [u8],
    element: PhantomData<&'a T>,
}

/// Fewest bytes that any element takes: no type of XDR that is used in a list is empty.
const ELEMENT_BYTES_MIN: usize = 4;

impl<'a, T> List<'a, T> {
    /// A list without elements.
    pub const EMPTY: Self = List::Slice(&[]);

    /// Number of elements.
    pub const fn len(&self) -> usize {
        match self {
            List::Slice(elements) => elements.len(),
            List::Wire(wire) => wire.count,
        }
    }

    /// Whether there are no elements.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a, T: Decode<'a> + Copy> List<'a, T> {
    /// The elements, in order.
    pub fn iter(&self) -> ListIter<'a, T> {
        ListIter(match *self {
            List::Slice(elements) => Source::Slice(elements.iter()),
            List::Wire(wire) => {
                Source::Wire { left: wire.count, reader: Reader::new(wire.bytes), element: PhantomData }
            }
        })
    }

    /// Reads and validates a list that errors call `what`.
    pub(crate) fn decode_named(r: &mut Reader<'a>, what: &'static str) -> Result<Self> {
        let count = r.count(what, u32::MAX as usize, ELEMENT_BYTES_MIN)?;
        let rest = r.remaining();
        let start = r.offset();
        for _ in 0..count {
            T::decode(r)?;
        }
        let bytes = rest.get(..r.offset() - start).unwrap_or_default();
        Ok(List::Wire(WireList { count, bytes, element: PhantomData }))
    }
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        List::EMPTY
    }
}

impl<'a, T> From<&'a [T]> for List<'a, T> {
    fn from(elements: &'a [T]) -> Self {
        List::Slice(elements)
    }
}

impl<'a, T: Decode<'a> + Copy> Decode<'a> for List<'a, T> {
    fn decode(r: &mut Reader<'a>) -> Result<Self> {
        List::decode_named(r, "list")
    }
}

impl<T: Encode> Encode for List<'_, T> {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.count(self.len())?;
        match self {
            List::Slice(elements) => elements.iter().try_for_each(|e| e.encode(w)),
            List::Wire(wire) => w.raw(wire.bytes),
        }
    }
}

impl<'a, T: Decode<'a> + Copy + PartialEq> PartialEq for List<'a, T> {
    /// Compares the elements, wherever they are.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: Decode<'a> + Copy + Eq> Eq for List<'a, T> {}

impl<'a, T: Decode<'a> + Copy + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Decode<'a> + Copy> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = ListIter<'a, T>;
    fn into_iter(self) -> ListIter<'a, T> {
        self.iter()
    }
}

/// Iterates over a [`List`].
#[derive(Clone)]
pub struct ListIter<'a, T>(Source<'a, T>);

#[derive(Clone)]
enum Source<'a, T> {
    Slice(core::slice::Iter<'a, T>),
    Wire { left: usize, reader: Reader<'a>, element: PhantomData<T> },
}

impl<'a, T: Decode<'a> + Copy> Iterator for ListIter<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Source::Slice(elements) => elements.next().copied(),
            Source::Wire { left, reader, .. } => {
                *left = left.checked_sub(1)?;
                // Every element was decoded once when the list was; the same bytes decode again.
                T::decode(reader).ok()
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            Source::Slice(elements) => elements.len(),
            Source::Wire { left, .. } => *left,
        };
        (left, Some(left))
    }
}

impl<'a, T: Decode<'a> + Copy> ExactSizeIterator for ListIter<'a, T> {}

impl<T> fmt::Debug for ListIter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListIter")
    }
}
