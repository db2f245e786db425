//! Minor version 0: paths without sessions, whose connections the server makes.

use crate::support::*;
use ringback_rpc::backchannel::{
    AddError, Backchannel, ClientLimits, ClientState, Config, ConnToken, Event, Handled, Outcome, PathFault, PathImage,
    PathParams, PathState, Requeue, SessionKey, Token, Transmit, seq4_status,
};
use ringback_rpc::message::{
    AcceptStatus, AuthStatus, CallHeader, OpaqueAuth, Rejected, ReplyBody, ReplyHeader, flavor,
};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::{CB_COMPOUND, CB_NULL, CallbackOp, CbCompoundArgs};
use ringback_rpc::xdr::{Decode, Encode, Reader, Writer};

const P1: SessionKey = SessionKey(11);
const P2: SessionKey = SessionKey(12);

fn path(ident: u32) -> PathParams {
    PathParams { program: PROGRAM, callback_ident: ident, credential: sys(0), window: 4 }
}

/// A call as the client sees it.
#[derive(Clone, Debug, PartialEq)]
struct Call0 {
    conn: ConnToken,
    bytes: Vec<u8>,
    xid: u32,
    program: u32,
    flavor: u32,
    /// callback_ident, operation, token. `None`: CB_NULL.
    op: Option<(u32, u32, Token)>,
}

impl Call0 {
    fn parse(conn: ConnToken, bytes: &[u8]) -> Call0 {
        assert_eq!(u32::from_be_bytes(bytes[..4].try_into().unwrap()), 0x8000_0000 | (bytes.len() as u32 - 4));
        let mut r = Reader::new(&bytes[4..]);
        let header = CallHeader::decode(&mut r).unwrap();
        assert_eq!((header.version, header.verifier), (1, OpaqueAuth::NONE));
        let op = match header.procedure {
            CB_NULL => None,
            CB_COMPOUND => {
                let compound = CbCompoundArgs::decode(&mut r).unwrap();
                assert_eq!((compound.tag, compound.minor_version, compound.count), (&b""[..], 0, 1));
                let op = r.u32("op").unwrap();
                let token = Token(r.u32("token").unwrap());
                (0..4).for_each(|i| assert_eq!(r.u32("args").unwrap(), i));
                Some((compound.callback_ident, op, token))
            }
            other => panic!("procedure {other}"),
        };
        r.finish("call").unwrap();
        let (program, flavor) = (header.program, header.credential.flavor);
        Call0 { conn, bytes: bytes.to_vec(), xid: header.xid, program, flavor, op }
    }

    fn token(&self) -> Token {
        self.op.expect("not CB_NULL").2
    }

    fn reply(&self, body: &[u32]) -> Vec<u8> {
        self.header(ReplyHeader::success(self.xid), body)
    }

    fn header(&self, header: ReplyHeader<'_>, body: &[u32]) -> Vec<u8> {
        let mut space = [0; 512];
        let mut w = Writer::new(&mut space);
        header.encode(&mut w).unwrap();
        words(&mut w, body);
        w.written().to_vec()
    }

    /// CB_NULL is fine; or the operation has this status.
    fn status(&self, status: Status) -> Vec<u8> {
        match self.op {
            None => self.reply(&[]),
            Some((_, op, _)) => self.reply(&[status.0, 0, 1, op, status.0]),
        }
    }

    fn ok(&self) -> Vec<u8> {
        self.status(Status::NFS4_OK)
    }

    fn denied(&self) -> Vec<u8> {
        let why = Rejected::AuthError(AuthStatus::BadCred);
        self.header(ReplyHeader { xid: self.xid, body: ReplyBody::Denied(why) }, &[])
    }

    fn not_executed(&self, status: AcceptStatus) -> Vec<u8> {
        let body = ReplyBody::Accepted { verifier: OpaqueAuth::NONE, status };
        self.header(ReplyHeader { xid: self.xid, body }, &[])
    }
}

