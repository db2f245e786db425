//! The simulated back end of a reactor.

use super::choices::Choices;
use super::journal::{Journal, Rule};
use super::net::{Happening, LineId, Net};
use super::plant::{Plant, Tamper};
use ringback::simulator::{ConnKey, Io, IoCounters, IoEvent, RecvBuf, SendBuf, Wait, Wake};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// The flag that ends a reactor's sleep.
#[derive(Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    /// A planted fault: it does not ring.
    muffled: bool,
    /// The process of the reactor has crashed.
    dead: AtomicBool,
}

impl Bell {
    pub(crate) fn new(muffled: bool) -> Self {
        Bell { rung: AtomicBool::new(false), muffled, dead: AtomicBool::new(false) }
    }

    /// The process of the reactor crashes: nobody clears up.
    pub(crate) fn kill(&self) {
        self.dead.store(true, SeqCst);
    }

    pub(crate) fn is_rung(&self) -> bool {
        self.rung.load(SeqCst)
    }
}

impl Wake for Bell {
    fn wake(&self) {
        self.rung.store(!self.muffled, SeqCst);
    }
}

impl Drop for SimIo {
    fn drop(&mut self) {
        let lent = self.buffers.iter().filter(|b| b.is_some()).count();
        let excused = self.bell.dead.load(SeqCst) || std::thread::panicking() || self.journal.has_failed();
        self.journal.check(Rule::Leak, lent == 0 || excused, || {
            format!("reactor {}: {lent} receive buffers are not given back", self.reactor)
        });
    }
}

/// See the [module](self).
pub(crate) struct SimIo {
    pub reactor: usize,
    pub net: Rc<RefCell<Net>>,
    pub bell: Arc<Bell>,
    pub journal: Journal,
    choices: Choices,
    tamper: Tamper,
    /// Receive buffers; `Some`: lent out.
    buffers: Vec<Option<Vec<u8>>>,
    buffer_bytes: usize,
    lines: HashMap<ConnKey, LineId>,
    counters: IoCounters,
}

impl SimIo {
    pub(crate) fn new(
        reactor: usize,
        net: Rc<RefCell<Net>>,
        bell: Arc<Bell>,
        journal: Journal,
        mut choices: Choices,
        plant: Plant,
    ) -> Self {
        let buffers = vec![None; choices.between(1, 8) as usize];
        let buffer_bytes = choices.log_between(1, 16 * 1024) as usize;
        let (lines, counters) = Default::default();
        let tamper = Tamper::new(plant);
        SimIo { reactor, net, bell, journal, choices, tamper, buffers, buffer_bytes, lines, counters }
    }

    fn event(&mut self, line: LineId, happening: Happening) -> Option<IoEvent> {
        let conn = self.net.borrow().key_of(line)?;
        let count = match &happening {
            Happening::Connected(result) => 8 + u64::from(result.is_err()),
            Happening::Received(bytes) => bytes.len() as u64,
            Happening::Sent(_, result) => 1 + u64::from(result.is_err()),
            Happening::Closed(_) => 3,
            Happening::Detached => 4,
            Happening::Lifted(_) => 9,
        };
        self.journal.note(|| format!("reactor {}: line {line}: {}", self.reactor, describe(&happening)), count);
        Some(match happening {
            Happening::Connected(result) => IoEvent::Connected { conn, result },
            Happening::Received(bytes) => {
                let id = self.buffers.iter().position(Option::is_none)?;
                let buf = RecvBuf::new(id as u16, bytes.len() as u32);
                self.counters.receives += 1;
                self.counters.received_bytes += bytes.len() as u64;
                self.buffers[id] = Some(bytes);
                IoEvent::Received { conn, buf }
            }
            Happening::Sent(buf, result) => {
                self.counters.sends += 1;
                self.counters.sent_bytes += result.as_ref().map_or(0, |n| *n as u64);
                IoEvent::Sent { conn, buf, result }
            }
            Happening::Closed(error) => IoEvent::Closed { conn, error },
            Happening::Detached => {
                self.lines.remove(&conn);
                IoEvent::Detached { conn }
            }
            Happening::Lifted(socket) => {
                self.lines.remove(&conn);
                IoEvent::Lifted { conn, socket }
            }
        })
    }
}

