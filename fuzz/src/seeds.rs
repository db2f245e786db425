//! The seeds of the fuzz corpora: at least one well-formed input for every arm of every decoder, and some that are
//! wrong in the ways that matter. `cargo run -p ringback-fuzz --example seeds` writes them to `fuzz/corpus`; inputs that a
//! fuzzer finds are committed beside them.

mod backchannel;
mod callback;
mod files;
mod fore;
mod layouts;
mod rpc;
mod server;
pub mod simulator;

use ringback_rpc::xdr::{Result, Writer};

/// One committed input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The target, see [`crate::targets::ALL`].
    pub target: &'static str,
    /// The name of its file.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

/// Every seed.
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    rpc::seeds(&mut seeds);
    callback::seeds(&mut seeds);
    fore::seeds(&mut seeds);
    files::seeds(&mut seeds);
    layouts::seeds(&mut seeds);
    server::seeds(&mut seeds);
    backchannel::seeds(&mut seeds);
    simulator::seeds(&mut seeds);
    seeds.push(seed("checkpoint", "sample", ringback::simulator::sample_checkpoint()));
    seeds
}

fn seed(target: &'static str, name: impl Into<String>, bytes: Vec<u8>) -> Seed {
    Seed { target, name: name.into(), bytes }
}

/// What `write` writes.
fn written(write: impl FnOnce(&mut Writer<'_>) -> Result<()>) -> Vec<u8> {
    let mut space = vec![0; 8192];
    let mut w = Writer::new(&mut space);
    write(&mut w).expect("a seed is small");
    w.written().to_vec()
}
