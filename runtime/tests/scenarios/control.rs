//! BACKCHANNEL_CTL (RFC 8881 section 18.33) through the runtime.

use crate::bench::*;
use ringback::Security;
use std::time::Duration;

fn sys(uid: u32) -> Security {
    Security::Sys { stamp: 1, machine_name: b"server".to_vec(), uid, gid: 0, gids: vec![] }
}

#[test]
fn f6_the_next_new_callback_has_the_new_program_and_credential() {
    let bench = Bench::new();
    let (mut line, client, session) = bench.client(4);
    bench.recall(client, 0);
    let old = line.call();
    bench.runtime.backchannel_ctl(session, 0x5555, Security::None).unwrap();
    bench.recall(client, 1);
    let new = line.call();
    assert_eq!((old.program, old.credential, new.program, new.credential), (PROGRAM, 1, 0x5555, 0));
    [old, new].iter().for_each(|call| line.ok(call));
    bench.until_idle();
    (0..2).for_each(|cookie| bench.assert_ended_once(cookie, "Replied"));
    bench.assert_slots_free();
}

/// A call for each of more parameter sets than are kept is out. New ones wait, and are not sent with old parameters.
#[test]
fn f6_a_control_that_finds_no_room_is_carried_out_later() {
    let bench = Bench::new();
    let (mut line, client, session) = bench.client(16);
    let mut out = Vec::new();
    for number in 0..4u32 {
        bench.recall(client, number.into());
        out.push(line.call());
        bench.runtime.backchannel_ctl(session, 0x5000 + number, sys(number)).unwrap();
    }
    for cookie in 4..8 {
        bench.recall(client, cookie);
    }
    line.quiet();
    bench.runtime.backchannel_ctl(session, 0x6000, sys(9)).unwrap();
    line.quiet();
    line.ok(&out[1]);
    for cookie in 4..8 {
        let call = line.call();
        assert_eq!((call.program, call.cookie()), (0x6000, cookie));
        line.ok(&call);
    }
    for at in [0, 2, 3] {
        line.ok(&out[at]);
    }
    bench.until_idle();
    (0..8).for_each(|cookie| bench.assert_ended_once(cookie, "Replied"));
    assert!(bench.hooks.events.lock().unwrap().iter().all(|e| !format!("{e:?}").contains("Refused")));
    bench.assert_slots_free();
}

#[test]
fn f19_a_control_before_a_resend_leaves_its_bytes_alone() {
    let bench = Bench::new();
    let (mut line, client, session) = bench.client(2);
    bench.recall(client, 0);
    let sent = line.call();
    bench.runtime.backchannel_ctl(session, 0x5555, sys(7)).unwrap();
    bench.runtime.close_connection(line.connection);
    let mut next = bench.line();
    bench.runtime.bind(next.connection, session).unwrap();
    let again = next.call_within(Duration::from_secs(10)).unwrap();
    assert_eq!(again.bytes, sent.bytes);
    next.ok(&again);
    bench.recall(client, 1);
    let new = next.call();
    assert_eq!((new.program, new.slot, new.sequence), (0x5555, 0, 2));
    next.ok(&new);
    bench.until_idle();
    bench.assert_slots_free();
}
