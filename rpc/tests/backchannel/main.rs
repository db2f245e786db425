//! The backchannel core against clients of every kind, in virtual time. Tests are named by the scenario that they show.
#![forbid(unsafe_code)]

mod batch;
mod image;
mod limits;
mod lost;
mod minor0;
mod normal;
mod outcomes;
mod random;
mod referring;
mod refused;
mod resync;
mod support;
mod timers;
mod tune;
