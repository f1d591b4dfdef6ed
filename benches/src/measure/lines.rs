//! The distinct cache lines that a request touches, and all of its instructions, read from valgrind's trace of memory.
//!
//! A hot loop keeps a stack's code and data in the first-level cache. A server does not: between two requests the kernel and the
//! HTTP library use that cache, too. There a request costs more, the more lines it touches.
//!
//! The program runs itself again under lackey with a single stack. Once the allocator and all tables are warm, it serves some
//! requests one by one, each between two writes to a marker, and this process reads the trace between the two. Code lines are
//! those of instructions, data lines those of loads and stores, the stack and the allocator included. A request is made just
//! before it is served, as in a server, so that the allocator has the memory at hand that it needs.
//!
//! How many lines a variable on the stack touches depends on where the stack begins, which the length of the program's path and
//! environment decides. So the requests are served from four depths of the stack, sixteen bytes apart.
//!
//! The compression function of SHA-256 is left out: valgrind hides the processor's own instructions for it, and the code that
//! runs in their place is ten times as long.

use std::{
    collections::{HashMap, HashSet},
    env,
    hint::black_box,
    io::{self, BufRead, BufReader, Write},
    ops::{RangeInclusive, Sub},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use axum::extract::Request;
use sha2::block_api::compress256;

use super::time::Case;
use crate::{
    drive::{self, Stack},
    stacks,
};

/// The bytes of a cache line.
const LINE: u64 = 64;

/// How many requests are served before those that are traced, beside [`drive::warm_up`].
const WARM_UP: usize = 128;

/// How many requests are traced at each depth of the stack.
const TRACED: usize = 16;

/// What a request touches: the mean of the middle half of those that were traced. The other half holds those that did what
/// happens rarely, such as beginning a new window.
#[derive(Clone, Copy, Debug)]
pub struct Touched {
    /// Distinct lines of code.
    pub code: f64,
    /// Distinct lines of data.
    pub data: f64,
    /// Instructions, the allocator's included.
    pub instructions: f64,
}

impl Sub for Touched {
    type Output = Self;

    fn sub(self, base: Self) -> Self {
        Self {
            code: self.code - base.code,
            data: self.data - base.data,
            instructions: self.instructions - base.instructions,
        }
    }
}

/// What some cases touch.
#[derive(Debug)]
pub struct Lines(HashMap<Case, Touched>);

impl Lines {
    /// Traces `cases`, and those that are taken off them, each in a process of its own.
    pub fn measure(cases: &[Case]) -> Self {
        let mut lines = HashMap::new();
        for case in cases.iter().flat_map(|case| [*case, case.base()]) {
            lines.entry(case).or_insert_with(|| trace(case));
        }
        Self(lines)
    }

    /// What the stack itself adds to what its base touches.
    pub fn own(&self, case: Case) -> Touched {
        self.0[&case] - self.0[&case.base()]
    }
}

fn trace(case: Case) -> Touched {
    let mut child = Command::new("valgrind")
        .args(["--tool=lackey", "--trace-mem=yes"])
        .arg(env::current_exe().unwrap())
        .args(["serve-traced", case.stack, case.scenario.name(), if case.has_id { "id" } else { "no-id" }])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let sections = sections(BufReader::with_capacity(1 << 20, child.stderr.take().unwrap()));
    let status = child.wait().unwrap();
    assert!(status.success(), "valgrind failed on the stack {}: {status}", case.stack);

    let (sha256, requests) = sections.split_first().expect("valgrind's trace shows no write to the marker");
    let sha256: HashSet<u64> =
        sha256.iter().filter(|access| access.is_code).map(|access| access.address).collect();
    let touched: Vec<Touched> = requests.iter().map(|request| Touched::by(request, &sha256)).collect();
    let usual = |figure: fn(&Touched) -> f64| mean_of_the_middle_half(touched.iter().map(figure).collect());
    Touched {
        code: usual(|touched| touched.code),
        data: usual(|touched| touched.data),
        instructions: usual(|touched| touched.instructions),
    }
}

fn mean_of_the_middle_half(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let quarter = figures.len() / 4;
    let middle = &figures[quarter..figures.len() - quarter];
    middle.iter().sum::<f64>() / middle.len() as f64
}

/// Written before and after what is to be counted.
static MARKER: Marker = Marker(AtomicBool::new(false));

struct Marker(AtomicBool);

impl Marker {
    fn write(&self) {
        black_box(self).0.store(true, Ordering::Relaxed);
    }
}

/// What the line begins with that says where the marker is.
const MARKER_IS_AT: &str = "The marker is at ";

/// What runs under lackey.
pub fn serve(case: Case) {
    let mut stack = stacks::named(case.stack).unwrap().build(case.scenario);
    drive::warm_up(&mut *stack, case.scenario, case.has_id);
    for _ in 0..WARM_UP {
        stack.serve(&mut one_request(case), case.scenario.status());
    }

    // The whole line at once, since the trace is written to the same place.
    let line = format!("{MARKER_IS_AT}{:x}\n", (&raw const MARKER).addr());
    io::stderr().write_all(line.as_bytes()).unwrap();
    MARKER.write();
    compress256(black_box(&mut [0; 8]), black_box(&[[0; 64]]));
    MARKER.write();
    for _ in 0..TRACED {
        serve_marked::<16>(&mut *stack, case);
        serve_marked::<32>(&mut *stack, case);
        serve_marked::<48>(&mut *stack, case);
        serve_marked::<64>(&mut *stack, case);
    }
}

/// Serves a request from `DEPTH` bytes further down the stack.
#[inline(never)]
fn serve_marked<const DEPTH: usize>(stack: &mut dyn Stack, case: Case) {
    let padding = [0_u8; DEPTH];
    black_box(&padding);
    let mut request = one_request(case);
    MARKER.write();
    stack.serve(&mut request, case.scenario.status());
    MARKER.write();
}

fn one_request(case: Case) -> Vec<Request> {
    drive::requests(case.scenario, case.has_id, 1)
}

/// What happens between two writes to the marker: first one block of SHA-256, then each request.
fn sections(mut output: impl BufRead) -> Vec<Vec<Access>> {
    let (mut sections, mut current, mut marker) = (Vec::new(), None, None);
    let mut line = String::new();
    while output.read_line(&mut line).unwrap() > 0 {
        if let Some(address) = line.strip_prefix(MARKER_IS_AT) {
            marker = Some(u64::from_str_radix(address.trim_end(), 16).unwrap());
        } else if let (Some(marker), Some(access)) = (marker, Access::read(line.trim_end())) {
            if access.address == marker {
                match current.take() {
                    Some(section) => sections.push(section),
                    None => current = Some(Vec::new()),
                }
            } else if let Some(section) = &mut current {
                section.push(access);
            }
        }
        line.clear();
    }
    sections
}

/// One access to memory.
#[derive(Clone, Copy, Debug)]
struct Access {
    /// Whether an instruction is fetched; otherwise one loads, stores or changes data.
    is_code: bool,
    address: u64,
    size: u64,
}

impl Access {
    /// Reads a line such as `I  0401ab70,3`, or ` S 1fff000778,8`.
    fn read(line: &str) -> Option<Self> {
        let (kind, place) = line.split_at_checked(3)?;
        let is_code = match kind {
            "I  " => true,
            " L " | " S " | " M " => false,
            _ => return None,
        };
        let (address, size) = place.split_once(',')?;
        Some(Self { is_code, address: u64::from_str_radix(address, 16).ok()?, size: size.parse().ok()? })
    }

    /// The lines that it touches.
    fn lines(self) -> RangeInclusive<u64> {
        self.address / LINE..=(self.address + self.size - 1) / LINE
    }
}

impl Touched {
    /// What `accesses` touch, without the instructions at the addresses `left_out` and their data.
    fn by(accesses: &[Access], left_out: &HashSet<u64>) -> Self {
        let (mut code, mut data, mut instructions) = (HashSet::new(), HashSet::new(), 0);
        let mut counts = true;
        for access in accesses {
            if access.is_code {
                // The accesses to data that follow are this instruction's.
                counts = !left_out.contains(&access.address);
                instructions += usize::from(counts);
            }
            if counts {
                let lines = if access.is_code { &mut code } else { &mut data };
                lines.extend(access.lines());
            }
        }
        Self { code: code.len() as f64, data: data.len() as f64, instructions: instructions as f64 }
    }
}
