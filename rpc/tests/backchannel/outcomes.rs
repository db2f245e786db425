//! Rows of the outcome table (docs/src/outcomes.md), each over everything that it is about.

use crate::refused::refusals;
use crate::support::*;
use ringback_rpc::backchannel::{Config, Counters, Outcome, PathState, Requeue, seq4_status};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::CallbackOp;

type Answer = fn(&Sent) -> Vec<u8>;

/// The client has executed the operation, and how that went is lost: it says so in the operation's place or in that of
/// CB_SEQUENCE.
#[test]
fn a_lost_result_is_asked_for_again_only_where_that_does_no_harm() {
    use CallbackOp::*;
    let answers: [Answer; 2] = [
        |s| s.op_status(Status::NFS4ERR_RETRY_UNCACHED_REP, 1),
        |s| s.sequence_status(Status::NFS4ERR_RETRY_UNCACHED_REP),
    ];
    for (op, answer) in callbacks().flat_map(|op| answers.map(|answer| (op, answer))) {
        let mut w = World::new(1);
        let token = w.start(op);
        w.send();
        w.disconnect(C1);
        w.bind(S1, C2);
        let again = w.send();
        w.answer(&again, &answer(&again));
        if matches!(op, Getattr | Recall | LayoutRecall | RecallAny | RecallSlot) {
            assert_eq!(w.ended(token), [], "{op}");
            w.pass(S);
            let next = w.send();
            assert_eq!((next.token(), next.sequence), (token, 2), "{op}: under the next id");
            w.answer_ok(&next);
            assert_eq!(w.ended(token), [Ended::ok()]);
            assert_eq!(w.entry(token).requeues, [Requeue::UncachedReply]);
        } else {
            assert_eq!(w.ended(token), [Ended::Other(Outcome::DeliveredUnknown)], "{op}");
        }
        w.assert_clean();
    }
}

/// A client that has always the same answer: asked again and again, ever more seldom, and by the deadline not any more.
#[test]
fn the_same_answer_for_ever_is_no_hot_loop() {
    let answers: [Answer; 6] = [
        |s| s.op_status(Status::NFS4ERR_DELAY, 2),
        |s| s.op_status(Status::NFS4ERR_RETRY_UNCACHED_REP, 2),
        |s| s.sequence_status(Status::NFS4ERR_DELAY),
        |s| s.sequence_status(Status::NFS4ERR_RETRY_UNCACHED_REP),
        |s| s.sequence_status(Status::NFS4ERR_SEQ_FALSE_RETRY),
        |s| s.statuses(&[], 2),
    ];
    let ops = [CallbackOp::Recall, CallbackOp::RecallSlot];
    for (n, answer, op) in answers.iter().enumerate().flat_map(|(n, answer)| ops.map(|op| (n, answer, op))) {
        let mut w = World::new(2);
        let token = w.start(op);
        let mut sends = 0;
        for _ in 0..1000 {
            for sent in w.sends() {
                sends += 1;
                w.answer(&sent, &answer(&sent));
            }
            w.pass(100 * MS);
        }
        assert_eq!(w.ended(token), [Ended::Other(Outcome::TimedOut { sent: true })], "answer {n} to {op}");
        assert!((15..40).contains(&sends), "answer {n} to {op}: {sends} calls");
        w.assert_clean();
    }
}

#[test]
fn a_backoff_doubles_from_100_ms_to_5_s_and_spreads() {
    const CALLS: usize = 32;
    let answers: [Answer; 2] =
        [|s| s.op_status(Status::NFS4ERR_DELAY, 32), |s| s.sequence_status(Status::NFS4ERR_DELAY)];
    for answer in answers {
        let mut w = World::new(CALLS as u32);
        (0..CALLS).for_each(|_| _ = w.recall());
        let mut out = w.sends();
        for wait_ms in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            out.iter().for_each(|s| w.answer(s, &answer(s)));
            out.clear();
            let (begun_ns, mut times) = (w.now_ns, Vec::new());
            while out.len() < CALLS {
                w.pass(MS);
                let sent = w.sends();
                if !sent.is_empty() {
                    times.push((w.now_ns - begun_ns) / MS);
                }
                out.extend(sent);
            }
            // An eighth of jitter; waits of callbacks end at a multiple of 50 ms.
            let (first, last) = (times[0], times[times.len() - 1]);
            assert!(first >= wait_ms && last <= wait_ms * 9 / 8 + 51, "{wait_ms} ms: {times:?}");
            assert!(times.len() as u64 >= (wait_ms / 800).min(5), "{wait_ms} ms: {times:?}");
        }
    }
}

#[test]
fn times_follow_the_lease() {
    for (lease_s, rpc_timeout_s) in [(90, 9), (600, 60), (10, 1), (3, 1)] {
        let config = Config::for_lease(lease_s * S);
        assert_eq!((config.lease_ns, config.rpc_timeout_ns), (lease_s * S, rpc_timeout_s * S));
        assert_eq!(
            (config.run_deadline_ns, config.backoff_ns_min, config.backoff_ns_max),
            (lease_s * S, 100 * MS, 5 * S)
        );
    }
    assert_eq!(Config::default(), Config::for_lease(90 * S));
}

