//! The record of a run, as it was written.

use std::collections::BTreeMap;
use std::path::Path;

/// One life of a guest: from its mount to its end, or to its being killed.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    /// As it signs its entries of the journal.
    pub name: String,
    /// Whole lines.
    pub lines: Vec<String>,
    /// It was killed: what it did last may have happened without a line here.
    pub killed: bool,
}

/// What the server had, once a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub at_s: u64,
    pub rss_kib: u64,
    pub in_flight: u64,
    pub completed: u64,
    pub delegations: u64,
    /// Session slots in quarantine or retired.
    pub slots_lost: u64,
    pub timed_out: u64,
}

/// What was done to the clients or the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub at_s: u64,
    pub kind: String,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub lives: Vec<Life>,
    /// The number of each file that is whole at the end.
    pub files: BTreeMap<String, u64>,
    /// Who appended which number, in order.
    pub journal: Vec<String>,
    pub samples: Vec<Sample>,
    pub events: Vec<Event>,
}

impl Record {
    pub fn read(folder: &Path) -> Result<Record, String> {
        let text = |name: &str| {
            std::fs::read_to_string(folder.join(name)).map_err(|e| format!("{}: {e}", folder.join(name).display()))
        };
        let mut lives = Vec::new();
        for guest in 1.. {
            let before = lives.len();
            for life in 1.. {
                let name = format!("work{guest}.{life}");
                if !folder.join(&name).exists() {
                    break;
                }
                lives.push(Life::parse(&format!("g{guest}.{life}"), &text(&name)?));
            }
            if lives.len() == before {
                break;
            }
            // All but the last one ended by being killed.
            let last = lives.len() - 1;
            lives[before..last].iter_mut().for_each(|life| life.killed = true);
        }
        let files = text("files")?.lines().map(file).collect::<Result<_, _>>()?;
        let samples = text("samples")?.lines().map(sample).collect::<Result<_, _>>()?;
        let events = if folder.join("events").exists() { text("events")? } else { String::new() };
        let events = events.lines().map(event).collect::<Result<_, _>>()?;
        let journal = text("journal")?.lines().map(str::to_owned).collect();
        Ok(Record { lives, files, journal, samples, events })
    }

    pub fn killed(&self) -> usize {
        self.lives.iter().filter(|life| life.killed).count()
    }
}

impl Life {
    pub fn parse(name: &str, text: &str) -> Life {
        // A line that was cut off with its guest says nothing.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        Life { name: name.to_owned(), lines: whole.lines().map(str::to_owned).collect(), killed: false }
    }
}

fn file(line: &str) -> Result<(String, u64), String> {
    let (name, number) = line.split_once(' ').ok_or_else(|| format!("files: no number in '{line}'"))?;
    let number = number.trim().parse().map_err(|_| format!("files: no number in '{line}'"))?;
    Ok((name.to_owned(), number))
}

fn sample(line: &str) -> Result<Sample, String> {
    let numbers: Result<Vec<u64>, _> = line.split(' ').map(str::parse).collect();
    match numbers.as_deref() {
        Ok([at_s, rss_kib, in_flight, completed, delegations, slots_lost, timed_out]) => Ok(Sample {
            at_s: *at_s,
            rss_kib: *rss_kib,
            in_flight: *in_flight,
            completed: *completed,
            delegations: *delegations,
            slots_lost: *slots_lost,
            timed_out: *timed_out,
        }),
        _ => Err(format!("samples: not seven numbers: '{line}'")),
    }
}

fn event(line: &str) -> Result<Event, String> {
    let mut words = line.split(' ');
    let at_s = words.next().and_then(|word| word.parse().ok());
    match (at_s, words.next()) {
        (Some(at_s), Some(kind)) => Ok(Event { at_s, kind: kind.to_owned() }),
        _ => Err(format!("events: no time and kind in '{line}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_off_is_dropped_and_the_rest_is_kept() {
        let life = Life::parse("g1.1", "ok look\nc counter1 2\nc counter1");
        assert_eq!(life.lines, ["ok look", "c counter1 2"]);
        assert!(Life::parse("g1.1", "c cou").lines.is_empty());
    }

    #[test]
    fn lines_that_are_none_are_named() {
        assert_eq!(sample("1 2 3 4 5 6 7").unwrap().timed_out, 7);
        assert!(sample("1 2 3").unwrap_err().contains("1 2 3"));
        assert!(file("counter1").unwrap_err().contains("counter1"));
        assert_eq!(event("7 cut 2 3").unwrap(), Event { at_s: 7, kind: "cut".to_owned() });
        assert!(event("soon").is_err());
    }
}
