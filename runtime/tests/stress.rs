//! Real threads against each other, with two reactors: requests, waiters, removals, inserts, lost connections and
//! clients that go, then a drain. Checked for lost and doubled completions, and meant to be run under the sanitizers too;
//! `cargo test` runs it for a second on each back end.
//!
//!     cargo test -p ringback --test stress -- --seconds 60

#![forbid(unsafe_code)]

#[cfg(not(loom))]
mod common;

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|at| args.get(at + 1));
    if args.iter().any(|a| a == "--list") {
        println!("{}: test", stress::NAME);
        return;
    }
    // A filter of `cargo test`: anything that is no option nor the value of one.
    let valued = ["--seconds", "--test-threads", "--skip", "--format", "--color", "--logfile"];
    let is_value = |at: usize| at > 0 && valued.contains(&args[at - 1].as_str());
    let mut filters = args.iter().enumerate().filter(|(at, a)| !a.starts_with('-') && !is_value(*at)).peekable();
    if filters.peek().is_some() && !filters.any(|(_, filter)| stress::NAME.contains(filter.as_str())) {
        return;
    }
    let seconds = value("--seconds").map_or(1, |s| s.parse().expect("--seconds takes a number"));
    for mode in common::modes() {
        stress::run(&mode, std::time::Duration::from_secs(seconds));
    }
}

#[cfg(not(loom))]
mod stress {
    use super::common::{Deaf, Mode, SlotIds, answer_recall, pair, read_record, session_config, stateid};
    use ringback::{Builder, CallbackKey, CallbackOp, ClientId, Done, Hooks, Outcome, Prepare, Remove, Run};
    use ringback::{Runtime, SessionKey, TryRun};
    use ringback_rpc::nfs4::callback::CbRecallArgs;
    use ringback_rpc::nfs4::{FileHandle, Status};
    use ringback_rpc::record::LAST_FRAGMENT;
    use ringback_rpc::xdr::{self, Encode, Writer};
    use std::io::Write;
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::{Duration, Instant};

    pub const NAME: &str = "the_runtime_under_stress";
    const CLIENTS: usize = 4;
    const CALLBACKS: usize = 64;
    const ASKERS: u64 = 2;
    /// Room for a count of every place at once.
    const PLACES: usize = CLIENTS * CALLBACKS;

    #[derive(Default)]
    struct Counting {
        acquired: AtomicU64,
        done: AtomicU64,
        released: AtomicU64,
        dropped: AtomicU64,
        /// By place: a run is between its `done` and the end of its `release`. What it guards is not atomic on purpose.
        busy: Vec<Mutex<bool>>,
    }

    impl Counting {
        fn place(&self, cookie: u64) -> &Mutex<bool> {
            &self.busy[cookie as usize % PLACES]
        }

        /// Rule R1, for one callback at a time in a place.
        fn set(&self, cookie: u64, busy: bool) {
            let mut now = self.place(cookie).try_lock().expect("two hooks of one callback at once");
            assert_ne!(*now, busy, "two owners");
            *now = busy;
        }
    }

