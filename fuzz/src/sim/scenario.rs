//! The parameters of one simulation, all drawn from its seed.

use super::choices::Choices;
use super::embedder::Manners;
use super::net::{Faults, Quality, Split};
use super::transition::Action;

const MS: u64 = 1_000_000;
const S: u64 = 1000 * MS;

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub reactors: usize,
    pub clients: usize,
    pub slots_min: u64,
    pub slots_max: u64,
    /// Sessions that a client comes with, at most.
    pub sessions_max: u64,
    /// What a client takes in one call, if that is not drawn: bytes, and operations.
    pub call_limits: Option<(u32, u32)>,
    /// Calls that are out to each client at once; 0: any number.
    pub client_calls_max: u32,
    /// Accepted runs after which nothing new happens.
    pub runs_max: u64,
    pub actions_max: u64,
    /// Most of whatever an action does several times.
    pub burst_max: u64,
    pub callbacks_max: u32,
    pub batch_max: u32,
    /// The embedder has completion queues, and looks into them so long after something has come, at most.
    pub queue_delay_ns: Option<u64>,
    pub lease_ns: u64,
    pub run_deadline_ns: u64,
    pub return_deadline_ns: u64,
    pub rpc_timeout_ns: u64,
    /// Fore-channel calls that may wait for an answer, and bytes that may wait to be sent, before receiving pauses.
    pub calls_unanswered_max: usize,
    pub unsent_bytes_max: usize,
    /// Lines that are the embedder's own transports, of a thousand.
    pub transports: u64,
    pub start_ns: u64,
    /// What a turn of a reactor takes at most.
    pub turn_cost_ns: u64,
    /// Mean time between two actions.
    pub gap_ns: u64,
    pub latency_ns_max: u64,
    pub window_bytes_min: u64,
    pub filling_max: u64,
    /// Clients may break the protocol.
    pub may_lie: bool,
    /// Clients that lie rather than behave in another odd way, of a thousand.
    pub liars: u64,
    /// Clients that come with a behaviour of their own, of a thousand.
    pub odd: u64,
    /// How likely each [`Action`] is.
    pub weights: Vec<u64>,
    pub manners: Manners,
    pub faults: Faults,
    /// Allocations that fail, of a thousand.
    pub starve: u64,
    /// Clients that are of minor version 0, of a thousand.
    pub minor0: u64,
    /// Tenants besides the default one.
    pub tenants: usize,
    /// Live upgrades that may be tried, and how often one begins, of a thousand actions.
    pub upgrades: u64,
    pub upgrade_rate: u64,
    /// At the end all is well again, and every run must end without a drain.
    pub heal: bool,
    pub drain_patience_ns: u64,
}

/// Actions for each callback that is to run at least: not every one of them runs a callback.
const ACTIONS_PER_CALLBACK: u64 = 4;

impl Scenario {
    /// The same for longer, until so many callbacks have run; where hardly any can run, not until then.
    pub(crate) fn prolong(&mut self, callbacks: u64) {
        self.runs_max = self.runs_max.max(callbacks);
        self.actions_max = self.actions_max.max(callbacks.saturating_mul(ACTIONS_PER_CALLBACK));
        for (weight, (action, usual)) in self.weights.iter_mut().zip(Action::ALL) {
            if matches!(action, Action::Run | Action::Insert) {
                *weight = usual.max(*weight);
            }
        }
    }

    /// The same with completion queues, perhaps.
    pub(crate) fn draw_queues(&mut self, choices: &mut Choices) {
        self.queue_delay_ns = choices.pick(&[None, None, Some(0), Some(MS / 10), Some(10 * MS)]);
    }

    /// The same with clients of minor version 0, perhaps. What else is drawn does not depend on it.
    pub(crate) fn draw_minor0(&mut self, choices: &Choices) {
        self.minor0 = choices.clone().pick(&[0, 0, 0, 300, 1000]);
    }

    /// The same with tenants, perhaps. What else is drawn does not depend on it.
    pub(crate) fn draw_tenants(&mut self, choices: &Choices) {
        let mut choices = choices.clone();
        choices.next();
        self.tenants = choices.pick(&[0, 0, 0, 1, 3]);
    }

    /// The same with live upgrades, perhaps. What else is drawn does not depend on it.
    pub(crate) fn draw_upgrades(&mut self, choices: &Choices) {
        let mut choices = choices.clone();
        choices.next();
        choices.next();
        self.upgrades = choices.pick(&[0, 0, 0, 2, 12]);
        self.upgrade_rate = 1000 * (self.upgrades + 1) / self.actions_max.min(400);
    }

    /// The same with clients most of which lie.
    pub(crate) fn turn_hostile(&mut self) {
        (self.may_lie, self.liars, self.odd) = (true, 800, 800);
    }

