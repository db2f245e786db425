//! The world of one simulation: reactors, clients and lines, stepped one at a time in one thread on a virtual clock.

mod ending;
mod handover;
mod story;

pub use story::Story;

use super::choices::Choices;
use super::client::{Client, Deeds};
use super::coverage::Kind;
use super::embedder::Embedder;
use super::fore::Fore;
use super::handover::Side;
use super::io::{Bell, SimIo};
use super::journal::{Journal, Rule};
use super::net::dial::CONNECTS_MAX;
use super::net::{LineId, Net};
use super::plant::Plant;
use super::process::Process;
use super::reference::Reference;
use super::scenario::Scenario;
use super::transport::Carrier;
use super::wire::Wire;
use super::work::Work;
use handover::Handover;
use ringback::simulator::{Drain, ReactorHandle, Simulation, Wait};
use ringback::{Builder, Census, ClientLimits, ConnectionId, SessionKey};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const S: u64 = 1_000_000_000;

/// A reactor, and where it is in its turn.
struct Desk {
    handle: ReactorHandle<SimIo>,
    bell: Arc<Bell>,
    /// `None`: not asleep.
    parked: Option<Wait>,
    /// Which it is on the net.
    number: usize,
}

/// A drain of a client or of a session.
pub(crate) struct PartDrain {
    pub drain: Drain,
    /// Its number in the model.
    pub number: u64,
    pub client: usize,
    pub session: Option<SessionKey>,
    pub deadline_ns: u64,
}

/// Reactors that do not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Office {
    /// Of the next process.
    Next,
    /// Of the one that has let go.
    Leaving,
}

/// Who can do something now.
#[derive(Clone, Copy, Debug)]
enum Actor {
    Reactor(usize),
    /// A reactor of a process that does not serve yet, or does not any more.
    Waiting(Office, usize),
    /// A process of an upgrade.
    Party(Side),
    Client(usize),
    Carrier(usize),
    Action,
    /// The embedder's thread that looks into the completion queues.
    Queues,
}

/// See the [module](self).
pub(crate) struct World {
    pub journal: Journal,
    pub choices: Choices,
    pub scenario: Scenario,
    pub net: Rc<RefCell<Net>>,
    pub embedder: Arc<Embedder>,
    pub fore: Arc<Fore>,
    /// Lines that are the embedder's own transports.
    pub carriers: Vec<Carrier>,
    /// Drains of clients and sessions under way.
    pub drains: Vec<PartDrain>,
    pub clients: Vec<Client>,
    pub connections: HashMap<LineId, ConnectionId>,
    pub wire: Wire,
    /// Principals given out so far.
    pub principals: u32,
    pub turns: u64,
    pub steps: u64,
    work: Work,
    desks: Vec<Desk>,
    plant: Plant,
    /// When the next action is due; `None`: nothing happens any more.
    action_ns: Option<u64>,
    actions: u64,
    /// When the embedder looks into its completion queues.
    queues_ns: Option<u64>,
    /// Allocations do not fail any more.
    fed: Arc<AtomicBool>,
    deeds: Deeds,
    /// Decides about upgrades.
    upgrades: Choices,
    /// Upgrades to come, the one under way, and the processes that there were.
    handovers: u64,
    handover: Option<Handover>,
    processes: usize,
    /// The process that served has crashed.
    is_dead: bool,
}

impl Desk {
    fn is_awake(&mut self, now_ns: u64, net: &Net) -> bool {
        if self.handle.is_still() {
            return self.handle.has_orders();
        }
        let woken = match self.parked {
            None | Some(Wait::No) => true,
            Some(Wait::Until(until)) => until <= now_ns,
            Some(Wait::Forever) => false,
        };
        woken || self.bell.is_rung() || net.is_awake(self.number)
    }
}

