//! Bitmaps of attributes, notification types and object types.

use super::wire::wire_field;
use crate::xdr::{Decode, Encode, Reader, Result, Writer, XdrError, XdrErrorKind};

/// Most words of a [`Bitmap4`]. Three hold every attribute defined so far; the rest is room for what a later minor
/// version adds.
pub const BITMAP_WORDS_MAX: usize = 8;

/// A set of small numbers (RFC 8881 section 3.2, `bitmap4`): bit `n` is bit `n mod 32` of word `n / 32`. Zero words
/// at the end mean nothing and are dropped, so equal sets are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Bitmap4 {
    words: [u32; BITMAP_WORDS_MAX],
    len: u8,
}

impl Bitmap4 {
    /// The empty set.
    pub const EMPTY: Bitmap4 = Bitmap4 { words: [0; BITMAP_WORDS_MAX], len: 0 };

    /// The set that these words say; `None` if there are more than [`BITMAP_WORDS_MAX`].
    pub const fn from_words(words: &[u32]) -> Option<Bitmap4> {
        if words.len() > BITMAP_WORDS_MAX {
            return None;
        }
        let mut set = Bitmap4::EMPTY;
        let mut i = 0;
        while i < words.len() {
            set.words[i] = words[i];
            i += 1;
        }
        Some(set.trimmed(words.len()))
    }

    /// The set of these bits; bits past the last word are left out.
    pub const fn of(bits: &[u32]) -> Bitmap4 {
        let mut set = Bitmap4::EMPTY;
        let mut i = 0;
        while i < bits.len() {
            set = set.with(bits[i]);
            i += 1;
        }
        set
    }

    /// This set and `bit`; a bit past the last word is left out.
    pub const fn with(mut self, bit: u32) -> Bitmap4 {
        let word = (bit / 32) as usize;
        if word < BITMAP_WORDS_MAX {
            self.words[word] |= 1 << (bit % 32);
        }
        self.trimmed(BITMAP_WORDS_MAX)
    }

    const fn trimmed(mut self, len: usize) -> Bitmap4 {
        let mut len = len;
        while len > 0 && self.words[len - 1] == 0 {
            len -= 1;
        }
        self.len = len as u8;
        self
    }

    /// Whether `bit` is in the set.
    pub const fn contains(&self, bit: u32) -> bool {
        let word = (bit / 32) as usize;
        word < BITMAP_WORDS_MAX && self.words[word] & (1 << (bit % 32)) != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is in both sets.
    pub const fn and(mut self, other: &Bitmap4) -> Bitmap4 {
        let mut i = 0;
        while i < BITMAP_WORDS_MAX {
            self.words[i] &= other.words[i];
            i += 1;
        }
        self.trimmed(BITMAP_WORDS_MAX)
    }

    /// The words on the wire.
    pub fn words(&self) -> &[u32] {
        self.words.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The bits, in ascending order: the order of the values in an [`super::Fattr`].
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<> {
        let set = *self;
        (0..BITMAP_WORDS_MAX as u32 * 32).filter(move |bit| set.contains(*bit))
    }
}

impl Decode<'_> for Bitmap4 {
    fn decode(r: &mut Reader<'_>) -> Result<Self> {
        let offset = r.offset();
        let count = r.count("bitmap4", u32::MAX as usize, 4)?;
        let mut set = Bitmap4::EMPTY;
        for i in 0..count {
            let word = r.u32("bitmap4")?;
            match set.words.get_mut(i) {
                Some(space) => *space = word,
                None if word == 0 => {}
                None => {
                    let kind = XdrErrorKind::TooLong { length: count as u64, limit: BITMAP_WORDS_MAX as u64 };
                    return Err(XdrError { what: "bitmap4", offset, kind });
                }
            }
        }
        Ok(set.trimmed(BITMAP_WORDS_MAX))
    }
}

impl Encode for Bitmap4 {
    fn encode(&self, w: &mut Writer<'_>) -> Result<()> {
        w.count(self.words().len())?;
        self.words().iter().try_for_each(|word| w.u32(*word))
    }
}

wire_field!(Bitmap4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_where_the_rfc_says() {
        let set = Bitmap4::of(&[3, 4, 33]);
        assert_eq!(set.words(), [0x18, 2]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 4, 33]);
        assert!(set.contains(33) && !set.contains(32) && !set.contains(100_000));
        assert_eq!(set.and(&Bitmap4::of(&[4])), Bitmap4::of(&[4]));
        assert_eq!(Bitmap4::from_words(&[0x18, 2, 0]), Some(set));
        assert_eq!(Bitmap4::from_words(&[0; 9]), None);
    }

    #[test]
    fn zero_words_at_the_end_mean_nothing_but_unknown_bits_are_refused() {
        let wire = |words: &[u32]| {
            let mut bytes = (words.len() as u32).to_be_bytes().to_vec();
            bytes.extend(words.iter().flat_map(|w| w.to_be_bytes()));
            Bitmap4::decode(&mut Reader::new(&bytes))
        };
        assert_eq!(wire(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Ok(Bitmap4::of(&[0])));
        let e = wire(&[1, 0, 0, 0, 0, 0, 0, 0, 1]).unwrap_err();
        assert_eq!(e.to_string(), "bitmap4 at offset 0: length 9 is over the limit of 8");
    }
}
