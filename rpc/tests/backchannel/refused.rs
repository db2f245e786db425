//! The client answers with something else than NFS4_OK, or with nonsense.

use crate::support::*;
use ringback_rpc::backchannel::{Event, Handled, Outcome, PathFault, PathState, Requeue, seq4_status};
use ringback_rpc::message::{AcceptStatus, AuthStatus, Rejected, ReplyBody, ReplyHeader};
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::nfs4::{SessionId, Status};

#[test]
fn statuses_of_the_operation_go_to_done() {
    for status in [
        Status::NFS4ERR_BAD_STATEID,
        Status::NFS4ERR_BADHANDLE,
        Status::NFS4ERR_NOTSUPP,
        Status::NFS4ERR_REP_TOO_BIG,
        Status::NFS4ERR_OP_NOT_IN_SESSION,
        Status::NFS4ERR_BADXDR,
        Status::NFS4ERR_BADSESSION,
        Status::NFS4ERR_SEQ_MISORDERED,
    ] {
        let mut w = World::new(1);
        let token = w.recall();
        let sent = w.send();
        w.answer(&sent, &sent.op_status(status, 1));
        assert_eq!(w.ended(token), [Ended::Replied(status, vec![])]);
        assert_eq!(w.core.is_unsupported(CallbackOp::Recall), status == Status::NFS4ERR_NOTSUPP);
        w.recall();
        assert_eq!(w.send().sequence, 2, "only CB_SEQUENCE's own status settles the slot");
    }
}

#[test]
fn other_errors_of_cb_sequence_leave_the_id() {
    for status in [Status::NFS4ERR_REQ_TOO_BIG, Status::NFS4ERR_TOO_MANY_OPS, Status::NFS4ERR_REP_TOO_BIG_TO_CACHE] {
        let mut w = World::new(1);
        let token = w.recall();
        let sent = w.send();
        w.answer(&sent, &sent.sequence_status(status));
        assert_eq!(w.ended(token), [Ended::Replied(status, vec![])]);
        w.recall();
        assert_eq!(w.send().sequence, 1);
    }
}

#[test]
fn t12_delay_for_ever_ends_by_the_deadline() {
    let mut w = World::new(2);
    let token = w.recall();
    let mut sends = 0;
    for _ in 0..1000 {
        for sent in w.sends() {
            sends += 1;
            w.answer(&sent, &sent.op_status(Status::NFS4ERR_DELAY, 2));
        }
        w.pass(100 * MS);
    }
    assert_eq!(w.ended(token), [Ended::Other(Outcome::TimedOut { sent: true })]);
    assert!((15..40).contains(&sends), "backoff: {sends}");
    w.assert_clean();
}

#[test]
fn t12_a_session_can_go_while_the_client_delays() {
    let mut w = World::new(1);
    let token = w.recall();
    let sent = w.send();
    w.answer(&sent, &sent.op_status(Status::NFS4ERR_DELAY, 1));
    w.core.remove_session(w.now_ns, S1, &mut w.host);
    w.add_session(S2, 1);
    w.bind(S2, C1);
    let other = w.recall();
    let sent = w.send();
    assert_eq!(sent.token(), other, "the delayed one keeps nobody waiting");
    w.answer_ok(&sent);
    w.core.drain(w.now_ns, w.now_ns + S, &mut w.host);
    assert_eq!(w.ended(token), [Ended::Other(Outcome::Cancelled { sent: true })]);
    w.assert_clean();
}

#[test]
fn sequence_delay_keeps_slot_and_id() {
    let mut w = World::new(1);
    let token = w.recall();
    let first = w.send();
    w.answer(&first, &first.sequence_status(Status::NFS4ERR_DELAY));
    let other = w.recall();
    w.quiet();
    w.pass(90 * MS);
    w.quiet();
    w.pass(100 * MS);
    let second = w.send();
    assert_eq!((second.token(), second.sequence), (token, 1));
    assert_ne!(second.xid, first.xid, "the first transmission was answered");
    w.answer_ok(&second);
    let third = w.send();
    assert_eq!((third.token(), third.sequence), (other, 2));
    assert_eq!(w.entry(token).requeues, []);
}