impl World {
    /// `None`: the settings were refused, which is a failure.
    pub(crate) fn new(mut choices: Choices, scenario: Scenario, plant: Plant, journal: Journal) -> Option<World> {
        let net = Net::new(journal.clone(), choices.fork(), scenario.faults.clone());
        let net = Rc::new(RefCell::new(net));
        let reference = Reference::new(journal.clone(), &scenario, plant, choices.fork());
        let fore = Arc::new(Fore::new(journal.clone(), plant));
        let embedder = Embedder::new(journal.clone(), reference, scenario.manners, plant, Arc::clone(&fore));
        let embedder = Arc::new(embedder);
        let bells: Vec<_> = (0..scenario.reactors).map(|_| Arc::new(Bell::new(plant == Plant::MuffleBell))).collect();
        let back_end = |(reactor, bell): (usize, &Arc<Bell>)| {
            SimIo::new(reactor, Rc::clone(&net), Arc::clone(bell), journal.clone(), choices.fork(), plant)
        };
        let ios = bells.iter().enumerate().map(back_end).collect();
        let fed = Arc::new(AtomicBool::new(false));
        let gate = gate(&mut choices, &scenario, &embedder, &fed, &journal);
        let process =
            Process { number: 0, journal: journal.clone(), embedder: Arc::clone(&embedder), fore: Arc::clone(&fore) };
        let process = Arc::new(process);
        let calls = Arc::clone(&process);
        let mut simulation = match Simulation::new(builder(&scenario, plant), gate, process, calls, ios) {
            Ok(simulation) => simulation,
            Err(e) => {
                journal.fail(Rule::Answer, format!("{e}: {scenario:?}"));
                return None;
            }
        };
        for reactor in &mut simulation.reactors {
            reactor.set_memory_gate(memory_gate(&mut choices, &scenario, &fed, &journal));
        }
        fore.set_runtime(Some(simulation.runtime.clone()));
        embedder.set_runtime(Some(simulation.runtime));
        let desks = simulation.reactors.into_iter().zip(bells).enumerate();
        let upgrades = upgrades_of(&choices);
        let (clients, connections, carriers, drains, deeds) = Default::default();
        let (principals, turns, steps, actions) = (0, 0, 0, 0);
        Some(World {
            action_ns: Some(journal.now_ns()),
            wire: Wire::new(journal.clone()),
            work: Work::new(journal.clone(), scenario.reactors),
            desks: desks.map(|(number, (handle, bell))| Desk { handle, bell, parked: None, number }).collect(),
            journal,
            choices,
            handovers: scenario.upgrades,
            scenario,
            net,
            embedder,
            fore,
            clients,
            connections,
            carriers,
            drains,
            principals,
            turns,
            steps,
            plant,
            actions,
            queues_ns: None,
            fed,
            deeds,
            upgrades,
            handover: None,
            processes: 0,
            is_dead: false,
        })
    }

    /// The whole story.
    pub(crate) fn play(&mut self) {
        self.add_tenants();
        for _ in 0..self.scenario.clients {
            if let Some(client) = self.add_client() {
                let count = self.burst(256);
                self.insert(client, count);
            }
        }
        self.run_until(u64::MAX, |world| world.action_ns.is_none() && world.handover.is_none());
        if self.is_dead {
            return self.bury();
        }
        if self.scenario.heal && !self.journal.has_failed() {
            self.heal();
        }
        if !self.journal.has_failed() {
            self.drain();
        }
        if !self.journal.has_failed() {
            self.stop();
        }
    }

    // --- one step after the other --------------------------------------------------------------------------------

    /// Goes on until `is_over`, or until the clock is past `until_ns`. Whether it is over.
    fn run_until(&mut self, until_ns: u64, is_over: impl Fn(&mut World) -> bool) -> bool {
        loop {
            if is_over(self) {
                return true;
            }
            if self.journal.has_failed() || self.journal.now_ns() > until_ns || !self.step(until_ns) {
                return false;
            }
        }
    }

    /// One step of somebody who can do something, or else time passes. `false`: nothing will ever happen.
    fn step(&mut self, until_ns: u64) -> bool {
        self.steps += 1;
        let ready = self.ready();
        match self.choices.any(&ready) {
            Some(Actor::Reactor(at)) => self.turn(*at),
            Some(Actor::Waiting(office, at)) => self.turn_waiting(*office, *at),
            Some(Actor::Party(side)) => self.take_step(*side),
            Some(Actor::Client(at)) => self.client(*at),
            Some(Actor::Carrier(at)) => {
                let runtime = self.embedder.runtime();
                self.carriers[*at].step(runtime.as_ref(), &mut self.net.borrow_mut());
                self.listen();
                self.carriers.retain(|c| !c.is_over());
            }
            Some(Actor::Action) => self.action(),
            Some(Actor::Queues) => {
                let limit = self.choices.log_between(1, 64) as usize;
                self.queues_ns = None;
                // Once more, to give back what was taken.
                if self.embedder.look_into_queues(limit) {
                    self.look_later();
                }
            }
            None => {
                let next_ns = self.next_due_ns().filter(|at| *at <= until_ns);
                let limit_ns = || (until_ns < u64::MAX).then(|| until_ns + 1);
                let Some(next_ns) = next_ns.or_else(limit_ns) else { return false };
                let stuck = next_ns <= self.journal.now_ns();
                self.journal
                    .check(Rule::Seam, !stuck, || format!("something was due at {next_ns}, and nobody does it"));
                // A clock never shows exactly the time that one waits for.
                let late_ns = self.choices.below(self.scenario.turn_cost_ns + 1);
                self.journal.set_now_ns(next_ns.max(self.journal.now_ns()) + late_ns);
            }
        }
        true
    }

