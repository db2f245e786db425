//! What Rust can do, C can do: docs/src/rust-and-c.md has every public function, hook and event, and what it is in C.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::{Attribute, ImplItem, Item, TraitItem, UseTree, Visibility};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn parse(path: &Path) -> syn::File {
    let code = fs::read_to_string(path).unwrap();
    syn::parse_file(&code).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The sources of a crate, but for its tests and for what is not of the public interface.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if ["tests", "simulator", "tokio_uring"].contains(&name) {
            continue;
        }
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
    found
}

/// The names that a file exports, and whether they come from the codec.
fn exported(file: &syn::File) -> BTreeMap<String, bool> {
    fn walk(tree: &UseTree, of_codec: bool, to: &mut BTreeMap<String, bool>) {
        match tree {
            UseTree::Path(path) => walk(&path.tree, of_codec || path.ident == "ringback_rpc", to),
            UseTree::Group(group) => group.items.iter().for_each(|tree| walk(tree, of_codec, to)),
            UseTree::Name(name) => drop(to.insert(name.ident.to_string(), of_codec)),
            UseTree::Rename(name) => drop(to.insert(name.rename.to_string(), of_codec)),
            UseTree::Glob(_) => {}
        }
    }
    let mut names = BTreeMap::new();
    for item in &file.items {
        if let Item::Use(item) = item
            && matches!(item.vis, Visibility::Public(_))
        {
            walk(&item.tree, false, &mut names);
        }
    }
    names
}

/// Not for users, or not there for them.
fn is_hidden(attributes: &[Attribute]) -> bool {
    let text = |a: &Attribute| match &a.meta {
        syn::Meta::List(list) => format!("{}({})", list.path.segments[0].ident, list.tokens),
        _ => String::new(),
    };
    let of_tests = |text: &str| text.starts_with("cfg(") && (text.contains("test") || text.contains("simulator"));
    attributes.iter().map(text).any(|text| of_tests(&text) || text == "doc(hidden)")
}

/// The functions of a file's types that are named, the methods of its traits, and what kinds of events there are.
fn functions(file: &syn::File, named: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for item in &file.items {
        match item {
            Item::Impl(item) if item.trait_.is_none() && !is_hidden(&item.attrs) => {
                let syn::Type::Path(path) = &*item.self_ty else { continue };
                let name = path.path.segments.last().unwrap().ident.to_string();
                for member in &item.items {
                    if let ImplItem::Fn(function) = member
                        && matches!(function.vis, Visibility::Public(_))
                        && !is_hidden(&function.attrs)
                        && named(&name)
                    {
                        found.push(format!("{name}::{}", function.sig.ident));
                    }
                }
            }
            Item::Trait(item) if named(&item.ident.to_string()) => {
                let methods = item.items.iter().filter_map(|member| match member {
                    TraitItem::Fn(function) => Some(&function.sig.ident),
                    _ => None,
                });
                found.extend(methods.map(|method| format!("{}::{method}", item.ident)));
            }
            Item::Enum(item) if item.ident == "Event" && named("Event") => {
                found.extend(item.variants.iter().map(|variant| format!("Event::{}", variant.ident)));
            }
            _ => {}
        }
    }
    found
}

/// All that a program in Rust can call, or is called by.
fn rust() -> BTreeSet<String> {
    let (runtime, codec) = (sources(&root().join("runtime/src")), sources(&root().join("rpc/src")));
    let mut names = exported(&parse(&root().join("runtime/src/lib.rs")));
    let files: Vec<_> = runtime.iter().map(|path| parse(path)).collect();
    // What comes through a module of the runtime from the codec.
    let through: Vec<_> = files.iter().flat_map(exported).filter(|(_, of_codec)| *of_codec).collect();
    through.into_iter().for_each(|(name, _)| drop(names.entry(name).and_modify(|of_codec| *of_codec = true)));
    let of = |codec: bool| move |names: &BTreeMap<String, bool>, name: &str| names.get(name) == Some(&codec);
    let mut found: BTreeSet<_> = files.iter().flat_map(|file| functions(file, &|n| of(false)(&names, n))).collect();
    // Its own driver is not the embedder.
    let inner = ["Counters::add", "Counters::by_name", "Counters::names", "Counters::subtract"];
    let inner =
        [&inner[..], &["Outcome::without_results", "ReferringCalls::is_used", "ReferringCalls::probe"]].concat();
    let of_codec = codec.iter().flat_map(|path| functions(&parse(path), &|n| of(true)(&names, n)));
    found.extend(of_codec.filter(|name| !inner.contains(&name.as_str())));
    found
}

/// The rows of the page.
fn rows(page: &str) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let (rust, c) = line.trim_matches(['|', ' ']).split_once(" | ").unwrap_or_else(|| panic!("no row: {line}"));
        let before = rows.insert(rust.trim_matches('`').to_owned(), c.to_owned());
        assert!(before.is_none(), "{rust} has two rows");
    }
    rows
}

/// The names of the C interface in a text.
fn c_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| (word.starts_with("rb_") && !word.ends_with('_')) || word.starts_with("RB_")).collect()
}

#[test]
fn everything_that_rust_can_do_is_in_c_or_there_is_a_reason() {
    let page = fs::read_to_string(root().join("docs/src/rust-and-c.md")).unwrap();
    let (rows, rust) = (rows(&page), rust());
    assert!(rust.len() > 200, "{}", rust.len());
    let missing: Vec<_> = rust.iter().filter(|name| !rows.contains_key(*name)).collect();
    assert!(missing.is_empty(), "docs/src/rust-and-c.md has no row for {missing:?}");
    let gone: Vec<_> = rows.keys().filter(|name| !rust.contains(*name)).collect();
    assert!(gone.is_empty(), "docs/src/rust-and-c.md has rows for what there is not: {gone:?}");
    for (name, c) in &rows {
        assert!(c.starts_with("none: ") || !c_names(c).is_empty(), "{name}: neither a name nor a reason: {c}");
    }
}

#[test]
fn everything_in_c_is_of_something() {
    let page = fs::read_to_string(root().join("docs/src/rust-and-c.md")).unwrap();
    let header = fs::read_to_string(root().join("runtime/capi/include/ringback.h")).unwrap();
    let (told, there) = (c_names(&page), c_names(&header));
    let invented: Vec<_> = told.difference(&there).collect();
    assert!(invented.is_empty(), "ringback.h has none of {invented:?}");
    let functions = header.split("rb_").skip(1).filter_map(|rest| {
        let name = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()?;
        rest[name.len()..].starts_with('(').then(|| format!("rb_{name}"))
    });
    let untold: BTreeSet<_> = functions.filter(|name| !told.contains(name.as_str())).collect();
    assert!(untold.is_empty(), "docs/src/rust-and-c.md does not name {untold:?}");
}
