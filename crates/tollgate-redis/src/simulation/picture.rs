//! The figures as a picture: what is admitted and what it takes, by the number of processes, in two panels for each load.
//!
//! It is plain SVG, written without a library. A style sheet follows the reader's colour scheme, and the picture has its own
//! background, so that it is readable wherever it is embedded.

use std::fmt::Write as _;

use super::{
    Sharing,
    load::Load,
    page::{Point, points},
};

/// Draws the tables of the page.
pub(super) fn draw(tables: &str) -> String {
    Picture::new(Load::ALL.map(|load| points(tables, load))).draw()
}

struct Picture {
    loads: [Vec<Point>; 3],
    admitted: Scale,
    trips: Scale,
}

/// The values at the bottom and at the top of a panel, and between two of its lines.
struct Scale {
    bottom: f64,
    top: f64,
    step: f64,
}

impl Scale {
    /// From at most `bottom` to at least the greatest value.
    fn around(values: impl Iterator<Item = f64> + Clone, bottom: f64, step: f64) -> Self {
        let least = values.clone().fold(bottom, f64::min);
        let most = values.fold(bottom + step, f64::max);
        Self { bottom: (least / step).floor() * step, top: (most / step).ceil() * step, step }
    }

    /// Where a value is, from 0 at the bottom to 1 at the top.
    fn share(&self, value: f64) -> f64 {
        (value - self.bottom) / (self.top - self.bottom)
    }

    fn lines(&self) -> impl Iterator<Item = f64> {
        let lines = ((self.top - self.bottom) / self.step).round() as u32;
        (0..=lines).map(|line| self.bottom + f64::from(line) * self.step)
    }
}

// --- Where everything is ------------------------------------------------------------------------------------

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 28.0;

/// The panels: one column for each load, one row for each figure.
const PANEL_WIDTH: f64 = 236.0;
const PANEL_HEIGHT: f64 = 150.0;
const COLUMNS: [f64; 3] = [72.0, 334.0, 596.0];
const ROWS: [f64; 2] = [208.0, 424.0];
/// Left and right of the points, within a panel.
const INSET: [f64; 2] = [24.0, 46.0];

const FOOT: f64 = 626.0;
const HEIGHT: f64 = 684.0;

const TITLE: &str = "One limit across many processes, simulated";

