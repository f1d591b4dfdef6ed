//! The cost of a stack in a real server: the CPU time per request that it adds to a bare axum service.
//!
//! Each server is a separate process with one thread, so that the load generator, `wrk`, has its own core. Servers take turns
//! in random order over several rounds. Each turn starts a new process, because its place in memory affects its speed. The compared
//! figure is the CPU time that the kernel reports for the server, not the latency of a request, which is mostly waiting.
//!
//! Other work on the machine never makes a request cheaper: it empties caches, and makes the server wake up more often. The figure of
//! a server is therefore the lower quartile of its turns. The median shows the disturbance: if it is far from the quartile, measure
//! again.

use std::process::ExitCode;

use benches::{measure::median, random, stacks};
use serde_json::json;

mod load;
mod server;

use load::Load;
pub(crate) use server::serve;
use server::{Server, Used};

/// Enough that some are undisturbed; all together take about two minutes.
const ROUNDS: usize = 10;
const SECONDS: u32 = 2;

/// How long a new server gets load before the measurement.
const WARM_UP_SECONDS: u32 = 1;

/// Measures all servers, and prints a table and a line of JSON.
pub(crate) fn compare() -> ExitCode {
    if !load::is_available() {
        eprintln!(
            "the load generator `wrk` is missing. Install it (`apt-get install wrk`), then run this again."
        );
        return ExitCode::FAILURE;
    }
    let mut servers: Vec<Turns> =
        stacks::SERVED.iter().map(|stack| Turns { stack, turns: Vec::new() }).collect();
    let mut order: Vec<usize> = (0..servers.len()).collect();
    for _ in 0..ROUNDS {
        random::shuffle(&mut order);
        for &at in &order {
            let turn = Turn::take(servers[at].stack);
            servers[at].turns.push(turn);
        }
    }
    print(&servers);
    ExitCode::SUCCESS
}

/// All turns of one stack, by round.
struct Turns {
    stack: &'static str,
    turns: Vec<Turn>,
}

/// One server under load. Times are microseconds a request.
struct Turn {
    requests_per_second: f64,
    user: f64,
    system: f64,
}

impl Turn {
    fn take(stack: &str) -> Self {
        let server = Server::start(stack);
        Load::put_on(&server, WARM_UP_SECONDS);
        let before = server.used();
        let load = Load::put_on(&server, SECONDS);
        let Used { user, system } = server.used() - before;
        let a_request = |seconds: f64| seconds * 1e6 / load.requests;
        Self {
            requests_per_second: load.requests_per_second,
            user: a_request(user),
            system: a_request(system),
        }
    }

    fn user_and_system(&self) -> f64 {
        self.user + self.system
    }
}

impl Turns {
    fn median(&self, figure: impl Fn(&Turn) -> f64) -> f64 {
        median(self.turns.iter().map(figure).collect())
    }

    fn lower_quartile(&self, figure: impl Fn(&Turn) -> f64) -> f64 {
        let mut figures: Vec<f64> = self.turns.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 4]
    }
}

fn print(servers: &[Turns]) {
    println!("Microseconds of CPU time per request: the lower quartile of {ROUNDS} turns.");
    println!(
        "{:<12} {:>10} {:>11} {:>6} {:>12} {:>11} {:>10}",
        "server", "requests/s", "user median", "user", "user, system", "user added", "all added"
    );
    let quartiles =
        |turns: &Turns| (turns.lower_quartile(|turn| turn.user), turns.lower_quartile(Turn::user_and_system));
    let (bare_user, bare_all) = quartiles(servers.iter().find(|turns| turns.stack == "empty").unwrap());
    let mut figures = json!({});
    for turns in servers {
        let stack = turns.stack;
        let speed = turns.median(|turn| turn.requests_per_second);
        let (user_median, (user, all)) = (turns.median(|turn| turn.user), quartiles(turns));
        figures[format!("requests_per_second_{stack}")] = rounded(speed, 1.0);
        figures[format!("user_cpu_us_{stack}")] = rounded(user, 100.0);
        print!("{stack:<12} {speed:>10.0} {user_median:>11.2} {user:>6.2} {all:>12.2}");
        if stack != "empty" {
            let (user_added, all_added) = (user - bare_user, all - bare_all);
            print!(" {user_added:>+11.2} {all_added:>+10.2}");
            // The figures of other stacks have the stack's name; Tollgate's have none.
            let suffix = if stack == "built" { String::new() } else { format!("_{stack}") };
            figures[format!("user_cpu_added_us{suffix}")] = rounded(user_added, 100.0);
            figures[format!("cpu_added_us{suffix}")] = rounded(all_added, 100.0);
        }
        println!();
    }
    println!("{figures}");
}

fn rounded(figure: f64, parts: f64) -> serde_json::Value {
    ((figure * parts).round() / parts).into()
}
