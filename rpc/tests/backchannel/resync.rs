//! A call was given up while its fate was unknown.

use crate::refused::refusals;
use crate::support::*;
use ringback_rpc::backchannel::{Event, Handled, Outcome, PathFault, PathState, seq4_status};
use ringback_rpc::nfs4::Status;

/// A client that is alive and never answers this call; its run has timed out.
fn given_up(slots: u32) -> (World, Sent) {
    let mut w = World::new(slots);
    let token = w.recall();
    let sent = w.send();
    w.pass_alive(92);
    assert_eq!(w.ended(token), [Ended::Other(Outcome::TimedOut { sent: true })]);
    assert_eq!(w.core.census().slots_quarantined, 1);
    (w, sent)
}

#[test]
fn t16_a_slot_is_used_again_only_after_a_resync() {
    let (mut w, lost) = given_up(1);
    let next = w.recall();
    let resync = w.send();
    assert_eq!((resync.op, resync.slot, resync.sequence), (None, 0, 1));
    assert_ne!(resync.xid, lost.xid);
    assert_eq!(resync.credential, lost.credential);
    w.answer(&resync, &resync.ok());
    let sent = w.send();
    assert_eq!((sent.token(), sent.sequence), (next, 2));
    w.answer_ok(&sent);
    w.assert_clean();
}

/// The only probe that minor version 1 needs is the lone CB_SEQUENCE: CB_NULL would tell nothing about a session. It
/// belongs to its session slot, one at a time, and to no run: nothing is prepared or completed for it, and nobody waits.
#[test]
fn t9_a_probe_is_one_at_a_time_and_completes_no_run() {
    let (mut w, lost) = given_up(2);
    let token = lost.token();
    let probe = w.send();
    assert_eq!((probe.op, w.core.run_count()), (None, 0));
    // While it is out: a run that needs a slot takes another one, and time starts no second probe.
    let other = w.recall();
    let sent = w.send();
    assert_eq!((sent.token(), sent.slot), (other, 1));
    for _ in 0..30 {
        w.pass_alive(1);
        w.quiet();
    }
    w.core.drain(w.now_ns, w.now_ns + S, &mut w.host);
    w.answer_ok(&sent);
    assert!(w.core.is_idle(), "a drain does not wait for a probe");
    w.answer_ok(&probe);
    assert_eq!(w.deliver(C1, &probe.ok()), Handled::Late);
    assert_eq!((w.entry(token).prepared, w.ended(token).len()), (1, 1));
    assert_eq!(w.core.counters().resynchronised, 1);
    w.assert_clean();
}

/// A client that is alive and never says where the slot stands is told to make another session; until then the other
/// slots are used, and an answer, however late, still settles this one.
#[test]
fn t36_a_resynchronisation_without_an_answer_is_a_fault_of_the_session() {
    let (mut w, _) = given_up(2);
    let probe = w.send();
    let fault = Event::SessionFault { session: S1, fault: PathFault::NoAnswer };
    for s in 1..=110 {
        w.pass_alive(1);
        let told = w.core.seq4_status(Some(S1)) == seq4_status::BACKCHANNEL_FAULT;
        assert_eq!(told, w.host.events.contains(&fault));
        assert!(if s < 90 { !told } else { told || s < 100 }, "after {s} s");
    }
    assert_eq!(w.host.events.iter().filter(|e| **e == fault).count(), 1);
    assert_eq!(w.core.path_state(), PathState::Up);
    let token = w.recall();
    let sent = w.send();
    assert_eq!((sent.token(), sent.slot), (token, 1));
    w.answer_ok(&sent);
    w.answer_ok(&probe);
    w.assert_clean();
    // DESTROY_SESSION, CREATE_SESSION: nothing is left of it.
    w.core.remove_session(w.now_ns, S1, &mut w.host);
    w.add_session(S2, 1);
    w.bind(S2, C1);
    assert_eq!(w.core.seq4_status(Some(S2)), 0);
}

#[test]
fn t28_a_late_reply_settles_the_slot() {
    let mut w = World::new(1);
    let token = w.recall();
    let sent = w.send();
    w.pass_alive(20);
    w.quiet();
    assert_eq!(w.core.counters().rpc_timeouts, 1);
    w.answer_ok(&sent);
    assert_eq!(w.ended(token), [Ended::ok()]);
    w.recall();
    assert_eq!(w.send().sequence, 2);
}

#[test]
fn a_reply_after_the_run_ended_settles_the_slot() {
    let mut w = World::new(1);
    let token = w.recall();
    let sent = w.send();
    assert!(w.core.cancel(w.now_ns, token, &mut w.host));
    assert_eq!(w.ended(token), [Ended::Other(Outcome::Cancelled { sent: true })]);
    w.quiet();
    w.answer_ok(&sent);
    w.assert_clean();
    assert_eq!(w.core.counters().resynchronised, 0);
}

