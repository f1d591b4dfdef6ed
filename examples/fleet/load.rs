//! A small load: more requests to the first instance than to the others.

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::{body::Bytes, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use support::Shutdown;
use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval, sleep},
};

/// The share of each instance, in percent.
const SHARES: [u32; 3] = [66, 24, 10];

/// Sends this many requests per second in sum until the shutdown.
pub(crate) fn start(urls: &[String], secret: &str, per_second: u32, shutdown: &Shutdown) {
    for (url, share) in urls.iter().zip(SHARES) {
        let address = url.trim_start_matches("http://").to_owned();
        let (authorization, mut shutdown) = (format!("Bearer {secret}"), shutdown.clone());
        // Nobody sends less than one request in this time.
        let Some(period) = Duration::from_secs(100).checked_div(per_second * share) else { return };
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.requested() => {}
                () = send(&address, &authorization, period) => {}
            }
        });
    }
}

/// Connects again when the connection is lost.
async fn send(address: &str, authorization: &str, period: Duration) {
    loop {
        if let Err(error) = send_until_lost(address, authorization, period).await {
            tracing::warn!("the load lost its connection to {address}: {error}");
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn send_until_lost(
    address: &str,
    authorization: &str,
    period: Duration,
) -> Result<(), Box<dyn std::error::Error>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut period = interval(period);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        let request = Request::get("/hello").header("host", address).header("authorization", authorization);
        sender.ready().await?;
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        response.into_body().collect().await?;
    }
}
