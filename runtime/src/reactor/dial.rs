//! Connections that the runtime makes, to clients of minor version 0 (RFC 7530 section 10.4): which are wanted the core says,
//! how many at a time and for how long is decided here.

use super::Reactor;
use super::draining::core_key;
use crate::command::Command;
use crate::hooks::Event;
use crate::io::{ConnKey, Io};
use crate::keys::{ConnectionId, SessionKey};
use crate::log::{LogKind, LogLevel};
use crate::stats::count;
use ringback_rpc::backchannel::PathParams;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// The path of a client of minor version 0, as it was confirmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConfirmedPath {
    pub key: SessionKey,
    /// `None`: the embedder supplies the sockets.
    pub address: Option<SocketAddr>,
}

/// A connection that is being made, or that the embedder was asked for.
struct Attempt {
    path: SessionKey,
    give_up_ns: u64,
    /// `None`: it is the embedder's to make.
    made: Option<(ConnectionId, ConnKey)>,
}

/// Each path is here at most once, as the core does not ask again before it was answered.
#[derive(Default)]
pub(super) struct Dialing {
    /// Those whose turn has not come.
    waiting: VecDeque<SessionKey>,
    attempts: Vec<Attempt>,
    /// How many of the attempts are ours.
    under_way: usize,
}

impl Dialing {
    /// Whether a connection is being made.
    #[cfg(feature = "checkpoint")]
    pub fn is_made(&self, key: ConnKey) -> bool {
        self.attempts.iter().any(|attempt| attempt.made.is_some_and(|(_, made)| made == key))
    }

    /// When the next attempt is given up.
    pub fn next_ns(&self) -> Option<u64> {
        self.attempts.iter().map(|attempt| attempt.give_up_ns).min()
    }

    fn take(&mut self, is_it: impl Fn(&Attempt) -> bool) -> Option<Attempt> {
        let at = self.attempts.iter().position(is_it)?;
        let attempt = self.attempts.swap_remove(at);
        self.under_way -= usize::from(attempt.made.is_some());
        Some(attempt)
    }
}

impl<I: Io> Reactor<I> {
    /// SETCLIENTID_CONFIRM. The connections of the former path carry nothing any more.
    pub(super) fn confirm_path(&mut self, path: SessionKey, params: &PathParams, address: Option<SocketAddr>) {
        let now_ns = self.home.now_ns;
        let confirmed = self.home.act_on(path.client, |client, host| {
            client.backchannel.confirm_path(now_ns, core_key(path), params, host)?;
            client.path = Some(ConfirmedPath { key: path, address });
            let mut parted = Vec::new();
            client.links.retain(|link| {
                let carries = client.backchannel.carries(super::home::conn_token(link.connection));
                parted.extend((!carries).then_some(link.connection));
                carries
            });
            for connection in &parted {
                client.backchannel.handle_disconnect(super::home::conn_token(*connection), host);
            }
            Ok(parted)
        });
        match confirmed {
            Some(Ok(parted)) => parted.into_iter().for_each(|connection| self.part(connection, path.client)),
            Some(Err(error)) => self.home.tell(&Event::SessionRefused { session: path, error }),
            None => {}
        }
    }

    /// Asks the core of a client which connections it wants.
    pub(super) fn seek_connections(&mut self, index: u32) {
        let now_ns = self.home.now_ns;
        let wanted = |home: &mut super::home::Home| {
            home.act(index, |client, host| {
                let key = client.backchannel.poll_connect(now_ns, host)?;
                Some((SessionKey { client: client.id, serial: key.0 }, client.path.and_then(|path| path.address)))
            })
        };
        while let Some(Some((path, address))) = wanted(&mut self.home) {
            match address {
                Some(_) => self.dialing.waiting.push_back(path),
                None => {
                    self.home.tell(&Event::ConnectionWanted { path });
                    let give_up_ns = now_ns.saturating_add(self.connect_timeout_ns());
                    self.dialing.attempts.push(Attempt { path, give_up_ns, made: None });
                }
            }
        }
    }

