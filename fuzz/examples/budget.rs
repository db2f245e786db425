//! Cuts the budget of a site in half, and prints who was asked for what and how fast it came down, in simulated time.
//!
//!     cargo run --release -p ringback-fuzz --example budget

use clap::Parser;
use ringback_fuzz::budget::{Manner, Site};
use std::process::ExitCode;

/// Cut the budget of a site in half, in simulated time.
#[derive(Debug, Parser)]
struct Arguments {
    /// Clients; the n-th holds n times what the first does
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=250))]
    clients: u32,
    /// Delegations that they hold together, about
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    delegations: u32,
    /// So many of them are dead: the largest
    #[arg(long, value_name = "N", default_value_t = 2)]
    dead: u32,
    /// So many ignore CB_RECALL_ANY: the largest but for the dead
    #[arg(long, value_name = "N", default_value_t = 10)]
    ignore: u32,
    /// Seconds to simulate
    #[arg(long, value_name = "SECONDS", default_value_t = 105)]
    seconds: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let clients = clients(&arguments);
    match Site::new(&clients) {
        Ok(site) => play(site, &clients, arguments.seconds),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn clients(arguments: &Arguments) -> Vec<(Manner, u32)> {
    let parts = u64::from(arguments.clients) * (u64::from(arguments.clients) + 1) / 2;
    let client = |n: u32| {
        let manner = match n {
            _ if arguments.clients - n < arguments.dead => Manner::Dead,
            _ if arguments.clients - n - arguments.dead < arguments.ignore => Manner::Ignores,
            _ => Manner::Obeys,
        };
        (manner, (u64::from(n) * u64::from(arguments.delegations) / parts) as u32)
    };
    (1..=arguments.clients).map(client).collect()
}

fn play(mut site: Site, clients: &[(Manner, u32)], seconds: u64) {
    let all: u64 = clients.iter().map(|(_, held)| u64::from(*held)).sum();
    println!("{} clients hold {all} delegations; the budget is now {}", clients.len(), all / 2);
    println!("second       held   asked  recalled");
    site.set_budget(all / 2);
    let mut held = all;
    for _ in 0..seconds {
        let now = site.second();
        if now.held != held || now.asked + now.recalled > 0 {
            println!("{:6} {:10} {:7} {:9}", now.at_s, now.held, now.asked, now.recalled);
        }
        held = now.held;
    }
    println!("client  manner       held  asked to keep    recalled  holds now");
    for (number, (manner, held)) in clients.iter().enumerate() {
        if (number + 1) % 10 == 0 || number + 12 > clients.len() {
            let keep: Vec<_> = site.asked(number).iter().map(|a| format!("{} ({:.0} s)", a.keep, a.at_s)).collect();
            let (keep, recalled, holds) = (keep.join(", "), site.recalled(number).len(), site.held(number));
            println!("{:6}  {:8} {held:8}  {keep:16} {recalled:8} {holds:10}", number + 1, format!("{manner:?}"));
        }
    }
    let pauses = (0..clients.len()).flat_map(|n| site.asked(n).windows(2).map(|two| two[1].at_s - two[0].at_s));
    match pauses.min_by(f64::total_cmp) {
        Some(shortest) => println!("shortest time between two requests to one client: {shortest:.2} s"),
        None => println!("nobody was asked twice"),
    }
    let (idle_first, stats) = ((0..clients.len()).all(|n| site.recalled(n).is_sorted()), site.runtime().stats());
    println!("recalls of the least recently used first: {}", if idle_first { "yes" } else { "NO" });
    println!("CB_RECALL_ANY: {}; recalled one by one: {}", stats.reaper_asked, stats.reaper_recalled);
}
