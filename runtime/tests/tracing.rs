//! The steps of a callback as events of `tracing`: `cargo test -p ringback --features tracing --test tracing`.

#![cfg(not(loom))]

mod common;

use common::*;
use ringback::{Builder, TryRun};
use ringback_rpc::nfs4::Status;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Keeps what the runtime tells: the names of the events and their fields.
struct Keeper(Arc<Mutex<Vec<(&'static str, Fields)>>>);

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Keeper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "ringback" && *metadata.level() == Level::DEBUG
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.0.lock().unwrap().push((event.metadata().name(), fields));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn a_callback_is_traced_as_nfsd_would() {
    let events = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::set_global_default(Keeper(Arc::clone(&events))).unwrap();
    let hooks = Arc::new(Counting::default());
    // Without a flight recorder: the two are independent.
    let runtime = Builder::new().reactors(1).build(Arc::clone(&hooks) as _, Arc::new(Deaf)).unwrap();
    let (server, mut stream) = pair();
    let connection = runtime.add_connection(server).unwrap();
    let client = runtime.add_client(Some(connection)).unwrap();
    let session = runtime.add_session(client, session_config(1, 2)).unwrap();
    runtime.bind(connection, session).unwrap();
    let key = insert_all(&runtime, client, 0..1)[0];
    assert_eq!(runtime.try_run(key), TryRun::Submitted);
    let call = read_record(&mut stream).unwrap();
    write_record(&mut stream, &answer_recall(&call, &mut SlotIds::default(), Status::NFS4_OK).1);
    eventually("it is released", || hooks.released() == 1);
    runtime.shutdown(Duration::from_secs(5)).unwrap();
    let events = events.lock().unwrap();
    let names: Vec<_> = events.iter().map(|(name, _)| *name).collect();
    let expected = [
        "nfsd_cb_new_state",
        "nfsd_cb_bc_update",
        "nfsd_cb_queue",
        "nfsd_cb_rpc_prepare",
        "nfsd_cb_seq_status",
        "nfsd_cb_free_slot",
        "nfsd_cb_rpc_done",
        "nfsd_cb_destroy",
    ];
    assert_eq!(names[..expected.len()], expected, "{names:?}");
    let (_, done) = &events[6];
    assert_eq!((done.0["op"].as_str(), done.0["detail"].as_str()), ("\"CB_RECALL\"", "\"NFS4_OK\""));
    assert_eq!((&done.0["key"], &done.0["client"]), (&key.to_bits().to_string(), &client.to_bits().to_string()));
}
