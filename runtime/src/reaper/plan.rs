//! Who is asked to give up how many delegations. Time and counts are arguments; nothing here knows threads or callbacks.
//!
//! Above the limit every client is to keep the same part of what it holds, those that hold most are asked first, and no
//! more clients are asked than it takes. A client is left alone for a [`PAUSE_NS`] after it was asked something, and taken
//! to do it; then its count is looked at again. One that has given up next to nothing is *deaf*: what it was asked to give
//! up is recalled from it one by one, until the limit is kept. The rest are not asked for more on its account.

use crate::keys::ClientId;
use std::cmp::Reverse;
use std::collections::HashMap;

/// Between two requests to one client: the time that it has to choose and to return.
pub(crate) const PAUSE_NS: u64 = 5_000_000_000;
/// Of the budget this part stays in use when room is made: what is asked for is room for the next eighth of it.
const KEPT_EIGHTHS: u64 = 7;
/// Memory pressure: this part of the delegations is to stay.
const PRESSED_EIGHTHS: u64 = 6;
/// How long pressure counts after the kernel has told of it: long enough to see what a request has brought, and to recall
/// what it has not.
const PRESSED_NS: u64 = 2 * PAUSE_NS + PAUSE_NS / 2;
/// A client that has given up less than this part of what it was asked for is deaf.
const HEARD_PART: u64 = 4;

/// What a client holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holding {
    pub client: ClientId,
    pub held: u32,
    /// It has not answered yet what it was asked last.
    pub pending: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// CB_RECALL_ANY: it is to keep so many, which is fewer than it holds.
    Ask { client: ClientId, held: u32, keep: u32 },
    /// It did not heed that: so many are recalled one by one. [`Planner::recalled`] is told how many there were.
    Recall { client: ClientId, held: u32, keep: u32, count: u32 },
}

/// What a client was asked last.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at_ns: u64,
    /// How many it held then.
    held: u32,
    keep: u32,
    deaf: bool,
    /// Recalled from it one by one, and not returned as far as the counts can tell.
    on_recall: u32,
}

impl Asked {
    fn is_in_pause(&self, now_ns: u64) -> bool {
        now_ns < self.at_ns.saturating_add(PAUSE_NS)
    }

    /// Whether what has been given up since is too little to be an answer.
    fn was_ignored(&self, held: u32) -> bool {
        let (asked, given) = (self.held.saturating_sub(self.keep), self.held.saturating_sub(held));
        held > self.keep && u64::from(given) * HEARD_PART < u64::from(asked)
    }
}

/// A number of delegations to come down to for a while, whatever the budget is.
#[derive(Clone, Copy, Debug)]
struct Squeeze {
    keep: u64,
    since_ns: u64,
    until_ns: u64,
    /// Whether what is above is also recalled one by one.
    insists: bool,
}

/// Where the numbers are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Aim {
    /// What clients are asked to come down to, all together.
    goal: u64,
    /// Above this, delegations of deaf clients are recalled.
    limit: u64,
}

/// The part of what it holds that each client is to keep.
#[derive(Clone, Copy, Debug)]
struct Share {
    goal: u64,
    of: u64,
}

impl Share {
    /// Never more than `held`, and less if the goal is less than what it is a part of.
    fn of_what(&self, held: u32) -> u32 {
        if self.goal >= self.of {
            return held;
        }
        (u128::from(held) * u128::from(self.goal) / u128::from(self.of)) as u32
    }
}

/// The delegation reaper's mind.
#[derive(Debug)]
pub(crate) struct Planner {
    /// Delegations that there may be.
    pub budget: u64,
    squeeze: Option<Squeeze>,
    asked: HashMap<ClientId, Asked>,
}

impl Planner {
    pub fn new(budget: u64) -> Self {
        Planner { budget, squeeze: None, asked: HashMap::new() }
    }

    /// There is memory pressure, and `held` delegations in all. Returns how many are to stay. What comes within the pause
    /// is the same pressure: what was asked on its account has had no time to help.
    pub fn press(&mut self, now_ns: u64, held: u64) -> u64 {
        let until_ns = now_ns.saturating_add(PRESSED_NS);
        match &mut self.squeeze {
            Some(now) if now.insists && now_ns < now.since_ns.saturating_add(PAUSE_NS) => {
                now.until_ns = until_ns;
                now.keep
            }
            _ => {
                let keep = eighths(held, PRESSED_EIGHTHS);
                self.squeeze = Some(Squeeze { keep, since_ns: now_ns, until_ns, insists: true });
                keep
            }
        }
    }

    /// Clients are to be asked, once, to keep `keep` in all.
    pub fn come_down(&mut self, now_ns: u64, keep: u64) {
        let pressed = self.squeeze.filter(|s| s.insists && s.until_ns > now_ns && s.keep <= keep);
        let until_ns = now_ns.saturating_add(PAUSE_NS);
        self.squeeze = pressed.or(Some(Squeeze { keep, since_ns: now_ns, until_ns, insists: false }));
    }

