//! Settings that change while runs are queued and out.

use crate::support::*;
use ringback_rpc::backchannel::{Config, Outcome};
use ringback_rpc::nfs4::callback::CallbackOp;

fn tune(w: &mut World, change: impl FnOnce(&mut Config)) {
    let mut config = *w.core.config();
    change(&mut config);
    w.core.tune(&config, &w.host);
}

#[test]
fn a_run_deadline_is_that_of_what_waits_and_of_what_is_out() {
    let mut w = World::new(1);
    let out = w.recall();
    let sent = w.send();
    let waits = w.recall();
    w.pass(S);
    tune(&mut w, |config| config.run_deadline_ns = 2 * S);
    w.pass(S / 2);
    assert!(w.ended(out).is_empty() && w.ended(waits).is_empty());
    w.pass(S);
    assert_eq!(w.ended(out), [Ended::Other(Outcome::TimedOut { sent: true })]);
    assert_eq!(w.ended(waits), [Ended::Other(Outcome::TimedOut { sent: false })]);
    w.answer_ok(&sent);
    // Longer again, for one that has begun.
    w.disconnect(C1);
    let third = w.recall();
    w.pass(S);
    tune(&mut w, |config| config.run_deadline_ns = 30 * S);
    w.pass(20 * S);
    assert_eq!(w.ended(third), []);
    w.pass(10 * S);
    assert_eq!(w.ended(third), [Ended::Other(Outcome::TimedOut { sent: false })]);
    w.assert_clean();
}

#[test]
fn a_batch_limit_is_that_of_what_is_sent_from_now_on() {
    let mut w = World::batching(8, 6);
    let sizes = |w: &mut World| {
        (0..10).for_each(|_| {
            w.recall();
        });
        let sent = w.sends();
        sent.iter().for_each(|sent| w.answer_ok(sent));
        sent.iter().map(|sent| sent.ops.len()).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&mut w), [5, 5]);
    tune(&mut w, |config| config.batch_max = 3);
    assert_eq!(sizes(&mut w), [3, 3, 3, 1]);
    tune(&mut w, |config| config.batch_max = 1);
    assert_eq!(sizes(&mut w), [1; 8], "and two wait for a slot");
    assert_eq!(w.sends().iter().map(|sent| w.answer_ok(sent)).count(), 2);
    tune(&mut w, |config| config.batch_max = 64);
    assert_eq!(sizes(&mut w), [5, 5], "the client's own limit stays");
    w.assert_clean();
}

#[test]
fn t24_a_floor_is_that_of_what_is_sent_from_now_on() {
    for floor in [1, 3, 7] {
        let mut w = World::new(1);
        tune(&mut w, |config| config.recalls_passed_over_max = floor);
        for _ in 0..20 {
            w.run(CallbackOp::Getattr);
        }
        let recall = w.recall();
        let mut passed_over = 0;
        while w.send_and_answer() != recall {
            passed_over += 1;
        }
        assert_eq!(passed_over, floor);
    }
}
