//! The async client on tokio, twice: as an author writes it, on tokio's own default runtime and with a timeout for each
//! callback; and bare, on one thread and without any timeout, which costs it least.

use super::super::job::{Load, Subject};
use super::Gauge;
use super::async_client::{Client, Flow, Records};
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

/// How long the client waits for a reply: a lease.
const PATIENCE: Duration = Duration::from_secs(90);
const READ_BYTES: usize = 64 << 10;
/// The runtime of this subject: its worker threads are as many as there are CPUs for them.
pub fn runtime(subject: Subject) -> io::Result<Runtime> {
    match subject {
        Subject::AsyncBare => Builder::new_current_thread().enable_io().build(),
        _ => Builder::new_multi_thread().enable_all().build(),
    }
}

/// Sends until it is told to stop, and all has been answered.
pub fn run(load: Load, sockets: Vec<TcpStream>, gauge: Arc<Gauge>) -> Result<(), String> {
    let failed = |e: io::Error| format!("tokio: {e}");
    runtime(load.subject).map_err(failed)?.block_on(async {
        let mut clients = Vec::with_capacity(sockets.len());
        for (index, socket) in sockets.into_iter().enumerate() {
            clients.push(client(load.subject, index as u32, load.slots, socket, &gauge).map_err(failed)?);
        }
        Flow::start(&clients, load.outstanding, Arc::clone(&gauge)).ended().await;
        Ok(())
    })
}

/// A client, with the tasks that read and write its connection.
pub fn client(
    subject: Subject,
    index: u32,
    slots: u32,
    socket: TcpStream,
    gauge: &Arc<Gauge>,
) -> io::Result<Arc<Client>> {
    socket.set_nonblocking(true)?;
    let (reading, writing) = tokio::net::TcpStream::from_std(socket)?.into_split();
    let (client, records) = Client::new(index, slots, (subject != Subject::AsyncBare).then_some(PATIENCE));
    tokio::spawn(read(Arc::clone(&client), reading));
    let gauge = Arc::clone(gauge);
    if subject == Subject::SendPerRpc {
        tokio::spawn(write_each(records, writing, gauge));
    } else {
        tokio::spawn(write_together(records, writing, gauge));
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

/// Lets the others go on before it writes: the default runtime would run it after each record, and nothing would come together.
async fn write_together(mut records: Records, mut socket: OwnedWriteHalf, gauge: Arc<Gauge>) -> io::Result<()> {
    let mut bytes = Vec::new();
    while let Some(first) = records.recv().await {
        yield_now().await;
        bytes.clear();
        bytes.extend_from_slice(&first);
        while let Ok(record) = records.try_recv() {
            bytes.extend_from_slice(&record);
        }
        socket.write_all(&bytes).await?;
        gauge.sends.fetch_add(1, Relaxed);
    }
    Ok(())
}

async fn write_each(mut records: Records, mut socket: OwnedWriteHalf, gauge: Arc<Gauge>) -> io::Result<()> {
    while let Some(record) = records.recv().await {
        socket.write_all(&record).await?;
        gauge.sends.fetch_add(1, Relaxed);
    }
    Ok(())
}
