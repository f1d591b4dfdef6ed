//! `fleet`: three processes that share the limits of one Redis.

use std::{collections::BTreeMap, path::Path};

use tokio::{io::AsyncBufReadExt, time::timeout};

use crate::{
    client::Client,
    oplive::bearer,
    scanr::numbers,
    service::{PATIENCE, Service, output},
};

/// The quota of the key `quiet`, per minute.
const QUIET: u64 = 20;

async fn clients(service: &Service) -> Vec<Client> {
    let mut clients = Vec::new();
    for url in service.announced("instances").as_array().unwrap() {
        clients.push(Client::connect_to(url.as_str().unwrap().strip_prefix("http://").unwrap()).await);
    }
    clients
}

fn is_running(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn all_instances_share_the_limit_of_a_key() {
    let mut service = Service::start_with("fleet", &["--load=0"]).await;
    let log = service.log();
    let processes = service.children().await;
    assert_eq!(processes.len(), 3, "Redis and two other instances");
    let mut clients = clients(&service).await;
    assert_eq!(clients.len(), 3);
    let key = bearer(service.key("quiet"));

    // By the reset of the window, in case a new minute begins.
    let mut admitted: BTreeMap<u64, [u64; 3]> = BTreeMap::new();
    for _ in 0..QUIET {
        for (at, client) in clients.iter_mut().enumerate() {
            let answer = client.get("/hello", &[("authorization", &key)]).await;
            let (limit, remaining, reset) = numbers(&answer);
            let of_instance = admitted.entry(reset).or_default();
            if answer.status == 200 {
                of_instance[at] += 1;
                assert_eq!(answer.body, format!("Hello from instance {}!\n", at + 1));
                assert_eq!(remaining, QUIET - of_instance.iter().sum::<u64>(), "{answer:?}");
            } else {
                assert_eq!((answer.status.as_u16(), remaining), (429, 0), "{answer:?}");
            }
            assert_eq!(limit, QUIET);
        }
    }
    let sums: Vec<u64> = admitted.values().map(|of_instance| of_instance.iter().sum()).collect();
    assert!(sums.iter().all(|sum| *sum <= QUIET) && sums.contains(&QUIET), "{admitted:?}");
    assert!(admitted.values().any(|of_instance| of_instance.iter().all(|sum| *sum > 0)), "{admitted:?}");

    drop(clients);
    service.end().await;
    assert!(!processes.into_iter().any(is_running), "it has ended its processes");
    assert!(log.await.unwrap().starts_with("Where the limits stand: tollgate limits show "));
}

#[tokio::test]
async fn the_lines_show_no_more_than_the_quota() {
    let mut service = Service::start("fleet").await;
    let mut lines = service.stderr.take().unwrap().lines();
    let mut ended = Vec::new();
    while ended.len() < 2 {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("no line").unwrap().unwrap();
        ended.extend(line.contains("the window has ended").then_some(line));
    }
    for line in ended {
        let (_, all) = line.split_once("| all: ").unwrap();
        let admitted: u64 = all.trim_start().split_once(" of 1000 admitted").unwrap().0.parse().unwrap();
        assert!((1..=1_000).contains(&admitted), "{line}");
    }
    service.terminate().await;
    let rest = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    service.ended().await;
    rest.await.unwrap();
}

#[tokio::test]
async fn says_what_to_do_if_redis_is_missing() {
    let output = output("fleet", &["--redis-server", "/nowhere/redis-server"]).await;
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    for expected in ["`/nowhere/redis-server` was not found", "install Redis", "--redis-server", "--redis "] {
        assert!(error.contains(expected), "{error}");
    }
}
