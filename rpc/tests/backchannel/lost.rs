//! Connections and sessions go and come.

use crate::support::*;
use ringback_rpc::backchannel::{
    AddError, CONNECTIONS_MAX, Config, ConnToken, Event, Handled, Outcome, PathState, Requeue, seq4_status,
};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::CallbackOp;

#[test]
fn t20_every_kind_survives_a_reconnect_with_the_same_bytes() {
    for op in callbacks() {
        let mut w = World::new(2);
        let token = w.start(op);
        let first = w.send();
        w.disconnect(C1);
        assert_eq!(w.core.path_state(), PathState::Down);
        w.quiet();
        w.bind(S1, C2);
        let second = w.send();
        assert_eq!((second.conn, &second.bytes), (C2, &first.bytes), "{op}");
        assert_eq!(w.deliver(C1, &first.ok()), Handled::Late, "the old connection is gone");
        w.answer_ok(&second);
        assert_eq!(w.ended(token), [Ended::ok()]);
        assert_eq!(w.entry(token).requeues, [], "it kept its slot");
        w.assert_clean();
    }
}

#[test]
fn t20_after_a_rebind_nothing_new_has_the_old_program() {
    for op in callbacks() {
        let mut w = World::new(1);
        let sent_before = w.start(op);
        let first = w.send();
        let unsent = w.start(op);
        w.disconnect(C1);
        w.core.control(S1, 0x5555, &sys(42), &mut w.host).unwrap();
        w.bind(S1, C2);
        let again = w.send();
        assert_eq!((&again.bytes, again.token()), (&first.bytes, sent_before), "{op}: pinned to what it was sent with");
        w.answer_ok(&again);
        let new = w.send();
        assert_eq!((new.token(), new.program), (unsent, 0x5555), "{op}");
        assert_ne!(new.credential, first.credential);
        w.answer_ok(&new);
        assert!([sent_before, unsent].iter().all(|t| w.ended(*t) == [Ended::ok()]));
        w.assert_clean();
    }
}

#[test]
fn f14_an_offload_that_got_lost_with_its_connection_arrives() {
    let mut w = World::new(1);
    let mut client = ModelClient::new(1);
    client.create(S1);
    let tokens = [w.run(CallbackOp::Offload), w.run(CallbackOp::Offload)];
    // The first is lost on the way, the second was never sent: the COPY of each ends all the same.
    let lost = w.send();
    assert_eq!(lost.token(), tokens[0]);
    w.disconnect(C1);
    w.pass(30 * S);
    w.bind(S1, C2);
    for token in tokens {
        let sent = w.send();
        assert_eq!(sent.token(), token);
        let reply = client.execute(&sent);
        w.answer(&sent, &reply);
        assert_eq!((w.ended(token), client.executed[&token]), (&[Ended::ok()][..], 1));
    }
    w.assert_clean();
}

#[test]
fn f14_an_offload_that_arrived_before_the_cut_is_not_executed_twice() {
    let mut w = World::new(2);
    let mut client = ModelClient::new(2);
    client.create(S1);
    let token = w.run(CallbackOp::Offload);
    let first = w.send();
    client.execute(&first);
    w.disconnect(C1);
    w.bind(S1, C2);
    let second = w.send();
    let reply = client.execute(&second);
    w.answer(&second, &reply);
    assert_eq!(w.ended(token), [Ended::Other(Outcome::DeliveredUnknown)]);
    assert_eq!(client.executed[&token], 1);
    let next = w.recall();
    assert_eq!(w.send().sequence, 2);
    assert_eq!(w.ended(next), []);
}

#[test]
fn a_recall_whose_answer_was_lost_is_sent_again_under_the_next_id() {
    let mut w = World::new(2);
    let mut client = ModelClient::new(2);
    client.create(S1);
    let token = w.recall();
    let first = w.send();
    client.execute(&first);
    w.disconnect(C1);
    w.bind(S1, C2);
    let second = w.send();
    let reply = client.execute(&second);
    w.answer(&second, &reply);
    let third = w.send();
    assert_eq!((third.token(), third.sequence), (token, 2));
    assert_eq!(w.entry(token).requeues, [Requeue::UncachedReply]);
    let reply = client.execute(&third);
    w.answer(&third, &reply);
    assert_eq!(w.ended(token), [Ended::ok()]);
    w.assert_clean();
}

#[test]
fn f6_the_next_new_callback_has_the_new_program_and_credential() {
    let mut w = World::new(2);
    w.recall();
    let first = w.send();
    w.core.control(S1, 0x5555, &sys(42), &mut w.host).unwrap();
    w.recall();
    let new = w.send();
    assert_eq!((first.program, new.program), (PROGRAM, 0x5555));
    assert_ne!(new.credential, first.credential);
    [first, new].iter().for_each(|s| w.answer_ok(s));
    w.assert_clean();
}

