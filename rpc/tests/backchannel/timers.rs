//! Deadlines, drain, cancellation.

use crate::support::*;
use ringback_rpc::backchannel::{ClientState, Event, Outcome, PathState, Transmit};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::CallbackOp;

const TIMED_OUT: Ended = Ended::Other(Outcome::TimedOut { sent: false });

#[test]
fn queued_runs_end_by_their_deadline() {
    let mut w = World::new(1);
    w.disconnect(C1);
    let early = w.recall();
    w.pass(10 * S);
    let late = w.run(CallbackOp::Getattr);
    w.pass(79 * S);
    assert_eq!(w.ended(early), []);
    w.pass(S);
    assert_eq!(w.ended(early), [TIMED_OUT]);
    assert_eq!(w.ended(late), []);
    w.pass(10 * S);
    assert_eq!(w.ended(late), [TIMED_OUT]);
    w.assert_clean();
    assert_eq!(w.core.poll_timeout(), None);
}

#[test]
fn a_run_that_is_put_back_does_not_hide_an_older_one() {
    let mut w = World::new(1);
    let old = w.recall();
    for _ in 0..2 {
        let sent = w.send();
        w.answer(&sent, &sent.op_status(Status::NFS4ERR_DELAY, 1));
        w.pass(S);
    }
    w.pass(78 * S);
    let young = w.recall();
    let sent = w.send();
    assert_eq!(sent.token(), young, "it is the turn of those that were not sent before");
    w.answer(&sent, &sent.sequence_status(Status::NFS4ERR_BADSLOT));
    w.disconnect(C1);
    w.pass(10 * S);
    assert_eq!(w.ended(old), [Ended::Other(Outcome::TimedOut { sent: true })]);
    assert_eq!(w.ended(young), []);
}

#[test]
fn an_expired_run_is_not_sent() {
    let mut w = World::new(1);
    w.disconnect(C1);
    let token = w.recall();
    w.now_ns += 90 * S;
    w.bind(S1, C1);
    w.quiet();
    assert_eq!(w.ended(token), [TIMED_OUT]);
    assert_eq!(w.entry(token).prepared, 0);
    w.assert_clean();
}

#[test]
fn a_silent_connection_is_closed_and_a_living_one_is_not() {
    let mut w = World::new(2);
    w.recall();
    w.sends();
    w.pass(5 * S);
    let alive = w.recall();
    let second = w.send();
    w.answer_ok(&second);
    w.pass(5 * S);
    assert_eq!(w.conns, [C1], "it has answered another call");
    w.pass(9 * S);
    assert_eq!(w.conns, [], "and then nothing for a whole timeout");
    assert!(w.host.events.contains(&Event::CloseConnection(C1)));
    assert_eq!((w.core.path_state(), w.ended(alive)), (PathState::Down, &[Ended::ok()][..]));
}

#[test]
fn drain_ends_what_waits_at_once_and_the_rest_by_its_deadline() {
    let mut w = World::new(2);
    let [answered, silent, waiting] = [w.recall(), w.recall(), w.recall()];
    let sent = w.sends();
    w.core.drain(w.now_ns, w.now_ns + 5 * S, &mut w.host);
    assert_eq!(w.ended(waiting), [Ended::Other(Outcome::Cancelled { sent: false })]);
    w.pass(S);
    w.answer_ok(&sent[0]);
    assert_eq!(w.ended(answered), [Ended::ok()]);
    w.quiet();
    let after = w.recall();
    assert_eq!(w.ended(after), [Ended::Other(Outcome::Cancelled { sent: false })]);
    w.pass(3 * S);
    assert_eq!((w.ended(silent), w.core.is_idle()), (&[][..], false));
    w.pass(S);
    assert_eq!(w.ended(silent), [Ended::Other(Outcome::Cancelled { sent: true })]);
    assert!(w.core.is_idle());
    assert_eq!(w.core.census().slots_quarantined, 1);
    w.answer_ok(&sent[1]);
    w.assert_clean();
}

#[test]
fn t1_a_drain_of_many_ends_in_slices() {
    let mut w = World::new(1);
    let tokens: Vec<_> = (0..5000).map(|_| w.recall()).collect();
    w.core.drain(w.now_ns, w.now_ns, &mut w.host);
    assert!((1..5000).contains(&w.core.run_count()), "not all in one call");
    assert!(w.core.poll_timeout().unwrap() <= w.now_ns);
    w.pass(0);
    assert!(tokens.iter().all(|t| w.ended(*t) == [Ended::Other(Outcome::Cancelled { sent: false })]));
    w.assert_clean();
}