#[test]
fn sequence_delay_to_a_first_transmission_leaves_the_slot_known() {
    let mut w = World::new(1);
    let token = w.recall();
    for _ in 0..60 {
        for sent in w.sends() {
            w.answer(&sent, &sent.sequence_status(Status::NFS4ERR_DELAY));
        }
        w.pass(2 * S);
    }
    assert_eq!(w.ended(token), [Ended::Other(Outcome::TimedOut { sent: true })]);
    assert_eq!(w.core.census().slots_free, 1);
    w.recall();
    assert_eq!(w.send().sequence, 1);
}

#[test]
fn sequence_delay_to_a_resend_leaves_the_slot_unknown() {
    let mut w = World::new(1);
    let token = w.recall();
    let first = w.send();
    w.disconnect(C1);
    w.bind(S1, C2);
    for _ in 0..40 {
        for sent in w.sends() {
            assert_eq!(sent.bytes[8..], first.bytes[8..], "all but the xid");
            w.answer(&sent, &sent.sequence_status(Status::NFS4ERR_DELAY));
        }
        w.pass(2 * S);
    }
    w.pass(9 * S);
    w.sends().iter().for_each(|s| w.answer(s, &s.sequence_status(Status::NFS4ERR_DELAY)));
    w.pass(S);
    assert_eq!(w.ended(token), [Ended::Other(Outcome::TimedOut { sent: true })]);
    assert_eq!(w.core.census().slots_quarantined, 1);
    w.pass(6 * S);
    let resync = w.send();
    assert_eq!((resync.op, resync.sequence), (None, 1));
    w.answer(&resync, &resync.ok());
    w.assert_clean();
}

#[test]
fn t17_every_slot_misordered() {
    let mut w = World::new(2);
    let tokens = [w.recall(), w.recall(), w.recall()];
    let sent = w.sends();
    assert_eq!(sent.len(), 2);
    sent.iter().for_each(|s| w.answer(s, &s.sequence_status(Status::NFS4ERR_SEQ_MISORDERED)));
    w.quiet();
    assert!(w.host.events.contains(&Event::SessionFault { session: S1, fault: PathFault::NoSlots }));
    let down = seq4_status::CB_PATH_DOWN | seq4_status::CB_PATH_DOWN_SESSION;
    assert_eq!(w.core.seq4_status(Some(S1)), down | seq4_status::BACKCHANNEL_FAULT);
    assert_eq!((w.core.path_state(), w.core.census().slots_retired), (PathState::Fault, 2));
    w.bind(S1, C2);
    w.quiet();
    w.add_session(S2, 4);
    w.bind(S2, C1);
    let sent = w.sends();
    assert_eq!(sent.len(), 3);
    sent.iter().for_each(|s| w.answer_ok(s));
    assert!(tokens.iter().all(|t| w.ended(*t) == [Ended::ok()]));
    w.assert_clean();
}

#[test]
fn a_bad_slot_is_not_used_again() {
    let mut w = World::new(2);
    let token = w.recall();
    let sent = w.send();
    w.answer(&sent, &sent.sequence_status(Status::NFS4ERR_BADSLOT));
    let again = w.send();
    assert_eq!((again.token(), again.slot, again.sequence), (token, 1, 1));
    w.answer_ok(&again);
    w.recall();
    assert_eq!(w.send().slot, 1);
    assert_eq!(w.entry(token).requeues, [Requeue::SlotLost]);
}

