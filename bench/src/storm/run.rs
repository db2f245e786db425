//! A run from its first connection to its last number: the phases, in order, of whichever halves are here.

use super::child::{Ended, SwarmProcess};
use super::cli::{BackendChoice, Halves, Options, UpgradeChoice};
use super::control::{Command, Phase, Report, Setup};
use super::interrupt::Interrupt;
use super::pace::Pace;
use super::progress::{Progress, grouped};
use super::recorder::{Recorder, Sampler};
use super::resources::{self, CpuTime};
use super::results::{Drained, Measured, Results, ServerResults, Stage, SwarmTally};
use super::server_half::ServerHalf;
use super::verdict::expected_stuck;
use ringback_server::HeldDelegation;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

/// A swarm that says nothing for so long hangs: it reports ten times a second.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// What the swarm may take to end its sessions and count.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How often the recall phase is looked at: often at first, so that a short storm has a length too.
const LOOK_EVERY_FIRST: Duration = Duration::from_micros(200);
const LOOK_EVERY: Duration = Duration::from_millis(2);
const LOOK_EVERY_IDLE: Duration = Duration::from_millis(50);
const FIRST: Duration = Duration::from_millis(50);
/// How often the server half alone looks whether the other half has come further.
const WAIT_EVERY: Duration = Duration::from_millis(50);
/// What callbacks under way may take to be answered when the runtime is drained.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// After the last callback, slots of live clients may still be on their way back.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// The server half alone cannot know when the last grant has reached its client: it waits this long.
const GRANTS_SETTLE: Duration = Duration::from_secs(1);
/// The server half alone waits so long for the other half to come further with its returns, or to go.
const QUIET_MAX: Duration = Duration::from_secs(10);

/// Runs it. The error is one line: the run could not start, or broke.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<(Results, SystemTime), String> {
    let began = Instant::now();
    let mut run = Run::start(options, interrupt)?;
    let interrupted = match run.phases() {
        Ok(()) => false,
        Err(Ended::Interrupted) => {
            say("interrupted: draining");
            true
        }
        Err(Ended::Broken(why)) => return Err(why),
    };
    let (server, swarm) = run.wrap_up(interrupted)?;
    let results = Results {
        options: options.clone(),
        kernel: resources::kernel(),
        server,
        swarm,
        wall: began.elapsed(),
        interrupted,
        discrepancies: Vec::new(),
    };
    Ok((results, run.recall_began))
}

/// One line on stderr.
pub fn say(text: &str) {
    use std::io::Write;
    // A closed stderr must not end the run.
    let _ = writeln!(std::io::stderr(), "{text}");
}

struct Run<'a> {
    options: &'a Options,
    interrupt: &'a Interrupt,
    recorder: Arc<Recorder>,
    server: Option<ServerHalf>,
    swarm: Option<SwarmProcess>,
    /// What is known of the server half so far.
    found: ServerResults,
    /// A drain that ended the recall phase.
    drained: Option<Drained>,
    recall_began: SystemTime,
    /// The same on the other clock.
    recall_from: Instant,
    /// Delegations that are to come back: those of live clients.
    to_return: u64,
}

