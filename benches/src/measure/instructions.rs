//! Instructions per request, counted by valgrind's callgrind. Unlike time, they are the same on every run.
//!
//! The program runs itself again under callgrind with one stack, and callgrind collects only while requests are served. Two
//! corrections: functions of the allocator are left out, because their work depends on what was freed before; and each block of
//! SHA-256 counts as 200 instructions, because valgrind hides the CPU's SHA instructions, and the software fallback takes 3,368.

use std::{
    collections::{BTreeMap, HashMap},
    env, fs,
    process::{Command, Stdio},
};

use super::{of_each, time::Case};
use crate::drive::{self, Stack};

/// The number of requests in the average.
const REQUESTS: usize = 2_048;

/// The instructions that one block of SHA-256 counts as, and about how many valgrind runs for it.
const PER_BLOCK: f64 = 200.0;
const PER_BLOCK_IN_SOFTWARE: f64 = 3_368.0;

/// Whether valgrind is installed.
pub fn is_available() -> bool {
    version().is_some()
}

/// The version of valgrind.
pub fn version() -> Option<String> {
    let output = Command::new("valgrind").arg("--version").stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The instructions of some cases per request, without the allocator's.
#[derive(Debug)]
pub struct Instructions(HashMap<Case, f64>);

impl Instructions {
    /// Counts those of `cases`, and of what is taken off them.
    pub fn count(cases: &[Case]) -> Self {
        Self(of_each(cases, |case| Profile::of(case).total()))
    }

    /// The stack's own.
    pub fn own(&self, case: Case) -> f64 {
        self.0[&case] - self.0[&case.base()]
    }
}

/// The stack's own instructions per request, without the allocator's.
pub fn own(case: Case) -> f64 {
    Instructions::count(&[case]).own(case)
}

/// Instructions per request by function, without its callees.
#[derive(Debug)]
pub struct Profile {
    by_function: BTreeMap<String, f64>,
}

impl Profile {
    /// Counts in a separate process.
    pub fn of(case: Case) -> Self {
        let Case { stack, scenario, has_id } = case;
        let (scenario, id) = (scenario.name(), if has_id { "id" } else { "no-id" });
        let name = format!("tollgate-callgrind-{}-{stack}-{scenario}-{id}", std::process::id());
        let file = env::temp_dir().join(name);
        let status = Command::new("valgrind")
            .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*collected_by_callgrind*"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(env::current_exe().unwrap())
            .args(["serve", stack, scenario, id])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "valgrind failed on the stack {stack}: {status}");
        let text = fs::read_to_string(&file).unwrap();
        fs::remove_file(&file).unwrap();
        Self { by_function: counted(&text) }
    }

    /// All functions together.
    pub fn total(&self) -> f64 {
        self.by_function.values().sum()
    }

    /// The functions that take more here than in `base`, most first.
    pub fn beyond(&self, base: &Self) -> Vec<(&str, f64)> {
        let before = |name: &str| base.by_function.get(name).copied().unwrap_or_default();
        let own = self.by_function.iter().map(|(name, cost)| (&**name, cost - before(name)));
        let mut own: Vec<_> = own.filter(|(_, cost)| cost.abs() >= 1.0).collect();
        own.sort_by(|a, b| b.1.total_cmp(&a.1));
        own
    }
}

/// The main function under callgrind.
pub fn serve(case: Case) {
    let mut stack = crate::stacks::named(case.stack).unwrap().build(case.scenario);
    drive::warm_up(&mut *stack, case.scenario, case.has_id);
    let mut requests = drive::requests(case.scenario, case.has_id, REQUESTS);
    collected_by_callgrind(&mut *stack, &mut requests, case);
}

/// Callgrind finds this function by its name. It must not be inlined, and must not define a closure, whose name would contain its
/// own.
#[inline(never)]
fn collected_by_callgrind(stack: &mut dyn Stack, requests: &mut Vec<axum::extract::Request>, case: Case) {
    stack.serve(requests, case.scenario.status());
}

/// Instructions per request by function, from callgrind's output (see "Callgrind Format Specification" in its manual).
fn counted(text: &str) -> BTreeMap<String, f64> {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut costs: BTreeMap<&str, f64> = BTreeMap::new();
    let (mut function, mut is_of_a_callee) = ("", false);
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            function = expand(name, &mut names);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            expand(name, &mut names);
        } else if line.starts_with("calls=") {
            // The next line is the cost of the callee, which has its own lines, too.
            is_of_a_callee = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<f64>().ok()).unwrap_or_default();
            if !std::mem::take(&mut is_of_a_callee) {
                *costs.entry(function).or_default() += cost / REQUESTS as f64;
            }
        }
    }
    let sha256: f64 = costs.iter().filter(|(name, _)| is_sha256(name)).map(|(_, cost)| cost).sum();
    let others = costs.into_iter().filter(|(name, _)| !is_allocator(name) && !is_sha256(name));
    let mut counted: BTreeMap<String, f64> = others.map(|(name, cost)| (name.to_owned(), cost)).collect();
    counted.insert("SHA-256".to_owned(), (sha256 / PER_BLOCK_IN_SOFTWARE).round() * PER_BLOCK);
    counted
}

/// A name is written once as `(7) name`, and later as `(7)`.
fn expand<'t>(written: &'t str, names: &mut HashMap<&'t str, &'t str>) -> &'t str {
    let (number, name) = written.split_once(' ').unwrap_or((written, ""));
    if name.is_empty() {
        names.get(number).copied().unwrap_or(number)
    } else {
        names.insert(number, name);
        name
    }
}

fn is_sha256(name: &str) -> bool {
    name.contains("sha2::") && name.contains("compress")
}

/// The functions of glibc's allocator, and of Rust that call them.
fn is_allocator(name: &str) -> bool {
    // A recursion is written as `name'2`, a versioned symbol as `name@@version`.
    let name = name.split(['\'', '@']).next().unwrap_or(name);
    let is_glibc = [
        "malloc",
        "free",
        "calloc",
        "realloc",
        "memalign",
        "posix_memalign",
        "aligned_alloc",
        "_int_malloc",
        "_int_free",
        "_int_realloc",
        "_int_memalign",
        "malloc_consolidate",
        "unlink_chunk",
        "sysmalloc",
        "systrim",
        "tcache_init",
        "cfree",
    ];
    is_glibc
        .iter()
        .any(|own| name == *own || name.strip_prefix(own).is_some_and(|rest| rest.starts_with('.')))
        || ["__rust_alloc", "__rust_dealloc", "__rust_realloc", "__rdl_"].iter().any(|own| name.contains(own))
}
