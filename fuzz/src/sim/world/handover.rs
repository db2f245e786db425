//! Live upgrades in the middle of everything: the runtime hands over to one of another process. Both processes and all reactors
//! take their steps one after the other, in any order.

use super::{Desk, S, World, builder, gate, memory_gate};
use crate::sim::coverage::Kind;
use crate::sim::handover::{Fault, Pacer, Plan, Side};
use crate::sim::io::{Bell, SimIo};
use crate::sim::journal::Rule;
use crate::sim::plant::Plant;
use crate::sim::process::Process;
use crate::sim::work::Work;
use ringback::simulator::Simulation;
use ringback::simulator::upgrade::{self, Step};
use ringback::{Runtime, UpgradeError, Upgraded};
use std::cell::RefCell;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

type Outcome = Result<Upgraded, UpgradeError>;

/// Numbers of reactors on the net, for each process.
pub(super) const NUMBERS: usize = 1000;

/// What the new process has built.
pub(super) struct Next {
    runtime: Runtime,
    pub desks: Vec<Desk>,
    /// What the embedder has handed over itself.
    own: Vec<u8>,
}

/// One of the two processes.
struct Party {
    pacer: Arc<Pacer>,
    /// What it does, until it is over.
    task: Option<Pin<Box<dyn Future<Output = Outcome>>>>,
    /// How it was over; `None`: not yet, or it has crashed.
    outcome: Option<Outcome>,
    /// Something has happened since it was asked.
    stirred: bool,
}

/// An upgrade under way.
pub(super) struct Handover {
    plan: Plan,
    parties: [Party; 2],
    pub next: Rc<RefCell<Option<Next>>>,
    /// Reactors of the old process once it has let go, and the number of their first on the net.
    pub leaving: Vec<Desk>,
    /// The first number of the reactors of the old process.
    first: usize,
    /// The old process has let go.
    handed_over: bool,
}

impl Party {
    fn new(pacer: Arc<Pacer>, task: impl Future<Output = Outcome> + 'static) -> Self {
        Party { pacer, task: Some(Box::pin(task)), outcome: None, stirred: true }
    }

    fn is_awake(&self, now_ns: u64) -> bool {
        let due = self.pacer.wakes_ns().is_some_and(|at| at <= now_ns);
        self.task.is_some() && (self.stirred || due)
    }
}

impl Handover {
    /// The processes that can do something.
    pub(super) fn awake(&self, now_ns: u64) -> impl Iterator<Item = Side> {
        [Side::Old, Side::New].into_iter().filter(move |side| self.parties[*side as usize].is_awake(now_ns))
    }

    pub(super) fn next_due_ns(&self) -> Option<u64> {
        self.parties.iter().filter(|party| party.task.is_some()).filter_map(|party| party.pacer.wakes_ns()).min()
    }

    /// Something has happened that may be what somebody waits for.
    pub(super) fn stir(&mut self) {
        self.parties.iter_mut().for_each(|party| party.stirred = true);
    }

    /// The embedder's threads leave the runtime alone.
    pub(super) fn is_quiet(&self) -> bool {
        !self.plan.busy
    }
}

impl World {
    /// Perhaps an upgrade begins.
    pub(super) fn begin_some_handover(&mut self) {
        if self.handover.is_none() && self.handovers > 0 && self.upgrades.per_mille(self.scenario.upgrade_rate) {
            self.handovers -= 1;
            let plan = Plan::draw(&mut self.upgrades);
            self.begin_handover(plan);
        }
    }

    fn begin_handover(&mut self, plan: Plan) {
        let Some(runtime) = self.embedder.runtime() else { return };
        self.journal.note(|| format!("an upgrade begins: {plan:?}"), 63);
        if plan.busy {
            self.journal.reach(Kind::AskedMeanwhile);
        }
        self.embedder.begin_restore();
        self.embedder.reference().stands_still();
        self.net.borrow_mut().handing_over = true;
        let (ours, theirs) = UnixStream::pair().expect("there are descriptors enough");
        let listener = || File::open("/dev/null").expect("/dev/null can be opened");
        let files: Vec<OwnedFd> = (0..plan.files).map(|_| listener().into()).collect();
        let pacer = |side| Arc::new(Pacer::new(self.journal.clone(), side, &plan));
        let [old, new] = [Side::Old, Side::New].map(pacer);
        let [patience, _] = plan.patience_ns.map(Duration::from_nanos);
        let next = Rc::new(RefCell::new(None));
        let giving = upgrade::give(runtime, Arc::clone(&old) as _, ours, files, patience);
        let taking = self.successor(plan, theirs, Arc::clone(&new), Rc::clone(&next));
        let parties = [Party::new(old, giving), Party::new(new, taking)];
        let (leaving, first) = (Vec::new(), self.desks[0].number);
        self.handover = Some(Handover { plan, parties, next, leaving, first, handed_over: false });
    }

