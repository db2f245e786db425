//! What a callback costs with ringback, and with what an author would write instead: one command, one table, and every
//! figure a ratio of measurements that were made in turn.
//!
//! [`rows`] is the table as it is asked for: which measurements, and what is aimed at. A measurement is a [`job`], made
//! in a process of its own ([`child`]): a sender ([`subject`]) with a [`swarm`] in a second process, or, without a
//! client, one of [`micro`]. All senders send the bytes of [`wire`], and the swarm counts them. [`rounds`] makes the
//! measurements in turn; [`table`], [`json`], [`plot`] and [`page`] show what came of it. [`capacity`] reckons with some of
//! these costs what a site needs.

pub mod allocator;
pub mod capacity;
pub mod child;
pub mod cli;
pub mod command;
pub mod job;
pub mod json;
pub mod micro;
pub mod numbers;
pub mod page;
pub mod plot;
pub mod rounds;
pub mod rows;
pub mod subject;
pub mod swarm;
pub mod table;
pub mod wire;
