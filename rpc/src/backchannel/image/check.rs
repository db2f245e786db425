//! Whether an image contradicts itself. What passes makes a backchannel that holds what [`Backchannel`] promises, whoever
//! wrote the image.
//!
//! [`Backchannel`]: crate::backchannel::Backchannel

use super::super::calls::{BATCH_MAX, INDEX_BITS};
use super::super::config::Credential;
use super::super::control::{VERSIONS_MAX, check_size};
use super::super::encode::encode_head;
use super::super::minor0::PathParams;
use super::super::queue::Wheel;
use super::super::{CALLS_MAX, CONNECTIONS_MAX, ConnToken, SESSIONS_MAX};
use super::{BackchannelImage, CallImage, ParametersImage, PathImage, SessionImage, SlotState};
use crate::message::OpaqueAuth;
use crate::record::LAST_FRAGMENT;
use crate::session::SLOTS_MAX;
use crate::xdr::{Decode, Reader};
use thiserror::Error;

/// An image that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{what}")]
pub struct ImageError {
    /// What is wrong.
    pub what: &'static str,
}

fn hold(holds: bool, what: &'static str) -> Result<(), ImageError> {
    if holds { Ok(()) } else { Err(ImageError { what }) }
}

impl BackchannelImage {
    /// Whether a backchannel can go on from here. Takes memory in proportion to the image.
    pub fn check(&self) -> Result<(), ImageError> {
        hold(self.sessions.len() <= SESSIONS_MAX, "a client has too many sessions")?;
        hold(self.connections.len() <= CONNECTIONS_MAX, "a client has too many connections")?;
        let mut conns: Vec<_> = self.connections.iter().map(|c| c.conn).collect();
        conns.sort_unstable();
        hold(conns.windows(2).all(|pair| pair[0] != pair[1]), "two connections have one name")?;
        for session in &self.sessions {
            session.check(&conns)?;
        }
        if let Some(path) = &self.minor0 {
            path.check(&conns)?;
            hold(self.sessions.len() < SESSIONS_MAX, "a client has too many sessions")?;
        }
        let mut keys: Vec<_> = self.sessions.iter().map(|s| s.key).collect();
        keys.extend(self.minor0.as_ref().map(|path| path.key));
        keys.sort_unstable();
        hold(keys.windows(2).all(|pair| pair[0] != pair[1]), "two sessions have one name")?;
        let mut places: Vec<_> = self.sessions.iter().map(|s| (s.base, s.base + s.slots.len() as u32)).collect();
        places.sort_unstable();
        hold(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "two sessions share a slot")?;
        let mut runs: Vec<_> = self.runs().collect();
        runs.sort_unstable();
        hold(runs.windows(2).all(|pair| pair[0] != pair[1]), "a run is in two places")?;
        let delays = self.delayed.iter().all(|run| run.left_ns <= Wheel::span_ns());
        hold(delays, "a run waits for longer than any does")
    }
}

impl PathImage {
    /// What was confirmed, if it can have been.
    pub(super) fn params(&self) -> Option<PathParams> {
        let credential = self.parameters.credential()?;
        let PathImage { callback_ident, window, .. } = *self;
        Some(PathParams { program: self.parameters.program, callback_ident, credential, window })
    }

    fn check(&self, conns: &[ConnToken]) -> Result<(), ImageError> {
        hold(self.params().is_some_and(|params| params.is_sound()), "the parameters of a path are malformed")?;
        hold(self.bound.iter().all(|conn| conns.binary_search(conn).is_ok()), "a path has an unknown connection")
    }
}

impl SessionImage {
    fn check(&self, conns: &[ConnToken]) -> Result<(), ImageError> {
        let slots = self.slots.len();
        hold((1..=SLOTS_MAX as usize).contains(&slots), "a session has no slots, or too many")?;
        hold(self.base as usize <= CALLS_MAX - slots, "a session's slots have no place")?;
        let below = |limit: u32| (limit as usize) < slots;
        hold(below(self.highest) && below(self.target) && below(self.ceiling), "a slot limit is beyond the table")?;
        hold((1..=2).contains(&self.minor_version), "a session has an unknown minor version")?;
        hold((1..=VERSIONS_MAX).contains(&self.parameters.len()), "a session has no parameters, or too many")?;
        hold(usize::from(self.current) < self.parameters.len(), "a session lacks its parameters")?;
        for parameters in self.parameters.iter().chain(&self.pending) {
            parameters.check(self)?;
        }
        let batch = 1..=BATCH_MAX as u8;
        hold(batch.contains(&self.batch_limit), "a session allows no operation, or too many")?;
        hold(self.bound.iter().all(|conn| conns.binary_search(conn).is_ok()), "a session has an unknown connection")?;
        let mut busy = vec![false; slots];
        for call in &self.calls {
            call.check(self, conns)?;
            let twice = std::mem::replace(&mut busy[call.slot as usize], true);
            hold(!twice, "two calls share a slot")?;
        }
        let agree = self.slots.iter().zip(&busy).all(|(slot, busy)| (slot.state == SlotState::Busy) == *busy);
        hold(agree, "a busy slot has no call")
    }
}

impl ParametersImage {
    /// The credential, if it is one.
    pub(super) fn credential(&self) -> Option<Credential> {
        let mut r = Reader::new(&self.credential);
        let auth = OpaqueAuth::decode(&mut r).ok()?;
        r.finish("opaque_auth").ok()?;
        Some(Credential::opaque(auth))
    }

    fn check(&self, session: &SessionImage) -> Result<(), ImageError> {
        let credential = self.credential().ok_or(ImageError { what: "a credential is malformed" })?;
        let head = encode_head(self.program, &credential, session.minor_version, session.session_id);
        hold(check_size(&head, session.request_bytes_max as usize).is_ok(), "a session is too small for a call")
    }
}

impl CallImage {
    fn check(&self, session: &SessionImage, conns: &[ConnToken]) -> Result<(), ImageError> {
        let state = session.slots.get(self.slot as usize).map(|slot| slot.state);
        hold(state == Some(SlotState::Busy), "a call has no slot")?;
        hold((1..=BATCH_MAX).contains(&u32::from(self.count)), "a call has no operation, or too many")?;
        let positions = || self.runs.iter().map(|(position, _)| *position);
        hold(positions().all(|position| position < self.count), "a run has no place in its call")?;
        hold(positions().zip(positions().skip(1)).all(|(a, b)| a < b), "the runs of a call are out of order")?;
        hold(!self.resync || self.runs.is_empty(), "a lone CB_SEQUENCE carries a run")?;
        hold(usize::from(self.parameters) < session.parameters.len(), "a call lacks its parameters")?;
        hold(self.conn.is_none_or(|conn| conns.binary_search(&conn).is_ok()), "a call has an unknown connection")?;
        let index = self.xid & ((1 << INDEX_BITS) - 1);
        hold(index == session.base + self.slot, "an xid names another slot")?;
        if self.bytes.is_empty() {
            return Ok(());
        }
        let fits = (8..=session.request_bytes_max as usize + 4).contains(&self.bytes.len());
        let word = |at: usize| self.bytes.get(at..at + 4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
        let mark = LAST_FRAGMENT | (self.bytes.len() as u32).wrapping_sub(4);
        hold(fits && word(0) == Some(mark) && word(4) == Some(self.xid), "the bytes of a call are no record of it")
    }
}