    /// The new process.
    fn successor(
        &mut self,
        plan: Plan,
        predecessor: UnixStream,
        pacer: Arc<Pacer>,
        next: Rc<RefCell<Option<Next>>>,
    ) -> impl Future<Output = Outcome> + 'static {
        self.processes += 1;
        let first = self.processes * NUMBERS;
        let mut scenario = self.scenario.clone();
        scenario.reactors = plan.reactors;
        let (journal, plant, choices) = (self.journal.clone(), self.plant, &mut self.upgrades);
        let bells: Vec<_> = (0..plan.reactors).map(|_| Arc::new(Bell::new(plant == Plant::MuffleBell))).collect();
        let back_end = |(at, bell): (usize, &Arc<Bell>)| {
            SimIo::new(first + at, Rc::clone(&self.net), Arc::clone(bell), journal.clone(), choices.fork(), plant)
        };
        let ios: Vec<_> = bells.iter().enumerate().map(back_end).collect();
        let gate = gate(choices, &scenario, &self.embedder, &self.fed, &journal);
        let gates: Vec<_> = ios.iter().map(|_| memory_gate(choices, &scenario, &self.fed, &journal)).collect();
        let process = Arc::new(Process {
            number: self.embedder.serving() + 1,
            journal: journal.clone(),
            embedder: Arc::clone(&self.embedder),
            fore: Arc::clone(&self.fore),
        });
        let [_, patience] = plan.patience_ns.map(Duration::from_nanos);
        async move {
            let mut upgrade = upgrade::receive(Arc::clone(&pacer) as _, predecessor, patience).await?;
            let (files, own) = (upgrade.take_files().len(), upgrade.checkpoint().own());
            journal.check(Rule::Answer, files == plan.files, || format!("{files} descriptors of the embedder's"));
            plant.spoil(&mut upgrade);
            let failed = |error: String| UpgradeError::Io(io::Error::other(error));
            let built = Simulation::new(builder(&scenario, plant), gate, Arc::clone(&process) as _, process, ios);
            let mut simulation = built.map_err(|error| failed(error.to_string()))?;
            for (reactor, gate) in simulation.reactors.iter_mut().zip(gates) {
                reactor.set_memory_gate(gate);
            }
            let runtime = simulation.runtime.clone();
            let desks = simulation.reactors.into_iter().zip(bells).enumerate();
            let desks = desks.map(|(at, (handle, bell))| Desk { handle, bell, parked: None, number: first + at });
            *next.borrow_mut() = Some(Next { runtime: runtime.clone(), desks: desks.collect(), own });
            upgrade::stand_by(&runtime, pacer, &upgrade).await.map_err(|error| failed(error.to_string()))?;
            upgrade::confirm(upgrade).await
        }
    }

    /// One of the two processes goes on as far as it can.
    pub(super) fn take_step(&mut self, side: Side) {
        let Some(handover) = &mut self.handover else { return };
        let party = &mut handover.parties[side as usize];
        let before = party.pacer.count();
        party.stirred = false;
        if let Some(task) = &mut party.task
            && let Poll::Ready(outcome) = task.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            self.journal.note(|| format!("the {side:?} process: {outcome:?}"), 64 + side as u64);
            (party.task, party.outcome) = (None, Some(outcome));
            handover.stir();
        } else if party.pacer.count() > before {
            handover.stir();
            handover.parties[side as usize].stirred = false;
        }
        let [old, new] = &handover.parties;
        let (left, crashed) = (old.pacer.has_left(), [old, new].map(|party| party.pacer.has_crashed()));
        if left && !handover.handed_over {
            self.hand_over();
        }
        if crashed[side as usize] {
            self.crash(side);
        }
        self.end_handover();
    }

    /// The old process has let go: from here on the new one serves.
    fn hand_over(&mut self) {
        let Some(handover) = &mut self.handover else { return };
        handover.handed_over = true;
        let Some(next) = handover.next.borrow_mut().take() else {
            return self.journal.fail(Rule::Ends, "the old process has let go, and there is no new one".to_owned());
        };
        if self.plant == Plant::BothServe {
            // Nobody tells its reactors to leave.
            handover.parties[Side::Old as usize].task = None;
        }
        let reactors = next.desks.len();
        self.journal.note(|| format!("the next process serves, with {reactors} reactors"), 66);
        self.journal.reach(Kind::Upgraded);
        let before = self.desks.len();
        self.journal.reach((reactors > before).then_some(Kind::MoreReactors));
        self.journal.reach((reactors < before).then_some(Kind::FewerReactors));
        let flying = self.embedder.reference().running() > 0;
        self.journal.reach(flying.then_some(Kind::UpgradedFlying));
        let own = self.embedder.reference().callbacks.len() as u64;
        self.journal.check(Rule::Answer, next.own == own.to_be_bytes(), || format!("{own}, and not {:?}", next.own));
        handover.leaving = std::mem::replace(&mut self.desks, next.desks);
        self.scenario.reactors = reactors;
        self.work = Work::new(self.journal.clone(), reactors);
        self.embedder.hand_over(next.runtime);
        self.embedder.reference().settle(reactors);
        self.queues_ns = None;
        if self.embedder.has_completions() {
            self.look_later();
        }
        for client in &mut self.clients {
            client.home %= reactors;
            client.paths.iter_mut().flatten().for_each(|path| path.hand_over());
            self.wire.moved(client.index, client.home);
        }
        // What the embedder drives itself has ended with it.
        for carrier in &mut self.carriers {
            carrier.abandon(&mut self.net.borrow_mut());
            self.connections.remove(&carrier.line);
            self.fore.forget(carrier.connection());
        }
        self.drain_again();
    }

    /// The reports of drains went to the old process: they are begun once more.
    fn drain_again(&mut self) {
        for drain in std::mem::take(&mut self.drains) {
            self.embedder.reference().orphan_drain(drain.number);
            let client = &self.clients[drain.client];
            let session = drain.session.and_then(|key| client.sessions.iter().position(|s| s.key == key));
            if client.removed || drain.session.is_some() != session.is_some() {
                continue;
            }
            let begun = self.drains.len();
            self.drain_until(drain.client, session, drain.deadline_ns.max(self.journal.now_ns()));
            if self.drains.len() > begun {
                self.embedder.reference().inherit_drain();
            }
        }
    }

    /// A process is gone from one moment to the next.
    fn crash(&mut self, side: Side) {
        let Some(handover) = &mut self.handover else { return };
        self.journal.note(|| format!("the {side:?} process crashes"), 67);
        handover.stir();
        let desks = match (side, handover.handed_over) {
            (Side::Old, false) => std::mem::take(&mut self.desks),
            (Side::Old, true) => std::mem::take(&mut handover.leaving),
            (Side::New, _) => handover.next.borrow_mut().take().map_or_else(Vec::new, |next| next.desks),
        };
        desks.iter().for_each(|desk| desk.bell.kill());
        drop(desks);
        handover.parties[side as usize].task = None;
        if side == Side::Old && !handover.handed_over {
            self.journal.reach(Kind::NobodyServes);
            self.embedder.crash();
            (self.action_ns, self.queues_ns, self.is_dead) = (None, None, true);
            self.drains.clear();
            self.carriers.clear();
        }
    }

    /// Whether it is over.
    pub(super) fn end_handover(&mut self) {
        let Some(handover) = &mut self.handover else { return };
        if handover.handed_over && self.plant == Plant::BothServe {
            return;
        }
        let stepping = |desk: &mut Desk| desk.handle.has_orders();
        if handover.parties.iter().any(|party| party.task.is_some()) || handover.leaving.iter_mut().any(stepping) {
            return;
        }
        let Some(mut handover) = self.handover.take() else { return };
        let [given, taken] = [0, 1].map(|side| handover.parties[side].outcome.take());
        let over = handover.leaving.iter().all(|desk| desk.handle.is_over());
        self.journal.check(Rule::Ends, over, || "the old process has let go, and a reactor is left".to_owned());
        self.judge(&handover, &given, &taken);
        // What either has left is closed.
        let Handover { next, leaving, first, parties, handed_over, .. } = handover;
        drop((next, leaving, parties));
        // Those that reactors have made while they stood still.
        self.accept();
        let mut net = self.net.borrow_mut();
        match self.is_dead {
            true => net.nobody_serves(),
            false if handed_over => net.process_ended(first..first + NUMBERS),
            false => {}
        }
        net.handed_over();
        drop(net);
        self.embedder.reference().goes_on();
    }

    /// Either both say that it was handed over, or neither.
    fn judge(&self, handover: &Handover, given: &Option<Outcome>, taken: &Option<Outcome>) {
        let ok = |outcome: &Option<Outcome>| outcome.as_ref().is_some_and(Result::is_ok);
        let crashed = handover.parties.each_ref().map(|party| party.pacer.has_crashed());
        let alike = (ok(given) || crashed[0], ok(taken)) == (handover.handed_over || crashed[0], handover.handed_over);
        self.journal.check(Rule::OneOwner, alike, || {
            format!("handed over: {}; {given:?}, {taken:?}: {:?}", handover.handed_over, handover.plan)
        });
        let fatal = |(_, step, fault)| step != Step::Leave && !matches!(fault, Fault::Delay(_));
        let met = handover.parties.iter().any(|party| party.pacer.has_met());
        let fails = met && handover.plan.fault.is_some_and(fatal);
        self.journal.check(Rule::OneOwner, !(fails && handover.handed_over), || format!("{:?}", handover.plan));
        if !handover.handed_over {
            self.journal.reach(Kind::UpgradeFailed);
        }
        if matches!(given, Some(Err(UpgradeError::TimedOut))) {
            self.journal.reach(Kind::UpgradeTimedOut);
        }
    }

    /// The only process that served has crashed: every client learns it, nobody sends anything, and no hook is called.
    pub(super) fn bury(&mut self) {
        let lines = |world: &World| world.clients.iter().map(|client| client.lines.len()).sum::<usize>();
        let until_ns = self.journal.now_ns() + 4 * S;
        let over = self.run_until(until_ns, |world| lines(world) == 0);
        let left = lines(self);
        self.journal.check(Rule::Ends, over, || format!("nobody serves, and {left} lines are open"));
        let sent = self.net.borrow().tapped.len();
        self.journal.check(Rule::OneOwner, sent == 0, || "a process that has crashed sends".to_owned());
    }
}
