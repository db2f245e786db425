//! Upgrades that succeed.

use super::*;
use crate::{Error, Event, Restored, Run};
use ringback_rpc::nfs4::callback::CallbackOp;
use ringback_rpc::xdr::{self, Writer};
use std::io::{Read, Write};
use std::os::fd::AsFd;

/// Of six callbacks of each client two are out, one of them with half of its reply in; four wait.
#[test]
fn callbacks_of_the_old_process_complete_once_in_the_new_one() {
    for ((from, reactors), (to, next)) in pairs() {
        let mut bed = Bed::new(builder(from, reactors), 5, 8);
        let begun = bed.start(6);
        let stale = bed.clients[0].keys[7];
        bed.runtime.remove(stale);
        eventually("the halves have come", || bed.runtime.stats().received_bytes > 0);
        let (socket, thread) = successor(builder(to, next), None);
        let given = bed.runtime.upgrade_to(socket, &[], PATIENCE).unwrap();
        let Next { runtime, hooks, upgraded, .. } = thread.join().unwrap().unwrap();
        assert_eq!((given.connections, given.clients, given.callbacks, given.in_flight), (10, 5, 39, 30));
        assert_eq!(Upgraded { pause: given.pause, ..upgraded }, given);
        assert!(upgraded.pause >= given.pause);
        assert_eq!(bed.hooks.released(), 0, "nothing ended there");
        assert_eq!(bed.runtime.add_client(None), Err(Error::HandedOver));
        assert_eq!(
            bed.runtime.set_client_state(bed.clients[0].id, crate::ClientState::Courtesy),
            Err(Error::HandedOver)
        );
        assert_eq!(bed.runtime.shutdown(Duration::ZERO), Err(Error::HandedOver));
        assert_eq!(bed.runtime.try_run(bed.clients[0].keys[6]), TryRun::Closed);

        assert_eq!(runtime.stats().in_flight, 30);
        assert_eq!(
            (runtime.try_run(stale), runtime.try_run(bed.clients[0].keys[0])),
            (TryRun::Stale, TryRun::Coalesced)
        );
        for (n, (client, begun)) in (0..).zip(bed.clients.iter_mut().zip(begun)) {
            assert_eq!(client.finish(begun, 6), (n * 8..n * 8 + 6).collect::<Vec<_>>(), "{from:?} to {to:?}");
        }
        eventually("all have ended", || runtime.stats().in_flight == 0);
        for cookie in (0..5).flat_map(|n| n * 8..n * 8 + 6) {
            let (here, there) = (hooks.of(cookie), bed.hooks.of(cookie));
            assert_eq!((there.acquired, there.prepared + here.prepared), (1, 1));
            assert_eq!((here.done.len(), here.released, here.dropped), (1, 1, 1), "{here:?}");
        }
        let stats = runtime.stats();
        assert_eq!((stats.resent, stats.connections_condemned, stats.released), (0, 0, 30));
        let census = runtime.census().unwrap();
        assert_eq!((census.slots, census.free), (10, 10));
        runtime.shutdown(Duration::ZERO).unwrap();
    }
}

/// A chain of processes, each with a callback more in flight, of which the last one hears of all.
#[test]
fn a_runtime_is_handed_over_again_and_again() {
    for backend in backends() {
        let mut bed = Bed::new(builder(backend, 2), 1, 9);
        let (mut runtime, keys) = (bed.runtime.clone(), bed.clients[0].keys.clone());
        let mut hooks = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(runtime.try_run(*key), TryRun::Submitted);
            let (socket, thread) = successor(builder(backends()[n % backends().len()], 1 + n % 3), None);
            runtime.upgrade_to(socket, &[], PATIENCE).unwrap();
            let next = thread.join().unwrap().unwrap();
            runtime = next.runtime;
            hooks.push(next.hooks);
        }
        let begun = bed.clients[0].begin();
        assert_eq!(bed.clients[0].finish(begun, 9), (0..9).collect::<Vec<_>>());
        eventually("all have ended", || runtime.stats().in_flight == 0);
        let prepared =
            |cookie| hooks.iter().map(|h| h.of(cookie).prepared).sum::<u32>() + bed.hooks.of(cookie).prepared;
        assert!((0..9).all(|cookie| prepared(cookie) == 1 && hooks[8].of(cookie).released == 1));
    }
}

