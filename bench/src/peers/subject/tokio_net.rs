//! The async client on tokio: one thread, because that is what costs it least.

use super::super::job::{Load, Subject};
use super::Gauge;
use super::async_client::{Client, Flow, Records};
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

const READ_BYTES: usize = 64 << 10;
/// Records taken from the channel at a time.
const RECORDS: usize = 256;

/// Sends until it is told to stop, and all has been answered.
pub fn run(load: Load, sockets: Vec<TcpStream>, gauge: Arc<Gauge>) -> Result<(), String> {
    let failed = |e: io::Error| format!("tokio: {e}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    runtime.block_on(async {
        let mut clients = Vec::with_capacity(sockets.len());
        for (index, socket) in sockets.into_iter().enumerate() {
            let coalesce = load.subject == Subject::AsyncTask;
            clients.push(client(index as u32, load.slots, socket, coalesce, &gauge).map_err(failed)?);
        }
        Flow::start(&clients, load.outstanding, Arc::clone(&gauge)).ended().await;
        Ok(())
    })
}

/// A client, with the tasks that read and write its connection.
pub fn client(
    index: u32,
    slots: u32,
    socket: TcpStream,
    coalesce: bool,
    gauge: &Arc<Gauge>,
) -> io::Result<Arc<Client>> {
    socket.set_nonblocking(true)?;
    let (reading, writing) = tokio::net::TcpStream::from_std(socket)?.into_split();
    let (client, records) = Client::new(index, slots);
    tokio::spawn(read(Arc::clone(&client), reading));
    let gauge = Arc::clone(gauge);
    if coalesce {
        tokio::spawn(write_together(records, writing, gauge));
    } else {
        tokio::spawn(write_each(records, writing, gauge));
    }
    Ok(client)
}

/// A connection that breaks leaves its callbacks without an answer, which the counts show.
async fn read(client: Arc<Client>, mut socket: OwnedReadHalf) -> io::Result<()> {
    let mut input = Vec::with_capacity(READ_BYTES);
    while socket.read_buf(&mut input).await? > 0 {
        client.take(&mut input);
        input.reserve(READ_BYTES / 2);
    }
    Ok(())
}

async fn write_together(mut records: Records, mut socket: OwnedWriteHalf, gauge: Arc<Gauge>) -> io::Result<()> {
    let (mut batch, mut bytes) = (Vec::with_capacity(RECORDS), Vec::new());
    while records.recv_many(&mut batch, RECORDS).await > 0 {
        bytes.clear();
        batch.drain(..).for_each(|record| bytes.extend_from_slice(&record));
        socket.write_all(&bytes).await?;
        super::add(&gauge.sends, 1);
    }
    Ok(())
}

async fn write_each(mut records: Records, mut socket: OwnedWriteHalf, gauge: Arc<Gauge>) -> io::Result<()> {
    while let Some(record) = records.recv().await {
        socket.write_all(&record).await?;
        super::add(&gauge.sends, 1);
    }
    Ok(())
}