/// What the slot's next call looks like after this answer to the resynchronisation; `None`: there is none.
fn after(answer: impl Fn(&Sent) -> Vec<u8>) -> Option<(u32, u32)> {
    let (mut w, _) = given_up(1);
    w.recall();
    let resync = w.send();
    assert!(matches!(w.deliver(C1, &answer(&resync)), Handled::Settled | Handled::Malformed(_)));
    w.pass(7 * S);
    w.sends().pop().map(|s| (s.sequence, u32::from(s.op.is_some())))
}

#[test]
fn t36_every_answer_to_a_resynchronisation() {
    let fails = |status: Status| after(move |s| s.sequence_status(status));
    assert_eq!(after(Sent::ok), Some((2, 1)));
    let extra = |s: &Sent| Sent { ops: vec![(4, ringback_rpc::backchannel::Token(0))], ..s.clone() }.ok();
    assert_eq!(after(extra), Some((2, 1)), "the whole first reply, from a cache");
    assert_eq!(fails(Status::NFS4ERR_RETRY_UNCACHED_REP), Some((2, 1)));
    assert_eq!(fails(Status::NFS4ERR_SEQ_FALSE_RETRY), Some((2, 1)));
    assert_eq!(fails(Status::NFS4ERR_DELAY), Some((1, 0)), "asked again");
    assert_eq!(fails(Status::NFS4ERR_SEQ_MISORDERED), None, "retired");
    assert_eq!(fails(Status::NFS4ERR_BADSLOT), None, "retired");
    assert_eq!(fails(Status::NFS4ERR_BADSESSION), None, "the session is lost");
    assert_eq!(fails(Status::NFS4ERR_SERVERFAULT), Some((1, 0)), "asked again");
    assert_eq!(after(|s| s.empty(Status::NFS4ERR_RESOURCE)), Some((1, 0)), "asked again");
    for refusal in 0..refusals(&given_up(1).1).len() {
        assert_eq!(after(|s| refusals(s).swap_remove(refusal).0), Some((1, 0)), "asked again");
    }
    assert_eq!(after(|s| s.ok()[..40].to_vec()), Some((1, 0)), "asked again");
    assert_eq!(fails(Status::NFS4ERR_BAD_HIGH_SLOT), None, "it named no other slot: retired");
    assert_eq!(fails(Status::NFS4ERR_CONN_NOT_BOUND_TO_SESSION), None, "there is no other connection");
    let wrong = |s: &Sent| Sent { sequence: 77, ..s.clone() }.ok();
    assert_eq!(after(wrong), Some((1, 0)), "asked again");
}

#[test]
fn t36_a_resynchronisation_survives_a_reconnect() {
    let (mut w, _) = given_up(1);
    let first = w.send();
    w.disconnect(C1);
    w.bind(S1, C2);
    let second = w.send();
    assert_eq!(second.bytes, first.bytes);
    w.answer(&second, &second.ok());
    w.assert_clean();
}

/// A question is the run's, as far as the client can see: the same program and credential, whatever they are now.
#[test]
fn t36_a_resynchronisation_has_the_principal_of_what_it_asks_about() {
    let (mut w, lost) = given_up(1);
    w.core.control(S1, 0x5555, &sys(42), &mut w.host).unwrap();
    let probe = w.send();
    assert_eq!((probe.op, probe.program, &probe.credential), (None, lost.program, &lost.credential));
    // The connection is not the session's any more, as the client sees it: asked again where it is bound.
    w.answer(&probe, &probe.sequence_status(Status::NFS4ERR_CONN_NOT_BOUND_TO_SESSION));
    w.quiet();
    w.bind(S1, C2);
    let again = w.send();
    assert_eq!((again.conn, &again.bytes[8..]), (C2, &probe.bytes[8..]), "all but the xid");
    w.answer_ok(&again);
    w.recall();
    let next = w.send();
    assert_eq!((next.program, next.sequence), (0x5555, 2));
    w.answer_ok(&next);
    w.assert_clean();
}

#[test]
fn t36_a_model_client_never_sees_a_skipped_id() {
    let (mut w, lost) = given_up(2);
    let mut client = ModelClient::new(2);
    client.create(S1);
    client.execute(&lost);
    for _ in 0..10 {
        w.recall();
        for sent in w.sends() {
            let reply = client.execute(&sent);
            w.answer(&sent, &reply);
        }
    }
    assert_eq!(w.core.counters().misordered, 0);
    w.assert_clean();
}
