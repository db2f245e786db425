//! Keeps docs/src/scenarios.md true: every scenario has a test, or a reason why it has none; every test that the page names
//! exists, where it says; every test that is named by a scenario is on the page. With `UPDATE=1` in the environment, the
//! column of tests is written instead of compared. And docs/src/outcomes.md: every function and every test that it names
//! exists.

mod tree;

use std::collections::BTreeSet;
use tree::{read, sources};

const PAGE: &str = "docs/src/scenarios.md";
const OUTCOMES: &str = "docs/src/outcomes.md";
/// T1 to T38 and F1 to F19.
const IDS_MAX: [(char, u32); 2] = [('t', 38), ('f', 19)];

/// Where the tests of a level are: a file is of the first level whose prefix it has.
const LEVELS: [(&str, &str); 11] = [
    ("loom", "runtime/src/callback/tests/loom_"),
    ("word", "runtime/src/callback/"),
    ("core", "rpc/"),
    ("reactor", "runtime/src/"),
    ("runtime", "runtime/tests/scenarios/"),
    ("sockets", "runtime/tests/"),
    ("server", "runtime/server/"),
    ("swarm", "bench/src/swarm/"),
    ("storm", "bench/tests/"),
    ("simulator", "fuzz/"),
    ("storm", "bench/src/"),
];

/// A test that is named by a scenario: the scenario, the level and the name.
type Shown = (String, &'static str, String);

/// The id that a name begins with as a word of its own.
fn id_of(name: &str) -> Option<String> {
    let id = name.split('_').next()?;
    let (letter, number) = id.split_at_checked(1)?;
    let is_id = matches!(letter, "t" | "f") && !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (is_id && name.len() > id.len()).then(|| id.to_uppercase())
}

fn level_of(file: &str) -> &'static str {
    let level = LEVELS.iter().find(|(_, prefix)| file.starts_with(prefix));
    level.unwrap_or_else(|| panic!("{file} has a test that is named by a scenario, and no level")).0
}

/// Every function of a file, and whether it is a test.
fn functions(file: &str) -> Vec<(String, bool)> {
    let code = read(file);
    let lines: Vec<_> = code.lines().map(str::trim_start).collect();
    let name = |line: &str| {
        let (before, after) = line.split_once("fn ")?;
        let words = ["pub", "pub(crate)", "pub(super)", "const"];
        before.split_whitespace().all(|word| words.contains(&word)).then_some(())?;
        after.split(['(', '<']).next().map(str::to_owned)
    };
    let named = lines.iter().enumerate().filter_map(|(at, line)| Some((at, name(line)?)));
    let is_test = |at: usize| {
        let mut above = lines[..at].iter().rev().take_while(|l| l.starts_with("#[") || l.starts_with("//"));
        above.any(|l| *l == "#[test]")
    };
    named.map(|(at, name)| (name, is_test(at))).collect()
}

/// Every test in the code whose name begins with an id.
fn tests_in_the_code() -> BTreeSet<Shown> {
    let mut found = BTreeSet::new();
    for file in sources() {
        for (name, is_test) in functions(&file) {
            let Some(id) = id_of(&name) else { continue };
            assert!(is_test, "{file}: {name} is named like a test and is none");
            assert!(!id[1..].starts_with('0'), "{file}: {name}: ids have no leading zero");
            assert!(found.insert((id, level_of(&file), name.clone())), "{file}: {name} is there twice");
        }
    }
    found
}

/// The cells of each row of the table under a heading.
fn rows<'a>(page: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let (_, section) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{PAGE}: no {heading:?}"));
    let section = section.split("\n## ").next().unwrap_or(section);
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The tests that a cell names: `level: name, name; level: name`.
fn named(id: &str, cell: &str) -> Vec<Shown> {
    let mut found = Vec::new();
    for part in cell.split(';').filter(|part| part.contains('`')) {
        let (level, names) = part.rsplit_once(':').unwrap_or_else(|| panic!("{PAGE}: {id}: no level in {part:?}"));
        let level = LEVELS.iter().map(|(level, _)| *level).find(|known| level.trim_end().ends_with(known));
        let level = level.unwrap_or_else(|| panic!("{PAGE}: {id}: {part:?} names no level"));
        for name in names.split('`').skip(1).step_by(2) {
            found.push((id.to_owned(), level, name.to_owned()));
        }
    }
    found
}

