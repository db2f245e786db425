//! What happens, in words and numbers: each kind of event.

use super::common::eventually;
use super::*;
use crate::queue::{rb_event, rb_event_kind};
use crate::rb_runtime_free;
use runtime::{CallbackKey, ClientId, ConnectionId, Event, PathFault, PathState, SessionKey};
use std::collections::BTreeSet;
use std::sync::Mutex;

#[test]
fn every_event_has_a_number_a_text_and_its_counts() {
    use rb_event_kind::*;
    let (client, connection, key) = (ClientId::from_bits(5), ConnectionId::from_bits(6), CallbackKey::from_bits(7));
    let session = SessionKey::from_parts(client, 8);
    let error = runtime::AddError::MinorVersion(3);
    let (held, keep, recalled) = (40, 14, 26);
    let about = rb_event { client: 5, session: session.into(), ..rb_event::default() };
    let client_alone = rb_event { client: 5, ..rb_event::default() };
    let counts = rb_event { held: 40, keep: 14, ..client_alone };
    let all = [
        (Event::PathState { client, state: PathState::Down }, RB_EVENT_PATH_STATE, client_alone, "down"),
        (Event::BackchannelFault { session, fault: PathFault::NoSlots }, RB_EVENT_BACKCHANNEL_FAULT, about, "NoSlots"),
        (
            Event::Unbound { session, connection },
            RB_EVENT_UNBOUND,
            rb_event { connection: 6, ..about },
            "connection 0x6",
        ),
        (Event::SessionLost { session }, RB_EVENT_SESSION_LOST, about, "NFS4ERR_BADSESSION"),
        (
            Event::ReturnOverdue { key, cookie: 9, client },
            RB_EVENT_RETURN_OVERDUE,
            rb_event { key: 7, cookie: 9, ..client_alone },
            "callback 0x7",
        ),
        (Event::SessionRefused { session, error }, RB_EVENT_SESSION_REFUSED, about, "minor version 3"),
        (
            Event::Panicked { call: "Hooks::done", key: Some(key) },
            RB_EVENT_PANICKED,
            rb_event { key: 7, ..rb_event::default() },
            "Hooks::done panicked",
        ),
        (Event::AskedToKeep { client, held, keep }, RB_EVENT_ASKED_TO_KEEP, counts, "40 delegations"),
        (
            Event::AskedInVain { client, held, keep, recalled },
            RB_EVENT_ASKED_IN_VAIN,
            rb_event { recalled: 26, ..counts },
            "26 are recalled",
        ),
        (
            Event::MemoryPressure { held: 40, keep: 14 },
            RB_EVENT_MEMORY_PRESSURE,
            rb_event { client: 0, ..counts },
            "40 delegations",
        ),
        (Event::MemoryPressureLost, RB_EVENT_MEMORY_PRESSURE_LOST, rb_event::default(), "not told any more"),
        (
            Event::RecallAnySent { keep: 14, clients: 3 },
            RB_EVENT_RECALL_ANY_SENT,
            rb_event { keep: 14, detail: 3, ..rb_event::default() },
            "3 clients",
        ),
        (Event::Moved { client, reactor: 2 }, RB_EVENT_MOVED, rb_event { detail: 2, ..client_alone }, "reactor 2"),
        (Event::ConnectionWanted { path: session }, RB_EVENT_CONNECTION_WANTED, about, "path 8"),
        (
            Event::CheckpointFailed { error: "no space\0left".to_owned() },
            RB_EVENT_CHECKPOINT_FAILED,
            rb_event::default(),
            "no space left",
        ),
        (
            Event::LeftUndone { call: "try_run", client: Some(client), connection: Some(connection), key: Some(key) },
            RB_EVENT_LEFT_UNDONE,
            rb_event { connection: 6, key: 7, ..client_alone },
            "try_run came too late, and is to be called in the next process, on connection 0x6, about callback 0x7",
        ),
    ];
    let mut kinds = BTreeSet::new();
    for (event, kind, expected, words) in all {
        let (told, text) = rb_event::new(&event).unwrap();
        assert!(kinds.insert(told.kind) && told.kind == kind as i32, "{event:?}: {told:?}");
        let numbers = |e: &rb_event| (e.client, e.session, e.connection, e.key, e.cookie, e.held, e.keep, e.recalled);
        assert_eq!(numbers(&told), numbers(&expected), "{event:?}");
        assert!(expected.detail == 0 || expected.detail == told.detail, "{event:?}");
        assert!(text.to_str().unwrap().contains(words), "{text:?}");
    }
    assert_eq!(kinds, (1..=RB_EVENT_LEFT_UNDONE as i32).collect());
}

static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

extern "C" fn event(_: *mut c_void, event: *const rb_event) {
    // SAFETY: the runtime's, for the time of the call.
    let event = unsafe { event.read() };
    if event.kind == rb_event_kind::RB_EVENT_CHECKPOINT_FAILED as i32 {
        // SAFETY: as above.
        TOLD.lock().unwrap().push(unsafe { CStr::from_ptr(event.text) }.to_str().unwrap().to_owned());
    }
}

/// A checkpoint at an interval that cannot be written says why.
#[test]
fn why_no_checkpoint_was_written_is_told() {
    let table = rb_hooks { event: Some(event), ..hooks() };
    let every = |options: &mut rb_options| {
        (options.checkpoint_file, options.checkpoint_interval_ms) = (c"/dev/null/none".as_ptr(), 1000);
    };
    let mut made = runtime(every, &table);
    eventually("it is told", || !TOLD.lock().unwrap().is_empty());
    let text = TOLD.lock().unwrap()[0].clone();
    assert!(text.starts_with("no checkpoint was written: ") && text.contains("Not a directory"), "{text}");
    assert_eq!(rb_runtime_free(Some(&mut made)), 0);
}
