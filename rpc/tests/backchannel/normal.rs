//! Nothing goes wrong.

use crate::support::*;
use ringback_rpc::backchannel::{
    AddError, ClientState, Config, Credential, Event, Handled, Host, Outcome, PathState, Requeue, SessionKey, Transmit,
};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::CallbackOp;

#[test]
fn a_recall_goes_out_and_its_answer_comes_back() {
    let mut w = World::new(4);
    assert_eq!(w.host.events, [Event::Path(PathState::Up)]);
    assert_eq!(w.core.seq4_status(Some(S1)), 0);
    let token = w.recall();
    let sent = w.send();
    assert_eq!((sent.sequence, sent.slot, sent.highest), (1, 0, 0));
    assert_eq!(sent.op, Some((CallbackOp::Recall as u32, token)));
    assert_eq!(sent.program, PROGRAM);
    assert_eq!(&sent.credential[..4], 7u32.to_be_bytes(), "the AUTH_SYS stamp");
    let with_result = sent.reply(|r| {
        words(r, &[0, 0, 2, CallbackOp::Sequence as u32, 0]);
        sent.echo(r, 3, 3);
        words(r, &[CallbackOp::Recall as u32, 0, 0xabcd]);
    });
    w.answer(&sent, &with_result);
    assert_eq!(w.ended(token), [Ended::Replied(Status::NFS4_OK, vec![0, 0, 0xab, 0xcd])]);
    w.assert_clean();
    assert!(w.core.poll_timeout().is_none_or(|t| t > w.now_ns));
}

/// What came in together is handled together, up to what settles nothing: that is told, and what is behind it waits.
#[test]
fn replies_that_come_in_together_are_all_handled() {
    let mut w = World::new(4);
    let tokens: Vec<_> = (0..4).map(|_| w.recall()).collect();
    let sent = w.sends();
    let mut stranger = sent[0].ok();
    stranger[0] ^= 0x80;
    let delayed = sent[2].op_status(Status::NFS4ERR_DELAY, 4);
    let replies = [sent[1].ok(), stranger, sent[0].ok(), sent[1].ok(), delayed, sent[3].ok()];
    let mut replies = replies.iter().map(Vec::as_slice);
    let mut handle = |w: &mut World| w.core.handle_records(w.now_ns, C1, &mut replies, &mut w.host);
    assert_eq!(handle(&mut w), Some(Handled::UnknownXid));
    assert_eq!((w.ended(tokens[1]), w.ended(tokens[0])), (&[Ended::ok()][..], &[][..]));
    assert_eq!(handle(&mut w), Some(Handled::Late), "a duplicate");
    assert_eq!(handle(&mut w), None);
    assert_eq!((w.ended(tokens[0]), w.ended(tokens[3])), (&[Ended::ok()][..], &[Ended::ok()][..]));
    assert!(w.ended(tokens[2]).is_empty(), "it is sent again later");
    assert_eq!(w.core.counters().replies, 4);
    assert_eq!(
        w.core.handle_records(w.now_ns, C2, &mut [&*sent[0].ok()].into_iter(), &mut w.host),
        Some(Handled::Late)
    );
    assert_eq!(w.core.handle_records(w.now_ns, C2, &mut std::iter::empty(), &mut w.host), None);
}

#[test]
fn t3_slots_fill_and_all_come_back() {
    let mut w = World::new(4);
    let tokens: Vec<_> = (0..10).map(|_| w.recall()).collect();
    let mut order = Vec::new();
    let mut out = w.sends();
    assert_eq!(out.len(), 4);
    assert_eq!(out.iter().map(|s| (s.slot, s.highest)).collect::<Vec<_>>(), [(0, 0), (1, 1), (2, 2), (3, 3)]);
    while let Some(sent) = out.pop() {
        w.answer_ok(&sent);
        order.push(sent.token());
        out.extend(w.sends());
    }
    order.sort();
    assert_eq!(order, tokens);
    for token in tokens {
        assert_eq!(w.ended(token), [Ended::ok()]);
    }
    w.assert_clean();
    assert_eq!((w.core.census().slots, w.core.census().slots_free), (4, 4));
}