    fn ready(&mut self) -> Vec<Actor> {
        let (now_ns, left_alone) = (self.journal.now_ns(), self.is_left_alone());
        let net = self.net.borrow();
        let mut ready = Vec::new();
        let mut is_awake = |(at, desk): (usize, &mut Desk)| desk.is_awake(now_ns, &net).then_some(at);
        ready.extend(self.desks.iter_mut().enumerate().filter_map(&mut is_awake).map(Actor::Reactor));
        if let Some(handover) = &mut self.handover {
            let mut next = handover.next.borrow_mut();
            let next = next.iter_mut().flat_map(|next| next.desks.iter_mut().enumerate()).filter_map(&mut is_awake);
            ready.extend(next.map(|at| Actor::Waiting(Office::Next, at)));
            let leaves = |desk: &Desk| desk.handle.is_still() || self.plant == Plant::BothServe;
            let leaving = handover.leaving.iter_mut().enumerate().filter(|(_, desk)| leaves(desk));
            ready.extend(leaving.filter_map(&mut is_awake).map(|at| Actor::Waiting(Office::Leaving, at)));
            ready.extend(handover.awake(now_ns).map(Actor::Party));
        }
        ready.extend(self.clients.iter().filter(|c| c.is_awake(&net)).map(|c| Actor::Client(c.index)));
        let carriers = self.carriers.iter().enumerate();
        ready.extend(carriers.filter(|(_, c)| c.is_awake(&net)).map(|(at, _)| Actor::Carrier(at)));
        if self.action_ns.is_some_and(|at| at <= now_ns) {
            ready.push(Actor::Action);
        }
        if self.queues_ns.is_some_and(|at| at <= now_ns) && !left_alone {
            ready.push(Actor::Queues);
        }
        ready
    }

    /// The embedder's thread wakes, sooner or later.
    fn look_later(&mut self) {
        let delay_ns = self.choices.below(self.scenario.queue_delay_ns.unwrap_or(0) + 1);
        self.queues_ns = Some(self.journal.now_ns() + delay_ns);
    }

    fn next_due_ns(&mut self) -> Option<u64> {
        let mut still = Vec::new();
        if let Some(handover) = &self.handover {
            still.extend(self.desks.iter().filter(|desk| desk.handle.is_still()).map(|desk| desk.number));
            still.extend(handover.leaving.iter().map(|desk| desk.number));
        }
        let asleep = self.desks.iter().filter_map(|desk| match desk.parked {
            Some(Wait::Until(until)) if !desk.handle.is_still() => Some(until),
            _ => None,
        });
        let clients = self.clients.iter().filter_map(Client::next_due_ns);
        asleep
            .chain(clients)
            .chain(self.action_ns)
            .chain(self.queues_ns.filter(|_| !self.is_left_alone()))
            .chain(self.handover.as_ref().and_then(Handover::next_due_ns))
            .chain(self.net.borrow_mut().next_due_ns(|number| still.contains(&number)))
            .min()
    }

    /// A reactor goes to sleep, or wakes and turns.
    fn turn(&mut self, at: usize) {
        if self.desks[at].handle.is_still() {
            return self.obey(at);
        }
        let desk = &mut self.desks[at];
        let wait = match desk.parked.take() {
            Some(wait) => wait,
            None => {
                let wait = if self.plant == Plant::SpinReactor { Wait::No } else { desk.handle.park() };
                if wait != Wait::No {
                    self.journal.trace(|| format!("reactor {at}: parks: {wait:?}"));
                    desk.parked = Some(wait);
                    return;
                }
                wait
            }
        };
        self.turns += 1;
        let due = matches!(wait, Wait::Until(until) if until <= self.journal.now_ns());
        self.work.begins(at, wait, due, desk.bell.is_rung());
        {
            let mut reference = self.embedder.reference();
            let stray = usize::from(self.plant == Plant::StrayReactor);
            (reference.turning, reference.turn) = (Some(at + stray), self.turns);
        }
        let result = desk.handle.turn(wait);
        self.embedder.reference().turning = None;
        self.journal.check(Rule::Seam, result.is_ok(), || format!("reactor {at}: {result:?}"));
        self.accept();
        self.listen();
        self.embedder.look_at_waiters();
        self.embedder.reference().groups.look();
        if self.queues_ns.is_none() && self.embedder.has_completions() {
            self.look_later();
        }
        self.work.ends(at);
        let spent_ns = self.choices.below(self.scenario.turn_cost_ns + 1);
        self.journal.set_now_ns(self.journal.now_ns() + spent_ns);
        self.wire.turned(at, self.desks[at].number, self.turns, &self.net.borrow());
        self.stir();
        self.look_at_drains();
    }

