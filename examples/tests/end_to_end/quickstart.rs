//! `quickstart`: the curl commands that it prints, run unchanged.

use tokio::{io::AsyncBufReadExt, process::Command};

use crate::service::{Service, output};

#[tokio::test]
async fn printed_curl_commands_get_the_described_answers() {
    let mut service = Service::start("quickstart").await;
    let lines = printed_curl_commands(&mut service).await;

    // Twice, because a second run must show the same.
    for _ in 0..2 {
        let answer = run(&lines[0]).await;
        assert_eq!(statuses(&answer), [200], "{answer}");
        assert_eq!(values(&answer, "x-ratelimit-limit"), ["60"]);
        assert_eq!(values(&answer, "x-ratelimit-remaining").len(), 1);
        assert_eq!(values(&answer, "x-ratelimit-reset").len(), 1);
        assert_eq!(values(&answer, "x-request-id").len(), 1);

        let answer = run(&lines[1]).await;
        assert_eq!(statuses(&answer), [401], "{answer}");
        assert_eq!(values(&answer, "www-authenticate"), [r#"Bearer realm="api""#]);
        assert_eq!(values(&answer, "content-type"), ["application/problem+json"]);
        assert_eq!(values(&answer, "x-request-id").len(), 1);

        let answer = run(&lines[2]).await;
        assert_eq!(statuses(&answer), [403], "{answer}");
        let challenge = r#"Bearer realm="api",error="insufficient_scope",scope="admin""#;
        assert_eq!(values(&answer, "www-authenticate"), [challenge]);

        let answer = run(&lines[3]).await;
        let refusals = statuses(&answer).iter().filter(|status| **status == 429).count();
        assert!(refusals > 0, "{answer}");
        let waits = values(&answer, "retry-after");
        assert_eq!(waits.len(), refusals, "every 429 says how long to wait, and no 200 does");
        assert!(waits.iter().all(|wait| (1..=60).contains(&wait.parse::<u64>().unwrap())), "{waits:?}");
    }
    service.end().await;
}

#[tokio::test]
async fn exits_with_a_message_on_an_unknown_argument() {
    let output = output("quickstart", &["--bogus"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--bogus"));
}

#[tokio::test]
async fn help_lists_the_argument() {
    let output = output("quickstart", &["--help"]).await;
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("--listen"));
}

/// They are on stderr before the ready line, which has been read.
async fn printed_curl_commands(service: &mut Service) -> Vec<String> {
    let mut curl_lines = Vec::new();
    while curl_lines.len() < 4 {
        let mut line = String::new();
        assert!(
            service.stderr.as_mut().unwrap().read_line(&mut line).await.unwrap() > 0,
            "fewer than four curl commands"
        );
        curl_lines.extend(line.starts_with("curl").then_some(line));
    }
    let mut closing = String::new();
    service.stderr.as_mut().unwrap().read_line(&mut closing).await.unwrap();
    assert_eq!(closing, "\n", "no more than four curl commands");
    curl_lines
}

/// Runs a command. Repeats it if the key lookup timed out, which can happen on a busy machine.
async fn run(line: &str) -> String {
    for _ in 0..10 {
        let output = Command::new("sh").args(["-c", line]).output().await.unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        let answer = String::from_utf8(output.stdout).unwrap();
        if !statuses(&answer).contains(&503) {
            return answer;
        }
    }
    panic!("{line} is answered with 503 again and again");
}

fn statuses(answer: &str) -> Vec<u16> {
    let heads = answer.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 "));
    heads.map(|line| line[..3].parse().unwrap()).collect()
}

fn values<'a>(answer: &'a str, header: &str) -> Vec<&'a str> {
    answer
        .lines()
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| *name == header)
        .map(|(_, v)| v)
        .collect()
}
