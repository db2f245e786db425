//! `ringback.h` says what the code is, and compilers take it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn header() -> PathBuf {
    here().join("include/ringback.h")
}

/// The sources, those of folders too.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().unwrap() == "tests" {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(here().join("cbindgen.toml")).unwrap();
    // It finds the modules itself.
    let builder = cbindgen::Builder::new().with_config(config).with_src(here().join("src/lib.rs"));
    let mut text = Vec::new();
    builder.generate().unwrap().write(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn the_header_is_that_of_the_code() {
    let now = generated();
    if std::env::var_os("RINGBACK_HEADER").is_some_and(|what| what == "write") {
        fs::write(header(), &now).unwrap();
    }
    let there = fs::read_to_string(header()).unwrap_or_default();
    let differs = there.lines().zip(now.lines()).position(|(a, b)| a != b);
    assert!(
        there == now,
        "ringback.h is not that of the code from line {} on: RINGBACK_HEADER=write cargo test -p ringback-capi --test header",
        differs.unwrap_or(0) + 1
    );
}

/// Each function that the library exports is declared, each enumerator and each struct of the code is there.
#[test]
fn what_the_code_exports_is_declared() {
    let text = fs::read_to_string(header()).unwrap();
    let mut functions = 0;
    for source in sources(&here().join("src")) {
        let code = fs::read_to_string(&source).unwrap();
        for exported in code.split("#[unsafe(no_mangle)]").skip(1) {
            let (_, rest) = exported.split_once("fn ").unwrap();
            let name = rest.split('(').next().unwrap();
            assert!(name.starts_with("rb_"), "{name} has not the prefix");
            assert!(text.contains(&format!("{name}(")), "{name} of {} is not declared", source.display());
            functions += 1;
        }
    }
    assert!(functions > 60, "{functions}");
}

/// Compiles a program that is nothing but the header.
fn compile(compiler: &str, language: &str, standard: &str) {
    let mut child = Command::new(compiler)
        .args(["-x", language, standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I"])
        .arg(here().join("include"))
        .arg("-")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{compiler}: {error}; install gcc and g++"));
    let program = b"#include <ringback.h>\n#include <ringback.h>\nint main(void) { return (int)rb_abi_version(); }\n";
    child.stdin.take().unwrap().write_all(program).unwrap();
    assert!(child.wait().unwrap().success(), "{compiler} {standard}");
}

#[test]
fn it_compiles_as_c11() {
    compile("cc", "c", "-std=c11");
}

#[test]
fn it_compiles_as_cpp17() {
    compile("c++", "c++", "-std=c++17");
}