/// A client of minor version 0 with a confirmed SETCLIENTID; no connection yet.
fn confirmed(config: Config) -> World {
    let mut w = World::empty(config);
    w.core.confirm_path(w.now_ns, P1, &path(77), &mut w.host).unwrap();
    w
}

/// The same, with a path that works, on [`C1`].
fn up() -> World {
    let mut w = confirmed(Config::default());
    assert_eq!(wanted(&mut w), Some(P1));
    w.bind(P1, C1);
    let probe = one(&mut w);
    assert_eq!(probe.op, None);
    w.answer0(&probe, &probe.ok());
    assert_eq!(w.core.path_state(), PathState::Up);
    w
}

fn wanted(w: &mut World) -> Option<SessionKey> {
    let wanted = w.core.poll_connect(w.now_ns, &mut w.host);
    assert_eq!(w.core.poll_connect(w.now_ns, &mut w.host), None, "asked for twice");
    wanted
}

fn calls(w: &mut World) -> Vec<Call0> {
    let mut calls = Vec::new();
    for conn in w.conns.clone() {
        loop {
            let wants = w.core.wants_transmit(conn);
            match w.core.poll_transmit(w.now_ns, conn, &mut w.space, &mut w.host) {
                Transmit::Wrote(len) => calls.push(Call0::parse(conn, &w.space[..len])),
                Transmit::Again => {}
                Transmit::Idle => break,
                Transmit::NoSpace => panic!("the buffer holds the largest record"),
            }
            assert!(wants, "wrote, though wants_transmit said no");
        }
        assert!(!w.core.wants_transmit(conn), "idle, though wants_transmit says yes");
    }
    calls
}

#[track_caller]
fn one(w: &mut World) -> Call0 {
    let mut calls = calls(w);
    assert_eq!(calls.len(), 1, "{calls:?}");
    calls.remove(0)
}

/// Lets time pass, in which no connection can be made.
fn pass_unreachable(w: &mut World, ns: u64) {
    let end_ns = w.now_ns + ns;
    while until_wanted(w, end_ns - w.now_ns).is_some() {
        w.core.connect_failed(w.now_ns, P1, &mut w.host);
    }
    w.now_ns = end_ns;
}

/// Lets time pass timer by timer until a connection is wanted; how long that took.
fn until_wanted(w: &mut World, ns_max: u64) -> Option<u64> {
    let start_ns = w.now_ns;
    loop {
        if wanted(w).is_some() {
            return Some(w.now_ns - start_ns);
        }
        let due = w.core.poll_timeout().filter(|due| *due <= start_ns + ns_max)?;
        assert!(due > w.now_ns, "the timer spins");
        w.now_ns = due;
        w.core.handle_timeout(w.now_ns, &mut w.host);
        w.host_closes();
    }
}

trait Answers {
    fn answer0(&mut self, call: &Call0, record: &[u8]);
}

impl Answers for World {
    #[track_caller]
    fn answer0(&mut self, call: &Call0, record: &[u8]) {
        assert_eq!(self.deliver(call.conn, record), Handled::Settled);
    }
}

#[test]
fn f16_nothing_is_connected_to_before_a_path_is_confirmed() {
    let mut w = World::empty(Config::default());
    assert!(!w.core.has_minor0());
    let token = w.recall();
    assert_eq!(wanted(&mut w), None);
    w.core.confirm_path(w.now_ns, P1, &path(77), &mut w.host).unwrap();
    assert_eq!(wanted(&mut w), Some(P1));
    w.bind(P1, C1);
    let probe = one(&mut w);
    assert_eq!((probe.op, probe.program, probe.flavor), (None, PROGRAM, flavor::AUTH_NONE));
    assert_eq!(w.core.path_state(), PathState::Unknown);
    assert_eq!(w.core.seq4_status(None), 0, "nobody knows yet whether it is down");
    w.answer0(&probe, &probe.ok());
    let call = one(&mut w);
    assert_eq!(call.token(), token);
    w.answer0(&call, &call.ok());
    assert_eq!(w.ended(token), [Ended::ok()]);
    assert_eq!(w.host.events, [Event::Path(PathState::Up)]);
    w.assert_clean();
}

