//! Clients' addresses as subjects of limits.

use std::sync::atomic::{AtomicU64, Ordering};

use tollgate_core::request::RequestHead;

use super::ClientAddress;

impl ClientAddress {
    /// The address of a request's client as a subject of `layer`. `None` if nobody knows it: the service is put together wrongly,
    /// of which the log tells.
    pub(crate) fn subject(&self, head: RequestHead<'_>, layer: &'static str) -> Option<String> {
        let found = self.find(head);
        if found.is_none() {
            report_missing(layer);
        }
        found.map(|address| address.to_string())
    }
}

/// A service that knows no addresses knows none for any request: after the first one, the log is told ever more rarely.
#[cold]
fn report_missing(layer: &'static str) {
    static MISSING: AtomicU64 = AtomicU64::new(0);
    let requests = MISSING.fetch_add(1, Ordering::Relaxed) + 1;
    if requests.is_power_of_two() {
        tracing::error!(
            target: "tollgate",
            layer,
            requests,
            "the client's address is not known, so that a limit by address does not hold: have the server attach the address of \
             the connection's other end (axum: serve the router by into_make_service_with_connect_info::<SocketAddr>()), and \
             give ClientAddress::of_peer a function that reads it"
        );
    }
}
