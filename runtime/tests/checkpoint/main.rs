//! A runtime that goes on in another process. Here both live in one, after each other.

#[path = "../common/mod.rs"]
mod common;

mod files;
mod go_on;
mod look;

use common::*;
use ringback::{
    Backend, Builder, CallbackKey, Checkpoint, CheckpointSize, ClientId, Hooks, Runtime, SessionKey, TryRun,
};
use std::net::TcpStream;
use std::sync::Arc;

/// A runtime with one client whose session has `slots` slots.
struct Bed {
    runtime: Runtime,
    hooks: Arc<Counting>,
    client: ClientId,
    session: SessionKey,
}

fn builder(backend: Backend, reactors: usize) -> Builder {
    Builder::new().backend(backend).reactors(reactors).callbacks_max(1 << 20)
}

impl Bed {
    fn new(builder: Builder, slots: u32) -> (Bed, TcpStream) {
        let hooks = Arc::new(Counting::default());
        let runtime = builder.build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
        let (ours, theirs) = pair();
        let connection = runtime.add_connection(ours).unwrap();
        let client = runtime.add_client(Some(connection)).unwrap();
        let session = runtime.add_session(client, session_config(7, slots)).unwrap();
        runtime.bind(connection, session).unwrap();
        (Bed { runtime, hooks, client, session }, theirs)
    }

    /// Starts these, of which the first `sent` go out; their records.
    fn start(&self, keys: &[CallbackKey], sent: usize, stream: &mut TcpStream) -> Vec<Vec<u8>> {
        for key in keys {
            assert_eq!(self.runtime.try_run(*key), TryRun::Submitted);
        }
        (0..sent).map(|_| read_record(stream).unwrap()).collect()
    }

    /// The last of it.
    fn leave(self) -> (Checkpoint, Arc<Counting>) {
        let suspended = self.runtime.suspend().unwrap();
        let mut bytes = Vec::new();
        let size: CheckpointSize = suspended.checkpoint(&mut bytes).unwrap();
        suspended.leave();
        assert_eq!(size.bytes, bytes.len() as u64);
        (Checkpoint::from_bytes(&bytes).unwrap(), self.hooks)
    }
}

/// Goes on with a checkpoint.
fn restored<H: Hooks>(builder: Builder, checkpoint: &Checkpoint, hooks: &Arc<H>) -> Runtime {
    builder.restore(checkpoint).build(Arc::clone(hooks) as _, Arc::new(Deaf)).unwrap()
}

/// The client comes back with a new connection, as after BIND_CONN_TO_SESSION.
fn reconnect(runtime: &Runtime, session: SessionKey) -> TcpStream {
    let (ours, theirs) = pair();
    let connection = runtime.add_connection(ours).unwrap();
    runtime.bind(connection, session).unwrap();
    theirs
}
