//! The figures on the page of the design, which the long simulation writes.

use std::{fmt::Write as _, fs, path::PathBuf};

use super::{
    Sharing,
    figures::Figures,
    load::{Load, MILLIS},
};

/// Everything after it is written by the long simulation.
const MARK: &str = "<!-- The long simulation writes everything from here to the end of the page. -->\n";

const HEAD: &str = "\
| processes | | admitted | most | not used | of that, callers gone | trips per request | admissions per trip | longest wait | without Redis |
|---|---|---|---|---|---|---|---|---|---|
";

/// What begins a table.
pub(super) fn head(load: Load) -> String {
    format!("\n### {}\n\n{}, {}.\n\n{HEAD}", load.title(), load.requests(), load.subjects())
}

/// A row of a table.
pub(super) fn row(processes: usize, name: &str, figures: &Figures) -> String {
    let mut row = format!("| {} | {name} |", grouped(processes));
    for share in [figures.admitted, figures.most_admitted, figures.stranded, figures.abandoned] {
        let _ = write!(row, " {:.2} % |", share * 100.0);
    }
    let _ = writeln!(
        row,
        " {:.4} | {:.1} | {:.1} ms | {} |",
        figures.trips,
        figures.per_trip,
        figures.longest_wait as f64 / MILLIS as f64,
        figures.unanswered
    );
    row
}

/// A file beside the page of the design.
fn file(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../../docs/design", name].iter().collect()
}

pub(super) fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap()
}

/// Replaces the tables of the page, and the picture.
pub(super) fn write(tables: &str, picture: &str) {
    let page = read(PAGE);
    let (text, _) = page.split_once(MARK).unwrap();
    fs::write(file(PAGE), format!("{text}{MARK}{tables}")).unwrap();
    fs::write(file(PICTURE), picture).unwrap();
}

pub(super) const PAGE: &str = "distributed-limits.md";
pub(super) const PICTURE: &str = "distributed-limits.svg";

/// The tables of a page.
pub(super) fn tables_of(page: &str) -> &str {
    page.split_once(MARK).unwrap().1
}

/// What is drawn of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) sharing: Sharing,
    /// As it is written: `3,000`.
    pub(super) processes: String,
    /// In percent of the quota.
    pub(super) admitted: f64,
    pub(super) most: f64,
    pub(super) trips: f64,
}

/// The rows without faults in the table of a load.
pub(super) fn points(tables: &str, load: Load) -> Vec<Point> {
    let (_, table) = tables.split_once(&head(load)).unwrap();
    table.lines().take_while(|line| line.starts_with('|')).filter_map(Point::read).collect()
}

impl Point {
    fn read(row: &str) -> Option<Self> {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let number = |cell: &str| cell.trim_end_matches(" %").parse().unwrap();
        let ["", processes, name, admitted, most, _, _, trips, ..] = cells[..] else { panic!("{row}") };
        Some(Self {
            sharing: Sharing::ALL.into_iter().find(|sharing| sharing.name() == name)?,
            processes: processes.to_owned(),
            admitted: number(admitted),
            most: number(most),
            trips: number(trips),
        })
    }
}

/// A number below a million, with a comma before the last three digits.
fn grouped(number: usize) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},{:03}", number / 1_000, number % 1_000) }
}
