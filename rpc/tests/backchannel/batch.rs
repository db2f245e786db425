//! Several callbacks in one call.

use crate::support::*;
use ringback_rpc::backchannel::{
    ClientState, Config, Event, Handled, Outcome, PathFault, PathState, Requeue, SessionParams, Token, Transmit,
};
use ringback_rpc::message::{AcceptStatus, ReplyHeader};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::CallbackOp;

const DELAY: Status = Status::NFS4ERR_DELAY;

fn recalls(w: &mut World, count: usize) -> Vec<Token> {
    (0..count).map(|_| w.recall()).collect()
}

/// The client answers all that goes out, until nothing does.
fn answer_all(w: &mut World) {
    loop {
        let sent = w.sends();
        if sent.is_empty() {
            break;
        }
        sent.iter().for_each(|s| w.answer_ok(s));
    }
}

#[test]
fn what_is_ready_goes_together_within_the_clients_limits() {
    let mut w = World::batching(4, 6);
    let tokens = recalls(&mut w, 12);
    let sent = w.sends();
    assert_eq!(sent.iter().map(|s| s.ops.len()).collect::<Vec<_>>(), [5, 5, 2]);
    assert_eq!(sent.iter().flat_map(Sent::tokens).collect::<Vec<_>>(), tokens);
    let census = w.core.census();
    assert_eq!((census.slots_with_run, census.runs_sent), (3, 12));
    assert_eq!((w.core.counters().calls_sent, w.core.counters().callbacks_sent), (3, 12));
    sent.iter().for_each(|s| w.answer_ok(s));
    assert!(tokens.iter().all(|t| w.ended(*t) == [Ended::ok()]));
    w.assert_clean();
    let one = w.recall();
    assert_eq!(w.send().tokens(), [one], "nothing waits for company");
}

#[test]
fn bytes_responses_and_our_own_limit_bound_a_batch() {
    let sizes = |config: Config, edit: &dyn Fn(&mut SessionParams), args_bytes: usize| {
        let mut w = World::empty(config);
        let mut p = SessionParams { operations_max: 100, ..params(S1, 4) };
        edit(&mut p);
        w.core.add_session(S1, &p, &mut w.host).unwrap();
        w.bind(S1, C1);
        for token in recalls(&mut w, 40) {
            w.entry(token).args_bytes = args_bytes;
        }
        let sent = w.sends();
        assert!(sent.iter().all(|s| s.bytes.len() <= p.request_bytes_max as usize + 4));
        sent[0].ops.len()
    };
    assert_eq!(sizes(Config::default(), &|_| {}, 16), 16);
    assert_eq!(sizes(Config { batch_max: 7, ..Config::default() }, &|_| {}, 16), 7);
    assert_eq!(sizes(Config { batch_max: 0, ..Config::default() }, &|_| {}, 16), 1);
    assert_eq!(sizes(Config { batch_max: 9999, ..Config::default() }, &|_| {}, 16), 40);
    assert_eq!(sizes(Config::default(), &|p| p.response_bytes_max = 84 + 3 * 8, 16), 4);
    assert_eq!(sizes(Config::default(), &|p| p.request_bytes_max = 1024, 392), 2, "a third one does not fit");
}

#[test]
fn what_does_not_fit_is_prepared_once_and_goes_next() {
    let mut w = World::batching(4, 16);
    let tokens = recalls(&mut w, 3);
    w.entry(tokens[1]).args_bytes = 3940;
    let sent = w.sends();
    let ops: Vec<_> = sent.iter().map(Sent::tokens).collect();
    assert_eq!(ops, [vec![tokens[0]], vec![tokens[1]], vec![tokens[2]]]);
    assert_eq!(w.entry(tokens[1]).prepared, 1);
    sent.iter().for_each(|s| w.answer_ok(s));
    // A buffer that is short ends a batch, too.
    recalls(&mut w, 16);
    let mut space = [0; 600];
    assert!(matches!(w.core.poll_transmit(w.now_ns, C1, &mut space, &mut w.host), Transmit::Wrote(_)));
    assert!((2..16).contains(&w.core.census().runs_sent));
}

