//! What one client is to be sent at most.

use crate::support::*;
use ringback_rpc::backchannel::{ClientLimits, Transmit};
use ringback_rpc::nfs4::Status;

fn limited(slots: u32, limits: ClientLimits) -> World {
    let mut w = World::new(slots);
    w.core.set_limits(limits, &mut w.host);
    w
}

/// An old client that breaks on concurrent recalls: a thousand of them go one by one, whatever slots it offers.
#[test]
fn t24_a_client_may_have_one_call_at_a_time() {
    let mut w = limited(16, ClientLimits::default().calls_max(1));
    let tokens: Vec<_> = (0..1000).map(|_| w.recall()).collect();
    for token in &tokens {
        let sent = w.send();
        assert_eq!((sent.token(), sent.slot, sent.highest), (*token, 0, 0));
        w.quiet();
        assert!(!w.core.wants_transmit(C1));
        w.answer_ok(&sent);
    }
    w.assert_clean();
}

#[test]
fn t24_the_cap_is_over_all_sessions_that_have_a_connection() {
    let mut w = limited(4, ClientLimits::default().calls_max(3));
    w.add_session(S2, 4);
    w.bind(S2, C2);
    for _ in 0..10 {
        w.recall();
    }
    let (first, second) = (w.sends_on(C1), w.sends_on(C2));
    assert_eq!((first.len(), second.len()), (3, 0));
    w.answer_ok(&first[0]);
    assert_eq!((w.sends_on(C2).len(), w.sends_on(C1).len()), (1, 0));
    // What is pinned to a session without a connection keeps nobody waiting; back again it is sent at once.
    w.disconnect(C1);
    let second = w.sends_on(C2);
    assert_eq!(second.len(), 2);
    w.bind(S1, C1);
    let again = w.sends_on(C1);
    assert_eq!(
        again.iter().map(|s| &s.bytes).collect::<Vec<_>>(),
        first[1..].iter().map(|s| &s.bytes).collect::<Vec<_>>()
    );
    second.iter().chain(&again).for_each(|s| w.answer_ok(s));
    // Lifted, what waits goes.
    assert_eq!(w.sends_on(C1).len(), 2);
    w.core.set_limits(ClientLimits::default(), &mut w.host);
    assert!(w.core.wants_transmit(C1));
    assert_eq!(w.sends_on(C1).len(), 2);
}

/// A driver that holds back what is new, for a limit of its own: what is out is sent again.
#[test]
fn t24_holding_back_what_is_new_keeps_back_nothing_that_is_out() {
    let mut w = World::new(4);
    w.recall();
    let first = w.send();
    let waiting = [w.recall(), w.recall()];
    w.core.hold_new(true);
    // Which is not the client's own.
    w.core.set_limits(ClientLimits::default(), &mut w.host);
    assert!(!w.core.wants_transmit(C1));
    w.quiet();
    w.disconnect(C1);
    w.bind(S1, C2);
    let again = w.sends_on(C2);
    assert_eq!(again.iter().map(|s| &s.bytes).collect::<Vec<_>>(), [&first.bytes]);
    w.core.hold_new(false);
    let rest = w.sends_on(C2);
    assert_eq!(rest.iter().map(|s| s.token()).collect::<Vec<_>>(), waiting);
    again.iter().chain(&rest).for_each(|s| w.answer_ok(s));
    w.assert_clean();
}

/// The client may still be busy with what was given up.
#[test]
fn t24_a_quarantined_slot_counts() {
    let mut w = limited(4, ClientLimits::default().calls_max(1));
    let token = w.recall();
    let sent = w.send();
    assert!(w.core.cancel(w.now_ns, token, &mut w.host));
    let next = w.recall();
    w.quiet();
    w.answer_ok(&sent);
    let sent = w.send();
    assert_eq!(sent.token(), next);
    w.answer_ok(&sent);
    w.assert_clean();
}

#[test]
fn t24_callbacks_are_spaced_out() {
    let mut w = limited(64, ClientLimits::default().rate_max(20));
    for _ in 0..100 {
        w.recall();
    }
    let mut total = 0;
    for _ in 0..50 {
        let sent = w.sends();
        assert!(sent.len() <= 4, "{} at once", sent.len());
        total += sent.len();
        sent.iter().for_each(|s| w.answer_ok(s));
        assert_eq!(w.core.poll_transmit(w.now_ns, C1, &mut [0; 8192], &mut w.host), Transmit::Idle);
        assert!(!w.core.wants_transmit(C1), "no spin");
        w.pass(100 * MS);
    }
    assert!((98..=100).contains(&total), "{total} in 5 s");
    w.sends().iter().for_each(|s| w.answer_ok(s));
    w.assert_clean();
}

/// A batch is as many callbacks as it carries.
#[test]
fn t24_batches_keep_to_the_rate() {
    for (rate, at_once) in [(10, 1), (40, 4)] {
        let mut w = World::batching(64, 17);
        w.core.set_limits(ClientLimits::default().rate_max(rate), &mut w.host);
        for _ in 0..500 {
            w.recall();
        }
        let (mut total, begun_ns) = (0, w.now_ns);
        while w.now_ns < begun_ns + 5 * S {
            let sent = w.sends();
            let runs: usize = sent.iter().map(|s| s.ops.len()).sum();
            assert!(runs <= at_once, "{runs} at once");
            total += runs;
            sent.iter().for_each(|s| w.answer_ok(s));
            w.pass(10 * MS);
        }
        assert!((5 * rate as usize..=5 * rate as usize + at_once).contains(&total), "{total} in 5 s");
    }
}

/// A client that delays is asked again under the same sequence id, and that is not a callback more.
#[test]
fn t24_what_is_sent_again_is_not_held_back() {
    let mut w = limited(4, ClientLimits::default().rate_max(1));
    w.recall();
    let sent = w.send();
    w.disconnect(C1);
    w.bind(S1, C2);
    let again = w.send();
    assert_eq!(again.bytes, sent.bytes);
    w.answer(&again, &again.sequence_status(Status::NFS4ERR_DELAY));
    w.recall();
    w.pass(500 * MS);
    let renewed = w.send();
    assert_eq!((renewed.token(), renewed.sequence), (sent.token(), sent.sequence));
    w.answer_ok(&renewed);
    w.pass(500 * MS);
    let next = w.send();
    w.answer_ok(&next);
    w.assert_clean();
}