#[test]
fn f19_a_resend_keeps_its_bytes_whatever_the_parameters_are_now() {
    let mut w = World::new(2);
    w.recall();
    let first = w.send();
    w.core.control(S1, 0x5555, &sys(42), &mut w.host).unwrap();
    w.recall();
    let new = w.send();
    w.core.control(S1, 0x6666, &sys(43), &mut w.host).unwrap();
    w.disconnect(C1);
    w.bind(S1, C2);
    let again = w.sends();
    assert_eq!(again.iter().map(|s| &s.bytes).collect::<Vec<_>>(), [&first.bytes, &new.bytes]);
    again.iter().for_each(|s| w.answer_ok(s));
    w.assert_clean();
}

/// Calls with as many earlier parameters are out as are kept: nothing goes out with replaced ones meanwhile (T20).
#[test]
fn f6_new_callbacks_wait_for_room_for_their_parameters() {
    let mut w = World::new(8);
    let mut out = Vec::new();
    for i in 0..4 {
        w.recall();
        out.push(w.send());
        assert_eq!(out[i].program, if i == 0 { PROGRAM } else { 99 + i as u32 });
        w.core.control(S1, 100 + i as u32, &sys(i as u32), &mut w.host).unwrap();
    }
    let waiting = [w.recall(), w.recall()];
    w.quiet();
    w.core.control(S1, 200, &sys(9), &mut w.host).unwrap();
    w.quiet();
    w.disconnect(C1);
    w.bind(S1, C2);
    let again = w.sends();
    assert_eq!(again.iter().map(|s| s.program).collect::<Vec<_>>(), [PROGRAM, 100, 101, 102]);
    w.answer_ok(&again[2]);
    let new = w.sends();
    assert_eq!(new.iter().map(|s| (s.program, s.token())).collect::<Vec<_>>(), [(200, waiting[0]), (200, waiting[1])]);
    for sent in [&again[0], &again[1], &again[3], &new[0], &new[1]] {
        w.answer_ok(sent);
    }
    w.assert_clean();
}

/// The client refuses what it has replaced: that says nothing about the parameters that wait.
#[test]
fn f6_a_verdict_on_replaced_parameters_does_not_hold_the_new_ones() {
    let mut w = World::new(8);
    let mut out = Vec::new();
    for i in 0..4 {
        w.recall();
        out.push(w.send());
        w.core.control(S1, 100 + i, &sys(i), &mut w.host).unwrap();
    }
    w.answer(&out[3], &out[3].empty(Status::NFS4ERR_MINOR_VERS_MISMATCH));
    assert_eq!(w.core.path_state(), PathState::Up);
    let again = w.send();
    assert_eq!((again.program, again.token()), (103, out[3].token()));
    for sent in [&again, &out[0], &out[1], &out[2]] {
        w.answer_ok(sent);
    }
    w.assert_clean();
}

#[test]
fn f3_three_connections_two_of_them_dead() {
    let mut w = World::new(2);
    w.bind(S1, C2);
    w.bind(S1, C3);
    let token = w.recall();
    let first = w.send();
    assert_eq!(first.conn, C1);
    w.pass(9 * S);
    assert!(w.host.events.contains(&Event::CloseConnection(C1)));
    let second = w.send();
    assert_eq!((second.conn, &second.bytes), (C2, &first.bytes));
    w.pass(9 * S);
    let third = w.send();
    assert_eq!((third.conn, &third.bytes), (C3, &first.bytes));
    w.answer_ok(&third);
    assert_eq!(w.ended(token), [Ended::ok()]);
    assert_eq!(w.core.counters().connections_condemned, 2);
    assert_eq!(w.core.path_state(), PathState::Up);
    w.assert_clean();
}

#[test]
fn f7_a_recall_of_a_destroyed_session_goes_over_another_one() {
    let mut w = World::new(2);
    let token = w.recall();
    let first = w.send();
    let waiting: Vec<_> = (0..3).map(|_| w.recall()).collect();
    w.core.remove_session(w.now_ns, S1, &mut w.host);
    w.quiet();
    assert_eq!(w.core.path_state(), PathState::Down);
    w.add_session(S2, 4);
    w.bind(S2, C2);
    let sent = w.sends();
    assert_eq!(sent.iter().map(|s| s.session).collect::<Vec<_>>(), [session_id(S2); 4]);
    assert!(sent.iter().any(|s| s.token() == token));
    assert_eq!(w.entry(token).prepared, 1);
    assert_eq!(w.deliver(C1, &first.ok()), Handled::Late, "nobody is there to take it");
    sent.iter().for_each(|s| w.answer_ok(s));
    assert!(waiting.iter().all(|t| w.ended(*t) == [Ended::ok()]));
    w.assert_clean();
}

