//! Making a backchannel of an image.

use super::super::Backchannel;
use super::super::calls::{Call, Kept, NO_CONN, State};
use super::super::config::Config;
use super::super::encode::encode_head;
use super::super::host::{Host, Requeue};
use super::super::path::{Conn, Session, Version};
use super::super::queue::Queue;
use super::{BackchannelImage, CallImage, CallState, ImageError, ParametersImage, PathImage, SessionImage};
use crate::session::RequesterSlots;

impl Backchannel {
    /// Goes on where [`export`](Backchannel::export) has left off. The driver has restored what it keeps for the runs; of
    /// each connection that it has not it says so now, by [`handle_disconnect`](Backchannel::handle_disconnect). Nothing is
    /// told of what was told before.
    pub fn import<H: Host>(
        config: Config,
        image: &BackchannelImage,
        now_ns: u64,
        host: &mut H,
    ) -> Result<Self, ImageError> {
        image.check()?;
        let at = |left_ns: u64| now_ns.saturating_add(left_ns);
        let mut core = Backchannel::new(config);
        core.client = image.client;
        core.drain_ns = image.drain_left_ns.map(at);
        core.path.state = image.path;
        core.path.deadline_ns = image.path_left_ns.map(at);
        core.path.expired = image.path_expired;
        core.unsupported = image.unsupported;
        core.counters = image.counters;
        core.runs = image.runs().count() as u64;
        core.calls.set_xids(image.xid_generation, image.xids_issued);
        core.wheel.set_random(image.random);
        let hold_ns = if image.hold_left_ns == 0 { 0 } else { at(image.hold_left_ns) };
        core.pace.restore(image.limits, at(image.ahead_ns), hold_ns);
        let conns = image.connections.iter().map(|conn| {
            let heard_ns = now_ns.saturating_sub(conn.silent_ns);
            Some(Conn { token: conn.conn, heard_ns, turn: conn.turn })
        });
        core.conns = conns.collect();
        for (index, session) in image.sessions.iter().enumerate() {
            core.import_session(now_ns, index, session, host);
        }
        if let Some(path) = &image.minor0 {
            core.import_path(now_ns, path, host);
        }
        core.queues.set_turns(image.again_next, image.passed_over);
        for token in &image.fresh {
            let deadline_ns = core.deadline_ns(*token, host);
            core.queues.push_fresh(Queue::linked(*token, *token, 1), deadline_ns, host);
        }
        for token in &image.again {
            let deadline_ns = core.deadline_ns(*token, host);
            core.queues.push_last_again(*token, deadline_ns, host);
        }
        for token in &image.resend {
            core.requeue(now_ns, *token, Requeue::SessionLost, host);
        }
        for run in &image.delayed {
            core.wheel.insert(now_ns, at(run.left_ns), run.token, host);
        }
        core.calls.sort_kept();
        Ok(core)
    }

    /// As if the client had confirmed it again. Where there is no room for it, it has to.
    fn import_path<H: Host>(&mut self, now_ns: u64, image: &PathImage, host: &mut H) {
        let Some(params) = image.params() else { return };
        if self.confirm_path(now_ns, image.key, &params, host).is_ok() {
            for conn in &image.bound {
                let _ = self.bind(now_ns, image.key, *conn, host);
            }
        }
    }

    fn import_session<H: Host>(&mut self, now_ns: u64, index: usize, image: &SessionImage, host: &mut H) {
        let version = |parameters: &ParametersImage| {
            let credential = parameters.credential()?;
            Some(encode_head(parameters.program, &credential, image.minor_version, image.session_id))
        };
        let versions = image.parameters.iter().filter_map(version).map(|head| Version { head, calls: 0 });
        let own_hold_ns = if image.own_hold_left_ns == 0 { 0 } else { now_ns.saturating_add(image.own_hold_left_ns) };
        let session = Session {
            key: image.key,
            id: image.session_id,
            minor_version: image.minor_version,
            base: image.base,
            slots: RequesterSlots::import(&image.slots, [image.highest, image.target, image.ceiling]),
            versions: versions.collect(),
            current: image.current,
            pending: image.pending.as_ref().and_then(version),
            request_bytes_max: image.request_bytes_max as usize,
            batch_limit: image.batch_limit,
            bound: image.bound.iter().filter_map(|conn| self.conn_index(*conn)).fold(0, |bits, conn| bits | 1 << conn),
            ever_bound: image.ever_bound,
            ready_count: 0,
            higher_busy_count: 0,
            own: Queue::default(),
            own_hold_ns,
            fault: image.fault,
            refused: image.refused,
            dead: image.dead,
            lost: image.lost,
            draining: image.draining,
            held: false,
            minor0: None,
        };
        self.calls.make_room(image.base + session.slots.count());
        self.has_retired |= session.slots.retired_count() > 0;
        self.sessions.push(Some(session));
        for call in &image.calls {
            self.import_call(now_ns, index, image.base, call, host);
        }
        for token in &image.own {
            self.push_own(index, *token, host);
        }
    }

    fn import_call<H: Host>(&mut self, now_ns: u64, session: usize, base: u32, image: &CallImage, host: &mut H) {
        let index = (base + image.slot) as usize;
        for (i, (_, token)) in image.runs.iter().enumerate() {
            host.set_link(*token, image.runs.get(i + 1).map(|(_, next)| *next));
        }
        let deadlines = image.runs.iter().map(|(_, token)| self.deadline_ns(*token, host));
        let call = Call {
            token: image.runs.first().map(|(_, token)| *token),
            members: image.runs.iter().fold(0, |members, (position, _)| members | 1 << position),
            count: image.count,
            op: image.op,
            // Set below, where it is counted.
            state: State::Free,
            minor0: false,
            session: session as u8,
            version: image.parameters,
            conn: image.conn.and_then(|conn| self.conn_index(conn)).map_or(NO_CONN, |conn| conn as u8),
            level: image.level,
            unknown: image.unknown,
            resync: image.resync,
            renew: image.renew,
            xid: image.xid,
            highest: image.highest,
            deadline_ns: deadlines.min().unwrap_or(u64::MAX),
            sent_ns: now_ns.saturating_sub(image.sent_ago_ns),
            wake_ns: u64::MAX,
        };
        *self.calls.get_mut(index) = call;
        self.set_state(
            index,
            match image.state {
                CallState::Sent => State::Sent,
                CallState::Unanswered => State::Unknown,
                CallState::Ready => State::Ready,
                CallState::BackingOff => State::Backoff,
                CallState::HigherBusy => State::HigherBusy,
            },
        );
        if let Some(Some(session)) = self.sessions.get_mut(session) {
            session.versions[usize::from(image.parameters)].calls += 1;
        }
        if let Some(left_ns) = image.wake_left_ns {
            self.calls.wake_at(index, now_ns.saturating_add(left_ns));
        }
        if !image.bytes.is_empty() {
            self.calls.keep(Kept { index, xid: image.xid, bytes: image.bytes.clone().into_boxed_slice() });
        }
    }
}
