//! The simulator, the fuzz targets and their corpora.
//!
//! - [`sim`]: everything above the seam of the kernel, simulated from a seed.
//! - [`budget`]: a site whose budget of delegations is cut, in simulated time.
//! - [`targets`]: what a fuzzer runs, one function for each decoder that reads what a peer sends.
//! - [`server`]: the one for the file server, which takes several calls.
//! - [`backchannel`]: the one for the backchannel core, which takes a sequence of events.
//! - [`seeds`]: the committed inputs they start from.
//!
//! `cargo test` replays the corpora. `fuzz/run TARGET SECONDS` looks for more.
#![forbid(unsafe_code)]

pub mod backchannel;
pub mod budget;
pub mod seeds;
pub mod server;
pub mod sim;
pub mod targets;
