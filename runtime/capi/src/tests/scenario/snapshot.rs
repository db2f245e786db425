//! A look at a runtime with a callback that nobody answers.

use super::*;
use crate::snapshot::*;

#[test]
fn a_snapshot_tells_what_a_client_is_stuck_with() {
    let bed = Bed::with(&hooks(), |options| options.latency = 1);
    let (_, mut theirs) = bed.connect();
    let (answered, stuck) = (bed.insert(7), bed.insert(8));
    assert_eq!(rb_try_run(bed.rt(), answered), 0);
    let record = read_record(&mut theirs).unwrap();
    let (_, reply) = answer_recall(&record, &mut Default::default(), Status::NFS4_OK);
    write_record(&mut theirs, &reply);
    assert_eq!(completion(bed.expect(rb_item_kind::RB_ITEM_COMPLETION)).run.key, answered);
    assert_eq!(rb_queue_release(bed.queue()), 0);
    assert_eq!(rb_try_run(bed.rt(), stuck), 0);
    read_record(&mut theirs).unwrap();
    let delegations = made!(d => crate::budget::rb_delegations_of(bed.rt(), bed.client, Some(&mut d)));
    let mut there = made!(s => rb_snapshot_new(bed.rt(), 4, Some(&mut s)));
    // SAFETY: just made.
    let seen = unsafe { there.as_ref() };
    let (mut totals, mut stats) = (sized::<rb_stats>(), sized::<rb_client_stats>());
    let client = made!(c => rb_snapshot_client(seen, 0, Some(&mut c), &mut stats));
    assert_eq!((client, stats.in_flight, stats.sent, stats.ended_ok, delegations), (bed.client, 1, 1, 1, 2));
    // SAFETY: P3
    assert_eq!(unsafe { rb_snapshot_reactor(seen, 0, &mut totals, &mut stats) }, 1);
    assert_eq!((totals.replied, stats.ended_ok, stats.slots, stats.slots_free), (1, 1, 8, 7));
    // SAFETY: P3
    assert_eq!(unsafe { rb_snapshot_totals(seen, &mut totals) }, 0);
    assert_eq!((totals.in_flight, totals.delegations), (1, 2));
    let mut count = MaybeUninit::uninit();
    let outcome = made!(o => rb_snapshot_ending(seen, 0, 0, Some(&mut o), Some(&mut count)));
    // SAFETY: written by a function that has not failed.
    let count = unsafe { count.assume_init() };
    assert_eq!((outcome.ending, outcome.status, count), (rb_ending::RB_ENDED_REPLIED as i32, 0, 1));
    let (mut session, mut callback) = (sized::<rb_session_report>(), sized::<rb_callback_report>());
    // SAFETY: P3
    assert_eq!(unsafe { rb_snapshot_session(seen, 0, 0, &mut session) }, 1);
    // SAFETY: P3
    assert_eq!(unsafe { rb_snapshot_session(seen, 0, 1, &mut session) }, 0, "what was there stays");
    assert_eq!((session.session, session.connections, session.slots_in_use), (bed.session, 1, 1));
    // SAFETY: P3
    assert_eq!(unsafe { rb_snapshot_callback(seen, 0, 0, &mut callback) }, 1);
    assert_eq!((callback.key, callback.cookie, callback.op, callback.sent), (stuck, 8, 4, 1));
    assert_eq!((callback.session, callback.slot, callback.stage), (bed.session, 0, rb_stage::RB_STAGE_SENT as i32));
    latencies(seen);
    // SAFETY: P2
    let metrics = text(|place, bytes, needed| unsafe { rb_snapshot_text(seen, 1, place, bytes, needed) });
    assert!(metrics.contains("ringback_latency_seconds_count{class=\"recall\",stage=\"done\"} 1\n"), "{metrics}");
    assert_eq!(rb_snapshot_free(Some(&mut there)), 0);
    bed.end();
}

/// One recall was answered.
fn latencies(seen: Option<&rb_snapshot>) {
    let mut latency = sized::<rb_latency>();
    let mut found = 0;
    for number in 0.. {
        // SAFETY: P3
        if unsafe { rb_snapshot_latency(seen, number, &mut latency) } == 0 {
            break;
        }
        let done = latency.stage == rb_latency_stage::RB_LATENCY_DONE as i32;
        if !done || latency.class_ != rb_class::RB_CLASS_RECALL as i32 {
            continue;
        }
        let within = made!(w => rb_snapshot_within(seen, number, u64::MAX, Some(&mut w)));
        let longest = made!(q => rb_snapshot_quantile(seen, number, 1.0, Some(&mut q)));
        assert_eq!((latency.count, within), (1, 1));
        assert!(longest <= latency.max_ns && latency.sum_ns <= latency.max_ns, "{latency:?}");
        found += 1;
    }
    assert_eq!(found, 1);
}