#[test]
fn t13_a_reply_that_finds_its_session_destroyed_is_dropped() {
    for is_resync in [false, true] {
        let mut w = World::new(1);
        let token = w.recall();
        let mut sent = w.send();
        if is_resync {
            assert!(w.core.cancel(w.now_ns, token, &mut w.host));
            w.pass_alive(9);
            sent = w.send();
            assert_eq!(sent.op, None);
        }
        w.core.remove_session(w.now_ns, S1, &mut w.host);
        assert_eq!(w.deliver(C1, &sent.ok()), Handled::Late, "nobody is there to take it");
        assert_eq!(w.core.census().slots, 0);
        w.quiet();
        w.core.drain(w.now_ns, w.now_ns, &mut w.host);
        assert_eq!(w.ended(token), [Ended::Other(Outcome::Cancelled { sent: true })]);
        w.assert_clean();
    }
}

#[test]
fn t14_a_reply_to_the_old_session_does_not_free_a_slot_of_the_new_one() {
    let mut w = World::new(1);
    let token = w.recall();
    let old = w.send();
    w.core.remove_session(w.now_ns, S1, &mut w.host);
    // The new session's slot is at the same place, with the same sequence id, on the same connection.
    w.add_session(S2, 1);
    w.bind(S2, C1);
    let new = w.send();
    assert_eq!((new.token(), new.slot, new.sequence, new.session), (token, 0, 1, session_id(S2)));
    for late in [old.ok(), old.op_status(Status::NFS4ERR_DELAY, 1), old.sequence_status(Status::NFS4ERR_BADSLOT)] {
        assert_eq!(w.deliver(C1, &late), Handled::Late);
    }
    assert_eq!((w.ended(token), w.core.census().slots_with_run), (&[][..], 1));
    w.recall();
    w.quiet();
    w.answer_ok(&new);
    let next = w.send();
    assert_eq!((next.slot, next.sequence), (0, 2));
    w.answer_ok(&next);
    w.assert_clean();
}

#[test]
fn t15_callbacks_wait_for_a_path_without_a_spin() {
    let mut w = World::empty(Default::default());
    let before = w.recall();
    w.add_session(S1, 1);
    let waiting = w.recall();
    assert_eq!(w.core.seq4_status(Some(S1)), seq4_status::CB_PATH_DOWN | seq4_status::CB_PATH_DOWN_SESSION);
    assert!(w.core.poll_timeout().unwrap() > w.now_ns);
    w.bind(S1, C1);
    let sent = w.send();
    assert_eq!(sent.token(), before);
    w.quiet();
    w.answer_ok(&sent);
    let sent = w.send();
    assert_eq!(sent.token(), waiting);
    w.disconnect(C1);
    w.bind(S1, C1);
    let sent = w.send();
    w.answer_ok(&sent);
    w.assert_clean();
}

#[test]
fn t37_a_sent_call_stays_with_its_session_and_an_unsent_one_moves() {
    let mut w = World::new(1);
    w.add_session(S2, 1);
    let pinned = w.recall();
    let first = w.send();
    let unsent = w.recall();
    let slot_recall = w.run_on(S1);
    w.disconnect(C1);
    w.bind(S2, C2);
    let moved = w.send();
    assert_eq!((moved.token(), moved.session), (unsent, session_id(S2)));
    assert_eq!(w.core.seq4_status(Some(S1)), seq4_status::CB_PATH_DOWN_SESSION);
    assert_eq!(w.core.seq4_status(Some(S2)), 0);
    w.answer_ok(&moved);
    w.quiet();
    assert_eq!(w.core.run_count(), 2, "the pinned call, and the CB_RECALL_SLOT that belongs to the session");
    w.bind(S1, C3);
    let again = w.send();
    assert_eq!((again.bytes == first.bytes, again.token()), (true, pinned));
    w.answer_ok(&again);
    let sent = w.send();
    assert_eq!((sent.token(), sent.session), (slot_recall, session_id(S1)));
    w.answer_ok(&sent);
    w.assert_clean();
}