impl<'a> Run<'a> {
    fn start(options: &'a Options, interrupt: &'a Interrupt) -> Result<Run<'a>, String> {
        let recorder = Arc::new(Recorder::new(options.window));
        let server = options.has_server().then(|| ServerHalf::start(options, Arc::clone(&recorder))).transpose()?;
        let swarm = options.has_swarm().then(SwarmProcess::start).transpose()?;
        let found = ServerResults::default();
        let (recall_began, recall_from) = (SystemTime::now(), Instant::now());
        let to_return = options.delegations.saturating_sub(expected_stuck(options));
        Ok(Run {
            options,
            interrupt,
            recorder,
            server,
            swarm,
            found,
            drained: None,
            recall_began,
            recall_from,
            to_return,
        })
    }

    fn phases(&mut self) -> Result<(), Ended> {
        match (&self.options.halves, self.server.as_ref().map(ServerHalf::address)) {
            (Halves::Swarm(server, trigger), _) => {
                self.connect_and_grant(*server, *trigger)?;
                self.recall_elsewhere()?;
                self.return_rest()
            }
            (Halves::Both, Some(address)) => {
                self.connect_and_grant(address, false)?;
                self.tell(&Command::Recall)?;
                self.follow(Phase::Recall, None)?;
                self.recall_here()?;
                self.return_rest()
            }
            (_, address) => {
                self.await_grants(address)?;
                self.recall_here()?;
                self.await_returns()
            }
        }
    }

    fn tell(&mut self, command: &Command) -> Result<(), Ended> {
        self.swarm.as_mut().map_or(Ok(()), |swarm| swarm.tell(command))
    }

    fn connect_and_grant(&mut self, server: SocketAddr, trigger: bool) -> Result<(), Ended> {
        let o = self.options;
        self.tell(&Command::Setup(Setup {
            server,
            clients: o.clients,
            delegations: o.delegations,
            session_slots: o.session_slots,
            dead_clients: o.dead_clients,
            slow_clients: o.slow_clients,
            delay_clients: o.delay_clients,
            cb_operations: o.cb_operations,
            cut_connections: o.cut_connections,
            return_all: o.return_all,
            seed: o.seed,
            trigger,
            directory: o.directory.clone(),
            phase_limit: o.deadline.min(SILENCE_MAX),
        }))?;
        self.follow(Phase::Connect, Some(Progress::begin(Phase::Connect, "clients", o.clients.into())))?;
        self.tell(&Command::Grant)?;
        self.follow(Phase::Grant, Some(Progress::begin(Phase::Grant, "delegations", o.delegations)))
    }

    /// Hears the swarm until the phase is done.
    fn follow(&mut self, phase: Phase, mut progress: Option<Progress>) -> Result<(), Ended> {
        let Some(swarm) = &mut self.swarm else { return Ok(()) };
        loop {
            match swarm.hear(SILENCE_MAX, self.interrupt)? {
                Report::Progress { phase: of, done, .. } if of == phase => {
                    if let Some(p) = &mut progress {
                        p.set(done);
                    }
                }
                Report::Done(of) if of == phase => break,
                _ => {}
            }
            if self.interrupt.is_set() {
                return Err(Ended::Interrupted);
            }
        }
        if let Some(p) = progress {
            p.end();
        }
        Ok(())
    }

    /// The recalls of a server that is somewhere else: until each delegation that live clients were granted has been
    /// recalled, or none was for the length of the deadline.
    fn recall_elsewhere(&mut self) -> Result<(), Ended> {
        self.tell(&Command::Recall)?;
        (self.recall_began, self.recall_from) = (SystemTime::now(), Instant::now());
        let mut progress = None;
        let (mut last, mut moved) = (0, Instant::now());
        while last < self.to_return && moved.elapsed() < self.options.deadline {
            let Some(swarm) = &mut self.swarm else { return Ok(()) };
            if let Report::Progress { phase: Phase::Recall, done, total } = swarm.hear(SILENCE_MAX, self.interrupt)? {
                self.to_return = total;
                if done != last {
                    (last, moved) = (done, Instant::now());
                }
                progress.get_or_insert_with(|| Progress::begin(Phase::Recall, "delegations", total)).set(done);
            }
            if self.interrupt.is_set() {
                return Err(Ended::Interrupted);
            }
        }
        if let Some(progress) = progress {
            progress.end();
        }
        Ok(())
    }

    fn return_rest(&mut self) -> Result<(), Ended> {
        self.tell(&Command::Return)?;
        let (what, total) = ("delegations", self.to_return);
        let from = self.recall_from;
        let progress = self.options.return_all.then(|| Progress::since(Phase::Return, what, total, from));
        self.follow(Phase::Return, progress)
    }

    /// The server half alone: until everything is granted to somebody.
    fn await_grants(&mut self, address: Option<SocketAddr>) -> Result<(), Ended> {
        let Some(server) = &self.server else { return Ok(()) };
        let total = self.options.delegations;
        if let Some(address) = address {
            say(&format!("serving on {address}, recalling when {} delegations are granted", grouped(total)));
            say(&format!("the other half: storm --connect {address} --delegations {total} --trigger none"));
        }
        let mut progress = Progress::begin(Phase::Grant, "delegations", total);
        loop {
            let granted = server.held();
            progress.set(granted);
            if granted >= total {
                break;
            }
            self.pause(WAIT_EVERY)?;
        }
        progress.end();
        // Some may come back before the recalls begin here: a swarm that causes recalls itself does not wait.
        self.found.granted = total;
        self.pause(GRANTS_SETTLE)
    }

    /// The server half alone: until everything is returned, or nothing has come for a while; then until the clients go.
    fn await_returns(&mut self) -> Result<(), Ended> {
        let Some(server) = &self.server else { return Ok(()) };
        let wanted = if self.options.return_all { self.to_return } else { 0 };
        let mut progress = Progress::since(Phase::Return, "delegations", wanted, self.recall_from);
        let (mut last, mut moved) = (0, Instant::now());
        let returned = || self.found.granted.saturating_sub(server.kept());
        while (returned() < wanted || server.clients() > 0) && moved.elapsed() < QUIET_MAX {
            let now = returned();
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            progress.set(now);
            self.pause(WAIT_EVERY)?;
        }
        progress.set(returned());
        progress.end();
        Ok(())
    }

    fn pause(&self, length: Duration) -> Result<(), Ended> {
        let until = Instant::now() + length;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if self.interrupt.is_set() {
                return Err(Ended::Interrupted);
            }
            std::thread::sleep(left.min(WAIT_EVERY));
        }
        Ok(())
    }

    /// The recall phase of the server half: everything that is measured is measured here.
    fn recall_here(&mut self) -> Result<(), Ended> {
        let Some(server) = &self.server else { return Ok(()) };
        (self.found.idle_bytes, self.found.idle_callbacks) = server.idle_memory();
        self.found.granted = self.found.granted.max(server.held());
        let to_recall = server.to_recall();
        let total: u64 = to_recall.iter().map(|of_client| of_client.len() as u64).sum();
        let indices = to_recall.iter().flatten().map(|held| held.key.index as usize + 1).max().unwrap_or(0);
        let progress = Progress::begin(Phase::Recall, "callbacks", total);
        (self.recall_began, self.recall_from) = (SystemTime::now(), Instant::now());
        let (cpu, work, began) = (CpuTime::now(), server.counts().work, self.recorder.begin(indices));
        let mut storm = Storm {
            options: self.options,
            interrupt: self.interrupt,
            recorder: &self.recorder,
            server,
            swarm: self.swarm.as_mut(),
            sampler: Sampler::begin(began),
            progress,
            total,
            began,
            upgrades: Vec::new(),
        };
        let ended = storm.run(&to_recall);
        self.found.upgrades = std::mem::take(&mut storm.upgrades);
        let (recall, measured) = storm.end();
        self.found.cpu = CpuTime::now().since(cpu);
        self.found.work = server.counts().work.since(work);
        (self.found.recall, self.found.measured) = (recall, measured);
        if ended.is_ok() && self.options.drain_after.is_some() {
            self.drained = Some(server.drain(DRAIN_PATIENCE));
        }
        ended
    }

    /// Ends both halves and takes their counts. After Ctrl-C it drains first.
    fn wrap_up(&mut self, interrupted: bool) -> Result<(Option<ServerResults>, Option<SwarmTally>), String> {
        if let Some(server) = &self.server {
            let until = Instant::now() + SETTLE_MAX;
            while !interrupted && server.slots_leaked() > 0 && Instant::now() < until {
                std::thread::sleep(LOOK_EVERY);
            }
            self.found.drained = self.drained.take().unwrap_or_else(|| server.drain(DRAIN_PATIENCE));
            self.found.slots_leaked = server.slots_leaked();
            self.found.returned = self.found.granted.saturating_sub(server.kept());
        }
        let swarm = self.swarm.as_mut().map(stop_swarm).transpose()?;
        let server = self.server.take().map(|server| self.server_results(&server));
        Ok((server, swarm))
    }

    fn server_results(&mut self, server: &ServerHalf) -> ServerResults {
        let mut found = std::mem::take(&mut self.found);
        let counts = server.counts();
        found.accepted = counts.accepted;
        found.started = counts.started;
        found.completed = counts.completed;
        found.released = counts.released;
        found.in_flight = counts.in_flight;
        found.outcomes = self.recorder.outcomes();
        (found.backend, found.backend_reason) = server.backend();
        found.placement = server.placement();
        found.peak_rss_bytes = resources::peak_rss_bytes();
        if self.options.stages {
            let late = self.recorder.late();
            found.stages.extend((!late.is_empty()).then(|| Stage::of("recall", "late", &late)));
            found.stages.extend(server.stages());
        }
        found
    }
}