#[test]
fn every_scenario_is_shown_or_has_a_reason_why_not() {
    let page = read(PAGE);
    let (shown, missing) = (rows(&page, "## Shown"), rows(&page, "## Not shown yet, and why"));
    for row in &shown {
        let [id, _, tests] = row[..] else { panic!("{PAGE}: {row:?}") };
        // A loom proof is not in the list of tests unless it is asked for: it has a twin that is.
        let levels: BTreeSet<_> = named(id, tests).iter().map(|(_, level, _)| *level).collect();
        assert!(levels.iter().any(|level| *level != "loom"), "{PAGE}: no test that plain `cargo test` runs shows {id}");
        assert!(
            !levels.contains("loom") || levels.contains("word"),
            "{PAGE}: the loom proof of {id} has no plain twin"
        );
    }
    for row in &missing {
        assert!(row.len() == 2 && row[1].len() > 20, "{PAGE}: {row:?} gives no reason");
    }
    let ids: Vec<_> = shown.iter().chain(&missing).map(|row| row[0].to_owned()).collect();
    let once: BTreeSet<_> = ids.iter().cloned().collect();
    assert_eq!(once.len(), ids.len(), "{PAGE}: an id stands there twice: {ids:?}");
    let number = |(letter, last): &(char, u32)| {
        let letter = letter.to_ascii_uppercase();
        (1..=*last).map(|n| format!("{letter}{n}")).collect::<Vec<_>>()
    };
    let all: BTreeSet<_> = IDS_MAX.iter().flat_map(number).collect();
    assert_eq!(once, all, "left: {PAGE}, right: every scenario");
}

/// The third cell of a scenario: what the code has.
fn cell(id: &str, in_code: &BTreeSet<Shown>) -> String {
    let of_level = |level: &str| {
        let names = in_code.iter().filter(|(of, at, _)| of == id && *at == level).map(|(.., name)| format!("`{name}`"));
        names.collect::<Vec<_>>().join(", ")
    };
    let mut parts = Vec::new();
    for (level, _) in LEVELS {
        let part = format!("{level}: {}", of_level(level));
        if part.contains('`') && !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts.join("; ")
}

/// The page with the tests of the code in its table of what is shown.
fn updated(page: &str, in_code: &BTreeSet<Shown>) -> String {
    let end = page.find("\n## Not shown").unwrap_or(page.len());
    let begin = page.find("\n## Shown").unwrap_or(end);
    let line = |line: &str| match line.split('|').map(str::trim).collect::<Vec<_>>()[..] {
        ["", id, what, _, ""] if id_of(&format!("{}_x", id.to_lowercase())).is_some() => {
            format!("| {id} | {what} | {} |\n", cell(id, in_code))
        }
        _ => format!("{line}\n"),
    };
    format!("{}{}{}", &page[..begin], page[begin..end].lines().map(line).collect::<String>(), &page[end..])
}

#[test]
fn the_page_and_the_code_name_the_same_tests() {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(tree::root().join(PAGE), updated(&read(PAGE), &tests_in_the_code())).unwrap();
    }
    let page = read(PAGE);
    let shown = rows(&page, "## Shown").into_iter().chain(rows(&page, "## Not shown yet, and why"));
    let mut on_page = BTreeSet::new();
    for row in shown {
        for test in named(row[0], row[row.len() - 1]) {
            assert_eq!(id_of(&test.2).as_deref(), Some(row[0]), "{PAGE}: {} stands under {}", test.2, row[0]);
            assert!(on_page.insert(test.clone()), "{PAGE}: {test:?} stands there twice");
        }
    }
    let in_code = tests_in_the_code();
    let gone: Vec<_> = on_page.difference(&in_code).collect();
    assert!(gone.is_empty(), "{PAGE} names tests that are not there (or at another level): {gone:?}");
    let untold: Vec<_> = in_code.difference(&on_page).collect();
    assert!(
        untold.is_empty(),
        "{PAGE} does not name {untold:?}; UPDATE=1 cargo test -p ringback-bench --test scenarios"
    );
}