#[test]
fn f2_each_call_carries_the_callback_ident_and_the_credential() {
    let mut w = up();
    for op in [CallbackOp::Recall, CallbackOp::Getattr] {
        let token = w.run(op);
        let call = one(&mut w);
        assert_eq!((call.op, call.flavor), (Some((77, op as u32, token)), flavor::AUTH_SYS));
        w.answer0(&call, &call.ok());
        assert_eq!(w.ended(token), [Ended::ok()]);
    }
    w.assert_clean();
}

#[test]
fn a_refused_callback_ident_is_a_fault_until_other_parameters_are_confirmed() {
    let mut w = up();
    let (first, second) = (w.recall(), w.recall());
    let sent = calls(&mut w);
    w.answer0(&sent[0], &sent[0].denied());
    let fault = PathFault::Denied(Rejected::AuthError(AuthStatus::BadCred));
    assert_eq!(w.ended(first), [Ended::Other(Outcome::Fault(fault))]);
    assert_eq!(w.core.path_state(), PathState::Fault);
    assert_eq!(w.core.seq4_status(None), seq4_status::CB_PATH_DOWN, "RENEW tells");
    // The next SETCLIENTID: what was sent and not answered goes to it.
    w.core.confirm_path(w.now_ns, P2, &path(78), &mut w.host).unwrap();
    assert_eq!(w.core.path_state(), PathState::Unknown);
    assert_eq!(wanted(&mut w), Some(P2));
    assert_eq!(w.deliver(C1, &sent[1].denied()), Handled::Late, "a verdict on the former parameters");
    w.disconnect(C1);
    w.bind(P2, C2);
    let probe = one(&mut w);
    w.answer0(&probe, &probe.ok());
    let again = one(&mut w);
    assert_eq!(again.op, Some((78, CallbackOp::Recall as u32, second)));
    w.answer0(&again, &again.ok());
    assert_eq!(w.ended(second), [Ended::ok()]);
    assert_eq!(w.core.path_state(), PathState::Up);
    w.assert_clean();
}

#[test]
fn f9_the_verdict_of_a_probe_belongs_to_its_parameters() {
    let mut w = confirmed(Config::default());
    assert_eq!(wanted(&mut w), Some(P1));
    w.bind(P1, C1);
    let old = one(&mut w);
    w.core.confirm_path(w.now_ns, P2, &path(78), &mut w.host).unwrap();
    assert_eq!(wanted(&mut w), Some(P2));
    assert_eq!(w.deliver(C1, &old.ok()), Handled::Late);
    assert_eq!(w.core.path_state(), PathState::Unknown, "the old verdict says nothing about the new parameters");
    // Nor does the failure of a connection to the old address.
    w.core.connect_failed(w.now_ns, P1, &mut w.host);
    assert_eq!(w.core.path_state(), PathState::Unknown);
    w.core.connect_failed(w.now_ns, P2, &mut w.host);
    assert_eq!(w.core.path_state(), PathState::Down);
}

