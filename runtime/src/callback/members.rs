//! Groups: who waits until each of several callbacks is settled, and how a callback finds the groups that wait for it.
//!
//! A *member* stands for one callback in one group. The members that wait for a callback are a list that begins in the
//! callback's own word: the swap that asks for the run, or finds one going on, also adds the member ([`StateWord::join`]),
//! so that no run ends in between. Whoever settles the callback takes the list, in one swap again
//! ([`StateWord::take_members`]), so that each member is settled once and by one thread; and counts its members off
//! their groups. The last one counted off answers the group. That may be any thread: a reactor whose run ended, or
//! an embedder's that says what was returned.
//!
//! Members come from a pool that grows in the threads that make groups. To settle one takes no lock and no memory (R7).
//!
//! [`StateWord::join`]: super::state::StateWord::join
//! [`StateWord::take_members`]: super::state::StateWord::take_members

use super::promise::Promise;
use super::state::MEMBERS_MAX;
use super::{GroupError, GroupSettled};
use crate::sync::{self, AtomicU32, Handover, Mutex, Ordering};
use crossbeam::utils::CachePadded;
use std::sync::{Arc, OnceLock};

/// Members that are allocated together: 64 KiB.
const SEGMENT_MEMBERS: u32 = if cfg!(loom) { 2 } else { 4096 };
/// [`Member::next`] of the last one of a list; others hold the number + 1, so that zeroed memory is unlinked.
const LINK_END: u32 = 0;

/// What became of a member's callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    Returned,
    Overdue,
    Failed,
}

/// One group: counts its members off.
pub(crate) struct Tally {
    /// Members that are not settled; until all have joined, one more.
    unsettled: AtomicU32,
    /// By [`Settled`].
    settled: [AtomicU32; 3],
    pub(crate) promise: Promise<GroupSettled>,
}

impl Tally {
    /// A group of so many, of which [`Tally::close`] says that they have joined.
    pub(crate) fn new(members: u32) -> Self {
        let settled = std::array::from_fn(|_| AtomicU32::new(0));
        Tally { unsettled: AtomicU32::new(members + 1), settled, promise: Promise::new() }
    }

    /// One member is settled.
    pub(crate) fn settle(&self, how: Settled) {
        self.settled[how as usize].fetch_add(1, Ordering::Relaxed);
        self.count_off();
    }

    /// All have joined.
    pub(crate) fn close(&self) {
        self.count_off();
    }

    fn count_off(&self) {
        // AcqRel: the last one sees what all before have counted.
        if self.unsettled.fetch_sub(1, Ordering::AcqRel) == 1 {
            let [returned, overdue, failed] = [0, 1, 2].map(|how| self.settled[how].load(Ordering::Relaxed));
            self.promise.keep(GroupSettled { returned, overdue, failed });
        }
    }
}

/// One callback of one group. Its owner alone touches it: who makes the group, then the list, then who takes the list.
pub(crate) struct Member {
    /// The next one that waits for the same callback, or that is free.
    next: AtomicU32,
    /// The entry of the callback; kept when it is free, and then of no meaning.
    entry: AtomicU32,
    group: Handover<Arc<Tally>>,
}

/// What a callback that is waited for costs, for each group that waits for it.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Member>() == 16);

/// Members that were taken off a word.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use = "a group whose members are not settled waits for ever"]
pub(crate) struct Members(Option<u32>);

impl Members {
    pub(crate) const NONE: Members = Members(None);

    pub(crate) fn first(member: Option<u32>) -> Self {
        Members(member)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.is_none()
    }
}

/// All members.
pub(crate) struct MemberPool {
    segments: Box<[OnceLock<Box<[Member]>>]>,
    free: Mutex<Free>,
    /// Those that were settled since somebody looked, linked.
    given_back: CachePadded<AtomicU32>,
    /// Those that are reserved and not settled.
    in_use: CachePadded<AtomicU32>,
}

/// What only who makes a group touches.
struct Free {
    /// The first of those that were in use before.
    link: u32,
    /// Those from here on have never been.
    fresh: u32,
}

impl MemberPool {
    pub(crate) fn new() -> Self {
        let segments = if cfg!(loom) { 2 } else { MEMBERS_MAX.div_ceil(SEGMENT_MEMBERS) };
        MemberPool {
            segments: (0..segments).map(|_| OnceLock::new()).collect(),
            free: Mutex::new(Free { link: LINK_END, fresh: 0 }),
            given_back: CachePadded::new(AtomicU32::new(LINK_END)),
            in_use: CachePadded::new(AtomicU32::new(0)),
        }
    }

    fn get(&self, number: u32) -> Option<&Member> {
        self.segments.get((number / SEGMENT_MEMBERS) as usize)?.get()?.get((number % SEGMENT_MEMBERS) as usize)
    }

    fn member(&self, number: u32) -> &Member {
        match self.get(number) {
            Some(member) => member,
            None => unreachable!("member {number} was never allocated"),
        }
    }

