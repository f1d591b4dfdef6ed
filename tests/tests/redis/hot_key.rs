//! Four processes that share the quota of one key: in no window do they admit more together, and where there is demand, hardly less.
//!
//! All is read from the logs of the processes.

use std::{collections::BTreeMap, path::Path, process::Stdio, time::Duration};

use tests::{cases, hosts::within, redis::Redis};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

const PROCESSES: u32 = 4;
/// Requests per second of each process.
const RATE: u32 = 2_500;
/// In each second, for all processes. They ask for five times as much.
const LIMIT: u64 = 2_000;
const WINDOW: u128 = 1_000_000_000;

/// How many requests all processes send.
fn requests() -> u32 {
    cases(40_000, 200_000)
}

/// A process of the program `instance`. Killed when dropped.
struct Instance {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Instance {
    async fn start(redis: &Redis, leases: &str, log: &Path) -> Self {
        let numbers = [requests() / PROCESSES, RATE].map(|number| number.to_string());
        let mut child = Command::new(env!("CARGO_BIN_EXE_instance"))
            .args([&redis.url(), leases])
            .arg(log)
            .args(&numbers)
            .args([&LIMIT.to_string(), "1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut instance = Self { child, input, lines: BufReader::new(output).lines() };
        assert_eq!(instance.line().await, "ready");
        instance
    }

    async fn begin(&mut self) {
        self.input.write_all(b"begin\n").await.unwrap();
    }

    async fn line(&mut self) -> String {
        within(self.lines.next_line()).await.unwrap().unwrap()
    }

    /// Waits for its end: how many requests it has sent, admitted, and failed to decide.
    async fn end(&mut self) -> [u64; 3] {
        let line = tokio::time::timeout(Duration::from_mins(5), self.lines.next_line()).await;
        let line = line.unwrap().unwrap().unwrap();
        let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        numbers.try_into().unwrap()
    }
}

/// What the logs say of one window.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    asked: u64,
    admitted: u64,
}

/// All windows of some logs, by their ends.
fn windows(logs: &[impl AsRef<Path>]) -> BTreeMap<u128, Count> {
    let mut windows = BTreeMap::<u128, Count>::new();
    for log in logs {
        for line in std::fs::read_to_string(log).unwrap().lines() {
            let fields: Vec<_> = line.split(' ').collect();
            let (at, ends): (u128, u128) = (fields[0].parse().unwrap(), fields[1].parse().unwrap());
            assert!(ends - WINDOW <= at && at < ends, "a decision is in the window that counts it: {line}");
            let window = windows.entry(ends).or_default();
            window.asked += 1;
            window.admitted += u64::from(fields[2] == "admitted");
        }
    }
    windows
}

/// The windows that were whole, and in which more was asked for than the quota.
fn busy(windows: &BTreeMap<u128, Count>) -> BTreeMap<u128, Count> {
    let (first, last) = (windows.keys().next(), windows.keys().next_back());
    let is_whole = |ends: &u128| Some(ends) != first && Some(ends) != last;
    let busy = windows.iter().filter(|(ends, count)| is_whole(ends) && count.asked > LIMIT * 5 / 4);
    busy.map(|(ends, count)| (*ends, *count)).collect()
}

fn never_above(windows: &BTreeMap<u128, Count>) {
    for (ends, count) in windows {
        assert!(count.admitted <= LIMIT, "in the window until {ends}: {count:?}");
    }
}

/// How many commands the server has run.
pub(crate) async fn trips(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]).await;
    let calls = stats.lines().filter_map(|line| line.strip_prefix("cmdstat_eval")?.split_once("calls="));
    calls.map(|(_, rest)| rest.split(',').next().unwrap().parse::<u64>().unwrap()).sum()
}