#[test]
fn a_high_slot_waits_for_the_slots_above() {
    let mut w = World::new(4);
    let tokens: Vec<_> = (0..4).map(|_| w.recall()).collect();
    let sent = w.sends();
    w.answer_ok(&sent[1]);
    let refill = w.recall();
    let again = w.send();
    assert_eq!((again.token(), again.slot, again.highest), (refill, 1, 3));
    w.answer(&again, &again.sequence_status(Status::NFS4ERR_BAD_HIGH_SLOT));
    w.quiet();
    let late = w.recall();
    w.answer_ok(&sent[2]);
    w.answer(&sent[3], &sent[3].limits(Status::NFS4_OK, 1, 1));
    let lowered = w.send();
    assert_eq!((lowered.token(), lowered.slot, lowered.sequence, lowered.highest), (refill, 1, 2, 1));
    w.answer(&lowered, &lowered.limits(Status::NFS4_OK, 1, 1));
    w.answer_ok(&sent[0]);
    let sent = w.send();
    assert_eq!(sent.token(), late);
    w.answer_ok(&sent);
    assert!(tokens.iter().all(|t| w.ended(*t) == [Ended::ok()]));
    w.assert_clean();
}

/// The client has one slot left and says that its id is wrong: there is no reply to come that could give more.
#[test]
fn t17_the_last_slot_of_a_table_that_shrank_is_misordered() {
    for target in [0, 3] {
        let mut w = World::new(4);
        let (token, other) = (w.recall(), w.recall());
        let sent = w.sends();
        w.answer(&sent[0], &sent[0].limits(Status::NFS4_OK, 0, target));
        let next = w.recall();
        let last = w.send();
        assert_eq!((last.token(), last.slot), (next, 0));
        w.answer(&last, &last.sequence_status(Status::NFS4ERR_SEQ_MISORDERED));
        assert_eq!(w.core.seq4_status(Some(S1)), 0, "a reply is to come that may say more");
        w.answer(&sent[1], &sent[1].limits(Status::NFS4_OK, 0, target));
        assert_eq!(w.ended(token), w.ended(other));
        assert!(w.host.events.contains(&Event::SessionFault { session: S1, fault: PathFault::NoSlots }));
        assert_ne!(w.core.seq4_status(Some(S1)) & seq4_status::BACKCHANNEL_FAULT, 0);
        w.quiet();
        w.add_session(S2, 1);
        w.bind(S2, C1);
        let moved = w.send();
        assert_eq!((moved.token(), moved.session), (next, session_id(S2)));
        w.answer_ok(&moved);
    }
}

/// A target is a wish: it does not keep the client from its other slots when the wished ones are lost.
#[test]
fn t17_a_target_whose_slots_are_lost_is_passed_over() {
    let mut w = World::new(4);
    w.recall();
    let sent = w.send();
    w.answer(&sent, &sent.limits(Status::NFS4_OK, 3, 0));
    let token = w.recall();
    let sent = w.send();
    w.answer(&sent, &sent.sequence_status(Status::NFS4ERR_SEQ_MISORDERED));
    let again = w.send();
    assert_eq!((again.token(), again.slot), (token, 1));
    w.answer(&again, &again.limits(Status::NFS4_OK, 3, 0));
    assert_eq!(w.core.seq4_status(Some(S1)), 0);
    assert_eq!(w.core.census().slots_free, 3);
}