    fn connect_timeout_ns(&self) -> u64 {
        u64::try_from(self.home.shared.settings.connect_timeout.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Makes connections for those that wait, as many as may be under way.
    pub(super) fn dial(&mut self) {
        while self.dialing.under_way < self.home.shared.settings.connects_max
            && let Some(path) = self.dialing.waiting.pop_front()
        {
            match self.address_of(path) {
                Some(address) => self.dial_one(path, address),
                // It has another path by now, or another home.
                None => self.dial_failed(path),
            }
        }
    }

    fn address_of(&mut self, path: SessionKey) -> Option<SocketAddr> {
        let client =
            self.home.client(path.client.index).filter(|client| client.id == path.client && !client.removed)?;
        client.path.filter(|confirmed| confirmed.key == path)?.address
    }

    fn dial_one(&mut self, path: SessionKey, address: SocketAddr) {
        let connection = ConnectionId { reactor: self.home.reactor as u16, serial: self.home.shared.serial() };
        let key = self.lines.add(connection, self.home.shared.settings.record_bytes_max, None);
        if let Some((connection, _)) = self.lines.get(key) {
            connection.dialled = true;
        }
        count(&self.port().stats.connects);
        let begun = if self.stopping { Err(io::ErrorKind::Interrupted.into()) } else { self.io.connect(key, address) };
        if let Err(error) = begun {
            self.lines.begin_close(key);
            self.lines.forget(key);
            self.log_failed(path, format_args!("cannot be called back at {address}: {error}"));
            return self.dial_failed(path);
        }
        let give_up_ns = self.home.now_ns.saturating_add(self.connect_timeout_ns());
        self.dialing.attempts.push(Attempt { path, give_up_ns, made: Some((connection, key)) });
        self.dialing.under_way += 1;
    }

    /// An attempt of ours is over.
    pub(super) fn connected(&mut self, key: ConnKey, result: io::Result<()>) {
        let attempt = self.dialing.take(|attempt| attempt.made.is_some_and(|(_, made)| made == key));
        let Some(Attempt { path, made: Some((connection, _)), .. }) = attempt else { return self.close(key) };
        let is_current =
            self.home.shared.clients.live(path.client).is_some_and(|known| known.path.load(SeqCst) == path.serial);
        if result.is_ok() && is_current {
            return self.bind(connection, path);
        }
        if let Err(error) = result {
            self.log_failed(path, format_args!("cannot be called back: {error}"));
        }
        self.close(key);
        self.dial_failed(path);
    }

    /// The embedder has supplied what it was asked for.
    pub(super) fn supplied(&mut self, path: SessionKey) {
        self.dialing.take(|attempt| attempt.path == path && attempt.made.is_none());
    }

    /// Gives up what takes too long.
    pub(super) fn give_up_dialing(&mut self) {
        let now_ns = self.home.now_ns;
        while let Some(attempt) = self.dialing.take(|attempt| attempt.give_up_ns <= now_ns) {
            match attempt.made {
                Some((_, key)) => {
                    self.log_failed(
                        attempt.path,
                        format_args!("cannot be called back: no connection was made in time"),
                    );
                    self.close(key);
                }
                None => {
                    let text = format_args!("cannot be called back: no connection was supplied in time");
                    self.log_failed(attempt.path, text);
                }
            }
            self.dial_failed(attempt.path);
        }
    }

    fn log_failed(&self, path: SessionKey, text: fmt::Arguments<'_>) {
        self.home.shared.log(Some(self.port()), LogKind::Connect, LogLevel::Warn, Some(path.client), text);
    }

    fn dial_failed(&mut self, path: SessionKey) {
        count(&self.port().stats.connects_failed);
        if self.home.has(path.client.index) {
            return self.connect_failed(path);
        }
        let shared = Arc::clone(&self.home.shared);
        if let Some(known) = shared.clients.live(path.client) {
            shared.post_home(known, Command::ConnectFailed(path));
        }
    }

    pub(super) fn connect_failed(&mut self, path: SessionKey) {
        let now_ns = self.home.now_ns;
        self.home.act_on(path.client, |client, host| {
            client.backchannel.connect_failed(now_ns, core_key(path), host);
        });
    }
}