#[test]
fn some_operations_go_alone() {
    let mut w = World::batching(8, 16);
    let getattrs = [w.run(CallbackOp::Getattr), w.run(CallbackOp::Getattr)];
    let slots = [w.run_on(S1), w.run_on(S1)];
    let (recall, offload) = (w.recall(), w.run(CallbackOp::Offload));
    let mut ops: Vec<_> = w.sends().iter().map(Sent::tokens).collect();
    ops.sort();
    let alone = getattrs.iter().chain(&slots).map(|t| vec![*t]);
    let expected: Vec<_> = alone.chain([vec![recall, offload]]).collect();
    assert_eq!(ops, expected);
}

#[test]
fn runs_that_need_not_be_sent_take_no_place() {
    let mut w = World::batching(1, 16);
    let tokens = recalls(&mut w, 4);
    w.entry(tokens[1]).refuse = true;
    w.entry(tokens[3]).refuse = true;
    let sent = w.send();
    assert_eq!(sent.tokens(), [tokens[0], tokens[2]]);
    assert_eq!(w.ended(tokens[1]), [Ended::Other(Outcome::Refused)]);
    w.answer_ok(&sent);
    w.assert_clean();
}

#[test]
fn t31_processing_stops_at_each_operation_in_turn() {
    for (count, k) in (2..=9).flat_map(|count| (0..count).map(move |k| (count, k))) {
        let mut w = World::batching(1, 10);
        let mut client = ModelClient::new(1);
        client.create(S1);
        let tokens = recalls(&mut w, count);
        let first = w.send();
        assert_eq!(first.tokens(), tokens);
        let later = w.recall();
        let reply = client.execute_until(&first, Some((k, Status::NFS4ERR_BAD_STATEID)));
        w.answer(&first, &reply);
        for (i, token) in tokens.iter().enumerate() {
            let expected = match i {
                _ if i < k => vec![Ended::ok()],
                _ if i == k => vec![Ended::Replied(Status::NFS4ERR_BAD_STATEID, vec![])],
                _ => vec![],
            };
            assert_eq!(w.ended(*token), expected, "{i} of {count}, {k} fails");
        }
        // What was not reached goes first and in its order, once more; a fresh run takes its turn with them.
        let second = w.send();
        let mut again = second.tokens();
        assert!(again.contains(&later));
        again.retain(|t| *t != later);
        assert_eq!((again, second.sequence), (tokens[k + 1..].to_vec(), 2));
        for token in &tokens[k + 1..] {
            assert_eq!(w.entry(*token).requeues, [Requeue::NotReached]);
        }
        let reply = client.execute(&second);
        w.answer(&second, &reply);
        let executed = |t: &Token| client.executed.get(t).copied().unwrap_or(0);
        assert!(tokens.iter().enumerate().all(|(i, t)| executed(t) == u32::from(i != k)));
        assert!(w.host.entries.iter().all(|e| e.prepared == 1 && e.ended.len() == 1));
        w.assert_clean();
    }
}

#[test]
fn t31_the_operation_that_failed_goes_alone_the_next_time() {
    let mut w = World::batching(1, 10);
    let tokens = recalls(&mut w, 5);
    let first = w.send();
    w.answer(&first, &first.stopped(1, DELAY, 1));
    assert_eq!(w.core.census().runs_delayed, 1);
    let second = w.send();
    assert_eq!(second.tokens(), tokens[2..]);
    w.answer_ok(&second);
    w.disconnect(C1);
    w.pass(S);
    let fresh = recalls(&mut w, 3);
    w.bind(S1, C2);
    let mut ops = Vec::new();
    while let Some(sent) = w.sends().pop() {
        ops.push(sent.tokens());
        w.answer_ok(&sent);
    }
    assert!(ops.contains(&vec![tokens[1]]), "{ops:?}");
    let others: Vec<_> = ops.concat().into_iter().filter(|t| *t != tokens[1]).collect();
    assert_eq!(others, fresh);
    assert_eq!(w.entry(tokens[1]).requeues, [Requeue::Delay]);
    w.assert_clean();
}

/// A callback that is put off for ever is sent again and again by itself; the others do not pay for it.
#[test]
fn t12_delay_for_ever_does_not_send_the_rest_of_its_batch_again() {
    let mut w = World::batching(1, 10);
    let mut tokens = recalls(&mut w, 9);
    let delayed = tokens[4];
    let mut sent_ops = 0;
    for _ in 0..60 {
        while let Some(sent) = w.sends().pop() {
            sent_ops += sent.tokens().iter().filter(|t| **t != delayed).count();
            match sent.tokens().iter().position(|t| *t == delayed) {
                Some(at) => w.answer(&sent, &sent.stopped(at, DELAY, 1)),
                None => w.answer_ok(&sent),
            }
        }
        w.pass_alive(1);
        tokens.extend(recalls(&mut w, 9));
    }
    w.sends().iter().for_each(|s| w.answer_ok(s));
    let others = tokens.len() - 1 - 9;
    assert_eq!(sent_ops, others + 4, "the four behind it in the first batch went twice");
}