/// Runs that come together, linked, are served in their order, as if they had come one by one.
#[test]
fn runs_that_come_linked_keep_their_order() {
    let mut w = World::new(8);
    let come = |w: &mut World, count: u32| -> Vec<_> {
        let tokens: Vec<_> = (0..count).map(|_| w.new_entry(CallbackOp::Recall)).collect();
        tokens.windows(2).for_each(|pair| w.host.set_link(pair[0], Some(pair[1])));
        w.core.enqueue_all(tokens[0], tokens[tokens.len() - 1], count, &mut w.host);
        tokens
    };
    let mut order = vec![w.recall()];
    order.extend(come(&mut w, 3));
    order.push(w.recall());
    order.extend(come(&mut w, 1));
    order.extend(come(&mut w, 2));
    assert_eq!((w.core.run_count(), w.core.census().runs_queued), (8, 8));
    let out = w.sends();
    assert_eq!(out.iter().map(Sent::token).collect::<Vec<_>>(), order);
    out.iter().for_each(|sent| w.answer_ok(sent));
    // Where nothing is sent any more, each of them ends.
    w.core.set_client_state(w.now_ns, ClientState::Courtesy, &mut w.host);
    for token in come(&mut w, 4) {
        assert_eq!(w.ended(token), [Ended::Other(Outcome::Courtesy)]);
    }
    w.assert_clean();
    assert_eq!(w.core.counters().started, 12);
}

/// Whatever sends a run back to its queue, no session slot stays behind with it.
#[test]
fn t3_a_requeue_gives_its_slot_back() {
    type Answer = fn(&Sent) -> Vec<u8>;
    let answers: [(Answer, Requeue, u32); 7] = [
        (|s| s.op_status(Status::NFS4ERR_DELAY, 3), Requeue::Delay, 0),
        (|s| s.op_status(Status::NFS4ERR_RETRY_UNCACHED_REP, 3), Requeue::UncachedReply, 0),
        (|s| s.sequence_status(Status::NFS4ERR_SEQ_FALSE_RETRY), Requeue::FalseRetry, 0),
        (|s| s.sequence_status(Status::NFS4ERR_CONN_NOT_BOUND_TO_SESSION), Requeue::NotBound, 0),
        (|s| s.sequence_status(Status::NFS4ERR_BADSESSION), Requeue::SessionLost, 0),
        (|s| s.sequence_status(Status::NFS4ERR_BADSLOT), Requeue::SlotLost, 1),
        (|s| Sent { sequence: s.sequence + 7, ..s.clone() }.ok(), Requeue::BadReply, 0),
    ];
    for (answer, why, retired) in answers {
        let mut w = World::new(3);
        let token = w.recall();
        let sent = w.send();
        w.answer(&sent, &answer(&sent));
        // A connection that the client does not know for the session is bound anew.
        w.bind(S1, C1);
        for _ in 0..5 {
            w.pass(2 * S);
            w.sends().iter().for_each(|s| w.answer_ok(s));
        }
        assert_eq!(w.entry(token).requeues, [why]);
        assert_eq!(w.ended(token), [Ended::ok()]);
        w.assert_clean();
        assert_eq!((w.core.census().slots_free, w.core.census().slots_retired), (3 - retired, retired), "{why:?}");
    }
}

#[test]
fn t24_a_thousand_recalls_over_one_slot() {
    let mut w = World::new(1);
    let mut client = ModelClient::new(1);
    client.create(S1);
    let tokens: Vec<_> = (0..1000).map(|_| w.recall()).collect();
    for (i, token) in tokens.iter().enumerate() {
        let sent = w.send();
        assert_eq!((sent.token(), sent.sequence), (*token, i as u32 + 1));
        let reply = client.execute(&sent);
        w.answer(&sent, &reply);
    }
    w.quiet();
    w.assert_clean();
}

