//! What it costs to open a checkpoint of ten million callbacks: the entries are validated and used where they are. And what it
//! costs to go on from it, with so many of the callbacks in flight.
//!
//!     cargo run --release -p ringback --features checkpoint --example open_checkpoint [CALLBACKS [IN_FLIGHT]]

use ringback::{Builder, Call, CallbackOp, Checkpoint, Done, ForeChannel, Hooks, Outcome, Run, TryRun};
use ringback_rpc::xdr::{self, Writer};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

/// Nothing is sent.
struct Server;

impl Hooks for Server {
    fn encode(&self, _: &Run, _: &mut Writer<'_>) -> xdr::Result<()> {
        Ok(())
    }

    fn done(&self, _: &Run, _: &Outcome<'_>) -> Done {
        Done::Finish
    }
}

impl ForeChannel for Server {
    fn call(&self, _: Call<'_>) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let callbacks: u32 = std::env::args().nth(1).map_or(Ok(10_000_000), |count| count.parse())?;
    let runtime =
        Builder::new().reactors(1).callbacks_max(callbacks.max(1)).build(Arc::new(Server), Arc::new(Server))?;
    let clients: Vec<_> = (0..64).map(|_| runtime.add_client(None)).collect::<Result<_, _>>()?;
    let in_flight: u32 = std::env::args().nth(2).map_or(Ok(0), |count| count.parse())?;
    for number in 0..callbacks {
        let key = runtime.insert(clients[number as usize % clients.len()], CallbackOp::Recall, number.into())?;
        if number < in_flight {
            // There is nowhere to send it: it waits.
            assert_eq!(runtime.try_run(key), TryRun::Submitted);
        }
    }

    let file = memfd_create("callbacks", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut out = BufWriter::with_capacity(1 << 20, File::from(file));
    let began = Instant::now();
    let suspended = runtime.suspend()?;
    let size = suspended.checkpoint(&mut out)?;
    let wrote = began.elapsed();
    suspended.leave();
    let file = OwnedFd::from(out.into_inner()?);
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK)?;

    let (before, began) = (anonymous_bytes()?, Instant::now());
    let checkpoint = Checkpoint::from_fd(file)?;
    let opened = began.elapsed();
    let taken = anonymous_bytes()?.saturating_sub(before);
    println!("{} callbacks, {} bytes: written in {:.0} ms", size.callbacks, size.bytes, wrote.as_secs_f64() * 1e3);
    println!(
        "opened in {:.0} ms, {:.2} bytes of memory for each callback{}",
        opened.as_secs_f64() * 1e3,
        taken as f64 / f64::from(callbacks.max(1)),
        if checkpoint.is_mapped() { ", mapped" } else { ", read" }
    );
    assert_eq!((checkpoint.callbacks(), checkpoint.in_flight()), (callbacks.into(), in_flight.into()));
    drop(runtime);

    let began = Instant::now();
    let next = Builder::new().reactors(1).callbacks_max(callbacks.max(1)).restore(&checkpoint);
    let next = next.build(Arc::new(Server), Arc::new(Server))?;
    println!("restored in {:.0} ms, {} in flight", began.elapsed().as_secs_f64() * 1e3, next.stats().in_flight);
    Ok(())
}

/// Memory of this process that is no file's.
fn anonymous_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("the kernel does not tell")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