/// Whatever is answered, CB_RECALL_SLOT goes again on the session that it is about, though another one is free.
#[test]
fn a_slot_recall_never_changes_its_session() {
    let answers: [Answer; 8] = [
        |s| s.op_status(Status::NFS4ERR_RETRY_UNCACHED_REP, 2),
        |s| s.sequence_status(Status::NFS4ERR_DELAY),
        |s| s.sequence_status(Status::NFS4ERR_SEQ_FALSE_RETRY),
        |s| s.sequence_status(Status::NFS4ERR_CONN_NOT_BOUND_TO_SESSION),
        |s| s.sequence_status(Status::NFS4ERR_BADSESSION),
        |s| s.sequence_status(Status::NFS4ERR_BADSLOT),
        |s| s.sequence_status(Status::NFS4ERR_SEQ_MISORDERED),
        |s| Sent { sequence: s.sequence + 7, ..s.clone() }.ok(),
    ];
    for (n, answer) in answers.iter().enumerate() {
        let mut w = World::new(2);
        w.add_session(S2, 2);
        w.bind(S2, C2);
        let token = w.run_on(S1);
        let sent = w.send();
        w.answer(&sent, &answer(&sent));
        w.pass(S);
        w.bind(S1, C1);
        let again: Vec<_> = w.sends().into_iter().filter(|s| s.op.is_some()).collect();
        assert_eq!(again.iter().map(|s| (s.token(), s.session)).collect::<Vec<_>>(), [(token, session_id(S1))], "{n}");
        w.answer_ok(&again[0]);
        assert_eq!(w.ended(token), [Ended::ok()]);
    }
    // What the client refuses on this session it is not offered on another one.
    let mut w = World::new(2);
    w.add_session(S2, 2);
    w.bind(S2, C2);
    let token = w.run_on(S1);
    let sent = w.send();
    let (refusal, fault) = refusals(&sent).swap_remove(0);
    w.answer(&sent, &refusal);
    assert_eq!(w.ended(token), [Ended::Other(Outcome::Fault(fault))]);
    w.assert_clean();
}

/// The slots above never drain: the run ends by its deadline, and the client is known not to have executed it.
#[test]
fn a_high_slot_that_waits_in_vain_ends_by_its_deadline() {
    for resent in [false, true] {
        let mut w = World::new(2);
        let (low, _high) = (w.recall(), w.recall());
        let mut sent = w.sends();
        w.answer_ok(&sent[0]);
        let token = w.recall();
        sent.push(w.send());
        assert_eq!((sent[2].slot, sent[2].highest), (0, 1));
        if resent {
            w.disconnect(C1);
            w.bind(S1, C2);
            sent = w.sends();
            sent.sort_by_key(|s| std::cmp::Reverse(s.slot));
            assert_eq!(sent.len(), 2);
        }
        let refused = sent.pop().unwrap();
        w.answer(&refused, &refused.sequence_status(Status::NFS4ERR_BAD_HIGH_SLOT));
        w.pass_alive(91);
        assert_eq!(w.ended(token), [Ended::Other(Outcome::TimedOut { sent: true })]);
        let census = w.core.census();
        assert_eq!((census.slots_free, census.slots_quarantined), if resent { (0, 2) } else { (1, 1) });
        assert_eq!(w.ended(low), [Ended::ok()]);
        // The higher one is asked about first; then the lower one, if that is in doubt.
        for slot in if resent { &[1, 0][..] } else { &[1] } {
            let probe = w.send();
            assert_eq!((probe.op, probe.slot, probe.highest), (None, *slot, *slot));
            w.answer_ok(&probe);
        }
        w.assert_clean();
    }
}

#[test]
fn f6_a_control_is_about_one_session() {
    let mut w = World::new(1);
    w.add_session(S2, 1);
    w.bind(S2, C2);
    w.core.control(S1, 0x5555, &sys(42), &mut w.host).unwrap();
    w.recall();
    w.recall();
    let sent = w.sends();
    let programs: Vec<_> = sent.iter().map(|s| (s.session, s.program)).collect();
    assert_eq!(programs, [(session_id(S1), 0x5555), (session_id(S2), PROGRAM)]);
    assert_ne!(sent[0].credential, sent[1].credential);
    sent.iter().for_each(|s| w.answer_ok(s));
    w.assert_clean();
}

/// That the client takes a call with its former parameters does not say that it would take one with the new ones.
#[test]
fn f9_a_good_word_for_old_parameters_does_not_turn_the_path_on_again() {
    let mut w = World::new(2);
    w.recall();
    let old = w.send();
    w.core.control(S1, 0x7777, &sys(3), &mut w.host).unwrap();
    w.recall();
    let new = w.send();
    let (refusal, _) = refusals(&new).swap_remove(0);
    w.answer(&new, &refusal);
    let refused = |w: &World| (w.core.path_state(), w.core.seq4_status(Some(S1)));
    assert_eq!(refused(&w), (PathState::Fault, seq4_status::BACKCHANNEL_FAULT));
    w.answer_ok(&old);
    assert_eq!(refused(&w), (PathState::Fault, seq4_status::BACKCHANNEL_FAULT));
    w.recall();
    let next = w.send();
    assert_eq!(next.program, 0x7777);
    w.answer_ok(&next);
    assert_eq!(refused(&w), (PathState::Up, 0));
    w.assert_clean();
}