#[test]
fn classes_go_in_order_and_none_starves() {
    let mut w = World::new(1);
    for _ in 0..40 {
        w.run(CallbackOp::RecallAny);
        w.run(CallbackOp::Recall);
        w.run(CallbackOp::Getattr);
    }
    let mut order = Vec::new();
    while let Some(sent) = w.sends().pop() {
        order.push(sent.op.unwrap().0);
        w.answer_ok(&sent);
    }
    let first = |op: CallbackOp| order.iter().position(|o| *o == op as u32).unwrap();
    assert_eq!(first(CallbackOp::Getattr), 0);
    assert_eq!(first(CallbackOp::Recall), 4);
    assert_eq!(first(CallbackOp::RecallAny), 16);
    let getattrs = order[..40].iter().filter(|o| **o == CallbackOp::Getattr as u32).count();
    assert!(getattrs >= 28, "{getattrs}");
}

#[test]
fn a_refused_prepare_ends_the_run_and_costs_no_slot() {
    let mut w = World::new(1);
    let refused = w.recall();
    w.entry(refused).refuse = true;
    let next = w.recall();
    let sent = w.send();
    assert_eq!((sent.token(), sent.sequence), (next, 1));
    assert_eq!(w.ended(refused), [Ended::Other(Outcome::Refused)]);
    w.answer_ok(&sent);
    w.assert_clean();
}

#[test]
fn what_does_not_fit_waits_or_ends() {
    let mut w = World::new(1);
    let token = w.recall();
    w.entry(token).args_bytes = 1000;
    let mut small = [0; 600];
    assert_eq!(w.core.poll_transmit(w.now_ns, C1, &mut small[..20], &mut w.host), Transmit::NoSpace);
    assert_eq!(w.core.poll_transmit(w.now_ns, C1, &mut small, &mut w.host), Transmit::NoSpace);
    assert_eq!(w.core.census().slots_free, 1);
    let sent = w.send();
    assert_eq!((sent.token(), sent.sequence, w.entry(token).prepared), (token, 1, 1));
    w.answer_ok(&sent);
    let token = w.recall();
    w.entry(token).args_bytes = 5000;
    w.quiet();
    assert!(matches!(w.ended(token), [Ended::Other(Outcome::Unencodable(_))]));
    w.assert_clean();
}

#[test]
fn done_may_ask_for_another_transmission() {
    for op in [CallbackOp::Recall, CallbackOp::RecallSlot] {
        let mut w = World::new(2);
        let token = w.start(op);
        w.entry(token).asks.push_back(300 * MS);
        let sent = w.send();
        w.answer(&sent, &sent.op_status(Status::NFS4ERR_BAD_STATEID, 2));
        w.quiet();
        w.pass(299 * MS);
        w.quiet();
        w.pass(101 * MS);
        let again = w.send();
        assert_eq!((again.token(), again.sequence), (token, 2), "{op}");
        assert_ne!(again.xid, sent.xid);
        w.answer_ok(&again);
        assert_eq!(w.ended(token), [Ended::Replied(Status::NFS4ERR_BAD_STATEID, vec![]), Ended::ok()]);
        w.assert_clean();
    }
}

#[test]
fn t28_xids_wrap() {
    let mut w = World::empty(Config { first_xid: (1 << 20) - 1, ..Config::default() });
    w.add_session(S1, 2);
    w.bind(S1, C1);
    let mut xids = Vec::new();
    for _ in 0..3 {
        w.recall();
        let sent = w.send();
        xids.push(sent.xid);
        w.answer_ok(&sent);
    }
    assert_eq!(xids, [0xffff_f000, 0, 0x1000]);
    w.assert_clean();
}

