//! What a reactor logs, on a virtual clock.

use super::{Counting, Failures, Stage};
use crate::command::Command;
use crate::log::{LOGGED_PER_SECOND_MAX, Logger};
use crate::settings::Settings;
use crate::{Backend, Builder, CallbackAddress, ClientId, ConnectPolicy, LogLevel, LogMessage, PathConfig, Security};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Clients, and how many were left out before each.
type Logged = Arc<Mutex<Vec<(ClientId, u64)>>>;

/// Clients of NFSv4.0 that cannot be connected to, each of them tried again and again: this back end makes no connections.
fn unreachable_clients(stage: &Stage, count: usize) -> Vec<ClientId> {
    let address = "192.0.2.1:700".parse().unwrap();
    let clients = (0..count).map(|_| {
        let client = stage.runtime.add_client(None).unwrap();
        let config = PathConfig {
            program: 0x4000_0000,
            callback_ident: 1,
            security: Security::None,
            address: CallbackAddress::Connect { address, peer: address },
            window: 4,
        };
        let path = stage.runtime.set_client_id(client, config).unwrap();
        stage.runtime.confirm(path).unwrap();
        client
    });
    clients.collect()
}

#[test]
fn a_site_without_a_network_logs_a_few_lines_in_each_second() {
    let logged = Logged::default();
    let sink = Arc::clone(&logged);
    let log = move |message: &LogMessage<'_>| {
        let text = message.text.to_string();
        if text == "its callback path is up" {
            return; // that of the stage
        }
        assert_eq!((message.level, message.reactor), (LogLevel::Warn, Some(0)), "{message}");
        assert!(text.starts_with("cannot be called back at 192.0.2.1:700: "), "{message}");
        sink.lock().unwrap().push((message.client.unwrap(), message.left_out));
    };
    let log = Logger(Some(Arc::new(log)));
    let settings = Settings { connect_policy: ConnectPolicy::Any, log, ..Settings::default() };
    let mut stage = Stage::with(Backend::Epoll, 1, Failures::new(|_| false), settings).unwrap();
    let clients = unreachable_clients(&stage, 50);
    let mut by_second = BTreeMap::<u64, u32>::new();
    let mut seen = 0;
    stage.run_until(|stage| {
        let now = logged.lock().unwrap().len();
        *by_second.entry(stage.now_ns() / 1_000_000_000).or_default() += (now - seen) as u32;
        seen = now;
        by_second.len() > 20
    });
    let left_out = |logged: &Logged| logged.lock().unwrap().iter().map(|(_, left_out)| left_out).sum::<u64>();
    assert_eq!(by_second.values().max(), Some(&LOGGED_PER_SECOND_MAX), "{by_second:?}");
    assert!(left_out(&logged) > 0);
    // One alone is logged whenever it is tried: nothing is left that was not told or counted.
    clients[1..].iter().for_each(|client| stage.runtime.remove_client(*client).unwrap());
    let second = stage.now_ns() / 1_000_000_000;
    stage.run_until(|stage| logged.lock().unwrap().len() > seen && stage.now_ns() / 1_000_000_000 > second);
    assert_eq!(logged.lock().unwrap().last().unwrap().0, clients[0]);
    let told = logged.lock().unwrap().len() as u64;
    assert_eq!(told + left_out(&logged), stage.runtime.stats().connects_failed);
}

/// Told while its thread unwinds, to a log that panics there once more.
#[test]
fn the_end_of_a_reactor_is_logged_even_by_who_panics_at_it() {
    let logged = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&logged);
    let log = move |message: &LogMessage<'_>| {
        sink.lock().unwrap().push(message.to_string());
        assert!(message.level != LogLevel::Error, "on purpose");
    };
    let embedder = Arc::new(Counting::default());
    let builder = Builder::new().backend(Backend::Epoll).reactors(2).log(log);
    let runtime = builder.build(Arc::clone(&embedder) as _, embedder as _).unwrap();
    runtime.shared().reactors[1].post(Command::Panic);
    runtime.shutdown(std::time::Duration::from_secs(60)).unwrap();
    let logged = logged.lock().unwrap();
    let told: Vec<_> = logged.iter().map(String::as_str).collect();
    assert!(told[0].starts_with("info: back end epoll: "), "{told:?}");
    assert_eq!(
        told[1..],
        ["error: reactor 1: it has ended by a panic, stderr says where; its clients' callbacks are lost"]
    );
    assert_eq!(runtime.stats().embedder_panics, 1);
}