    /// A reactor that stands still does what it is told.
    fn obey(&mut self, at: usize) {
        let desk = &mut self.desks[at];
        {
            let mut reference = self.embedder.reference();
            (reference.turning, reference.exporting) = (Some(at), true);
        }
        let result = desk.handle.obey();
        {
            let mut reference = self.embedder.reference();
            (reference.turning, reference.exporting) = (None, false);
        }
        self.journal.note(|| format!("reactor {at}: obeys"), 35);
        self.journal.check(Rule::Seam, result.is_ok(), || format!("reactor {at}: {result:?}"));
        self.listen();
        self.embedder.look_at_waiters();
        self.embedder.reference().groups.look();
        self.stir();
    }

    /// A reactor that does not serve has nothing to do but to stand still, and to obey.
    fn turn_waiting(&mut self, office: Office, at: usize) {
        let Some(handover) = &mut self.handover else { return };
        let mut next = handover.next.borrow_mut();
        let desk = match office {
            Office::Next => next.as_mut().and_then(|next| next.desks.get_mut(at)),
            Office::Leaving => handover.leaving.get_mut(at),
        };
        let Some(desk) = desk else { return };
        let result = match desk.parked.take() {
            _ if desk.handle.is_still() => desk.handle.obey(),
            Some(wait) => desk.handle.turn(wait),
            None => {
                desk.parked = Some(desk.handle.park());
                Ok(())
            }
        };
        drop(next);
        self.journal.note(|| format!("reactor {at} ({office:?}) takes a step"), 36);
        self.journal.check(Rule::Seam, result.is_ok(), || format!("reactor {at} ({office:?}): {result:?}"));
        self.stir();
        self.end_handover();
    }

    /// The embedder keeps its threads from asking anything of the runtime.
    pub(crate) fn is_left_alone(&self) -> bool {
        self.handover.as_ref().is_some_and(Handover::is_quiet)
    }

    /// What somebody in an upgrade waits for may have come.
    fn stir(&mut self) {
        if let Some(handover) = &mut self.handover {
            handover.stir();
        }
    }

    /// The checkers look at what the reactor sent.
    fn listen(&mut self) {
        let tapped = std::mem::take(&mut self.net.borrow_mut().tapped);
        if !tapped.is_empty() {
            let reference = self.embedder.reference();
            let net = self.net.borrow();
            for (line, bytes) in tapped.into_iter().filter(|(line, _)| net.address_of(*line).is_none()) {
                self.wire.sent(line, &bytes, &self.clients, &reference, &net);
            }
        }
        let moved = std::mem::take(&mut *self.embedder.moved.lock().expect("nothing panics under this lock"));
        for (id, home) in moved {
            if let Some(client) = self.clients.iter_mut().find(|c| c.id == id) {
                client.home = home;
                self.wire.moved(client.index, home);
            }
        }
        let refused = std::mem::take(&mut *self.embedder.refused.lock().expect("nothing panics under this lock"));
        for key in refused {
            let session = self.clients.iter().flat_map(|c| &c.sessions).find(|s| s.key == key);
            if let Some(session) = session {
                self.wire.refused(&session.id);
            }
        }
    }

    fn client(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.step(&mut self.net.borrow_mut(), &mut self.deeds);
        let mut reference = self.embedder.reference();
        reference.owners[at].has_lied |= client.has_lied;
        reference.owners[at].has_refused |= client.has_refused;
        for answered in self.deeds.answered.drain(..) {
            reference.answered(&answered);
        }
        for written in self.deeds.written.drain(..) {
            self.wire.answered(&written);
        }
        drop(reference);
        // What the client has read made room for the send in flight.
        self.listen();
    }

