//! What has to do with one session: CB_RECALL_SLOT, and the fore-channel calls that a callback depends on.

use crate::bench::*;
use ringback::{CallbackOp, InsertError};
use ringback_rpc::nfs4::{SessionId, Status};
use ringback_rpc::session::{Check, ReplierSlots, SequenceId, SlotId};
use std::time::Duration;

const RECALL_SLOT: u32 = CallbackOp::RecallSlot as u32;

#[test]
fn t37_cb_recall_slot_stays_on_its_session() {
    let bench = Bench::new();
    let (mut line, client, first) = bench.client(1);
    let mut other = bench.line();
    let second = bench.runtime.add_session(client, session_config(2, 1)).unwrap();
    bench.runtime.bind(other.connection, second).unwrap();
    let keys =
        [bench.runtime.insert_recall_slot(second, 1).unwrap(), bench.runtime.insert_recall_slot(first, 2).unwrap()];
    for _ in 0..3 {
        keys.iter().for_each(|key| bench.submit(*key));
        for (line, id, cookie) in [(&mut line, 1, 2), (&mut other, 2, 1)] {
            let call = line.call();
            assert_eq!((call.session, call.op), (SessionId([id; 16]), Some((RECALL_SLOT, cookie))));
            line.ok(&call);
        }
        bench.until_idle();
    }
    // Its connection goes: it waits for the next one of its session, whatever else is there.
    bench.runtime.close_connection(other.connection);
    bench.submit(keys[0]);
    line.quiet();
    let mut again = bench.line();
    bench.runtime.bind(again.connection, second).unwrap();
    assert_eq!(again.serve(), 1);
    bench.until_idle();
    bench.assert_slots_free();
}

#[test]
fn t29_cb_recall_slot_ends_with_its_session() {
    let bench = Bench::new();
    let (mut line, client, first) = bench.client(2);
    let second = bench.runtime.add_session(client, session_config(2, 1)).unwrap();
    let waiting = bench.runtime.insert_recall_slot(second, 1).unwrap();
    bench.submit(waiting);
    line.quiet();
    bench.runtime.remove_session(second).unwrap();
    bench.until_released(1, 1);
    bench.assert_ended_once(1, "Cancelled { sent: false }");
    // It is there and has no session: each of its runs ends at once, and goes nowhere else.
    bench.submit(waiting);
    bench.until_released(1, 2);
    assert_eq!(bench.runtime.insert_recall_slot(second, 3), Err(InsertError::NoSuchSession));
    // Its entry goes to a callback of another kind and then to one of another session.
    bench.runtime.remove(waiting);
    let recall = bench.recall(client, 4);
    assert_eq!((recall.index, line.serve()), (waiting.index, 4));
    bench.until_idle();
    bench.runtime.remove(recall);
    let third = bench.runtime.insert_recall_slot(first, 5).unwrap();
    assert_eq!(third.index, waiting.index);
    bench.submit(third);
    assert_eq!(line.serve(), 5);
    bench.until_idle();
    bench.runtime.remove_client(client).unwrap();
    assert_eq!(bench.runtime.insert_recall_slot(first, 6), Err(InsertError::NoSuchClient));
}

/// The recall overtakes the reply to the OPEN that granted what is recalled: the client is told to wait for it.
#[test]
fn f10_a_callback_that_overtakes_a_reply_names_the_call() {
    let bench = Bench::new();
    let (mut line, client, session) = bench.client(4);
    // The OPEN that grants the delegation is on slot 0 of the fore channel.
    let (mut fore, slot, open) = (ReplierSlots::new(4, 0), SlotId(0), ([1; 16], 1, 0));
    assert_eq!(fore.check(slot, SequenceId(1), slot, 7), Ok(Check::New));
    fore.finish(slot, None);
    assert!(!fore.has_passed(slot, SequenceId(1)));
    bench.hooks.referring.lock().unwrap().insert(0, vec![open]);
    bench.recall(client, 0);
    bench.recall(client, 1);
    let calls = [line.call(), line.call()];
    assert_eq!((&calls[0].referring[..], &calls[1].referring[..]), (&[open][..], &[][..]));
    // A copy is the same, and so is what is asked again after NFS4ERR_DELAY.
    bench.runtime.close_connection(line.connection);
    let mut next = bench.line();
    bench.runtime.bind(next.connection, session).unwrap();
    let again = [next.call(), next.call()];
    assert_eq!(again[0].bytes, calls[0].bytes);
    next.reply(again[0].sequence_status(Status::NFS4ERR_DELAY));
    next.ok(&again[1]);
    let renewed = next.call_within(Duration::from_secs(5)).unwrap();
    assert_eq!((&renewed.referring[..], renewed.sequence), (&[open][..], again[0].sequence));
    next.ok(&renewed);
    bench.until_idle();
    // The client has used that slot again: it has the reply, and the next recall need not wait for it.
    assert_eq!(fore.check(slot, SequenceId(2), slot, 8), Ok(Check::New));
    assert!(fore.has_passed(slot, SequenceId(1)));
    bench.hooks.referring.lock().unwrap().clear();
    let key = bench.recall(client, 2);
    let call = next.call();
    assert_eq!(call.referring, []);
    next.ok(&call);
    bench.until_idle();
    bench.runtime.remove(key);
    bench.assert_slots_free();
}