const STYLE: &str = "
  text { font: 14px system-ui, -apple-system, 'Segoe UI', 'Noto Sans', 'DejaVu Sans', sans-serif; fill: #1f2328 }
  .title { font-size: 19px; font-weight: 600 }
  .panel { font-weight: 600 }
  .faint { font-size: 12px; fill: #59636e }
  .number { font-size: 12px; font-variant-numeric: tabular-nums }
  .end { text-anchor: end }
  .middle { text-anchor: middle }
  .card { fill: #ffffff; stroke: #d1d9e0 }
  .rule { stroke: #d1d9e0 }
  .quota { stroke: #1f2328; stroke-dasharray: 5 3 }
  .line, .reach { fill: none; stroke: currentColor }
  .line { stroke-width: 2 }
  .mark { fill: currentColor; stroke: currentColor; stroke-width: 2 }
  .mark.script { fill: none }
  .number { fill: currentColor }
  .leases { color: #0a69da }
  .script { color: #59636e }
  .synchronisation { color: #bc4c00 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .faint { fill: #9198a1 }
    .card { fill: #0d1117; stroke: #3d444d }
    .rule { stroke: #3d444d }
    .quota { stroke: #e6edf3 }
    .leases { color: #4493f8 }
    .script { color: #9198a1 }
    .synchronisation { color: #f0883e }
  }
";

/// The order of drawing. The smallest mark comes last, on top of the others.
const BOTTOM_UP: [Sharing; 3] = [Sharing::Synchronisation, Sharing::Script, Sharing::Leases];

fn class(sharing: Sharing) -> &'static str {
    match sharing {
        Sharing::Leases => "leases",
        Sharing::Script => "script",
        Sharing::Synchronisation => "synchronisation",
    }
}

// --- How it is drawn ----------------------------------------------------------------------------------------

impl Picture {
    fn new(loads: [Vec<Point>; 3]) -> Self {
        let all = || loads.iter().flatten();
        let admitted = Scale::around(all().flat_map(|point| [point.admitted, point.most]), 98.0, 2.0);
        let trips = Scale::around(all().map(|point| point.trips), 0.0, 0.2);
        Self { loads, admitted, trips }
    }

    fn draw(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"title desc\">\n\
             <title id=\"title\">{TITLE}</title>\n<desc id=\"desc\">{}</desc>\n<style>{STYLE}</style>\n",
            self.says()
        );
        let (inner_width, inner_height) = (WIDTH - 1.0, HEIGHT - 1.0);
        let _ = writeln!(
            svg,
            "<rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"{inner_width}\" height=\"{inner_height}\" rx=\"8\"/>"
        );
        head(&mut svg);
        for ((load, points), left) in Load::ALL.into_iter().zip(&self.loads).zip(COLUMNS) {
            text(&mut svg, left, ROWS[0] - 58.0, "panel", load.title());
            text(&mut svg, left, ROWS[0] - 40.0, "faint", load.requests());
            self.draw_admitted(&mut svg, left, points);
            self.draw_trips(&mut svg, left, points);
            text(&mut svg, left + PANEL_WIDTH / 2.0, FOOT - 16.0, "faint middle", "processes");
        }
        foot(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn draw_admitted(&self, svg: &mut String, left: f64, points: &[Point]) {
        let panel = Panel { left, top: ROWS[0], scale: &self.admitted };
        panel.draw_lines(svg, |value| format!("{value:.0} %"));
        let quota = panel.y(100.0);
        line(svg, "quota", [left, left + PANEL_WIDTH], [quota, quota]);
        text(svg, left + PANEL_WIDTH, quota - 6.0, "faint end", "quota");
        panel.draw_processes(svg, points);
        for sharing in BOTTOM_UP {
            let points = of(points, sharing);
            let reach = format!("reach {}", class(sharing));
            // From the mean up to the most.
            for (point, x) in
                points.iter().zip(panel.places(points.len())).filter(|(point, _)| point.most > point.admitted)
            {
                let (mean, most) = (panel.y(point.admitted), panel.y(point.most));
                line(svg, &reach, [x, x], [mean, most]);
                line(svg, &reach, [x - 4.0, x + 4.0], [most, most]);
            }
            panel.draw_series(svg, sharing, points.iter().map(|point| point.admitted));
        }
    }

    fn draw_trips(&self, svg: &mut String, left: f64, points: &[Point]) {
        let panel = Panel { left, top: ROWS[1], scale: &self.trips };
        panel.draw_lines(svg, |value| format!("{value:.1}"));
        panel.draw_processes(svg, points);
        let mut last = Vec::new();
        for sharing in BOTTOM_UP {
            let points = of(points, sharing);
            panel.draw_series(svg, sharing, points.iter().map(|point| point.trips));
            last.extend(points.last().map(|point| (panel.y(point.trips), sharing, point.trips)));
        }
        // The numbers of the last points, one above the other.
        last.sort_by(|one, other| other.0.total_cmp(&one.0));
        let mut lowest = f64::MAX;
        for (y, sharing, trips) in last {
            lowest = y.min(lowest - 14.0);
            let x = left + PANEL_WIDTH - INSET[1] + 10.0;
            text(svg, x, lowest + 4.0, &format!("number {}", class(sharing)), &format!("{trips:.2}"));
        }
    }

    /// The picture as text, for screen readers.
    fn says(&self) -> String {
        let mut says = String::from(
            "Admitted in percent of the quota, on average and at most, and trips to Redis per request.",
        );
        for (load, points) in Load::ALL.into_iter().zip(&self.loads) {
            let _ = write!(says, " {}, {}:", load.title(), load.requests());
            for (point, end) in points.iter().zip((1..).map(|at| if at == points.len() { "." } else { ";" }))
            {
                let Point { sharing, processes, admitted, most, trips } = point;
                let name = sharing.name();
                let _ = write!(
                    says,
                    " {processes} processes, {name}: {admitted:.1} %, {most:.1} %, {trips:.2} trips{end}"
                );
            }
        }
        says
    }
}

fn of(points: &[Point], sharing: Sharing) -> Vec<&Point> {
    points.iter().filter(|point| point.sharing == sharing).collect()
}

fn head(svg: &mut String) {
    text(svg, MARGIN, 42.0, "title", TITLE);
    let axes = "Windows have 10 s. Vertical lines reach from the mean of all windows to the most in one. Numbers are those of 3,000 processes.";
    text(svg, MARGIN, 66.0, "faint", axes);
    let mut x = MARGIN + 8.0;
    for (sharing, width) in Sharing::ALL.into_iter().zip([130.0, 210.0, 0.0]) {
        line(svg, &format!("line {}", class(sharing)), [x - 8.0, x + 24.0], [96.0, 96.0]);
        mark(svg, sharing, x + 8.0, 96.0);
        text(svg, x + 32.0, 101.0, "", sharing.name());
        x += width;
    }
    let end = WIDTH - MARGIN;
    line(svg, "rule", [MARGIN, end], [120.0, 120.0]);
    text(svg, MARGIN, ROWS[0] - 14.0, "faint", "Admitted, in percent of the quota");
    text(svg, MARGIN, ROWS[1] - 14.0, "faint", "Trips to Redis per request");
}

fn foot(svg: &mut String) {
    line(svg, "rule", [MARGIN, WIDTH - MARGIN], [FOOT, FOOT]);
    let code = "Leases and the script run the code of tollgate-redis. Redis, the network and the callers are simulated, without faults.";
    text(svg, MARGIN, FOOT + 22.0, "faint", code);
    let command = "TOLLGATE_LONG=1 cargo test --release -p tollgate-redis --lib simulation";
    text(svg, MARGIN, FOOT + 41.0, "faint", command);
}

struct Panel<'s> {
    left: f64,
    top: f64,
    scale: &'s Scale,
}

impl Panel<'_> {
    fn y(&self, value: f64) -> f64 {
        self.top + (1.0 - self.scale.share(value)) * PANEL_HEIGHT
    }

    /// From left to right. Each number of processes is ten times the one before.
    fn places(&self, count: usize) -> impl Iterator<Item = f64> + use<> {
        let width = PANEL_WIDTH - INSET[0] - INSET[1];
        let (first, step) = (self.left + INSET[0], width / count.saturating_sub(1).max(1) as f64);
        (0..count).map(move |place| first + place as f64 * step)
    }

    /// The lines of the scale, with their values left of the first panel.
    fn draw_lines(&self, svg: &mut String, label: impl Fn(f64) -> String) {
        for value in self.scale.lines() {
            let y = self.y(value);
            line(svg, "rule", [self.left, self.left + PANEL_WIDTH], [y, y]);
            if self.left == COLUMNS[0] {
                text(svg, self.left - 8.0, y + 4.0, "faint end", &label(value));
            }
        }
    }

    fn draw_processes(&self, svg: &mut String, points: &[Point]) {
        let points = of(points, Sharing::Leases);
        let y = self.top + PANEL_HEIGHT + 18.0;
        for (point, x) in points.iter().zip(self.places(points.len())) {
            text(svg, x, y, "faint middle", &point.processes);
        }
    }

    fn draw_series(&self, svg: &mut String, sharing: Sharing, values: impl ExactSizeIterator<Item = f64>) {
        let places: Vec<_> = self.places(values.len()).zip(values.map(|value| self.y(value))).collect();
        let corners: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ =
            writeln!(svg, "<polyline class=\"line {}\" points=\"{}\"/>", class(sharing), corners.join(" "));
        for (x, y) in places {
            mark(svg, sharing, x, y);
        }
    }
}

/// A point. The marks differ in form, too, and those of equal values are all seen.
fn mark(svg: &mut String, sharing: Sharing, x: f64, y: f64) {
    let class = class(sharing);
    let _ = match sharing {
        Sharing::Leases => {
            writeln!(svg, "<circle class=\"mark {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>")
        }
        Sharing::Script => {
            let (left, top) = (x - 6.0, y - 6.0);
            writeln!(
                svg,
                "<rect class=\"mark {class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"12\" height=\"12\"/>"
            )
        }
        Sharing::Synchronisation => {
            let (left, right, top, bottom) = (x - 5.0, x + 5.0, y - 5.0, y + 4.0);
            writeln!(
                svg,
                "<path class=\"mark {class}\" d=\"M{x:.1} {top:.1}L{right:.1} {bottom:.1}H{left:.1}Z\"/>"
            )
        }
    };
}

fn line(svg: &mut String, class: &str, [x1, x2]: [f64; 2], [y1, y2]: [f64; 2]) {
    let _ = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{x1:.1}\" x2=\"{x2:.1}\" y1=\"{y1:.1}\" y2=\"{y2:.1}\"/>"
    );
}

/// Text without characters that have a meaning in SVG.
fn text(svg: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>");
}