#[test]
fn t31_done_may_ask_again_for_each() {
    let mut w = World::batching(1, 10);
    let tokens = recalls(&mut w, 4);
    w.entry(tokens[0]).asks.push_back(100 * MS);
    w.entry(tokens[2]).asks.push_back(100 * MS);
    let first = w.send();
    w.answer(&first, &first.stopped(2, Status::NFS4ERR_BAD_STATEID, 1));
    let rest = w.send();
    assert_eq!(rest.tokens(), tokens[3..]);
    w.answer_ok(&rest);
    w.pass(S);
    let mut ops = Vec::new();
    while let Some(sent) = w.sends().pop() {
        ops.push(sent.tokens());
        w.answer_ok(&sent);
    }
    ops.sort();
    assert_eq!(ops, [vec![tokens[0]], vec![tokens[2]]], "the one that failed goes alone");
    w.assert_clean();
}

#[test]
fn what_was_not_reached_does_not_count_against_the_client() {
    let mut w = World::batching(1, 10);
    let tokens = recalls(&mut w, 3);
    let sent = w.send();
    w.answer(&sent, &sent.stopped(1, DELAY, 1));
    w.disconnect(C1);
    w.pass(90 * S);
    assert_eq!(w.ended(tokens[1]), [Ended::Other(Outcome::TimedOut { sent: true })]);
    assert_eq!(w.ended(tokens[2]), [Ended::Other(Outcome::TimedOut { sent: false })]);
    w.assert_clean();
}

#[test]
fn a_batch_is_sent_again_with_the_same_bytes() {
    let mut w = World::batching(2, 10);
    let mut client = ModelClient::new(2);
    client.create(S1);
    let tokens = recalls(&mut w, 6);
    let offload = w.run(CallbackOp::Offload);
    let first = w.send();
    assert_eq!(first.ops.len(), 7);
    w.disconnect(C1);
    w.quiet();
    w.bind(S1, C2);
    let second = w.send();
    assert_eq!(second.bytes, first.bytes);
    let reply = client.execute(&second);
    w.disconnect(C2);
    w.bind(S1, C3);
    let third = w.send();
    assert_eq!(third.bytes, first.bytes);
    assert_eq!(w.deliver(C2, &reply), Handled::Late);
    let reply = client.execute(&third);
    w.answer(&third, &reply);
    assert_eq!(w.ended(offload), [Ended::Other(Outcome::DeliveredUnknown)], "all were taken, nobody knows how it went");
    let again = w.send();
    assert_eq!((again.tokens(), again.sequence), (tokens.clone(), 2));
    assert!(tokens.iter().all(|t| w.host.entries[t.0 as usize].requeues == [Requeue::UncachedReply]));
    let reply = client.execute(&again);
    w.answer(&again, &reply);
    assert_eq!(client.executed[&offload], 1);
    w.assert_clean();
}

#[test]
fn a_torn_batch_stays_for_its_reply() {
    for leaver in 0..4 {
        let mut w = World::batching(1, 10);
        let tokens = recalls(&mut w, 4);
        let sent = w.send();
        assert!(w.core.cancel(w.now_ns, tokens[leaver], &mut w.host));
        assert!(!w.core.cancel(w.now_ns, tokens[leaver], &mut w.host));
        assert_eq!(w.core.census().runs_sent, 3);
        w.quiet();
        w.answer(&sent, &sent.stopped(2, Status::NFS4ERR_BADHANDLE, 1));
        assert_eq!(w.ended(tokens[leaver]), [Ended::Other(Outcome::Cancelled { sent: true })]);
        for (i, token) in tokens.iter().enumerate().filter(|(i, _)| *i != leaver) {
            let expected = match i {
                2 => vec![Ended::Replied(Status::NFS4ERR_BADHANDLE, vec![])],
                3 => vec![],
                _ => vec![Ended::ok()],
            };
            assert_eq!(w.ended(*token), expected);
        }
        answer_all(&mut w);
        w.assert_clean();
    }
}