#[test]
fn t9_there_is_one_probe_at_a_time_and_each_verdict_counts_once() {
    let mut w = confirmed(Config::default());
    let tokens: Vec<_> = (0..3).map(|_| w.recall()).collect();
    assert_eq!(wanted(&mut w), Some(P1));
    w.bind(P1, C1);
    w.bind(P1, C2);
    let probe = one(&mut w);
    assert_eq!(calls(&mut w), [], "nothing beside it");
    // Its connection goes: the same probe goes out on the other one.
    w.disconnect(probe.conn);
    let again = one(&mut w);
    assert_eq!((again.xid, &again.bytes), (probe.xid, &probe.bytes));
    assert_eq!(w.deliver(probe.conn, &probe.ok()), Handled::Late);
    assert_eq!(w.core.path_state(), PathState::Unknown);
    w.answer0(&again, &again.ok());
    assert_eq!(w.deliver(again.conn, &again.ok()), Handled::Late, "a duplicate");
    let sent = calls(&mut w);
    assert_eq!(sent.iter().map(Call0::token).collect::<Vec<_>>(), tokens);
    sent.iter().for_each(|call| w.answer0(call, &call.ok()));
    assert_eq!(w.core.counters().probes, 2);
    assert!(tokens.iter().all(|t| w.ended(*t) == [Ended::ok()]));
    w.assert_clean();
}

#[test]
fn after_a_reconnect_the_same_call_goes_out_with_the_same_xid() {
    for op in [CallbackOp::Recall, CallbackOp::Getattr] {
        let mut w = up();
        let token = w.run(op);
        let first = one(&mut w);
        w.disconnect(C1);
        assert_eq!(wanted(&mut w), Some(P1), "for what is to be sent again");
        w.bind(P1, C2);
        let second = one(&mut w);
        assert_eq!((second.conn, &second.bytes), (C2, &first.bytes));
        assert_eq!(w.deliver(C1, &first.ok()), Handled::Late, "the old connection is gone");
        w.answer0(&second, &second.ok());
        assert_eq!(w.ended(token), [Ended::ok()]);
        assert_eq!(w.entry(token).requeues, []);
        w.assert_clean();
    }
}

#[test]
fn a_path_whose_idle_connection_goes_stays_up_and_connects_when_there_is_something_to_send() {
    let mut w = up();
    w.disconnect(C1);
    assert_eq!((w.core.path_state(), w.core.seq4_status(None)), (PathState::Up, 0));
    assert_eq!(until_wanted(&mut w, 200 * S), None);
    let token = w.recall();
    assert_eq!(wanted(&mut w), Some(P1));
    w.bind(P1, C2);
    let call = one(&mut w);
    w.answer0(&call, &call.ok());
    assert_eq!(w.ended(token), [Ended::ok()]);
    w.assert_clean();
}

#[test]
fn connections_that_fail_are_tried_again_soon_for_runs_and_seldom_for_none() {
    let mut w = confirmed(Config::default());
    let mut waits = Vec::new();
    assert_eq!(wanted(&mut w), Some(P1));
    for _ in 0..14 {
        w.core.connect_failed(w.now_ns, P1, &mut w.host);
        assert_eq!(w.core.path_state(), PathState::Down);
        waits.push(until_wanted(&mut w, 200 * S).unwrap());
    }
    assert!(waits[0] >= 100 * MS && waits[0] < 113 * MS, "{waits:?}");
    assert!(waits.windows(2).take(9).all(|w| w[1] > w[0] * 3 / 2), "{waits:?}");
    assert!(waits[13] >= 90 * S && waits[13] <= 102 * S, "no longer than a lease and its jitter: {waits:?}");
    // A run comes: it does not wait for so long.
    w.core.connect_failed(w.now_ns, P1, &mut w.host);
    w.recall();
    let wait = until_wanted(&mut w, 200 * S).unwrap();
    assert!((5 * S..6 * S).contains(&wait), "{wait}");
    assert_eq!(w.core.counters().connects_failed, 15);
    assert_eq!(w.host.events, [Event::Path(PathState::Down)]);
}

