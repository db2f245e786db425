//! Queues of runs, linked through the driver's entries ([`Host::link`]): they need no memory and cannot overflow.

use super::config::Config;
use super::host::{Class, Host, Token};

/// Granularity of delays: they end at a multiple of this time.
pub const TIMER_GRAIN_NS: u64 = 50_000_000;

const BUCKETS: u64 = 128;
/// Longest time ahead that the wheel can hold.
pub(super) const WHEEL_SPAN_NS: u64 = (BUCKETS - 2) * TIMER_GRAIN_NS;

/// A first-in, first-out queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    /// Both mean something only while it is not empty.
    head: Token,
    tail: Token,
    len: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Queue { head: Token(0), tail: Token(0), len: 0 }
    }
}

impl Queue {
    /// What is linked already, `len` tokens from `head` to `tail`.
    pub fn linked(head: Token, tail: Token, len: u32) -> Self {
        Queue { head, tail, len }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn head(&self) -> Option<Token> {
        (self.len > 0).then_some(self.head)
    }

    /// Shows what is in it, from its head on.
    pub fn each<H: Host>(&self, host: &H, mut show: impl FnMut(Token)) {
        let mut rest = *self;
        while let Some(token) = rest.pop(host) {
            show(token);
        }
    }

    /// Puts all of `runs` behind those that are in it.
    #[inline]
    pub fn append<H: Host>(&mut self, runs: Queue, host: &mut H) {
        if self.len == 0 {
            *self = runs;
        } else if runs.len > 0 {
            host.set_link(self.tail, Some(runs.head));
            self.tail = runs.tail;
            self.len += runs.len;
        }
    }

    #[inline]
    pub fn push_back<H: Host>(&mut self, token: Token, host: &mut H) {
        self.append(Queue::linked(token, token, 1), host);
    }

    pub fn push_front<H: Host>(&mut self, token: Token, host: &mut H) {
        if self.len == 0 {
            self.tail = token;
        } else {
            host.set_link(token, Some(self.head));
        }
        self.head = token;
        self.len += 1;
    }

    #[inline(always)]
    pub fn pop<H: Host>(&mut self, host: &H) -> Option<Token> {
        self.len = self.len.checked_sub(1)?;
        let head = self.head;
        // The tail's own link is never written or looked at.
        if self.len > 0 {
            let Some(next) = host.link(head) else {
                unreachable!("{} more are queued behind {head:?}, which is linked to none", self.len)
            };
            self.head = next;
        }
        Some(head)
    }

    /// Moves all that are `wanted` to the end of `to`. Walks the queue. How many those were.
    pub fn extract<H: Host>(
        &mut self,
        wanted: &mut impl FnMut(&H, Token) -> bool,
        to: &mut Queue,
        host: &mut H,
    ) -> u64 {
        let (mut whole, before) = (core::mem::take(self), to.len);
        while let Some(token) = whole.pop(host) {
            let queue = if wanted(host, token) { &mut *to } else { &mut *self };
            queue.push_back(token, host);
        }
        u64::from(to.len - before)
    }
}

fn floors(config: &Config) -> [u8; Class::COUNT] {
    [0, config.recalls_passed_over_max, config.background_passed_over_max]
}

/// The runs that wait to be sent, by class; within a class, those that were sent before apart from the fresh ones, and
/// the two take turns. Each of the six is in the order of the runs' start, or nearly so: that is why their deadlines
/// are looked at only at the heads. A run that stands behind a younger one ends late: when that one does, at the latest.
#[derive(Debug)]
pub(super) struct Classes {
    fresh: [Queue; Class::COUNT],
    again: [Queue; Class::COUNT],
    len: u64,
    /// The class that was served last.
    served: Class,
    again_next: bool,
    passed_over: [u8; Class::COUNT],
    /// How often a class may be passed over by a higher one while it has work: the floor of recalls and of the background.
    passed_over_max: [u8; Class::COUNT],
    /// No run in these queues has an earlier deadline.
    pub deadline_bound_ns: u64,
}

impl Classes {
    pub fn new(config: &Config) -> Self {
        Classes {
            fresh: Default::default(),
            again: Default::default(),
            len: 0,
            served: Class::Recall,
            again_next: false,
            passed_over: [0; Class::COUNT],
            passed_over_max: floors(config),
            deadline_bound_ns: u64::MAX,
        }
    }

