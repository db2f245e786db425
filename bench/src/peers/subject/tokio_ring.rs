//! The async client on tokio-uring.

use super::super::job::Load;
use super::Gauge;
use super::async_client::{Client, Flow, Records};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::Arc;

const READ_BYTES: usize = 64 << 10;
/// Records taken from the channel at a time.
const RECORDS: usize = 256;

/// Sends until it is told to stop, and all has been answered.
pub fn run(load: Load, sockets: Vec<TcpStream>, gauge: Arc<Gauge>) -> Result<(), String> {
    let clones: io::Result<Vec<_>> = sockets.iter().map(TcpStream::try_clone).collect();
    let clones = clones.map_err(|e| format!("tokio-uring: {e}"))?;
    tokio_uring::start(async move {
        let mut clients = Vec::with_capacity(sockets.len());
        for (index, socket) in sockets.into_iter().enumerate() {
            let (client, records) = Client::new(index as u32, load.slots, None);
            let socket = Rc::new(tokio_uring::net::TcpStream::from_std(socket));
            tokio_uring::spawn(read(Arc::clone(&client), Rc::clone(&socket)));
            tokio_uring::spawn(write(records, socket, Arc::clone(&gauge)));
            clients.push(client);
        }
        Flow::start(&clients, load.outstanding, gauge).ended().await;
        // An operation in flight keeps its socket open, whoever has let go of it.
        for socket in clones {
            let _ = socket.shutdown(Shutdown::Both);
        }
    });
    Ok(())
}

async fn read(client: Arc<Client>, socket: Rc<tokio_uring::net::TcpStream>) -> io::Result<()> {
    let (mut input, mut space) = (Vec::new(), Vec::with_capacity(READ_BYTES));
    loop {
        let (read, filled) = socket.read(space).await;
        if read? == 0 {
            return Ok(());
        }
        input.extend_from_slice(&filled);
        client.take(&mut input);
        space = filled;
        space.clear();
    }
}

async fn write(mut records: Records, socket: Rc<tokio_uring::net::TcpStream>, gauge: Arc<Gauge>) -> io::Result<()> {
    let (mut batch, mut bytes) = (Vec::with_capacity(RECORDS), Vec::new());
    while records.recv_many(&mut batch, RECORDS).await > 0 {
        bytes.clear();
        batch.drain(..).for_each(|record| bytes.extend_from_slice(&record));
        let (written, buffer) = socket.write_all(bytes).await;
        written?;
        bytes = buffer;
        super::add(&gauge.sends, 1);
    }
    Ok(())
}
