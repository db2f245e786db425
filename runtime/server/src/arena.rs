//! Storage for millions of small objects that are named by an index and a generation.
//!
//! Objects live in chunks that never move, so growing costs one chunk and no copy. An index is used again after its
//! object is gone; the generation then differs, so that a name kept too long (a stateid, a filehandle, a cookie) finds
//! nothing and never the wrong object.

use crate::keep::{Keep, keep, malformed};
use std::collections::HashSet;
use std::io::{self, Read, Write};

/// Objects per chunk: big enough that the chunk table stays small, small enough that an empty server is small.
const CHUNK: usize = 1024;
/// The end of a list of indices; never an object.
pub(crate) const NONE: u32 = u32::MAX;

/// An object's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// The links of an object in a list of objects of its arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Links {
    next: u32,
    prev: u32,
}

impl Links {
    /// In no list.
    pub(crate) const ALONE: Links = Links { next: NONE, prev: NONE };

    /// The next object of the list.
    pub(crate) const fn next(self) -> u32 {
        self.next
    }
}

/// Which list of an object is meant: where its links are.
pub(crate) trait Link<T> {
    /// The links for this list.
    fn of(object: &mut T) -> &mut Links;
    /// The links for this list, to be read.
    fn of_ref(object: &T) -> &Links;
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    content: Content<T>,
}

#[derive(Debug)]
enum Content<T> {
    Used(T),
    Free { next: u32 },
}

/// The objects. See the module's words.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    chunks: Vec<Vec<Entry<T>>>,
    free: u32,
    used: u32,
    limit: u32,
    /// Objects that may have changed since they were last asked for, if somebody wants to know.
    touched: Option<HashSet<u32>>,
}

impl<T> Arena<T> {
    /// An empty arena for at most `limit` objects.
    pub(crate) const fn new(limit: u32) -> Self {
        Arena { chunks: Vec::new(), free: NONE, used: 0, limit, touched: None }
    }

    /// Bytes that one object takes.
    #[cfg(test)]
    pub(crate) const fn bytes_per_object() -> usize {
        size_of::<Entry<T>>()
    }

    /// Sets the limit. What there is beyond it stays.
    pub(crate) const fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Objects in the arena.
    pub(crate) const fn len(&self) -> u32 {
        self.used
    }

    /// One more than the highest index ever used.
    pub(crate) fn index_end(&self) -> u32 {
        match self.chunks.last() {
            Some(last) => ((self.chunks.len() - 1) * CHUNK + last.len()) as u32,
            None => 0,
        }
    }

