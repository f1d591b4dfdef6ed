//! Measures Tollgate. `benches help` lists what it can do.

use std::process::ExitCode;

use benches::{
    cast::Scenario,
    measure::{instructions, lines, time::Case},
    stacks,
};

mod guard;
mod heap;
mod loopback;
mod picture;
mod summary;
mod tables;

const USAGE: &str = "\
Usage: cargo run --release -p benches -- COMMAND

  summary              what matters, as one line of JSON, in about three minutes
  time                 the time of every stack in every scenario, as a table
  threads              how much more two threads get done than one, on one subject and on a million
  allocations          the allocations of every stack in every scenario, as a table
  instructions         the instructions of every stack, as a table (needs valgrind)
  lines                the cache lines of code and data that a request touches in each whole stack, over an empty service and
                       on a router, beside its instructions and allocations (needs valgrind; three minutes)
  picture              the time, allocations and instructions of the allowed path, as docs/performance.svg
  loopback             the processor's time that stacks add to a request of a real server (needs wrk; two minutes)
  profile STACK [SCENARIO]
                       the instructions of one stack, by function (needs valgrind)
  record               writes the figures that are the same on every run to benches/recorded.json
  check                fails if the allowed path allocates more often than recorded, takes over 3 % more instructions or
                       touches over 5 % more cache lines of code or 12 % more of data, or if the floor costs more than a
                       floor may
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["summary"] => println!("{}", summary::line()),
        ["time"] => tables::time(),
        ["threads"] => tables::threads(),
        ["allocations"] => tables::allocations(),
        ["instructions"] => tables::instructions(),
        ["lines"] => tables::lines(),
        ["picture"] => picture::write(),
        ["profile", stack] => return profile(stack, "allowed"),
        ["profile", stack, scenario] => return profile(stack, scenario),
        ["record"] => guard::record(),
        ["check"] => return guard::check(),
        // What `instructions` runs under valgrind.
        ["serve", stack, scenario, id] => match case(stack, scenario, id) {
            Some(case) => instructions::serve(case),
            None => return usage(),
        },
        // What `lines` runs under valgrind.
        ["serve-traced", stack, scenario, id] => match case(stack, scenario, id) {
            Some(case) => lines::serve(case),
            None => return usage(),
        },
        ["loopback"] => return loopback::compare(),
        // What `loopback` puts under load.
        ["serve-http", stack] => match stacks::served(stack) {
            Some(router) => loopback::serve(router),
            None => return usage(),
        },
        ["help" | "--help" | "-h"] => print!("{USAGE}"),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    let names: Vec<_> = stacks::ALL.iter().map(|known| known.name).collect();
    eprint!("{USAGE}\nStacks: {}\n", names.join(", "));
    ExitCode::from(2)
}

fn profile(stack: &str, scenario: &str) -> ExitCode {
    let Some(case) = case(stack, scenario, "id") else { return usage() };
    tables::profile(case);
    ExitCode::SUCCESS
}

fn case(stack: &str, scenario: &str, id: &str) -> Option<Case> {
    let stack = stacks::named(stack)?.name;
    let scenario = Scenario::ALL.into_iter().find(|known| known.name() == scenario)?;
    Some(Case { stack, scenario, has_id: id == "id" })
}