#[test]
fn t16_a_torn_batch_is_not_sent_again() {
    let mut w = World::batching(1, 10);
    let tokens = recalls(&mut w, 3);
    let offload = w.run(CallbackOp::Offload);
    let first = w.send();
    w.core.cancel(w.now_ns, tokens[1], &mut w.host);
    w.disconnect(C1);
    assert_eq!(w.core.census().runs_sent, 3, "pinned like any call that was sent");
    w.bind(S1, C2);
    let resync = w.send();
    assert_eq!((resync.ops.len(), resync.sequence), (0, 1));
    assert_ne!(resync.xid, first.xid);
    assert_eq!(w.ended(offload), [Ended::Other(Outcome::DeliveredUnknown)]);
    assert_eq!(w.entry(tokens[0]).requeues, [Requeue::BatchTorn]);
    w.answer(&resync, &resync.sequence_status(Status::NFS4ERR_TOO_MANY_OPS));
    w.pass(S);
    let resync = w.send();
    w.answer_ok(&resync);
    let again = w.send();
    assert_eq!((again.tokens(), again.sequence), (vec![tokens[0], tokens[2]], 2), "and no limit was learnt");
    w.answer_ok(&again);
    w.assert_clean();
}

#[test]
fn a_torn_batch_that_was_not_executed_frees_its_slot() {
    let mut w = World::batching(1, 10);
    let tokens = recalls(&mut w, 3);
    let first = w.send();
    w.answer(&first, &first.sequence_status(DELAY));
    w.core.cancel(w.now_ns, tokens[0], &mut w.host);
    w.pass(S);
    let again = w.send();
    assert_eq!((again.tokens(), again.sequence), (tokens[1..].to_vec(), 1));
    w.answer_ok(&again);
    w.assert_clean();
}

#[test]
fn each_run_of_a_batch_has_its_own_deadline() {
    let mut w = World::batching(1, 10);
    w.disconnect(C1);
    let old = w.recall();
    w.pass(40 * S);
    let young = w.recall();
    w.bind(S1, C2);
    let sent = w.send();
    assert_eq!(sent.tokens(), [old, young]);
    w.pass_alive(51);
    assert_eq!(w.ended(old), [Ended::Other(Outcome::TimedOut { sent: true })]);
    assert_eq!((w.ended(young), w.core.census().slots_with_run), (&[][..], 1));
    w.answer_ok(&sent);
    assert_eq!(w.ended(young), [Ended::ok()]);
    w.assert_clean();
}

#[test]
fn a_batch_whose_runs_have_all_timed_out_is_resynchronised() {
    let mut w = World::batching(1, 10);
    let tokens = recalls(&mut w, 3);
    w.send();
    w.pass_alive(92);
    assert!(tokens.iter().all(|t| w.ended(*t) == [Ended::Other(Outcome::TimedOut { sent: true })]));
    assert_eq!(w.core.census().slots_quarantined, 1);
    let resync = w.send();
    assert_eq!((resync.op, resync.sequence), (None, 1));
    w.answer_ok(&resync);
    w.assert_clean();
}

#[test]
fn a_batch_that_is_too_large_is_split_and_the_session_remembers() {
    for status in [Status::NFS4ERR_TOO_MANY_OPS, Status::NFS4ERR_REQ_TOO_BIG, Status::NFS4ERR_REP_TOO_BIG] {
        for empty in [false, true] {
            let mut w = World::batching(1, 9);
            let tokens = recalls(&mut w, 8);
            let first = w.send();
            w.answer(&first, &if empty { first.empty(status) } else { first.sequence_status(status) });
            let second = w.send();
            assert_eq!((second.tokens(), second.sequence), (tokens[..4].to_vec(), 1));
            w.answer_ok(&second);
            let third = w.send();
            assert_eq!(third.tokens(), tokens[4..]);
            w.answer_ok(&third);
            assert!(tokens.iter().all(|t| w.host.entries[t.0 as usize].requeues == [Requeue::BatchSplit]));
            assert_eq!((w.core.counters().splits, w.core.path_state()), (1, PathState::Up));
            recalls(&mut w, 8);
            assert_eq!(w.send().ops.len(), 4);
        }
    }
}

#[test]
fn a_client_that_finds_everything_too_large_ends_it_one_by_one() {
    let status = Status::NFS4ERR_TOO_MANY_OPS;
    let mut w = World::batching(1, 9);
    let tokens = recalls(&mut w, 8);
    while let Some(sent) = w.sends().pop() {
        w.answer(&sent, &sent.sequence_status(status));
    }
    assert!(tokens.iter().all(|t| w.ended(*t) == [Ended::Replied(status, vec![])]));
    assert_eq!(w.core.counters().splits, 3);
    w.assert_clean();
}