async fn share(leases: &str) {
    let (redis, folder) = (Redis::start().await, tempfile::tempdir().unwrap());
    let logs = [0, 1, 2, 3].map(|number| folder.path().join(format!("{number}.log")));
    let mut instances = Vec::new();
    for log in &logs {
        instances.push(Instance::start(&redis, leases, log).await);
    }
    for instance in &mut instances {
        instance.begin().await;
    }
    let mut totals = [0, 0, 0];
    for instance in &mut instances {
        for (total, count) in totals.iter_mut().zip(instance.end().await) {
            *total += count;
        }
    }
    let [sent, admitted, failed] = totals;
    let (windows, trips) = (windows(&logs), trips(&redis).await);
    let busy = busy(&windows);
    eprintln!(
        "leases {leases}: {sent} requests, {admitted} admitted, {trips} trips, {}.{} admitted per trip; busy windows of {LIMIT}: {:?}",
        admitted / trips,
        admitted * 10 / trips % 10,
        busy.values().map(|count| count.admitted).collect::<Vec<_>>()
    );
    assert_eq!((sent, failed), (requests().into(), 0));
    assert_eq!(windows.values().map(|count| count.admitted).sum::<u64>(), admitted, "all is in the logs");
    never_above(&windows);
    assert!(!busy.is_empty(), "{windows:?}");
    for count in busy.values() {
        let least = if leases == "off" { LIMIT } else { LIMIT - LIMIT / 100 };
        assert!(count.admitted >= least, "{count:?}");
    }
}

#[tokio::test]
async fn four_processes_without_leases_admit_exactly_the_quota() {
    share("off").await;
}

#[tokio::test]
async fn four_processes_with_leases_for_busy_subjects_admit_at_most_the_quota_and_at_least_99_percent() {
    share("auto").await;
}

#[tokio::test]
async fn four_processes_with_leases_for_all_admit_at_most_the_quota_and_at_least_99_percent() {
    share("always").await;
}

/// A process that is killed while it holds leases: what it has borrowed is lost until the window ends, and nothing else is.
#[tokio::test]
async fn a_killed_process_strands_at_most_its_leases() {
    let (redis, folder) = (Redis::start().await, tempfile::tempdir().unwrap());
    let logs = [0, 1, 2, 3].map(|number| folder.path().join(format!("{number}.log")));
    let mut instances = Vec::new();
    for log in &logs {
        instances.push(Instance::start(&redis, "always", log).await);
    }
    for instance in &mut instances {
        instance.begin().await;
    }
    let ends = until_it_spends(&logs[0]).await;
    instances[0].child.kill().await.unwrap();
    for instance in &mut instances[1..] {
        assert_eq!(instance.end().await[2], 0);
    }
    let windows = windows(&logs);
    never_above(&windows);
    let busy = busy(&windows);
    let admitted: Vec<_> = busy.values().map(|count| count.admitted).collect();
    eprintln!(
        "killed in a window that admitted {} of {LIMIT}; busy windows: {admitted:?}",
        windows[&ends].admitted
    );
    assert!(windows[&ends].admitted >= LIMIT - LIMIT / 100 - MOST_STRANDED);
    for count in busy.iter().filter(|(other, _)| **other != ends).map(|(_, count)| count) {
        assert!(count.admitted >= LIMIT - LIMIT / 100, "{count:?}");
    }
}

/// What a killed process can hold, and no other can have until the window ends: a lease is at most an eighth of what remains.
const MOST_STRANDED: u64 = LIMIT / 8;

/// Waits until a process is halfway, and has begun to spend the quota of a new window. Returns the end of that window.
async fn until_it_spends(log: &Path) -> u128 {
    let half = u64::from(requests() / PROCESSES / 2);
    within(async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let mut file = std::fs::read_to_string(log).unwrap();
            // The process is writing: the last line may not be whole yet.
            file.truncate(file.rfind('\n').map_or(0, |end| end + 1));
            let admitted = |line: &str| {
                let fields: Vec<_> = line.split(' ').collect();
                (fields[2] == "admitted").then(|| fields[1].parse::<u128>().unwrap())
            };
            let ends: Vec<u128> = file.lines().filter_map(admitted).collect();
            let (Some(first), Some(last)) = (ends.first(), ends.last()) else { continue };
            let of_last = ends.iter().filter(|ends| *ends == last).count();
            let is_new = last != first && (20..100).contains(&of_last);
            if is_new && file.lines().count() as u64 >= half {
                return *last;
            }
        }
    })
    .await
}