fn describe(happening: &Happening) -> String {
    match happening {
        Happening::Connected(result) => format!("connected {result:?}"),
        Happening::Received(bytes) => format!("{} bytes received", bytes.len()),
        Happening::Sent(_, result) => format!("sent {result:?}"),
        Happening::Closed(error) => format!("closed {error:?}"),
        Happening::Detached => "detached".to_owned(),
        Happening::Lifted(_) => "lifted".to_owned(),
    }
}

impl Io for SimIo {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn now_ns(&self) -> u64 {
        self.journal.now_ns()
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.bell) as Arc<dyn Wake>
    }

    fn attach(&mut self, conn: ConnKey, socket: OwnedFd) -> io::Result<()> {
        let line = self.net.borrow_mut().attach(self.reactor, conn, socket);
        self.journal.note(|| format!("reactor {}: attach {conn:?}: line {line:?}", self.reactor), 5);
        let line = line.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.lines.insert(conn, line);
        Ok(())
    }

    fn connect(&mut self, conn: ConnKey, address: SocketAddr) -> io::Result<()> {
        let mut net = self.net.borrow_mut();
        let elsewhere = net.some_unconfirmed().filter(|_| self.tamper.connects_elsewhere());
        let line = net.dial(self.reactor, conn, elsewhere.unwrap_or(address));
        drop(net);
        self.journal.note(|| format!("reactor {}: connects {conn:?} to {address}: line {line:?}", self.reactor), 10);
        self.lines.insert(conn, line?);
        Ok(())
    }

    fn detach(&mut self, conn: ConnKey) {
        if let Some(line) = self.lines.get(&conn).copied()
            && !self.net.borrow().is_history(line)
        {
            self.journal.note(|| format!("reactor {}: detach line {line}", self.reactor), 6);
            self.net.borrow_mut().detach(line);
        }
    }

    fn lift(&mut self, conn: ConnKey) {
        if let Some(line) = self.lines.get(&conn) {
            self.journal.note(|| format!("reactor {}: lifts line {line}", self.reactor), 11);
            self.net.borrow_mut().lift(*line);
        }
    }

    fn pause(&mut self, conn: ConnKey) {
        if let Some(line) = self.lines.get(&conn) {
            self.net.borrow_mut().pause(*line, true);
        }
    }

    fn resume(&mut self, conn: ConnKey) {
        if let Some(line) = self.lines.get(&conn) {
            self.net.borrow_mut().pause(*line, false);
        }
    }

    fn send(&mut self, conn: ConnKey, buf: SendBuf) -> Result<(), SendBuf> {
        let mut net = self.net.borrow_mut();
        let Some(line) = self.lines.get(&conn).copied().filter(|line| !net.is_history(*line)) else { return Err(buf) };
        self.journal.note(|| format!("reactor {}: line {line}: send {} bytes", self.reactor, buf.unsent().len()), 7);
        net.send(line, self.tamper.tamper(buf))
    }

    fn turn(&mut self, _: Wait, events: &mut Vec<IoEvent>) -> io::Result<()> {
        self.counters.syscalls += 1;
        self.bell.rung.store(false, SeqCst);
        for _ in 0..self.choices.between(1, 64) {
            let room = self.buffers.iter().any(Option::is_none).then_some(self.buffer_bytes);
            let next = self.net.borrow_mut().next_happening(self.reactor, room);
            let Some((line, happening)) = next else { break };
            events.extend(self.event(line, happening));
        }
        Ok(())
    }

    fn received(&self, buf: &RecvBuf) -> &[u8] {
        self.buffers.get(usize::from(buf.id())).and_then(Option::as_deref).unwrap_or_default()
    }

    fn recycle(&mut self, buf: RecvBuf) {
        if self.tamper.keeps_buffer() {
            return;
        }
        assert!(!self.tamper.panics(), "planted");
        if self.tamper.recycles_twice() {
            self.buffers[usize::from(buf.id())] = None;
        }
        let lent = self.buffers.get_mut(usize::from(buf.id())).and_then(Option::take);
        self.journal.check(Rule::Seam, lent.is_some(), || format!("{buf:?} was recycled and not lent out"));
    }

    fn counters(&self) -> IoCounters {
        self.counters
    }
}
