//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

const AFTER_HELP: &str = "\
Examples:
  ringback serve --listen 0.0.0.0:2049
  mount -t nfs4 -o vers=4.1,port=2049 SERVER:/ /mnt";

/// An in-memory NFSv4.1 file server on ringback.
#[derive(Debug, Parser)]
#[command(name = "ringback", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve files from memory over NFSv4.1 until SIGTERM or SIGINT.
    Serve(ServeOptions),
}

/// Options of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
`/` is the export. It is in memory and gone when the server ends. Anybody who reaches the address may read and write\n\
all of it: identities (AUTH_SYS) are taken as they come. Exit status: 0 ended by a signal; 2 could not start.")]
pub struct ServeOptions {
    /// Where to listen.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:2049")]
    pub listen: SocketAddr,
    /// How long a client's state is safe without a word from it; a recalled delegation is revoked after as long.
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub lease: u32,
    /// Copy this directory into the export first.
    #[arg(long, value_name = "DIR")]
    pub export: Option<PathBuf>,
    /// Most delegations; 0 for none at all.
    #[arg(long, value_name = "N", default_value_t = 1 << 20)]
    pub max_delegations: u32,
    /// Bytes of content, all files together, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub memory: u64,
    /// Reactor threads.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub reactors: u16,
    /// The io back end.
    #[arg(long, value_enum, default_value_t)]
    pub backend: BackendChoice,
    /// How long callbacks that are on their way are waited for at the end.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub drain: u32,
}

/// The io back end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BackendChoice {
    /// io_uring if it can be had, else epoll.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_options_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_defaults_serve() {
        let Command::Serve(options) = Cli::try_parse_from(["ringback", "serve"]).unwrap().command;
        assert_eq!((options.listen.port(), options.lease, options.drain), (2049, 90, 5));
        assert!(Cli::try_parse_from(["ringback", "serve", "--lease", "0"]).is_err());
        assert!(Cli::try_parse_from(["ringback", "serve", "--listen", "2049"]).is_err());
    }
}