#[test]
fn a_connection_on_which_nothing_is_answered_is_a_failure() {
    let mut w = confirmed(Config::default());
    assert_eq!(wanted(&mut w), Some(P1));
    // The client accepts, and closes at once.
    w.bind(P1, C1);
    one(&mut w);
    w.disconnect(C1);
    let wait = until_wanted(&mut w, S).unwrap();
    assert!((100 * MS..113 * MS).contains(&wait), "it does not spin: {wait}");
    assert_eq!(w.core.path_state(), PathState::Down);
    // It accepts, and says nothing.
    w.bind(P1, C2);
    one(&mut w);
    let wait = until_wanted(&mut w, 30 * S).unwrap();
    assert!((9 * S..11 * S).contains(&wait), "after the RPC timeout: {wait}");
    assert!(w.host.events.contains(&Event::CloseConnection(C2)));
    // It answers at last.
    w.bind(P1, C3);
    let probe = one(&mut w);
    w.answer0(&probe, &probe.ok());
    assert_eq!(w.core.path_state(), PathState::Up);
    w.assert_clean();
}

#[test]
fn a_refused_probe_is_a_fault_and_is_made_again() {
    let mut w = confirmed(Config::default());
    assert_eq!(wanted(&mut w), Some(P1));
    w.bind(P1, C1);
    let probe = one(&mut w);
    w.answer0(&probe, &probe.not_executed(AcceptStatus::ProgUnavail));
    let fault = PathFault::NotExecuted(AcceptStatus::ProgUnavail);
    assert_eq!(w.host.events, [Event::SessionFault { session: P1, fault }, Event::Path(PathState::Fault)]);
    assert_eq!(w.core.seq4_status(None), seq4_status::CB_PATH_DOWN);
    // A run need not wait for a better verdict, but gets its own.
    let token = w.recall();
    let call = one(&mut w);
    w.answer0(&call, &call.not_executed(AcceptStatus::ProgUnavail));
    assert_eq!(w.ended(token), [Ended::Other(Outcome::Fault(fault))]);
    w.pass(S);
    let probe2 = one(&mut w);
    assert!(probe2.op.is_none() && probe2.xid != probe.xid);
    w.answer0(&probe2, &probe2.ok());
    assert_eq!(w.core.path_state(), PathState::Up);
    assert_eq!(w.core.seq4_status(None), 0);
    w.assert_clean();
}

#[test]
fn the_window_bounds_what_is_out() {
    let mut w = up();
    let tokens: Vec<_> = (0..10).map(|_| w.recall()).collect();
    let sent = calls(&mut w);
    assert_eq!(sent.len(), 4);
    w.answer0(&sent[2], &sent[2].ok());
    assert_eq!(calls(&mut w).iter().map(Call0::token).collect::<Vec<_>>(), tokens[4..5]);
    let xids: Vec<_> = sent.iter().map(|c| c.xid).collect();
    assert!((1..4).all(|i| !xids[..i].contains(&xids[i])), "{xids:?}");
}

#[test]
fn delay_backs_off_and_goes_again_as_another_call() {
    let mut w = up();
    let token = w.recall();
    let first = one(&mut w);
    w.answer0(&first, &first.status(Status::NFS4ERR_DELAY));
    assert_eq!(calls(&mut w), []);
    w.pass(200 * MS);
    let second = one(&mut w);
    assert!(second.token() == token && second.xid != first.xid);
    assert_eq!(w.deliver(C1, &first.ok()), Handled::Late);
    w.answer0(&second, &second.status(Status::NFS4ERR_BADHANDLE));
    assert_eq!(w.ended(token), [Ended::Replied(Status::NFS4ERR_BADHANDLE, vec![])]);
    assert_eq!(w.entry(token).requeues, [Requeue::Delay]);
    w.assert_clean();
}

#[test]
fn a_run_that_is_given_up_frees_its_place_in_the_window() {
    let mut w = up();
    let tokens: Vec<_> = (0..4).map(|_| w.recall()).collect();
    let sent = calls(&mut w);
    assert!(w.core.cancel(w.now_ns, tokens[0], &mut w.host));
    let next = w.recall();
    let call = one(&mut w);
    assert_eq!(call.token(), next);
    assert_eq!(w.deliver(C1, &sent[0].ok()), Handled::Late, "its xid is not the next call's");
    w.pass_alive(95);
    let timed_out = Ended::Other(Outcome::TimedOut { sent: true });
    assert!(tokens[1..].iter().chain([&next]).all(|t| w.ended(*t) == [timed_out.clone()]));
    w.assert_clean();
}

