//! The swarm's process, from the inside: does what the server half commands, between commands answers callbacks.

use super::control::{self, Command, Phase, Report, Setup};
use super::interrupt::Interrupt;
use super::resources::{CpuTime, peak_rss_bytes};
use super::results::SwarmTally;
use crate::swarm::{Behaviour, Progress, Recalls, Swarm, SwarmConfig, SwarmError, Tally, Until};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use std::io::{BufReader, stdin, stdout};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

/// The whole life of the swarm's process.
pub fn main() -> ExitCode {
    let report = |r: &Report| control::send(&mut stdout().lock(), r);
    match live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // If nobody hears it there is nobody left to tell.
            let _ = report(&Report::Failed(why));
            ExitCode::FAILURE
        }
    }
}

fn live() -> Result<(), String> {
    let broken = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
    Interrupt::ignore().map_err(|e| broken("signals cannot be handled", &e))?;
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| broken("prctl", &e))?;
    // It may have died before the line above took effect; then this process has another parent by now.
    if getppid() != parent {
        return Err("the server half is gone".to_owned());
    }
    let (tx, commands) = channel();
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(stdin());
        while let Ok(Some(command)) = control::receive::<Command>(&mut pipe) {
            if tx.send(command).is_err() {
                return;
            }
        }
        // The end of the pipe drops `tx`: the swarm sees that nobody leads it any more.
    });
    let report = |r: Report| {
        // A broken pipe shows as the end of the commands as well.
        let _ = control::send(&mut stdout().lock(), &r);
    };
    Half { commands: &commands, report: &report, next: None, alone: false, quiet_limit: Duration::MAX }.run()
}

/// The swarm's half of the protocol.
struct Half<'a> {
    commands: &'a Receiver<Command>,
    report: &'a dyn Fn(Report),
    /// A command that came in the middle of a phase.
    next: Option<Command>,
    /// Nobody leads any more.
    alone: bool,
    /// How long the last phase may go without progress.
    quiet_limit: Duration,
}

impl Half<'_> {
    fn run(mut self) -> Result<(), String> {
        let Ok(Command::Setup(setup)) = self.commands.recv() else {
            return Err("the first command must set the swarm up".to_owned());
        };
        let started = CpuTime::now();
        self.quiet_limit = setup.phase_limit;
        let mut swarm = self.set_up(&setup).map_err(|e| e.to_string())?;
        let mut recall_from = started;
        let mut recall_cpu = CpuTime::default();
        loop {
            let command = self.next_command(&mut swarm).map_err(|e| e.to_string())?;
            match command {
                Some(Command::Grant) => self.grant(&mut swarm, setup.delegations).map_err(|e| e.to_string())?,
                Some(Command::Recall) => {
                    recall_from = CpuTime::now();
                    self.recall(&mut swarm, setup.trigger).map_err(|e| e.to_string())?;
                }
                Some(Command::Return) => {
                    recall_cpu = CpuTime::now().since(recall_from);
                    self.finish_returns(&mut swarm).map_err(|e| e.to_string())?;
                }
                Some(Command::Stop) => {
                    let mut tally = tally_of(&swarm.finish());
                    tally.cpu = CpuTime::now().since(started);
                    tally.recall_cpu = recall_cpu;
                    tally.peak_rss_bytes = peak_rss_bytes();
                    (self.report)(Report::Tally(Box::new(tally)));
                    return Ok(());
                }
                Some(Command::Setup(_)) => return Err("the swarm is set up already".to_owned()),
                None => return Err("the server half is gone".to_owned()),
            }
        }
    }

    fn set_up(&mut self, setup: &Setup) -> Result<Swarm, SwarmError> {
        let mut swarm = Swarm::connect(config_of(setup))?;
        swarm.set_up(&mut |p| self.tick(Phase::Connect, p))?;
        (self.report)(Report::Done(Phase::Connect));
        Ok(swarm)
    }

    fn grant(&mut self, swarm: &mut Swarm, delegations: u64) -> Result<(), SwarmError> {
        swarm.grant(delegations, &mut |p| self.tick(Phase::Grant, p))?;
        (self.report)(Report::Done(Phase::Grant));
        Ok(())
    }

    /// Ready for recalls from here on. That the recalls go on after this returns is the business of `next_command`.
    fn recall(&mut self, swarm: &mut Swarm, trigger: bool) -> Result<(), SwarmError> {
        swarm.begin_recalls();
        (self.report)(Report::Done(Phase::Recall));
        if trigger {
            swarm.trigger(&mut |p| self.tick(Phase::Recall, p))?;
        }
        Ok(())
    }

    /// Until everything that can be is recalled and returned, or nothing has moved for too long: then the tally shows
    /// what is missing.
    fn finish_returns(&mut self, swarm: &mut Swarm) -> Result<(), SwarmError> {
        let (limit, mut done, mut moved) = (self.quiet_limit, 0, Instant::now());
        swarm.serve(Until::AllRecalled, &mut |p| {
            if p.done != done {
                (done, moved) = (p.done, Instant::now());
            }
            if moved.elapsed() > limit { ControlFlow::Break(()) } else { self.tick(Phase::Return, p) }
        })?;
        let done = swarm.tally().total().delegreturns_ok;
        (self.report)(Report::Progress { phase: Phase::Return, done, total: done });
        (self.report)(Report::Done(Phase::Return));
        Ok(())
    }

    /// The next command; callbacks are answered until it comes. `None`: nobody leads any more.
    fn next_command(&mut self, swarm: &mut Swarm) -> Result<Option<Command>, SwarmError> {
        while self.next.is_none() && !self.alone {
            swarm.serve(Until::Told, &mut |p| self.tick(Phase::Recall, p))?;
        }
        Ok(self.next.take())
    }

    /// Reports the progress, and breaks if there is a new command.
    fn tick(&mut self, phase: Phase, p: &Progress<'_>) -> ControlFlow<()> {
        let (done, total) = match phase {
            Phase::Recall => (p.tally.total().distinct, of_live(p.tally).iter().map(|r| r.granted).sum()),
            Phase::Return => (p.tally.total().delegreturns_ok, p.total),
            Phase::Connect | Phase::Grant => (p.done, p.total),
        };
        (self.report)(Report::Progress { phase, done, total });
        match self.commands.try_recv() {
            Ok(command) => self.next = Some(command),
            Err(TryRecvError::Empty) => return ControlFlow::Continue(()),
            Err(TryRecvError::Disconnected) => self.alone = true,
        }
        ControlFlow::Break(())
    }
}

