//! The swarm's process: this executable once more, led over its stdin and stdout, and never left behind.

use super::control::{self, Command, Report};
use super::interrupt::Interrupt;
use std::io::BufReader;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a wait looks for Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What a swarm that was told to stop may take until it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Why a wait ended without what was waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Ctrl-C.
    Interrupted,
    /// Something broke; one line.
    Broken(String),
}

impl From<String> for Ended {
    fn from(message: String) -> Self {
        Ended::Broken(message)
    }
}

/// The swarm's process.
#[derive(Debug)]
pub struct SwarmProcess {
    child: Child,
    commands: Option<ChildStdin>,
    reports: Receiver<Result<Report, String>>,
    reader: Option<JoinHandle<()>>,
}

impl SwarmProcess {
    /// Starts it. Call from a thread that lives until the end: the kernel kills the swarm when that thread dies
    /// (PR_SET_PDEATHSIG, prctl(2), is about the thread, not the process).
    pub fn start() -> Result<SwarmProcess, String> {
        // Not current_exe(): its path names another file once a new build has replaced this one.
        let mut child = std::process::Command::new("/proc/self/exe")
            .arg0("storm")
            .arg("--swarm-role")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("the swarm process cannot be started: {e}"))?;
        let (Some(commands), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both were asked for as pipes");
        };
        let (tx, reports) = channel();
        let reader = std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            loop {
                let message = match control::receive(&mut stdout) {
                    Ok(Some(report)) => Ok(report),
                    Ok(None) => return,
                    Err(e) => Err(format!("the swarm process said something unexpected: {e}")),
                };
                if tx.send(message).is_err() {
                    return;
                }
            }
        });
        Ok(SwarmProcess { child, commands: Some(commands), reports, reader: Some(reader) })
    }

    /// Tells it something.
    pub fn tell(&mut self, command: &Command) -> Result<(), Ended> {
        let sent = self.commands.as_mut().map(|pipe| control::send(pipe, command));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(Ended::Broken(self.how_it_ended())),
        }
    }

    /// Its next report, if there is one now.
    pub fn look(&mut self) -> Result<Option<Report>, Ended> {
        match self.reports.try_recv() {
            Ok(report) => self.sift(report).map(Some),
            Err(std::sync::mpsc::TryRecvError::Empty) => Ok(None),
            Err(std::sync::mpsc::TryRecvError::Disconnected) => Err(Ended::Broken(self.how_it_ended())),
        }
    }

    /// Its next report, within `limit`.
    pub fn hear(&mut self, limit: Duration, interrupt: &Interrupt) -> Result<Report, Ended> {
        let until = Instant::now() + limit;
        loop {
            match self.reports.recv_timeout(LOOK_EVERY) {
                Ok(report) => return self.sift(report),
                Err(RecvTimeoutError::Disconnected) => return Err(Ended::Broken(self.how_it_ended())),
                Err(RecvTimeoutError::Timeout) if interrupt.is_set() => return Err(Ended::Interrupted),
                Err(RecvTimeoutError::Timeout) if Instant::now() > until => {
                    return Err(Ended::Broken(format!("the swarm process said nothing for {} s", limit.as_secs())));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn sift(&mut self, report: Result<Report, String>) -> Result<Report, Ended> {
        match report {
            Ok(Report::Failed(why)) => Err(Ended::Broken(format!("swarm: {why}"))),
            Ok(report) => Ok(report),
            Err(e) => Err(Ended::Broken(e)),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// One line about a process whose pipe has closed.
    fn how_it_ended(&mut self) -> String {
        // A failure that it could still report explains more than its exit status.
        while let Ok(report) = self.reports.try_recv() {
            if let Ok(Report::Failed(why)) = report {
                return format!("swarm: {why}");
            }
        }
        match self.child.wait() {
            Ok(status) => format!("the swarm process ended before its work was done: {status}"),
            Err(e) => format!("the swarm process is lost: {e}"),
        }
    }
}

impl Drop for SwarmProcess {
    fn drop(&mut self) {
        // The end of its stdin lets it go by itself.
        self.commands = None;
        let until = Instant::now() + STOP_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