    /// Other settings; deadlines are looked at anew.
    pub fn tune(&mut self, config: &Config) {
        self.passed_over_max = floors(config);
        self.deadline_bound_ns = 0;
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Shows what is in them.
    pub fn each<H: Host>(&self, host: &H, mut show: impl FnMut(Token)) {
        self.each_fresh(host, &mut show);
        self.each_again(host, show);
    }

    /// Shows what was never put back.
    pub fn each_fresh<H: Host>(&self, host: &H, mut show: impl FnMut(Token)) {
        self.fresh.iter().for_each(|queue| queue.each(host, &mut show));
    }

    /// Shows what was put back.
    pub fn each_again<H: Host>(&self, host: &H, mut show: impl FnMut(Token)) {
        self.again.iter().for_each(|queue| queue.each(host, &mut show));
    }

    /// Whose turn it is: whether a run that was put back is next, and how often each class was passed over.
    pub fn turns(&self) -> (bool, [u8; Class::COUNT]) {
        (self.again_next, self.passed_over)
    }

    /// Sets [`turns`](Classes::turns).
    pub fn set_turns(&mut self, again_next: bool, passed_over: [u8; Class::COUNT]) {
        (self.again_next, self.passed_over) = (again_next, passed_over);
    }

    /// Puts a run behind all others of its class that were put back.
    pub fn push_last_again<H: Host>(&mut self, token: Token, deadline_ns: u64, host: &mut H) {
        self.deadline_bound_ns = self.deadline_bound_ns.min(deadline_ns);
        self.again[Class::of(host.op(token)) as usize].push_back(token, host);
        self.len += 1;
    }

    /// Puts runs of one class that have come in behind all others of it. The deadline is that of the first.
    #[inline]
    pub fn push_fresh<H: Host>(&mut self, runs: Queue, deadline_ns: u64, host: &mut H) {
        let queue = &mut self.fresh[Class::of(host.op(runs.head)) as usize];
        if queue.is_empty() {
            self.deadline_bound_ns = self.deadline_bound_ns.min(deadline_ns);
        }
        queue.append(runs, host);
        self.len += u64::from(runs.len);
    }

    /// Puts a run back: ahead of all others of its class that were put back, or behind them if the first of those is
    /// older. Younger runs that come one after the other can so not keep an old one from the head for ever.
    pub fn push_again<H: Host>(&mut self, token: Token, deadline_ns: u64, host: &mut H) {
        self.deadline_bound_ns = self.deadline_bound_ns.min(deadline_ns);
        let queue = &mut self.again[Class::of(host.op(token)) as usize];
        if queue.head().is_some_and(|head| host.started_ns(head) < host.started_ns(token)) {
            queue.push_back(token, host)
        } else {
            queue.push_front(token, host)
        }
        self.len += 1;
    }

    /// The next run to send.
    #[inline(always)]
    pub fn pop<H: Host>(&mut self, host: &H) -> Option<Token> {
        // Most often all are fresh and of the class that was served last, which leaves nothing to pick.
        let queue = &mut self.fresh[self.served as usize];
        if u64::from(queue.len) == self.len {
            let token = queue.pop(host)?;
            (self.again_next, self.passed_over) = (true, [0; Class::COUNT]);
            self.len -= 1;
            return Some(token);
        }
        self.pop_picked(host)
    }

    fn pop_picked<H: Host>(&mut self, host: &H) -> Option<Token> {
        let class = self.pick()?;
        self.pop_class(class, host)
    }

    /// The next run to send, if it is a `wanted` one. Else it stays the next one.
    pub fn pop_if<H: Host>(&mut self, host: &H, wanted: impl FnOnce(&H, Token) -> bool) -> Option<Token> {
        let passed_over = self.passed_over;
        let class = self.pick()?;
        let queue = if self.takes_again(class) { &self.again[class] } else { &self.fresh[class] };
        if queue.head().is_some_and(|head| wanted(host, head)) {
            return self.pop_class(class, host);
        }
        self.passed_over = passed_over;
        None
    }

    /// Whether the next run of a class is one that was sent before.
    fn takes_again(&self, class: usize) -> bool {
        !self.again[class].is_empty() && (self.again_next || self.fresh[class].is_empty())
    }

    fn pop_class<H: Host>(&mut self, class: usize, host: &H) -> Option<Token> {
        self.served = Class::ALL[class];
        let from_again = self.takes_again(class);
        self.again_next = !from_again;
        let queue = if from_again { &mut self.again[class] } else { &mut self.fresh[class] };
        let token = queue.pop(host);
        self.len -= u64::from(token.is_some());
        token
    }

    fn has(&self, class: usize) -> bool {
        !self.fresh[class].is_empty() || !self.again[class].is_empty()
    }

    /// The highest class with work, unless a lower one has been passed over too often.
    fn pick(&mut self) -> Option<usize> {
        let first = (0..Class::COUNT).find(|&class| self.has(class))?;
        let mut pick = first;
        for (class, most) in self.passed_over_max.iter().enumerate().skip(first + 1) {
            if !self.has(class) {
                self.passed_over[class] = 0;
            } else if self.passed_over[class] >= *most {
                pick = class;
            } else {
                self.passed_over[class] += 1;
            }
        }
        self.passed_over[pick] = 0;
        Some(pick)
    }

    /// Any run, for ending all of them.
    pub fn pop_any<H: Host>(&mut self, host: &H) -> Option<Token> {
        let token = self.fresh.iter_mut().chain(&mut self.again).find_map(|queue| queue.pop(host));
        self.len -= u64::from(token.is_some());
        token
    }

    /// A run at a head whose deadline has passed, by `deadline_ns`. `None` sets the bound anew.
    pub fn pop_expired<H: Host>(
        &mut self,
        now_ns: u64,
        host: &H,
        deadline_ns: impl Fn(&H, Token) -> u64,
    ) -> Option<Token> {
        let mut bound = u64::MAX;
        for queue in self.fresh.iter_mut().chain(&mut self.again) {
            let Some(head) = queue.head() else { continue };
            let deadline = deadline_ns(host, head);
            if deadline <= now_ns {
                self.len -= 1;
                return queue.pop(host);
            }
            bound = bound.min(deadline);
        }
        self.deadline_bound_ns = bound;
        None
    }

    /// Moves all that are `wanted` to `to`. Walks the queues.
    pub fn extract<H: Host>(&mut self, wanted: &mut impl FnMut(&H, Token) -> bool, to: &mut Queue, host: &mut H) {
        for queue in self.fresh.iter_mut().chain(&mut self.again) {
            self.len -= queue.extract(wanted, to, host);
        }
    }
}

/// The runs that wait for a delay to pass: one queue for each of the next [`BUCKETS`] ticks, so that a run needs no
/// time stamp of its own.
#[derive(Debug)]
pub(super) struct Wheel {
    buckets: Box<[Queue]>,
    occupied: u128,
    /// Nothing is due up to this tick.
    tick: u64,
    random: u64,
    len: u64,
}

impl Wheel {
    pub fn new(seed: u64) -> Self {
        let buckets = vec![Queue::default(); BUCKETS as usize].into_boxed_slice();
        Wheel { buckets, occupied: 0, tick: 0, random: seed | 1, len: 0 }
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// Shows what is in it.
    pub fn each<H: Host>(&self, host: &H, mut show: impl FnMut(Token)) {
        self.buckets.iter().for_each(|queue| queue.each(host, &mut show));
    }

    /// Shows what is in it, and when each is due.
    pub fn each_due<H: Host>(&self, host: &H, mut show: impl FnMut(Token, u64)) {
        for ahead in 1..=BUCKETS {
            let tick = self.tick + ahead;
            self.buckets[(tick % BUCKETS) as usize].each(host, |token| show(token, tick * TIMER_GRAIN_NS));
        }
    }

    /// No run is kept for longer.
    pub const fn span_ns() -> u64 {
        BUCKETS * TIMER_GRAIN_NS
    }

    /// The state of the jitter.
    pub fn random(&self) -> u64 {
        self.random
    }

    /// Sets [`random`](Wheel::random), which is never 0.
    pub fn set_random(&mut self, random: u64) {
        self.random = random.max(1);
    }

    /// Keeps a run until `due_ns`, or as long as the wheel can.
    pub fn insert<H: Host>(&mut self, now_ns: u64, due_ns: u64, token: Token, host: &mut H) {
        // As far as the present, unless what is due by then has still to be emptied: a wheel that lags behind would not
        // reach as far ahead.
        let now_tick = now_ns / TIMER_GRAIN_NS;
        if self.next_tick().is_none_or(|next| next > now_tick) {
            self.tick = self.tick.max(now_tick);
        }
        let tick = due_ns.div_ceil(TIMER_GRAIN_NS).clamp(self.tick + 1, self.tick + BUCKETS - 1);
        let index = tick % BUCKETS;
        self.buckets[index as usize].push_back(token, host);
        self.occupied |= 1 << index;
        self.len += 1;
    }

    fn next_tick(&self) -> Option<u64> {
        if self.occupied == 0 {
            return None;
        }
        let from = self.tick + 1;
        let ahead = self.occupied.rotate_right((from % BUCKETS) as u32).trailing_zeros();
        Some(from + u64::from(ahead))
    }

    /// When the next run is due.
    pub fn next_due_ns(&self) -> Option<u64> {
        self.next_tick().map(|tick| tick * TIMER_GRAIN_NS)
    }

    /// A run whose time has come.
    pub fn pop_due<H: Host>(&mut self, now_ns: u64, host: &H) -> Option<Token> {
        let tick = self.next_tick().filter(|tick| tick * TIMER_GRAIN_NS <= now_ns)?;
        // One short of the tick while its bucket is being emptied, so that it is found again.
        self.tick = tick - 1;
        self.pop_bucket(tick % BUCKETS, host)
    }

    /// Any run, for ending all of them.
    pub fn pop_any<H: Host>(&mut self, host: &H) -> Option<Token> {
        let tick = self.next_tick()?;
        self.pop_bucket(tick % BUCKETS, host)
    }

    fn pop_bucket<H: Host>(&mut self, index: u64, host: &H) -> Option<Token> {
        let queue = &mut self.buckets[index as usize];
        let token = queue.pop(host);
        if queue.is_empty() {
            self.occupied &= !(1 << index);
        }
        self.len -= u64::from(token.is_some());
        token
    }

    /// Moves all that are `wanted` to `to`. Walks the wheel.
    pub fn extract<H: Host>(&mut self, wanted: &mut impl FnMut(&H, Token) -> bool, to: &mut Queue, host: &mut H) {
        for (index, queue) in self.buckets.iter_mut().enumerate() {
            self.len -= queue.extract(wanted, to, host);
            if queue.is_empty() {
                self.occupied &= !(1 << index);
            }
        }
    }

    /// `delay_ns` and up to an eighth more, so that what was refused together does not come back together.
    pub fn jitter(&mut self, delay_ns: u64) -> u64 {
        // xorshift64: any spread will do, and the same seed must give the same run.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        delay_ns + self.random % (delay_ns / 8 + 1)
    }
}