/// The client says one thing with NFS4ERR_BAD_HIGH_SLOT and the opposite with csr_highest_slotid. The higher slots drain
/// all the same, however much there is to send.
#[test]
fn t26_a_high_slot_does_not_wait_for_ever_in_a_steady_flow() {
    let mut w = World::new(4);
    for _ in 0..4 {
        w.recall();
    }
    let mut out = w.sends();
    w.answer_ok(&out.remove(1));
    w.recall();
    let refused = w.send();
    assert_eq!((refused.slot, refused.highest), (1, 3));
    w.answer(&refused, &refused.sequence_status(Status::NFS4ERR_BAD_HIGH_SLOT));
    for answers in 1.. {
        assert!(answers < 20, "still waiting");
        let sent = out.remove(0);
        w.answer(&sent, &sent.limits(Status::NFS4_OK, 3, 3));
        w.recall();
        w.recall();
        out.extend(w.sends());
        if let Some(again) = out.iter().find(|s| s.token() == refused.token()) {
            assert_eq!((again.slot, again.sequence, again.highest), (1, 2, 1));
            break;
        }
    }
    while !out.is_empty() {
        out.drain(..).for_each(|s| w.answer_ok(&s));
        out = w.sends();
    }
    assert_eq!(w.ended(refused.token()), [Ended::ok()]);
    w.assert_clean();
}

#[test]
fn a_high_slot_that_is_the_slot_itself_is_lost() {
    let mut w = World::new(2);
    let token = w.recall();
    let sent = w.send();
    w.answer(&sent, &sent.sequence_status(Status::NFS4ERR_BAD_HIGH_SLOT));
    let again = w.send();
    assert_eq!((again.token(), again.slot), (token, 1));
    w.answer_ok(&again);
    w.assert_clean();
}

#[test]
fn t26_the_table_shrinks_and_grows() {
    let mut w = World::new(4);
    let tokens: Vec<_> = (0..12).map(|_| w.recall()).collect();
    let first = w.sends();
    w.answer(&first[0], &first[0].limits(Status::NFS4_OK, 0, 0));
    let only = w.send();
    assert_eq!((only.slot, only.sequence, only.highest), (0, 2, 3));
    first[1..].iter().for_each(|s| w.answer(s, &s.limits(Status::NFS4_OK, 0, 0)));
    w.quiet();
    w.answer(&only, &only.limits(Status::NFS4_OK, 3, 1));
    let two = w.sends();
    assert_eq!(two.iter().map(|s| (s.slot, s.sequence)).collect::<Vec<_>>(), [(0, 3), (1, 1)]);
    w.answer(&two[0], &two[0].limits(Status::NFS4_OK, 3, 0));
    w.answer(&two[1], &two[1].limits(Status::NFS4_OK, 3, 0));
    let one = w.send();
    assert_eq!((one.slot, one.sequence), (0, 4));
    w.answer(&one, &one.limits(Status::NFS4_OK, 99, 99));
    let four = w.sends();
    let ids: Vec<_> = four.iter().map(|s| (s.slot, s.sequence)).collect();
    assert_eq!(ids, [(0, 5), (1, 2), (2, 1), (3, 1)], "slot 1 was never dropped since");
    four.iter().for_each(|s| w.answer_ok(s));
    assert!(tokens.iter().all(|t| w.ended(*t) == [Ended::ok()]));
    w.assert_clean();
}

#[test]
fn t27_a_wrong_echo_is_a_fault_and_never_a_drop() {
    type Edit = fn(&mut Sent);
    let edits: [Edit; 3] = [|s| s.session = SessionId([9; 16]), |s| s.slot ^= 1, |s| s.sequence += 1];
    for edit in edits {
        let mut w = World::new(2);
        let token = w.recall();
        let sent = w.send();
        let mut wrong = sent.clone();
        edit(&mut wrong);
        w.answer(&sent, &wrong.ok());
        assert!(w.host.events.contains(&Event::SessionFault { session: S1, fault: PathFault::WrongEcho }));
        assert_eq!(w.core.seq4_status(Some(S1)), seq4_status::BACKCHANNEL_FAULT);
        let again = w.send();
        assert_eq!((again.token(), again.slot), (token, 1));
        assert_eq!(w.core.census().slots_quarantined, 1);
        w.answer_ok(&again);
        assert_eq!(w.ended(token), [Ended::ok()]);
        w.pass(S);
        let resync = w.send();
        assert_eq!((resync.op, resync.slot, resync.sequence), (None, 0, 1));
        w.answer(&resync, &resync.ok());
        w.assert_clean();
    }
}

