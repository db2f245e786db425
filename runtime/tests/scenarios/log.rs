//! What an operator is told, and that who tells it cannot do harm.

use crate::bench::*;
use ringback::{Builder, Error, Log, LogLevel, LogMessage, Runtime};
use ringback_rpc::nfs4::Status;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Keeps everything, and does what a log must be able to do.
#[derive(Clone, Default)]
struct Lines {
    lines: Arc<Mutex<Vec<(LogLevel, String)>>>,
    runtime: Arc<OnceLock<Runtime>>,
    panics: Arc<AtomicBool>,
}

impl Log for Lines {
    fn log(&self, message: &LogMessage<'_>) {
        self.lines.lock().unwrap().push((message.level, message.to_string()));
        if let Some(runtime) = self.runtime.get() {
            // None of what these lock is locked.
            let _ = (runtime.stats(), runtime.tuning(), runtime.add_client(None).map(|id| runtime.remove_client(id)));
            assert_eq!(runtime.drain(Duration::ZERO).unwrap_err(), Error::InHook, "wherever it is called");
        }
        assert!(!self.panics.load(SeqCst), "a panic of the log, on purpose");
    }
}

impl Lines {
    fn bench() -> (Lines, Bench) {
        let lines = Lines::default();
        let bench = Bench::with(Builder::new().reactors(1).log(lines.clone()));
        assert!(lines.runtime.set(bench.runtime.clone()).is_ok());
        (lines, bench)
    }

    /// Waits for a line of this level with this in it.
    fn expect(&self, bench: &Bench, level: LogLevel, part: &str) {
        let is_it = |(l, line): &(LogLevel, String)| *l == level && line.contains(part);
        bench.until(part, |_| self.lines.lock().unwrap().iter().any(is_it));
    }

    fn count(&self) -> usize {
        self.lines.lock().unwrap().len()
    }
}

#[test]
fn what_an_operator_must_know_is_logged() {
    let (lines, bench) = Lines::bench();
    lines.expect(&bench, LogLevel::Info, "info: back end epoll: ");
    let (mut line, client, session) = bench.client(2);
    lines.expect(
        &bench,
        LogLevel::Info,
        &format!("reactor 0: client {:#x}: its callback path is up", client.to_bits()),
    );
    // What goes well is not worth a word.
    let before = lines.count();
    for cookie in 1..=100 {
        bench.recall(client, cookie);
        assert_eq!(line.serve(), cookie);
    }
    bench.until_idle();
    assert_eq!(lines.count(), before);
    bench.during(101, Stage::Done, |_| panic!("a panic of the embedder, on purpose"));
    let key = bench.recall(client, 101);
    line.serve();
    let text = format!("error: reactor 0: Hooks::done panicked, about callback {:#x}", key.to_bits());
    lines.expect(&bench, LogLevel::Error, &text);
    bench.recall(client, 102);
    let call = line.call();
    line.reply(call.sequence_status(Status::NFS4ERR_BADSESSION));
    let text = format!("session {} is unknown to it (NFS4ERR_BADSESSION)", session.to_parts().1);
    lines.expect(&bench, LogLevel::Warn, &text);
    lines.expect(&bench, LogLevel::Warn, "its callback path is down");
    // Another client, which is silent.
    let (mut silent, other, _) = bench.client(1);
    bench.recall(other, 103);
    silent.call();
    let report = bench.runtime.drain_client(other, Duration::ZERO).unwrap();
    assert_eq!(report.abandoned.len(), 1);
    lines.expect(&bench, LogLevel::Warn, "a drain has given up 1 callbacks that were not answered, and left 0");
    bench.runtime.remove_client(client).unwrap();
}

#[test]
fn a_log_that_panics_ends_its_own_call() {
    let (lines, bench) = Lines::bench();
    lines.panics.store(true, SeqCst);
    let (mut line, client, _) = bench.client(1);
    bench.recall(client, 1);
    assert_eq!(line.serve(), 1);
    bench.until_idle();
    bench.assert_ended_once(1, "Replied");
    lines.panics.store(false, SeqCst);
    let told = |bench: &Bench| {
        let events = bench.hooks.events.lock().unwrap();
        events.iter().filter(|event| matches!(event, ringback::Event::Panicked { call: "Log::log", key: None })).count()
    };
    bench.until("it is told", |bench| told(bench) == 1);
    assert_eq!(bench.runtime.stats().embedder_panics, 1, "the path came up, and this could not be logged");
}