    fn action(&mut self) {
        self.act();
        self.begin_some_handover();
        self.embedder.reference().groups.look();
        self.actions += 1;
        let accepted = self.embedder.reference().counts.accepted;
        let enough = self.actions >= self.scenario.actions_max || accepted >= self.scenario.runs_max;
        let over = enough || self.choices.is_used_up();
        let gap_ns = self.choices.below(2 * self.scenario.gap_ns);
        self.action_ns = (!over).then(|| self.journal.now_ns() + gap_ns);
        self.check_counts();
    }

    /// The runtime's counters are the model's.
    fn check_counts(&mut self) {
        let Some(runtime) = self.embedder.runtime() else { return };
        let stats = runtime.stats();
        let reference = self.embedder.reference();
        let (running, counts) = (reference.running(), reference.counts);
        let told = stats.in_flight - u64::from(self.plant == Plant::HideRun && stats.in_flight > 0);
        let fine = told == running && stats.completed == counts.completed && stats.released == counts.released;
        self.journal.check(Rule::InFlight, fine, || format!("{running} runs, {counts:?}; the runtime says {stats:?}"));
        reference.tenants.check(runtime.tenants());
        let stumbled = self.embedder.stumbled();
        self.journal.check(Rule::Panic, stats.embedder_panics == stumbled, || {
            format!("hooks have panicked {stumbled} times, the runtime says {}", stats.embedder_panics)
        });
    }

    fn census(&self) -> Census {
        let mut total = Census::default();
        for desk in &self.desks {
            let one = desk.handle.census();
            total.slots += one.slots;
            total.free += one.free;
            total.with_run += one.with_run;
            total.quarantined += one.quarantined;
            total.retired += one.retired;
        }
        if self.plant == Plant::HideSlot {
            total.free = total.free.saturating_sub(1);
        }
        total
    }
}

/// What decides about upgrades: a seed decides about everything else as if there were none.
fn upgrades_of(choices: &Choices) -> Choices {
    let mut choices = choices.clone();
    choices.fork();
    choices.fork().fork()
}

fn builder(scenario: &Scenario, plant: Plant) -> Builder {
    Builder::new()
        .callbacks_max(scenario.callbacks_max)
        .clients_max(1 << 16)
        .batch_max(scenario.batch_max)
        .completion_queues(if scenario.queue_delay_ns.is_some() { scenario.reactors } else { 0 })
        .lease(Duration::from_nanos(scenario.lease_ns))
        .calls_unanswered_max(scenario.calls_unanswered_max)
        .unsent_bytes_max(scenario.unsent_bytes_max)
        .return_deadline(Duration::from_nanos(scenario.return_deadline_ns))
        .run_deadline(Duration::from_nanos(scenario.run_deadline_ns * plant.stretch()))
        .rpc_timeout(Duration::from_nanos(scenario.rpc_timeout_ns))
        .client_limits(ClientLimits::default().calls_max(scenario.client_calls_max))
        .connects_max(CONNECTS_MAX)
}

/// Lets a reactor find no memory for a buffer, as the scenario says.
fn memory_gate(
    choices: &mut Choices,
    scenario: &Scenario,
    fed: &Arc<AtomicBool>,
    journal: &Journal,
) -> Box<dyn FnMut() -> bool + Send> {
    let journal = journal.clone();
    let (mut choices, fed, starve) = (choices.fork(), Arc::clone(fed), scenario.starve);
    Box::new(move || {
        let fails = !fed.load(Relaxed) && choices.per_mille(starve);
        if fails {
            journal.reach(Kind::NoBuffer);
        }
        !fails
    })
}

/// Lets allocations fail, as the scenario says.
fn gate(
    choices: &mut Choices,
    scenario: &Scenario,
    embedder: &Arc<Embedder>,
    fed: &Arc<AtomicBool>,
    journal: &Journal,
) -> ringback::simulator::GrowthGate {
    let (choices, fed, starved) = (Mutex::new(choices.fork()), Arc::clone(fed), Arc::clone(&embedder.starved));
    let (starve, nth, journal) = (scenario.starve, scenario.faults.every_nth, journal.clone());
    Box::new(move |attempt| {
        let mut choices = choices.lock().expect("nothing panics under this lock");
        let fails = choices.per_mille(starve) || (nth > 0 && (attempt + 1).is_multiple_of(nth));
        if fails && !fed.load(Relaxed) {
            starved.fetch_add(1, Relaxed);
            journal.reach(Kind::AllocationFailed);
            return false;
        }
        true
    })
}
