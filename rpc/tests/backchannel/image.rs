//! A backchannel that goes on elsewhere. That it goes on as it would have here is shown by `random.rs`, which does it in the
//! middle of everything.

use crate::support::*;
use ringback_rpc::backchannel::{Backchannel, BackchannelImage, CallState, ConnToken, SlotState, Token};
use ringback_rpc::nfs4::Status;
use ringback_rpc::nfs4::callback::CallbackOp;

impl World {
    /// Goes on with an image of the core, as another process would; with the connections, or without.
    pub fn carry_over(&mut self, with_connections: bool) {
        let image = self.core.export(self.now_ns, &mut self.space, &mut self.host);
        // What the driver had linked is gone, and what was in no queue was linked to nothing anyway.
        self.host.entries.iter_mut().for_each(|entry| entry.link = None);
        let config = *self.core.config();
        self.core = Backchannel::import(config, &image, self.now_ns, &mut self.host).expect("an image of our own");
        assert_eq!(self.core.export(self.now_ns, &mut self.space, &mut self.host), image);
        for conn in self.conns.clone().into_iter().filter(|_| !with_connections) {
            self.disconnect(conn);
        }
    }
}

fn image(w: &mut World) -> BackchannelImage {
    w.core.export(w.now_ns, &mut w.space, &mut w.host)
}

fn go_on(w: &mut World, image: &BackchannelImage) {
    w.core = Backchannel::import(*w.core.config(), image, w.now_ns, &mut w.host).unwrap();
}

/// Four slots: one call answered, one out, a batch out, and a run that waits for its backoff.
fn busy() -> World {
    let mut w = World::batching(4, 4);
    let delayed = w.recall();
    let first = w.send();
    assert_eq!(first.token(), delayed);
    w.answer(&first, &first.op_status(Status::NFS4ERR_DELAY, 4));
    w.run(CallbackOp::Getattr);
    w.recall();
    w.recall();
    assert_eq!(w.sends().len(), 2);
    w
}

#[test]
fn f19_what_was_sent_is_sent_again_as_it_was_by_another_process() {
    let mut w = World::new(2);
    let token = w.recall();
    let sent = w.send();
    let image = image(&mut w);
    // The encoder of the new process may not be asked: it would say something else now.
    w.entry(token).args_bytes = 400;
    go_on(&mut w, &image);
    w.quiet();
    w.disconnect(C1);
    w.bind(S1, C2);
    w.entry(token).args_bytes = 16;
    let again = w.send();
    assert_eq!((again.conn, &again.bytes), (C2, &sent.bytes));
    w.entry(token).args_bytes = 400;
    w.carry_over(false);
    w.bind(S1, C3);
    w.entry(token).args_bytes = 16;
    let third = w.send();
    assert_eq!((third.conn, &third.bytes), (C3, &sent.bytes));
    w.answer_ok(&third);
    assert_eq!(w.ended(token), [Ended::ok()]);
    assert_eq!(w.entry(token).prepared, 1);
    let next = w.recall();
    let sent = w.send();
    assert_eq!((sent.token(), sent.sequence), (next, 2));
}

#[test]
fn a_reply_to_the_old_process_completes_in_the_new_one_and_once() {
    let mut w = World::new(3);
    let tokens = [w.recall(), w.recall()];
    let sent = w.sends();
    w.carry_over(true);
    w.quiet();
    for sent in &sent {
        w.answer_ok(sent);
        assert_eq!(w.deliver(C1, &sent.ok()), ringback_rpc::backchannel::Handled::Late);
    }
    assert!(tokens.iter().all(|token| w.ended(*token) == [Ended::ok()]));
    w.assert_clean();
}