#[test]
fn a_reply_that_grows_too_big_splits_where_it_did() {
    let status = Status::NFS4ERR_REP_TOO_BIG;
    let mut w = World::batching(2, 9);
    let tokens = recalls(&mut w, 8);
    let sent = w.send();
    w.answer(&sent, &sent.stopped(3, status, 2));
    let rest = w.sends();
    let ops: Vec<_> = rest.iter().map(Sent::tokens).collect();
    assert_eq!(ops, [vec![tokens[3]], tokens[4..7].to_vec()], "the one that failed goes alone");
    w.answer(&rest[0], &rest[0].op_status(status, 2));
    assert_eq!(w.ended(tokens[3]), [Ended::Replied(status, vec![])]);
    w.answer_ok(&rest[1]);
    answer_all(&mut w);
    w.assert_clean();
}

#[test]
fn a_resent_batch_that_is_too_large_may_have_been_executed() {
    let mut w = World::batching(1, 9);
    let recall = w.recall();
    let offload = w.run(CallbackOp::Offload);
    w.send();
    w.disconnect(C1);
    w.bind(S1, C2);
    let again = w.send();
    w.answer(&again, &again.sequence_status(Status::NFS4ERR_TOO_MANY_OPS));
    assert_eq!(w.ended(offload), [Ended::Other(Outcome::DeliveredUnknown)]);
    assert_eq!((w.entry(recall).requeues.clone(), w.core.census().slots_quarantined), (vec![Requeue::BatchTorn], 1));
    w.pass(S);
    let resync = w.send();
    assert_eq!((resync.op, resync.sequence), (None, 1));
    w.answer_ok(&resync);
    answer_all(&mut w);
    w.assert_clean();
}

#[test]
fn answers_to_cb_sequence_are_for_the_whole_batch() {
    let ended = |status: Status| {
        let mut w = World::batching(2, 9);
        let tokens = recalls(&mut w, 4);
        let sent = w.send();
        w.answer(&sent, &sent.sequence_status(status));
        w.pass(S);
        let again = w.sends();
        let moved = again.iter().find(|s| !s.ops.is_empty()).map(|s| (s.tokens() == tokens, s.slot, s.sequence));
        again.iter().for_each(|s| w.answer_ok(s));
        answer_all(&mut w);
        (moved, tokens.iter().map(|t| w.ended(*t).to_vec()).collect::<Vec<_>>())
    };
    let all_ok = vec![vec![Ended::ok()]; 4];
    assert_eq!(ended(DELAY), (Some((true, 0, 1)), all_ok.clone()));
    assert_eq!(ended(Status::NFS4ERR_BADSLOT), (Some((true, 1, 1)), all_ok.clone()));
    assert_eq!(ended(Status::NFS4ERR_SEQ_MISORDERED), (Some((true, 1, 1)), all_ok));
    let failed = vec![vec![Ended::Replied(Status::NFS4ERR_SERVERFAULT, vec![])]; 4];
    assert_eq!(ended(Status::NFS4ERR_SERVERFAULT), (None, failed));
}

#[test]
fn a_refused_batch_ends_as_a_fault_each() {
    let mut w = World::batching(1, 9);
    let tokens = recalls(&mut w, 3);
    let sent = w.send();
    w.answer(&sent, &sent.empty(Status::NFS4ERR_MINOR_VERS_MISMATCH));
    let fault = Outcome::Fault(PathFault::NoResults(Status::NFS4ERR_MINOR_VERS_MISMATCH));
    assert!(tokens.iter().all(|t| w.ended(*t) == [Ended::Other(fault)]));
    w.assert_clean();
}

#[test]
fn garbage_args_are_the_fault_of_one() {
    let mut w = World::batching(4, 9);
    let tokens = recalls(&mut w, 3);
    let sent = w.send();
    let garbage = |s: &Sent| s.header(ReplyHeader::accepted(s.xid, AcceptStatus::GarbageArgs), |_| {});
    w.answer(&sent, &garbage(&sent));
    let alone = w.sends();
    assert_eq!(alone.iter().map(Sent::tokens).collect::<Vec<_>>(), tokens.iter().map(|t| [*t]).collect::<Vec<_>>());
    w.answer(&alone[1], &garbage(&alone[1]));
    let fault = Ended::Other(Outcome::Fault(PathFault::NotExecuted(AcceptStatus::GarbageArgs)));
    assert_eq!(w.ended(tokens[1]), [fault]);
    w.answer_ok(&alone[0]);
    w.answer_ok(&alone[2]);
    recalls(&mut w, 8);
    assert_eq!(w.send().ops.len(), 8, "the session goes on with batches");
}

