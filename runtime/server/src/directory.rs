//! The entries of one directory, in an order that does not change while others come and go: READDIR goes on from a cookie
//! of an entry that may be gone (RFC 8881 section 18.23.4).

use crate::arena::Id;
use crate::keep::keep;
use crate::name::ShortBytes;
use ringback_rpc::nfs4::Status;
use std::collections::BTreeMap;
use std::collections::btree_map::Range;

/// Names of equal hash that a directory can hold, as a power of two.
const COLLISION_BITS: u32 = 4;
/// Cookies are above this, so that none is 0, 1 or 2, which have meanings, and below 2^63: clients keep them in signed
/// integers.
const COOKIE_BASE: u64 = 1 << 62;

/// One entry.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: ShortBytes,
    pub(crate) id: Id,
}

/// A directory. Entries are in the order of their names' hashes, which are their cookies.
#[derive(Debug)]
pub(crate) struct Directory {
    entries: BTreeMap<u64, Entry>,
    pub(crate) parent: Id,
    pub(crate) subdirectories: u32,
    /// It has been removed: nothing may be put into it any more.
    pub(crate) removed: bool,
    /// The cookies of another are of no use to clients, though they stay valid here.
    pub(crate) verifier: u64,
}

keep! {
    Entry { name, id }
    Directory { entries, parent, subdirectories, removed, verifier }
}

impl Directory {
    pub(crate) const fn new(parent: Id) -> Self {
        Directory { entries: BTreeMap::new(), parent, subdirectories: 0, removed: false, verifier: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The cookies that names of this hash may have.
    const fn slots(hash: u64) -> std::ops::Range<u64> {
        let first = COOKIE_BASE | (hash << COLLISION_BITS) & (COOKIE_BASE - 1);
        first..first + (1 << COLLISION_BITS)
    }

    pub(crate) fn cookie(&self, hash: u64, name: &[u8]) -> Option<u64> {
        self.entries.range(Self::slots(hash)).find(|(_, e)| e.name.as_bytes() == name).map(|(cookie, _)| *cookie)
    }

    pub(crate) fn find(&self, hash: u64, name: &[u8]) -> Option<Id> {
        self.entries.range(Self::slots(hash)).find(|(_, e)| e.name.as_bytes() == name).map(|(_, e)| e.id)
    }

    /// Adds a name, or lets it stand for another file.
    pub(crate) fn put(&mut self, hash: u64, name: &[u8], id: Id) -> Result<(), Status> {
        let cookie = match self.cookie(hash, name) {
            Some(cookie) => cookie,
            // More than sixteen names of one hash do not happen by chance.
            None => Self::slots(hash).find(|c| !self.entries.contains_key(c)).ok_or(Status::NFS4ERR_NOSPC)?,
        };
        self.entries.insert(cookie, Entry { name: ShortBytes::new(name), id });
        Ok(())
    }

    pub(crate) fn remove(&mut self, hash: u64, name: &[u8]) -> Option<Id> {
        let cookie = self.cookie(hash, name)?;
        self.entries.remove(&cookie).map(|e| e.id)
    }

    /// The entry before a cookie.
    pub(crate) fn before(&self, cookie: u64) -> Option<(u64, &ShortBytes, Id)> {
        self.entries.range(..cookie).next_back().map(|(cookie, entry)| (*cookie, &entry.name, entry.id))
    }

    /// Takes names away, by their cookies.
    pub(crate) fn retain(&mut self, stays: impl Fn(u64) -> bool) {
        self.entries.retain(|cookie, _| stays(*cookie));
    }

    /// The entries after a cookie.
    pub(crate) fn after(&self, cookie: u64) -> Range<'_, u64, Entry> {
        self.entries.range(cookie.saturating_add(1)..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Id = Id { index: 1, generation: 1 };

    #[test]
    fn names_of_equal_hash_live_side_by_side() {
        let mut directory = Directory::new(ID);
        let names: Vec<String> = (0..17).map(|n| n.to_string()).collect();
        for (n, name) in names.iter().enumerate() {
            let put = directory.put(u64::MAX, name.as_bytes(), Id { index: n as u32, generation: 1 });
            assert_eq!(put.is_ok(), n < 16, "{name}");
        }
        assert_eq!(directory.remove(u64::MAX, b"3").map(|id| id.index), Some(3));
        assert_eq!(directory.find(u64::MAX, b"15").map(|id| id.index), Some(15));
        assert_eq!((directory.find(u64::MAX, b"3"), directory.find(0, b"4")), (None, None));
        assert!(directory.after(0).all(|(cookie, _)| *cookie > 2 && *cookie < 1 << 63));
    }

    #[test]
    fn a_listing_goes_on_where_an_entry_was() {
        let mut directory = Directory::new(ID);
        for n in 0..10u64 {
            directory.put(n, &[b'a' + n as u8], ID).unwrap();
        }
        let (cookie, name) = directory.after(0).nth(4).map(|(c, e)| (*c, e.name.clone())).unwrap();
        directory.remove(4, name.as_bytes());
        assert_eq!(directory.after(cookie).count(), 5);
        directory.put(5, b"f", Id { index: 9, generation: 9 }).unwrap();
        assert_eq!(directory.after(cookie).next().map(|(_, e)| e.id.index), Some(9), "replaced in place");
    }
}
