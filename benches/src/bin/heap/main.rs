//! The allocations of the stacks, and the memory of the limiters. `benches` runs this and reads the one line of JSON that it prints.
//!
//! `heap allocations` counts allocations; `heap memory` measures the limiters.

mod allocations;
mod memory;

fn main() {
    let figures = match std::env::args().nth(1).as_deref() {
        Some("allocations") => allocations::figures(),
        Some("memory") => memory::figures(),
        _ => {
            eprintln!("Usage: heap allocations | memory");
            std::process::exit(2);
        }
    };
    println!("{figures}");
}