    fn entry(&self, index: u32) -> Option<&Entry<T>> {
        self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)
    }

    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry<T>> {
        let entry = self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)?;
        self.touched.as_mut().map(|touched| touched.insert(index));
        Some(entry)
    }

    /// From now on it is noted which objects may have changed. All that are there have.
    pub(crate) fn track(&mut self) {
        self.touched = Some((0..self.index_end()).collect());
    }

    /// The indices of objects that may have changed, come or gone since this was last asked.
    pub(crate) fn take_touched(&mut self) -> HashSet<u32> {
        self.touched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What is at an index: a generation, and the object unless it is gone.
    pub(crate) fn row(&self, index: u32) -> Option<(u32, Option<&T>)> {
        self.entry(index).map(|entry| (entry.generation, self.at(index)))
    }

    /// An arena with such rows, by ascending index.
    pub(crate) fn of_rows(limit: u32, rows: impl IntoIterator<Item = (u32, u32, Option<T>)>) -> Self {
        let mut arena = Arena::new(limit);
        for (index, generation, object) in rows {
            while arena.index_end() < index {
                arena.push(0, None);
            }
            arena.push(generation, object);
        }
        arena
    }

    fn push(&mut self, generation: u32, object: Option<T>) {
        let index = self.index_end();
        let content = match object {
            Some(object) => {
                self.used += 1;
                Content::Used(object)
            }
            None => Content::Free { next: std::mem::replace(&mut self.free, index) },
        };
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(last) = self.chunks.last_mut() {
            last.push(Entry { generation, content });
        }
        self.touched.as_mut().map(|touched| touched.insert(index));
    }

    /// Stores an object; `None` when the arena is at its limit.
    pub(crate) fn insert(&mut self, value: T) -> Option<Id> {
        if self.used >= self.limit {
            return None;
        }
        let index = self.free;
        if let Some(entry) = self.entry_mut(index) {
            let Content::Free { next } = entry.content else { return None };
            // Zero is skipped so that no stateid of an object is all zeros (RFC 8881 section 8.2.3).
            entry.generation = entry.generation.wrapping_add(1).max(1);
            entry.content = Content::Used(value);
            let generation = entry.generation;
            self.free = next;
            self.used += 1;
            return Some(Id { index, generation });
        }
        let index = self.index_end();
        self.push(1, Some(value));
        Some(Id { index, generation: 1 })
    }

    /// The object of that name.
    pub(crate) fn get(&self, id: Id) -> Option<&T> {
        self.at(id.index).filter(|_| self.entry(id.index).is_some_and(|e| e.generation == id.generation))
    }

    /// The object of that name, to be changed.
    pub(crate) fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        match self.entry_mut(id.index) {
            Some(Entry { generation, content: Content::Used(value) }) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    /// The object at `index`: for links between objects, which are undone before their target goes.
    pub(crate) fn at(&self, index: u32) -> Option<&T> {
        match self.entry(index) {
            Some(Entry { content: Content::Used(value), .. }) => Some(value),
            _ => None,
        }
    }

    /// The object at `index`, to be changed.
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        match self.entry_mut(index) {
            Some(Entry { content: Content::Used(value), .. }) => Some(value),
            _ => None,
        }
    }

    /// The names of all objects.
    pub(crate) fn ids(&self) -> impl Iterator<Item = Id> + '_ {
        (0..self.index_end()).filter_map(|index| self.id_at(index))
    }

    /// The full name of the object at `index`.
    pub(crate) fn id_at(&self, index: u32) -> Option<Id> {
        match self.entry(index) {
            Some(Entry { generation, content: Content::Used(_) }) => Some(Id { index, generation: *generation }),
            _ => None,
        }
    }

    /// The same objects as other ones, under the same names.
    pub(crate) fn map<U>(&self, f: impl Fn(&T) -> U) -> Arena<U> {
        match self.try_map(|value| Some(f(value))) {
            Some(arena) => arena,
            None => unreachable!("no object is refused"),
        }
    }

    /// The same, if that can be done with all of them.
    pub(crate) fn try_map<U>(&self, f: impl Fn(&T) -> Option<U>) -> Option<Arena<U>> {
        let entry = |entry: &Entry<T>| {
            let content = match &entry.content {
                Content::Used(value) => Content::Used(f(value)?),
                Content::Free { next } => Content::Free { next: *next },
            };
            Some(Entry { generation: entry.generation, content })
        };
        let chunk = |chunk: &Vec<Entry<T>>| {
            let mut copied = Vec::with_capacity(CHUNK);
            for found in chunk {
                copied.push(entry(found)?);
            }
            Some(copied)
        };
        let chunks = self.chunks.iter().map(chunk).collect::<Option<_>>()?;
        Some(Arena { chunks, free: self.free, used: self.used, limit: self.limit, touched: None })
    }

    /// Takes the object out; its name finds nothing from now on.
    pub(crate) fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        let next = self.free;
        let entry = self.entry_mut(id.index)?;
        let Content::Used(value) = std::mem::replace(&mut entry.content, Content::Free { next }) else { return None };
        self.free = id.index;
        self.used -= 1;
        Some(value)
    }
}

/// Lists: an object is in at most one list of each kind `L`; the head is kept by whoever owns the list.
impl<T> Arena<T> {
    /// Puts the object at `index` at the front of a list.
    pub(crate) fn link<L: Link<T>>(&mut self, head: &mut u32, index: u32) {
        let next = std::mem::replace(head, index);
        if let Some(object) = self.at_mut(index) {
            *L::of(object) = Links { next, prev: NONE };
        }
        if let Some(second) = self.at_mut(next) {
            L::of(second).prev = index;
        }
    }

    /// Takes the object at `index` out of its list.
    pub(crate) fn unlink<L: Link<T>>(&mut self, head: &mut u32, index: u32) {
        let Some(object) = self.at_mut(index) else { return };
        let Links { next, prev } = std::mem::replace(L::of(object), Links::ALONE);
        match self.at_mut(prev) {
            Some(before) => L::of(before).next = next,
            None => *head = next,
        }
        if let Some(after) = self.at_mut(next) {
            L::of(after).prev = prev;
        }
    }

    /// The objects of a list, each with its index.
    pub(crate) fn list<L: Link<T>>(&self, head: u32) -> impl Iterator<Item = (u32, &T)> {
        let mut index = head;
        std::iter::from_fn(move || {
            let object = self.at(index)?;
            let found = (index, object);
            index = L::of_ref(object).next;
            Some(found)
        })
    }
}

keep! {
    Id { index, generation }
    Links { next, prev }
}

