//! Judges the record that `runtime/server/tests/linux/soak` makes: what four Linux clients read and wrote, against a model of the files;
//! and what the server had in memory and in flight meanwhile.
//!
//! The record is a folder:
//!
//! | file | a line of it |
//! |---|---|
//! | `workN.L` | what guest N did in its L-th life: see `soak-work` |
//! | `files` | FILE NUMBER, of each file that is whole at the end |
//! | `journal` | NAME NUMBER, in the order in which they were appended |
//! | `samples` | SECONDS RSS_KIB IN_FLIGHT COMPLETED DELEGATIONS SLOTS_LOST TIMED_OUT |
//! | `events` | SECONDS KIND DETAIL... |

mod judge;
mod page;
mod plot;
mod record;

use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Judges the record of a soak, and writes a page with a plot.
#[derive(Debug, Parser)]
#[command(name = "soak-report", version)]
struct Options {
    /// The folder with the record.
    record: PathBuf,
    /// The folder for `soak.md` and `soak.svg`.
    #[arg(long, value_name = "DIR", default_value = "target/soak")]
    out: PathBuf,
    /// The seed of the run, for the page.
    #[arg(long, value_name = "N")]
    seed: u64,
    /// How long the guests were to work, for the page.
    #[arg(long, value_name = "N")]
    minutes: u32,
}

/// The command. Exit status: 0 if nothing was found, 1 if something was or the record cannot be read, 2 if the command was wrong.
pub fn main() -> ExitCode {
    let options = Options::parse();
    match report(&options) {
        Ok(findings) if findings.is_empty() => {
            println!("passed");
            ExitCode::SUCCESS
        }
        Ok(findings) => {
            findings.iter().for_each(|finding| eprintln!("soak: {finding}"));
            eprintln!(
                "soak: {} findings; seed {}, record in {}",
                findings.len(),
                options.seed,
                options.record.display()
            );
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("soak-report: {why}");
            ExitCode::FAILURE
        }
    }
}

fn report(options: &Options) -> Result<Vec<String>, String> {
    let record = record::Record::read(&options.record)?;
    let verdict = judge::judge(&record);
    let page = page::page(&record, &verdict, options.seed, options.minutes);
    std::fs::create_dir_all(&options.out).map_err(|e| format!("{}: {e}", options.out.display()))?;
    write(&options.out.join("soak.md"), &page)?;
    write(&options.out.join("soak.svg"), &plot::render(&record)?)?;
    print!("{}", page::summary(&verdict));
    println!("written: {}", options.out.join("soak.md").display());
    Ok(verdict.findings)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