#[test]
fn f8_malformed_and_truncated_replies_lose_nothing() {
    let whole = {
        let mut w = World::new(1);
        w.recall();
        w.send().ok()
    };
    for len in 0..whole.len() {
        let mut w = World::new(2);
        let token = w.recall();
        let sent = w.send();
        assert_eq!(sent.ok(), whole);
        let handled = w.deliver(C1, &whole[..len]);
        if len < 8 {
            assert!(matches!(handled, Handled::Malformed(_)));
            assert_eq!(w.core.census().slots_with_run, 1, "it names no call");
            continue;
        }
        // From the end of CB_SEQUENCE's result on, the slot is settled.
        let taken = len >= whole.len() - 8;
        assert_eq!(matches!(handled, Handled::Malformed(_)), !taken, "{len}");
        w.pass(S);
        let mut sent = w.sends();
        sent.retain(|s| s.op.is_some());
        assert_eq!((sent.len(), sent[0].token()), (1, token));
        assert_eq!((sent[0].slot, sent[0].sequence), if taken { (0, 2) } else { (1, 1) });
        w.answer_ok(&sent[0]);
        assert_eq!(w.ended(token), [Ended::ok()]);
    }
}

#[test]
fn f8_a_result_of_another_operation_is_not_believed() {
    let mut w = World::new(1);
    let token = w.run(CallbackOp::Offload);
    let sent = w.send();
    let mut wrong = sent.clone();
    wrong.ops = vec![(CallbackOp::Recall as u32, token)];
    w.answer(&sent, &wrong.ok());
    assert_eq!(w.ended(token), [Ended::Other(Outcome::DeliveredUnknown)]);
    assert!(w.host.events.contains(&Event::SessionFault { session: S1, fault: PathFault::Malformed }));
    w.assert_clean();
}

#[test]
fn f8_a_call_is_no_reply() {
    let mut w = World::new(1);
    w.recall();
    let sent = w.send();
    assert!(matches!(w.deliver(C1, &sent.bytes[4..]), Handled::Malformed(_)));
    w.answer_ok(&sent);
    w.assert_clean();
}

#[test]
fn a_false_retry_moves_the_id_and_is_counted() {
    let mut w = World::new(1);
    let token = w.recall();
    let sent = w.send();
    w.answer(&sent, &sent.sequence_status(Status::NFS4ERR_SEQ_FALSE_RETRY));
    assert_eq!(w.core.counters().false_retries, 1);
    w.pass(S);
    let again = w.send();
    assert_eq!((again.token(), again.sequence), (token, 2));
    w.answer_ok(&again);
    assert_eq!(w.entry(token).requeues, [Requeue::FalseRetry]);
    w.assert_clean();
}

#[test]
fn a_slot_recall_that_is_delayed_stays_with_its_session() {
    let mut w = World::new(1);
    w.add_session(S2, 1);
    w.bind(S2, C2);
    let token = w.run_on(S1);
    let sent = w.send();
    w.answer(&sent, &sent.op_status(Status::NFS4ERR_DELAY, 1));
    w.quiet();
    w.pass(S);
    let again = w.send();
    assert_eq!((again.token(), again.session, again.sequence), (token, session_id(S1), 2));
    w.answer_ok(&again);
    w.assert_clean();
}

