//! `peers`: what a callback costs with ringback, and with what an author would write instead.

use ringback_bench::peers::allocator::Counting;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    ringback_bench::peers::command::main()
}
