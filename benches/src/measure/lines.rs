//! The distinct cache lines that a request touches, and all of its instructions, read from valgrind's trace of memory.
//!
//! A hot loop keeps a stack's code and data in the first-level cache. A server does not: between two requests the kernel and the
//! HTTP library use that cache, too. There a request costs more, the more lines it touches.
//!
//! The program runs itself again under lackey with a single stack. Once the allocator and all tables are warm, it serves some
//! requests one by one, each between two writes to a marker, and this process reads the trace between the two. Code lines are
//! those of instructions, data lines those of loads and stores, the stack and the allocator included. A request is made just
//! before it is served, as in a server, so that the allocator already has the memory that it needs.
//!
//! How many lines a variable or a block of the heap touches depends on where it begins within a line. For the call stack the length
//! of the program's path and environment decides that, for the heap all that was allocated before. So there are four rounds, each
//! with a stack of its own, further down the call stack and elsewhere in the heap.
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

use sha2::block_api::compress256;

use super::{median, of_each, time::Case};
use crate::{
    drive::{self, Stack},
    stacks,
};

/// The bytes of a cache line.
const LINE: u64 = 64;

/// How many requests of a round are served one by one before those that are traced, beside [`drive::warm_up`].
const WARM_UP: usize = 16;

/// How many requests of a round are traced.
const TRACED: usize = 9;

/// What a request touches. Of each round the median is taken: a request that does what happens rarely, such as beginning a new window,
/// does not change it.
#[derive(Clone, Copy, Debug)]
pub struct Touched {
    /// Distinct lines of code: the mean of the rounds.
    pub code: f64,
    /// Distinct lines of data: the mean of the rounds.
    pub data: f64,
    /// Instructions, the allocator's included: the least of the rounds, because the allocator takes some 500 more in a few of them.
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
        Self(of_each(cases, trace))
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
    let rounds: Vec<&[Touched]> = touched.chunks(TRACED).collect();
    let medians = |figure: fn(&Touched) -> f64| -> Vec<f64> {
        rounds.iter().map(|round| median(round.iter().map(figure).collect())).collect()
    };
    let mean = |figures: Vec<f64>| figures.iter().sum::<f64>() / figures.len() as f64;
    Touched {
        code: mean(medians(|touched| touched.code)),
        data: mean(medians(|touched| touched.data)),
        instructions: medians(|touched| touched.instructions).into_iter().fold(f64::INFINITY, f64::min),
    }
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
    // The whole line at once, since the trace is written to the same place.
    let line = format!("{MARKER_IS_AT}{:x}\n", (&raw const MARKER).addr());
    io::stderr().write_all(line.as_bytes()).unwrap();
    MARKER.write();
    compress256(black_box(&mut [0; 8]), black_box(&[[0; 64]]));
    MARKER.write();
    // What the rounds allocate is kept, so that each lies elsewhere.
    let _kept = [round::<16>(case), round::<32>(case), round::<48>(case), round::<64>(case)];
}

/// Serves requests from `FURTHER` bytes further down the call stack, and gives back what is to be kept.
#[inline(never)]
fn round<const FURTHER: usize>(case: Case) -> (Vec<Vec<u8>>, Box<dyn Stack>) {
    black_box(&[0_u8; FURTHER]);
    // The allocator caches up to seven free blocks of each size. These take them all, so that the heap goes on in new places.
    let sizes = (16..=1_024).step_by(16).flat_map(|size| [size; 8]).chain([FURTHER]);
    let blocks = sizes.map(Vec::with_capacity).collect();

    let mut stack = stacks::named(case.stack).unwrap().build(case.scenario);
    drive::warm_up(&mut *stack, case.scenario, case.has_id);
    for number in 0..WARM_UP + TRACED {
        let mut request = drive::requests(case.scenario, case.has_id, 1);
        let is_traced = number >= WARM_UP;
        if is_traced {
            MARKER.write();
        }
        stack.serve(&mut request, case.scenario.status());
        if is_traced {
            MARKER.write();
        }
    }
    (blocks, stack)
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

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "\
==1== Lackey, an example Valgrind tool
I  00001000,4
 S 00009000,1
The marker is at 9000
I  00001000,4
 S 00009000,1
I  00002000,4
 L 00008000,8
I  00001004,4
 S 00009000,1
I  00001008,4
 S 00009000,1
I  00003000,4
I  0000303e,4
 S 00007000,8
 M 00007038,16
I  00002000,4
 L 00008000,8
I  00001004,4
 S 00009000,1
==1== Exit code:       0
";

    #[test]
    fn counts_only_what_happens_between_two_writes_to_the_marker() {
        let sections = sections(TRACE.as_bytes());
        let lengths: Vec<usize> = sections.iter().map(Vec::len).collect();
        assert_eq!(lengths, [3, 7]);
    }

    #[test]
    fn counts_each_line_once_and_both_lines_of_an_access_that_crosses_them() {
        let request = &sections(TRACE.as_bytes())[1];
        let touched = Touched::by(request, &HashSet::new());
        assert_eq!((touched.code, touched.data, touched.instructions), (4.0, 3.0, 4.0));
    }

    #[test]
    fn leaves_out_instructions_and_their_data() {
        let request = &sections(TRACE.as_bytes())[1];
        let touched = Touched::by(request, &HashSet::from([0x2000]));
        assert_eq!((touched.code, touched.data, touched.instructions), (3.0, 2.0, 3.0));
    }
}