#[test]
fn time_stands_still_between_two_processes() {
    let mut w = World::new(1);
    let (sent, waiting) = (w.recall(), w.recall());
    w.send();
    w.pass_alive(60);
    let image = image(&mut w);
    // An hour later, by another clock; the driver restores the ages of its runs likewise.
    let pause = 3600 * S;
    w.now_ns += pause;
    [sent, waiting].iter().for_each(|token| w.entry(*token).started_ns += pause);
    go_on(&mut w, &image);
    w.pass_alive(29);
    assert_eq!((w.ended(sent), w.ended(waiting)), (&[][..], &[][..]));
    w.pass_alive(3);
    assert_eq!((w.ended(sent).len(), w.ended(waiting).len()), (1, 1));
}

#[test]
fn runs_that_are_not_kept_leave_their_slots_in_quarantine() {
    let mut w = World::new(3);
    let (kept, gone, queued) = (w.recall(), w.recall(), w.recall());
    let sent = w.sends();
    assert_eq!(sent.len(), 3);
    let waiting = w.recall();
    let mut image = image(&mut w);
    image.retain_runs(|token| token == kept);
    assert_eq!(image.runs().collect::<Vec<_>>(), [kept]);
    go_on(&mut w, &image);
    [gone, queued, waiting].iter().for_each(|token| w.entry(*token).running = false);
    assert_eq!((w.core.run_count(), w.core.census().slots_quarantined), (1, 2));
    w.disconnect(C1);
    w.bind(S1, C2);
    let again = w.sends();
    assert_eq!(again.iter().filter(|s| s.op.is_none()).count(), 2, "lone CB_SEQUENCE: {again:?}");
    again.iter().for_each(|sent| w.answer_ok(sent));
    assert_eq!(w.ended(kept), [Ended::ok()]);
    w.assert_clean();
}

#[test]
fn a_run_that_was_not_executed_leaves_its_slot_free() {
    let mut w = World::new(1);
    let token = w.recall();
    let sent = w.send();
    w.answer(&sent, &sent.sequence_status(Status::NFS4ERR_DELAY));
    let mut image = image(&mut w);
    image.retain_runs(|_| false);
    go_on(&mut w, &image);
    w.entry(token).running = false;
    w.assert_clean();
    assert_eq!(w.core.census().slots_free, 1);
}

/// The client has gone on by so many calls since the image was made.
fn stale(ahead: u32) -> (World, Token) {
    let mut w = World::new(1);
    let image = image(&mut w);
    for _ in 0..ahead {
        w.recall();
        let sent = w.send();
        w.answer_ok(&sent);
    }
    let mut old = image.clone();
    old.distrust();
    assert!(old.check().is_ok() && image.check().is_ok());
    go_on(&mut w, &old);
    w.disconnect(C1);
    w.bind(S1, C2);
    let token = w.recall();
    (w, token)
}

#[test]
fn t16_an_image_that_is_out_of_date_resynchronises_before_it_sends() {
    // Exactly where it was, one call further, and further than can be known.
    for ahead in 0..3 {
        let (mut w, token) = stale(ahead);
        let resync = w.send();
        assert_eq!((resync.op, resync.sequence), (None, 1));
        let status = match ahead {
            0 => Status::NFS4_OK,
            1 => Status::NFS4ERR_RETRY_UNCACHED_REP,
            _ => Status::NFS4ERR_SEQ_MISORDERED,
        };
        let reply = if status.is_ok() { resync.ok() } else { resync.sequence_status(status) };
        w.answer(&resync, &reply);
        if ahead < 2 {
            let sent = w.send();
            assert_eq!((sent.token(), sent.sequence), (token, 2));
            w.answer_ok(&sent);
            w.assert_clean();
        } else {
            w.quiet();
            assert_eq!(w.core.census().slots_retired, 1);
        }
    }
}