    /// Whether there may be something to do later, though nothing new is heard of.
    pub fn is_at_work(&self) -> bool {
        self.budget < u64::MAX || self.squeeze.is_some() || !self.asked.is_empty()
    }

    fn aim(&mut self, now_ns: u64, held: u64, room_wanted: bool) -> Option<Aim> {
        self.squeeze = self.squeeze.filter(|s| s.until_ns > now_ns);
        let mut aim = Aim { goal: u64::MAX, limit: self.budget };
        if held > self.budget || room_wanted {
            aim.goal = eighths(self.budget, KEPT_EIGHTHS);
        }
        if let Some(squeeze) = self.squeeze {
            aim.goal = aim.goal.min(squeeze.keep);
            aim.limit = if squeeze.insists { aim.limit.min(squeeze.keep) } else { aim.limit };
        }
        (held > aim.goal).then_some(aim)
    }

    /// What is to be done now. `room_wanted`: a delegation was refused because there are as many as may be.
    pub fn plan(&mut self, now_ns: u64, room_wanted: bool, holdings: &[Holding]) -> Vec<Order> {
        let held: u64 = holdings.iter().map(|h| u64::from(h.held)).sum();
        let Some(aim) = self.aim(now_ns, held, room_wanted) else {
            self.asked.retain(|_, asked| asked.is_in_pause(now_ns));
            return Vec::new();
        };
        self.look_again(now_ns, holdings);
        let expected: u64 = holdings.iter().map(|h| u64::from(self.expected(h))).sum();
        let share = Share { goal: aim.goal, of: expected };
        let mut orders = Vec::new();
        self.ask(now_ns, &share, holdings, &mut orders);
        if held > aim.limit {
            self.recall(now_ns, &share, holdings, &mut orders);
        }
        orders
    }

    /// How many a client holds when it has done what it was asked before.
    fn expected(&self, holding: &Holding) -> u32 {
        self.asked.get(&holding.client).map_or(holding.held, |asked| asked.keep.min(holding.held))
    }

    /// Judges those whose pause is over, and forgets who has done what it was asked, or is gone.
    fn look_again(&mut self, now_ns: u64, holdings: &[Holding]) {
        let mut before = std::mem::take(&mut self.asked);
        for Holding { client, held, .. } in holdings {
            let Some(mut asked) = before.remove(client) else { continue };
            if !asked.is_in_pause(now_ns) {
                asked.deaf |= asked.was_ignored(*held);
                if *held <= asked.keep {
                    continue;
                }
            }
            self.asked.insert(*client, asked);
        }
    }

    /// Asks for what is too much even if all do what they were asked before; and again those who have done part of it.
    fn ask(&mut self, now_ns: u64, share: &Share, holdings: &[Holding], orders: &mut Vec<Order>) {
        let mut excess = share.of.saturating_sub(share.goal);
        let is_free = |asked: &Asked| !asked.deaf && !asked.is_in_pause(now_ns);
        let may_ask = |h: &&Holding| !h.pending && self.asked.get(&h.client).is_none_or(is_free);
        let mut free: Vec<Holding> = holdings.iter().filter(may_ask).copied().collect();
        free.sort_unstable_by_key(|h| Reverse(h.held));
        for holding in free {
            let Holding { client, held, .. } = holding;
            let before = self.expected(&holding);
            let keep = if excess > 0 { share.of_what(before) } else { before };
            excess = excess.saturating_sub(u64::from(before - keep));
            if keep < held {
                self.asked.insert(client, Asked { at_ns: now_ns, held, keep, deaf: false, on_recall: 0 });
                orders.push(Order::Ask { client, held, keep });
            }
        }
    }

    /// Recalls from the deaf what they were asked to give up, but for what is on recall already.
    fn recall(&mut self, now_ns: u64, share: &Share, holdings: &[Holding], orders: &mut Vec<Order>) {
        for &Holding { client, held, .. } in holdings {
            let Some(asked) = self.asked.get_mut(&client).filter(|a| a.deaf && !a.is_in_pause(now_ns)) else {
                continue;
            };
            asked.on_recall = asked.on_recall.saturating_sub(asked.held.saturating_sub(held));
            asked.keep = share.of_what(asked.keep);
            (asked.held, asked.at_ns) = (held, now_ns);
            let (keep, count) = (asked.keep, held.saturating_sub(asked.keep).saturating_sub(asked.on_recall));
            if count > 0 {
                orders.push(Order::Recall { client, held, keep, count });
            }
        }
    }

    /// So many of what an [`Order::Recall`] was about are on recall.
    pub fn recalled(&mut self, client: ClientId, count: u32) {
        if let Some(asked) = self.asked.get_mut(&client) {
            asked.on_recall = asked.on_recall.saturating_add(count);
        }
    }
}

/// So many eighths of a number, rounded down, without overflow.
fn eighths(of: u64, eighths: u64) -> u64 {
    (u128::from(of) * u128::from(eighths) / 8) as u64
}

#[cfg(test)]
mod tests;