/// The page explains each level that it uses.
#[test]
fn every_level_is_explained() {
    let page = read(PAGE);
    let explained: BTreeSet<_> = page
        .split("\n## ")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .collect();
    for (_, level, name) in tests_in_the_code() {
        assert!(explained.contains(level), "{PAGE} does not say what {level} is, where {name} is");
    }
}

/// What a row of the outcomes says by whom it is done is a function of the core or the runtime; what it says to be shown
/// by is a test that plain `cargo test` runs.
#[test]
fn outcomes_name_functions_and_tests_that_are_there() {
    let (mut tests, mut code) = (BTreeSet::new(), BTreeSet::new());
    for file in sources() {
        let is_loom = file.contains("/loom_");
        let is_code = file.starts_with("rpc/src/") || file.starts_with("runtime/src/");
        for (name, is_test) in functions(&file) {
            if is_test && !is_loom {
                tests.insert(name);
            } else if !is_test && is_code {
                code.insert(name);
            }
        }
    }
    let page = read(OUTCOMES);
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    assert!(rows.len() > 80, "{OUTCOMES} has {} rows", rows.len());
    for row in rows {
        let [_, _, by, shown] = row.trim_matches('|').split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{OUTCOMES}: not four cells: {row}")
        };
        for (cell, known) in [(by, &code), (shown, &tests)] {
            let named: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
            assert!(!named.is_empty(), "{OUTCOMES}: {cell:?} names nothing: {row}");
            let gone: Vec<_> = named.iter().filter(|name| !known.contains(**name)).collect();
            assert!(gone.is_empty(), "{OUTCOMES} names what is not there: {gone:?}");
        }
    }
}

/// What is promised of storms is played in the simulator, each promise.
#[test]
fn outcomes_of_storms_are_shown_in_the_simulator() {
    let (mut played, mut promises) = (BTreeSet::new(), 0);
    for file in sources().iter().filter(|file| file.starts_with("fuzz/tests/")) {
        played.extend(functions(file).into_iter().filter(|(_, is_test)| *is_test).map(|(name, _)| name));
    }
    for row in rows(&read(OUTCOMES), "## Storms").iter().filter(|row| !row[0].starts_with("---")) {
        let shown = row[row.len() - 1];
        let is_played = shown.split('`').skip(1).step_by(2).any(|name| played.contains(name));
        assert!(is_played, "{OUTCOMES}: the simulator does not show {:?}", row[0]);
        promises += 1;
    }
    assert!(promises > 15, "{promises} promises");
}

/// Each setting that may change while callbacks run stands in the table of the page, with what it is to runs in flight.
#[test]
fn each_setting_says_whether_it_is_for_runs_in_flight() {
    let code = read("runtime/src/tuning.rs");
    let (_, fields) = code.split_once("pub struct Tuning {").unwrap();
    let (fields, _) = fields.split_once("\n}").unwrap();
    let settings: BTreeSet<_> =
        fields.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next()).collect();
    assert!(settings.len() > 10, "{settings:?}");
    let page = read("docs/src/tuning.md");
    let told: BTreeSet<_> = page
        .lines()
        .take_while(|line| !line.starts_with("## Tenants"))
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| line.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .collect();
    assert_eq!(settings, told, "left: struct Tuning, right: docs/src/tuning.md");
}

#[test]
fn ids_are_words_of_their_own() {
    for (name, id) in [("t4_x", Some("T4")), ("f19_x", Some("F19")), ("t4x_y", None), ("t_x", None), ("t4", None)] {
        assert_eq!(id_of(name).as_deref(), id, "{name}");
    }
}
