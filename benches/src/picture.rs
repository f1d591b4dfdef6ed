//! The cost of the allowed path as one picture: a bar for each stack's own time, and its other figures as numbers.
//!
//! It is plain SVG, written without a library. A style sheet follows the reader's colour scheme, and the picture has its own
//! background, so that it is readable wherever it is embedded.

use std::{
    fmt::{self, Write},
    fs,
    path::{Path, PathBuf},
};

use benches::measure::{
    instructions,
    time::{Case, Times},
};

use crate::{guard::toolchain, heap::Allocations};

/// Measures, draws, and prints the path of the picture.
pub(crate) fn write() {
    let picture = Picture::measure();
    fs::write(file(), picture.to_string()).unwrap();
    for panel in &picture.panels {
        println!("{}", panel.says());
    }
    println!("docs/performance.svg is written.");
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.svg")
}

// --- What is shown ------------------------------------------------------------------------------------------

/// The stacks from top to bottom: the name on the command line, the label, and whether it is Tollgate's.
const STACKS: [(&str, &str, Whose); 5] = [
    ("floor", "The floor, one fused function", Whose::Others),
    ("built", "Tollgate, as one stack", Whose::Ours),
    ("separate", "Tollgate, as six layers", Whose::Ours),
    ("peers", "tower-http and tower_governor", Whose::Others),
    ("handwritten", "Four axum from_fn, by hand", Whose::Others),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Others,
}

/// One panel for requests with an ID, one for requests without.
struct Picture {
    panels: [Panel; 2],
    /// The value of the longest bar.
    longest: f64,
    toolchain: String,
}

struct Panel {
    title: &'static str,
    rows: Vec<Row>,
}

struct Row {
    label: &'static str,
    whose: Whose,
    over_floor: f64,
    allocations: f64,
    /// `None` if valgrind is missing.
    instructions: Option<f64>,
}

impl Picture {
    fn measure() -> Self {
        let allocations = Allocations::count();
        let panels = [("Requests with an identifier", true), ("Requests without one", false)]
            .map(|(title, has_id)| Panel::measure(title, has_id, &allocations));
        let ratios = panels.iter().flat_map(|panel| &panel.rows).map(|row| row.over_floor);
        let longest = ratios.fold(1.0, f64::max);
        Self { panels, longest, toolchain: toolchain() }
    }
}

impl Panel {
    fn measure(title: &'static str, has_id: bool, allocations: &Allocations) -> Self {
        // Few enough that no caller uses up its minute.
        const ROUNDS: usize = 4_000;
        let case = |stack| Case { has_id, ..Case::allowed(stack) };
        let times = Times::measure(&STACKS.map(|(stack, ..)| case(stack)), ROUNDS);
        let row = |(stack, label, whose)| Row {
            label,
            whose,
            over_floor: times.ratio(case(stack), case(stack).floor()),
            allocations: allocations.of(case(stack)),
            instructions: instructions::is_available().then(|| instructions::own(case(stack))),
        };
        Self { title, rows: STACKS.map(row).into() }
    }

    /// The panel as text, for screen readers.
    fn says(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(Row::says).collect();
        format!("{}: {}.", self.title, rows.join("; "))
    }
}

impl Row {
    fn says(&self) -> String {
        let Self { label, over_floor, allocations, .. } = self;
        let instructions = self.instructions.map(|count| format!(", {} instructions", grouped(count)));
        let instructions = instructions.unwrap_or_default();
        format!("{label}: {over_floor:.1} times the floor's time, {allocations:.0} allocations{instructions}")
    }
}

// --- How it is drawn ----------------------------------------------------------------------------------------

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 28.0;

/// The columns: where labels begin, bars begin and end at most, and numbers end.
const BARS: f64 = 276.0;
const BARS_END: f64 = 600.0;
const ALLOCATIONS: f64 = 726.0;
const INSTRUCTIONS: f64 = WIDTH - MARGIN;

/// Heights, from the top.
const HEAD: f64 = 96.0;
const PANEL_HEAD: f64 = 42.0;
const ROW: f64 = 30.0;
const BAR: f64 = 18.0;
const PANEL_FOOT: f64 = 20.0;
const FOOT: f64 = 58.0;

const TITLE: &str = "What guarding a request costs";