#[test]
fn what_is_not_supported_is_remembered_of_the_operation_that_said_so() {
    let mut w = World::batching(1, 9);
    let ops = [CallbackOp::Recall, CallbackOp::NotifyLock, CallbackOp::LayoutRecall];
    let tokens = ops.map(|op| w.run(op));
    let sent = w.send();
    assert_eq!(sent.tokens(), tokens);
    w.answer(&sent, &sent.stopped(1, Status::NFS4ERR_NOTSUPP, 1));
    assert_eq!(w.ended(tokens[1]), [Ended::Replied(Status::NFS4ERR_NOTSUPP, vec![])]);
    let unsupported: Vec<_> = callbacks().filter(|op| w.core.is_unsupported(*op)).collect();
    assert_eq!(unsupported, [CallbackOp::NotifyLock]);
    let rest = w.send();
    w.answer_ok(&rest);
    // Once more, and for ever.
    let again = w.run(CallbackOp::NotifyLock);
    let sent = w.send();
    w.answer(&sent, &sent.stopped(0, Status::NFS4ERR_NOTSUPP, 1));
    assert!(w.ended(again) == w.ended(tokens[1]) && w.core.is_unsupported(CallbackOp::NotifyLock));
    assert_eq!(w.core.unsupported(), CallbackOp::NotifyLock.bit());
    w.assert_clean();
}

/// A client that does not know an operation answers CB_ILLEGAL in its place (RFC 8881 section 20.13).
#[test]
fn an_operation_that_the_client_does_not_know_ends_with_its_status() {
    for count in [1, 3] {
        let mut w = World::batching(1, 9);
        let tokens: Vec<_> = (0..count).map(|_| w.run(CallbackOp::Offload)).collect();
        let sent = w.send();
        let mut reply = sent.clone();
        reply.ops[0].0 = CallbackOp::Illegal as u32;
        w.answer(&sent, &reply.stopped(0, Status::NFS4ERR_OP_ILLEGAL, 1));
        assert_eq!(w.ended(tokens[0]), [Ended::Replied(Status::NFS4ERR_OP_ILLEGAL, vec![])]);
        assert_eq!((w.core.seq4_status(Some(S1)), w.core.counters().replies_malformed), (0, 0), "that is no fault");
        w.sends().iter().for_each(|s| w.answer_ok(s));
        w.assert_clean();
    }
}

/// What comes in is counted by what it is, and nothing else is.
#[test]
fn each_answer_is_counted_as_what_it_is() {
    type Count = fn(&Counters) -> u64;
    let cases: [(Answer, &[Count]); 9] = [
        (|s| s.ok(), &[|c| c.replies]),
        (|s| s.op_status(Status::NFS4ERR_DELAY, 2), &[|c| c.replies, |c| c.delays, |c| c.requeued]),
        (|s| s.sequence_status(Status::NFS4ERR_DELAY), &[|c| c.replies, |c| c.delays]),
        (|s| s.sequence_status(Status::NFS4ERR_SEQ_MISORDERED), &[|c| c.replies, |c| c.misordered, |c| c.requeued]),
        (|s| s.sequence_status(Status::NFS4ERR_SEQ_FALSE_RETRY), &[|c| c.replies, |c| c.false_retries, |c| c.requeued]),
        (|s| Sent { slot: s.slot ^ 1, ..s.clone() }.ok(), &[|c| c.replies, |c| c.wrong_echo, |c| c.requeued]),
        (|s| s.ok()[..30].to_vec(), &[|c| c.replies_malformed, |c| c.requeued]),
        (|s| s.statuses(&[], 2), &[|c| c.replies, |c| c.replies_malformed, |c| c.requeued]),
        (|s| s.empty(Status::NFS4ERR_RESOURCE), &[|c| c.replies, |c| c.rejected]),
    ];
    for (n, (answer, counts)) in cases.iter().enumerate() {
        let mut w = World::new(2);
        for times in 1..=2 {
            let sent = loop {
                if let Some(sent) = w.sends().pop() {
                    break sent;
                }
                if w.core.run_count() == 0 {
                    w.recall();
                }
                w.pass(MS);
            };
            w.deliver(C1, &answer(&sent));
            let Counters {
                replies,
                delays,
                misordered,
                false_retries,
                wrong_echo,
                replies_malformed,
                requeued,
                rejected,
                ..
            } = *w.core.counters();
            let all =
                replies + delays + misordered + false_retries + wrong_echo + replies_malformed + requeued + rejected;
            assert!(counts.iter().all(|count| count(w.core.counters()) == times), "{n}: {:?}", w.core.counters());
            assert_eq!(all, times * counts.len() as u64, "{n}: {:?}", w.core.counters());
        }
    }
}
