//! How many hashes of legacy keys run for callers that have hung up.

use std::fs;

use http::StatusCode;
use tests::hosts::within;
use tollgate::{
    Answer, KeyVerifier, MemoryKeys, Principal,
    denial::Unavailable,
    key::Digest,
    store::{LegacyHashes, LegacyKey, LegacyKeys},
};

use super::{How, flood::Flood, format, serve, status};

/// Two legacy keys: one with a slow hash, and one with a fast hash.
#[derive(Clone)]
struct Table(MemoryKeys);

const SECRET_OF_SHA_256: &str = "m3Rt9pQw.the-secret-of-the-third";
const SHA_256: &str = "7ddd26e2dd2f0f8f1cb39ea1214bf433deb03d86e482aa90db94b83e0e2b8156";
/// No secret is known for it. Its cost is 8, which takes 10 ms, and much longer without optimization.
const BCRYPT: &str = "$2b$08$dCPfA0AOv3umHkom2Ke4N.rNWYcqud1qcXq7FxbMTNzOS6IB3x2Ee";

impl LegacyKeys for Table {
    fn candidates(&self, prefix: &str) -> Answer<Result<Vec<LegacyKey>, Unavailable>> {
        Answer::Now(Ok(match prefix {
            "k7Fq2xYz" => vec![LegacyKey::new("slow", BCRYPT)],
            "m3Rt9pQw" => vec![LegacyKey::new("fast", SHA_256)],
            _ => Vec::new(),
        }))
    }

    fn upgrade(&self, id: &str, _digest: Digest) -> Answer<Result<(), Unavailable>> {
        self.0.import(SECRET_OF_SHA_256, Principal::new(id));
        Answer::Now(Ok(()))
    }
}

fn guess(number: u64) -> String {
    format!("k7Fq2xYz.guess-{number}")
}

/// The number of threads of this process. Each hash takes one.
fn threads() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
    threads.trim().parse().unwrap()
}

/// Regression: a caller that hung up took its permit with it, while its hash went on. 437 of 800 such hashes ran at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_do_not_run_more_hashes_than_the_limit() {
    let cores = std::thread::available_parallelism().unwrap().get();
    for how in How::BOTH {
        let keys = MemoryKeys::new();
        let legacy = LegacyHashes::new(Table(keys.clone())).with_prefix(|secret| secret.get(..8));
        let server = serve(KeyVerifier::new(format(), keys).with_legacy(legacy), None).await;
        let before = threads();
        let flood = Flood::start(how, server, guess);
        flood.reaches(800).await;
        let during = threads();
        // Half of the cores hash. A thread whose hash has just ended may not be idle yet when the next one begins.
        assert!(during <= before + cores + 4, "{how:?}: {before} threads, then {during}");
        // Its hash waits for one other at most: no abandoned guess is hashed any more.
        let first_use = within(status(server, SECRET_OF_SHA_256)).await;
        assert_eq!(first_use, StatusCode::OK, "{how:?}");
        flood.stop().await;
    }
}
