//! Runs the program with the counting allocator, and reads its output.

use std::{
    env,
    process::{Command, Stdio},
};

use benches::measure::time::Case;
use serde_json::Value;

/// The output of the other program for this command. Cargo builds it first, so it is up to date.
fn run(command: &str) -> Value {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["run", "--release", "--quiet", "--package", "benches", "--bin", "heap", "--", command])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "`heap {command}` failed: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Allocations a request, of all stacks.
pub(crate) struct Allocations(Value);

impl Allocations {
    pub(crate) fn count() -> Self {
        Self(run("allocations"))
    }

    /// The allocations of the stack itself.
    pub(crate) fn of(&self, case: Case) -> f64 {
        self.figure(case, "count")
    }

    /// The bytes that the stack itself allocates.
    pub(crate) fn bytes(&self, case: Case) -> f64 {
        self.figure(case, "bytes")
    }

    fn figure(&self, case: Case, name: &str) -> f64 {
        self.0[case.to_string()][name].as_f64().unwrap()
    }
}

/// The memory of the limiters, by the figure's name.
pub(crate) fn memory() -> serde_json::Map<String, Value> {
    run("memory").as_object().unwrap().clone()
}