/// A drain with a run in every place that a requeue can leave one in.
#[test]
fn t1_a_requeued_run_keeps_no_drain() {
    let mut w = World::new(4);
    let [delayed, misordered, busy] = [w.recall(), w.recall(), w.recall()];
    let sent = w.sends();
    w.answer(&sent[0], &sent[0].op_status(Status::NFS4ERR_DELAY, 4));
    w.answer(&sent[1], &sent[1].sequence_status(Status::NFS4ERR_SEQ_MISORDERED));
    w.answer(&sent[2], &sent[2].sequence_status(Status::NFS4ERR_DELAY));
    let own = w.run_on(S1);
    let sent = w.sends();
    w.answer(&sent[0], &sent[0].op_status(Status::NFS4ERR_DELAY, 4));
    let [pinned, unsent] = [w.recall(), w.recall()];
    w.sends();
    w.disconnect(C1);
    assert_eq!(w.core.run_count(), 6);
    w.core.drain(w.now_ns, w.now_ns + S, &mut w.host);
    assert!(w.core.run_count() <= 3, "what is on no wire ends at once");
    w.pass(S);
    for token in [delayed, misordered, busy, own, pinned, unsent] {
        assert!(matches!(w.ended(token), [Ended::Other(Outcome::Cancelled { .. })]), "{:?}", w.ended(token));
    }
    assert!(w.core.is_idle());
}

#[test]
fn f18_an_expired_client_cancels_all() {
    let mut w = World::new(1);
    let out = w.recall();
    w.send();
    let parked = w.recall();
    w.disconnect(C1);
    let parked_later = w.recall();
    w.core.set_client_state(w.now_ns, ClientState::Expired, &mut w.host);
    assert_eq!(w.ended(out), [Ended::Other(Outcome::Cancelled { sent: true })]);
    for token in [parked, parked_later] {
        assert_eq!(w.ended(token), [Ended::Other(Outcome::Cancelled { sent: false })]);
    }
    assert!(w.core.is_idle());
    let next = w.recall();
    assert_eq!(w.ended(next), [Ended::Other(Outcome::Cancelled { sent: false })], "not even a new one");
    w.bind(S1, C2);
    assert!(w.sends().iter().all(|s| s.op.is_none()), "nothing of the former incarnation is sent again");
}

#[test]
fn cancel_finds_a_run_wherever_it_is() {
    let mut w = World::new(1);
    let delayed = w.recall();
    let sent = w.send();
    w.answer(&sent, &sent.op_status(Status::NFS4ERR_DELAY, 1));
    let out = w.recall();
    let sent = w.send();
    let [a, b, c] = [w.recall(), w.recall(), w.recall()];
    let own = w.run_on(S1);
    for (token, was_sent) in [(b, false), (delayed, true), (c, false), (a, false), (own, false), (out, true)] {
        assert!(w.core.cancel(w.now_ns, token, &mut w.host));
        assert_eq!(w.ended(token), [Ended::Other(Outcome::Cancelled { sent: was_sent })]);
        assert!(!w.core.cancel(w.now_ns, token, &mut w.host));
    }
    w.answer_ok(&sent);
    w.quiet();
    w.assert_clean();
}

/// Those that are meant end, wherever they are, and the others keep their order.
#[test]
fn cancelling_many_walks_once() {
    let mut w = World::batching(2, 4);
    let delayed: Vec<_> = (0..6).map(|_| w.recall()).collect();
    for sent in w.sends() {
        w.answer(&sent, &sent.statuses(&[Status::NFS4_OK, Status::NFS4ERR_DELAY], 2));
    }
    let mut out: Vec<_> = w.sends().iter().flat_map(Sent::tokens).collect();
    out.sort();
    assert_eq!(out, [delayed[2], delayed[5]]);
    let waiting: Vec<_> = (0..9).map(|_| w.recall()).collect();
    let own: Vec<_> = (0..3).map(|_| w.run_on(S1)).collect();
    let mut looked_at = Vec::new();
    let ended = w.core.cancel_all(
        w.now_ns,
        |_, token| {
            looked_at.push(token);
            token.0 % 2 == 0
        },
        &mut w.host,
    );
    let all: Vec<_> = [&delayed[1..3], &delayed[4..], &waiting, &own].concat();
    looked_at.sort();
    assert_eq!(looked_at, all, "each once");
    let (even, odd): (Vec<_>, Vec<_>) = all.into_iter().partition(|token| token.0 % 2 == 0);
    assert_eq!(ended, even.len() as u64);
    for token in even {
        let sent = delayed.contains(&token);
        assert_eq!(w.ended(token), [Ended::Other(Outcome::Cancelled { sent })]);
    }
    assert_eq!(w.core.run_count(), odd.len() as u64);
    assert!(odd.iter().all(|token| w.ended(*token).is_empty()));
    let census = w.core.census();
    assert_eq!((census.runs_delayed, census.runs_sent), (1, 1));
    w.core.drain(w.now_ns, w.now_ns, &mut w.host);
    assert!(w.core.is_idle());
}