#[test]
fn other_operations_end_without_being_sent() {
    for op in callbacks().filter(|op| !matches!(op, CallbackOp::Recall | CallbackOp::Getattr)) {
        let mut w = up();
        let token = w.run(op);
        assert_eq!(calls(&mut w), []);
        let [Ended::Other(Outcome::Unencodable(e))] = w.ended(token) else { panic!("{:?}", w.ended(token)) };
        assert_eq!(e.what, "operation of minor version 0");
        assert!(w.core.is_unsupported(op));
        w.assert_clean();
    }
}

#[test]
fn t38_what_is_not_sent_ends_a_lease_after_renew_has_told() {
    let mut w = confirmed(Config::default());
    assert_eq!(wanted(&mut w), Some(P1));
    w.core.connect_failed(w.now_ns, P1, &mut w.host);
    assert_eq!(w.core.seq4_status(None), seq4_status::CB_PATH_DOWN);
    w.core.path_down_told(w.now_ns);
    pass_unreachable(&mut w, 60 * S);
    let token = w.recall();
    pass_unreachable(&mut w, 31 * S);
    assert_eq!(w.ended(token), [Ended::Other(Outcome::PathDown)]);
    w.assert_clean();
}

#[test]
fn t19_clients_that_are_not_active_are_not_connected_to() {
    for (state, outcome) in
        [(ClientState::Courtesy, Outcome::Courtesy), (ClientState::Expired, Outcome::Cancelled { sent: false })]
    {
        let mut w = confirmed(Config::default());
        let token = w.recall();
        w.core.set_client_state(w.now_ns, state, &mut w.host);
        assert_eq!(wanted(&mut w), None);
        assert_eq!(w.ended(token), [Ended::Other(outcome)]);
        w.core.set_client_state(w.now_ns, ClientState::Active, &mut w.host);
        assert_eq!(wanted(&mut w), Some(P1));
        w.assert_clean();
    }
}

#[test]
fn malformed_replies_are_put_up_with() {
    let mut w = up();
    let token = w.recall();
    let call = one(&mut w);
    let good = call.ok();
    assert!(matches!(w.deliver(C1, &good[..good.len() - 8]), Handled::Malformed(_)));
    assert_eq!(w.core.path_state(), PathState::Fault);
    w.pass(200 * MS);
    // The result of another operation is no better.
    let call = one(&mut w);
    w.answer0(&call, &call.reply(&[0, 0, 1, CallbackOp::Getattr as u32, 0]));
    w.pass(500 * MS);
    let call = one(&mut w);
    w.answer0(&call, &call.ok());
    assert_eq!(w.ended(token), [Ended::ok()]);
    assert_eq!(w.core.path_state(), PathState::Up);
    w.assert_clean();
}

#[test]
fn what_is_out_goes_on_elsewhere_when_the_path_is_confirmed_there() {
    let mut w = up();
    let (sent, waiting) = (w.recall(), w.recall());
    w.core.set_limits(ClientLimits::default().calls_max(1), &mut w.host);
    let first = one(&mut w);
    let mut image = w.core.export(w.now_ns, &mut w.space, &mut w.host);
    // Another server, that does not know of the path.
    let known = image.minor0.take().unwrap();
    assert_eq!((known.key, known.bound), (P1, vec![C1]));
    assert_eq!(
        (image.resend.as_slice(), image.fresh.as_slice(), image.sessions.len()),
        (&[sent][..], &[waiting][..], 0)
    );
    w.core = Backchannel::import(Config::default(), &image, w.now_ns, &mut w.host).unwrap();
    w.core.handle_disconnect(C1, &mut w.host);
    w.conns.clear();
    w.core.confirm_path(w.now_ns, P2, &path(78), &mut w.host).unwrap();
    assert_eq!(wanted(&mut w), Some(P2));
    w.bind(P2, C2);
    let probe = one(&mut w);
    w.answer0(&probe, &probe.ok());
    for token in [sent, waiting] {
        let call = one(&mut w);
        assert!(call.token() == token && call.xid != first.xid);
        w.answer0(&call, &call.ok());
        assert_eq!(w.ended(token), [Ended::ok()]);
    }
    w.assert_clean();
}