impl<T: Keep> Keep for Arena<T> {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        (self.free, (self.used, self.limit)).save(out)?;
        self.index_end().save(out)?;
        for entry in self.chunks.iter().flatten() {
            entry.generation.save(out)?;
            match &entry.content {
                Content::Used(value) => {
                    true.save(out)?;
                    value.save(out)?;
                }
                Content::Free { next } => {
                    false.save(out)?;
                    next.save(out)?;
                }
            }
        }
        Ok(())
    }

    fn load(from: &mut dyn Read) -> io::Result<Self> {
        let (free, (used, limit)) = Keep::load(from)?;
        let mut arena = Arena { chunks: Vec::new(), free, used, limit, touched: None };
        let mut found = 0;
        for _ in 0..u32::load(from)? {
            let generation = u32::load(from)?;
            let content = if bool::load(from)? {
                found += 1;
                Content::Used(T::load(from)?)
            } else {
                Content::Free { next: u32::load(from)? }
            };
            if arena.chunks.last().is_none_or(|last| last.len() == CHUNK) {
                arena.chunks.push(Vec::with_capacity(CHUNK));
            }
            arena.chunks.last_mut().ok_or_else(malformed)?.push(Entry { generation, content });
        }
        if found == used { Ok(arena) } else { Err(malformed()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_kept_too_long_finds_nothing() {
        let mut arena = Arena::new(10);
        let a = arena.insert("a").unwrap();
        assert_eq!(arena.remove(a), Some("a"));
        assert_eq!(arena.remove(a), None);
        let b = arena.insert("b").unwrap();
        assert_eq!(a.index, b.index);
        assert_eq!((arena.get(a), arena.get(b)), (None, Some(&"b")));
        assert!(arena.get_mut(a).is_none());
        assert_eq!(arena.id_at(b.index), Some(b));
    }

    struct Child(Links);
    struct Siblings;
    impl Link<Child> for Siblings {
        fn of(child: &mut Child) -> &mut Links {
            &mut child.0
        }
        fn of_ref(child: &Child) -> &Links {
            &child.0
        }
    }

    #[test]
    fn lists_lose_their_members_in_any_order() {
        for gone in 0..3 {
            let mut arena = Arena::new(3);
            let mut head = NONE;
            for _ in 0..3 {
                let id = arena.insert(Child(Links::ALONE)).unwrap();
                arena.link::<Siblings>(&mut head, id.index);
            }
            arena.unlink::<Siblings>(&mut head, gone);
            let left: Vec<u32> = arena.list::<Siblings>(head).map(|(index, _)| index).collect();
            assert_eq!(left, [2, 1, 0].into_iter().filter(|n| *n != gone).collect::<Vec<_>>());
        }
    }

    #[test]
    fn rows_make_the_same_arena_again() {
        let mut arena = Arena::new(10);
        let ids: Vec<Id> = (0..5).map(|n| arena.insert(n).unwrap()).collect();
        arena.track();
        assert_eq!(arena.take_touched().len(), 5, "all that are there");
        arena.remove(ids[1]);
        arena.remove(ids[3]);
        let again = arena.insert(6).unwrap();
        let mut touched: Vec<u32> = arena.take_touched().into_iter().collect();
        touched.sort_unstable();
        assert_eq!((touched, arena.take_touched().len()), (vec![1, 3], 0));
        // One row is missing, as of an object that came and went between two looks.
        let rows = [0, 1, 3, 4].map(|index| arena.row(index).map(|(g, object)| (index, g, object.copied())).unwrap());
        let mut other = Arena::of_rows(10, rows);
        assert_eq!((other.get(ids[0]), other.get(ids[1]), other.get(again)), (Some(&0), None, Some(&6)));
        assert_eq!((other.len(), other.index_end()), (3, 5));
        let (first, second) = (other.insert(7).unwrap(), other.insert(8).unwrap());
        assert_eq!((first.index, second.index), (2, 1), "free ones are used again");
        assert_ne!(second, ids[1], "under another name");
        assert_eq!(other.insert(9).unwrap().index, 5);
    }

    #[test]
    fn the_limit_holds_and_room_is_used_again() {
        let mut arena = Arena::new(3000);
        let ids: Vec<Id> = (0..3000).map(|n| arena.insert(n).unwrap()).collect();
        assert_eq!(arena.insert(0), None);
        assert_eq!(arena.index_end(), 3000);
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(arena.remove(*id), Some(n));
        }
        assert_eq!(arena.len(), 0);
        (0..3000).for_each(|n| assert!(arena.insert(n).is_some()));
        assert_eq!(arena.index_end(), 3000);
        assert_eq!(arena.at(NONE), None);
    }
}