#[test]
fn t28_unknown_and_duplicate_replies_change_nothing() {
    let mut w = World::new(2);
    w.bind(S1, C2);
    let token = w.recall();
    let sent = w.send();
    assert_eq!(sent.conn, C1);
    let mut foreign = sent.clone();
    foreign.xid = sent.xid.wrapping_add(0x7777_7000);
    assert_eq!(w.deliver(C1, &foreign.ok()), Handled::UnknownXid);
    assert_eq!(w.deliver(C2, &sent.ok()), Handled::Late, "not the connection that it was sent on");
    assert_eq!(w.ended(token), []);
    w.answer_ok(&sent);
    assert_eq!(w.deliver(C1, &sent.ok()), Handled::Late);
    let next = w.recall();
    let sent_next = w.send();
    assert_eq!((sent_next.slot, sent_next.sequence), (0, 2));
    assert_eq!(w.deliver(C1, &sent.ok()), Handled::Late, "a duplicate while the slot is in use again");
    assert_eq!(w.ended(next), []);
    w.answer_ok(&sent_next);
    assert_eq!(w.ended(token).len(), 1);
    assert_eq!((w.core.counters().replies_late, w.core.counters().replies_unknown), (3, 1));
    w.assert_clean();
    // What is to be sent again is not answered twice either.
    w.recall();
    let sent = w.send();
    let delay = sent.sequence_status(Status::NFS4ERR_DELAY);
    w.answer(&sent, &delay);
    assert_eq!(w.deliver(C1, &delay), Handled::Late);
    assert_eq!(w.deliver(C1, &sent.ok()), Handled::Late);
    assert_eq!(w.core.counters().delays, 1);
}

#[test]
fn limits_of_a_client() {
    let mut w = World::empty(Config::default());
    let mut add = |key: SessionKey, edit: &dyn Fn(&mut ringback_rpc::backchannel::SessionParams)| {
        let mut p = params(key, 8);
        edit(&mut p);
        w.core.add_session(key, &p, &mut w.host)
    };
    assert_eq!(add(S1, &|p| p.slots = 0), Err(AddError::TooManySlots));
    assert_eq!(add(S1, &|p| p.slots = 1025), Err(AddError::TooManySlots));
    assert_eq!(add(S1, &|p| p.operations_max = 1), Err(AddError::TooSmall));
    assert_eq!(add(S1, &|p| p.request_bytes_max = 100), Err(AddError::TooSmall));
    assert_eq!(add(S1, &|p| p.minor_version = 0), Err(AddError::MinorVersion(0)));
    for key in 1..=4 {
        assert_eq!(add(SessionKey(key), &|p| p.slots = 1024), Ok(()));
    }
    assert_eq!(add(S1, &|_| {}), Err(AddError::KeyInUse));
    assert_eq!(add(SessionKey(5), &|_| {}), Err(AddError::TooManySlots));
    assert!(w.core.remove_session(w.now_ns, S2, &mut w.host));
    w.add_session(SessionKey(6), 1000);
    w.add_session(SessionKey(7), 24);
    w.bind(SessionKey(7), C1);
    w.recall();
    let sent = w.send();
    assert_eq!(sent.session, session_id(SessionKey(7)));
    w.answer_ok(&sent);
    w.assert_clean();
}

#[test]
fn t19_a_courtesy_client_is_not_called() {
    let mut w = World::new(1);
    let out = w.recall();
    let sent = w.send();
    let waiting = w.recall();
    w.core.set_client_state(w.now_ns, ClientState::Courtesy, &mut w.host);
    let fresh = w.recall();
    for token in [out, waiting, fresh] {
        assert_eq!(w.ended(token), [Ended::Other(Outcome::Courtesy)]);
    }
    assert_eq!(w.core.census().slots_quarantined, 1, "the client may still answer");
    w.answer_ok(&sent);
    w.core.set_client_state(w.now_ns, ClientState::Active, &mut w.host);
    let back = w.recall();
    let sent = w.send();
    assert_eq!((sent.token(), sent.sequence), (back, 2));
    w.answer_ok(&sent);
    w.assert_clean();
}

#[test]
fn t18_prepare_runs_once_however_often_it_is_sent() {
    let mut w = World::new(1);
    let token = w.recall();
    for _ in 0..3 {
        let sent = w.send();
        w.answer(&sent, &sent.op_status(Status::NFS4ERR_DELAY, 1));
        w.pass(6 * S);
    }
    let sent = w.send();
    w.answer_ok(&sent);
    assert_eq!(w.entry(token).prepared, 1);
    w.assert_clean();
}

#[test]
fn credentials_are_encoded_as_opaque_auth() {
    assert_eq!(Credential::none(), Credential::opaque(ringback_rpc::message::OpaqueAuth::NONE));
}
