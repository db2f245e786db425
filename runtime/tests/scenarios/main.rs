//! The whole runtime against clients that the test plays itself, record by record, over transports in the same process.
//! Tests are named by the scenario that they show; the table is docs/src/scenarios.md.

#![cfg(not(loom))]
#![forbid(unsafe_code)]

mod bench;
mod clients;
mod control;
mod drains;
mod groups;
mod log;
mod many;
mod moves;
mod panics;
mod paths;
mod runs;
mod sessions;
