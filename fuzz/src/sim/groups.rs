//! The checker of groups: each is settled once, when the last of its members has come to its end and no earlier; what it
//! says adds up, and is what became of them. A group that was dropped is nobody's concern.

use super::coverage::Kind;
use super::journal::{Journal, Rule};
use super::plant::{Plant, Planted};
use super::waiters::Alarm;
use ringback::{Group, GroupSettled, TryRun};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// What becomes of a member, in the order in which they are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Returned,
    Overdue,
    Failed,
}

/// A member, as far as the model knows.
#[derive(Clone, Copy, Debug, Default)]
struct Member {
    /// What may have become of it: a bit for each [`Fate`]. 0: it is waited for.
    may: u8,
    /// It has come to its end for sure, so that nothing that happens to its callback later is about it.
    surely: bool,
}

#[derive(Default)]
struct Waiting {
    /// `None`: it is being made.
    group: Option<Group>,
    /// It is a future that somebody polls; else it is looked at now and then.
    alarm: Option<Arc<Alarm>>,
    /// It has been polled in vain, so that somebody must be woken.
    asleep: bool,
    members: Vec<Member>,
    /// Members that may not have come to their end.
    unsure: usize,
}

/// One that was settled: it stays what it was.
struct Told {
    group: Group,
    alarm: Option<Arc<Alarm>>,
    /// Somebody slept, and was woken.
    slept: bool,
    settled: [u32; 3],
}

/// Groups that were settled and are still looked at.
const TOLD_MAX: usize = 32;

/// See the [module](self).
pub(crate) struct Groups {
    journal: Journal,
    planted: Planted,
    begun: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// By the cookie of a callback the members that wait for it, each in the group of that number.
    waits: HashMap<usize, Vec<(u64, usize)>>,
    told: Vec<Told>,
}

fn counts(settled: GroupSettled) -> [u32; 3] {
    [settled.returned, settled.overdue, settled.failed]
}

impl Waiting {
    /// What it says, if that can be known: who sleeps is to be woken.
    fn says(&mut self, muffled: bool) -> Option<[u32; 3]> {
        let group = self.group.as_mut()?;
        let Some(alarm) = &self.alarm else { return group.settled().map(counts) };
        if self.asleep && alarm.rings() == 0 {
            return None;
        }
        let waker = if muffled { Waker::noop().clone() } else { Waker::from(Arc::clone(alarm)) };
        match Pin::new(group).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(settled) => Some(counts(settled)),
            Poll::Pending => {
                self.asleep = true;
                None
            }
        }
    }

    /// Why it cannot say that.
    fn objection(&self, settled: [u32; 3]) -> Option<&'static str> {
        if settled.iter().sum::<u32>() as usize != self.members.len() {
            return Some("it does not count each member once");
        }
        if self.members.iter().any(|member| member.may == 0) {
            return Some("a member has not come to its end");
        }
        // As many members as can only have met with one of some fates are counted among these, for each set of fates
        // (P. Hall's condition).
        let too_few = (1..8_u8).any(|fates| {
            let only = self.members.iter().filter(|member| member.may & !fates == 0).count();
            let counted: u32 = (0..3).filter(|fate| fates & 1 << fate != 0).map(|fate| settled[fate]).sum();
            only > counted as usize
        });
        too_few.then_some("that did not become of its members")
    }
}

impl Groups {
    pub(crate) fn new(journal: Journal, plant: Plant) -> Self {
        let (begun, waiting, waits, told) = Default::default();
        Groups { journal, planted: Planted::new(plant), begun, waiting, waits, told }
    }

    /// A group is being made.
    pub(crate) fn begin(&mut self) {
        self.begun += 1;
        self.waiting.insert(self.begun, Waiting::default());
    }

    /// A callback with this cookie joins it, or with `None` a key that was never given out; `asked`: what became of the
    /// request.
    pub(crate) fn join(&mut self, cookie: Option<usize>, asked: TryRun) {
        let Some(waiting) = self.waiting.get_mut(&self.begun) else { return };
        let member = match (cookie, asked) {
            (Some(cookie), TryRun::Submitted | TryRun::Coalesced | TryRun::Rearmed | TryRun::Closed) => {
                self.waits.entry(cookie).or_default().push((self.begun, waiting.members.len()));
                waiting.unsure += 1;
                Member::default()
            }
            // It is gone, or as good as gone.
            _ => Member { may: 1 << Fate::Returned as u8, surely: true },
        };
        waiting.members.push(member);
    }

