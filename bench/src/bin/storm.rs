//! `storm`: recalls a million NFSv4.1 delegations over real backchannels and counts that none was lost.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringback_bench::storm::command::main()
}
