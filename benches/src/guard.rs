//! Compares the allowed path with recorded figures. Only figures that are the same on every run are compared.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use benches::{
    cast::Scenario,
    measure::{
        instructions::{self, Instructions},
        lines::{Lines, Touched},
        time::Case,
    },
};
use serde_json::{Value, json};

use crate::heap::Allocations;

/// The allowed growth of an instruction count, because compilers and machines differ a little.
const INSTRUCTIONS_MAY_GROW: f64 = 1.03;

/// The allowed growth of a count of lines: where functions and heap blocks begin within a line changes with every change of the
/// program, and where constants are also changes with the folder in which it is built.
const CODE_LINES_MAY_GROW: f64 = 1.05;
const DATA_LINES_MAY_GROW: f64 = 1.12;

/// The maximum cost of the floor, for a request with an ID. A floor that is too high makes every comparison look better.
const FLOOR_MAY_ALLOCATE: [(&str, f64); 2] = [("floor", 2.0), ("floor-3", 2.0)];
const FLOOR_MAY_TAKE: [(&str, f64); 2] = [("floor", 2_400.0), ("floor-3", 2_600.0)];

/// The names of the recorded figures, and their requests.
fn held() -> [(&'static str, Case); 7] {
    let (built, separate) = (Case::allowed("built"), Case::allowed("separate"));
    [
        ("cached_key", built.when(Scenario::CachedKey)),
        ("cached_token", built.when(Scenario::CachedToken)),
        ("credits", Case::allowed("credits")),
        ("built", built),
        ("built_no_id", built.without_id()),
        ("separate", separate),
        ("separate_no_id", separate.without_id()),
    ]
}

/// A figure of a request's trace that is held.
struct Traced {
    name: &'static str,
    figure: fn(Touched) -> f64,
    may_grow: f64,
}

const TRACED: [Traced; 3] = [
    Traced { name: "code_lines", figure: |touched| touched.code, may_grow: CODE_LINES_MAY_GROW },
    Traced { name: "data_lines", figure: |touched| touched.data, may_grow: DATA_LINES_MAY_GROW },
    Traced {
        name: "instructions_with_allocator",
        figure: |touched| touched.instructions,
        may_grow: INSTRUCTIONS_MAY_GROW,
    },
];

/// The requests whose traces are held: over an empty service, and on a router as in a server.
fn held_traced() -> [(&'static str, Case); 4] {
    ["built", "separate", "router-built", "router-separate"].map(|stack| (stack, Case::allowed(stack)))
}

/// Records today's figures.
pub(crate) fn record() {
    assert!(instructions::is_available(), "recording needs valgrind; install it and record again");
    let allocations = Allocations::count();
    let mut recorded = json!({ "toolchain": toolchain() });
    let instructions = Instructions::count(&held().map(|(_, case)| case));
    for (name, case) in held() {
        recorded["allocations"][name] = rounded(allocations.of(case)).into();
        recorded["instructions"][name] = rounded(instructions.own(case)).into();
    }
    let lines = Lines::measure(&held_traced().map(|(_, case)| case));
    for traced in TRACED {
        for (name, case) in held_traced() {
            recorded[traced.name][name] = rounded((traced.figure)(lines.own(case))).into();
        }
    }
    let text = serde_json::to_string_pretty(&recorded).unwrap() + "\n";
    fs::write(file(), &text).unwrap();
    print!("{text}");
}

/// Compares today's figures with the recorded ones, and the floor's figures with their limits.
pub(crate) fn check() -> ExitCode {
    let text = fs::read_to_string(file()).expect("run the command `record` first, which writes this file");
    let recorded: Value = serde_json::from_str(&text).unwrap();
    let allocations = Allocations::count();
    let mut is_kept =
        compare("allocations", &limits(&recorded, "allocations", 1.0, &held()), |case| allocations.of(case));
    is_kept &= compare("allocations", &FLOOR_MAY_ALLOCATE.map(of_floor), |case| allocations.of(case));
    match reason_to_skip_instructions(&recorded["toolchain"]) {
        None => {
            let mut instructions_held = limits(&recorded, "instructions", INSTRUCTIONS_MAY_GROW, &held());
            instructions_held.extend(FLOOR_MAY_TAKE.map(of_floor));
            let cases: Vec<Case> = instructions_held.iter().map(|limit| limit.case).collect();
            let instructions = Instructions::count(&cases);
            is_kept &= compare("instructions", &instructions_held, |case| instructions.own(case));
            let lines = Lines::measure(&held_traced().map(|(_, case)| case));
            for Traced { name, figure, may_grow } in TRACED {
                let traced_held = limits(&recorded, name, may_grow, &held_traced());
                is_kept &= compare(name, &traced_held, |case| figure(lines.own(case)));
            }
        }
        Some(reason) => println!("Instructions and cache lines are not compared: {reason}."),
    }
    if is_kept {
        return ExitCode::SUCCESS;
    }
    println!("Find out what costs more: `cargo run --release -p benches -- profile built`.");
    println!("If the cost is justified, record the new figures: `cargo run --release -p benches -- record`.");
    println!("The floor's limits are constants in guard.rs: if the floor exceeds them, make it cheaper.");
    ExitCode::FAILURE
}

/// The maximum of a figure.
struct Limit {
    name: &'static str,
    case: Case,
    most: f64,
}

fn limits(recorded: &Value, what: &str, may_grow: f64, held: &[(&'static str, Case)]) -> Vec<Limit> {
    let limit = |&(name, case): &(&'static str, Case)| {
        let before = recorded[what][name].as_f64();
        let before = before.expect("run the command `record` again: a figure is missing");
        Limit { name, case, most: before * may_grow }
    };
    held.iter().map(limit).collect()
}

fn of_floor((name, most): (&'static str, f64)) -> Limit {
    Limit { name, case: Case::allowed(name), most }
}

/// Prints each figure. Returns whether all are within their limits.
fn compare(what: &str, limits: &[Limit], measure: impl Fn(Case) -> f64) -> bool {
    let mut is_kept = true;
    for &Limit { name, case, most } in limits {
        let now = rounded(measure(case));
        let is_more = now > most;
        is_kept &= !is_more;
        let verdict = if is_more { "MORE THAN ALLOWED" } else { "ok" };
        println!("{what:<27} {name:<15} {most:>9.2} at most {now:>9.2} now  {verdict}");
    }
    is_kept
}

fn reason_to_skip_instructions(recorded: &Value) -> Option<String> {
    if !instructions::is_available() {
        return Some("valgrind is not installed".to_owned());
    }
    let now = toolchain();
    let recorded = recorded.as_str().unwrap_or("an unknown toolchain");
    (now != recorded).then(|| format!("they were recorded with {recorded}, not with {now}"))
}

/// What determines the instructions of a program, besides its source.
pub(crate) fn toolchain() -> String {
    let rustc = first_line("rustc", &["--version"]).unwrap_or_default();
    let libc = first_line("getconf", &["GNU_LIBC_VERSION"]).unwrap_or_default();
    let valgrind = instructions::version().unwrap_or_default();
    format!("{rustc}, {}, {libc}, {valgrind}", std::env::consts::ARCH)
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

/// Rounded to 0.01, so that something that happens once in 1,000 requests does not count as growth.
fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded.json")
}