/// The fore channel: a call of which half has come, one that waits for an answer, and an answer that the peer does not read.
#[test]
fn what_was_received_is_handled_and_what_was_encoded_is_sent() {
    for ((from, reactors), (to, next)) in pairs() {
        let mut bed = Bed::new(builder(from, reactors), 2, 0);
        let large = 3_000_000;
        for client in &mut bed.clients {
            write_record(&mut client.stream, &call(100, large));
            write_record(&mut client.stream, &call(100, large + 1));
            write_record(&mut client.other, &call(60, LATER + 5));
            let half = call(5000, 40);
            client.other.write_all(&(5000u32 | 1 << 31).to_be_bytes()).unwrap();
            client.other.write_all(&half[..2000]).unwrap();
        }
        eventually("the calls have come", || bed.fore.calls.lock().unwrap().len() >= 6);
        let (socket, thread) = successor(builder(to, next), None);
        bed.runtime.upgrade_to(socket, &[], PATIENCE).unwrap();
        let Next { runtime, fore, .. } = thread.join().unwrap().unwrap();
        for (token, _) in bed.fore.deferred.lock().unwrap().drain(..) {
            let (connection, serial) = token.to_parts();
            runtime.reply(CallToken::from_parts(connection, serial), vec![b"later".to_vec()]);
        }
        for client in &mut bed.clients {
            assert!(read_record(&mut client.stream).unwrap() == bytes(100, large));
            assert!(read_record(&mut client.stream).unwrap() == bytes(100, large + 1));
            client.other.write_all(&call(5000, 40)[2000..]).unwrap();
            // From two threads: in any order.
            let mut answers = [read_record(&mut client.other).unwrap(), read_record(&mut client.other).unwrap()];
            answers.sort_by_key(Vec::len);
            assert_eq!(answers, [b"later".to_vec(), bytes(5000, 40)]);
        }
        assert_eq!(*fore.calls.lock().unwrap(), [40, 40]);
        assert_eq!(runtime.shutdown(Duration::ZERO).unwrap().in_flight, 0);
        let mut end = Vec::new();
        assert_eq!(bed.clients[0].stream.read_to_end(&mut end).unwrap(), 0, "closed by the new one alone");
    }
}

/// An embedder that says something for itself, and is asked for something while everything stands still.
#[derive(Default)]
struct Busy {
    counting: Counting,
    runtime: Mutex<Option<Runtime>>,
}

impl Hooks for Busy {
    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        self.counting.encode(run, args)
    }
    fn done(&self, run: &Run, outcome: &crate::Outcome<'_>) -> crate::Done {
        self.counting.done(run, outcome)
    }
    fn release(&self, run: &Run) {
        self.counting.release(run);
    }
    fn event(&self, event: &Event) {
        self.counting.event(event);
    }
    fn checkpoint(&self, own: &mut Vec<u8>) {
        own.extend_from_slice(b"what the server has");
        if let Some(runtime) = &*self.runtime.lock().unwrap() {
            let client = runtime.add_client(None).unwrap();
            runtime.add_session(client, session_config(9, 1)).unwrap();
        }
    }
    fn restored(&self, callback: &Restored) -> Option<u64> {
        Some(callback.cookie + 1000)
    }
}

fn busy(backend: Backend) -> (Runtime, Arc<Busy>) {
    let hooks = Arc::new(Busy::default());
    let runtime = builder(backend, 2).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    *hooks.runtime.lock().unwrap() = Some(runtime.clone());
    (runtime, hooks)
}

fn undone(hooks: &Busy) -> Vec<&'static str> {
    let events = hooks.counting.events.lock().unwrap();
    let undone = events.iter().filter_map(|event| match event {
        Event::LeftUndone { call, .. } => Some(*call),
        _ => None,
    });
    undone.collect()
}

#[test]
fn what_is_asked_for_meanwhile_is_told_to_be_left_undone() {
    for backend in backends() {
        let (runtime, hooks) = busy(backend);
        let (socket, thread) = successor(builder(backend, 1), None);
        let given = runtime.upgrade_to(socket, &[], PATIENCE).unwrap();
        let next = thread.join().unwrap().unwrap();
        assert_eq!((given.undone, undone(&hooks)), (2, vec!["add_client", "add_session"]));
        assert_eq!(next.runtime.stats().in_flight, 0);
        *hooks.runtime.lock().unwrap() = None;
    }
}

/// Asks for something about callbacks after their entries were read, and notes the answers.
#[derive(Default)]
struct Asking {
    counting: Counting,
    at: Mutex<Option<(Runtime, ClientId, Vec<CallbackKey>)>>,
    answers: Mutex<Option<(TryRun, TryRun, CallbackKey)>>,
}