fn stop_swarm(swarm: &mut SwarmProcess) -> Result<SwarmTally, String> {
    // Ctrl-C has been seen already: it must not end the wait for the tally.
    let never = Interrupt::default();
    let ended = |e| match e {
        Ended::Broken(why) => why,
        Ended::Interrupted => "interrupted".to_owned(),
    };
    swarm.tell(&Command::Stop).map_err(ended)?;
    loop {
        if let Report::Tally(tally) = swarm.hear(STOP_MAX, &never).map_err(ended)? {
            return Ok(*tally);
        }
    }
}

/// The storm itself: one thread starts callbacks, this one watches.
struct Storm<'a> {
    options: &'a Options,
    interrupt: &'a Interrupt,
    recorder: &'a Recorder,
    server: &'a ServerHalf,
    swarm: Option<&'a mut SwarmProcess>,
    sampler: Sampler,
    progress: Progress,
    total: u64,
    began: Instant,
    /// How long each has taken.
    upgrades: Vec<Duration>,
}

impl Storm<'_> {
    fn run(&mut self, to_recall: &[Vec<HeldDelegation>]) -> Result<(), Ended> {
        let (stop, all_started) = (AtomicBool::new(false), AtomicBool::new(false));
        let (server, recorder) = (self.server, self.recorder);
        // Without a rate nothing is late: each is due when it is started.
        let (measures_lateness, began) = (self.options.stages && self.options.rate.is_some(), self.began);
        let pace = Pace { rate: self.options.rate, window: recorder.window(), stop: &stop, began: self.began };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pace.run(to_recall, |held: HeldDelegation, at| {
                    recorder.set_start(held.key.index, at);
                    if measures_lateness {
                        recorder.started_late(began.elapsed().saturating_sub(at));
                    }
                    server.recall(&held);
                });
                all_started.store(true, SeqCst);
            });
            let ended = self.watch(&all_started);
            stop.store(true, SeqCst);
            ended
        })
    }

    /// Until all are started and completed, or something breaks.
    fn watch(&mut self, all_started: &AtomicBool) -> Result<(), Ended> {
        let limit = self.options.recall_limit();
        let (mut pause, mut last) = (LOOK_EVERY, 0);
        loop {
            let elapsed = self.sampler.elapsed();
            std::thread::sleep(if elapsed < FIRST { LOOK_EVERY_FIRST } else { pause });
            // Looked at first: what is counted afterwards includes every start.
            let started = all_started.load(SeqCst);
            let counts = self.server.counts();
            self.sampler.sample(self.recorder, counts.completed, counts.answered);
            // Nothing moves while the last callbacks wait for their deadline: looking costs CPU that is measured.
            pause = if counts.completed == last { (pause * 2).min(LOOK_EVERY_IDLE) } else { LOOK_EVERY };
            last = counts.completed;
            self.progress.set(counts.completed);
            self.upgrade_if_due(counts.completed)?;
            // A storm that is over between two looks is upgraded as often all the same.
            let upgraded = self.upgrades.len() as u64 >= self.options.upgrades.into();
            if started && upgraded && counts.in_flight == 0 && counts.completed >= counts.accepted {
                return Ok(());
            }
            if started && self.options.drain_after.is_some_and(|after| elapsed >= after) {
                return Ok(());
            }
            if self.interrupt.is_set() {
                return Err(Ended::Interrupted);
            }
            if elapsed > limit {
                say(&format!(
                    "giving up: {} of {} callbacks completed",
                    grouped(counts.completed),
                    grouped(self.total)
                ));
                return Ok(());
            }
            // A swarm that has failed says so here; its progress is of no interest while ours is shown.
            while let Some(swarm) = &mut self.swarm {
                if swarm.look()?.is_none() {
                    break;
                }
            }
        }
    }

    /// Upgrades the server half when another part of the callbacks has completed: all upgrades lie between the first and the
    /// last of them, evenly.
    fn upgrade_if_due(&mut self, completed: u64) -> Result<(), Ended> {
        let (done, wanted) = (self.upgrades.len() as u64, u64::from(self.options.upgrades));
        if done >= wanted || completed < self.total * (done + 1) / (wanted + 1) {
            return Ok(());
        }
        let backend = match self.options.upgrade_to {
            UpgradeChoice::Same => self.options.backend,
            UpgradeChoice::Other if self.server.backend().0 == "epoll" => BackendChoice::Uring,
            UpgradeChoice::Other => BackendChoice::Epoll,
        };
        self.upgrades.push(self.server.upgrade(self.options, backend)?);
        Ok(())
    }

    fn end(self) -> (Duration, Measured) {
        let recall = self.sampler.elapsed();
        self.progress.end();
        (recall, self.sampler.end(self.recorder, self.server.counts().completed))
    }
}
