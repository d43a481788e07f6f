//! What public traces can say about the axes of a workload: which axes they support, where their requests lie, and that
//! a script of its own, over the raw files, finds the same. The tables of `docs/concepts/axes.md` are printed here.

mod common;
mod parquet_rows;
mod traces;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use traces::{Clock, Figures, TRACES, figures};

const PAGE: &str = "docs/concepts/axes.md";
const BLESS: &str = "WEIR_BLESS=1 cargo test --workspace --test axis_traces";
const AXES: [&str; 7] = ["chat_agent", "turns", "cache", "phase", "modality", "reasoning", "provider"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository").to_owned()
}

/// Every trace's figures, computed once; `None` after saying that there is no data.
fn all_figures() -> Option<&'static [Figures]> {
    static ALL: OnceLock<Option<Vec<Figures>>> = OnceLock::new();
    let compute = || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
        TRACES
            .iter()
            .map(|trace| Some(runtime.block_on(figures(trace, &weir_tests::shared_data(trace.folder)?))))
            .collect()
    };
    ALL.get_or_init(compute).as_deref()
}

/// How much of the trace has a value on each axis; "-" where none has.
fn axis_by_trace(all: &[Figures]) -> String {
    let mut table = String::from("| trace | requests |");
    AXES.iter().for_each(|axis| write!(table, " {axis} |").expect("a string takes text"));
    table.push_str(" prompt CDF | arrivals |\n| --- | ---: |");
    table.push_str(&" ---: |".repeat(AXES.len()));
    table.push_str(" --- | --- |\n");
    for of in all {
        write!(table, "| {} | {} |", of.name, of.requests).expect("a string takes text");
        for axis in AXES {
            let known: i64 = of.placed.iter().filter(|(place, _)| place.0 == axis).map(|(_, requests)| requests).sum();
            let share = 100.0 * known as f64 / of.requests as f64;
            let cell = if known == 0 { "-".to_owned() } else { format!("{share:.1} %") };
            write!(table, " {cell} |").expect("a string takes text");
        }
        let yes = |supported| if supported { "yes" } else { "-" };
        let cdf = of.has_prompts && of.clock != Clock::PerSession;
        writeln!(table, " {} | {} |", yes(cdf), yes(of.clock == Clock::Common)).expect("takes text");
    }
    table
}

fn values_by_trace(all: &[Figures]) -> String {
    let mut table = String::from("| trace | axis | value | rule | requests |\n| --- | --- | --- | --- | ---: |\n");
    for of in all {
        for ((axis, value, rule), requests) in &of.placed {
            writeln!(table, "| {} | {axis} | {value} | `{rule}` | {requests} |", of.name).expect("takes text");
        }
    }
    table
}

fn arrivals_by_trace(all: &[Figures]) -> String {
    let mut table = String::from(
        "| trace | dispersion at 1 s | 10 s | 60 s | 600 s | sliding hours | below | dispersed | above |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for of in all.iter().filter(|of| of.clock == Clock::Common) {
        let dispersion = |window_s: i64| {
            of.dispersion.get(&window_s).map_or_else(|| "-".to_owned(), |dispersion| format!("{dispersion:.2}"))
        };
        let windows = |archetype: &str| of.archetypes.values().filter(|(found, _)| found == archetype).count();
        let [below, dispersed, above] = ["concentrated_below", "dispersed", "concentrated_above"].map(windows);
        let [one, ten, minute, ten_minutes] = [1, 10, 60, 600].map(dispersion);
        let (name, hours) = (of.name, of.archetypes.len());
        writeln!(
            table,
            "| {name} | {one} | {ten} | {minute} | {ten_minutes} | {hours} | {below} | {dispersed} | {above} |"
        )
        .expect("a string takes text");
    }
    table
}

/// `page` with `table` between the two comments that name it.
fn with_table(page: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("{PAGE} lacks {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{PAGE} lacks {end}"));
    format!("{before}{begin}\n{table}\n{end}{after}")
}

#[test]
fn the_page_of_axes_prints_what_the_traces_support() {
    let Some(all) = all_figures() else { return };
    let path = repository().join(PAGE);
    let written = std::fs::read_to_string(&path).expect("the page can be read");
    let mut page = written.clone();
    for (name, table) in [
        ("axis by trace", axis_by_trace(all)),
        ("values by trace", values_by_trace(all)),
        ("arrivals by trace", arrivals_by_trace(all)),
    ] {
        println!("{table}");
        page = with_table(&page, name, &table);
    }
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    } else {
        assert!(page == written, "the tables of {PAGE} are old: {BLESS} rewrites them");
    }
}

/// What the reference says of a figure: the least and the most that it may be.
type Bounds = BTreeMap<(String, String), (f64, f64)>;

fn bounds_of(text: &str) -> Bounds {
    let number = |text: &str| text.parse::<f64>().expect("a number");
    let bound = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [trace, figure, least, most] = cells[..] else { panic!("four columns, not: {line}") };
        ((trace.to_owned(), figure.to_owned()), (number(least), number(most)))
    };
    text.lines().map(bound).collect()
}

#[test]
fn a_script_over_the_raw_files_finds_the_same_axes() {
    let Some(all) = all_figures() else { return };
    let Some(data) = weir_tests::shared("data") else { return };
    let Some(text) = weir_tests::reference("axes.py", &data) else { return };
    let bounds = bounds_of(&text);
    let covered: BTreeSet<&str> = bounds.keys().map(|(trace, _)| trace.as_str()).collect();
    assert!(covered.len() >= 5, "the reference covers {covered:?} only");
    let mut compared = 0;
    for of in all.iter().filter(|of| covered.contains(of.name)) {
        let ours = of.comparable();
        let theirs: BTreeMap<&str, (f64, f64)> = bounds
            .iter()
            .filter(|((trace, _), _)| trace == of.name)
            .map(|((_, figure), bounds)| (figure.as_str(), *bounds))
            .collect();
        let names = |figures: BTreeSet<&str>| figures.into_iter().map(str::to_owned).collect::<BTreeSet<String>>();
        let (mine, others) =
            (names(ours.keys().map(String::as_str).collect()), names(theirs.keys().copied().collect()));
        assert_eq!(mine, others, "{}: the views and the reference have other figures", of.name);
        for (figure, value) in ours {
            let (least, most) = theirs[figure.as_str()];
            assert!(
                (least..=most).contains(&value),
                "{} {figure}: {value}, the reference says {least} to {most}",
                of.name
            );
            compared += 1;
        }
    }
    println!("{compared} figures of {} traces agree with the reference", covered.len());
}
