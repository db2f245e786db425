//! `ringback`: an in-memory NFSv4 file server on ringback.

mod ask;
mod cli;
mod serve;
mod upgrade;

use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(options) => serve::serve(&options),
        Command::Inspect(options) => ask::inspect(&options),
        Command::Top(options) => ask::top(&options),
        Command::Flight(options) => ask::flight(&options),
        Command::Checkpoint(options) => ask::checkpoint(&options),
        Command::Recall(options) => ask::recall(options),
        Command::Trigger(options) => ask::trigger(options),
        Command::Admin(options) => ask::admin(options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("ringback: {message}");
            ExitCode::from(2)
        }
    }
}