#[test]
fn f8_results_that_are_missing_or_wrong_lose_nothing() {
    for len in 0..=4 {
        let mut w = World::batching(2, 9);
        let tokens: Vec<_> = recalls(&mut w, 3);
        let offload = w.run(CallbackOp::Offload);
        let sent = w.send();
        w.answer(&sent, &sent.statuses(&vec![Status::NFS4_OK; len], 2));
        let ok = |w: &World, i: usize| w.ended(tokens[i]) == [Ended::ok()];
        assert_eq!((0..3).map(|i| ok(&w, i)).collect::<Vec<_>>(), (0..3).map(|i| i < len).collect::<Vec<_>>());
        let offload_ends = if len == 4 { Ended::ok() } else { Ended::Other(Outcome::DeliveredUnknown) };
        assert_eq!(w.ended(offload), [offload_ends]);
        let fault = Event::SessionFault { session: S1, fault: PathFault::Malformed };
        assert_eq!(w.host.events.contains(&fault), len < 4);
        w.pass(S);
        answer_all(&mut w);
        assert!((0..3).all(|i| ok(&w, i)));
        w.assert_clean();
    }
}

#[test]
fn t29_a_batch_ends_with_its_client_its_session_or_the_drain() {
    let batch = |end: &dyn Fn(&mut World)| {
        let mut w = World::batching(1, 9);
        let tokens = recalls(&mut w, 4);
        let sent = w.send();
        let waiting = w.recall();
        end(&mut w);
        let late = w.deliver(C1, &sent.ok());
        let ends: Vec<_> = tokens.iter().chain([&waiting]).map(|t| w.ended(*t).to_vec()).collect();
        (ends, late, w)
    };
    let cancelled = |sent| vec![Ended::Other(Outcome::Cancelled { sent })];
    let mut all = vec![cancelled(true); 4];
    all.push(cancelled(false));
    let (ends, late, w) = batch(&|w| w.core.set_client_state(w.now_ns, ClientState::Expired, &mut w.host));
    assert_eq!((ends, late), (all.clone(), Handled::Settled));
    w.assert_clean();
    let (ends, _, w) = batch(&|w| {
        w.core.drain(w.now_ns, w.now_ns + S, &mut w.host);
        w.pass(2 * S);
    });
    assert_eq!(ends, all);
    w.assert_clean();
    let (ends, late, mut w) = batch(&|w| {
        w.core.remove_session(w.now_ns, S1, &mut w.host);
    });
    assert_eq!((ends, late), (vec![vec![]; 5], Handled::Late));
    w.add_session(S2, 1);
    w.bind(S2, C2);
    let moved = w.send();
    assert_eq!(moved.ops.len(), 5);
    w.answer_ok(&moved);
    w.assert_clean();
}

#[test]
fn a_drain_cancels_what_a_batch_did_not_get_to() {
    let mut w = World::batching(1, 9);
    let tokens = recalls(&mut w, 3);
    let sent = w.send();
    w.core.drain(w.now_ns, w.now_ns + S, &mut w.host);
    w.answer(&sent, &sent.stopped(1, DELAY, 1));
    let cancelled = |sent| [Ended::Other(Outcome::Cancelled { sent })];
    assert_eq!(w.ended(tokens[0]), [Ended::ok()]);
    assert_eq!((w.ended(tokens[1]), w.ended(tokens[2])), (&cancelled(true)[..], &cancelled(false)[..]));
    w.assert_clean();
}

#[test]
fn a_session_that_is_lost_hands_its_batches_on_in_order() {
    let mut w = World::batching(1, 9);
    let tokens = recalls(&mut w, 4);
    let sent = w.send();
    w.answer(&sent, &sent.sequence_status(Status::NFS4ERR_BADSESSION));
    w.operations_max = 3;
    w.add_session(S2, 4);
    w.bind(S2, C2);
    let moved: Vec<_> = w.sends().iter().flat_map(|s| s.tokens()).collect();
    assert_eq!(moved, tokens);
}
