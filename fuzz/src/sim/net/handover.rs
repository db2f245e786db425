//! Lines that go from one process to another, or are left behind by one that has ended.

use super::{End, Happening, LineId, Net, Stage, socket};
use crate::sim::journal::Rule;
use std::ops::Range;

impl Net {
    /// Something else than a reactor drives the server's end.
    pub(crate) fn attach_driver(&mut self, id: LineId, driver: usize) {
        self.by_descriptor.retain(|_, line| *line != id);
        let line = &mut self.lines[id];
        (line.reactor, line.stage, line.far) = (driver, Stage::Attached, None);
    }

    /// A descriptor that was closed before a reactor could take it over.
    pub(crate) fn abandon(&mut self, id: LineId) {
        if self.lines[id].stage == Stage::HandedOver {
            (self.lines[id].stage, self.lines[id].client_open) = (Stage::Gone, false);
        }
    }

    /// A reactor lets go of a line that stays open.
    pub(crate) fn lift(&mut self, id: LineId) {
        let line = &mut self.lines[id];
        if line.stage == Stage::Attached {
            line.stage = Stage::Lifting;
        }
    }

    /// What is under way on it comes back, and then its descriptor. What has arrived may be received first; an end is not told.
    pub(super) fn lifted(&mut self, id: LineId, room: Option<usize>) -> Option<Happening> {
        let (now_ns, reads) = (self.now_ns(), self.choices.below(2) == 0);
        let line = &mut self.lines[id];
        if let Some(sending) = line.sending.take() {
            let result = if sending.failed { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(sending.taken) };
            return Some(Happening::Sent(sending.buf, result));
        }
        let hears = !line.frozen && !line.paused && line.to_server.ended(now_ns).is_none();
        if let (true, true, Some(room)) = (reads && hears, line.to_server.arrived(now_ns), room) {
            let bytes = line.to_server.take(now_ns, room, line.quality.split, &mut self.choices);
            return Some(Happening::Received(bytes));
        }
        (line.stage, line.paused, line.closed_told, line.refused) = (Stage::HandedOver, false, false, false);
        let (number, descriptor) = socket::identity(line.descriptor.take()?);
        self.by_descriptor.insert(number, id);
        Some(Happening::Lifted(descriptor))
    }

    /// A process has ended, and with it what these reactors had.
    pub(crate) fn process_ended(&mut self, reactors: Range<usize>) {
        for id in self.live().collect::<Vec<_>>() {
            let is_its_own = reactors.contains(&self.lines[id].reactor);
            if is_its_own && !matches!(self.lines[id].stage, Stage::Gone | Stage::HandedOver) {
                self.close_all(id);
            }
        }
    }

    /// Nobody is there any more.
    pub(crate) fn nobody_serves(&mut self) {
        for id in self.live().collect::<Vec<_>>() {
            if self.lines[id].stage != Stage::Gone {
                self.close_all(id);
            }
            // So that each client can see it.
            (self.lines[id].frozen, self.lines[id].reads) = (false, true);
        }
    }

    /// The kernel closes the line of a process that has ended.
    fn close_all(&mut self, id: LineId) {
        let due_ns = self.due_ns(id);
        let line = &mut self.lines[id];
        // What it has not read makes a reset of it.
        let end = if line.to_server.bytes > 0 { End::Reset } else { End::Fin };
        if end == End::Reset {
            line.to_client.clear();
        }
        line.to_server.clear();
        line.to_client.finish(due_ns, end);
        (line.stage, line.descriptor, line.sending) = (Stage::Gone, None, None);
        self.check_closed(id);
    }

    /// The server has let go of a line: nobody has its descriptor any more.
    pub(super) fn check_closed(&mut self, id: LineId) {
        if !self.handing_over {
            let far = self.lines[id].far.take();
            let closed = far.is_none_or(|far| far.is_alone());
            self.journal.check(Rule::Leak, closed, || format!("line {id} is gone, and somebody has its descriptor"));
        }
    }

    /// That may be looked at again.
    pub(crate) fn handed_over(&mut self) {
        self.handing_over = false;
        let gone = |id: &LineId| self.lines[*id].stage == Stage::Gone && self.lines[*id].far.is_some();
        let gone: Vec<_> = (0..self.lines.len()).filter(gone).collect();
        gone.into_iter().for_each(|id| self.check_closed(id));
    }
}
