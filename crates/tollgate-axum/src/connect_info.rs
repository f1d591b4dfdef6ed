//! The address of the peer, as axum's server provides it.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use tollgate::request::RequestHead;

/// The address of the peer, for [`ClientAddress::of_peer`](tollgate::ClientAddress::of_peer).
///
/// `None` unless the router is served with `into_make_service_with_connect_info::<SocketAddr>()`:
///
/// ```no_run
/// use std::net::SocketAddr;
///
/// use axum::{Router, routing::get};
/// use tollgate::{AttemptLimitLayer, ClientAddress, PerWindow};
/// use tollgate_axum::peer_address;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let address = ClientAddress::of_peer(peer_address).with_trusted_proxies(["10.0.0.0/8"])?;
/// let app = Router::new()
///     .route("/", get(async || "Hello!"))
///     .layer(AttemptLimitLayer::new(1_000.per_minute(), address));
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
/// # Ok(())
/// # }
/// ```
pub fn peer_address(head: RequestHead<'_>) -> Option<IpAddr> {
    let ConnectInfo(peer) = head.extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(peer.ip())
}