    /// Members for a group that is to be made; all of them, or none. Not for a reactor: this takes a lock, and may
    /// allocate.
    pub(crate) fn reserve(&self, count: usize) -> Result<Reserved<'_>, GroupError> {
        let full = GroupError::Full { limit: MEMBERS_MAX };
        let mut left = u32::try_from(count).map_err(|_| full)?;
        let mut free = sync::lock(&self.free);
        let mut reserved = Reserved { pool: self, link: LINK_END };
        while left > 0 {
            let number = self.take(&mut free)?.ok_or(full)?;
            // Counted one by one, so that what an error gives back is counted as well.
            self.in_use.fetch_add(1, Ordering::Relaxed);
            self.member(number).next.store(reserved.link, Ordering::Relaxed);
            reserved.link = number + 1;
            left -= 1;
        }
        Ok(reserved)
    }

    fn take(&self, free: &mut Free) -> Result<Option<u32>, GroupError> {
        if free.link == LINK_END {
            // Acquire: each push continues the release sequences of those below it.
            free.link = self.given_back.swap(LINK_END, Ordering::Acquire);
        }
        if let Some(number) = free.link.checked_sub(1) {
            free.link = self.member(number).next.load(Ordering::Relaxed);
            return Ok(Some(number));
        }
        if free.fresh == MEMBERS_MAX {
            return Ok(None);
        }
        let Some(segment) = self.segments.get((free.fresh / SEGMENT_MEMBERS) as usize) else { return Ok(None) };
        if segment.get().is_none() {
            let mut members = Vec::new();
            members.try_reserve_exact(SEGMENT_MEMBERS as usize).map_err(|_| GroupError::OutOfMemory)?;
            members.extend((0..SEGMENT_MEMBERS).map(|_| Member {
                next: AtomicU32::new(LINK_END),
                entry: AtomicU32::new(u32::MAX),
                group: Handover::new(),
            }));
            let _ = segment.set(members.into_boxed_slice()); // under the lock, so nobody else has
        }
        free.fresh += 1;
        Ok(Some(free.fresh - 1))
    }

    /// A member is to join the list of a callback, on behalf of `group`.
    pub(crate) fn prepare(&self, number: u32, entry: u32, group: &Arc<Tally>) {
        let member = self.member(number);
        member.entry.store(entry, Ordering::Relaxed);
        member.group.put(Arc::clone(group));
    }

    /// The link of a member that joins a list: who is first there so far.
    pub(crate) fn link(&self, number: u32, first: Option<u32>) {
        self.member(number).next.store(first.map_or(LINK_END, |first| first + 1), Ordering::Relaxed);
    }

    /// Counts members off their groups, and gives them back.
    pub(crate) fn settle(&self, members: Members, how: Settled) {
        let mut link = members.0.map_or(LINK_END, |first| first + 1);
        while let Some(number) = link.checked_sub(1) {
            link = self.member(number).next.load(Ordering::Relaxed);
            self.settle_one(number, how);
        }
    }

    /// Counts one member off its group, and gives it back.
    pub(crate) fn settle_one(&self, number: u32, how: Settled) {
        let group = self.member(number).group.take();
        self.give_back(number);
        if let Some(group) = group {
            group.settle(how);
        }
    }

    fn give_back(&self, number: u32) {
        let member = self.member(number);
        self.in_use.fetch_sub(1, Ordering::Relaxed);
        let mut top = self.given_back.load(Ordering::Relaxed);
        loop {
            member.next.store(top, Ordering::Relaxed);
            // Release publishes the link; its partner is in `take`.
            match self.given_back.compare_exchange_weak(top, number + 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => top = now,
            }
        }
    }

    /// Whether any group waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_use.load(Ordering::Relaxed) == 0
    }

    /// The entries of all members that ever were: those of members that are free mean nothing.
    pub(crate) fn entries(&self) -> impl Iterator<Item = u32> {
        let members = self.segments.iter().map_while(OnceLock::get).flat_map(|segment| segment.iter());
        members.map(|member| member.entry.load(Ordering::Relaxed))
    }

    /// Memory of the members.
    #[cfg(not(loom))]
    pub(crate) fn bytes(&self) -> usize {
        let segments = self.segments.iter().map_while(OnceLock::get);
        size_of_val(&*self.segments) + segments.map(|segment| size_of_val(&**segment)).sum::<usize>()
    }
}

/// Members that have not joined anything yet. Those that are left when it is dropped go back.
pub(crate) struct Reserved<'a> {
    pool: &'a MemberPool,
    link: u32,
}

impl Reserved<'_> {
    /// Takes one out. `None`: all were.
    pub(crate) fn pop(&mut self) -> Option<u32> {
        let number = self.link.checked_sub(1)?;
        self.link = self.pool.member(number).next.load(Ordering::Relaxed);
        Some(number)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        while let Some(number) = self.pop() {
            self.pool.give_back(number);
        }
    }
}
