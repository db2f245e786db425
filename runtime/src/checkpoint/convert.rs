//! Between the core's image of a client and the record of it in a checkpoint.

use super::record::{CallRecord, CoreRecord, PathRecord, SessionRecord};
use ringback_rpc::backchannel::{
    BackchannelImage, CallImage, CallState, ClientLimits, ClientState, ConnToken, ConnectionImage, Counters,
    DelayedRun, ParametersImage, PathFault, PathImage, PathState, SessionImage, SessionKey, SlotImage, SlotState,
    Token,
};
use ringback_rpc::message::{AcceptStatus, AuthStatus, Rejected};
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::nfs4::{SessionId, Status};
use std::net::SocketAddr;

const CLIENT_STATES: [ClientState; 3] = [ClientState::Active, ClientState::Courtesy, ClientState::Expired];
const PATH_STATES: [PathState; 4] = [PathState::Unknown, PathState::Up, PathState::Down, PathState::Fault];
const SLOT_STATES: [SlotState; 3] = [SlotState::Free, SlotState::Busy, SlotState::Retired];
const CALL_STATES: [CallState; 5] =
    [CallState::Sent, CallState::Unanswered, CallState::Ready, CallState::BackingOff, CallState::HigherBusy];

fn number<T: PartialEq>(all: &[T], value: &T) -> u8 {
    all.iter().position(|v| v == value).map_or(u8::MAX, |at| at as u8)
}

fn value<T: Copy>(all: &[T], number: u8) -> Option<T> {
    all.get(usize::from(number)).copied()
}

/// Nobody has counted that far. What goes on from there must not overflow.
pub(super) const COUNTED_MAX: u64 = 1 << 60;

/// The counters by these names.
pub(super) fn counter_values(counters: &Counters, names: &[String]) -> Vec<u64> {
    let mut counters = *counters;
    names.iter().map(|name| counters.by_name(name).map_or(0, |value| *value)).collect()
}

/// The counters that have these values; what has no such name any more is left out.
pub(super) fn counters(values: &[u64], names: &[String]) -> Counters {
    let mut counters = Counters::default();
    for (name, value) in names.iter().zip(values) {
        if let Some(counter) = counters.by_name(name) {
            *counter = (*value).min(COUNTED_MAX);
        }
    }
    counters
}

/// The record of an image.
pub(super) fn to_record(image: &BackchannelImage, names: &[String]) -> CoreRecord {
    let tokens = |tokens: &[Token]| tokens.iter().map(|token| token.0).collect();
    CoreRecord {
        client: number(&CLIENT_STATES, &image.client),
        path: number(&PATH_STATES, &image.path),
        path_expired: image.path_expired,
        again_next: image.again_next,
        passed_over: image.passed_over,
        unsupported: image.unsupported,
        calls_max: image.limits.calls_max,
        rate_max: image.limits.rate_max,
        xid_generation: image.xid_generation,
        xids_issued: image.xids_issued,
        drain_left_ns: image.drain_left_ns,
        path_left_ns: image.path_left_ns,
        random: image.random,
        ahead_ns: image.ahead_ns,
        hold_left_ns: image.hold_left_ns,
        counters: counter_values(&image.counters, names),
        fresh: tokens(&image.fresh),
        again: tokens(&image.again),
        resend: tokens(&image.resend),
        delayed: image.delayed.iter().map(|run| (run.token.0, run.left_ns)).collect(),
        connections: image.connections.iter().map(|c| (c.conn.0, c.silent_ns, c.turn)).collect(),
        sessions: image.sessions.iter().map(to_session).collect(),
    }
}

fn to_session(s: &SessionImage) -> SessionRecord {
    let parameters = |p: &ParametersImage| (p.program, p.credential.clone());
    SessionRecord {
        key: s.key.0,
        session_id: s.session_id.0,
        minor_version: s.minor_version,
        base: s.base,
        slots: s
            .slots
            .iter()
            .map(|slot| (slot.sequence_id, number(&SLOT_STATES, &slot.state), slot.restarts, slot.copied))
            .collect(),
        highest: s.highest,
        target: s.target,
        ceiling: s.ceiling,
        parameters: s.parameters.iter().map(parameters).collect(),
        current: s.current,
        batch_limit: s.batch_limit,
        pending: s.pending.as_ref().map(parameters),
        request_bytes_max: s.request_bytes_max,
        bound: s.bound.iter().map(|conn| conn.0).collect(),
        own: s.own.iter().map(|token| token.0).collect(),
        own_hold_left_ns: s.own_hold_left_ns,
        fault: s.fault.map(fault_words),
        refused: s.refused.map(fault_words),
        ever_bound: s.ever_bound,
        dead: s.dead,
        lost: s.lost,
        draining: s.draining,
        calls: s.calls.iter().map(to_call).collect(),
    }
}

