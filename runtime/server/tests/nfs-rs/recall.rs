//! The client of the crate nfs-rs, which shares no code with this project, holds delegations and gives them back when it
//! is asked to. Over loopback.

use bytes::Bytes;
use nfs_rs::{Mount, OPEN_READ, parse_url_and_mount};
use ringback::{Builder, Outcome, Run};
use ringback_server::{Config, Observer, Server};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// Longer than this nothing takes here.
const PATIENCE: Duration = Duration::from_secs(60);
const HELLO: &[u8] = b"hello";

/// Counts how the recalls ended.
#[derive(Default)]
struct Recalls {
    answered: AtomicU64,
    lost: AtomicU64,
}

impl Observer for Recalls {
    fn done(&self, _: &Run, outcome: &Outcome<'_>) {
        let answered = matches!(outcome, Outcome::Replied { status, .. } if status.0 == 0);
        let count = if answered { &self.answered } else { &self.lost };
        count.fetch_add(1, SeqCst);
    }
}

struct Peer {
    server: Server,
    address: SocketAddr,
    recalls: Arc<Recalls>,
}

impl Peer {
    /// With delegations for writing, as this client wants no others.
    fn new() -> Self {
        let config = Config { write_delegations: true, ..Config::default() };
        let recalls = Arc::new(Recalls::default());
        let server = Server::new(config, Builder::new().reactors(2), Arc::clone(&recalls) as _).unwrap();
        let address = server.listen("127.0.0.1:0").unwrap();
        Peer { server, address, recalls }
    }

    /// A client that keeps delegations. Unless it is told to, it asks for none.
    async fn mount(&self) -> Box<dyn Mount> {
        let port = self.address.port();
        let url =
            format!("nfs://127.0.0.1/?nfsport={port}&version=4.1&noresvport=true&retain-delegations=true&uid=0&gid=0");
        parse_url_and_mount(&url).await.unwrap()
    }

    /// Makes a file with something in it, and closes it.
    async fn file(&self, mount: &dyn Mount, name: &str) {
        let created = mount.create_path(name, Some(0o644)).await.unwrap();
        nfs_rs::write_all(mount, created.fh.clone(), 0, Bytes::from_static(HELLO)).await.unwrap();
        mount.close(created.fh).await.unwrap();
    }

    fn recalled(&self) -> (u64, u64) {
        (self.recalls.answered.load(SeqCst), self.recalls.lost.load(SeqCst))
    }

    async fn all_are_returned(&self) {
        let returned = async {
            while self.server.delegations() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, returned).await.expect("the delegations come back");
    }

    async fn end(self, mounts: Vec<Box<dyn Mount>>) {
        for mount in mounts {
            mount.umount().await.unwrap();
        }
        assert_eq!(self.server.revocations(), 0, "every delegation was returned");
        let report = self.server.shutdown(PATIENCE).unwrap();
        assert_eq!((report.in_flight, report.abandoned.len(), report.unsent.len()), (0, 0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflicting_open_recalls_a_delegation() {
    let peer = Peer::new();
    let (holder, other) = (peer.mount().await, peer.mount().await);
    peer.file(&*holder, "file").await;
    assert_eq!((peer.server.delegations(), peer.recalled()), (1, (0, 0)), "it outlives the open");

    // Answered with NFS4ERR_DELAY until the holder has returned its delegation.
    let reading = other.open_path("file", OPEN_READ).await.unwrap();
    assert_eq!((peer.server.delegations(), peer.recalled()), (0, (1, 0)));
    assert_eq!(other.read(reading.fh.clone(), 0, 5).await.unwrap(), HELLO);
    other.close(reading.fh).await.unwrap();
    peer.end(vec![holder, other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_file_recalls_its_delegation() {
    let peer = Peer::new();
    let (holder, other) = (peer.mount().await, peer.mount().await);
    peer.file(&*holder, "file").await;
    other.remove_path("file").await.unwrap();
    assert_eq!((peer.server.delegations(), peer.recalled()), (0, (1, 0)));
    assert!(holder.open_path("file", OPEN_READ).await.is_err());
    peer.end(vec![holder, other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_delegations_are_recalled_at_once() {
    const FILES: u64 = 20;
    let peer = Peer::new();
    let mounts = vec![peer.mount().await, peer.mount().await];
    for number in 0..FILES {
        for (owner, mount) in mounts.iter().enumerate() {
            peer.file(&**mount, &format!("file {number} of {owner}")).await;
        }
    }
    assert_eq!(peer.server.delegations(), 2 * FILES);
    peer.server.held().for_each(|held| {
        let _ = peer.server.recall(&held);
    });
    peer.all_are_returned().await;
    assert_eq!(peer.recalled(), (2 * FILES, 0));
    peer.end(mounts).await;
}
