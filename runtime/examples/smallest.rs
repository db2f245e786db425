//! The smallest embedder: one delegation, one client at the other end of a socket, one recall.
//!
//!     cargo run -p ringback --example smallest

use ringback::{
    Builder, Call, CallbackOp, Done, Ending, ForeChannel, Hooks, Outcome, Run, Security, SessionConfig, TryRun,
};
use ringback_rpc::nfs4::callback::CbRecallArgs;
use ringback_rpc::nfs4::{FileHandle, Stateid4, Status};
use ringback_rpc::xdr::{self, Encode, Writer};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::time::Duration;

mod client;

/// The file server: it has one delegation, and wants to know what became of its recall.
struct FileServer(mpsc::Sender<Ending>);

impl Hooks for FileServer {
    fn encode(&self, _run: &Run, args: &mut Writer<'_>) -> xdr::Result<()> {
        let fh = FileHandle::new(b"a filehandle").expect("that is short enough");
        CbRecallArgs { stateid: Stateid4 { seqid: 1, other: [7; 12] }, truncate: false, fh }.encode(args)
    }

    fn done(&self, _run: &Run, outcome: &Outcome<'_>) -> Done {
        // The receiver may be gone: then nobody wants to know.
        let _ = self.0.send(outcome.into());
        Done::Finish
    }
}

impl ForeChannel for FileServer {
    fn call(&self, call: Call<'_>) {
        // For the protocol engine of a real server.
        let (_token, _record) = call.defer();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (told, outcomes) = mpsc::channel();
    let server = Arc::new(FileServer(told));
    let runtime = Builder::new().reactors(1).build(server.clone(), server)?;

    // A client connects, and makes itself known with a session that has a backchannel.
    let (ours, theirs) = UnixStream::pair()?;
    let answering = std::thread::spawn(move || client::answer_recalls(theirs));
    let connection = runtime.add_connection(ours)?;
    let client = runtime.add_client(Some(connection))?;
    let session = runtime.add_session(client, session_of_the_client())?;
    runtime.bind(connection, session)?;

    // OPEN grants a delegation, and another client's OPEN is in conflict with it.
    let key = runtime.insert(client, CallbackOp::Recall, 0)?;
    assert_eq!(runtime.try_run(key), TryRun::Submitted);
    let ending = outcomes.recv_timeout(Duration::from_secs(10))?;
    println!("{ending:?} over {}", runtime.backend().name);
    assert_eq!(ending, Ending::Replied(Status::NFS4_OK));

    runtime.shutdown(Duration::from_secs(1))?;
    assert_eq!(answering.join().expect("the client is content"), 1);
    Ok(())
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