#[test]
fn what_is_out_goes_on_elsewhere_on_the_same_path() {
    for stays in [true, false] {
        let mut w = up();
        let (sent, waiting) = (w.recall(), w.recall());
        w.core.set_limits(ClientLimits::default().calls_max(1), &mut w.host);
        let first = one(&mut w);
        let mut image = w.core.export(w.now_ns, &mut w.space, &mut w.host);
        if !stays {
            // Its connection does not come along: another one is asked for.
            image.minor0.as_mut().unwrap().bound.clear();
        }
        w.core = Backchannel::import(Config::default(), &image, w.now_ns, &mut w.host).unwrap();
        let again = w.core.export(w.now_ns, &mut w.space, &mut w.host);
        assert_eq!((&again.minor0, again.runs().count()), (&image.minor0, 2));
        if !stays {
            w.core.handle_disconnect(C1, &mut w.host);
            w.conns.clear();
            assert_eq!(wanted(&mut w), Some(P1));
            w.bind(P1, C2);
        }
        assert_eq!(wanted(&mut w), None);
        // Nothing before it is known to work.
        let probe = one(&mut w);
        w.answer0(&probe, &probe.ok());
        for token in [sent, waiting] {
            let call = one(&mut w);
            assert!(call.token() == token && call.xid != first.xid);
            w.answer0(&call, &call.ok());
            assert_eq!(w.ended(token), [Ended::ok()]);
        }
        assert_eq!(w.core.path_state(), PathState::Up);
        w.assert_clean();
    }
}

#[test]
fn an_image_of_a_path_that_cannot_be_is_refused() {
    let mut w = up();
    let image = w.core.export(w.now_ns, &mut w.space, &mut w.host);
    let refused = |change: &dyn Fn(&mut PathImage)| {
        let mut image = image.clone();
        change(image.minor0.as_mut().unwrap());
        image.check().map_err(|error| error.what)
    };
    assert_eq!(refused(&|_| ()), Ok(()));
    assert_eq!(refused(&|path| path.window = 0), Err("the parameters of a path are malformed"));
    assert_eq!(refused(&|path| path.window = 100_000), Err("the parameters of a path are malformed"));
    assert_eq!(refused(&|path| path.parameters.credential.truncate(3)), Err("the parameters of a path are malformed"));
    assert_eq!(refused(&|path| path.bound.push(C2)), Err("a path has an unknown connection"));
}

#[test]
fn what_can_be_wrong_with_parameters() {
    let mut w = up();
    let mut confirm = |window, key| {
        let params = PathParams { window, ..path(1) };
        w.core.confirm_path(w.now_ns, key, &params, &mut w.host)
    };
    assert_eq!(confirm(0, P2), Err(AddError::TooManySlots));
    assert_eq!(confirm(100_000, P2), Err(AddError::TooManySlots));
    assert_eq!(confirm(4, P1), Err(AddError::KeyInUse));
    assert_eq!(w.core.path_state(), PathState::Up, "a refusal changes nothing");
    assert_eq!(
        w.core.control(P1, 1, &sys(0), &mut w.host),
        Err(AddError::NoSuchSession),
        "there is no BACKCHANNEL_CTL"
    );
}