    impl Hooks for Counting {
        fn acquire(&self, _: u64) {
            self.acquired.fetch_add(1, SeqCst);
        }
        fn prepare(&self, run: &Run) -> Prepare {
            if run.cookie.is_multiple_of(13) { Prepare::Refuse } else { Prepare::Send }
        }
        fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
            let fh = FileHandle::new(b"file").expect("short");
            CbRecallArgs { stateid: stateid(run.cookie), truncate: false, fh }.encode(args)
        }
        fn done(&self, run: &Run, outcome: &Outcome<'_>) -> Done {
            let denied = matches!(outcome, Outcome::Replied { status: Status::NFS4ERR_BAD_STATEID, .. });
            if denied && run.age_ns < 20_000_000 {
                return Done::RequeueAfter(1_000_000);
            }
            self.set(run.cookie, true);
            self.done.fetch_add(1, SeqCst);
            Done::Finish
        }
        fn release(&self, run: &Run) {
            self.released.fetch_add(1, SeqCst);
            self.set(run.cookie, false);
        }
        fn drop_reference(&self, _: u64) {
            self.dropped.fetch_add(1, SeqCst);
        }
    }

    /// A client and its callbacks, as all threads know them. It is replaced by another one now and then.
    struct Known {
        client: ClientId,
        session: SessionKey,
        keys: Vec<CallbackKey>,
    }

    struct Scene {
        runtime: Runtime,
        clients: Vec<Mutex<Known>>,
        /// Connections and clients are let alone.
        quiet: AtomicBool,
        over: AtomicBool,
        submitted: AtomicU64,
        cuts: AtomicU64,
        removed: AtomicU64,
        replaced: AtomicU64,
        waited: AtomicU64,
    }

    /// A cheap generator of its own for each thread.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % sides
        }
    }

    /// Answers until the connection ends: mostly yes, sometimes "I hold no such delegation".
    fn answer(mut stream: TcpStream) {
        let (mut slots, mut count) = (SlotIds::default(), 0u64);
        while let Some(call) = read_record(&mut stream) {
            count += 1;
            let status = if count.is_multiple_of(7) { Status::NFS4ERR_BAD_STATEID } else { Status::NFS4_OK };
            let (_, reply) = answer_recall(&call, &mut slots, status);
            let mark = (reply.len() as u32 | LAST_FRAGMENT).to_be_bytes();
            // The connection may have been cut meanwhile.
            if stream.write_all(&[&mark[..], &reply].concat()).is_err() {
                return;
            }
        }
    }

    /// A client with a connection that answers, on whichever reactors.
    fn connect(mode: &Mode, runtime: &Runtime, place: usize) -> Option<(Known, ringback::ConnectionId)> {
        let (server, stream) = pair();
        let connection = mode.add_connection(runtime, server).ok()?;
        let client = runtime.add_client(place.is_multiple_of(2).then_some(connection)).ok()?;
        let session = runtime.add_session(client, session_config(place as u8, 8)).ok()?;
        runtime.bind(connection, session).ok()?;
        let insert = |n| runtime.insert(client, CallbackOp::Recall, (place * CALLBACKS + n) as u64).ok();
        let keys = (0..CALLBACKS).map(insert).collect::<Option<Vec<_>>>()?;
        thread::spawn(move || answer(stream));
        Some((Known { client, session, keys }, connection))
    }

    impl Scene {
        fn key(&self, dice: &mut Dice) -> CallbackKey {
            let known = self.clients[dice.roll(CLIENTS)].lock().unwrap();
            known.keys[dice.roll(CALLBACKS)]
        }

        /// Asks for runs, and waits for some of them.
        fn ask(&self, seed: u64) {
            let mut dice = Dice(seed);
            while !self.over.load(Relaxed) {
                let key = self.key(&mut dice);
                let answer = if dice.roll(16) == 0 {
                    let (answer, wait) = self.runtime.run_and_wait(key);
                    if wait.block(Duration::from_millis(dice.roll(5) as u64)).is_ok() {
                        self.waited.fetch_add(1, Relaxed);
                    }
                    answer
                } else {
                    self.runtime.try_run(key)
                };
                if answer == TryRun::Submitted {
                    self.submitted.fetch_add(1, SeqCst);
                }
            }
        }

        /// Removes callbacks and makes new ones. A place is filled again when its former callback is gone for good, so
        /// that one callback at a time is in a place.
        fn remove(&self, seed: u64) {
            let mut dice = Dice(seed);
            while !self.over.load(Relaxed) {
                let (at, n) = (dice.roll(CLIENTS), dice.roll(CALLBACKS));
                let mut known = self.clients[at].lock().unwrap();
                let key = known.keys[n];
                match self.runtime.remove(key) {
                    Remove::Removed | Remove::Deferred | Remove::AlreadyDying | Remove::Stale => {}
                }
                if self.runtime.remove(key) == Remove::Stale
                    && let Ok(new) = self.runtime.insert(known.client, CallbackOp::Recall, (at * CALLBACKS + n) as u64)
                {
                    known.keys[n] = new;
                    self.removed.fetch_add(1, Relaxed);
                }
                drop(known);
                thread::sleep(Duration::from_micros(50));
            }
        }

        /// Cuts connections; now and then a client goes with all that it has, and another one takes its place.
        fn cut(&self, mode: &Mode, mut connections: Vec<ringback::ConnectionId>) {
            let mut dice = Dice(99);
            while !self.quiet.load(SeqCst) {
                thread::sleep(Duration::from_millis(3));
                let at = dice.roll(CLIENTS);
                if dice.roll(4) > 0 {
                    self.runtime.close_connection(connections[at]);
                    let session = self.clients[at].lock().unwrap().session;
                    let (server, stream) = pair();
                    connections[at] = mode.add_connection(&self.runtime, server).unwrap();
                    self.runtime.bind(connections[at], session).unwrap();
                    thread::spawn(move || answer_resumed(stream));
                    self.cuts.fetch_add(1, Relaxed);
                    continue;
                }
                let mut known = self.clients[at].lock().unwrap();
                self.runtime.remove_client(known.client).unwrap();
                // Its callbacks end first: a place has one callback at a time.
                let begun = Instant::now();
                while known.keys.iter().any(|key| self.runtime.remove(*key) != Remove::Stale) {
                    assert!(begun.elapsed() < Duration::from_secs(20), "a callback of a client that is gone stays");
                    thread::yield_now();
                }
                self.runtime.close_connection(connections[at]);
                (*known, connections[at]) = connect(mode, &self.runtime, at).unwrap();
                self.replaced.fetch_add(1, Relaxed);
            }
        }
    }

    /// As [`answer`], on a session that was used before: sequence ids go on somewhere, and resends come.
    fn answer_resumed(mut stream: TcpStream) {
        while let Some(call) = read_record(&mut stream) {
            let reply = super::common::answer_anything(&call);
            let mark = (reply.len() as u32 | LAST_FRAGMENT).to_be_bytes();
            if stream.write_all(&[&mark[..], &reply].concat()).is_err() {
                return;
            }
        }
    }

    pub fn run(mode: &Mode, length: Duration) {
        let busy = (0..PLACES).map(|_| Mutex::new(false)).collect();
        let hooks = Arc::new(Counting { busy, ..Counting::default() });
        let runtime =
            Builder::new().backend(mode.backend).reactors(2).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
        let (known, connections): (Vec<_>, Vec<_>) = (0..CLIENTS).map(|n| connect(mode, &runtime, n).unwrap()).unzip();
        let zero = || AtomicU64::new(0);
        let scene = Scene {
            runtime: runtime.clone(),
            clients: known.into_iter().map(Mutex::new).collect(),
            quiet: AtomicBool::new(false),
            over: AtomicBool::new(false),
            submitted: zero(),
            cuts: zero(),
            removed: zero(),
            replaced: zero(),
            waited: zero(),
        };
        let report = thread::scope(|scope| {
            for seed in 0..ASKERS {
                let scene = &scene;
                scope.spawn(move || scene.ask(seed));
            }
            scope.spawn(|| scene.remove(50));
            let cutter = scope.spawn(|| scene.cut(mode, connections));
            thread::sleep(length);
            // Clients and connections stay from here on; the askers go on into the drain, and behind it.
            scene.quiet.store(true, SeqCst);
            cutter.join().expect("no panic");
            let report = runtime.drain(Duration::from_millis(200)).unwrap();
            thread::sleep(Duration::from_millis(20));
            scene.over.store(true, Relaxed);
            report
        });
        assert_eq!(report.in_flight, 0);
        let count = |n: &AtomicU64| n.load(SeqCst);
        assert_eq!(count(&hooks.acquired), count(&scene.submitted), "each accepted run took a reference");
        assert_eq!(count(&hooks.acquired), count(&hooks.dropped), "and gave it back");
        assert_eq!(count(&hooks.done), count(&hooks.released));
        assert!(count(&hooks.released) >= count(&hooks.dropped), "a rearmed run is released once more");
        let stats = runtime.shutdown(Duration::from_secs(1)).map(|_| runtime.stats()).unwrap();
        assert_eq!((stats.in_flight, stats.started), (0, stats.completed));
        println!(
            "{NAME} {:?}{}: {} runs, {} waited for, {} removals, {} cuts, {} clients replaced ... ok",
            mode.backend,
            if mode.own_transport { ", own transport" } else { "" },
            stats.completed,
            count(&scene.waited),
            count(&scene.removed),
            count(&scene.cuts),
            count(&scene.replaced),
        );
    }
}
