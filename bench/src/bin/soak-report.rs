//! `soak-report`: judges what four Linux clients did for half an hour.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringback_bench::soak::main()
}