    /// It is made. With `polls`, somebody sleeps until it is settled.
    pub(crate) fn made(&mut self, group: Group, polls: bool) {
        if let Some(waiting) = self.waiting.get_mut(&self.begun) {
            (waiting.group, waiting.alarm) = (Some(group), polls.then(Arc::default));
        }
    }

    /// A callback comes to one of these ends for the members that wait for it; with `surely` unset, perhaps.
    pub(crate) fn end(&mut self, cookie: usize, fates: &[Fate], surely: bool) {
        let Some(waits) = self.waits.get(&cookie) else { return };
        for (group, at) in waits {
            // Of a group that was dropped nothing is known.
            let Some(waiting) = self.waiting.get_mut(group) else { continue };
            let member = &mut waiting.members[*at];
            member.may |= fates.iter().map(|fate| 1 << *fate as u8).sum::<u8>();
            member.surely = surely;
            waiting.unsure -= usize::from(surely);
        }
        if surely {
            self.waits.remove(&cookie);
        }
    }

    /// Whether no group waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What the last one said that was settled: how many were returned, overdue and failed.
    pub(crate) fn told_last(&self) -> Option<[u32; 3]> {
        self.told.last().map(|told| told.settled)
    }

    /// The process is gone, and all of them with it.
    pub(crate) fn forget(&mut self) {
        self.waiting.clear();
        self.waits.clear();
        self.told.clear();
    }

    /// The embedder drops one, if there are so many.
    pub(crate) fn give_up(&mut self, at: usize) {
        if let Some(group) = self.waiting.keys().nth(at).copied() {
            self.journal.reach(Kind::GroupLeft);
            self.waiting.remove(&group);
        }
    }

    /// Looks at every group that waits. Not while something is under way that settles them.
    pub(crate) fn look(&mut self) {
        let (journal, planted, told) = (&self.journal, &self.planted, &mut self.told);
        let muffled = planted.plant == Plant::MuffleGroup;
        self.waiting.retain(|number, waiting| {
            let mut said = waiting.says(muffled);
            if said.is_none() && waiting.unsure > 0 && planted.strikes(Plant::HastenGroup) {
                said = Some([waiting.members.len() as u32, 0, 0]);
            }
            let Some(mut settled) = said else {
                journal.check(Rule::Groups, waiting.unsure > 0, || {
                    let asleep = waiting.asleep;
                    format!("group {number} (asleep: {asleep}) is not settled: {:?}", waiting.members)
                });
                return true;
            };
            if settled[0] > 0 && planted.strikes(Plant::TwistGroup) {
                settled = [settled[0] - 1, settled[1], settled[2] + 1];
            }
            journal.note(|| format!("  group {number} is settled: {settled:?}"), 32);
            let kinds = [Kind::GroupReturned, Kind::GroupOverdue, Kind::GroupFailed];
            kinds.into_iter().zip(settled).filter(|(_, n)| *n > 0).for_each(|(kind, _)| journal.reach(kind));
            let objection = waiting.objection(settled);
            journal.check(Rule::Groups, objection.is_none(), || {
                format!("group {number} says {settled:?}, and {objection:?}: {:?}", waiting.members)
            });
            if let Some(group) = waiting.group.take() {
                told.push(Told { group, alarm: waiting.alarm.take(), slept: waiting.asleep, settled });
            }
            false
        });
        self.look_again();
    }

    /// What was settled stays settled, and nobody is woken for it again.
    fn look_again(&mut self) {
        for told in &self.told {
            let again = told.group.settled().map(counts);
            let rings = told.alarm.as_ref().map_or(0, |alarm| alarm.rings());
            let same = again == Some(told.settled) && rings == u32::from(told.slept);
            self.journal.check(Rule::Groups, same, || {
                format!("a group that was settled as {:?} says {again:?}, and has woken {rings} times", told.settled)
            });
        }
        let old = self.told.len().saturating_sub(TOLD_MAX);
        self.told.drain(..old);
    }
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.waiting.iter().map(|(number, waiting)| (number, &waiting.members))).finish()
    }
}
