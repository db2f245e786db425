//! Keeps what is written about the code true where that is cheap: names, commands, links, where unsafe is allowed.

mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use tree::{files, read, root, sources};

/// Longest source file. A longer one has two jobs.
const FILE_LINES_MAX: usize = 600;

fn documents() -> Vec<String> {
    files(".", ".md").into_iter().filter(|f| !f.starts_with("fuzz/corpus")).collect()
}

/// The text between the backticks.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The section under a heading, up to the next heading.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading:?}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

/// `(name, file)` of each row of the tables of limits.
fn limits(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            (cells.next().unwrap().trim_matches('`'), cells.next().unwrap())
        })
        .collect()
}

#[test]
fn each_limit_stands_where_the_table_says() {
    let text = read("docs/src/limits.md");
    let rows = limits(&text);
    assert!(rows.len() > 30, "the table has {} rows", rows.len());
    for (name, file) in rows {
        let code = read(file);
        let definitions =
            [format!("const {name}:"), format!("pub fn {name}("), format!("pub {name}:"), format!("static {name}:")];
        assert!(definitions.iter().any(|d| code.contains(d)), "docs/src/limits.md: {file} does not define {name}");
    }
}

/// The other way round: what the code calls a maximum, and what can be set, is in the table.
#[test]
fn each_limit_is_in_the_table() {
    let text = read("docs/src/limits.md");
    let named: BTreeSet<_> = limits(&text).into_iter().collect();
    let mut missing = Vec::new();
    let product = |f: &&String| {
        (f.starts_with("rpc/src") || f.starts_with("runtime/src"))
            && !f.contains("/tests")
            && !f.contains("conformance")
    };
    for file in sources().iter().filter(product) {
        let code = read(file);
        let shipped = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for line in shipped.lines() {
            let Some((_, rest)) = line.split_once("const ") else { continue };
            let Some((name, _)) = rest.split_once(':') else { continue };
            if name.ends_with("_MAX") && !name.contains(' ') && !named.contains(&(name, file)) {
                missing.push(format!("{name} of {file}"));
            }
        }
    }
    let builder = "runtime/src/builder.rs";
    for line in read(builder).lines().filter(|l| l.contains("(mut self, ") && l.ends_with("-> Self {")) {
        let name = line.trim_start().trim_start_matches("pub fn ").split('(').next().unwrap();
        // The name of the threads limits nothing.
        if name != "name" && !named.contains(&(name, builder)) {
            missing.push(format!("the setting {name}"));
        }
    }
    assert!(missing.is_empty(), "docs/src/limits.md has no row for {missing:?}");
}

#[test]
fn unsafe_code_is_where_the_architecture_allows_it() {
    let text = read("ARCHITECTURE.md");
    let list = section(&text, "## Where unsafe is allowed");
    let allowed: BTreeSet<_> = quoted(list).into_iter().filter(|w| w.ends_with(".rs")).map(str::to_owned).collect();
    let found: BTreeSet<_> =
        sources().into_iter().filter(|f| read(f).lines().any(|l| l.starts_with("#![allow(unsafe_code)"))).collect();
    assert_eq!(allowed, found, "left: ARCHITECTURE.md, right: the code");
}

/// What an embedder sees has an example; the doc tests run it.
#[test]
fn each_public_type_has_an_example() {
    let code = read("runtime/src/lib.rs");
    let exported = code.split("pub use").skip(1).flat_map(|rest| rest.split(';').next().unwrap().split(is_no_word));
    let types: BTreeSet<_> = exported.filter(|word| word.starts_with(char::is_uppercase)).collect();
    assert!(types.len() > 40, "{types:?}");
    let shown: BTreeSet<_> =
        [files("rpc/src", ".rs"), files("runtime/src", ".rs")].concat().iter().flat_map(|f| shown(&read(f))).collect();
    let missing: Vec<_> = types.into_iter().filter(|name| !shown.contains(*name)).collect();
    assert!(missing.is_empty(), "no example in the documentation of {missing:?}");
}

/// The public types whose documentation has an example.
fn shown(code: &str) -> Vec<String> {
    let (mut found, mut has_example) = (Vec::new(), false);
    for line in code.lines().map(str::trim_start) {
        let name = ["pub struct ", "pub enum ", "pub trait "].iter().find_map(|kind| line.strip_prefix(kind));
        found.extend(name.filter(|_| has_example).map(|name| name.split(is_no_word).next().unwrap().to_owned()));
        has_example =
            line.starts_with("/// ```") || has_example && (line.starts_with("///") || !line.ends_with([';', '}']));
    }
    found
}

