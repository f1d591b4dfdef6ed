//! The load: `wrk`, and its report.

use std::process::{Command, Stdio};

use benches::drive::PATH;

use super::Server;

/// The answers of a server.
#[derive(Debug, PartialEq)]
pub(super) struct Load {
    pub(super) requests: f64,
    pub(super) requests_per_second: f64,
}

/// Whether `wrk` is installed.
pub(super) fn is_available() -> bool {
    // `wrk --version` exits with an error.
    Command::new("wrk").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

impl Load {
    /// Sends requests as fast as the server answers, over a few connections, for this duration.
    pub(super) fn put_on(server: &Server, seconds: u32) -> Self {
        let headers = [
            "user-agent: python-requests/2.32.3",
            "accept: application/json",
            "accept-encoding: gzip, deflate, br",
            "x-forwarded-for: 203.0.113.7",
            "x-request-id: 0192a3b4-c5d6-7e8f-9012-3456789abcde",
            &format!("authorization: Bearer {}", server.key),
        ];
        let output = Command::new("wrk")
            .args(["--threads", "1", "--connections", "32", "--timeout", "2s"])
            .args(["--duration", &format!("{seconds}s")])
            .args(headers.into_iter().flat_map(|header| ["--header", header]))
            .arg(format!("http://{}{PATH}", server.address))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "wrk failed: {}", String::from_utf8_lossy(&output.stderr));
        Self::read(&said).unwrap_or_else(|| panic!("not every request was answered with a success:\n{said}"))
    }

    /// Parses the report of `wrk`. `None` if it reports failed answers or connections.
    fn read(said: &str) -> Option<Self> {
        let is_complaint = |line: &str| line.contains("Non-2xx") || line.contains("Socket errors");
        if said.lines().any(is_complaint) {
            return None;
        }
        let lines = || said.lines().map(str::trim);
        let (requests, _) = lines().find_map(|line| line.split_once(" requests in "))?;
        let per_second = lines().find_map(|line| line.strip_prefix("Requests/sec:"))?;
        Some(Self { requests: requests.parse().ok()?, requests_per_second: per_second.trim().parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
Running 3s test @ http://127.0.0.1:40000/v1/jobs/17
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   101.01us   20.05us   1.10ms   91.87%
    Req/Sec    77.75k     3.40k   84.31k    67.74%
  239743 requests in 3.10s, 29.03MB read
Requests/sec:  77338.33
Transfer/sec:      9.37MB
";

    #[test]
    fn reads_what_wrk_says() {
        let load = Load { requests: 239_743.0, requests_per_second: 77_338.33 };
        assert_eq!(Load::read(SAID), Some(load));
    }

    /// A server that refuses must not be measured.
    #[test]
    fn takes_no_figure_from_refusals_and_broken_connections() {
        for complaint in
            ["  Non-2xx or 3xx responses: 1\n", "  Socket errors: connect 0, read 1, write 0, timeout 0\n"]
        {
            assert_eq!(Load::read(&format!("{SAID}{complaint}")), None);
        }
    }
}