fn to_call(c: &CallImage) -> CallRecord {
    CallRecord {
        slot: c.slot,
        runs: c.runs.iter().map(|(position, token)| (*position, token.0)).collect(),
        op: c.op as u32,
        count: c.count,
        state: number(&CALL_STATES, &c.state),
        parameters: c.parameters,
        level: c.level,
        unknown: c.unknown,
        resync: c.resync,
        renew: c.renew,
        conn: c.conn.map(|conn| conn.0),
        xid: c.xid,
        highest: c.highest,
        sent_ago_ns: c.sent_ago_ns,
        wake_left_ns: c.wake_left_ns,
        bytes: c.bytes.clone(),
    }
}

/// The image of a record. `None`: it holds numbers that mean nothing.
pub(super) fn to_image(record: &CoreRecord, names: &[String]) -> Option<BackchannelImage> {
    let tokens = |tokens: &[u32]| tokens.iter().map(|token| Token(*token)).collect();
    let delayed = record.delayed.iter().map(|(token, left_ns)| DelayedRun { token: Token(*token), left_ns: *left_ns });
    let connections = record.connections.iter();
    let connection = |c: &(u64, u64, u8)| ConnectionImage { conn: ConnToken(c.0), silent_ns: c.1, turn: c.2 };
    Some(BackchannelImage {
        client: value(&CLIENT_STATES, record.client)?,
        limits: ClientLimits::default().calls_max(record.calls_max).rate_max(record.rate_max),
        drain_left_ns: record.drain_left_ns,
        path: value(&PATH_STATES, record.path)?,
        path_left_ns: record.path_left_ns,
        path_expired: record.path_expired,
        unsupported: record.unsupported,
        counters: counters(&record.counters, names),
        xid_generation: record.xid_generation,
        xids_issued: record.xids_issued,
        random: record.random,
        ahead_ns: record.ahead_ns,
        hold_left_ns: record.hold_left_ns,
        again_next: record.again_next,
        passed_over: record.passed_over,
        fresh: tokens(&record.fresh),
        again: tokens(&record.again),
        resend: tokens(&record.resend),
        delayed: delayed.collect(),
        connections: connections.map(connection).collect(),
        sessions: record.sessions.iter().map(of_session).collect::<Option<_>>()?,
        // Has a record of its own.
        minor0: None,
    })
}

/// The record of a client's path, if it has one.
pub(super) fn to_path(client: (u32, u32), image: &PathImage, address: Option<SocketAddr>) -> PathRecord {
    PathRecord {
        client,
        key: image.key.0,
        program: image.parameters.program,
        credential: image.parameters.credential.clone(),
        callback_ident: image.callback_ident,
        window: image.window,
        address: address.map(|address| address.to_string()),
        bound: image.bound.iter().map(|conn| conn.0).collect(),
    }
}

/// The image of a path.
pub(super) fn of_path(record: &PathRecord) -> PathImage {
    PathImage {
        key: SessionKey(record.key),
        parameters: ParametersImage { program: record.program, credential: record.credential.clone() },
        callback_ident: record.callback_ident,
        window: record.window,
        bound: record.bound.iter().map(|conn| ConnToken(*conn)).collect(),
    }
}