impl Hooks for Asking {
    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        self.counting.encode(run, args)
    }
    fn done(&self, run: &Run, outcome: &crate::Outcome<'_>) -> crate::Done {
        self.counting.done(run, outcome)
    }
    fn event(&self, event: &Event) {
        self.counting.event(event);
    }
    fn checkpoint(&self, _: &mut Vec<u8>) {
        let Some((runtime, client, keys)) = self.at.lock().unwrap().take() else { return };
        let (accepted, coalesced) = (runtime.try_run(keys[0]), runtime.try_run(keys[1]));
        runtime.remove(keys[2]);
        runtime.cancel(keys[1]);
        let key = runtime.insert(client, CallbackOp::Recall, 99).unwrap();
        *self.answers.lock().unwrap() = Some((accepted, coalesced, key));
    }
}

/// A `try_run` that was accepted when the entries were written already: nobody will run it, and that is told.
#[test]
fn what_was_accepted_too_late_is_told_by_key() {
    for backend in backends() {
        for fault in [None, Some((Step::Ready, Fault::Error))] {
            let hooks = Arc::new(Asking::default());
            let runtime = builder(backend, 2).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
            let client = runtime.add_client(None).unwrap();
            let keys = insert_all(&runtime, client, 0..4);
            assert_eq!(runtime.try_run(keys[1]), TryRun::Submitted);
            *hooks.at.lock().unwrap() = Some((runtime.clone(), client, keys.clone()));
            let (socket, thread) = successor(builder(backend, 1), fault);
            let given = runtime.upgrade_to(socket, &[], PATIENCE);
            let next = thread.join().unwrap();
            let (accepted, coalesced, late) = hooks.answers.lock().unwrap().unwrap();
            assert_eq!((accepted, coalesced), (TryRun::Submitted, TryRun::Coalesced));
            let events = hooks.counting.events.lock().unwrap().clone();
            let told = events.iter().filter_map(|event| match event {
                Event::LeftUndone { call, client: Some(of), key: Some(key), .. } if *of == client => {
                    Some((*call, *key))
                }
                Event::LeftUndone { .. } => panic!("{event:?}"),
                _ => None,
            });
            let told: Vec<_> = told.collect();
            if fault.is_some() {
                // It goes on with all of it.
                assert!(given.is_err() && told.is_empty(), "{told:?}");
                eventually("one is cancelled, and one waits", || runtime.stats().in_flight == 1);
                assert_eq!((runtime.try_run(keys[2]), runtime.try_run(keys[0])), (TryRun::Stale, TryRun::Coalesced));
                runtime.shutdown(Duration::ZERO).unwrap();
                continue;
            }
            let expected = [("try_run", keys[0]), ("cancel", keys[1]), ("remove", keys[2]), ("insert", late)];
            assert_eq!((given.unwrap().undone, &told[..]), (4, &expected[..]));
            // It is as it was before: the embedder asks for it there.
            let next = next.unwrap().runtime;
            assert_eq!(next.stats().in_flight, 1);
            assert_eq!((next.try_run(late), next.try_run(keys[1])), (TryRun::Stale, TryRun::Coalesced));
            assert_eq!((next.try_run(keys[0]), next.try_run(keys[2])), (TryRun::Submitted, TryRun::Submitted));
            // Here nothing is accepted any more.
            assert_eq!((runtime.try_run(keys[3]), runtime.try_run(keys[1])), (TryRun::Closed, TryRun::Closed));
        }
    }
}

/// What was accepted while it stood still and before its entry was read goes over.
#[test]
fn what_was_accepted_in_time_goes_over() {
    for backend in backends() {
        let hooks = Arc::new(Counting::default());
        let runtime = builder(backend, 2).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
        let client = runtime.add_client(None).unwrap();
        let keys = insert_all(&runtime, client, 0..2);
        let suspended = runtime.suspend().unwrap();
        assert_eq!(runtime.try_run(keys[0]), TryRun::Submitted);
        let mut bytes = Vec::new();
        suspended.checkpoint(&mut bytes).unwrap();
        assert_eq!(suspended.leave(), 0);
        let checkpoint = crate::Checkpoint::from_bytes(&bytes).unwrap();
        let next =
            builder(backend, 1).restore(&checkpoint).build(Arc::new(Counting::default()), Arc::new(Deaf)).unwrap();
        assert_eq!((next.stats().in_flight, next.try_run(keys[0])), (1, TryRun::Coalesced));
    }
}

#[test]
fn what_is_asked_for_meanwhile_is_done_if_the_upgrade_fails() {
    for backend in backends() {
        let (runtime, hooks) = busy(backend);
        let (socket, thread) = successor(builder(backend, 1), Some((Step::Ready, Fault::Error)));
        assert!(runtime.upgrade_to(socket, &[], PATIENCE).is_err());
        assert!(thread.join().unwrap().is_err());
        eventually("the session is there", || runtime.census().unwrap().slots == 1);
        assert_eq!(undone(&hooks), [] as [&str; 0]);
        *hooks.runtime.lock().unwrap() = None;
        runtime.shutdown(Duration::ZERO).unwrap();
    }
}