#[test]
fn t38_an_unbound_client_that_keeps_renewing() {
    let mut w = World::new(1);
    let pinned = w.recall();
    w.send();
    w.pass_alive(50);
    w.disconnect(C1);
    let unsent = w.recall();
    w.pass(20 * S);
    assert_eq!(w.core.seq4_status(None), seq4_status::CB_PATH_DOWN);
    w.core.path_down_told(w.now_ns);
    w.pass(50 * S);
    assert_eq!(w.ended(pinned), [Ended::Other(Outcome::TimedOut { sent: true })]);
    w.core.path_down_told(w.now_ns);
    let late = w.recall();
    w.pass(20 * S);
    assert_eq!(w.ended(unsent), [Ended::Other(Outcome::TimedOut { sent: false })]);
    assert_eq!(w.ended(late), []);
    w.pass(21 * S);
    assert_eq!(w.ended(late), [Ended::Other(Outcome::PathDown)]);
    let fresh = w.recall();
    assert_eq!(w.ended(fresh), [Ended::Other(Outcome::PathDown)], "at once, until there is a path");
    w.bind(S1, C2);
    let resync = w.send();
    assert_eq!((resync.op, resync.sequence), (None, 1));
    w.answer_ok(&resync);
    w.recall();
    let sent = w.send();
    assert_eq!(sent.sequence, 2);
    w.answer_ok(&sent);
    w.assert_clean();
}

#[test]
fn a_session_that_goes_takes_its_slot_recalls_along() {
    let mut w = World::new(1);
    let sent_one = w.run_on(S1);
    w.send();
    let unsent = w.run_on(S1);
    w.core.remove_session(w.now_ns, S1, &mut w.host);
    assert_eq!(w.ended(sent_one), [Ended::Other(Outcome::Cancelled { sent: true })]);
    assert_eq!(w.ended(unsent), [Ended::Other(Outcome::Cancelled { sent: false })]);
    let none = w.run_on(S1);
    assert_eq!(w.ended(none), [Ended::Other(Outcome::Cancelled { sent: false })]);
    w.assert_clean();
}

#[test]
fn f12_whichever_connection_can_send_is_used() {
    let mut w = World::new(4);
    w.bind(S1, C2);
    let tokens = [w.recall(), w.recall()];
    let sent = w.sends_on(C2);
    assert_eq!(sent.iter().map(|s| s.token()).collect::<Vec<_>>(), tokens);
    w.disconnect(C1);
    sent.iter().for_each(|s| w.answer_ok(s));
    w.assert_clean();
}

#[test]
fn bad_session_condemns_the_connection_first() {
    let mut w = World::new(1);
    w.bind(S1, C2);
    let token = w.recall();
    let first = w.send();
    w.answer(&first, &first.sequence_status(Status::NFS4ERR_BADSESSION));
    assert!(w.host.events.contains(&Event::Unbound { session: S1, conn: C1 }));
    let second = w.send();
    assert_eq!((second.conn, &second.bytes[8..]), (C2, &first.bytes[8..]));
    assert_ne!(second.xid, first.xid, "the first was answered");
    w.answer(&second, &second.sequence_status(Status::NFS4ERR_BADSESSION));
    assert!(w.host.events.contains(&Event::SessionLost(S1)));
    assert_eq!(w.core.path_state(), PathState::Down);
    assert_eq!(w.core.census().slots_free, 1, "neither copy was executed");
    w.quiet();
    w.add_session(S2, 1);
    w.bind(S2, C1);
    let moved = w.send();
    assert_eq!((moved.token(), moved.session, moved.conn), (token, session_id(S2), C1));
    w.answer_ok(&moved);
    w.assert_clean();
}

#[test]
fn a_lost_session_that_is_bound_again_is_alive() {
    let mut w = World::new(2);
    let tokens = [w.recall(), w.recall()];
    let sent = w.sends();
    w.answer(&sent[0], &sent[0].sequence_status(Status::NFS4ERR_BADSESSION));
    assert_eq!(w.core.census().slots_quarantined, 1, "the other reply is still to come");
    w.bind(S1, C2);
    let again = w.send();
    assert_eq!(again.sequence, 1);
    w.answer(&sent[1], &sent[1].sequence_status(Status::NFS4ERR_BADSESSION));
    let resync = w.sends_on(C2);
    assert_eq!(resync.len(), 1);
    assert_eq!((resync[0].op, resync[0].slot, resync[0].sequence), (None, 1, 1));
    w.answer_ok(&resync[0]);
    w.answer_ok(&again);
    let last = w.send();
    w.answer_ok(&last);
    assert!(tokens.iter().all(|t| w.ended(*t) == [Ended::ok()]));
    w.assert_clean();
}