#[test]
fn delays_spread_and_end_together_with_the_deadline() {
    let mut w = World::new(64);
    let tokens: Vec<_> = (0..64).map(|_| w.recall()).collect();
    for sent in w.sends() {
        w.answer(&sent, &sent.op_status(Status::NFS4ERR_DELAY, 64));
    }
    assert_eq!(w.core.census().runs_delayed, 64);
    w.disconnect(C1);
    w.pass(89 * S);
    assert_eq!(w.core.run_count(), 64);
    w.pass(S);
    assert!(tokens.iter().all(|t| w.ended(*t) == [Ended::Other(Outcome::TimedOut { sent: true })]));
    w.assert_clean();
}

/// What was put off a while ago does not bring forward what is put off now.
#[test]
fn a_delay_lasts_as_long_as_was_asked() {
    let mut w = World::new(2);
    let [early, late] = [w.recall(), w.recall()];
    w.entry(early).asks = [5 * S].into();
    w.entry(late).asks = [5 * S].into();
    let sent = w.sends();
    w.answer_ok(&sent[0]);
    w.pass(4 * S);
    w.answer_ok(&sent[1]);
    w.pass(2 * S);
    let again = w.send();
    assert_eq!(again.token(), early);
    w.answer_ok(&again);
    w.pass(3 * S - MS);
    w.quiet();
    w.pass(S);
    let again = w.send();
    assert_eq!(again.token(), late);
    w.answer_ok(&again);
    w.assert_clean();
}

/// Runs that end instead of being sent are bounded like those that are sent: one call is a small piece of a turn.
#[test]
fn a_poll_ends_few_runs() {
    let mut w = World::new(1);
    let tokens: Vec<_> = (0..5000).map(|_| w.recall()).collect();
    tokens.iter().for_each(|t| w.entry(*t).refuse = true);
    while w.core.wants_transmit(C1) {
        let before = w.core.run_count();
        let did = w.core.poll_transmit(w.now_ns, C1, &mut w.space, &mut w.host);
        assert!(matches!(did, Transmit::Again | Transmit::Idle));
        assert!(before - w.core.run_count() <= 16, "{} in one call", before - w.core.run_count());
    }
    assert!(tokens.iter().all(|t| w.ended(*t) == [Ended::Other(Outcome::Refused)]));
    w.assert_clean();
}

/// A session is drained: nothing new goes out on it, what is out may be answered, the rest goes elsewhere.
#[test]
fn t12_a_drained_session_takes_nothing_new_and_is_given_up_at_last() {
    let mut w = World::new(2);
    let [answered, silent] = [w.recall(), w.recall()];
    let sent = w.sends();
    let (unsent, own) = (w.recall(), w.run_on(S1));
    assert!(w.core.drain_session(S1, &mut w.host) && !w.core.drain_session(S2, &mut w.host));
    assert_eq!(w.ended(own), [Ended::Other(Outcome::Cancelled { sent: false })]);
    assert_eq!((w.core.session_runs(S1), w.core.path_state()), (2, PathState::Down));
    w.answer_ok(&sent[0]);
    w.quiet();
    let late = w.run_on(S1);
    assert_eq!(w.ended(late), [Ended::Other(Outcome::Cancelled { sent: false })]);
    w.add_session(S2, 1);
    w.bind(S2, C2);
    let moved = w.send();
    assert_eq!((moved.token(), moved.session), (unsent, session_id(S2)));
    w.answer_ok(&moved);
    assert_eq!(w.core.session_runs(S1), 1);
    w.core.give_up_session(w.now_ns, S1, &mut w.host);
    assert_eq!(
        (w.ended(answered), w.ended(silent)),
        (&[Ended::ok()][..], &[Ended::Other(Outcome::Cancelled { sent: true })][..])
    );
    assert_eq!((w.core.session_runs(S1), w.core.census().slots_quarantined), (0, 1));
    w.answer_ok(&sent[1]);
    w.assert_clean();
}

/// CB_RECALL_SLOT that is answered NFS4ERR_DELAY cannot be sent again on a session that is drained.
#[test]
fn a_drained_session_sends_nothing_of_its_own_again() {
    let mut w = World::new(2);
    let own = w.run_on(S1);
    let sent = w.send();
    let other = w.recall();
    w.core.drain_session(S1, &mut w.host);
    w.answer(&sent, &sent.op_status(Status::NFS4ERR_DELAY, 2));
    assert_eq!(w.ended(own), [Ended::Other(Outcome::Cancelled { sent: true })]);
    w.core.cancel(w.now_ns, other, &mut w.host);
    let late = w.run_on(S1);
    assert_eq!(w.ended(late), [Ended::Other(Outcome::Cancelled { sent: false })]);
    assert_eq!(w.host.ended_with, [(own, S1), (late, S1)], "and says for which session's sake");
    w.assert_clean();
}
