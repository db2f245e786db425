//! An embedder that lives in tokio-uring: its listener, its connections and its tasks are that runtime's. Completions are
//! awaited on their queue, and one recall by itself.
//!
//!     cargo run -p ringback --features tokio-uring --example tokio_uring

use ringback::tokio_uring::{Completions, add_connection};
use ringback::{
    Builder, Call, CallbackOp, Done, Ending, ForeChannel, Hooks, Outcome, Run, Runtime, Security, SessionConfig, TryRun,
};
use ringback_rpc::nfs4::callback::CbRecallArgs;
use ringback_rpc::nfs4::{FileHandle, Stateid4, Status};
use ringback_rpc::xdr::{self, Encode, Writer};
use std::error::Error;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio_uring::net::TcpListener;

mod client;

const RECALLS: u64 = 1000;
const ANY_PORT: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

struct FileServer;

impl Hooks for FileServer {
    /// The stateid is made of the cookie.
    fn encode(&self, run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        let mut other = [0; 12];
        other[..8].copy_from_slice(&run.cookie.to_be_bytes());
        let fh = FileHandle::new(b"a filehandle").expect("that is short enough");
        CbRecallArgs { stateid: Stateid4 { seqid: 1, other }, truncate: false, fh }.encode(args)
    }

    /// The end of the run is told on the queue.
    fn done(&self, _run: &Run, _outcome: &Outcome<'_>) -> Done {
        Done::Finish
    }
}

impl ForeChannel for FileServer {
    fn call(&self, call: Call<'_>) {
        // For the protocol engine of a real server.
        let (_token, _record) = call.defer();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    tokio_uring::start(serve())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new().reactors(1).completion_queues(1).build(Arc::new(FileServer), Arc::new(FileServer))?;
    let queue = runtime.completion_queue(0).ok_or("one queue was asked for")?;
    let completions = Completions::new(queue.clone())?;
    let listener = TcpListener::bind(SocketAddr::from(ANY_PORT))?;
    let answering = a_client(listener.local_addr()?);

    let (stream, _) = listener.accept().await?;
    let connection = add_connection(&runtime, stream)?;
    let client = runtime.add_client(Some(connection))?;
    let session = runtime.add_session(client, session_of_the_client())?;
    runtime.bind(connection, session)?;

    for cookie in 0..RECALLS {
        let key = runtime.insert(client, CallbackOp::Recall, cookie)?;
        assert_eq!(runtime.try_run(key), TryRun::Submitted);
    }
    take(&runtime, &completions, RECALLS).await?;

    // A task that cannot go on without the answer waits for this one: a plain future.
    let key = runtime.insert(client, CallbackOp::Recall, RECALLS)?;
    let (asked, wait) = runtime.run_and_wait(key);
    assert_eq!((asked, wait.await?.status()), (TryRun::Submitted, Some(Status::NFS4_OK)));
    take(&runtime, &completions, 1).await?;
    println!("{} recalls were answered", RECALLS + 1);

    // Nobody takes more, which would release the last one; a drain waits for that.
    queue.release();
    // Not `shutdown`, which would block this thread, until all has ended.
    let report = runtime.start_drain(Duration::from_secs(1)).await;
    assert_eq!((report.in_flight, report.abandoned.len()), (0, 0));
    runtime.shutdown(Duration::ZERO)?;
    assert_eq!(answering.join().expect("the client is content"), RECALLS as usize + 1);
    Ok(())
}

/// Takes so many completions.
async fn take(runtime: &Runtime, completions: &Completions, count: u64) -> Result<(), Box<dyn Error>> {
    let (mut batch, mut taken) = (Vec::new(), 0);
    while taken < count {
        completions.next(&mut batch, 64).await?;
        for completion in &batch {
            assert_eq!(completion.ending, Ending::Replied(Status::NFS4_OK));
            let _ = runtime.remove(completion.key);
        }
        taken += batch.len() as u64;
    }
    Ok(())
}

/// The other end, on a thread of its own.
fn a_client(server: SocketAddr) -> std::thread::JoinHandle<usize> {
    std::thread::spawn(move || client::answer_recalls(TcpStream::connect(server).expect("the server listens")))
}

/// What CREATE_SESSION has negotiated.
fn session_of_the_client() -> SessionConfig {
    SessionConfig {
        session_id: [9; 16],
        program: client::PROGRAM,
        security: Security::Sys { stamp: 0, machine_name: b"client".to_vec(), uid: 0, gid: 0, gids: vec![] },
        slots: 16,
        request_bytes_max: 4096,
        response_bytes_max: 4096,
        operations_max: 2,
        minor_version: 1,
    }
}