#[test]
fn a_connection_that_is_not_bound_hands_the_call_to_the_next() {
    let mut w = World::new(1);
    w.bind(S1, C2);
    let token = w.recall();
    let first = w.send();
    w.answer(&first, &first.sequence_status(Status::NFS4ERR_CONN_NOT_BOUND_TO_SESSION));
    let second = w.send();
    assert_eq!((second.conn, second.sequence, second.token()), (C2, 1, token));
    w.disconnect(C2);
    w.bind(S1, C3);
    let third = w.send();
    assert_eq!(third.bytes, second.bytes);
    w.answer(&third, &third.sequence_status(Status::NFS4ERR_CONN_NOT_BOUND_TO_SESSION));
    w.quiet();
    assert_eq!(w.core.census().slots_with_run, 1, "the second copy may have been executed: pinned");
    w.bind(S1, C3);
    let fourth = w.send();
    assert_eq!(fourth.bytes[8..], second.bytes[8..]);
    w.answer_ok(&fourth);
    w.assert_clean();
}

const LEASE_NS: u64 = 20 * S;

/// A client binds as many connections as it may, one after the other, and the first of them is in use.
fn crowded() -> (World, Sent) {
    let mut w = World::empty(Config { lease_ns: LEASE_NS, ..Config::default() });
    w.add_session(S1, 2);
    w.bind(S1, C1);
    w.recall();
    let sent = w.send();
    for conn in 2..=CONNECTIONS_MAX as u64 {
        w.now_ns += MS;
        w.bind(S1, ConnToken(conn));
    }
    (w, sent)
}

/// The network of the client was gone, and with it every connection that it had: none of them was closed.
#[test]
fn f3_the_connection_that_was_silent_for_longest_gives_way_to_a_new_one() {
    let (mut w, first) = crowded();
    w.core.heard(w.now_ns, C1);
    w.now_ns += LEASE_NS;
    let back = ConnToken(1000);
    w.bind(S1, back);
    assert!(w.host.events.contains(&Event::CloseConnection(C2)), "C1 was heard after it");
    assert!(!w.core.is_bound(S1, C2) && w.core.is_bound(S1, back) && w.core.is_bound(S1, C1));
    assert_eq!(w.core.counters().connections_condemned, 1);
    // One after the other goes; with the last one that is silent goes what was sent on it.
    for conn in 1..CONNECTIONS_MAX as u64 {
        w.bind(S1, ConnToken(1000 + conn));
    }
    assert!(w.host.events.contains(&Event::CloseConnection(C1)));
    w.conns.retain(|conn| *conn == back);
    let again = w.send();
    assert_eq!((again.conn, &again.bytes), (back, &first.bytes));
    w.answer_ok(&again);
    assert_eq!(w.ended(first.token()), [Ended::ok()]);
    w.assert_clean();
}

#[test]
fn a_client_that_was_heard_on_all_of_too_many_connections_gets_no_other() {
    let (mut w, first) = crowded();
    for conn in 1..=CONNECTIONS_MAX as u64 {
        w.core.heard(w.now_ns, ConnToken(conn));
    }
    w.now_ns += LEASE_NS - 1;
    let bound = w.core.bind(w.now_ns, S1, ConnToken(1000), &mut w.host);
    assert_eq!(bound, Err(AddError::TooManyConnections));
    assert_eq!(w.core.counters().connections_condemned, 0);
    w.bind(S1, C1);
    w.answer_ok(&first);
    w.assert_clean();
}

/// The client comes to the first copy after it has answered the second and given the slot up: what it took the copy for
/// would be the first request of the slot's new life.
#[test]
fn t26_a_slot_of_which_there_may_be_a_copy_does_not_start_anew() {
    for copied in [true, false] {
        let mut w = World::new(2);
        let tokens: Vec<_> = (0..2).map(|_| w.recall()).collect();
        let first = w.sends();
        let last = if copied {
            w.disconnect(C1);
            w.bind(S1, C2);
            w.sends()
        } else {
            first
        };
        assert_eq!(last.iter().map(|s| (s.slot, s.sequence)).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
        last.iter().for_each(|s| w.answer(s, &s.limits(Status::NFS4_OK, 0, 0)));
        assert!(tokens.iter().all(|t| w.ended(*t) == [Ended::ok()]));
        assert_eq!((w.core.census().slots_retired, w.core.census().slots_free), if copied { (1, 1) } else { (0, 2) });
        w.recall();
        let one = w.send();
        w.answer(&one, &one.limits(Status::NFS4_OK, 1, 1));
        for _ in 0..2 {
            w.recall();
        }
        let out: Vec<_> = w.sends().iter().map(|s| (s.slot, s.sequence)).collect();
        assert_eq!(out, if copied { vec![(0, 3)] } else { vec![(0, 3), (1, 1)] });
    }
}