fn of_session(s: &SessionRecord) -> Option<SessionImage> {
    let parameters = |p: &(u32, Vec<u8>)| ParametersImage { program: p.0, credential: p.1.clone() };
    let slot = |&(sequence_id, state, restarts, copied): &(u32, u8, bool, bool)| {
        Some(SlotImage { sequence_id, state: value(&SLOT_STATES, state)?, restarts, copied })
    };
    Some(SessionImage {
        key: SessionKey(s.key),
        session_id: SessionId(s.session_id),
        minor_version: s.minor_version,
        base: s.base,
        slots: s.slots.iter().map(slot).collect::<Option<_>>()?,
        highest: s.highest,
        target: s.target,
        ceiling: s.ceiling,
        parameters: s.parameters.iter().map(parameters).collect(),
        current: s.current,
        pending: s.pending.as_ref().map(parameters),
        request_bytes_max: s.request_bytes_max,
        batch_limit: s.batch_limit,
        bound: s.bound.iter().map(|conn| ConnToken(*conn)).collect(),
        ever_bound: s.ever_bound,
        own: s.own.iter().map(|token| Token(*token)).collect(),
        own_hold_left_ns: s.own_hold_left_ns,
        fault: fault(s.fault)?,
        refused: fault(s.refused)?,
        dead: s.dead,
        lost: s.lost,
        draining: s.draining,
        calls: s.calls.iter().map(of_call).collect::<Option<_>>()?,
    })
}

fn of_call(c: &CallRecord) -> Option<CallImage> {
    Some(CallImage {
        slot: c.slot,
        runs: c.runs.iter().map(|(position, token)| (*position, Token(*token))).collect(),
        count: c.count,
        op: CallbackOp::try_from(c.op).ok()?,
        state: value(&CALL_STATES, c.state)?,
        parameters: c.parameters,
        conn: c.conn.map(ConnToken),
        level: c.level,
        unknown: c.unknown,
        resync: c.resync,
        renew: c.renew,
        xid: c.xid,
        highest: c.highest,
        sent_ago_ns: c.sent_ago_ns,
        wake_left_ns: c.wake_left_ns,
        bytes: c.bytes.clone(),
    })
}

/// Numbers for a fault: its kind, and what it says.
fn fault_words(fault: PathFault) -> [u32; 4] {
    match fault {
        PathFault::Denied(Rejected::RpcMismatch { low, high }) => [0, 0, low, high],
        PathFault::Denied(Rejected::AuthError(status)) => [0, 1, status as u32, 0],
        PathFault::NotExecuted(status) => match status {
            AcceptStatus::Success => [1, 0, 0, 0],
            AcceptStatus::ProgUnavail => [1, 1, 0, 0],
            AcceptStatus::ProgMismatch { low, high } => [1, 2, low, high],
            AcceptStatus::ProcUnavail => [1, 3, 0, 0],
            AcceptStatus::GarbageArgs => [1, 4, 0, 0],
            AcceptStatus::SystemErr => [1, 5, 0, 0],
        },
        PathFault::NoResults(Status(status)) => [2, status, 0, 0],
        PathFault::WrongEcho => [3, 0, 0, 0],
        PathFault::NoSlots => [5, 0, 0, 0],
        PathFault::NoAnswer => [6, 0, 0, 0],
        // The core may learn to tell more: it is as if that could not be understood.
        _ => [4, 0, 0, 0],
    }
}

/// The fault that numbers name, if there is one. `None`: they mean nothing.
fn fault(words: Option<[u32; 4]>) -> Option<Option<PathFault>> {
    let Some(words) = words else { return Some(None) };
    Some(Some(match words {
        [0, 0, low, high] => PathFault::Denied(Rejected::RpcMismatch { low, high }),
        [0, 1, status, 0] => PathFault::Denied(Rejected::AuthError(*AuthStatus::ALL.get(status as usize)?)),
        [1, 0, 0, 0] => PathFault::NotExecuted(AcceptStatus::Success),
        [1, 1, 0, 0] => PathFault::NotExecuted(AcceptStatus::ProgUnavail),
        [1, 2, low, high] => PathFault::NotExecuted(AcceptStatus::ProgMismatch { low, high }),
        [1, 3, 0, 0] => PathFault::NotExecuted(AcceptStatus::ProcUnavail),
        [1, 4, 0, 0] => PathFault::NotExecuted(AcceptStatus::GarbageArgs),
        [1, 5, 0, 0] => PathFault::NotExecuted(AcceptStatus::SystemErr),
        [2, status, 0, 0] => PathFault::NoResults(Status(status)),
        [3, 0, 0, 0] => PathFault::WrongEcho,
        [4, 0, 0, 0] => PathFault::Malformed,
        [5, 0, 0, 0] => PathFault::NoSlots,
        [6, 0, 0, 0] => PathFault::NoAnswer,
        _ => return None,
    }))
}