fn is_no_word(c: char) -> bool {
    !c.is_alphanumeric()
}

#[test]
fn source_files_are_short() {
    for file in sources() {
        let lines = read(&file).lines().count();
        assert!(lines <= FILE_LINES_MAX, "{file} has {lines} lines, {FILE_LINES_MAX} are the limit: it has two jobs");
    }
}

/// Each command in a block of the README stands in `.ci/run` too, so that it is known to work.
#[test]
fn ci_runs_the_commands_of_the_readme() {
    let readme = read("README.md");
    let ci = read(".ci/run");
    let commands: Vec<_> =
        readme.split("```sh\n").skip(1).flat_map(|block| block.split("```").next().unwrap().lines()).collect();
    assert!(commands.len() >= 2, "{commands:?}");
    for command in commands {
        assert!(ci.contains(command), "README.md: .ci/run does not run {command:?}");
    }
}

#[test]
fn links_lead_somewhere() {
    for file in documents() {
        let text = read(&file);
        let folder = Path::new(&file).parent().unwrap().to_path_buf();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with('<') {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { PathBuf::from(&file) } else { folder.join(path) };
            let full = root().join(&path);
            assert!(full.exists(), "{file}: {target} does not exist");
            if !anchor.is_empty() {
                let there = fs::read_to_string(&full).unwrap();
                let slugs: Vec<_> = there.lines().filter(|l| l.starts_with('#')).map(slug).collect();
                assert!(slugs.iter().any(|s| s == anchor), "{file}: {target}: no such heading in {slugs:?}");
            }
        }
    }
}

/// The anchor of a heading.
fn slug(heading: &str) -> String {
    let plain = heading.trim_start_matches('#').trim().to_lowercase();
    plain
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn the_book_lists_its_pages() {
    let summary = read("docs/src/SUMMARY.md");
    for file in files("docs/src", ".md") {
        let page = file.trim_start_matches("docs/src/");
        assert!(page == "SUMMARY.md" || summary.contains(&format!("({page})")), "SUMMARY.md does not list {page}");
    }
}

/// The book explains each field of the storm's JSON object.
#[test]
fn the_book_names_the_fields_of_the_json() {
    let code = read("bench/src/storm/json.rs");
    let (_, rest) = code.split_once("struct Object<'a> {").expect("the object of --json");
    let fields = rest.split('}').next().unwrap().lines().filter_map(|l| l.trim().split_once(':')).map(|(name, _)| name);
    let page = read("docs/src/storm.md");
    let named = quoted(section(&page, "## JSON"));
    for field in fields {
        assert!(named.contains(field), "docs/src/storm.md does not explain the field {field}");
    }
}

/// The book pairs each loom proof with the plain test that is its twin.
#[test]
fn each_loom_proof_has_a_twin() {
    let folder = "runtime/src/callback/tests";
    let of = |loom: bool| -> BTreeSet<String> {
        let is_of = |file: &&String| file.contains("/loom_") == loom;
        files(folder, ".rs").iter().filter(is_of).flat_map(|file| tests(&read(file))).collect()
    };
    let page = read("docs/src/verification.md");
    let rows: Vec<_> = section(&page, "## loom").lines().filter(|line| line.starts_with("| `")).collect();
    let cell = |row: &str, at: usize| row.split('|').nth(at).unwrap().trim().trim_matches('`').to_owned();
    let proofs: BTreeSet<_> = rows.iter().map(|row| cell(row, 1)).collect();
    assert_eq!(proofs, of(true), "left: docs/src/verification.md, right: {folder}/loom_*.rs");
    let plain = of(false);
    for twin in rows.iter().map(|row| cell(row, 2)) {
        assert!(plain.contains(&twin), "docs/src/verification.md: no test {twin} in {folder}");
    }
}

/// The names of the functions behind `#[test]`.
fn tests(code: &str) -> Vec<String> {
    let name =
        |rest: &str| rest.split_once("fn ").and_then(|(_, name)| name.split_once('(')).map(|(name, _)| name.to_owned());
    code.split("#[test]\n").skip(1).filter_map(name).collect()
}
