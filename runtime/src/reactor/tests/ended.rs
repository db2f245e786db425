//! A reactor that has ended by a mistake of ours.

use crate::command::Command;
use crate::common::{Counting, Deaf};
use crate::{Backend, Builder, CallbackOp, TryRun};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nobody waits for it afterwards, nothing new is given to it, and its connections are closed.
#[test]
fn a_dead_reactor_hangs_nobody() {
    let runtime = Builder::new()
        .backend(Backend::Epoll)
        .reactors(2)
        .build(Arc::new(Counting::default()), Arc::new(Deaf))
        .unwrap();
    let (server, mut stream) = UnixStream::pair().unwrap();
    let connection = runtime.add_connection(server).unwrap();
    let client = runtime.add_client(Some(connection)).unwrap();
    let key = runtime.insert(client, CallbackOp::Recall, 0).unwrap();
    assert_eq!(runtime.try_run(key), TryRun::Submitted);
    runtime.shared().port_of(connection).post(Command::Panic);
    assert_eq!(std::io::Read::read(&mut stream, &mut [0]).unwrap(), 0, "the connection ends");
    // What is accepted before the thread is gone is lost with it.
    let mut lost = 1;
    loop {
        let key = runtime.insert(client, CallbackOp::Recall, 0).unwrap();
        if runtime.try_run(key) == TryRun::Closed {
            break;
        }
        lost += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(runtime.add_client(Some(connection)).is_err());
    for _ in 0..4 {
        let (server, _stream) = UnixStream::pair().unwrap();
        assert_ne!(runtime.add_connection(server).unwrap().reactor(), connection.reactor());
        let client = runtime.add_client(None).unwrap();
        assert!(runtime.remove_client(client).is_ok());
    }
    runtime.census().unwrap();
    runtime.memory().unwrap();
    let begun = Instant::now();
    assert_eq!(runtime.drain(Duration::from_secs(60)).unwrap().in_flight, lost);
    assert_eq!(runtime.shutdown(Duration::from_secs(60)).unwrap().in_flight, lost);
    assert!(begun.elapsed() < Duration::from_secs(60), "nothing waited for it");
}