#[test]
fn the_embedder_hands_over_what_it_has_itself() {
    for backend in backends() {
        let (runtime, hooks) = busy(backend);
        *hooks.runtime.lock().unwrap() = None;
        let client = runtime.add_client(None).unwrap();
        let key = insert_all(&runtime, client, 7..8)[0];
        assert_eq!(runtime.try_run(key), TryRun::Submitted);
        let (socket, theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            let mut upgrade = Upgrade::receive(theirs, PATIENCE).unwrap();
            let (own, files, next) = (upgrade.checkpoint().own(), upgrade.take_files(), Arc::new(Busy::default()));
            let builder = builder(backend, 1).upgrade_from(&upgrade);
            let runtime = builder.build(Arc::clone(&next) as _, Arc::new(Deaf)).unwrap();
            upgrade.confirm().unwrap();
            (own, files, next, runtime)
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // More than fit into a message.
        let files: Vec<BorrowedFd<'_>> = std::iter::repeat_n(listener.as_fd(), 300).collect();
        runtime.upgrade_to(socket, &files, PATIENCE).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let (own, files, next, runtime) = thread.join().unwrap();
        assert_eq!((&own[..], files.len()), (&b"what the server has"[..], 300));
        TcpStream::connect(address).unwrap();
        drop(files);
        TcpStream::connect(address).unwrap_err();
        runtime.remove_client(client).unwrap();
        eventually("it is cancelled", || next.counting.of(1007).released == 1);
    }
}

/// Whoever waits is told that nothing will come of it here; who asks again in the new process joins what goes on there.
#[test]
fn waits_and_groups_end_in_the_old_process_and_are_asked_for_again_in_the_new_one() {
    for backend in backends() {
        let mut bed = Bed::new(builder(backend, 2), 2, 2);
        let keys: Vec<_> = bed.clients.iter().flat_map(|client| client.keys.clone()).collect();
        let group = bed.runtime.try_run_many(&keys, |_, asked| assert_eq!(asked, TryRun::Submitted)).unwrap();
        let wait = bed.runtime.wait(keys[0]);
        let begun: Vec<_> = bed.clients.iter_mut().map(Peer::begin).collect();
        let (socket, thread) = successor(builder(backend, 1), None);
        bed.runtime.upgrade_to(socket, &[], PATIENCE).unwrap();
        let next = thread.join().unwrap().unwrap().runtime;
        let settled = group.block(PATIENCE).unwrap();
        assert_eq!((settled.returned, settled.overdue, settled.failed), (0, 0, 4));
        assert_eq!(wait.block(PATIENCE).unwrap_err(), crate::WaitError::Closed);
        let group = next.try_run_many(&keys, |_, asked| assert_eq!(asked, TryRun::Coalesced)).unwrap();
        let wait = next.wait(keys[0]);
        for (n, (client, begun)) in (0..).zip(bed.clients.iter_mut().zip(begun)) {
            assert_eq!(client.finish(begun, 2), [n * 2, n * 2 + 1], "each comes once");
        }
        assert!(wait.block(PATIENCE).is_ok());
        eventually("all are answered", || next.stats().in_flight == 0);
        assert_eq!(group.settled(), None, "what was recalled is yet to come back");
        for key in &keys {
            next.remove(*key);
        }
        let settled = group.block(PATIENCE).unwrap();
        assert_eq!((settled.returned, settled.overdue, settled.failed), (4, 0, 0));
    }
}

/// Two batches of sockets.
#[test]
fn hundreds_of_connections_go_over() {
    for backend in backends() {
        let mut bed = Bed::new(builder(backend, 2), 1, 2);
        let begun = bed.start(2);
        let more = 260;
        let mut streams: Vec<TcpStream> = (0..more)
            .map(|_| {
                let (ours, theirs) = pair();
                bed.runtime.add_connection(ours).unwrap();
                theirs
            })
            .collect();
        let (socket, thread) = successor(builder(backend, 3), None);
        let given = bed.runtime.upgrade_to(socket, &[], PATIENCE).unwrap();
        assert_eq!(given.connections, more + 2);
        let Next { runtime, .. } = thread.join().unwrap().unwrap();
        for (n, stream) in (0..).zip(&mut streams) {
            write_record(stream, &call(8, 16 + n));
        }
        for (n, stream) in (0..).zip(&mut streams) {
            assert_eq!(read_record(stream).unwrap(), bytes(8, 16 + n));
        }
        assert_eq!(bed.clients[0].finish(begun.into_iter().next().unwrap(), 2), [0, 1]);
        eventually("all have ended", || runtime.stats().in_flight == 0);
    }
}