/// Something done to an image, after which it contradicts itself.
type Break = (&'static str, fn(&mut BackchannelImage));

const BREAKS: &[Break] = &[
    ("a client has too many sessions", |i| i.sessions.extend(vec![i.sessions[0].clone(); 16])),
    ("two sessions have one name", |i| {
        let mut twin = i.sessions[0].clone();
        (twin.base, twin.calls) = (100, Vec::new());
        twin.slots.iter_mut().for_each(|slot| slot.state = SlotState::Free);
        i.sessions.push(twin);
    }),
    ("two sessions share a slot", |i| {
        let mut twin = i.sessions[0].clone();
        (twin.key.0, twin.calls) = (77, Vec::new());
        twin.slots.iter_mut().for_each(|slot| slot.state = SlotState::Free);
        i.sessions.push(twin);
    }),
    ("two connections have one name", |i| i.connections.push(i.connections[0])),
    ("a client has too many connections", |i| i.connections = vec![i.connections[0]; 65]),
    ("a run is in two places", |i| i.fresh.push(i.delayed[0].token)),
    ("a run waits for longer than any does", |i| i.delayed[0].left_ns = 60 * S),
    ("a session has no slots, or too many", |i| i.sessions[0].slots.clear()),
    ("a session's slots have no place", |i| i.sessions[0].base = 4093),
    ("a slot limit is beyond the table", |i| i.sessions[0].ceiling = 4),
    ("a session has an unknown minor version", |i| i.sessions[0].minor_version = 0),
    ("a session has no parameters, or too many", |i| i.sessions[0].parameters.clear()),
    ("a session lacks its parameters", |i| i.sessions[0].current = 1),
    ("a credential is malformed", |i| i.sessions[0].parameters[0].credential.truncate(10)),
    ("a session is too small for a call", |i| i.sessions[0].request_bytes_max = 100),
    ("a session allows no operation, or too many", |i| i.sessions[0].batch_limit = 65),
    ("a session has an unknown connection", |i| i.sessions[0].bound.push(ConnToken(99))),
    ("two calls share a slot", |i| {
        let twin = i.sessions[0].calls[0].clone();
        i.sessions[0].calls.push(twin);
    }),
    ("a busy slot has no call", |i| i.sessions[0].slots[3].state = SlotState::Busy),
    ("a call has no slot", |i| i.sessions[0].slots[0].state = SlotState::Free),
    ("a call has no slot", |i| i.sessions[0].calls[0].slot = 9),
    ("a call has no operation, or too many", |i| i.sessions[0].calls[0].count = 0),
    ("a run has no place in its call", |i| i.sessions[0].calls[0].runs[0].0 = 9),
    ("the runs of a call are out of order", |i| i.sessions[0].calls[1].runs.swap(0, 1)),
    ("a lone CB_SEQUENCE carries a run", |i| i.sessions[0].calls[0].resync = true),
    ("a call lacks its parameters", |i| i.sessions[0].calls[0].parameters = 3),
    ("a call has an unknown connection", |i| i.sessions[0].calls[0].conn = Some(ConnToken(99))),
    ("an xid names another slot", |i| i.sessions[0].calls[0].xid += 1),
    ("the bytes of a call are no record of it", |i| i.sessions[0].calls[0].bytes[7] ^= 1),
    ("the bytes of a call are no record of it", |i| {
        i.sessions[0].calls[0].bytes.pop();
    }),
];

#[test]
fn an_image_that_contradicts_itself_is_refused_and_changes_nothing() {
    let mut w = busy();
    let whole = image(&mut w);
    assert_eq!(whole.sessions[0].calls.len(), 2);
    assert!(whole.sessions[0].calls.iter().all(|call| call.state == CallState::Sent && !call.bytes.is_empty()));
    for (what, spoil) in BREAKS {
        let mut image = whole.clone();
        spoil(&mut image);
        assert_eq!(image.check().map_err(|e| e.what), Err(*what));
        let before = format!("{:?}", w.host.entries);
        let refused = Backchannel::import(*w.core.config(), &image, w.now_ns, &mut w.host);
        assert_eq!(refused.map(|_| ()).map_err(|e| e.what), Err(*what));
        assert_eq!(format!("{:?}", w.host.entries), before);
    }
    assert_eq!(whole.check(), Ok(()));
}
