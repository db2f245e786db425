//! The attached connections of a back end, found by index and told apart by generation.

use std::io;

use super::ConnKey;

/// Indices fit in the 24 bits that [`super::uring`] has for them in an operation's name; epoll has the same limit.
pub(super) const INDEX_BITS: u32 = 24;

/// Connections by [`ConnKey`].
#[derive(Debug)]
pub(super) struct Table<C> {
    entries: Vec<Option<(u32, C)>>,
}

impl<C> Table<C> {
    pub(super) fn new() -> Self {
        Table { entries: Vec::new() }
    }

    /// Says whether the index may be attached.
    pub(super) fn check_free(&self, key: ConnKey) -> io::Result<()> {
        if key.index >= 1 << INDEX_BITS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the index of a connection must be below 2^24"));
        }
        match self.entries.get(key.index as usize) {
            Some(Some(_)) => Err(io::Error::new(io::ErrorKind::AlreadyExists, "the index is still attached")),
            _ => Ok(()),
        }
    }

    /// Adds a connection whose index is free.
    pub(super) fn insert(&mut self, key: ConnKey, conn: C) {
        let index = key.index as usize;
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, || None);
        }
        self.entries[index] = Some((key.generation, conn));
    }

    /// The connection, unless it has been removed.
    pub(super) fn get_mut(&mut self, key: ConnKey) -> Option<&mut C> {
        match self.entries.get_mut(key.index as usize)? {
            Some((generation, conn)) if *generation == key.generation => Some(conn),
            _ => None,
        }
    }

    /// Takes the connection out; its index is free again.
    pub(super) fn remove(&mut self, key: ConnKey) -> Option<C> {
        self.get_mut(key)?;
        Some(self.entries[key.index as usize].take()?.1)
    }

    /// The connection that is on an index now.
    pub(super) fn key_at(&self, index: u32) -> Option<ConnKey> {
        let (generation, _) = self.entries.get(index as usize)?.as_ref()?;
        Some(ConnKey { index, generation: *generation })
    }

    /// All connections.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut C> {
        self.entries.iter_mut().flatten().map(|(_, conn)| conn)
    }
}