    /// One that is over in a millisecond or two, whose clients are odd more often.
    pub(crate) fn draw_small(choices: &mut Choices) -> Scenario {
        let mut small = Scenario::draw(choices);
        small.clients = small.clients.min(2);
        small.slots_max = small.slots_max.min(4);
        small.callbacks_max = small.callbacks_max.min(40);
        (small.runs_max, small.actions_max, small.burst_max) = (60, 40, 4);
        small.filling_max = small.filling_max.min(600);
        small.weights = Action::ALL.iter().map(|(_, usual)| 1 + usual / 4).collect();
        (small.liars, small.odd) = (choices.pick(&[0, 0, 0, 800]), choices.pick(&[0, 300, 800]));
        small.may_lie |= small.liars > 0;
        (small.upgrades, small.upgrade_rate) = (choices.pick(&[0, 0, 0, 3]), 100);
        small
    }

    pub(crate) fn draw(choices: &mut Choices) -> Scenario {
        let lease_ns = choices.pick(&[1, 2, 5, 20, 90]) * S;
        let run_deadline_ns = choices.pick(&[lease_ns / 4, lease_ns, lease_ns, 3 * lease_ns]);
        let rpc_timeout_ns = choices.pick(&[50 * MS, S, (lease_ns / 10).max(S), (lease_ns / 10).max(S)]);
        let clients = choices.pick(&[1, 1, 2, 3, 5, 8]);
        // Near the place where a clock of 32 bits and microseconds wraps, or anywhere.
        let start_ns = choices.pick(&[0, (1 << 32) * 1000 - lease_ns, choices.clone().below(1 << 50)]);
        let latency_ns_max = choices.log_between(10_000, S);
        // Things happen while others are under way: at the pace of the network, more or less.
        let gap_ns = choices.log_between(1 + latency_ns_max / 32, 1000 + 4 * latency_ns_max);
        let callbacks_max = choices.log_between(1, 4000) as u32;
        let rare =
            |choices: &mut Choices, max: u64| if choices.below(3) == 0 { choices.log_between(1, max) } else { 0 };
        Scenario {
            reactors: choices.pick(&[1, 2, 2, 3]),
            clients,
            slots_min: 1,
            sessions_max: 2,
            call_limits: None,
            client_calls_max: 0,
            slots_max: choices.pick(&[1, 2, 4, 16, 64]),
            runs_max: choices.log_between(50, 8000),
            actions_max: choices.log_between(50, 2000),
            burst_max: u64::MAX,
            callbacks_max,
            batch_max: choices.pick(&[1, 2, 16, 16, 64]),
            queue_delay_ns: None,
            lease_ns,
            run_deadline_ns,
            return_deadline_ns: choices.pick(&[lease_ns / 4, lease_ns, 3 * lease_ns]),
            rpc_timeout_ns,
            calls_unanswered_max: choices.log_between(1, 256) as usize,
            unsent_bytes_max: choices.log_between(4096, 1 << 20) as usize,
            transports: choices.pick(&[0, 0, 200]),
            start_ns,
            turn_cost_ns: choices.pick(&[0, 1000, 200_000]),
            gap_ns,
            latency_ns_max,
            window_bytes_min: 1,
            filling_max: choices.pick(&[0, 0, 40, 100, 100, 300, 300, 600, 5000]),
            may_lie: choices.below(3) == 0,
            liars: 0,
            odd: choices.pick(&[0, 0, 200, 500]),
            weights: Action::ALL.iter().map(|(_, weight)| weight * choices.pick(&[0, 1, 1, 2, 5])).collect(),
            manners: Manners {
                refuse: rare(choices, 300),
                encode_fails: rare(choices, 100),
                again: rare(choices, 500),
                meddle: rare(choices, 300),
                stumble: rare(choices, 100),
                refer: rare(choices, 500),
            },
            faults: Faults {
                send_refused: rare(choices, 500),
                every_nth: if choices.below(4) == 0 { choices.between(2, 200) } else { 0 },
                attach_failed: rare(choices, 100),
                send_partial: rare(choices, 500),
                ..Faults::none()
            },
            starve: rare(choices, 900),
            minor0: 0,
            tenants: 0,
            upgrades: 0,
            upgrade_rate: 0,
            heal: choices.below(2) == 0,
            drain_patience_ns: choices.pick(&[0, MS, S, lease_ns, 10 * lease_ns]),
        }
    }

    /// How a new line carries bytes.
    pub(crate) fn quality(&self, choices: &mut Choices) -> Quality {
        Quality {
            latency_ns: choices.log_between(1, self.latency_ns_max),
            jitter_ns: choices.below(self.latency_ns_max),
            split: match choices.below(8) {
                0 => Split::Every,
                1..=3 => Split::Whole,
                _ => Split::Anywhere,
            },
            window_bytes: choices.log_between(self.window_bytes_min, 1 << 18) as usize,
        }
    }

    /// A line without a fault.
    pub(crate) fn perfect() -> Quality {
        Quality { latency_ns: 1000, jitter_ns: 0, split: Split::Whole, window_bytes: 1 << 20 }
    }
}
