//! The simulator: the production code above the seam [`ringback::simulator::Io`], in one thread, on a virtual clock,
//! over a simulated network and against simulated clients; every decision comes from one seed, or from the bytes of an input.
//!
//! - `choices`: the seed, or the input. `scenario`: the parameters drawn from it. `transition`: what may happen next.
//! - `world`: who takes the next step, and when time passes; `world/ending`: how it must end. `io`, `net`: the back end and the network below it.
//! - `client`: the simulated clients. `lifecycle`: how they come, change and go. `fore`: what they ask. `transport`: lines
//!   that an embedder drives itself.
//! - `minor0`, `client/minor0`, `net/dial`: clients of NFSv4.0, whom the server connects to.
//! - `handover`, `world/handover`: live upgrades, and how either process fails. `process`: which of them calls hooks.
//! - `tenants`: the checker of their limits. `world/story`: simulations in which one thing happens that is wanted.
//! - `embedder`: the file server, its hooks and everything that it asks of the runtime.
//! - `reference`: the model of every callback, rules R1 to R9. `wire`, `work`, `waiters`, `groups`: the checkers of what is
//!   sent, of how much is done for it, and of what waiters and groups are told. `journal`: what they found. `coverage`: what
//!   was come across.
//! - `plant`: faults on purpose, which the checkers must find.
//!
//! A run of it: clients come, callbacks are inserted and run, and things happen until the scenario has had enough. In
//! half of the scenarios all becomes well again, and then every run must end by itself and every session slot must be
//! found free. In all of them the runtime is drained, which must end by its deadline, and stopped.

mod call;
mod choices;
mod client;
mod coverage;
mod embedder;
mod fore;
mod groups;
mod handover;
mod io;
mod journal;
mod lifecycle;
mod minor0;
mod net;
mod plant;
mod process;
mod reference;
mod scenario;
mod tenants;
mod transition;
mod transport;
mod waiters;
mod wire;
mod work;
mod world;

pub use coverage::{Coverage, Kind};
pub use journal::{Failure, Rule};
pub use plant::Plant;
pub use world::Story;

use choices::Choices;
use journal::Journal;
use scenario::Scenario;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use world::World;

/// What to simulate besides the seed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Prints everything that happens on stderr.
    pub trace: bool,
    /// A fault on purpose.
    pub plant: Plant,
    /// How many callbacks are to run, where they can; 0: as the seed says.
    pub callbacks: u64,
    /// Most clients lie.
    pub hostile: bool,
    /// All clients are of minor version 0. Not for inputs.
    pub minor0: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { trace: false, plant: Plant::Nothing, callbacks: 0, hostile: false, minor0: false }
    }
}

/// What became of a simulation.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What went wrong; at the first failure the simulation ends.
    pub failures: Vec<Failure>,
    /// Callback runs, those that were asked for again included.
    pub runs: u64,
    /// Callback records sent.
    pub records: u64,
    /// Turns of the reactors.
    pub turns: u64,
    /// Nanoseconds of virtual time.
    pub simulated_ns: u64,
    /// A digest of the whole history: the same seed gives the same one.
    pub digest: u64,
    /// What it came across.
    pub coverage: Coverage,
}

impl Report {
    /// Adds what was counted in another simulation.
    pub fn add(&mut self, other: &Report) {
        self.runs += other.runs;
        self.records += other.records;
        self.turns += other.turns;
        self.simulated_ns += other.simulated_ns;
        self.coverage.add(&other.coverage);
    }
}

/// Plays the simulation of a seed.
pub fn run(seed: u64, options: &Options) -> Report {
    let mut choices = Choices::of_seed(seed);
    let mut scenario = Scenario::draw(&mut choices);
    scenario.draw_queues(&mut choices);
    scenario.draw_minor0(&choices);
    scenario.draw_tenants(&choices);
    if options.minor0 {
        scenario.minor0 = 1000;
    }
    scenario.draw_upgrades(&choices);
    if options.callbacks > 0 {
        scenario.prolong(options.callbacks);
    }
    play(choices, scenario, options, World::play)
}

/// Plays a simulation in which what happens is the story's: over lines and with clients as the seed says, all of which are of
/// minor version 0 if the options say so.
pub fn tell(seed: u64, story: Story, options: &Options) -> Report {
    let mut choices = Choices::of_seed(seed);
    let mut scenario = Scenario::draw(&mut choices);
    story.set(&mut scenario, options.minor0);
    play(choices, scenario, options, |world| world.tell(story))
}

/// Plays a small simulation whose decisions are the bytes of an input, in the order in which they are made. When these are
/// used up, nothing new happens, and what is under way comes to its end.
pub fn run_input(input: &[u8], options: &Options) -> Report {
    let mut choices = Choices::of_input(input);
    let scenario = Scenario::draw_small(&mut choices);
    play(choices, scenario, options, World::play)
}

fn play(choices: Choices, mut scenario: Scenario, options: &Options, tell: impl FnOnce(&mut World)) -> Report {
    if options.hostile {
        scenario.turn_hostile();
    }
    let journal = Journal::new(scenario.start_ns, options.trace);
    journal.trace(|| format!("{scenario:?}"));
    let played = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut report = Report::default();
        let world = World::new(choices, scenario, options.plant, journal.clone());
        if let Some(mut world) = world {
            tell(&mut world);
            let counts = world.embedder.reference().counts;
            report.runs = counts.accepted + counts.rearmed;
            report.records = world.wire.records;
            report.turns = world.turns;
            report.simulated_ns = world.journal.now_ns() - world.scenario.start_ns;
        }
        report
    }));
    let mut report = played.unwrap_or_else(|payload| {
        journal.fail(Rule::Panic, panic_text(&*payload));
        Report::default()
    });
    report.failures = journal.take_failures();
    report.digest = journal.digest();
    report.coverage = journal.coverage();
    report
}

thread_local! {
    /// Where this thread panicked last.
    static PANICKED_AT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A panic of the code under test is a failure like any other, and is reported as one: nothing is printed when it
/// happens. For programs that do nothing else; it changes the panic hook of the process.
pub fn keep_panics_quiet() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |place| format!(", at {place}"));
        PANICKED_AT.set(place);
    }));
}

fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    format!("{}{}", text.unwrap_or("a panic without a text"), PANICKED_AT.take())
}
