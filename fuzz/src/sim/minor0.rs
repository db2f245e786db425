//! Clients of minor version 0: their SETCLIENTIDs, confirmed and not, and the doors of their callback services.

use super::client::minor0::Path;
use super::coverage::Kind;
use super::journal::Rule;
use super::lifecycle::security;
use super::net::dial::{Door, Listener};
use super::transition::Action;
use super::world::World;
use ringback::{CallbackAddress, ClientState, Error, PathConfig};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

impl World {
    /// What an action is to a client of minor version 0. `false`: what it is to any other.
    pub(crate) fn act_minor0(&mut self, action: Action, client: usize) -> bool {
        match action {
            Action::Connect | Action::Create => {
                self.set_client_id(client);
                if self.choices.below(4) > 0 {
                    self.confirm_some(client);
                }
            }
            Action::Bind | Action::Remember => self.confirm_some(client),
            Action::Destroy | Action::Control | Action::Target => {
                let door = self.choices.pick(&[Door::Open, Door::Open, Door::Closed, Door::Silent]);
                self.set_door(client, door);
            }
            Action::Resize | Action::DrainSession | Action::ServerClose => {}
            _ => return false,
        }
        true
    }

    fn set_client_id(&mut self, client: usize) {
        let Some(runtime) = self.embedder.runtime() else { return };
        let principal = self.principal();
        let number = principal.stamp;
        let [_, a, b, c] = number.to_be_bytes();
        // Of both kinds, and never the same twice.
        let address = match number % 2 {
            0 => SocketAddr::from((Ipv4Addr::new(10, a, b, c), 1023)),
            _ => SocketAddr::from((Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, (number >> 16) as u16, number as u16), 1023)),
        };
        let quality = self.scenario.quality(&mut self.choices);
        let listener = Listener { client, door: Door::Open, confirmed: false, quality };
        self.net.borrow_mut().listeners.insert(address, listener);
        let window = self.choices.log_between(self.scenario.slots_min, self.scenario.slots_max) as u32;
        let ident = number ^ 0x1000_0000;
        let config = PathConfig {
            program: principal.program,
            callback_ident: ident,
            security: security(principal),
            address: CallbackAddress::Connect { address, peer: address },
            window,
        };
        let known = &mut self.clients[client];
        let key = runtime.set_client_id(known.id, config);
        self.journal.note(|| format!("client {client}: SETCLIENTID: {address} {ident:#x}: {key:?}"), 80);
        if let (Ok(key), Some(paths)) = (key, &mut known.paths) {
            self.journal.reach(Kind::SetClientId);
            paths.push(Path::new(key, address, ident, principal, window));
        }
    }

    /// SETCLIENTID_CONFIRM: of the last SETCLIENTID most of the time, and of an earlier one, which must be refused.
    fn confirm_some(&mut self, client: usize) {
        let Some(count) = self.clients[client].paths.as_ref().map(Vec::len).filter(|n| *n > 0) else { return };
        let at = if self.choices.below(8) == 0 { self.choices.index(count) } else { count - 1 };
        self.confirm(client, at);
    }

    fn confirm(&mut self, client: usize, at: usize) {
        let Some(runtime) = self.embedder.runtime() else { return };
        let Some(paths) = &mut self.clients[client].paths else { return };
        let last = paths.len() - 1;
        let path = &mut paths[at];
        let expected = if at == last && !path.confirmed && !path.lapsed { Ok(()) } else { Err(Error::NotUnconfirmed) };
        if expected.is_ok() {
            path.confirmed = true;
            if let Some(listener) = self.net.borrow_mut().listeners.get_mut(&path.address) {
                listener.confirmed = true;
            }
        }
        let answer = runtime.confirm(path.key);
        self.journal.note(|| format!("client {client}: confirms {:?}: {answer:?}", path.key), 81);
        self.journal.reach(if answer.is_ok() { Kind::Confirmed } else { Kind::ConfirmRefused });
        self.journal.check(Rule::Answer, answer == expected, || format!("{answer:?} instead of {expected:?}"));
    }

    pub(crate) fn set_door(&mut self, client: usize, door: Door) {
        let Some(address) = self.clients[client].path().map(|path| path.address) else { return };
        self.journal.note(|| format!("client {client}: {address} is {door:?}"), 82);
        if let Some(listener) = self.net.borrow_mut().listeners.get_mut(&address) {
            listener.door = door;
        }
    }

    /// The client is back: it has a path that works.
    pub(crate) fn come_back_minor0(&mut self, client: usize) {
        if self.clients[client].is_idle() {
            self.announce(client, ClientState::Active);
        }
        if self.clients[client].path().is_none() {
            self.begin_minor0(client);
        }
        self.set_door(client, Door::Open);
    }

    /// SETCLIENTID, and its confirmation.
    pub(crate) fn begin_minor0(&mut self, client: usize) {
        self.set_client_id(client);
        if let Some(last) = self.clients[client].paths.as_ref().and_then(|paths| paths.len().checked_sub(1)) {
            self.confirm(client, last);
        }
    }

    /// All that its services are is well again.
    pub(crate) fn heal_minor0(&mut self, client: usize) {
        self.come_back_minor0(client);
        let mut net = self.net.borrow_mut();
        for listener in net.listeners.values_mut().filter(|listener| listener.client == client) {
            listener.quality = super::scenario::Scenario::perfect();
        }
    }

    /// The client is gone, and its services with it.
    pub(crate) fn close_doors(&mut self, client: usize) {
        let mut net = self.net.borrow_mut();
        for listener in net.listeners.values_mut().filter(|listener| listener.client == client) {
            listener.door = Door::Closed;
        }
    }

    /// Lines that reactors have made arrive at their clients.
    pub(crate) fn accept(&mut self) {
        let accepted = std::mem::take(&mut self.net.borrow_mut().accepted);
        for (client, line) in accepted {
            self.net.borrow_mut().lines[line].reads = self.clients[client].behaviour.reads;
            self.clients[client].add_line(line);
        }
    }
}