const STYLE: &str = "
  text { font: 14px system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif; fill: #1f2328 }
  .title { font-size: 19px; font-weight: 600 }
  .panel { font-weight: 600 }
  .faint { font-size: 12px; fill: #59636e }
  .number { text-anchor: end; font-variant-numeric: tabular-nums }
  .ours { font-weight: 600 }
  .card { fill: #ffffff; stroke: #d1d9e0 }
  .rule { stroke: #d1d9e0 }
  .one { stroke: #59636e; stroke-dasharray: 2 3 }
  rect.others { fill: #afb8c1 }
  rect.ours { fill: #0a69da }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .faint { fill: #9198a1 }
    .card { fill: #0d1117; stroke: #3d444d }
    .rule { stroke: #3d444d }
    .one { stroke: #9198a1 }
    rect.others { fill: #656c76 }
    rect.ours { fill: #4493f8 }
  }
";

impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heights = self.panels.iter().map(Panel::height);
        let height = HEAD + heights.sum::<f64>() + FOOT;
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"title desc\">"
        )?;
        writeln!(f, "<title id=\"title\">{TITLE}</title>")?;
        let said: Vec<_> = self.panels.iter().map(Panel::says).collect();
        writeln!(f, "<desc id=\"desc\">{}</desc>", escaped(&said.join(" ")))?;
        writeln!(f, "<style>{STYLE}</style>")?;
        let (inner_width, inner_height) = (WIDTH - 1.0, height - 1.0);
        writeln!(
            f,
            "<rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"{inner_width}\" height=\"{inner_height}\" rx=\"8\"/>"
        )?;
        head(f)?;
        let mut top = HEAD;
        for panel in &self.panels {
            panel.draw(f, top, self.longest)?;
            top += panel.height();
        }
        self.foot(f, top)?;
        writeln!(f, "</svg>")
    }
}

fn head(f: &mut impl Write) -> fmt::Result {
    text(f, MARGIN, 42.0, "title", TITLE)?;
    let units =
        "Time a request takes beyond the service itself, as a multiple of the floor's. Shorter is better.";
    text(f, MARGIN, 66.0, "faint", units)?;
    rule(f, HEAD - 12.0)
}

impl Picture {
    fn foot(&self, f: &mut impl Write, top: f64) -> fmt::Result {
        rule(f, top)?;
        let job = "All of them take or make an identifier, check an API key, its plan and its scope, and count one window.";
        text(f, MARGIN, top + 22.0, "faint", job)?;
        text(f, MARGIN, top + 41.0, "faint", &self.toolchain)
    }
}

impl Panel {
    fn height(&self) -> f64 {
        PANEL_HEAD + self.rows.len() as f64 * ROW + PANEL_FOOT
    }

    fn draw(&self, f: &mut impl Write, top: f64, longest: f64) -> fmt::Result {
        let baseline = top + 22.0;
        text(f, MARGIN, baseline, "panel", self.title)?;
        text(f, BARS, baseline, "faint", "times the floor's time")?;
        text(f, ALLOCATIONS, baseline, "faint number", "allocations")?;
        text(f, INSTRUCTIONS, baseline, "faint number", "instructions")?;

        let rows = top + PANEL_HEAD;
        for (row, number) in self.rows.iter().zip(0_u8..) {
            row.draw(f, rows + f64::from(number) * ROW, longest)?;
        }
        // A line over the bars, at the value of the floor.
        let (one, bottom) = (BARS + length(1.0, longest), rows + self.rows.len() as f64 * ROW);
        writeln!(f, "<line class=\"one\" x1=\"{one:.1}\" x2=\"{one:.1}\" y1=\"{rows}\" y2=\"{bottom}\"/>")
    }
}

impl Row {
    fn draw(&self, f: &mut impl Write, top: f64, longest: f64) -> fmt::Result {
        let whose = match self.whose {
            Whose::Ours => "ours",
            Whose::Others => "others",
        };
        let (middle, width) = (top + ROW / 2.0, length(self.over_floor, longest));
        let (baseline, bar) = (middle + 5.0, middle - BAR / 2.0);
        text(f, MARGIN, baseline, whose, self.label)?;
        writeln!(
            f,
            "<rect class=\"{whose}\" x=\"{BARS}\" y=\"{bar}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/>"
        )?;
        text(f, BARS + width + 8.0, baseline, whose, &format!("{:.1}", self.over_floor))?;
        text(f, ALLOCATIONS, baseline, "number", &format!("{:.0}", self.allocations))?;
        let instructions = self.instructions.map_or_else(|| "\u{2013}".to_owned(), grouped);
        text(f, INSTRUCTIONS, baseline, "number", &instructions)
    }
}

/// The width of a bar. The longest bar leaves room for its number.
fn length(over_floor: f64, longest: f64) -> f64 {
    const NUMBER: f64 = 36.0;
    (BARS_END - BARS - NUMBER) * over_floor / longest
}

fn text(f: &mut impl Write, x: f64, y: f64, class: &str, text: &str) -> fmt::Result {
    writeln!(f, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(text))
}

fn rule(f: &mut impl Write, y: f64) -> fmt::Result {
    let end = WIDTH - MARGIN;
    writeln!(f, "<line class=\"rule\" x1=\"{MARGIN}\" x2=\"{end}\" y1=\"{y}\" y2=\"{y}\"/>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A number below a million, with a comma before the last three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    match digits.len().checked_sub(3) {
        Some(at @ 1..) => format!("{},{}", &digits[..at], &digits[at..]),
        _ => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_thousands() {
        assert_eq!([7.0, 999.4, 1_000.0, 21_171.0].map(grouped), ["7", "999", "1,000", "21,171"]);
    }

    /// The longest bar and its number stay left of the columns of numbers, for any time.
    #[test]
    fn the_longest_bar_leaves_room_for_its_number() {
        for longest in [1.0, 8.3, 99.9] {
            assert!(length(longest, longest) + 36.0 <= BARS_END - BARS);
            assert!(length(1.0, longest) > 0.0);
        }
    }
}
