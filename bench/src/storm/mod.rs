//! The macro benchmark: a server half that links ringback and a swarm of NFSv4.1 clients in a process of its own recall
//! a million delegations over TCP, and both count.
//!
//! [`cli`] says what can be asked for. Each number of [`results`] has one source: the runtime's counters, the hooks, the
//! kernel, or the swarm, which trusts none of them; [`verdict`] compares.

pub mod child;
pub mod cli;
pub mod command;
pub mod control;
pub mod hdr;
pub mod interrupt;
pub mod json;
pub mod output;
pub mod pace;
pub mod pairs;
pub mod plot;
pub mod progress;
pub mod recorder;
pub mod report;
pub mod resources;
pub mod results;
pub mod run;
#[cfg(test)]
pub(crate) mod sample;
pub mod server_half;
pub mod swarm_half;
pub mod verdict;