fn config_of(setup: &Setup) -> SwarmConfig {
    let mut config = SwarmConfig::new(setup.server);
    config.clients = setup.clients;
    config.session_slots = setup.session_slots;
    config.callback_operations = setup.cb_operations;
    config.seed = setup.seed;
    config.return_delegations = setup.return_all;
    config.dead_clients = setup.dead_clients;
    config.slow_clients = setup.slow_clients;
    config.delay_clients = setup.delay_clients;
    config.cuts = setup.cut_connections;
    config.trigger = setup.trigger;
    config.directory = setup.directory.clone();
    config
}

/// The counts of clients that are neither dead nor told to answer NFS4ERR_DELAY.
fn of_live(t: &Tally) -> [Recalls; 2] {
    [Behaviour::Normal, Behaviour::Slow].map(|b| *t.of(b))
}

/// What the swarm counted, in the terms of the verdict.
fn tally_of(t: &Tally) -> SwarmTally {
    let total = t.total();
    let live = of_live(t);
    SwarmTally {
        granted: total.granted,
        not_granted: t.not_granted,
        granted_twice: t.granted_twice,
        recalled: total.distinct,
        received: total.received,
        doubled: total.doubled,
        repeated: total.repeated,
        malformed: t.malformed,
        against_rules: t.misordered
            + t.sequence_errors
            + t.wrong_credential
            + t.wrong_program
            + t.replaced_parameters
            + t.unknown_xid,
        other_credential: t.other_credential,
        unknown: total.unknown_stateid,
        missed_live: live.iter().map(|r| r.granted.saturating_sub(r.distinct)).sum(),
        returned: total.delegreturns_ok,
        kept_live: live.iter().map(|r| r.distinct.saturating_sub(r.delegreturns_ok)).sum(),
        delayed: total.delayed,
        callbacks: t.callbacks,
        resends: t.replays,
        cuts: t.cuts,
        controls: t.controls,
        connections_lost: t.connections_lost,
        triggered: t.triggered,
        failures: t.failures.clone(),
        ..SwarmTally::default()
    }
}
