//! Referring call lists (RFC 8881 sections 2.10.6.3 and 20.9.3).

use crate::support::*;
use ringback_rpc::backchannel::{SessionParams, Transmit};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::CallbackOp;

/// A recall of what the reply to an OPEN grants, which may be still on its way.
#[test]
fn f10_a_callback_names_the_calls_that_it_depends_on_in_each_copy() {
    let mut w = World::new(4);
    let plain = w.recall();
    let token = w.recall();
    let opens = vec![(session_id(S1), 7, 3), (session_id(S1), 9, 0), (session_id(S2), 1, 1)];
    w.entry(token).referring = opens.clone();
    let sent = w.sends();
    assert_eq!((sent[0].token(), sent[0].referring.len()), (plain, 0));
    assert_eq!((sent[1].token(), &sent[1].referring), (token, &opens));
    w.disconnect(C1);
    w.bind(S1, C2);
    let again = w.sends();
    assert_eq!(again[1].bytes, sent[1].bytes);
    // The client waits for them in vain, and says so.
    w.answer(&again[1], &again[1].sequence_status(Status::NFS4ERR_DELAY));
    w.pass(S);
    let renewed = w.send();
    assert_eq!((renewed.sequence, &renewed.referring), (again[1].sequence, &opens));
    w.answer_ok(&again[0]);
    w.answer_ok(&renewed);
    w.assert_clean();
}

#[test]
fn f10_a_resynchronisation_names_none() {
    let mut w = World::new(1);
    let token = w.recall();
    w.entry(token).referring = vec![(session_id(S1), 7, 3)];
    let sent = w.send();
    w.core.cancel(w.now_ns, token, &mut w.host);
    w.disconnect(C1);
    w.bind(S1, C2);
    let probe = w.send();
    assert_eq!((probe.op, probe.sequence, probe.referring.len()), (None, sent.sequence, 0));
    w.answer_ok(&probe);
    w.assert_clean();
}

/// What others do not depend on they need not wait for.
#[test]
fn f10_a_callback_with_a_list_goes_alone() {
    let mut w = World::batching(4, 10);
    let tokens: Vec<_> = (0..6).map(|_| w.recall()).collect();
    for at in [0, 3] {
        w.entry(tokens[at]).referring = vec![(session_id(S1), 5, at as u32)];
    }
    let sent = w.sends();
    let expected = [vec![tokens[0]], vec![tokens[1], tokens[2]], vec![tokens[3]], vec![tokens[4], tokens[5]]];
    assert_eq!(sent.iter().map(Sent::tokens).collect::<Vec<_>>(), expected);
    assert_eq!(sent.iter().map(|s| s.referring.len()).collect::<Vec<_>>(), [1, 0, 1, 0]);
    sent.iter().for_each(|s| w.answer_ok(s));
    w.assert_clean();
}

/// Nor with lists that had to be left out: the client is as likely to put it off.
#[test]
fn f10_a_callback_whose_lists_did_not_fit_goes_alone() {
    let mut w = World::batching(4, 10);
    let tokens: Vec<_> = (0..4).map(|_| w.recall()).collect();
    for at in [0, 2] {
        w.entry(tokens[at]).referring = (0..1000).map(|slot| (session_id(S1), 1, slot)).collect();
    }
    let sent = w.sends();
    assert_eq!(sent.iter().map(Sent::tokens).collect::<Vec<_>>(), tokens.chunks(1).collect::<Vec<_>>());
    assert!(sent.iter().all(|s| s.referring.is_empty()));
    sent.iter().for_each(|s| w.answer_ok(s));
    w.assert_clean();
}

/// The lists count against ca_maxrequestsize; they are left out if the request would be too large with them.
#[test]
fn f10_lists_that_do_not_fit_are_left_out() {
    for (args_bytes, calls, kept) in [(16, 20, true), (300, 20, true), (16, 100, false), (600, 20, false)] {
        let mut w = World::empty(Default::default());
        let params = SessionParams { request_bytes_max: 768, ..params(S1, 4) };
        w.core.add_session(S1, &params, &mut w.host).unwrap();
        w.bind(S1, C1);
        let token = w.recall();
        w.entry(token).args_bytes = args_bytes;
        w.entry(token).referring = (0..calls).map(|slot| (session_id(S1), 1, slot)).collect();
        let sent = w.send();
        assert!(sent.bytes.len() <= 768 + 4);
        let expected = if kept { calls as usize } else { 0 };
        assert_eq!((sent.token(), sent.referring.len()), (token, expected), "{args_bytes} and {calls}");
        w.disconnect(C1);
        w.bind(S1, C2);
        let again = w.send();
        assert_eq!(again.bytes, sent.bytes);
        w.answer_ok(&again);
        w.assert_clean();
    }
}

/// A buffer that is too small for list and operation is the driver's affair, not a reason to leave the list out.
#[test]
fn f10_a_small_buffer_loses_no_list() {
    let mut w = World::new(1);
    let token = w.run(CallbackOp::Recall);
    w.entry(token).referring = (0..50).map(|slot| (session_id(S1), 1, slot)).collect();
    for len in (300..500).step_by(4) {
        let did = w.core.poll_transmit(w.now_ns, C1, &mut vec![0; len], &mut w.host);
        assert_eq!(did, Transmit::NoSpace, "{len} bytes");
    }
    let sent = w.send();
    assert_eq!(sent.referring.len(), 50);
    w.answer_ok(&sent);
    w.assert_clean();
}