/// What the client may refuse a call with, and what that is called.
pub fn refusals(sent: &Sent) -> Vec<(Vec<u8>, PathFault)> {
    let denied = |why| ReplyHeader { xid: sent.xid, body: ReplyBody::Denied(why) };
    let auth = Rejected::AuthError(AuthStatus::BadCred);
    let version = Rejected::RpcMismatch { low: 3, high: 4 };
    let mut all = vec![
        (sent.header(denied(auth), |_| {}), PathFault::Denied(auth)),
        (sent.header(denied(version), |_| {}), PathFault::Denied(version)),
    ];
    for status in [
        AcceptStatus::ProgUnavail,
        AcceptStatus::ProgMismatch { low: 4, high: 4 },
        AcceptStatus::ProcUnavail,
        AcceptStatus::GarbageArgs,
        AcceptStatus::SystemErr,
    ] {
        let reply = sent.header(ReplyHeader::accepted(sent.xid, status), |_| {});
        all.push((reply, PathFault::NotExecuted(status)));
    }
    for status in [Status::NFS4ERR_MINOR_VERS_MISMATCH, Status::NFS4ERR_RESOURCE] {
        all.push((sent.empty(status), PathFault::NoResults(status)));
    }
    all
}

#[test]
fn what_the_client_refuses_ends_as_a_fault() {
    let count = {
        let mut w = World::new(1);
        w.recall();
        refusals(&w.send()).len()
    };
    for i in 0..count {
        let mut w = World::new(1);
        let token = w.recall();
        let sent = w.send();
        let (reply, fault) = refusals(&sent).swap_remove(i);
        w.answer(&sent, &reply);
        assert_eq!(w.ended(token), [Ended::Other(Outcome::Fault(fault))]);
        assert_eq!(w.core.path_state(), PathState::Fault);
        assert_eq!(w.core.seq4_status(Some(S1)), seq4_status::BACKCHANNEL_FAULT);
        w.recall();
        let next = w.send();
        w.answer(&next, &refusals(&next).swap_remove(i).0);
        let told = w.host.events.iter().filter(|e| **e == Event::SessionFault { session: S1, fault }).count();
        assert_eq!(told, 1, "once until it accepts something");
        w.recall();
        let next = w.send();
        assert_eq!(next.sequence, 1, "the slot's id stays");
        w.answer_ok(&next);
        assert_eq!((w.core.path_state(), w.core.seq4_status(Some(S1))), (PathState::Up, 0));
        w.assert_clean();
    }
}

#[test]
fn a_refusal_after_a_resend_leaves_the_slot_unknown() {
    let mut w = World::new(1);
    let token = w.recall();
    w.send();
    w.disconnect(C1);
    w.bind(S1, C2);
    let again = w.send();
    let (reply, fault) = refusals(&again).swap_remove(0);
    w.answer(&again, &reply);
    assert_eq!(w.ended(token), [Ended::Other(Outcome::Fault(fault))]);
    assert_eq!(w.core.census().slots_quarantined, 1);
}

#[test]
fn f9_a_verdict_on_old_parameters_does_not_count() {
    let mut w = World::new(1);
    let token = w.recall();
    let sent = w.send();
    w.core.control(S1, 0x7777, &sys(3), &mut w.host).unwrap();
    let (reply, _) = refusals(&sent).swap_remove(0);
    w.answer(&sent, &reply);
    assert_eq!(w.core.path_state(), PathState::Up);
    let again = w.send();
    assert_eq!((again.token(), again.program, again.sequence), (token, 0x7777, 1));
    w.answer_ok(&again);
    w.assert_clean();
}

#[test]
fn another_session_takes_what_one_refuses() {
    let mut w = World::new(1);
    let token = w.recall();
    let sent = w.send();
    w.add_session(S2, 1);
    w.bind(S2, C2);
    let (reply, _) = refusals(&sent).swap_remove(0);
    w.answer(&sent, &reply);
    w.pass(S);
    let moved = w.send();
    assert_eq!((moved.token(), moved.session), (token, session_id(S2)));
    assert_eq!(w.entry(token).requeues, [Requeue::Refused]);
    let waiting = w.recall();
    w.quiet();
    w.core.control(S1, 1, &sys(1), &mut w.host).unwrap();
    assert_eq!(w.send().token(), waiting, "new parameters, new trust");
    w.answer_ok(&moved);
    assert_eq!(w.ended(token), [Ended::ok()]);
}
