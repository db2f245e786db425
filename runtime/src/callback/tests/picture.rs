//! The picture of the state word in the book, drawn from the code: nodes and arrows are what the transitions do, only the
//! places of the nodes are chosen. `UPDATE=1 cargo test -p ringback --lib the_picture` writes it.

use super::transitions::{GENERATION, all, reachable, take};
use crate::callback::state::{Flags, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// The flags that make a node. The others only say what will happen later, and stand at the arrows and in the nodes.
const OF_A_NODE: Flags =
    Flags::LIVE.union(Flags::RUNNING).union(Flags::SETTLED).union(Flags::REQUEUE).union(Flags::DYING);
const WIDTH: i32 = 1240;
const HEIGHT: i32 = 620;
const NODE_WIDTH: i32 = 176;
const NODE_HEIGHT: i32 = 112;

struct Node {
    flags: Flags,
    title: &'static str,
    meaning: &'static str,
    x: i32,
    y: i32,
}

const fn node(flags: Flags, title: &'static str, meaning: &'static str, x: i32, y: i32) -> Node {
    Node { flags, title, meaning, x, y }
}

const RUNNING: Flags = Flags::LIVE.union(Flags::RUNNING);
const NODES: [Node; 9] = [
    node(Flags::empty(), "FREE", "no callback", 100, 310),
    node(Flags::LIVE, "LIVE", "idle", 330, 200),
    node(RUNNING, "RUNNING", "queued, or sent", 600, 200),
    node(RUNNING.union(Flags::REQUEUE), "REQUEUE", "to be sent again", 870, 200),
    node(RUNNING.union(Flags::SETTLED), "SETTLED", "done, release", 1140, 200),
    node(Flags::LIVE.union(Flags::DYING), "DYING", "to be freed", 330, 420),
    node(RUNNING.union(Flags::DYING), "RUNNING, DYING", "queued, or sent", 600, 420),
    node(RUNNING.union(Flags::REQUEUE).union(Flags::DYING), "REQUEUE, DYING", "to be sent again", 870, 420),
    node(RUNNING.union(Flags::SETTLED).union(Flags::DYING), "SETTLED, DYING", "done, release", 1140, 420),
];

fn place(flags: Flags) -> usize {
    let of_a_node = flags & OF_A_NODE;
    NODES.iter().position(|node| node.flags == of_a_node).unwrap_or_else(|| panic!("no node for {flags:?}"))
}

/// What the transitions do, with all states of a node taken together.
#[derive(Default)]
struct Graph {
    /// From node to node: the names of the transitions, and the flags without which none of them goes that way.
    arrows: BTreeMap<(usize, usize), BTreeMap<&'static str, Flags>>,
    /// Within a node: which transition sets (`+`) or clears which flag.
    notes: BTreeMap<usize, BTreeSet<String>>,
}

fn graph() -> Graph {
    let mut graph = Graph::default();
    for flags in reachable() {
        let from = place(flags);
        for transition in all() {
            let Some((_, after)) = take(transition, flags, GENERATION) else { continue };
            let (to, name) = (place(after.flags()), transition.0.split(',').next().unwrap_or_default());
            if from != to || after.generation() != GENERATION {
                let names = graph.arrows.entry((from, to)).or_default();
                *names.entry(name).or_insert(Flags::all()) &= flags & !OF_A_NODE;
            } else if after != Snapshot::new(GENERATION, flags) {
                let notes = graph.notes.entry(from).or_default();
                notes.extend((after.flags() & !flags).iter_names().map(|(flag, _)| format!("{name}: +{flag}")));
                notes.extend((flags & !after.flags()).iter_names().map(|(flag, _)| format!("{name}: \u{2212}{flag}")));
            }
        }
    }
    graph
}

/// One arrow: straight between neighbours, an arch over what lies between; the label at its middle.
fn arrow(svg: &mut String, from: &Node, to: &Node, both_ways: bool, label: &str) -> std::fmt::Result {
    let upper = from.y <= HEIGHT / 2;
    let out = if upper { -1 } else { 1 };
    let side = NODE_WIDTH / 2;
    let (path, x, y) = if from.x == to.x {
        let (y1, y2) = (from.y + NODE_HEIGHT / 2, to.y - NODE_HEIGHT / 2);
        (format!("M{} {y1} L{} {y2}", from.x, to.x), from.x, (y1 + y2) / 2 + 4)
    } else if from.y != to.y {
        let towards = (to.x - from.x).signum();
        let (x1, x2) = (from.x + towards * side, to.x - towards * side);
        (format!("M{x1} {} L{x2} {}", from.y, to.y), (x1 + x2) / 2, (from.y + to.y) / 2 + 4)
    } else if (to.x - from.x).abs() <= 270 {
        let towards = (to.x - from.x).signum();
        // Two arrows between the same nodes keep apart.
        let y = from.y + if both_ways { towards * 26 } else { 0 };
        let (x1, x2) = (from.x + towards * side, to.x - towards * side);
        (format!("M{x1} {y} L{x2} {y}"), (x1 + x2) / 2, y - 7)
    } else {
        let (edge, towards) = (from.y + out * NODE_HEIGHT / 2, (to.x - from.x).signum());
        // What goes further goes higher, and what goes back lies outside of what goes forth.
        let distance = (to.x - from.x).abs();
        let (x1, x2) = match towards {
            1 => (from.x + 50, to.x - 60),
            _ => (from.x + if distance > 540 { 40 } else { 0 }, to.x + 10),
        };
        let far = (distance - 540) / 6 + if towards < 0 { 0 } else { -50 };
        let top = edge + out * (110 + far);
        (
            format!("M{x1} {edge} C{x1} {top} {x2} {top} {x2} {edge}"),
            (x1 + x2) / 2,
            edge + out * (110 + far) * 3 / 4 + 4,
        )
    };
    writeln!(svg, r#"<path d="{path}" class="arrow" marker-end="url(#head)"/>"#)?;
    writeln!(svg, r#"<text x="{x}" y="{y}" class="label">{label}</text>"#)
}

fn draw(graph: &Graph) -> Result<String, std::fmt::Error> {
    let mut svg = String::new();
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">"#
    )?;
    svg.push_str(concat!(
        "<style>.node{fill:#eef3fa;stroke:#34568b;stroke-width:1.5}.arrow{fill:none;stroke:#555;stroke-width:1.4}",
        "text{text-anchor:middle;fill:#222}.title{font-size:15px;font-weight:bold}.meaning{font-size:12px;fill:#555}",
        ".note{font-size:11px;fill:#34568b}.label{font-size:13px;stroke:#fff;stroke-width:5px;paint-order:stroke}</style>\n",
        r##"<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">"##,
        r##"<path d="M0 0 L8 4 L0 8 z" fill="#555"/></marker></defs>"##,
        "\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    ));
    for (&(from, to), names) in &graph.arrows {
        let with_condition = |(name, needed): (&&str, &Flags)| {
            let flags: Vec<_> = needed.iter_names().map(|(flag, _)| flag).collect();
            if flags.is_empty() { (*name).to_owned() } else { format!("{name}, if {}", flags.join(" and ")) }
        };
        let label = names.iter().map(with_condition).collect::<Vec<_>>().join(", or ");
        arrow(&mut svg, &NODES[from], &NODES[to], graph.arrows.contains_key(&(to, from)), &label)?;
    }
    for (at, Node { title, meaning, x, y, .. }) in NODES.iter().enumerate() {
        let (left, top) = (x - NODE_WIDTH / 2, y - NODE_HEIGHT / 2);
        writeln!(
            svg,
            r#"<rect x="{left}" y="{top}" width="{NODE_WIDTH}" height="{NODE_HEIGHT}" rx="9" class="node"/>"#
        )?;
        writeln!(svg, r#"<text x="{x}" y="{}" class="title">{title}</text>"#, top + 19)?;
        writeln!(svg, r#"<text x="{x}" y="{}" class="meaning">{meaning}</text>"#, top + 35)?;
        for (line, note) in graph.notes.get(&at).into_iter().flatten().enumerate() {
            writeln!(svg, r#"<text x="{x}" y="{}" class="note">{note}</text>"#, top + 52 + 13 * line as i32)?;
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

#[test]
fn the_picture_in_the_book_is_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/img/state-word.svg");
    let drawn = draw(&graph()).expect("a string grows");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &drawn).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(committed == drawn, "{} is out of date: run this test with UPDATE=1, and look at it", path.display());
}
